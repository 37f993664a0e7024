"""Token vectors to one vector a text."""

from collections.abc import Callable

import torch
from torch import Tensor

POOLINGS = ("cls", "mean", "max", "cls+mean")


def pool(hidden: Tensor, mask: Tensor | None, kind: str) -> Tensor:
    """One vector a text. hidden: (batch, tokens, width). mask: (batch, tokens), 1 on text; None: no padding.

    kind: one of POOLINGS. Returns (batch, width), for `cls+mean` (batch, 2 * width).
    """
    return torch.cat([_POOLERS[part](hidden, mask) for part in kind.split("+")], dim=-1)


def _pool_cls(hidden: Tensor, mask: Tensor | None) -> Tensor:  # noqa: ARG001
    return hidden[:, 0]


def _pool_mean(hidden: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return hidden.mean(dim=1)
    weights = mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weights).sum(dim=1) / weights.sum(dim=1)


def _pool_max(hidden: Tensor, mask: Tensor | None) -> Tensor:
    if mask is not None:
        hidden = hidden.masked_fill(mask.unsqueeze(-1) == 0, float("-inf"))
    return hidden.amax(dim=1)


_POOLERS: dict[str, Callable[[Tensor, Tensor | None], Tensor]] = {
    "cls": _pool_cls,
    "mean": _pool_mean,
    "max": _pool_max,
}


def pooled_width(hidden_size: int, kind: str) -> int:
    """Width of what `pool` returns for token vectors of `hidden_size`."""
    return hidden_size * len(kind.split("+"))
