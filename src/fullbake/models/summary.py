"""What a classifier is made of: a line a layer with output shape and parameters, and the totals.

Everything happens on the meta device from the config alone: no weights are read or allocated, so BERT-large
takes as long as a toy. Output shapes are those of a forward pass there, with hooks; where a family's forward
does not run on meta, they come from the config.
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
from fullbake.models.encoder import default_pooling
from fullbake.models.network import EncoderForTextClassification, build_on_meta_device
from fullbake.models.pretrained import load_config, quiet_transformers

_auto: Any = transformers

BATCH, TOKENS = "batch", "tokens"
_BATCH, _TOKENS = 2, 7
_AXES: dict[int, str | int] = {_BATCH: BATCH, _TOKENS: TOKENS}

STANDARD = HeadConfig.model_validate("standard")

TensorShape = tuple[str | int, ...]
"""Such as ("batch", "tokens", 768)."""


@dataclass(frozen=True)
class LayerRow:
    """A layer. name: its path in the model. kind: its class. shape: of its output, None: it is never called.

    parameters: of them all, batch norm's running statistics among them. trainable: how many of those train.
    """

    name: str
    kind: str
    shape: TensorShape | None
    parameters: int
    trainable: int


@dataclass(frozen=True)
class Summary:
    """The rows from input to output."""

    rows: tuple[LayerRow, ...]

    @property
    def total(self) -> int:
        """All parameters, batch norm's running means and variances among them."""
        return sum(row.parameters for row in self.rows)

    @property
    def trainable(self) -> int:
        """Parameters that train."""
        return sum(row.trainable for row in self.rows)

    @property
    def non_trainable(self) -> int:
        """Parameters that do not."""
        return self.total - self.trainable


def summarize(
    base: str | Path | PreTrainedConfig,
    *,
    way: str | None = None,
    head: HeadConfig = STANDARD,
    num_labels: int = 2,
) -> Summary:
    """The table of a base alone (`way` None), or under a head in a way (`finetune`, `frozen`).

    base: a folder (config.json is enough), `demo`, a hub id, or a config. head: None is the standard one.
    Raises BaseModelError as `load_config` does.
    """
    config = base if isinstance(base, PreTrainedConfig) else load_config(base)
    if way is None:
        with torch.device("meta"), quiet_transformers():
            model = _auto.AutoModel.from_config(config)
        return _table(model)
    names = [str(number) for number in range(num_labels)]
    pooling = "cls" if isinstance(base, PreTrainedConfig) else default_pooling(base)
    model = build_on_meta_device(config, head, names, pooling=pooling)
    if way == "frozen":
        _freeze_encoder(model)
    return _table(model)


def _freeze_encoder(model: Any) -> None:
    """What `frozen` trains: the head; under a standard head that includes the pooler."""
    model.base_model.requires_grad_(False)
    pooler = getattr(model.base_model, "pooler", None)
    if pooler is not None:
        pooler.requires_grad_(True)


def _table(model: Any) -> Summary:
    layers = list(_layers(model))
    shapes = _run_shapes(model, layers) or _config_shapes(model, layers)
    return Summary(tuple(_row(name, module, shapes.get(name)) for name, module in layers))


def _row(name: str, module: nn.Module, shape: TensorShape | None) -> LayerRow:
    weights = [parameter.numel() for parameter in module.parameters()]
    trainable = [parameter.numel() for parameter in module.parameters() if parameter.requires_grad]
    return LayerRow(name, type(module).__name__, shape, sum(weights) + _statistics(module), sum(trainable))


def _statistics(module: nn.Module) -> int:
    """Running means and variances of batch norm; `num_batches_tracked` is a counter, no parameter."""
    return sum(
        buffer.numel() for name, buffer in module.named_buffers() if name.endswith(("running_mean", "running_var"))
    )


def _layers(model: Any) -> Iterator[tuple[str, nn.Module]]:
    """The model cut into lines: the encoder's parts and layers, then what is on it, module by module."""
    encoder = model.base_model
    prefix = next(name for name, module in model.named_modules() if module is encoder)
    yield from _encoder_parts(prefix, encoder)
    inside = set(encoder.modules())
    for name, module in model.named_modules():
        if module not in inside and not any(True for _ in module.children()):
            yield name, module


def _encoder_parts(prefix: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Children with weights; one that holds a list of layers is opened."""
    for child_name, child in module.named_children():
        name = f"{prefix}.{child_name}".lstrip(".")
        if _holds_layers(child):
            yield from _encoder_parts(name, child)
        elif any(True for _ in child.parameters()):
            yield name, child


def _holds_layers(module: nn.Module) -> bool:
    return isinstance(module, nn.ModuleList) or any(isinstance(part, nn.ModuleList) for part in module.children())


def _run_shapes(model: Any, layers: list[tuple[str, nn.Module]]) -> dict[str, TensorShape]:
    """Output shapes from a forward pass on meta; {} where this family's does not run there."""
    ids = torch.zeros((_BATCH, _TOKENS), dtype=torch.long, device="meta")
    mask = torch.ones_like(ids)
    # some families look into the mask, some into the ids when there is none; neither can be looked into on
    # meta
    for inputs in ({"input_ids": ids}, {"input_ids": ids, "attention_mask": mask}):
        shapes: dict[str, TensorShape] = {}
        hooks = [module.register_forward_hook(partial(_note, shapes, name)) for name, module in layers]
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


def _note(shapes: dict[str, TensorShape], name: str, _module: nn.Module, _inputs: Any, output: Any) -> None:
    tensor = output if isinstance(output, Tensor) else output[0]
    sizes = list(tensor.shape)
    outer = 1 if len(sizes) == 2 else 2
    shapes[name] = (*(_AXES.get(size, size) for size in sizes[:outer]), *sizes[outer:])


def _config_shapes(model: Any, layers: list[tuple[str, nn.Module]]) -> dict[str, TensorShape]:
    """What the config lets one know: token vectors in the encoder, then each dense layer's width."""
    joined = isinstance(model, EncoderForTextClassification)
    hidden = (model.config.encoder if joined else model.config).hidden_size
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
