"""Compute the first and the last ids of a long text from no more of the text than they need.

A truncating tokenizer still reads the whole text: 10 MB of dots take BERT's 5 s and 7 GB. Here a growing piece of the
text is tokenized until it gives enough ids that do not depend on the rest. There are two ways to know that.

At a space after a visible character, where the pre-tokenizer splits, the text before and the text after are tokenized
independently. SPARE_TOKENS more ids than wanted must be there, because an added token may span the space.

Within an endless word (dots, a script without spaces) no single cut is right. But among as many neighboring cuts as the
longest token has characters, one falls on a border between tokens of the whole text, and up to there the piece has the
ids of the whole: WordPiece is greedy, in Unigram a best path begins with best paths, and in BPE no merge ever crossed
the border. So the ids that all these cuts have in common are right. What counts are the characters that the normalizer
leaves: control characters that it removes from within a word are no place to cut. Where that is too little, the piece
grows, at last to the whole text: correctness comes before speed.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import takewhile
from typing import Any, Final

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

LONG_TEXT_CHARACTERS: Final = 1 << 16
"""Characters from which on a text is read by its ends; reading a shorter one whole costs little."""

SPARE_TOKENS: Final = 64
"""Ids that a piece must give beyond those that are wanted."""

_SMALLEST_PIECE: Final = 1024
_FIRST_PIECE = 8
"""Characters of the first piece for each id that is wanted."""

_GROWTH = 4
_MOST_CUTS = 8
"""Cuts that are tried at most, for each that would do if the normalizer removed nothing."""

_GAP = 64
"""Length to which a run of spaces is shortened where more of them change no id."""

_SPACES = (" \t\n\r", " ")
"""What a run may have: the first of these that the tokenizer takes for one space."""

_BOUNDARY = re.compile(r"(?<=\S) ")
_PROBES = ("a b", "1 1", ". .", "é é", "漢 漢", "a. b", "<a> (b)")


class EndsOfText:
    """The ids at both ends of long texts, without special tokens.

    Args:
        tokenizer: With padding and truncation switched off.
        smallest_piece: Characters of the smallest piece that is tokenized.
        counted_piece: Characters of the pieces in which `count` reads a text.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        smallest_piece: int = _SMALLEST_PIECE,
        counted_piece: int = LONG_TEXT_CHARACTERS,
    ) -> None:
        self._tokenizer = tokenizer
        self._smallest_piece, self._counted_piece = smallest_piece, counted_piece

    def first(self, text: str, count: int) -> list[int]:
        """Return the first `count` ids of the whole text, or all if it has fewer."""
        return list(self._read_end(text, count, _Head)[:count])

    def last(self, text: str, count: int) -> list[int]:
        """Return the last `count` ids of the whole text, or all if it has fewer."""
        ids = self._read_end(text, count, _Tail)
        return list(ids[max(0, len(ids) - count) :])

    def ends(self, text: str, first: int, last: int) -> list[int]:
        """Return the first and the last ids of the whole text together, or all if it has no more.

        Args:
            text: The text.
            first: How many ids at the start.
            last: How many ids at the end.
        """
        if not first:
            return self.last(text, last)
        start = self.first(text, first + last)
        return start[:first] + self.last(text, last) if last and len(start) == first + last else start

    def count(self, text: str) -> int:
        """Count the ids of the whole text, piece by piece.

        A word that is longer than a piece makes the count wrong by one or two per piece.
        """
        text = self._shorten(text)
        return sum(len(self._ids([piece])[0]) for piece in self._pieces_to_count(text))

    def _pieces_to_count(self, text: str) -> Iterator[str]:
        while text:
            piece = _Head.piece(text, self._counted_piece)
            if len(piece) < len(text) and self._splits_at_spaces:
                piece = _Head.up_to_space(piece) or piece
            yield piece
            text = text[len(piece) :]

    def _read_end(self, text: str, count: int, side: "type[_Head | _Tail]") -> Sequence[int]:
        wanted, size = count + SPARE_TOKENS, max(self._smallest_piece, count * _FIRST_PIECE)
        while size < len(text):
            ids = self._certain_ids(self._shorten(side.piece(text, size)), wanted, side)
            if len(ids) >= wanted:
                return ids
            size *= _GROWTH
        return self._ids([self._shorten(text)])[0]

    def _certain_ids(self, piece: str, wanted: int, side: "type[_Head | _Tail]") -> Sequence[int]:
        """Return ids that the whole text has at this end too, or fewer than `wanted` ids."""
        at_space = side.up_to_space(piece) if self._splits_at_spaces else None
        if at_space is not None:
            return self._ids([at_space])[0]
        ids = self._ids([piece])[0]
        if len(ids) < wanted:
            return ids
        # half as much again as the wanted ids took: so little text that tokenizing every cut of it is cheap
        enough = min(len(piece), len(piece) * wanted * 3 // (2 * len(ids)) + self._reach)
        cuts = self._neighboring_cuts(side.piece(piece, enough), side)
        return side.common(self._ids(cuts)) if cuts else []

    def _neighboring_cuts(self, piece: str, side: "type[_Head | _Tail]") -> list[str]:
        """Return the piece cut until its normalized text had `_reach` different lengths; [] if that takes too many."""
        lengths: set[int] = set()
        cuts = []
        for cut in side.cuts(piece, min(len(piece), _MOST_CUTS * self._reach)):
            cuts.append(cut)
            lengths.add(self._normalized_length(cut))
            if len(lengths) == self._reach:
                return cuts
        return []

    def _normalized_length(self, text: str) -> int:
        normalizer: Any = self._tokenizer.normalizer
        return len(text if normalizer is None else normalizer.normalize_str(text))

    def _ids(self, pieces: list[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(pieces, add_special_tokens=False)]

    @cached_property
    def _splits_at_spaces(self) -> bool:
        """True if no word of the pre-tokenizer spans a space that follows a visible character."""
        splitter: Any = self._tokenizer.pre_tokenizer
        if splitter is None:
            return False
        places = {probe: probe.index(" ") for probe in _PROBES}
        words = [(places[probe], span) for probe in _PROBES for _, span in splitter.pre_tokenize_str(probe)]
        return not any(start < place < end for place, (start, end) in words)

    @cached_property
    def _reach(self) -> int:
        """Number of neighboring cuts, in characters, among which one falls on a border between tokens.

        That is the length of the longest token, or in WordPiece of the longest word that is not unknown.
        """
        longest = max(map(len, self._tokenizer.get_vocab()))
        return max(longest, self._longest_word) + 1

    @property
    def _longest_word(self) -> int:
        model: Any = self._tokenizer.model
        return int(model.max_input_chars_per_word) if isinstance(model, models.WordPiece) else 0

    def _shorten(self, text: str) -> str:
        """Shorten endless words and gaps where that changes no id."""
        if self._endless_runs is None:
            return text
        return self._endless_runs.sub(lambda run: run[run.lastindex or 0], text)

    @cached_property
    def _endless_runs(self) -> re.Pattern[str] | None:
        """Pattern of the runs that can be shortened; its group is what stays. None if there are none."""
        spaces = next(filter(self._drops, _SPACES), None)
        runs = [] if spaces is None else [rf"([{spaces}]{{{_GAP}}})[{spaces}]+"]
        if self._has_longest_word:
            kept = self._longest_word + 1
            runs.append(rf"([0-9A-Za-z]{{{kept}}})[0-9A-Za-z]+")
        return re.compile("|".join(runs)) if runs else None

    def _drops(self, spaces: str) -> bool:
        """Return True if many of these are tokenized as one space, and those at the ends not at all."""
        runs = [run * repeats for run in (*spaces, spaces, spaces[::-1]) for repeats in (1, 2, _GAP + 9)]
        one, *others = self._ids(["a b", *(f"{run}a{run}b{run}" for run in runs)])
        return all(other == one for other in others)

    @property
    def _has_longest_word(self) -> bool:
        """True if a word of too many letters and digits is one unknown token, whatever is in it (BERT)."""
        tokenizer = self._tokenizer
        of_bert = (
            isinstance(tokenizer.model, models.WordPiece)
            and isinstance(tokenizer.normalizer, normalizers.BertNormalizer)
            and isinstance(tokenizer.pre_tokenizer, pre_tokenizers.BertPreTokenizer)
        )
        added = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
        return of_bert and not any(re.search(r"^[0-9A-Za-z]|[0-9A-Za-z]$", content) for content in added)


class _Head:
    """How to cut a text at its start."""

    @staticmethod
    def piece(text: str, size: int) -> str:
        return text[:size]

    @staticmethod
    def up_to_space(piece: str) -> str | None:
        """Return the piece up to its last space in its second half, or None if there is no space."""
        half = len(piece) // 2
        places = [found.start() for found in _BOUNDARY.finditer(piece, half)]
        return piece[: places[-1]] if places else None

    @staticmethod
    def cuts(piece: str, number: int) -> Iterator[str]:
        """Yield the piece without its last 0, 1, 2, ... characters."""
        return (piece[: len(piece) - cut] for cut in range(number))

    @staticmethod
    def common(rows: Sequence[Sequence[int]]) -> Sequence[int]:
        """Return the ids with which all rows begin."""
        return rows[0][: _count_common(rows)]


class _Tail:
    """How to cut a text at its end: `_Head` in a mirror."""

    @staticmethod
    def piece(text: str, size: int) -> str:
        return text[len(text) - size :]

    @staticmethod
    def up_to_space(piece: str) -> str | None:
        found = _BOUNDARY.search(piece, 1, len(piece) // 2)
        return piece[found.start() :] if found else None

    @staticmethod
    def cuts(piece: str, number: int) -> Iterator[str]:
        return (piece[cut:] for cut in range(number))

    @staticmethod
    def common(rows: Sequence[Sequence[int]]) -> Sequence[int]:
        return rows[0][len(rows[0]) - _count_common([row[::-1] for row in rows]) :]


def _count_common(rows: Iterable[Sequence[int]]) -> int:
    """Return how many ids all rows have in common at their start."""
    return sum(1 for _ in takewhile(lambda values: len(set(values)) == 1, zip(*rows, strict=False)))
