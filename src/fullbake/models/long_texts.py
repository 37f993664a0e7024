"""The first and the last ids of a long text, from no more of the text than they need.

A truncating tokenizer still reads all of a text: 10 MB of dots take BERT's some 5 s and 7 GB. Here a growing piece is
tokenized until it gives enough ids that do not hang on the rest. There are two ways to know that they do not.

At a space after a visible character, where the pre-tokenizer splits, the text before and the text after are tokenized
apart. `SPARE` more ids than asked have to be there, against an added token that spans the space.

Within a word without end (dots, a script without spaces) no one cut is right, but among as many neighboring cuts as
the longest token has characters there is a border between tokens of the whole text, and up to it the piece has the
whole's ids: so WordPiece (greedy), Unigram (a best path begins with best paths) and BPE (no merge ever crossed the
border). What all these cuts have in common is therefore the whole's. Where they agree on too little (how Unigram parts
a run of dots may hang on their number) the piece grows, at last to the whole text: right before quick.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import takewhile
from typing import Any, Final

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

LONG_TEXT_CHARACTERS: Final = 1 << 16
"""Characters from which on a text is read by its ends; below it, reading all costs little."""

SPARE_TOKENS: Final = 64
"""Ids beyond those asked for that a piece has to give."""

_FIRST_PIECE = 8
"""Characters of the first piece for each id that is asked for."""

_LEAST_PIECE = 1024
_GROWTH = 4
_GAP = 64
"""Spaces in a row that stay where more of them change nothing."""

_BOUNDARY = re.compile(r"(?<=\S) ")
_PROBES = ("a b", "1 1", ". .", "é é", "漢 漢", "a. b", "<a> (b)")


class EndsOfText:
    """The ids of both ends of long texts by one tokenizer, special tokens left out."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Truncation and padding have to be off, as for every use of the tokenizer here."""
        self._tokenizer = tokenizer

    def first(self, text: str, count: int) -> list[int]:
        """The first `count` ids of the whole text, all where it has not so many."""
        return list(self._end(text, count, _Head)[:count])

    def last(self, text: str, count: int) -> list[int]:
        """The last `count` ids of the whole text, all where it has not so many."""
        ids = self._end(text, count, _Tail)
        return list(ids[max(0, len(ids) - count) :])

    def count(self, text: str) -> int:
        """How many ids the whole text has, counted piece by piece; of a word longer than a piece (`LONG` characters)
        off by one or two a piece."""
        text = self._shortened(text)
        return sum(len(self._ids([piece])[0]) for piece in self._pieces(text))

    def _pieces(self, text: str) -> Iterator[str]:
        while text:
            piece = _Head.piece(text, LONG_TEXT_CHARACTERS)
            if len(piece) < len(text) and self._splits_at_spaces:
                piece = _Head.at_space(piece) or piece
            yield piece
            text = text[len(piece) :]

    def ends(self, text: str, first: int, last: int) -> list[int]:
        """The `first` and the `last` ids of the whole text together, all of them where it has not more."""
        if not first:
            return self.last(text, last)
        start = self.first(text, first + last)
        return start[:first] + self.last(text, last) if last and len(start) == first + last else start

    def _end(self, text: str, count: int, side: "type[_Head | _Tail]") -> Sequence[int]:
        wanted, size = count + SPARE_TOKENS, max(_LEAST_PIECE, count * _FIRST_PIECE)
        while size < len(text):
            ids = self._certain(self._shortened(side.piece(text, size)), wanted, side)
            if len(ids) >= wanted:
                return ids
            size *= _GROWTH
        return self._ids([self._shortened(text)])[0]

    def _certain(self, piece: str, wanted: int, side: "type[_Head | _Tail]") -> Sequence[int]:
        """Ids that the whole text has too at this end, or fewer than are wanted."""
        at_space = side.at_space(piece) if self._splits_at_spaces else None
        if at_space is not None:
            return self._ids([at_space])[0]
        ids = self._ids([piece])[0]
        if len(ids) < wanted:
            return ids
        enough = min(len(piece), len(piece) * wanted * 3 // (2 * len(ids)) + self._reach)
        return side.common(self._ids(side.cuts(side.piece(piece, enough), self._reach)))

    def _ids(self, pieces: list[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(pieces, add_special_tokens=False)]

    @cached_property
    def _splits_at_spaces(self) -> bool:
        """Whether no word of the pre-tokenizer spans a space that follows a visible character."""
        splitter: Any = self._tokenizer.pre_tokenizer
        if splitter is None:
            return False
        places = {probe: probe.index(" ") for probe in _PROBES}
        words = [(places[probe], span) for probe in _PROBES for _, span in splitter.pre_tokenize_str(probe)]
        return not any(start < place < end for place, (start, end) in words)

    @cached_property
    def _reach(self) -> int:
        """How many characters before a cut a border of the whole lies at the latest: those of the longest token, or
        for WordPiece of the longest word that is not unknown."""
        longest = max(map(len, self._tokenizer.get_vocab()))
        return max(longest, self._longest_word) + 1

    @property
    def _longest_word(self) -> int:
        model: Any = self._tokenizer.model
        return int(model.max_input_chars_per_word) if isinstance(model, models.WordPiece) else 0

    def _shortened(self, text: str) -> str:
        """The text with endless words and gaps cut down, where that changes no id."""
        return text if self._endless is None else self._endless.sub(lambda run: run[run.lastindex or 0], text)

    @cached_property
    def _endless(self) -> re.Pattern[str] | None:
        runs = [rf"( {{{_GAP}}}) +"] if self._drops_spaces else []
        if self._has_limit:
            kept = self._longest_word + 1
            runs.append(rf"([0-9A-Za-z]{{{kept}}})[0-9A-Za-z]+")
        return re.compile("|".join(runs)) if runs else None

    @property
    def _drops_spaces(self) -> bool:
        """Whether many spaces are tokenized as one, and none at the ends."""
        many = " " * (_GAP + 9)
        one, *others = self._ids(["a b", f"{many}a{many}b{many}", "  a  b  ", "a   b "])
        return all(other == one for other in others)

    @property
    def _has_limit(self) -> bool:
        """Whether letters and digits beyond some number are one unknown token, however many, and nothing is looked for
        within them."""
        tokenizer = self._tokenizer
        of_bert = (
            isinstance(tokenizer.model, models.WordPiece)
            and isinstance(tokenizer.normalizer, normalizers.BertNormalizer)
            and isinstance(tokenizer.pre_tokenizer, pre_tokenizers.BertPreTokenizer)
        )
        added = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
        return of_bert and not any(re.search(r"^[0-9A-Za-z]|[0-9A-Za-z]$", content) for content in added)


class _Head:
    """What is particular to the start of a text."""

    @staticmethod
    def piece(text: str, size: int) -> str:
        return text[:size]

    @staticmethod
    def at_space(piece: str) -> str | None:
        half = len(piece) // 2
        places = [found.start() for found in _BOUNDARY.finditer(piece, half)]
        return piece[: places[-1]] if places else None

    @staticmethod
    def cuts(piece: str, number: int) -> list[str]:
        return [piece[: len(piece) - cut] for cut in range(number)]

    @staticmethod
    def common(rows: Sequence[Sequence[int]]) -> Sequence[int]:
        return rows[0][: _agreeing(rows)]


class _Tail:
    """What is particular to the end of a text."""

    @staticmethod
    def piece(text: str, size: int) -> str:
        return text[len(text) - size :]

    @staticmethod
    def at_space(piece: str) -> str | None:
        found = _BOUNDARY.search(piece, 1, len(piece) // 2)
        return piece[found.start() :] if found else None

    @staticmethod
    def cuts(piece: str, number: int) -> list[str]:
        return [piece[cut:] for cut in range(number)]

    @staticmethod
    def common(rows: Sequence[Sequence[int]]) -> Sequence[int]:
        return rows[0][len(rows[0]) - _agreeing([row[::-1] for row in rows]) :]


def _agreeing(rows: Iterable[Sequence[int]]) -> int:
    """How many values all rows begin with alike."""
    return sum(1 for _ in takewhile(lambda values: len(set(values)) == 1, zip(*rows, strict=False)))
