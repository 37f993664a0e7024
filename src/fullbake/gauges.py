"""Gauges: fixed masked samples of text, and how well a language model fills them.

The same rows, the same masks, every time: what differs between two readings is the model alone. Each row is masked
several times, since a sample of a few hundred sentences has only a few hundred masked tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from fullbake.core.errors import DataError
from fullbake.core.rng import source
from fullbake.corpus import Shard
from fullbake.examples import NO_PAIR, Span
from fullbake.guesses import guess
from fullbake.masking import Masking
from fullbake.models.batching import inference_plan
from fullbake.models.encoding import offsets_of
from fullbake.models.masked_lm import LanguageModel
from fullbake.stream import Batch, Objective, Phase, build_examples, masked_batch

MASKINGS = 4
"""How often each row is masked."""

_MOST_MASKINGS = 1_000

_SEED = 1


@dataclass(frozen=True, eq=False)
class Gauge:
    """Masked rows, and the tokenizer's pad id."""

    batches: tuple[Batch, ...]
    pad_id: int

    @property
    def words(self) -> int:
        """Masked tokens in all."""
        return sum(int(batch.chosen.sum()) for batch in self.batches)


def draw_gauge(
    parts: Sequence[tuple[Shard, Sequence[Span]]],
    phase: Phase,
    objective: Objective,
    masking: Masking,
    pad_id: int,
    *,
    maskings: int = MASKINGS,
) -> Gauge:
    """The gauge of these documents: of every shard those whose sentences are named, of which there is one at least. The
    same rows each time.

    maskings: how often each row is masked; oftener where that leaves nothing to guess. Raises DataError where nothing
    does.
    """
    shard = _gathered(parts)
    documents = shard.documents()
    examples = build_examples(shard, documents, phase, objective, 0.0, source(_SEED, 0))
    rows = np.arange(len(examples))
    batches: list[Batch] = []
    while len(batches) < maskings or not any(batch.chosen.any() for batch in batches):
        if len(batches) > _MOST_MASKINGS:
            raise DataError("there is no word to guess in the text that is to measure by", remedy="Give more of it.")
        random = source(_SEED, 0, len(batches))
        batches.append(masked_batch(shard, examples, phase, rows, masking, random))
    return Gauge(tuple(batches), pad_id)


def _gathered(parts: Sequence[tuple[Shard, Sequence[Span]]]) -> Shard:
    """The named documents in memory, as one shard: the partner of a pair may be of any of them."""
    chosen = [(shard, span) for shard, documents in parts for span in documents]
    sentences = [np.diff(shard.sentence_ends[first : last + 1]) for shard, (first, last) in chosen]
    flat = [slice(*shard.sentence_ends[list(span)].tolist()) for shard, span in chosen]
    pieces = list(zip(chosen, flat, strict=True))
    return Shard(
        np.concatenate([shard.input_ids[places] for (shard, _), places in pieces]),
        np.concatenate([shard.word_starts[places] for (shard, _), places in pieces]),
        offsets_of(np.concatenate(sentences)),
        offsets_of(np.array([len(lengths) for lengths in sentences])),
        np.empty(0, np.uint64),
    )


def plain(masking: Masking) -> Masking:
    """The masking that gauges use, whatever training does: 15%, 80/10/10, token by token."""
    return replace(masking, probability=0.15, mask=0.8, random=0.1, whole_words=False)


def read_gauge(network: LanguageModel, gauge: Gauge, token_budget: int) -> dict[str, float]:
    """mlm_loss (mean over masked tokens, nats), mlm_accuracy and, where pairs are judged, pair_loss, pair_accuracy."""
    sums = np.zeros(4)
    pairs = 0
    was_training = network.training
    network.eval()
    with torch.inference_mode():
        for batch in gauge.batches:
            for rows in inference_plan(batch.encoded.lengths, token_budget=token_budget):
                found = guess(network, batch, rows, gauge.pad_id)
                sums += (found.word_loss.item(), found.word_hits, found.pair_loss.item(), found.pair_hits)
            pairs += int((batch.pair_labels != NO_PAIR).sum())
    network.train(was_training)
    words = max(1, gauge.words)
    read = {"mlm_loss": sums[0] / words, "mlm_accuracy": sums[1] / words}
    if network.pair is not None and pairs:
        read |= {"pair_loss": sums[2] / pairs, "pair_accuracy": sums[3] / pairs}
    return {name: float(value) for name, value in read.items()}
