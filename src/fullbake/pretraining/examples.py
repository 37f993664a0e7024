"""Build the rows that the masked LM reads, and choose the tokens that it must predict.

Rows are positions in one flat array of tokens, alone or in pairs:

- `make_chunk_examples`: whole sentences of one document fill a row. No row crosses the end of a document (RoBERTa's
  DOC-SENTENCES). Short rows cost no padding, because the batch plan sorts rows by length.
- `make_pair_examples`: pairs as in Devlin et al. 2019, appendix A.2, with one difference. There a single sentence
  always gets a random partner, so a corpus of short texts has almost no true pairs. Here it is a row without a partner,
  and half of the pairs are random in any corpus.

Masking follows Devlin et al. 2019, section 3.1, but each token (or word) is drawn independently, so the masked share
varies as a binomial does; Google's script masks an exact share of each text.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from fullbake.core.rng import random_below, random_uniform

TokenIds = npt.NDArray[np.int32]
Flags = npt.NDArray[np.bool_]
Ids = npt.NDArray[np.int64]

# Masking


@dataclass(frozen=True)
class Masking:
    """Which tokens are chosen for prediction, and what replaces them."""

    probability: float
    """Chance of a token (or word) to be chosen."""

    mask: float
    """Share of the chosen that become the mask token."""

    random: float
    """Share of the chosen that become a random token. The rest of the chosen stay unchanged."""

    whole_words: bool
    """Choose whole words: all tokens of a word together, with one draw of what replaces them."""

    mask_id: int
    """The tokenizer's id of the mask token."""

    vocabulary: TokenIds
    """(n,) ids that may be chosen, and from which random tokens are drawn; no special ones."""


@dataclass(frozen=True, eq=False)
class MaskedTokens:
    """Tokens after masking."""

    input_ids: TokenIds
    """(tokens,) what the model reads."""

    chosen: Flags
    """(tokens,) True where the model must predict the original token."""


def mask_tokens(
    input_ids: TokenIds, word_starts: Flags, special: Flags, masking: Masking, random: np.random.PCG64
) -> MaskedTokens:
    """Choose tokens for prediction and replace them.

    Args:
        input_ids: (tokens,) rows one after another.
        word_starts: (tokens,) True on the first token of each word.
        special: (tokens,) True on special tokens; they are never chosen and belong to no word.
        masking: the probabilities. Ids outside its vocabulary are treated as special: a [SEP] in the text itself, and
            the unknown token, which holds nothing to predict.
        random: the random stream that decides everything.
    """
    special = special | ~np.isin(input_ids, masking.vocabulary, kind="table")
    units = np.cumsum(word_starts | special) - 1 if masking.whole_words else np.arange(len(input_ids))
    draws = random_uniform(random, 2 * len(input_ids)).reshape(2, -1)
    chosen = (draws[0] < masking.probability)[units] & ~special
    replacement = draws[1][units]
    masked = input_ids.copy()
    masked[chosen & (replacement < masking.mask)] = masking.mask_id
    swapped = chosen & (replacement >= masking.mask) & (replacement < masking.mask + masking.random)
    picks = random_uniform(random, len(input_ids))[swapped] * len(masking.vocabulary)
    masked[swapped] = masking.vocabulary[picks.astype(np.int64)]
    return MaskedTokens(masked, chosen)


# Rows


NO_PAIR: Final = -100
"""Label of a row without a partner; torch's cross entropy ignores it."""

TRUE_PAIR, FALSE_PAIR = 0, 1
"""Labels of pairs, as in transformers' BertForPreTraining and AlbertForPreTraining. 0: this is how the text has it."""

Span = tuple[int, int]
"""(start, end) without the end: of sentences or of tokens."""


@dataclass(frozen=True, eq=False)
class Examples:
    """Rows of one or two segments."""

    spans: Ids
    """(rows, 2, 2) start and end of the first and the second segment in the flat tokens; the second may be empty."""

    labels: Ids
    """(rows,) TRUE_PAIR, FALSE_PAIR or NO_PAIR."""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> Ids:
        """Return the tokens of both segments without special ones, (rows,)."""
        total: Ids = (self.spans[..., 1] - self.spans[..., 0]).sum(axis=1)
        return total

    @property
    def random_share(self) -> float:
        """Return the share of FALSE_PAIR among the pairs; nan if there are no pairs."""
        paired = self.labels != NO_PAIR
        return float((self.labels[paired] == FALSE_PAIR).mean()) if paired.any() else float("nan")


def make_chunk_examples(sentence_ends: Ids, documents: Sequence[Span], max_tokens: int) -> Examples:
    """Fill rows with whole sentences of one document; a longer sentence becomes several rows.

    Args:
        sentence_ends: (sentences + 1,) where each sentence starts in the flat tokens, and the end of the last.
        documents: the sentences of each document.
        max_tokens: tokens of a row at most, special ones not counted.
    """
    rows: list[Span] = []
    for first, last in documents:
        edges = sentence_ends[first : last + 1].tolist()
        start, end = edges[0], edges[0]
        for edge in edges[1:]:
            if edge - start > max_tokens:
                rows.extend(_split_span(start, end, max_tokens))
                start = end
            end = edge
        rows.extend(_split_span(start, end, max_tokens))
    spans = np.zeros((len(rows), 2, 2), np.int64)
    spans[:, 0] = np.array(rows, np.int64).reshape(-1, 2)
    return Examples(spans, np.full(len(rows), NO_PAIR))


def _split_span(start: int, end: int, max_tokens: int) -> Iterator[Span]:
    for place in range(start, end, max_tokens):
        yield place, min(place + max_tokens, end)


def make_pair_examples(
    sentence_ends: Ids,
    documents: Sequence[Span],
    max_tokens: int,
    *,
    objective: Literal["nsp", "sop"],
    short_probability: float,
    random: np.random.PCG64,
) -> Examples:
    """Make rows of two segments, and rows of one segment where a sentence has no partner.

    A pair that is too long loses tokens of its longer segment, each from the front or the end at even chance.

    Args:
        sentence_ends: (sentences + 1,) where each sentence starts in the flat tokens, and the end of the last.
        documents: the sentences of each document; `nsp` needs two documents at least.
        max_tokens: tokens of both segments together at most, special ones not counted.
        objective: `nsp` takes half of the second segments from another document, and uses the sentences that were
            replaced in the next row; `sop` swaps the segments of half of the pairs.
        short_probability: chance of a pair to aim at a shorter, random length.
        random: the random stream that decides everything.
    """
    builder = _PairBuilder(sentence_ends, documents, max_tokens, objective, short_probability, random)
    rows = [row for number in range(len(documents)) for row in builder.rows(number)]
    spans = np.array([(first, second) for first, second, _ in rows], np.int64).reshape(-1, 2, 2)
    return Examples(spans, np.array([label for *_, label in rows], np.int64))


_Row = tuple[Span, Span, int]
"""First segment, second segment, label."""


class _PairBuilder:
    """Makes the pairs of one document after another, with one random stream."""

    def __init__(
        self,
        sentence_ends: Ids,
        documents: Sequence[Span],
        max_tokens: int,
        objective: str,
        short_probability: float,
        random: np.random.PCG64,
    ) -> None:
        self.edges = sentence_ends
        self.documents, self.max_tokens, self.objective = documents, max_tokens, objective
        self.short_probability, self.random = short_probability, random

    def rows(self, number: int) -> Iterator[_Row]:
        """Yield all rows of one document."""
        first, last = self.documents[number]
        edges = self.edges[first : last + 1].tolist()
        place = 0
        while place < len(edges) - 1:
            target = self._draw_target_length()
            end = place + 1
            while end < len(edges) - 1 and (edges[end] - edges[place] < target or end - place < 2):
                end += 1
            if end - place < 2:  # one sentence is left: it has no partner
                yield from ((span, (0, 0), NO_PAIR) for span in _split_span(edges[place], edges[end], self.max_tokens))
                return
            middle = place + 1 + random_below(self.random, end - place - 1)
            make_false = self._draw() < 0.5
            head, tail = (edges[place], edges[middle]), (edges[middle], edges[end])
            if self.objective == "sop":
                yield self._fit(*((tail, head) if make_false else (head, tail)), make_false)
            elif make_false:
                yield self._fit(head, self._draw_from_other_document(number, target - (head[1] - head[0])), make_false)
                end = middle  # the sentences that were replaced are used in the next row
            else:
                yield self._fit(head, tail, make_false)
            place = end

    def _draw(self) -> float:
        return float(random_uniform(self.random, 1)[0])

    def _draw_target_length(self) -> int:
        if self._draw() < self.short_probability:
            return 2 + random_below(self.random, self.max_tokens - 1)
        return self.max_tokens

    def _draw_from_other_document(self, number: int, target: int) -> Span:
        """Return sentences of another document, from a random one on, until they have `target` tokens."""
        other = random_below(self.random, len(self.documents) - 1)
        first, last = self.documents[other + (other >= number)]
        start = first + random_below(self.random, last - first)
        begin = int(self.edges[start])
        stop = int(np.searchsorted(self.edges[start + 1 : last + 1], begin + max(1, target))) + start + 1
        return begin, int(self.edges[min(stop, last)])

    def _fit(self, head: Span, tail: Span, is_false: bool) -> _Row:
        """Shorten the segments so that they have `max_tokens` together; each keeps at least one token."""
        lengths = [head[1] - head[0], tail[1] - tail[0]]
        if sum(lengths) > self.max_tokens:
            shorter = min(*lengths, self.max_tokens // 2)
            longer = self.max_tokens - shorter
            sizes = (longer, shorter) if lengths[0] >= lengths[1] else (shorter, longer)
            head, tail = self._shorten(head, sizes[0]), self._shorten(tail, sizes[1])
        return head, tail, FALSE_PAIR if is_false else TRUE_PAIR

    def _shorten(self, span: Span, size: int) -> Span:
        """Remove tokens until `size` are left, each from the front or the end at even chance."""
        surplus = span[1] - span[0] - size
        front = int((random_uniform(self.random, surplus) < 0.5).sum()) if surplus > 0 else 0
        return span[0] + front, span[0] + front + size
