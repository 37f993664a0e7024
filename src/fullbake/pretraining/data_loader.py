"""The order in which a corpus is read: phases, passes, shards, steps; all a pure function of the seed.

A lot is what one pass of one phase makes of one shard: its examples, drawn anew in every pass, and its steps by the
batch plan. Lots are built when their turn comes and forgotten afterwards, so memory does not grow with the corpus;
going to step k means counting the lots before it. A row's number carries its lot's, so a step tells what it reads.

The trade-off: rows are shuffled within a shard (32 million characters) and shards within a pass, not all rows of a
corpus at once.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fullbake.core.rng import random_permutation, rng_stream
from fullbake.models.batching import Step, training_plan
from fullbake.models.encoding import Encoded, SpecialTokenTemplate, row_offsets, span_positions, with_specials
from fullbake.pretraining.corpus import Corpus, Shard
from fullbake.pretraining.examples import (
    FALSE,
    NO_PAIR,
    TRUE,
    Examples,
    Masking,
    Span,
    make_chunk_examples,
    make_pair_examples,
    mask_tokens,
)

Ids = npt.NDArray[np.int64]
PairObjective = Literal["mlm", "mlm+nsp", "mlm+sop"]

_ROW_BITS, _SHARD_BITS, _PASS_BITS = 27, 12, 20
_EXAMPLES, _SHUFFLE, _STEPS, _MASKS = range(4)
"""What a random stream is for, so that no two share one."""


@dataclass(frozen=True)
class Phase:
    """A stretch of training on rows of one length. alone, paired: templates of rows with one segment and with two.
    segments: whether the base takes token_type_ids."""

    steps: int
    alone: SpecialTokenTemplate
    paired: SpecialTokenTemplate
    segments: bool


@dataclass(frozen=True)
class ReadingOrder:
    """batch_size: rows of a step; with batch_tokens as many as hold that many tokens on average. token_budget: of a
    cut. short: chance of a pair to aim at a shorter length."""

    objective: PairObjective
    batch_size: int
    batch_tokens: int | None
    token_budget: int
    short: float
    seed: int


@dataclass(frozen=True, eq=False)
class MaskedBatch:
    """A whole step, masked. encoded: rows in ascending order of `rows`; targets: (tokens,) what stood there; chosen:
    (tokens,) where the model has to guess; pair_labels: (rows,)."""

    rows: Ids
    encoded: Encoded
    targets: npt.NDArray[np.int32]
    chosen: npt.NDArray[np.bool_]
    pair_labels: Ids


@dataclass(frozen=True, eq=False)
class _ShardEpoch:
    shard: Shard
    examples: Examples
    phase: Phase
    steps: list[Step]


class CorpusLoader:
    """Steps of a corpus, from the first to the last."""

    def __init__(
        self, corpus: Corpus, documents: Sequence[Sequence[Span]], phases: Sequence[Phase], order: ReadingOrder
    ) -> None:
        """documents: of each shard, those that are read."""
        self.corpus, self.phases, self.order = corpus, tuple(phases), order
        self.read = [number for number, spans in enumerate(documents) if spans]
        self.documents = documents
        self._lot = lru_cache(maxsize=2)(self._build)
        self._counts: dict[int, int] = {}

    @property
    def steps(self) -> int:
        """Of all phases."""
        return sum(phase.steps for phase in self.phases)

    def plan(self, start: int, stop: int) -> list[Step]:
        """Steps `start` to `stop` (counted over all phases)."""
        found: list[Step] = []
        before = 0
        for number, phase in enumerate(self.phases):
            low, high = max(start - before, 0), min(stop - before, phase.steps)
            if low < high:
                found.extend(self._of_phase(number, low, high))
            before += phase.steps
        return found

    def steps_of_pass(self, phase: int) -> int:
        """Steps that one pass over the corpus takes in a phase, as its first pass has them."""
        return sum(self._count(lot) for lot in self._lots_of_pass(phase, 0))

    def examples(self, phase: int) -> Iterator[Examples]:
        """The examples of a phase's first pass, shard by shard."""
        return (self._lot(lot).examples for lot in self._lots_of_pass(phase, 0))

    def batch(self, step: Step, masking: Masking) -> MaskedBatch:
        """What a step reads. Which tokens are masked depends on the seed and the rows of the step, not on its cuts."""
        rows = np.sort(step.rows)
        lot = self._lot(int(rows[0]) >> _ROW_BITS)
        places = rows & ((1 << _ROW_BITS) - 1)
        random = rng_stream(self.order.seed, _MASKS, int(rows[0]), len(rows))
        return masked_batch(lot.shard, lot.examples, lot.phase, places, masking, random, rows=rows)

    def _of_phase(self, phase: int, low: int, high: int) -> Iterator[Step]:
        before = 0
        for lot in self._lots(phase):
            count = self._count(lot)
            if before + count > low:
                yield from self._lot(lot).steps[max(0, low - before) : high - before]
            before += count
            if before >= high:
                return

    def _lots(self, phase: int) -> Iterator[int]:
        number = 0
        while True:
            yield from self._lots_of_pass(phase, number)
            number += 1

    def _lots_of_pass(self, phase: int, number: int) -> list[int]:
        first = (phase << _PASS_BITS | number) << _SHARD_BITS
        order = random_permutation(rng_stream(self.order.seed, _SHUFFLE, phase, number), len(self.read))
        return [first | self.read[place] for place in order.tolist()]

    def _count(self, lot: int) -> int:
        if lot not in self._counts:
            self._counts[lot] = len(self._lot(lot).steps)
        return self._counts[lot]

    def _build(self, lot: int) -> _ShardEpoch:
        shard = lot & ((1 << _SHARD_BITS) - 1)
        phase = self.phases[lot >> (_SHARD_BITS + _PASS_BITS)]
        examples = build_examples(
            self.corpus.shards[shard],
            self.documents[shard],
            phase,
            self.order.objective,
            self.order.short,
            rng_stream(self.order.seed, _EXAMPLES, lot),
        )
        steps = self._steps(examples, phase, lot)
        return _ShardEpoch(self.corpus.shards[shard], examples, phase, steps)

    def _steps(self, examples: Examples, phase: Phase, lot: int) -> list[Step]:
        lengths = row_lengths(examples, phase)
        size = self.order.batch_size
        if self.order.batch_tokens is not None:
            size = max(1, round(self.order.batch_tokens / lengths.mean()))
        plan = training_plan(
            lengths,
            batch_size=size,
            seed=self.order.seed,
            epoch=_STEPS << 60 | lot,
            token_budget=self.order.token_budget,
            merge_last_single=False,
        )
        return [Step(tuple(cut | lot << _ROW_BITS for cut in step.cuts)) for step in plan]


def build_examples(
    shard: Shard,
    documents: Sequence[Span],
    phase: Phase,
    objective: PairObjective,
    short: float,
    random: np.random.PCG64,
) -> Examples:
    """The rows that one phase makes of a shard's documents.

    A shard with one document only has no other one to draw from: its rows have no partner under `mlm+nsp`.
    """
    if objective == "mlm" or (objective == "mlm+nsp" and len(documents) < 2):
        return make_chunk_examples(shard.sentence_ends, documents, phase.alone.room)
    kind: Literal["nsp", "sop"] = "nsp" if objective == "mlm+nsp" else "sop"
    return make_pair_examples(
        shard.sentence_ends, documents, phase.paired.room, objective=kind, short=short, random=random
    )


def row_lengths(examples: Examples, phase: Phase) -> Ids:
    """Tokens of each row, special ones included, (rows,)."""
    around: Ids = np.where(examples.labels == NO_PAIR, phase.alone.around, phase.paired.around)
    return examples.lengths + around


def masked_batch(
    shard: Shard,
    examples: Examples,
    phase: Phase,
    places: Ids,
    masking: Masking,
    random: np.random.PCG64,
    *,
    rows: Ids | None = None,
) -> MaskedBatch:
    """These examples as token ids, masked. rows: the numbers they go by, None for their places."""
    alone = examples.labels[places] == NO_PAIR
    order = np.concatenate([np.flatnonzero(alone), np.flatnonzero(~alone)])
    back = np.argsort(order, kind="stable")
    parts = [
        _laid(shard, examples.spans[places[which]], template)
        for which, template in ((alone, phase.alone), (~alone, phase.paired))
    ]
    encoded, marks = (_stacked([part[side] for part in parts]).take(back) for side in (0, 1))
    if not phase.segments:
        encoded = replace(encoded, token_type_ids=None)
    masked = mask_tokens(
        encoded.input_ids, marks.input_ids == _WORD_START, marks.input_ids == _SPECIAL, masking, random
    )
    return MaskedBatch(
        places if rows is None else rows,
        replace(encoded, input_ids=masked.input_ids),
        encoded.input_ids,
        masked.chosen,
        examples.labels[places],
    )


_WORD_START, _SPECIAL = 1, 2


def _laid(shard: Shard, spans: Ids, template: SpecialTokenTemplate) -> tuple[Encoded, Encoded]:
    """(rows of ids, the same rows of marks: within a word, the start of one, or special)."""
    segments = len(template.text_types)
    ids: list[Any] = []
    marks: list[Any] = []
    for segment in range(segments):
        starts, lengths = spans[:, segment, 0], spans[:, segment, 1] - spans[:, segment, 0]
        flat = span_positions(starts, lengths)
        signs = shard.word_starts[flat].astype(np.int32)
        signs[row_offsets(lengths)[:-1]] = _WORD_START  # a word that a cut goes through starts anew
        ids.append((shard.input_ids[flat].astype(np.int32), lengths))
        marks.append((signs, lengths))
    marked = replace(template, specials=tuple((_SPECIAL,) * len(run) for run in template.specials))
    return with_specials(template, ids), with_specials(marked, marks)


def _stacked(parts: list[Encoded]) -> Encoded:
    offsets = np.concatenate([parts[0].offsets, parts[0].offsets[-1] + parts[1].offsets[1:]])
    types = [part.token_type_ids for part in parts if part.token_type_ids is not None]
    return Encoded(np.concatenate([part.input_ids for part in parts]), offsets, np.concatenate(types))


def count_pairs(examples: Iterable[Examples]) -> dict[str, int]:
    """How many rows are true pairs, false ones, and without a partner."""
    names = {"true_pairs": TRUE, "false_pairs": FALSE, "rows_without_partner": NO_PAIR}
    counts = dict.fromkeys(names, 0)
    for part in examples:
        counts = {name: count + int((part.labels == names[name]).sum()) for name, count in counts.items()}
    return counts
