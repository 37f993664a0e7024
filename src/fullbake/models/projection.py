"""Load the layers that a sentence-transformers base has after its pooling: Dense, LayerNorm, and a Normalize between.

They belong to the pooling that the base names, so a head that reads another pooling does not get them. Whether they can
be applied is known from their settings and the headers of their files, before any weight is read.
"""

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from fullbake.core.errors import BaseModelError
from fullbake.core.hashing import file_sha256, fingerprint
from fullbake.models.heads import ACTIVATIONS, pooled_width
from fullbake.models.pretrained import find_base_file, resolve_base
from fullbake.models.sentence_folder import SAVE_AGAIN, Module, read_sentence_folder
from fullbake.models.weight_files import WEIGHTS_FILE

_FLOATS: Final = ("F64", "F32", "F16", "BF16")
"""Types of weights that are read, as safetensors calls them."""

_PREFIXES: Final = {"LayerNorm": "norm."}
"""What stands before the names of a module's weights, where `heads.build_projection` has nothing there."""


@dataclass(frozen=True, eq=False)
class Projection:
    """Layers between the pooled vector and the head."""

    layers: tuple[dict[str, Any], ...]
    """What `heads.build_projection` is given."""

    weights: dict[str, Tensor]
    """By their names in what it builds."""


def read_projection_layers(base: str | Path, pooling: str, hidden_size: int) -> tuple[dict[str, Any], ...]:
    """Return what `heads.build_projection` is given for a base; () if no layers belong to the pooling.

    Reads no weights, but checks that they can be read and fit.

    Args:
        base: `demo`, a folder, or a hub id.
        pooling: What the head reads, one of `heads.POOLINGS`.
        hidden_size: Of the base's encoder.

    Raises:
        BaseModelError: A layer cannot be applied: its weights are no safetensors, or do not fit.
    """
    place, folder = resolve_base(base), read_sentence_folder(base)
    if pooling != folder.pooling:
        return ()
    layers: list[dict[str, Any]] = []
    width = pooled_width(hidden_size, pooling)
    for module in folder.projection:
        layers.append(_check_module(place, module, width))
        width = layers[-1]["out_features"]
    return tuple(layers)


def load_projection(base: str | Path, pooling: str, hidden_size: int) -> Projection | None:
    """Load the layers of a base that belong to a pooling; None if there are none.

    Arguments and errors: `read_projection_layers`.
    """
    layers = read_projection_layers(base, pooling, hidden_size)
    if not layers:
        return None
    weights: dict[str, Tensor] = {}
    for number, (module, path) in enumerate(_files(base)):
        for name, tensor in ({} if path is None else load_file(path)).items():
            weights[f"{number}.{name.removeprefix(_PREFIXES.get(module.kind, ''))}"] = tensor.float()
    return Projection(layers, weights)


def read_layer(module: Module, width: int) -> dict[str, Any]:
    """Return what `heads.build_projection` needs to know of a module.

    Args:
        module: A Dense, LayerNorm or Normalize.
        width: Of the vectors that it reads.

    Raises:
        ValueError: It does not run on the pooled vector, or has an activation that is not known.
    """
    settings = module.settings
    for way in ("module_input_name", "module_output_name"):
        if settings.get(way) not in (None, "sentence_embedding"):
            raise ValueError(f"{way} {settings[way]!r}")
    if module.kind != "Dense":
        size = settings.get("dimension", width)
        layer = {"kind": module.kind, "in_features": size, "out_features": size}
    else:
        layer = {
            "in_features": settings.get("in_features"),
            "out_features": settings.get("out_features"),
            "bias": settings.get("bias", True) is not False,
            "activation": _read_activation(settings.get("activation_function", "torch.nn.Tanh")),
            "residual": settings.get("use_residual") is True,
        }
    sizes = [layer["in_features"], layer["out_features"]]
    if not all(type(size) is int and size > 0 for size in sizes):
        raise ValueError(f"in_features and out_features {sizes}")
    if layer["in_features"] != width:
        raise ValueError(f"in_features {layer['in_features']}, and the vector before it has {width}")
    return layer


def _read_activation(name: Any) -> str:
    """Return the last part of the name of one of torch's activations; sentence-transformers imports no others."""
    package, _, kind = str(name).rpartition(".")
    if package.split(".")[0] != "torch" or kind not in ACTIVATIONS:
        raise ValueError(f"the activation {name}; known are torch's {', '.join(ACTIVATIONS)}")
    return kind


def _check_module(place: Path | str, module: Module, width: int) -> dict[str, Any]:
    """Return what `read_layer` does. Raise BaseModelError if the module cannot be applied, also for its weights."""
    try:
        layer = read_layer(module, width)
        if module.kind in _WEIGHTS:
            _check_weights(_find_weights(place, module), _WEIGHTS[module.kind](layer))
    except (OSError, ValueError, SafetensorError) as error:
        raise BaseModelError(
            f"the base has a {module.kind} layer after its pooling that cannot be applied",
            where=f"{place}, {module.path}",
            expected=f"a layer from {width} numbers on, with its weights in {WEIGHTS_FILE}",
            got=str(error),
            remedy="With another pooling (--pooling cls, mean or max) or --head standard the layer is left out. "
            f"To convert a pickle that you trust: {SAVE_AGAIN}",
        ) from error
    return layer


def _check_weights(path: Path | None, expected: Mapping[str, tuple[int, ...]]) -> None:
    if path is None:
        raise ValueError(f"no {WEIGHTS_FILE}; a pickle (.bin) can run any code and is never read")
    with safe_open(path, framework="numpy") as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  (it is no mapping)
        found = {name: tuple(part.get_shape()) for name, part in slices.items()}
        types = {part.get_dtype() for part in slices.values()}
    if found != expected:
        raise ValueError(f"weights of shapes {found}, not {dict(expected)}")
    if not types <= set(_FLOATS):
        raise ValueError(f"weights of type {', '.join(sorted(types))}")


def _dense_shapes(layer: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    size = (layer["out_features"], layer["in_features"])
    shapes: dict[str, tuple[int, ...]] = {"linear.weight": size}
    if layer["bias"]:
        shapes["linear.bias"] = size[:1]
    if layer["residual"] and size[0] != size[1]:
        shapes["residual.weight"] = size
    return shapes


def _norm_shapes(layer: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return dict.fromkeys(("norm.weight", "norm.bias"), (layer["in_features"],))


_WEIGHTS: Final = {"Dense": _dense_shapes, "LayerNorm": _norm_shapes}
"""Kinds of modules that have weights -> how to compute the shapes of those."""


def find_missing_weights(base: str | Path) -> list[str]:
    """Return the subfolders of a base's layers whose weights are no safetensors file.

    Args:
        base: `demo`, a folder, or a hub id.
    """
    return [module.path for module, path in _files(base) if path is None and module.kind in _WEIGHTS]


def projection_fingerprint(base: str | Path) -> str | None:
    """Return a hash of the files of a base's layers; None for a base without any.

    Args:
        base: `demo`, a folder, or a hub id.
    """
    parts: list[Any] = []
    for module, path in _files(base):
        parts += [module.settings, None if path is None else file_sha256(path)]
    return fingerprint(parts) if parts else None


def _files(base: str | Path) -> Iterable[tuple[Module, Path | None]]:
    place = resolve_base(base)
    for module in read_sentence_folder(base).projection:
        yield module, _find_weights(place, module) if module.kind in _WEIGHTS else None


def _find_weights(place: Path | str, module: Module) -> Path | None:
    name = f"{module.path}/{WEIGHTS_FILE}"
    return find_base_file(place, name) if isinstance(place, Path) else _find_hub_file(place, name)


@functools.cache  # each look costs a request
def _find_hub_file(base: str, name: str) -> Path | None:
    return find_base_file(base, name)
