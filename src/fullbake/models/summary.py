"""The table of a classifier's layers: output shape and parameters of each, and the totals.

Everything happens on the meta device from the config alone: no weights are read or allocated, so BERT-large takes as
long as a toy. Output shapes come from a forward pass there, with hooks; where a family's forward pass does not run on
the meta device, they come from the config.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import PreTrainedConfig

from fullbake.config.sections import HeadConfig
from fullbake.models.encoder import default_pooling, resolve_head
from fullbake.models.network import EncoderForTextClassification, build_on_meta_device
from fullbake.models.pretrained import load_config, quiet_transformers
from fullbake.models.projection import read_projection_layers

_auto: Any = transformers

BATCH, TOKENS = "batch", "tokens"
# Sizes of the trial batch, by which its axes are found again in output shapes.
_BATCH_SIZE, _TOKEN_COUNT = 2, 7
_AXES: dict[int, str | int] = {_BATCH_SIZE: BATCH, _TOKEN_COUNT: TOKENS}

STANDARD = HeadConfig.model_validate("standard")

TensorShape = tuple[str | int, ...]
"""A shape such as ("batch", "tokens", 768)."""

Layers = list[tuple[str, nn.Module]]
"""The parts of a model that get a row each, with their names."""


@dataclass(frozen=True)
class LayerRow:
    """One row of the table."""

    name: str
    """The layer's path in the model."""

    kind: str
    """The name of its class."""

    shape: TensorShape | None
    """Shape of its output; None if it is never called."""

    parameters: int
    """Number of its parameters, with batch norm's running means and variances."""

    trainable: int
    """How many of them train."""


@dataclass(frozen=True)
class Summary:
    """The table of a model's layers."""

    rows: tuple[LayerRow, ...]
    """From input to output."""

    @property
    def total(self) -> int:
        """Number of all parameters, with batch norm's running means and variances."""
        return sum(row.parameters for row in self.rows)

    @property
    def trainable(self) -> int:
        """Number of parameters that train."""
        return sum(row.trainable for row in self.rows)

    @property
    def non_trainable(self) -> int:
        """Number of parameters that do not train."""
        return self.total - self.trainable


def summarize(
    base: str | Path | PreTrainedConfig,
    *,
    way: str | None = None,
    head: HeadConfig = STANDARD,
    num_labels: int = 2,
) -> Summary:
    """Make the table of a base alone, or of a classifier on it.

    Args:
        base: `demo`, a folder (config.json is enough), a hub id, or a config.
        way: None for the base alone; `finetune` or `frozen` for a classifier.
        head: The head's section of the recipe.
        num_labels: Number of classes.

    Raises:
        BaseModelError: As for `pretrained.load_config`.
    """
    config = base if isinstance(base, PreTrainedConfig) else load_config(base)
    if way is None:
        with torch.device("meta"), quiet_transformers():
            model = _auto.AutoModel.from_config(config)
        return _table(model)
    names = [str(number) for number in range(num_labels)]
    pooling: str = head.pooling or "cls"
    layers: tuple[dict[str, Any], ...] = ()
    if not isinstance(base, PreTrainedConfig):
        head = resolve_head(base, head)
        if head.kind != "standard":
            pooling = head.pooling or default_pooling(base)
            layers = read_projection_layers(base, pooling, config.hidden_size)
    model = build_on_meta_device(config, head, names, pooling=pooling, projection=layers)
    if way == "frozen":
        _freeze_encoder(model)
    return _table(model)


def _freeze_encoder(model: Any) -> None:
    """Leave only what way `frozen` trains: the head, and the pooler that belongs to a standard head."""
    model.base_model.requires_grad_(False)
    if getattr(model, "projection", None) is not None:
        model.projection.requires_grad_(False)
    pooler = getattr(model.base_model, "pooler", None)
    if pooler is not None and not isinstance(model, EncoderForTextClassification):
        pooler.requires_grad_(True)


def _table(model: Any) -> Summary:
    layers = list_layers(model)
    shapes = shapes_of_forward_pass(model, layers) or shapes_from_config(model, layers)
    return Summary(tuple(_row(name, module, shapes.get(name)) for name, module in layers))


def _row(name: str, module: nn.Module, shape: TensorShape | None) -> LayerRow:
    weights = [parameter.numel() for parameter in module.parameters()]
    trainable = [parameter.numel() for parameter in module.parameters() if parameter.requires_grad]
    # batch norm's num_batches_tracked is a counter, not a parameter
    statistics = [
        buffer.numel() for name, buffer in module.named_buffers() if name.endswith(("running_mean", "running_var"))
    ]
    return LayerRow(name, type(module).__name__, shape, sum(weights) + sum(statistics), sum(trainable))


def list_layers(model: Any) -> Layers:
    """Return the parts of a model that get a row: the encoder's parts and layers, then every module above it."""
    encoder = model.base_model
    prefix = next(name for name, module in model.named_modules() if module is encoder)
    layers = list(_encoder_parts(prefix, encoder))
    inside = set(encoder.modules())
    for name, module in model.named_modules():
        if module not in inside and not any(True for _ in module.children()):
            layers.append((name, module))
    return layers


def _encoder_parts(prefix: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the children that have weights; a child that holds a list of layers yields its own children."""
    for child_name, child in module.named_children():
        name = f"{prefix}.{child_name}".lstrip(".")
        if _holds_layers(child):
            yield from _encoder_parts(name, child)
        elif any(True for _ in child.parameters()):
            yield name, child


def _holds_layers(module: nn.Module) -> bool:
    return isinstance(module, nn.ModuleList) or any(isinstance(part, nn.ModuleList) for part in module.children())


def shapes_of_forward_pass(model: Any, layers: Layers) -> dict[str, TensorShape]:
    """Return the layers' output shapes from a forward pass on the meta device.

    Args:
        model: On the meta device.
        layers: As `list_layers` gives them.

    Returns:
        Name -> shape of the layers that were called; {} if this family's forward pass does not run there.
    """
    ids = torch.zeros((_BATCH_SIZE, _TOKEN_COUNT), dtype=torch.long, device="meta")
    mask = torch.ones_like(ids)
    # Some families read the values of the mask, some those of the ids when there is no mask. Neither can be read on
    # the meta device, so both ways are tried.
    for inputs in ({"input_ids": ids}, {"input_ids": ids, "attention_mask": mask}):
        shapes: dict[str, TensorShape] = {}
        hooks = [module.register_forward_hook(partial(_note_shape, shapes, name)) for name, module in layers]
        try:
            with torch.no_grad():
                model.eval()(**inputs)
            return shapes
        except (AttributeError, NotImplementedError, RuntimeError, TypeError, ValueError):
            continue
        finally:
            for hook in hooks:
                hook.remove()
    return {}


def _note_shape(shapes: dict[str, TensorShape], name: str, _module: nn.Module, _inputs: Any, output: Any) -> None:
    tensor = output if isinstance(output, Tensor) else output[0]
    sizes = list(tensor.shape)
    outer = 1 if len(sizes) == 2 else 2
    shapes[name] = (*(_AXES.get(size, size) for size in sizes[:outer]), *sizes[outer:])


def shapes_from_config(model: Any, layers: Layers) -> dict[str, TensorShape]:
    """Return the layers' output shapes without a forward pass: token vectors in the encoder, then each dense layer's.

    Args:
        model: On any device.
        layers: As `list_layers` gives them.

    Returns:
        Name -> shape.
    """
    own_head = isinstance(model, EncoderForTextClassification)
    hidden = (model.config.encoder if own_head else model.config).hidden_size
    inside = set(model.base_model.modules())
    shape: TensorShape = (BATCH, hidden)
    shapes: dict[str, TensorShape] = {}
    for name, module in layers:
        if module in inside and not name.endswith("pooler"):
            shapes[name] = (BATCH, TOKENS, hidden)
            continue
        shape = (BATCH, module.out_features) if isinstance(module, nn.Linear) else shape
        shapes[name] = shape
    return shapes
