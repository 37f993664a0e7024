"""Compute the masked-LM loss of rows, and evaluate a language model on fixed masked text.

Losses are sums, not means: rows are cut into micro-batches that fit the machine, and only the whole step knows what to
divide by. Training and evaluation use the same sums.

An evaluation set (`EvalSet`) has the same rows and the same masks every time, so that a difference between two
evaluations comes from the model alone. Each row is masked several times, because a sample of a few hundred sentences
has only a few hundred masked tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from fullbake.core import stopping
from fullbake.core.errors import DataError
from fullbake.core.rng import rng_stream
from fullbake.models.batching import inference_plan
from fullbake.models.collation import collate
from fullbake.models.encoding import row_offsets
from fullbake.models.masked_lm import LanguageModel
from fullbake.pretraining.corpus import Shard
from fullbake.pretraining.data_loader import MaskedBatch, PairObjective, Phase, build_examples, masked_batch
from fullbake.pretraining.examples import NO_PAIR, Masking, Span

MASKINGS = 4
"""How often each row of an evaluation set is masked."""

_MAX_MASKINGS = 1_000

_SEED = 1
"""The seed of all evaluation sets."""


@dataclass(frozen=True, eq=False)
class MaskedLMLoss:
    """The sums over some rows."""

    word_loss: Tensor
    """Scalar: cross entropy summed over the masked tokens, in nats."""

    pair_loss: Tensor
    """Scalar: cross entropy summed over the pairs, in nats; 0 without a pair head."""

    word_hits: int
    """How many masked tokens are predicted correctly."""

    pair_hits: int
    """How many pairs are predicted correctly."""


def masked_lm_loss(
    network: LanguageModel, batch: MaskedBatch, rows: npt.NDArray[np.int64], pad_id: int
) -> MaskedLMLoss:
    """Run the model forward over some rows of a batch and sum its losses.

    The vocabulary projection runs at the masked tokens only, because it costs as much as all layers of a small model.

    Args:
        network: the language model; it predicts pairs if it has a pair head.
        batch: the masked rows of a step.
        rows: (n,) positions of the rows in the batch.
        pad_id: the tokenizer's padding id.
    """
    device = next(network.parameters()).device
    inputs = {name: tensor.to(device) for name, tensor in collate(batch.encoded, rows, pad_id=pad_id).items()}
    hidden = network.hidden(inputs)
    places, lengths = batch.encoded.places(rows)
    # positions of the masked tokens in the padded matrix
    row, column = np.nonzero(_pad_flags(batch.chosen[places], lengths))
    logits = network.word_logits(hidden[torch.from_numpy(row), torch.from_numpy(column)]).float()
    targets = torch.from_numpy(batch.targets[places][batch.chosen[places]].astype(np.int64)).to(device)
    word_loss = cross_entropy(logits, targets, reduction="sum")
    pair_loss, pair_hits = _sum_pair_loss(network, hidden, torch.from_numpy(batch.pair_labels[rows]).to(device))
    return MaskedLMLoss(word_loss, pair_loss, int((logits.argmax(dim=-1) == targets).sum()), pair_hits)


def _sum_pair_loss(network: LanguageModel, hidden: Tensor, labels: Tensor) -> tuple[Tensor, int]:
    if network.pair is None:
        return hidden.new_zeros(()), 0
    logits = network.pair_logits(hidden).float()
    loss = cross_entropy(logits, labels, reduction="sum", ignore_index=NO_PAIR)
    return loss, int((logits.argmax(dim=-1) == labels).sum())


def _pad_flags(flags: npt.NDArray[np.bool_], lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Turn the flags of rows one after another into a matrix (rows, longest row)."""
    within = np.arange(lengths.max()) < lengths[:, None]
    matrix = np.zeros(within.shape, bool)
    matrix[within] = flags
    return matrix


# Evaluation sets


@dataclass(frozen=True, eq=False)
class EvalSet:
    """Text with fixed masks."""

    batches: tuple[MaskedBatch, ...]
    """The same rows under different masks."""

    pad_id: int
    """The tokenizer's padding id."""

    @property
    def masked_tokens(self) -> int:
        """Return the number of masked tokens in all batches."""
        return sum(int(batch.chosen.sum()) for batch in self.batches)

    def shrink(self, max_tokens: int) -> "EvalSet":
        """Return a set of at most so many tokens, about: with fewer maskings, or if need be fewer rows, evenly spread.

        The set is returned as it is where the smaller one would have no masked token.
        """
        lengths = self.batches[0].encoded.lengths
        total, rows = int(lengths.sum()), len(lengths)
        maskings = int(np.clip(max_tokens // total, 1, len(self.batches)))
        count = max(1, round(rows * min(1.0, max_tokens / total)))
        positions = np.linspace(0, rows - 1, count).round().astype(np.int64)
        smaller = EvalSet(tuple(batch.take(positions) for batch in self.batches[:maskings]), self.pad_id)
        return smaller if smaller.masked_tokens else self


def draw_eval_set(
    parts: Sequence[tuple[Shard, Sequence[Span]]],
    phase: Phase,
    objective: PairObjective,
    masking: Masking,
    pad_id: int,
    *,
    maskings: int = MASKINGS,
) -> EvalSet:
    """Make the evaluation set of some documents; the same arguments give the same set.

    Args:
        parts: for each shard the sentences of the documents to use; at least one document in all.
        phase: the length of rows and their special tokens.
        objective: whether rows are pairs.
        masking: the probabilities.
        pad_id: the tokenizer's padding id.
        maskings: how often each row is masked; more often if no token was masked by then.

    Raises:
        DataError: the text has no token that could be masked.
    """
    shard = _join_documents(parts)
    documents = shard.documents()
    examples = build_examples(shard, documents, phase, objective, 0.0, rng_stream(_SEED, 0))
    rows = np.arange(len(examples))
    batches: list[MaskedBatch] = []
    while len(batches) < maskings or not any(batch.chosen.any() for batch in batches):
        # a text of a few tokens may have none masked by chance; after so many tries there is nothing to mask
        if len(batches) > _MAX_MASKINGS:
            raise DataError(
                "the evaluation text has no word that could be masked",
                expected="at least one token that the tokenizer knows",
                remedy="Give more text, or a base whose tokenizer knows this language.",
            )
        random = rng_stream(_SEED, 0, len(batches))
        batches.append(masked_batch(shard, examples, phase, rows, masking, random))
    return EvalSet(tuple(batches), pad_id)


def _join_documents(parts: Sequence[tuple[Shard, Sequence[Span]]]) -> Shard:
    """Copy the documents into one shard in memory, because the partner in a pair may come from any of them."""
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
    """Return the masking of all evaluation sets, whatever training uses: 15%, 80/10/10, token by token."""
    return replace(masking, probability=0.15, mask=0.8, random=0.1, whole_words=False)


def evaluate_masked_lm(network: LanguageModel, eval_set: EvalSet, token_budget: int) -> dict[str, float]:
    """Evaluate a language model in eval mode; its mode is restored afterwards.

    Args:
        network: the language model.
        eval_set: the masked text.
        token_budget: padded tokens of a batch at most.

    Returns:
        mlm_loss (nats, mean over masked tokens) and mlm_accuracy; also pair_loss and pair_accuracy if the model has a
        pair head and the set has pairs.
    """
    sums = np.zeros(4)
    pairs = 0
    was_training = network.training
    network.eval()
    with torch.inference_mode():
        for batch in eval_set.batches:
            for rows in inference_plan(batch.encoded.lengths, token_budget=token_budget):
                stopping.check(together=True)  # all processes evaluate the same rows
                found = masked_lm_loss(network, batch, rows, eval_set.pad_id)
                sums += (found.word_loss.item(), found.word_hits, found.pair_loss.item(), found.pair_hits)
            pairs += int((batch.pair_labels != NO_PAIR).sum())
    network.train(was_training)
    tokens = max(1, eval_set.masked_tokens)
    scores = {"mlm_loss": sums[0] / tokens, "mlm_accuracy": sums[1] / tokens}
    if network.pair is not None and pairs:
        scores |= {"pair_loss": sums[2] / pairs, "pair_accuracy": sums[3] / pairs}
    return {name: float(value) for name, value in scores.items()}
