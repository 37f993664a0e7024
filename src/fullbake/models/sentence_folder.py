"""Read what a sentence-transformers folder says besides its encoder: pooling, layers after it, a prompt, a length.

`modules.json` lists the modules in the order in which they run: the transformer, its pooling, and what follows. Dense
layers after the pooling are part of the pooling (`projection`). The default prompt and the length are defaults that a
recipe may replace. A last Normalize is left out, since heads that train scale for themselves; so is whatever fullbake
does not know. What is applied and what is left out is said in the run and in the model card.
"""

import functools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Final

from huggingface_hub import try_to_load_from_cache

from fullbake.core.console import warn
from fullbake.core.errors import BaseModelError
from fullbake.models.base_files import LENGTH_FILES
from fullbake.models.heads import POOLINGS
from fullbake.models.pretrained import read_json_settings, resolve_base

MODULES_FILE: Final = "modules.json"

_PROMPTS_FILE: Final = "config_sentence_transformers.json"

SETTINGS_FILES: Final = (_PROMPTS_FILE, *LENGTH_FILES)
"""Files beside `modules.json`."""

_OWN_TYPES: Final = "sentence_transformers."
"""How the types of sentence-transformers' own modules begin; any other type is code of its own."""

_LAYERS: Final = ("Dense", "LayerNorm")
"""Kinds of modules with weights that fullbake runs on the pooled vector."""

_READ: Final = ("Pooling", "Normalize", *_LAYERS)
"""Kinds of modules whose settings count."""

_POOLING_SWITCHES: Final = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""How a pooling is named up to sentence-transformers 5.2, in the order in which several are put side by side."""

_SHORTEST: Final = 4
"""Tokens; a recipe takes no smaller length."""


@dataclass(frozen=True)
class Module:
    """One entry of modules.json."""

    kind: str
    """Last part of its type, such as `Dense`; the whole type for code that is not sentence-transformers' own."""

    path: str
    """Its subfolder; "" is the folder itself."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    """The content of its config.json; empty for a kind that fullbake does not read."""


@dataclass(frozen=True)
class SentenceFolder:
    """What a base says as a sentence-transformers folder. All is empty for any other base."""

    modules: tuple[Module, ...] = ()
    poolings: tuple[str, ...] = ()
    """What its pooling puts side by side, as sentence-transformers names it, in this order."""

    prompt: str = ""
    """The text that is put before every text where nobody says otherwise."""

    max_length: int | None = None
    """Longest text in tokens, special ones included."""

    pools_prompt: bool = True
    """False if the base leaves the prompt's tokens out of its pooling."""

    lowers: bool = False
    """True if the base lowers all letters before its tokenizer sees them."""

    @property
    def pooling(self) -> str | None:
        """The pooling, by its name in `heads.POOLINGS`; None if it has none, or one that fullbake does not offer."""
        name = "+".join(sorted(self.poolings))
        return name if name in POOLINGS else None

    @property
    def layers(self) -> tuple[Module, ...]:
        """The modules that run on the pooled vector, up to the last one with weights. Dropout does nothing there."""
        after = [module for module in self._after_pooling if module.kind != "Dropout"]
        last = max((number for number, module in enumerate(after) if module.kind in _LAYERS), default=-1)
        return tuple(after[: last + 1])

    @property
    def obstacle(self) -> str | None:
        """What the layers read in place of a pooling that fullbake offers, in words; None if nothing else."""
        if not self.layers:
            return None
        strange = [module.kind for module in self._before_pooling if module.kind not in ("Transformer", "Dropout")]
        strange += [module.kind for module in self.layers if module.kind not in (*_LAYERS, "Normalize")]
        if strange:
            return f"what its {strange[0]} computes"
        if self.pooling is None or self.poolings != tuple(self.pooling.split("+")):
            return f"its own pooling, {' and '.join(self.poolings)}"
        return None

    @property
    def projection(self) -> tuple[Module, ...]:
        """The layers that can be applied."""
        return () if self.obstacle else self.layers

    @property
    def _before_pooling(self) -> tuple[Module, ...]:
        kinds = [module.kind for module in self.modules]
        return self.modules[: kinds.index("Pooling")] if "Pooling" in kinds else self.modules

    @property
    def _after_pooling(self) -> tuple[Module, ...]:
        return self.modules[len(self._before_pooling) + 1 :]


# Reading the settings


def read_sentence_folder(base: str | Path) -> SentenceFolder:
    """Read the settings of a base that is a sentence-transformers folder.

    Those of a hub id are looked up once in a process, since each look costs a request.

    Args:
        base: `demo`, a folder, or a hub id.

    Raises:
        BaseModelError: A file is not valid JSON, has another shape than sentence-transformers writes, or is missing; or
            the transformer is not at the folder's top.
    """
    place = resolve_base(base)
    return _read_folder(place) if isinstance(place, Path) else _read_hub(place)


@functools.cache
def _read_hub(base: str) -> SentenceFolder:
    folder = _read_folder(base)
    names = [MODULES_FILE]
    if folder.modules:
        has_length = any(isinstance(try_to_load_from_cache(base, name), str) for name in LENGTH_FILES)
        names = [_PROMPTS_FILE, *(() if has_length else LENGTH_FILES[:1])]
    unknown = [name for name in names if try_to_load_from_cache(base, name) is None]
    if unknown:
        warn(
            f"base {base!r}: the hub cannot be asked for {' and '.join(unknown)}, and no copy is on this machine. If "
            "the base has such a file, what it says of pooling, prompt and length is not applied"
        )
    return folder


def _read_folder(place: Path | str) -> SentenceFolder:
    entries = read_json_settings(place, MODULES_FILE)
    if entries is None or entries == []:
        return SentenceFolder()
    modules = tuple(_read_module(place, entry) for entry in entries)
    _check_transformer(place, modules)
    pooling = next((module for module in modules if module.kind == "Pooling"), None)
    _, transformer = read_length_file(place)
    return SentenceFolder(
        modules,
        () if pooling is None else _read_poolings(place, pooling),
        _read_prompt(place, _read_mapping(place, _PROMPTS_FILE)),
        _read_length(place, transformer),
        pooling is None or pooling.settings.get("include_prompt", True) is not False,
        transformer.get("do_lower_case") is True,
    )


def read_length_file(place: Path | str) -> tuple[str, Mapping[str, Any]]:
    """Return the name and the content of the file that holds the settings of the transformer.

    Args:
        place: The base, as `resolve_base` returns it.
    """
    found = ((name, _read_mapping(place, name)) for name in LENGTH_FILES)
    return next(((name, settings) for name, settings in found if settings), (LENGTH_FILES[0], {}))


def _read_module(place: Path | str, entry: Mapping[str, str]) -> Module:
    path, whole = PurePosixPath(entry.get("path", "")), entry["type"]
    if path.is_absolute() or ".." in path.parts or "\\" in str(path):
        raise BaseModelError(
            "a module is not in a subfolder of the base",
            where=f"{place}, {MODULES_FILE}",
            expected="the path of a subfolder, relative to the base",
            got=repr(entry["path"]),
            remedy="Fetch the base again.",
        )
    folder = "/".join(path.parts)
    kind = whole.rpartition(".")[2] if whole.startswith(_OWN_TYPES) else whole
    return Module(kind, folder, _read_mapping(place, f"{folder}/config.json") if kind in _READ and folder else {})


def _check_transformer(place: Path | str, modules: tuple[Module, ...]) -> None:
    """Raise BaseModelError if the transformer that the modules name is another one than that at the folder's top."""
    path = modules[0].path if modules and modules[0].kind == "Transformer" else ""
    if path:
        raise BaseModelError(
            "the transformer of this sentence-transformers folder is in a subfolder, as old versions wrote it",
            where=f"{place}, {MODULES_FILE}",
            expected="the transformer at the folder's top",
            got=repr(path),
            remedy=SAVE_AGAIN,
        )


SAVE_AGAIN: Final = "Save the base again in Python: SentenceTransformer(FOLDER).save(NEW_FOLDER)."


def _read_poolings(place: Path | str, module: Module) -> tuple[str, ...]:
    settings = module.settings
    if not settings:
        raise BaseModelError(
            "the settings of the base's pooling are missing",
            where=f"{place}, {module.path}/config.json",
            expected="a file that names the pooling, such as mean",
            remedy="Fetch the base again, or leave modules.json out of a copy of the folder.",
        )
    modes = settings.get("pooling_mode")
    if modes is None:
        modes = [mode for switch, mode in _POOLING_SWITCHES.items() if settings.get(switch)] or "mean"
    return (modes,) if isinstance(modes, str) else tuple(modes)


def _read_prompt(place: Path | str, settings: Mapping[str, Any]) -> str:
    name = settings.get("default_prompt_name")
    if name is None:
        return ""
    prompts: Mapping[str, str | None] = settings.get("prompts") or {}
    if name not in prompts:
        raise BaseModelError(
            f"the base names the default prompt {name!r}, and has none of this name",
            where=f"{place}, {_PROMPTS_FILE}",
            expected=f"one of {', '.join(map(repr, prompts))}" if prompts else "a prompt of this name in 'prompts'",
            remedy="Fetch the base again, or set default_prompt_name to null in a copy of the folder.",
        )
    return prompts[name] or ""


def _read_length(place: Path | str, settings: Mapping[str, Any]) -> int | None:
    """Return the base's length. New versions of sentence-transformers leave it to the tokenizer's settings."""
    arguments = settings.get("processor_kwargs") or settings.get("tokenizer_args") or {}
    length = arguments.get("model_max_length", settings.get("max_seq_length"))
    if length is None:
        tokenizer = _read_mapping(place, "tokenizer_config.json")
        length = tokenizer.get("model_max_length", tokenizer.get("max_len"))
    return None if length is None else max(_SHORTEST, int(length))  # a float such as 1e30 stands for no limit


def _read_mapping(place: Path | str, name: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = read_json_settings(place, name) or {}
    return found


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
        titles = {
            "settings of the base that apply": self.applied,
            "settings of the base that are left out": self.left_out,
        }
        return [f"{title}: {'; '.join(parts)}" for title, parts in titles.items() if parts]


def describe_use(
    folder: SentenceFolder,
    *,
    pooling: str | None,
    prompt: str | None,
    max_length: int,
    limit: int,
    keeps_case: bool,
) -> Use:
    """Say what of a sentence-transformers folder a run applies, and what it leaves out.

    Args:
        folder: As `read_sentence_folder` returns it.
        pooling: What the head reads, one of `heads.POOLINGS`; None for the standard head.
        prompt: The prompt of the run, if any.
        max_length: That of the run.
        limit: Longest text in tokens that the encoder takes.
        keeps_case: Whether the tokenizer tells capitals from small letters.
    """
    applied: list[str] = []
    left_out: list[str] = []
    _describe_pooling(folder, pooling, applied, left_out)
    if prompt and prompt == folder.prompt:
        applied.append(f"its default prompt {prompt!r}, before every text (--prompt '' leaves it out)")
    elif folder.prompt:
        left_out.append(f"its default prompt {folder.prompt!r} (--prompt)")
    if folder.max_length == max_length < limit:
        applied.append(f"its length of {max_length} tokens (--max-length takes another)")
    elif folder.max_length is not None and folder.max_length < limit:
        left_out.append(f"its length of {folder.max_length} tokens (--max-length)")
    if prompt and not folder.pools_prompt:
        left_out.append("its rule that the prompt's tokens are not pooled (include_prompt)")
    if folder.lowers and keeps_case:
        left_out.append("its lowering of all letters (do_lower_case)")
    known = [*folder.layers, *(module for module in folder.modules if module.kind in ("Transformer", "Pooling"))]
    for kind in dict.fromkeys(module.kind for module in folder.modules if module not in known):
        why = ": heads that train scale for themselves" if kind == "Normalize" else ""
        left_out.append(f"its {kind}{why}")
    return Use(tuple(applied), tuple(left_out))


def _describe_pooling(folder: SentenceFolder, pooling: str | None, applied: list[str], left_out: list[str]) -> None:
    """Add what a run does with a base's pooling and the layers on it."""
    used = pooling is not None and pooling == folder.pooling
    read = pooling or "that of its architecture"
    if folder.poolings and not used:
        left_out.append(f"its pooling, {' and '.join(folder.poolings)}: the head reads {read}")
    if not folder.layers:
        return
    counts = Counter(module.kind for module in folder.layers)
    names = ", ".join(kind if count == 1 else f"{count} {kind}" for kind, count in counts.items())
    several = counts.total() > 1
    layers = f"its {names} layer{'s' if several else ''}"
    if used and not folder.obstacle:
        applied.append(f"{layers}, as part of the pooling")
    elif folder.obstacle:
        left_out.append(f"{layers}, {'which read' if several else 'which reads'} {folder.obstacle}")
    else:
        left_out.append(f"{layers}, {'which belong' if several else 'which belongs'} to another pooling than {read}")
