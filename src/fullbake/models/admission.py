"""Admit a base by trying it, before anything is computed on it.

A base may load and still be something else than it says: layers that config.json leaves out, a tokenizer whose
tokenizer.json is ignored, states that change with the padding. No table of families finds these, so a few texts are run
through each base in a few ways. What passed is remembered by the sha256 of the base's files; a base that was tried
once costs the time to hash it.
"""

import random
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import tokenizers
import torch
import transformers

from fullbake.core import runtime, storage
from fullbake.core.cache import Cache
from fullbake.core.console import say, warn
from fullbake.core.errors import BaseModelError, Error, OutputError, SpaceFault
from fullbake.core.hashing import fingerprint, unchanged_file_sha256
from fullbake.models.encoder import load_encoder, pooler_kwargs, seeded_initialization
from fullbake.models.pretrained import (
    check_snapshot,
    explain_load_errors,
    find_base_file,
    first_line,
    load_config,
    max_positions,
    quiet_transformers,
    resolve_base,
    takes_segments,
)
from fullbake.models.sentence_folder import read_sentence_folder
from fullbake.models.state_probe import StateProbe
from fullbake.models.tokenizer import load_tokenizer_and_note, set_defaults
from fullbake.models.tokenizer_file import describe_case, describe_unknown, refuse_ids_beyond_table
from fullbake.models.weight_checks import refuse_integer_weights
from fullbake.models.weight_files import find_weight_files

_auto: Any = transformers

ADMISSION_VERSION: Final = 2
"""Raised where a check is added or changed, so that bases are tried again."""

ADMISSION_CACHE_BYTES: Final = 16 * 1024**2
"""Limit of the memory of admitted bases: some thousand of them."""

_FILES_THAT_COUNT: Final = (".json", ".txt", ".model")
"""Endings of the files of a base, besides its weights, that its states and token ids depend on."""

Result = Literal["passed", "noted", "refused", "not tried"]


@dataclass(frozen=True)
class Check:
    """One thing that was tried on a base.

    Attributes:
        name: what was tried, in a few words.
        result: `noted` if the base works and the user should know something.
        detail: what was found, in a clause or a sentence; of a refusal the whole message.
    """

    name: str
    result: Result
    detail: str


@dataclass(frozen=True)
class Admission:
    """What is known of a base after it was tried.

    Attributes:
        base: `demo`, a folder, or a hub id.
        facts: model_type, layers, width, max_length, vocabulary and parameters, as far as they could be read.
        checks: in the order in which they were made.
        remembered: True if an earlier run made the checks.
        errors: why the base is refused; empty if it is admitted.
    """

    base: str
    facts: Mapping[str, Any]
    checks: tuple[Check, ...]
    remembered: bool = False
    errors: tuple[BaseModelError, ...] = field(default=(), compare=False)

    @property
    def notes(self) -> list[str]:
        """What the user should know of a base that works."""
        return [check.detail for check in self.checks if check.result == "noted"]

    def to_json(self) -> dict[str, Any]:
        """Return all of it as JSON values."""
        return {
            "base": self.base,
            "admitted": not self.errors,
            "remembered": self.remembered,
            "facts": dict(self.facts),
            "checks": [asdict(check) for check in self.checks],
            "refusals": [str(error) for error in self.errors],
        }


def admit(base: str | Path, *, weights: bool = True, cache_dir: str | Path | None = None) -> Admission:
    """Try a base, or remember that it was tried, and say so in one line.

    Args:
        base: `demo`, a folder, or a hub id.
        weights: Whether the base's weights count. Without them random ones are tried.
        cache_dir: Folder of the caches. None: FULLBAKE_CACHE_DIR, or the user's cache folder.

    Raises:
        BaseModelError: The base is refused; the first reason.
    """
    admission = examine(base, weights=weights, cache_dir=cache_dir)
    if admission.errors:
        raise admission.errors[0]
    say(describe_admission(admission))
    for note in admission.notes:
        warn(f"base {base}: {note}")
    return admission


def examine(
    base: str | Path, *, weights: bool = True, cache_dir: str | Path | None = None, again: bool = False
) -> Admission:
    """Try a base and return what was found; nothing is raised for a base that is refused.

    Args:
        base: `demo`, a folder, or a hub id.
        weights: Whether the base's weights count. Without them random ones are tried.
        cache_dir: Folder of the caches. None: FULLBAKE_CACHE_DIR, or the user's cache folder.
        again: Try it although it was admitted before.
    """
    cache = Cache(runtime.cache_dir(cache_dir) / "admissions", ADMISSION_CACHE_BYTES)
    key = _memory_key(base, weights)
    known = None if again or key is None else _recall(cache, key)
    if known is not None:
        return replace(known, base=str(base), remembered=True)
    found = _Examination(base, weights).run()
    if key is not None and not found.errors:
        _remember(cache, key, found)
    return found


def describe_admission(admission: Admission) -> str:
    """Return one line on an admitted base, for the head of a run."""
    facts = admission.facts
    tried = "checked before" if admission.remembered else f"{len(admission.checks)} checks passed"
    return (
        f"base {admission.base}: {facts['model_type']}, {facts['layers']} layers of width {facts['width']}, texts of "
        f"up to {facts['max_length']:,} tokens ({tried})"
    )


# The memory


_admitted: dict[str, Admission] = {}
"""Key -> what this process has admitted."""


def _memory_key(base: str | Path, weights: bool) -> str | None:
    """Return a hash of all that an admission depends on; None if the base's files are not found."""
    try:
        place = resolve_base(base)
        config = find_base_file(place, "config.json")
        read_sentence_folder(base)  # one that cannot be read is never remembered: its subfolders are not hashed
        if config is None:
            return None
        files: Any = [place, config.parent.name]  # of the hub: the commit
        if isinstance(place, Path):
            found = [path for path in place.iterdir() if path.suffix in _FILES_THAT_COUNT and path.is_file()]
            files = {path.name: unchanged_file_sha256(path) for path in sorted(found)}
            files |= {path.name: unchanged_file_sha256(path) for path in find_weight_files(place)} if weights else {}
    except (BaseModelError, OSError):
        return None
    versions = transformers.__version__, tokenizers.__version__, torch.__version__
    return fingerprint("admission", ADMISSION_VERSION, weights, files, [str(version) for version in versions])


def _recall(cache: Cache, key: str) -> Admission | None:
    if key in _admitted:
        return _admitted[key]
    folder = cache.get(key)
    if folder is None:
        return None
    try:
        value = storage.read_json(folder / "admission.json")
        checks = tuple(Check(**check) for check in value["checks"])
        known = Admission(value["base"], value["facts"], checks)
        describe_admission(known)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return known


def _remember(cache: Cache, key: str, found: Admission) -> None:
    """Keep an admission; where the cache cannot be written, the base is tried again in the next process."""
    _admitted[key] = found
    try:
        with cache.put(key, f"admission of {found.base}") as folder:
            storage.write_json(folder / "admission.json", found.to_json())
    except (OSError, OutputError, SpaceFault):
        pass


# The checks


class _Examination:
    """One trial of a base.

    Args:
        base: `demo`, a folder, or a hub id.
        weights: Whether the base's weights count.
    """

    def __init__(self, base: str | Path, weights: bool) -> None:
        self.base, self.weights = base, weights
        self.place: Path | str = str(base)
        self.facts: dict[str, Any] = {}
        self.checks: list[Check] = []
        self.errors: list[BaseModelError] = []
        self.config: Any = None
        self.tokenizer: Any = None
        self.encoder: Any = None
        self.probe: StateProbe | None = None

    def run(self) -> Admission:
        """Make all checks that can be made."""
        with _kept_random_state(), quiet_transformers(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what matters is refused or noted here
            self._try("config", self._check_config)
            self._try("tokenizer", self._check_tokenizer, self.config)
            self._try("weights", self._check_weights, self.config)
            self._try("vocabulary", self._check_vocabulary, self.tokenizer, self.encoder)
            fits = not self.errors
            self._try("texts", self._check_texts, fits)
            self._try("padding", self._check_padding, self.probe)
            self._try("earlier texts", self._check_history, self.probe)
        return Admission(str(self.base), self.facts, tuple(self.checks), errors=tuple(self.errors))

    def _try(self, name: str, check: Callable[[], tuple[Result, str]], *needed: Any) -> None:
        """Make one check. It is not tried where something that it needs was refused before."""
        if not all(part is not None and part is not False for part in needed):
            self.checks.append(Check(name, "not tried", "needs what was refused above"))
            return
        try:
            result, detail = self._explained(name, check)
        except BaseModelError as error:
            self.errors.append(error)
            result, detail = "refused", " ".join(str(error).split())
        self.checks.append(Check(name, result, detail))

    def _explained(self, name: str, check: Callable[[], tuple[Result, str]]) -> tuple[Result, str]:
        """Make one check; whatever the base's own code raises becomes a BaseModelError with its words."""
        try:
            return check()
        except (Error, MemoryError):
            raise
        except Exception as error:
            raise BaseModelError(
                f"the base fails when its {name} {'are' if name.endswith('s') else 'is'} tried",
                where=f"base '{self.place}'",
                got=f"{type(error).__name__}: {first_line(error)}",
                remedy="Choose another base.",
            ) from error

    def _check_config(self) -> tuple[Result, str]:
        self.place = resolve_base(self.base)
        config: Any = load_config(self.base)
        if isinstance(self.place, str):
            check_snapshot(self.place)
        read_sentence_folder(self.base)
        self.facts["model_type"] = config.model_type
        for name, field_name in (("layers", "num_hidden_layers"), ("width", "hidden_size")):
            self.facts[name] = _read_size(config, field_name, self.place)
        with explain_load_errors(self.place):
            self.facts["max_length"] = max_positions(config)
        self.config = config
        # Some authors write code of their own under the model type of another architecture.
        code = getattr(config, "auto_map", None)
        if isinstance(code, Mapping) and code:
            return "noted", (
                f"config.json names code of its authors ({next(iter(code.values()))!r:.80}, in auto_map), which is "
                f"never run: what counts is what transformers' own {config.model_type} computes with these weights"
            )
        return "passed", f"an encoder that transformers {transformers.__version__} knows"

    def _check_tokenizer(self) -> tuple[Result, str]:
        tokenizer, note = load_tokenizer_and_note(self.base)
        segments = takes_segments(self.config)
        set_defaults(tokenizer, max_length=self.facts["max_length"], truncation="head", has_token_type_ids=segments)
        self.facts["vocabulary"] = len(tokenizer)
        self.tokenizer = tokenizer
        notes = [text for text in (note, describe_case(tokenizer), describe_unknown(tokenizer)) if text]
        if notes:
            return "noted", "; ".join(notes)
        ids = "its ids are those of tokenizer.json" if find_base_file(self.place, "tokenizer.json") else "read"
        segment = "pairs have segment ids" if "token_type_ids" in tokenizer.model_input_names else "no segment ids"
        return "passed", f"{len(tokenizer):,} tokens, {ids}, {segment}"

    def _check_weights(self) -> tuple[Result, str]:
        if not self.weights:
            with seeded_initialization(0), explain_load_errors(self.place):
                self.encoder = _auto.AutoModel.from_config(
                    self.config, dtype=torch.float32, **pooler_kwargs(self.config, False)
                ).eval()
            return "passed", "random ones, as they will be trained from"
        refuse_integer_weights(find_weight_files(self.place))
        self.encoder = load_encoder(self.base)
        count = sum(parameter.numel() for parameter in self.encoder.parameters())
        self.facts["parameters"] = count
        return "passed", f"{count:,}, all that config.json asks for and no others"

    def _check_vocabulary(self) -> tuple[Result, str]:
        rows = len(self.encoder.get_input_embeddings().weight)
        refuse_ids_beyond_table(self.tokenizer, rows, self.place)
        return "passed", f"all ids have one of {rows:,} embeddings"

    def _check_texts(self) -> tuple[Result, str]:
        probe = StateProbe(self.encoder, self.tokenizer, self.facts["max_length"], self.place)
        probe.check_texts()
        self.probe = probe
        return "passed", f"states of its width for texts of up to {len(probe.long):,} tokens, alone and in pairs"

    def _check_padding(self) -> tuple[Result, str]:
        assert self.probe is not None
        apart = self.probe.check_padding()
        return "passed", f"a text alone, padded and beside others: {_describe_difference(apart)}"

    def _check_history(self) -> tuple[Result, str]:
        assert self.probe is not None
        apart = self.probe.check_history()
        return "passed", f"a text before and after others: {_describe_difference(apart)}"


def _describe_difference(apart: float) -> str:
    return f"states apart by {apart:.0e} of their largest value" if apart else "equal states"


def _read_size(config: Any, name: str, place: Path | str) -> int:
    """Return a whole number of a config, or raise BaseModelError if it has none of this name."""
    value = getattr(config, name, None)
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    raise BaseModelError(
        f"the base does not say how its encoder is built (model type {config.model_type!r})",
        where=f"base '{place}', config.json",
        expected=f"{name}, a whole number above 0",
        got=repr(value)[:60],
        remedy="Choose an encoder of text alone, such as BERT, RoBERTa or ModernBERT.",
    )


@contextmanager
def _kept_random_state() -> Iterator[None]:
    """Restore the random generators of Python, numpy and torch's CPU after the block: some bases draw or seed there."""
    own, state = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(own)
        np.random.set_state(state)
