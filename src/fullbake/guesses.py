"""What a language model guesses of some rows of a masked batch: summed losses, and how many guesses are right.

Training runs backward from these sums, and gauges add them up; so both see the same numbers. Sums, not means, because
rows are cut to fit the machine, and only the whole step knows what to divide by.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from fullbake.examples import NO_PAIR
from fullbake.models.encoding import collate
from fullbake.models.masked_lm import LanguageModel
from fullbake.stream import Batch


@dataclass(frozen=True, eq=False)
class Guesses:
    """word_loss, pair_loss: scalars, summed over masked tokens and over pairs. word_hits, pair_hits: right guesses."""

    word_loss: Tensor
    pair_loss: Tensor
    word_hits: int
    pair_hits: int


def guess(network: LanguageModel, batch: Batch, rows: npt.NDArray[np.int64], pad_id: int) -> Guesses:
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
    return Guesses(word_loss, pair_loss, int((logits.argmax(dim=-1) == targets).sum()), pair_hits)


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
