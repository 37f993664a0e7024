"""Read what a sentence-transformers folder says besides its encoder: dense layers, a prompt, a length.

`modules.json` lists the modules in the order in which they run: the transformer, its pooling, and what follows. A Dense
after the pooling is part of the pooling. The default prompt and `max_seq_length` are defaults that a recipe may
replace. Normalize is left out, since heads that train scale for themselves; so is whatever fullbake does not know. What
is applied and what is left out is said in the run and in the model card.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from fullbake.core import storage
from fullbake.core.errors import BaseModelError
from fullbake.core.hashing import file_sha256, fingerprint
from fullbake.models.heads import ACTIVATIONS
from fullbake.models.pretrained import find_base_file, read_json_settings, resolve_base
from fullbake.models.weight_files import WEIGHTS_FILE, is_plain_name

MODULES_FILE: Final = "modules.json"

_PROMPTS_FILE: Final = "config_sentence_transformers.json"

_LENGTH_FILES: Final = tuple(
    f"sentence_{family}_config.json"
    for family in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
"""Today it is that of `bert` whatever the family; older versions of sentence-transformers wrote the others."""

SETTINGS_FILES: Final = (_PROMPTS_FILE, *_LENGTH_FILES)
"""Files beside `modules.json`."""

_SHORTEST: Final = 4
"""Tokens; a recipe takes no smaller length."""


@dataclass(frozen=True)
class Module:
    """One entry of modules.json."""

    kind: str
    """Last part of its type, such as `Dense`."""

    path: str
    """Its subfolder; "" is the folder itself."""


@dataclass(frozen=True)
class SentenceFolder:
    """What a base says as a sentence-transformers folder. All is empty for any other base."""

    modules: tuple[Module, ...] = ()
    prompt: str = ""
    """The text that is put before every text where nobody says otherwise."""

    max_length: int | None = None
    """Longest text in tokens, special ones included."""

    pools_prompt: bool = True
    """False if the base leaves the prompt's tokens out of its pooling."""

    lowers: bool = False
    """True if the base lowers all letters before its tokenizer sees them."""

    @property
    def dense(self) -> tuple[Module, ...]:
        """The Dense modules that run on the pooled vector."""
        kinds = [module.kind for module in self.modules]
        if "Pooling" not in kinds:
            return ()
        return tuple(module for module in self.modules[kinds.index("Pooling") :] if module.kind == "Dense")

    @property
    def others(self) -> tuple[str, ...]:
        """Kinds of the modules that fullbake leaves out, in their order."""
        known = (*self.dense, *(module for module in self.modules if module.kind in ("Transformer", "Pooling")))
        return tuple(module.kind for module in self.modules if module not in known)


# Reading the settings


def read_sentence_folder(base: str | Path) -> SentenceFolder:
    """Read the settings of a base that is a sentence-transformers folder.

    Args:
        base: `demo`, a folder, or a hub id.

    Raises:
        BaseModelError: A file is not valid JSON, or has another shape than sentence-transformers writes.
    """
    place = resolve_base(base)
    entries = read_json_settings(place, MODULES_FILE)
    if entries is None:
        return SentenceFolder()
    modules = tuple(_read_module(place, entry) for entry in _checked(place, MODULES_FILE, entries, list))
    prompts = _read_mapping(place, _PROMPTS_FILE)
    file, transformer = next(
        ((name, found) for name in _LENGTH_FILES if (found := _read_mapping(place, name))), (_LENGTH_FILES[0], {})
    )
    pooling = next((module.path for module in modules if module.kind == "Pooling"), None)
    pooled = {} if pooling is None else _read_mapping(place, f"{pooling}/config.json")
    return SentenceFolder(
        modules,
        _read_prompt(place, prompts),
        _read_length(place, file, transformer),
        pooled.get("include_prompt", True) is not False,
        transformer.get("do_lower_case") is True,
    )


def _read_module(place: Path | str, entry: Any) -> Module:
    found = _checked(place, MODULES_FILE, entry, dict)
    path = _checked(place, MODULES_FILE, found.get("path", ""), str)
    if path and not is_plain_name(path):
        raise BaseModelError(
            "a module is not in a subfolder of the base",
            where=f"{place}, {MODULES_FILE}",
            expected="the plain name of a subfolder",
            got=repr(path),
            remedy="Fetch the base again.",
        )
    return Module(str(found.get("type", "")).rpartition(".")[2], path)


def _read_prompt(place: Path | str, settings: Mapping[str, Any]) -> str:
    name = settings.get("default_prompt_name")
    if name is None:
        return ""
    prompts = _checked(place, _PROMPTS_FILE, settings.get("prompts") or {}, dict)
    if name not in prompts:
        raise BaseModelError(
            f"the base names the default prompt {name!r}, and has none of this name",
            where=f"{place}, {_PROMPTS_FILE}",
            expected=f"one of {', '.join(map(repr, prompts))}" if prompts else "a prompt of this name in 'prompts'",
            remedy="Fetch the base again, or set default_prompt_name to null in a copy of the folder.",
        )
    prompt: str = _checked(place, _PROMPTS_FILE, prompts[name] or "", str)
    return prompt


def _read_length(place: Path | str, file: str, settings: Mapping[str, Any]) -> int | None:
    length = settings.get("max_seq_length")
    if length is None:
        return None
    return max(_SHORTEST, int(_checked(place, file, length, int)))


def _read_mapping(place: Path | str, name: str) -> Mapping[str, Any]:
    found = read_json_settings(place, name)
    mapping: Mapping[str, Any] = {} if found is None else _checked(place, name, found, dict)
    return mapping


def _checked(place: Path | str, name: str, value: Any, kind: type) -> Any:
    """Return a value of a settings file, or raise BaseModelError if it has another type."""
    if isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    raise BaseModelError(
        "a setting of sentence-transformers has another type than it must have",
        where=f"{place}, {name}",
        expected={list: "a list", dict: "a mapping", str: "a text", int: "a whole number"}[kind],
        got=f"{value!r:.60}",
        remedy="Fetch the base again.",
    )


# The dense layers


@dataclass(frozen=True, eq=False)
class Projection:
    """Dense layers between the pooled vector and the head."""

    layers: tuple[dict[str, Any], ...]
    """What `heads.build_projection` is given."""

    weights: dict[str, Tensor]
    """By their names in what it builds."""


def load_projection(base: str | Path, dense: Iterable[Module], width: int) -> Projection:
    """Load the Dense layers of a base.

    Args:
        base: `demo`, a folder, or a hub id.
        dense: Its Dense modules, see `SentenceFolder.dense`.
        width: Of the pooled vector.

    Raises:
        BaseModelError: A Dense layer cannot be applied: its weights are no safetensors, or do not fit.
    """
    place = resolve_base(base)
    layers: list[dict[str, Any]] = []
    weights: dict[str, Tensor] = {}
    for number, module in enumerate(dense):
        layer, tensors = _load_dense(place, module.path, width)
        layers.append(layer)
        weights |= {f"{number}.{name}": tensor for name, tensor in tensors.items()}
        width = layer["out_features"]
    return Projection(tuple(layers), weights)


def read_dense_layer(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `heads.build_projection` needs to know of a Dense module.

    Args:
        settings: The content of its config.json.

    Raises:
        ValueError: It is none that runs on the pooled vector, or has an activation that is not known.
    """
    sizes = [settings.get("in_features"), settings.get("out_features")]
    activation = str(settings.get("activation_function", "Tanh")).rpartition(".")[2]
    if not all(isinstance(size, int) and size > 0 for size in sizes):
        raise ValueError(f"in_features and out_features {sizes}")
    if activation not in ACTIVATIONS:
        raise ValueError(f"the activation {activation}; known are {', '.join(ACTIVATIONS)}")
    if settings.get("module_input_name", "sentence_embedding") != "sentence_embedding":
        raise ValueError(f"the input {settings['module_input_name']!r}")
    return {
        "in_features": sizes[0],
        "out_features": sizes[1],
        "bias": settings.get("bias", True) is not False,
        "activation": activation,
        "residual": settings.get("use_residual") is True,
    }


def _load_dense(place: Path | str, folder: str, width: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        layer = read_dense_layer(_read_mapping(place, f"{folder}/config.json"))
        if layer["in_features"] != width:
            raise ValueError(f"in_features {layer['in_features']}, and the pooled vector has {width}")
        path = find_base_file(place, f"{folder}/{WEIGHTS_FILE}")
        if path is None:
            raise ValueError(f"no {WEIGHTS_FILE}; a pickle (.bin) can run any code and is never read")
        weights = {name: torch.from_numpy(array) for name, array in storage.read_tensors(path).items()}
        expected = _dense_shapes(layer)
        found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
        if found != expected:
            raise ValueError(f"weights of shapes {found}, not {expected}")
    except (OSError, ValueError) as error:
        raise BaseModelError(
            "the base has a Dense layer after its pooling that cannot be applied",
            where=f"{place}, {folder}",
            expected=f"a layer from {width} numbers on, with its weights in {WEIGHTS_FILE}",
            got=str(error),
            remedy="With another pooling (--pooling cls, mean or max) or --head standard the layer is left out. To "
            "convert a pickle that you trust, save the base again: SentenceTransformer(FOLDER).save(NEW_FOLDER).",
        ) from error
    return layer, {name: tensor.float() for name, tensor in weights.items()}


def _dense_shapes(layer: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    size = (layer["out_features"], layer["in_features"])
    shapes: dict[str, tuple[int, ...]] = {"linear.weight": size}
    if layer["bias"]:
        shapes["linear.bias"] = size[:1]
    if layer["residual"] and size[0] != size[1]:
        shapes["residual.weight"] = size
    return shapes


def projection_fingerprint(base: str | Path) -> str | None:
    """Return a hash of the files of a base's Dense layers; None for a base without any.

    Args:
        base: `demo`, a folder, or a hub id.
    """
    place = resolve_base(base)
    parts: list[Any] = []
    for module in read_sentence_folder(base).dense:
        path = find_base_file(place, f"{module.path}/{WEIGHTS_FILE}")
        parts += [_read_mapping(place, f"{module.path}/config.json"), None if path is None else file_sha256(path)]
    return fingerprint(parts) if parts else None


# What is applied, in words


@dataclass(frozen=True)
class Use:
    """How a run uses a base: what of its settings counts, in words."""

    applied: tuple[str, ...]
    left_out: tuple[str, ...]

    def to_json(self) -> dict[str, list[str]]:
        """Return both as JSON values, as a bundle stores them."""
        return {"applied": list(self.applied), "left_out": list(self.left_out)}

    def sentences(self) -> list[str]:
        """Return a sentence on what is applied and one on what is left out, each only if there is something."""
        return [
            f"{title}: {'; '.join(parts)}"
            for title, parts in (("of the base is applied", self.applied), ("of the base is left out", self.left_out))
            if parts
        ]


def describe_use(
    folder: SentenceFolder,
    *,
    projected: bool,
    pooling: str,
    prompt: str | None,
    max_length: int,
    keeps_case: bool,
) -> Use:
    """Say what of a sentence-transformers folder a run applies, and what it leaves out.

    Args:
        folder: As `read_sentence_folder` returns it.
        projected: Whether its Dense layers run.
        pooling: What the head reads, in words.
        prompt: The prompt of the run, if any.
        max_length: That of the run.
        keeps_case: Whether the tokenizer tells capitals from small letters.
    """
    applied, left_out = [], []
    if folder.dense and projected:
        applied.append("its Dense layer, as part of the pooling")
    elif folder.dense:
        left_out.append(f"its Dense layer, which belongs to another pooling than {pooling}")
    if prompt and prompt == folder.prompt:
        applied.append(f"its default prompt {prompt!r}, before every text (--prompt '' leaves it out)")
    elif folder.prompt:
        left_out.append(f"its default prompt {folder.prompt!r} (--prompt)")
    if folder.max_length is not None and folder.max_length == max_length:
        applied.append(f"its length of {max_length} tokens (--max-length takes another)")
    if prompt and not folder.pools_prompt:
        left_out.append("its rule that the prompt's tokens are not pooled (include_prompt)")
    if folder.lowers and keeps_case:
        left_out.append("its lowering of all letters (do_lower_case)")
    for kind in dict.fromkeys(folder.others):
        why = ": heads that train scale for themselves" if kind == "Normalize" else ""
        left_out.append(f"its {kind}{why}")
    return Use(tuple(applied), tuple(left_out))
