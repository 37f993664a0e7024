"""What a language model guesses of some rows of a masked batch: summed losses, and how many guesses are right.

Training runs backward from these sums, and gauges add them up; so both see the same numbers. Sums, not means, because
rows are cut to fit the machine, and only the whole step knows what to divide by.

Gauges: fixed masked samples of text, and how well a language model fills them.

The same rows, the same masks, every time: what differs between two readings is the model alone. Each row is masked
several times, since a sample of a few hundred sentences has only a few hundred masked tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from fullbake.core.errors import DataError
from fullbake.core.rng import rng_stream
from fullbake.models.batching import inference_plan
from fullbake.models.encoding import collate, row_offsets
from fullbake.models.masked_lm import LanguageModel
from fullbake.pretraining.corpus import Shard
from fullbake.pretraining.data_loader import MaskedBatch, PairObjective, Phase, build_examples, masked_batch
from fullbake.pretraining.examples import NO_PAIR, Masking, Span


@dataclass(frozen=True, eq=False)
class MaskedLMLoss:
    """word_loss, pair_loss: scalars, summed over masked tokens and over pairs. word_hits, pair_hits: right guesses."""

    word_loss: Tensor
    pair_loss: Tensor
    word_hits: int
    pair_hits: int


def masked_lm_loss(
    network: LanguageModel, batch: MaskedBatch, rows: npt.NDArray[np.int64], pad_id: int
) -> MaskedLMLoss:
    """Forward over some rows of a batch. rows: their places in it, (n,).

    The vocabulary projection runs at the masked tokens only. Pairs are judged where the network has a head for them.
    """
    device = next(network.parameters()).device
    inputs = {name: tensor.to(device) for name, tensor in collate(batch.encoded, rows, pad_id=pad_id).items()}
    hidden = network.hidden(inputs)
    places, lengths = batch.encoded.places(rows)
    line, column = np.nonzero(_padded(batch.chosen[places], lengths))
    logits = network.word_logits(hidden[torch.from_numpy(line), torch.from_numpy(column)]).float()
    targets = torch.from_numpy(batch.targets[places][batch.chosen[places]].astype(np.int64)).to(device)
    word_loss = cross_entropy(logits, targets, reduction="sum")
    pair_loss, pair_hits = _judge(network, hidden, torch.from_numpy(batch.pair_labels[rows]).to(device))
    return MaskedLMLoss(word_loss, pair_loss, int((logits.argmax(dim=-1) == targets).sum()), pair_hits)


def _judge(network: LanguageModel, hidden: Tensor, labels: Tensor) -> tuple[Tensor, int]:
    if network.pair is None:
        return hidden.new_zeros(()), 0
    logits = network.pair_logits(hidden).float()
    loss = cross_entropy(logits, labels, reduction="sum", ignore_index=NO_PAIR)
    return loss, int((logits.argmax(dim=-1) == labels).sum())


def _padded(flags: npt.NDArray[np.bool_], lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Flags of rows one after another as a matrix (rows, longest)."""
    within = np.arange(lengths.max()) < lengths[:, None]
    matrix = np.zeros(within.shape, bool)
    matrix[within] = flags
    return matrix


MASKINGS = 4
"""How often each row is masked."""

_MOST_MASKINGS = 1_000

_SEED = 1


@dataclass(frozen=True, eq=False)
class EvalSet:
    """Masked rows, and the tokenizer's pad id."""

    batches: tuple[MaskedBatch, ...]
    pad_id: int

    @property
    def words(self) -> int:
        """Masked tokens in all."""
        return sum(int(batch.chosen.sum()) for batch in self.batches)


def draw_eval_set(
    parts: Sequence[tuple[Shard, Sequence[Span]]],
    phase: Phase,
    objective: PairObjective,
    masking: Masking,
    pad_id: int,
    *,
    maskings: int = MASKINGS,
) -> EvalSet:
    """The gauge of these documents: of every shard those whose sentences are named, of which there is one at least. The
    same rows each time.

    maskings: how often each row is masked; oftener where that leaves nothing to guess. Raises DataError where nothing
    does.
    """
    shard = _gathered(parts)
    documents = shard.documents()
    examples = build_examples(shard, documents, phase, objective, 0.0, rng_stream(_SEED, 0))
    rows = np.arange(len(examples))
    batches: list[MaskedBatch] = []
    while len(batches) < maskings or not any(batch.chosen.any() for batch in batches):
        if len(batches) > _MOST_MASKINGS:
            raise DataError("there is no word to guess in the text that is to measure by", remedy="Give more of it.")
        random = rng_stream(_SEED, 0, len(batches))
        batches.append(masked_batch(shard, examples, phase, rows, masking, random))
    return EvalSet(tuple(batches), pad_id)


def _gathered(parts: Sequence[tuple[Shard, Sequence[Span]]]) -> Shard:
    """The named documents in memory, as one shard: the partner of a pair may be of any of them."""
    chosen = [(shard, span) for shard, documents in parts for span in documents]
    sentences = [np.diff(shard.sentence_ends[first : last + 1]) for shard, (first, last) in chosen]
    flat = [slice(*shard.sentence_ends[list(span)].tolist()) for shard, span in chosen]
    pieces = list(zip(chosen, flat, strict=True))
    return Shard(
        np.concatenate([shard.input_ids[places] for (shard, _), places in pieces]),
        np.concatenate([shard.word_starts[places] for (shard, _), places in pieces]),
        row_offsets(np.concatenate(sentences)),
        row_offsets(np.array([len(lengths) for lengths in sentences])),
        np.empty(0, np.uint64),
    )


def standard_masking(masking: Masking) -> Masking:
    """The masking that gauges use, whatever training does: 15%, 80/10/10, token by token."""
    return replace(masking, probability=0.15, mask=0.8, random=0.1, whole_words=False)


def evaluate_masked_lm(network: LanguageModel, gauge: EvalSet, token_budget: int) -> dict[str, float]:
    """mlm_loss (mean over masked tokens, nats), mlm_accuracy and, where pairs are judged, pair_loss, pair_accuracy."""
    sums = np.zeros(4)
    pairs = 0
    was_training = network.training
    network.eval()
    with torch.inference_mode():
        for batch in gauge.batches:
            for rows in inference_plan(batch.encoded.lengths, token_budget=token_budget):
                found = masked_lm_loss(network, batch, rows, gauge.pad_id)
                sums += (found.word_loss.item(), found.word_hits, found.pair_loss.item(), found.pair_hits)
            pairs += int((batch.pair_labels != NO_PAIR).sum())
    network.train(was_training)
    words = max(1, gauge.words)
    read = {"mlm_loss": sums[0] / words, "mlm_accuracy": sums[1] / words}
    if network.pair is not None and pairs:
        read |= {"pair_loss": sums[2] / pairs, "pair_accuracy": sums[3] / pairs}
    return {name: float(value) for name, value in read.items()}
