"""Heads of ours: `linear` and `mlp`, and what is done to any head's output layer.

The `mlp` head is a Keras recipe in torch: dropout once, blocks of [dense, batch norm, ReLU], an output layer
whose kernel is penalized. Dense weights start Glorot-uniform with zero biases as there (Glorot and Bengio
2010); batch norm has torch's defaults (eps 1e-5, momentum 0.1), which are not Keras's. Heads are plain
`nn.Sequential`s with named parts: no class of ours is needed to read, print or save one.

Token vectors to one vector a text.
"""

from collections import OrderedDict
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn


def build_head(
    kind: str, in_features: int, num_labels: int, *, dropout: float, layers: int, width: int
) -> nn.Sequential:
    """A new head: (rows, in_features) -> logits (rows, num_labels), drawn from torch's current seed.

    kind: `linear` (one dense layer) or `mlp`. dropout, layers, width: of the `mlp` head: the share dropped of
    the input, the number of blocks, the units of each.
    """
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    size = in_features
    if kind == "mlp":
        parts["dropout"] = nn.Dropout(dropout)
        for number in range(1, layers + 1):
            parts[f"dense_{number}"] = nn.Linear(size, width)
            parts[f"norm_{number}"] = nn.BatchNorm1d(width)
            parts[f"relu_{number}"] = nn.ReLU()
            size = width
    parts["output"] = nn.Linear(size, num_labels)
    head = nn.Sequential(parts)
    return head.apply(init_dense)


def init_dense(module: nn.Module) -> None:
    """Glorot-uniform weights and zero biases for a dense layer; other modules stay as they are."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)


def output_layer(module: nn.Module) -> nn.Linear:
    """The dense layer that gives the logits: the last of a head, or of a model outside its encoder."""
    encoder = getattr(module, "base_model", None)
    inside = set() if encoder is None else set(encoder.modules())
    dense = [part for part in module.modules() if isinstance(part, nn.Linear) and part not in inside]
    return dense[-1]


def l2_penalty(head: nn.Module) -> Tensor:
    """Sum of the squared weights of the output layer, bias left out; a scalar. The caller multiplies and adds
    it.
    """
    return output_layer(head).weight.square().sum()


def fold_scaler(
    weight: np.ndarray, bias: np.ndarray, mean: np.ndarray, scale: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """One linear layer that does what standardizing and then a linear layer did.

    weight: (classes, width), bias: (classes,), fitted on (features - mean) / scale. Returns weight and bias
    for the features as they are: W (x - m) / s + b = (W / s) x + (b - (W / s) m).
    """
    folded = weight / scale
    return folded, bias - folded @ mean


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


def divide_logits(network: nn.Module, temperature: float) -> None:
    """Make every logit of a network 1/temperature of what it was."""
    layer = output_layer(network)
    with torch.no_grad():
        layer.weight.div_(temperature)
        if layer.bias is not None:
            layer.bias.div_(temperature)
