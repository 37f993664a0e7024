"""Decide in which order a corpus is read: phases, epochs, shards, steps, all a pure function of the seed.

A shard epoch is one reading of one shard in one epoch of one phase: its rows, drawn anew each time, and its steps from
the batch plan. Shard epochs are built when they are needed and then forgotten, so memory does not grow with the corpus;
to find step k, the steps of the shard epochs before it are counted. A row's number contains that of its shard epoch, so
a step alone says what it reads.

The trade-off: rows are shuffled within a shard (32 million characters) and shards within an epoch, not all rows of a
corpus at once.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import count
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fullbake.core.errors import DataError
from fullbake.core.rng import random_permutation, rng_stream
from fullbake.models.batching import Step, training_plan
from fullbake.models.encoding import Encoded, SpecialTokenTemplate, row_offsets, span_positions, with_specials
from fullbake.pretraining.corpus import Corpus, Shard
from fullbake.pretraining.examples import (
    FALSE_PAIR,
    NO_PAIR,
    TRUE_PAIR,
    Examples,
    Masking,
    Span,
    make_chunk_examples,
    make_pair_examples,
    mask_tokens,
)

Ids = npt.NDArray[np.int64]
PairObjective = Literal["mlm", "mlm+nsp", "mlm+sop"]

_ROW_BITS, _SHARD_BITS, _EPOCH_BITS = 27, 12, 20
"""A row's number is: phase, epoch (20 bits), shard (12 bits), row (27 bits)."""

_EXAMPLES, _SHUFFLE, _STEPS, _MASKS = range(4)
"""What a random stream is for, so that no two uses share one."""


@dataclass(frozen=True)
class Phase:
    """A number of training steps on rows of one length."""

    steps: int
    """How many steps; 0 while they are not counted yet."""

    single: SpecialTokenTemplate
    """The special tokens of rows with one segment."""

    pair: SpecialTokenTemplate
    """The special tokens of rows with two segments."""

    has_token_type_ids: bool
    """True if the base takes token_type_ids."""


@dataclass(frozen=True)
class ReadingOrder:
    """The settings that decide which rows a step has."""

    objective: PairObjective
    """What is predicted: masked tokens alone, or also pairs."""

    batch_size: int
    """Rows of a step; ignored if `batch_tokens` is set."""

    batch_tokens: int | None
    """Mean tokens of a step; None uses `batch_size`."""

    token_budget: int
    """Padded tokens of a micro-batch at most."""

    short_probability: float
    """Chance of a pair to aim at a shorter length."""

    seed: int
    """Decides all random draws."""


@dataclass(frozen=True, eq=False)
class MaskedBatch:
    """All rows of a step, masked."""

    rows: Ids
    """(rows,) numbers of the rows, ascending."""

    encoded: Encoded
    """The rows in the order of `rows`, as the model reads them."""

    targets: npt.NDArray[np.int32]
    """(tokens,) ids before masking, of all tokens."""

    chosen: npt.NDArray[np.bool_]
    """(tokens,) True where the model must predict the id before masking."""

    pair_labels: Ids
    """(rows,) TRUE_PAIR, FALSE_PAIR or NO_PAIR."""

    def take(self, positions: Ids) -> "MaskedBatch":
        """Return the batch of some rows only; positions: (n,) counted from 0 in this batch."""
        places, _ = self.encoded.places(positions)
        return MaskedBatch(
            self.rows[positions],
            self.encoded.take(positions),
            self.targets[places],
            self.chosen[places],
            self.pair_labels[positions],
        )


@dataclass(frozen=True, eq=False)
class _ShardEpoch:
    shard: Shard
    examples: Examples
    phase: Phase
    steps: list[Step]


class CorpusLoader:
    """Gives the steps of a corpus in order, and the masked rows of each step."""

    def __init__(
        self, corpus: Corpus, documents: Sequence[Sequence[Span]], phases: Sequence[Phase], order: ReadingOrder
    ) -> None:
        """Take a corpus and what to read of it.

        Args:
            corpus: all shards.
            documents: for each shard the sentences of the documents that are read; the others are skipped.
            phases: in the order of training.
            order: the settings of batches and draws.
        """
        if len(documents) > 1 << _SHARD_BITS:
            raise DataError(
                "the corpus has too many shards",
                expected=f"at most {1 << _SHARD_BITS:,}, which is about 130 billion characters",
                got=f"{len(documents):,}",
                remedy="Pretrain on a part of the text first, then from the new base on the rest.",
            )
        self.corpus, self.documents = corpus, documents
        self.phases, self.order = tuple(phases), order
        self._shards = [number for number, spans in enumerate(documents) if spans]
        # two are enough: the steps under way, and the shard epoch that follows
        self._shard_epoch = lru_cache(maxsize=2)(self._build_shard_epoch)
        self._step_counts: dict[int, int] = {}

    @property
    def steps(self) -> int:
        """Return the number of steps of all phases."""
        return sum(phase.steps for phase in self.phases)

    def plan(self, start: int, stop: int) -> list[Step]:
        """Return the steps `start` to `stop` (without it), counted from 0 over all phases."""
        found: list[Step] = []
        before = 0
        for number, phase in enumerate(self.phases):
            low, high = max(start - before, 0), min(stop - before, phase.steps)
            if low < high:
                found.extend(self._steps_of_phase(number, low, high))
            before += phase.steps
        return found

    def steps_per_epoch(self, phase: int) -> int:
        """Return how many steps the first epoch of a phase has (reading the corpus once)."""
        return sum(self._count_steps(key) for key in self._shard_epochs(phase, 0))

    def tokens_per_step(self, phase: int) -> float:
        """Return the mean tokens of a step, special ones included: of the first shard that the phase reads."""
        first = self._shard_epoch(self._shard_epochs(phase, 0)[0])
        return float(row_lengths(first.examples, first.phase).sum()) / len(first.steps)

    def examples(self, phase: int) -> Iterator[Examples]:
        """Yield the rows of a phase's first epoch, shard by shard."""
        return (self._shard_epoch(key).examples for key in self._shard_epochs(phase, 0))

    def batch(self, step: Step, masking: Masking) -> MaskedBatch:
        """Return the masked rows of a step.

        The masks depend on the seed and the rows of the step, not on how it is cut into micro-batches.
        """
        rows = np.sort(step.rows)
        # all rows of a step belong to one shard epoch, so the first row says which
        shard_epoch = self._shard_epoch(int(rows[0]) >> _ROW_BITS)
        places = rows & ((1 << _ROW_BITS) - 1)
        random = rng_stream(self.order.seed, _MASKS, int(rows[0]), len(rows))
        return masked_batch(
            shard_epoch.shard, shard_epoch.examples, shard_epoch.phase, places, masking, random, rows=rows
        )

    def _steps_of_phase(self, phase: int, low: int, high: int) -> Iterator[Step]:
        before = 0
        for epoch in count():
            for key in self._shard_epochs(phase, epoch):
                size = self._count_steps(key)
                if before + size > low:
                    yield from self._shard_epoch(key).steps[max(0, low - before) : high - before]
                before += size
                if before >= high:
                    return

    def _shard_epochs(self, phase: int, epoch: int) -> list[int]:
        """Return the numbers of the shard epochs of one epoch, shuffled."""
        first = (phase << _EPOCH_BITS | epoch) << _SHARD_BITS
        order = random_permutation(rng_stream(self.order.seed, _SHUFFLE, phase, epoch), len(self._shards))
        return [first | self._shards[place] for place in order.tolist()]

    def _count_steps(self, key: int) -> int:
        if key not in self._step_counts:
            self._step_counts[key] = len(self._shard_epoch(key).steps)
        return self._step_counts[key]

    def _build_shard_epoch(self, key: int) -> _ShardEpoch:
        shard = key & ((1 << _SHARD_BITS) - 1)
        phase = self.phases[key >> (_SHARD_BITS + _EPOCH_BITS)]
        examples = build_examples(
            self.corpus.shards[shard],
            list(self.documents[shard]),
            phase,
            self.order.objective,
            self.order.short_probability,
            rng_stream(self.order.seed, _EXAMPLES, key),
        )
        lengths = row_lengths(examples, phase)
        size = self.order.batch_size
        if self.order.batch_tokens is not None:
            size = max(1, round(self.order.batch_tokens / lengths.mean()))
        plan = training_plan(
            lengths,
            batch_size=size,
            seed=self.order.seed,
            epoch=_STEPS << 60 | key,
            token_budget=self.order.token_budget,
            merge_last_single=False,
        )
        steps = [Step(tuple(rows | key << _ROW_BITS for rows in step.micro_batches)) for step in plan]
        return _ShardEpoch(self.corpus.shards[shard], examples, phase, steps)


def build_examples(
    shard: Shard,
    documents: Sequence[Span],
    phase: Phase,
    objective: PairObjective,
    short_probability: float,
    random: np.random.PCG64,
) -> Examples:
    """Make the rows that one phase reads of a shard's documents.

    A shard with a single document has no other document to draw from, so its rows have no partner under `mlm+nsp`.
    """
    if objective == "mlm" or (objective == "mlm+nsp" and len(documents) < 2):
        return make_chunk_examples(shard.sentence_ends, documents, phase.single.room)
    kind: Literal["nsp", "sop"] = "nsp" if objective == "mlm+nsp" else "sop"
    return make_pair_examples(
        shard.sentence_ends,
        documents,
        phase.pair.room,
        objective=kind,
        short_probability=short_probability,
        random=random,
    )


def row_lengths(examples: Examples, phase: Phase) -> Ids:
    """Return the tokens of each row with special ones, (rows,)."""
    special: Ids = np.where(examples.labels == NO_PAIR, phase.single.around, phase.pair.around)
    return examples.lengths + special


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
    """Return some rows of a shard as token ids, masked.

    Args:
        shard: the tokens.
        examples: rows of this shard.
        phase: its templates give the special tokens.
        places: (rows,) which of the examples.
        masking: the probabilities.
        random: the random stream of the masks.
        rows: (rows,) the numbers of the rows in the batch; None uses `places`.
    """
    single = examples.labels[places] == NO_PAIR
    order = np.concatenate([np.flatnonzero(single), np.flatnonzero(~single)])
    back = np.argsort(order, kind="stable")
    # rows of one segment and pairs have different special tokens: each kind is encoded at once, then put back in order
    parts = [
        _encode_rows(shard, examples.spans[places[which]], template)
        for which, template in ((single, phase.single), (~single, phase.pair))
    ]
    encoded, kinds = (_concatenate([part[side] for part in parts]).take(back) for side in (0, 1))
    if not phase.has_token_type_ids:
        encoded = replace(encoded, token_type_ids=None)
    masked = mask_tokens(
        encoded.input_ids, kinds.input_ids == _WORD_START, kinds.input_ids == _SPECIAL, masking, random
    )
    return MaskedBatch(
        places if rows is None else rows,
        replace(encoded, input_ids=masked.input_ids),
        encoded.input_ids,
        masked.chosen,
        examples.labels[places],
    )


_WORD_START, _SPECIAL = 1, 2
"""The kind of a token: 0 continues a word, 1 starts one, 2 is special."""


def _encode_rows(shard: Shard, spans: Ids, template: SpecialTokenTemplate) -> tuple[Encoded, Encoded]:
    """Return the rows' ids with special tokens, and in the same layout each token's kind in place of its id."""
    ids: list[Any] = []
    kinds: list[Any] = []
    for segment in range(len(template.text_types)):
        starts, lengths = spans[:, segment, 0], spans[:, segment, 1] - spans[:, segment, 0]
        flat = span_positions(starts, lengths)
        word_starts = shard.word_starts[flat].astype(np.int32)
        word_starts[row_offsets(lengths)[:-1]] = _WORD_START  # a segment may begin inside a word
        ids.append((shard.input_ids[flat].astype(np.int32), lengths))
        kinds.append((word_starts, lengths))
    special = replace(template, specials=tuple((_SPECIAL,) * len(run) for run in template.specials))
    return with_specials(template, ids), with_specials(special, kinds)


def _concatenate(parts: list[Encoded]) -> Encoded:
    offsets = np.concatenate([parts[0].offsets, parts[0].offsets[-1] + parts[1].offsets[1:]])
    types = [part.token_type_ids for part in parts if part.token_type_ids is not None]
    return Encoded(np.concatenate([part.input_ids for part in parts]), offsets, np.concatenate(types))


def count_pairs(examples: Iterable[Examples]) -> dict[str, int]:
    """Count the true pairs, the false ones and the rows without a partner."""
    names = {"true_pairs": TRUE_PAIR, "false_pairs": FALSE_PAIR, "rows_without_partner": NO_PAIR}
    counts = dict.fromkeys(names, 0)
    for part in examples:
        counts = {name: total + int((part.labels == names[name]).sum()) for name, total in counts.items()}
    return counts
