"""Which tokens the masked LM has to guess, and what stands in their place (Devlin et al. 2019, section 3.1).

Every token, or every word, is chosen with the same chance by a draw of its own, so the share varies around it as a
binomial does; Google's script chooses exactly that share of each text. Under whole-word masking all pieces of a word
are chosen together and share one draw of what replaces them. Pure functions of numbers and a random stream.

What the masked LM reads: stretches of documents, alone or in pairs, as positions in one flat array of tokens.

Alone (`chunks`): a document is filled sentence by sentence into rows of at most so many tokens; no row crosses a
document's end (RoBERTa's DOC-SENTENCES; the batch plan sorts by length, so short rows cost no padding). In pairs
(`pairs`): as in Devlin et al. 2019, appendix A.2, with one difference. There a stretch of a single sentence always gets
a random partner, so a corpus of short texts has nearly no true pairs; here it is a row without a partner, of which the
pair objective asks nothing, and half of the pairs are random whatever the corpus.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from fullbake.core.rng import random_below, random_uniform

TokenIds = npt.NDArray[np.int32]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Masking:
    """What is chosen, and what becomes of it.

    probability: chance of a token (or word) to be chosen. mask, random: shares of the chosen that become the mask
    token and a random one; the rest stays as it is. whole_words: words, not tokens, are drawn. mask_id: the
    tokenizer's. vocabulary: (n,) the ids that a random token is drawn from, and that may be chosen.
    """

    probability: float
    mask: float
    random: float
    whole_words: bool
    mask_id: int
    vocabulary: TokenIds


@dataclass(frozen=True, eq=False)
class MaskedTokens:
    """input_ids: (tokens,) with the chosen ones replaced. chosen: (tokens,) True where the model has to guess."""

    input_ids: TokenIds
    chosen: Flags


def mask_tokens(
    input_ids: TokenIds, word_starts: Flags, special: Flags, masking: Masking, random: np.random.PCG64
) -> MaskedTokens:
    """Choose and replace. All (tokens,), texts one after another.

    word_starts: True on the first token of each word. special: tokens that are never chosen (and no part of a word); so
    is whatever the vocabulary does not hold: a [SEP] that stands in the text itself, and the unknown token, of which
    there is nothing to guess.
    """
    special = special | ~np.isin(input_ids, masking.vocabulary, kind="table")
    units = np.cumsum(word_starts | special) - 1 if masking.whole_words else np.arange(len(input_ids))
    draws = random_uniform(random, 2 * len(input_ids)).reshape(2, -1)
    chosen = (draws[0] < masking.probability)[units] & ~special
    fate = draws[1][units]
    masked = input_ids.copy()
    masked[chosen & (fate < masking.mask)] = masking.mask_id
    swapped = chosen & (fate >= masking.mask) & (fate < masking.mask + masking.random)
    picks = random_uniform(random, len(input_ids))[swapped] * len(masking.vocabulary)
    masked[swapped] = masking.vocabulary[picks.astype(np.int64)]
    return MaskedTokens(masked, chosen)


Ids = npt.NDArray[np.int64]

NO_PAIR: Final = -100
"""Label of a row without a partner; torch's cross entropy passes it over."""
TRUE, FALSE = 0, 1
"""Labels of pairs as transformers' BertForPreTraining and AlbertForPreTraining have them: 0 stood so in the text."""

Span = tuple[int, int]
"""First sentence of a document, and the one after its last."""


@dataclass(frozen=True, eq=False)
class Examples:
    """Rows: spans (rows, 2, 2) int64, start and end of the first and second segment in the flat tokens; the second is
    empty where there is none. labels: (rows,) TRUE, FALSE or NO_PAIR."""

    spans: Ids
    labels: Ids

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> Ids:
        """Tokens of both segments, special ones not counted, (rows,)."""
        total: Ids = (self.spans[..., 1] - self.spans[..., 0]).sum(axis=1)
        return total

    @property
    def random_share(self) -> float:
        """Share of FALSE among the rows that are pairs; nan where none is."""
        paired = self.labels != NO_PAIR
        return float((self.labels[paired] == FALSE).mean()) if paired.any() else float("nan")


def make_chunk_examples(sentence_ends: Ids, documents: Sequence[Span], room: int) -> Examples:
    """Rows of whole sentences, at most `room` tokens each; a longer sentence is several rows.

    sentence_ends: (sentences + 1,) where each sentence starts in the flat tokens, and the end.
    """
    rows: list[Span] = []
    for first, last in documents:
        edges = sentence_ends[first : last + 1].tolist()
        start, end = edges[0], edges[0]
        for edge in edges[1:]:
            if edge - start > room:
                rows.extend(_cut(start, end, room))
                start = end
            end = edge
        rows.extend(_cut(start, end, room))
    return _alone(rows)


def _cut(start: int, end: int, room: int) -> Iterator[Span]:
    for place in range(start, end, room):
        yield place, min(place + room, end)


def _alone(rows: list[Span]) -> Examples:
    spans = np.zeros((len(rows), 2, 2), np.int64)
    spans[:, 0] = np.array(rows, np.int64).reshape(-1, 2)
    return Examples(spans, np.full(len(rows), NO_PAIR))


def make_pair_examples(
    sentence_ends: Ids,
    documents: Sequence[Span],
    room: int,
    *,
    objective: Literal["nsp", "sop"],
    short: float,
    random: np.random.PCG64,
) -> Examples:
    """Rows of two segments that fill `room` tokens together, and rows of one where a sentence is left alone.

    objective: `nsp`: half of the second segments come from another document, and what was not used is put back;
    `sop`: half of the pairs are swapped. short: chance of a row to aim at a shorter, random length. Pairs that are too
    long lose tokens of the longer segment, from its front or its end at even chance.
    """
    builder = _Builder(sentence_ends, documents, room, objective, short, random)
    rows = [row for number in range(len(documents)) for row in builder.rows(number)]
    spans = np.array([(first, second) for first, second, _ in rows], np.int64).reshape(-1, 2, 2)
    return Examples(spans, np.array([label for *_, label in rows], np.int64))


SpanRow = tuple[Span, Span, int]


class _Builder:
    """Walks through documents and draws as it goes."""

    def __init__(
        self,
        sentence_ends: Ids,
        documents: Sequence[Span],
        room: int,
        objective: str,
        short: float,
        random: np.random.PCG64,
    ) -> None:
        self.edges = sentence_ends
        self.documents, self.room, self.objective, self.short = documents, room, objective, short
        self.random = random

    def rows(self, number: int) -> Iterator[SpanRow]:
        """All rows of one document."""
        first, last = self.documents[number]
        edges = self.edges[first : last + 1].tolist()
        place = 0
        while place < len(edges) - 1:
            target = self._target()
            end = place + 1
            while end < len(edges) - 1 and (edges[end] - edges[place] < target or end - place < 2):
                end += 1
            if end - place < 2:
                yield from ((cut, (0, 0), NO_PAIR) for cut in _cut(edges[place], edges[end], self.room))
                return
            middle = place + 1 + random_below(self.random, end - place - 1)
            swapped = self._draw() < 0.5
            head, tail = (edges[place], edges[middle]), (edges[middle], edges[end])
            if self.objective == "sop":
                yield self._fitted(*((tail, head) if swapped else (head, tail)), swapped)
            elif swapped:
                yield self._fitted(head, self._from_elsewhere(number, target - (head[1] - head[0])), swapped)
                end = middle  # what would have followed is used again
            else:
                yield self._fitted(head, tail, swapped)
            place = end

    def _target(self) -> int:
        return 2 + random_below(self.random, self.room - 1) if self._draw() < self.short else self.room

    def _draw(self) -> float:
        return float(random_uniform(self.random, 1)[0])

    def _from_elsewhere(self, number: int, target: int) -> Span:
        """Sentences of another document, from a random one on, until they fill `target` tokens."""
        other = random_below(self.random, len(self.documents) - 1)
        first, last = self.documents[other + (other >= number)]
        start = first + random_below(self.random, last - first)
        begin = int(self.edges[start])
        stop = int(np.searchsorted(self.edges[start + 1 : last + 1], begin + max(1, target))) + start + 1
        return begin, int(self.edges[min(stop, last)])

    def _fitted(self, head: Span, tail: Span, swapped: bool) -> SpanRow:
        """Both segments within the room together; each keeps at least one token."""
        lengths = [head[1] - head[0], tail[1] - tail[0]]
        if sum(lengths) > self.room:
            shorter = min(*lengths, self.room // 2)
            longer = self.room - shorter
            kept = (longer, shorter) if lengths[0] >= lengths[1] else (shorter, longer)
            head, tail = self._shortened(head, kept[0]), self._shortened(tail, kept[1])
        return head, tail, FALSE if swapped else TRUE

    def _shortened(self, span: Span, kept: int) -> Span:
        """The span without so many tokens, each taken from the front or the end at even chance."""
        lost = span[1] - span[0] - kept
        front = int((random_uniform(self.random, lost) < 0.5).sum()) if lost > 0 else 0
        return span[0] + front, span[0] + front + kept
