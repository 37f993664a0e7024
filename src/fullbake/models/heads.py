"""Pool token vectors into one vector per text, and build the heads `linear` and `mlp` on top of them.

The `mlp` head is a Keras recipe in torch: dropout once, blocks of [dense, batch norm, ReLU], and an output layer with
an L2 penalty. Dense weights start Glorot-uniform with zero biases as in Keras (Glorot and Bengio 2010); batch norm has
torch's defaults (eps 1e-5, momentum 0.1), which are not those of Keras. Heads are plain `nn.Sequential`s with named
parts, so no class of ours is needed to read, print or save one.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

# Pooling


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


# A name here must not contain "+": `pool` and `pooled_width` split there.
_POOLERS: dict[str, Callable[[Tensor, Tensor | None], Tensor]] = {
    "cls": _pool_cls,
    "mean": _pool_mean,
    "max": _pool_max,
}

POOLINGS = (*_POOLERS, "cls+mean")
"""Ways to make one vector per text: first token, mean, maximum, or first token and mean side by side."""


def pool(hidden: Tensor, mask: Tensor | None, kind: str) -> Tensor:
    """Make one vector per text of its token vectors.

    Args:
        hidden: Token vectors, (batch, tokens, width).
        mask: (batch, tokens), 1 on text and 0 on padding; None means that there is no padding.
        kind: One of POOLINGS.

    Returns:
        (batch, width), or (batch, 2 * width) for `cls+mean`.
    """
    return torch.cat([_POOLERS[part](hidden, mask) for part in kind.split("+")], dim=-1)


def pooled_width(hidden_size: int, kind: str) -> int:
    """Return the width of what `pool` returns for token vectors of width `hidden_size`."""
    return hidden_size * len(kind.split("+"))


# Dense layers of a base, between pooling and head

ACTIVATIONS: dict[str, type[nn.Module]] = {
    kind.__name__: kind
    for kind in (
        *(nn.Identity, nn.Tanh, nn.ReLU, nn.GELU, nn.SiLU, nn.Sigmoid, nn.ELU, nn.LeakyReLU, nn.Mish, nn.ReLU6),
        *(nn.SELU, nn.CELU, nn.Softplus, nn.Softsign, nn.LogSigmoid, nn.Tanhshrink),
        *(nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid, nn.Hardshrink, nn.Softshrink),
    )
}
"""Activations of a projection, by the names that torch gives them."""


class ProjectionLayer(nn.Module):
    """A dense layer, an activation, and a residual connection if it has one: (rows, in) -> (rows, out).

    Args:
        layer: `in_features`, `out_features`, `bias`, `activation` (one of ACTIVATIONS) and `residual`.
    """

    def __init__(self, layer: Mapping[str, Any]) -> None:
        super().__init__()
        sizes = layer["in_features"], layer["out_features"]
        self.linear = nn.Linear(*sizes, bias=layer["bias"])
        self.activation = ACTIVATIONS[layer["activation"]]()
        self.has_residual = bool(layer["residual"])
        self.residual = nn.Linear(*sizes, bias=False) if self.has_residual and sizes[0] != sizes[1] else None

    def forward(self, pooled: Tensor) -> Tensor:
        """Compute the projected vectors."""
        projected: Tensor = self.activation(self.linear(pooled))
        if not self.has_residual:
            return projected
        return projected + (pooled if self.residual is None else self.residual(pooled))


class UnitLength(nn.Module):
    """Divides every vector by its length: (rows, width) -> (rows, width)."""

    def forward(self, pooled: Tensor) -> Tensor:
        """Compute the vectors of length 1."""
        return nn.functional.normalize(pooled, dim=-1)


_PROJECTION_LAYERS: dict[str, Callable[[Mapping[str, Any]], nn.Module]] = {
    "Dense": ProjectionLayer,
    "LayerNorm": lambda layer: nn.LayerNorm(layer["in_features"]),
    "Normalize": lambda _: UnitLength(),
}


def build_projection(layers: Sequence[Mapping[str, Any]]) -> nn.Sequential | None:
    """Build the layers that a base has after its pooling; None without any.

    Args:
        layers: What each is: `kind` (`Dense` where it is not said, `LayerNorm` or `Normalize`), `in_features` and
            `out_features`; for a Dense also what `ProjectionLayer` takes.
    """
    built = [_PROJECTION_LAYERS[layer.get("kind", "Dense")](layer) for layer in layers]
    return nn.Sequential(*built) if built else None


# Heads

HEADS = ("linear", "mlp")
"""Kinds of heads that `build_head` builds. The head `standard` belongs to the encoder's architecture."""


def build_head(
    kind: str, in_features: int, num_labels: int, *, dropout: float, layers: int, width: int
) -> nn.Sequential:
    """Build a new head, drawn from torch's current seed. It maps (rows, in_features) to logits (rows, num_labels).

    Args:
        kind: One of HEADS; `linear` is one dense layer.
        in_features: Width of the pooled vectors.
        num_labels: Number of classes.
        dropout: Share of the input that the `mlp` head drops in training.
        layers: Number of blocks of the `mlp` head.
        width: Units of each block of the `mlp` head.
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
    """Give a dense layer Glorot-uniform weights and zero biases; leave any other module as it is."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:  # a base's dense layer may have none
            nn.init.zeros_(module.bias)


# Output layers


def output_layer(module: nn.Module) -> nn.Linear:
    """Return the dense layer that gives the logits: the last one of a head, or of a model outside its encoder."""
    encoder = getattr(module, "base_model", None)
    inside = set() if encoder is None else set(encoder.modules())
    dense = [part for part in module.modules() if isinstance(part, nn.Linear) and part not in inside]
    return dense[-1]


def l2_penalty(head: nn.Module) -> Tensor:
    """Return the sum of the squared weights of the output layer, without its bias: a scalar.

    The caller multiplies it by the penalty's factor and adds it to the loss.
    """
    return output_layer(head).weight.square().sum()


def fold_scaler(
    weight: np.ndarray, bias: np.ndarray, mean: np.ndarray, scale: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Merge a standardization and the linear layer after it into one linear layer.

    W (x - m) / s + b = (W / s) x + (b - (W / s) m).

    Args:
        weight: (classes, width), fitted on (features - mean) / scale.
        bias: (classes,).
        mean: (width,).
        scale: (width,); infinite for a feature that is left out, whose weights become 0.

    Returns:
        Weight and bias for the features themselves, of the same shapes.
    """
    folded = weight / scale
    return folded, bias - folded @ mean


def divide_logits(network: nn.Module, temperature: float) -> None:
    """Divide every logit of a network by `temperature`, by changing its output layer in place."""
    layer = output_layer(network)
    with torch.no_grad():
        layer.weight.div_(temperature)
        if layer.bias is not None:
            layer.bias.div_(temperature)
