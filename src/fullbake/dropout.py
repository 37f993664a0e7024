"""Dropout on the CPU from 16-bit words of a numpy generator.

torch draws a 64-bit number for each element, one thread: in fine-tuning that costs as much as a third of the matrix
products. Here a generator (SFC64) gives four elements a word, and a word below `rate * 65536` drops its element. The
rate is thus a multiple of 1/65536 (0.1 is 0.100006); what is kept is rescaled by that rate, so the mean is exact.

Each call takes its generator's seed from torch's own, so a mask is as repeatable as torch's: `torch.manual_seed` and
gradient checkpointing work as before. The masks are other ones than torch's; their distribution is the same.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

LEVELS = 1 << 16
"""Values of a word."""


def drop_level(rate: float) -> int:
    """Words below it drop their element: the rate in 65536ths."""
    return round(rate * LEVELS)


def words_source() -> np.random.SFC64:
    """A generator seeded with the next number of torch's."""
    return np.random.SFC64(int(torch.randint(1 << 62, ())))


def draw_kept(source: np.random.SFC64, level: int, kept: npt.NDArray[np.bool_]) -> None:
    """Fill `kept`, C-contiguous, with False where a word of `source` is below `level`."""
    words = np.asarray(source.random_raw(-(-kept.size // 4))).view(np.uint16)[: kept.size]
    np.greater_equal(words, np.uint16(level), out=kept.reshape(-1))


class WordDropout(nn.Dropout):
    """nn.Dropout with masks from words, where it can: on the CPU, in fp32."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (torch's name for it)
        """Of the input's shape; in training mode elements are zero with chance p, and the rest is rescaled."""
        level = drop_level(self.p)
        if not (self.training and 0 < level < LEVELS and input.device.type == "cpu" and input.dtype == torch.float32):
            return super().forward(input)
        dropped: Tensor = _Drop.apply(input, level)  # type: ignore[no-untyped-call]
        return dropped


class _Drop(torch.autograd.Function):
    """Elements kept or zero; what is remembered for the way back is a byte an element, as in torch."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, level: int) -> Tensor:
        kept = np.empty(values.shape, dtype=np.bool_)
        draw_kept(words_source(), level, kept)
        ctx.save_for_backward(torch.from_numpy(kept))
        ctx.rescale = LEVELS / (LEVELS - level)
        return _kept_of(values, kept, ctx.rescale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (kept,) = ctx.saved_tensors
        return _kept_of(gradient, kept.numpy(), ctx.rescale), None


def _kept_of(values: Tensor, kept: npt.NDArray[np.bool_], rescale: float) -> Tensor:
    noise = torch.empty(values.shape)
    np.copyto(noise.numpy(), kept)  # several times faster than torch's conversion
    return noise.mul_(values).mul_(rescale)
