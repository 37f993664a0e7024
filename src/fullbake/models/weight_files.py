"""Check that all weights of a folder are safetensors files inside it, before transformers reads them.

`use_safetensors` alone does not keep that promise. transformers reads whatever file `model.safetensors.index.json`
names, also a pickle, which can run any code, and also a file outside the folder, whose hash no bundle records.
"""

import math
from pathlib import Path
from typing import Any, Final

from safetensors import safe_open
from torch import nn

from fullbake.core.errors import BaseModelError
from fullbake.models.config_checks import ADAPTER_FILE
from fullbake.models.pretrained import find_base_file, list_folder, read_json_settings

WEIGHTS_FILE: Final = "model.safetensors"

INDEX_FILE: Final = "model.safetensors.index.json"
"""Says which of several files, called shards, holds each weight."""

_PICKLES: Final = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")

_SHARED: Final = 8
"""How many times the stored weights a network may have. ALBERT's layers share theirs and are counted once."""

_FEW: Final = 10_000_000
"""Weights that cost too little memory to be refused here: a missing one is reported by its name later."""

_FETCH_AGAIN: Final = "Fetch the base again, or save it again in Python with AutoModel's save_pretrained."


def check_weights(place: Path | str) -> None:
    """Raise BaseModelError unless all weights of a base are safetensors files inside its folder.

    Args:
        place: The base, as `resolve_base` returns it. Of a hub id only the index is checked: transformers fetches no
            other kind of file.
    """
    if isinstance(place, Path) and (place / WEIGHTS_FILE).is_file():
        return  # transformers then reads no index
    index = read_json_settings(place, INDEX_FILE)
    if index is not None:
        for name in _shard_names(index):
            _check_shard(place, name)
    elif isinstance(place, Path):
        _refuse_folder(place)


def refuse_adapter_beside(folder: Path) -> None:
    """Raise BaseModelError if a saved classifier has an adapter beside it: with peft, transformers would apply it."""
    if (folder / ADAPTER_FILE).exists():
        raise BaseModelError(
            "an adapter is beside the weights, which would change the network",
            where=str(folder),
            expected="the files of a bundle alone",
            got=ADAPTER_FILE,
        )


def find_weight_files(place: Path | str) -> list[Path]:
    """Return the safetensors files that transformers reads of a base or a bundle.

    Args:
        place: A folder, whose files may be missing; or a hub id, whose files are fetched.

    Raises:
        BaseModelError: The index of its shards is no valid JSON, or has another shape than transformers writes.
    """
    whole = find_base_file(place, WEIGHTS_FILE)
    if whole is not None:
        return [whole]
    index = read_json_settings(place, INDEX_FILE)
    names = [] if index is None else _shard_names(index)
    if isinstance(place, Path):
        return [place / name for name in names]
    return [path for name in names if (path := find_base_file(place, name)) is not None]


def _shard_names(index: Any) -> list[str]:
    """Return the names of the files that an index of shards names, sorted. index: as `read_json_settings` gives it."""
    return sorted(set(index["weight_map"].values()))


def is_plain_name(name: str) -> bool:
    """Return True if the name is that of a file or subfolder, so that nothing outside the folder is read or written."""
    return name not in ("", ".", "..") and Path(name).name == name and "\\" not in name


def _check_shard(place: Path | str, name: str) -> None:
    """Raise BaseModelError if a shard is no plain name of a safetensors file, or if a folder lacks the file."""
    if not is_plain_name(name) or not name.endswith(".safetensors"):
        raise BaseModelError(
            "the index of the weights names a file that fullbake does not read: a pickle can run any code, and "
            "a file elsewhere is no part of the folder",
            where=f"{place}, {INDEX_FILE}",
            expected="plain names of .safetensors files in the same folder",
            got=repr(name),
            remedy=_FETCH_AGAIN,
        )
    if isinstance(place, Path) and not (place / name).is_file():
        raise BaseModelError(
            "a file of the weights is missing",
            where=str(place),
            expected=f"{name}, which {INDEX_FILE} names",
            got=list_folder(place),
            remedy=_FETCH_AGAIN,
        )


def _refuse_folder(folder: Path) -> None:
    """Raise BaseModelError for a folder without safetensors, saying what it holds in their place."""
    pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
    if pickles:
        raise BaseModelError(
            "the weights are pickles, which can run any code when read; fullbake reads safetensors only",
            where=str(folder / pickles[0]),
            expected=WEIGHTS_FILE,
            remedy="If you trust their source, convert them in Python: AutoModel.from_pretrained(FOLDER)"
            ".save_pretrained(NEW_FOLDER) writes safetensors; copy the tokenizer's files beside them.",
        )
    others = sorted(path.name for path in folder.glob("*.safetensors"))
    raise BaseModelError(
        "the folder holds no weights that fullbake reads",
        where=str(folder),
        expected=f"{WEIGHTS_FILE}, or {INDEX_FILE} and the files that it names",
        got=", ".join(others[:3]) if others else list_folder(folder),
        remedy=f"If one of these files has all weights, rename it to {WEIGHTS_FILE}; of several, fetch the index too."
        if others
        else _FETCH_AGAIN,
    )


def refuse_more_than_stored(folder: Path, skeleton: nn.Module) -> None:
    """Raise BaseModelError if a network has far more weights than its folder holds, before memory is taken for them.

    transformers makes what is missing in a file before it says so: a config.json of huge sizes would fill the memory.
    Layers may share stored weights, so several times the stored number passes here.

    Args:
        folder: The base or bundle.
        skeleton: The network on the meta device.
    """
    asked = sum(parameter.numel() for parameter in skeleton.parameters())
    stored = sum(_count_weights(path) for path in find_weight_files(folder))
    if asked > _SHARED * stored + _FEW:
        raise BaseModelError(
            "config.json asks for far more weights than the folder holds",
            where=str(folder),
            expected=f"about {asked:,} weights",
            got=f"{stored:,}",
            remedy=f"config.json belongs to another model, or a number in it is wrong. {_FETCH_AGAIN}",
        )


def list_weights(folder: Path) -> str:
    """Return the first names of the weights that a folder holds, to show in an error. Only headers are read."""
    names: list[str] = []
    for path in find_weight_files(folder):
        with safe_open(path, framework="numpy") as file:
            names += sorted(file.keys())
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "") if names else "no weights"


def _count_weights(path: Path) -> int:
    """Return the number of values in a safetensors file. Only its header is read."""
    with safe_open(path, framework="numpy") as file:
        return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118  (no mapping)
