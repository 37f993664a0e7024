"""What goes to the workers of a comparison and what comes back: bytes that hold JSON, arrays and rows, nothing else.

No object of Python is pickled: what comes from another machine is read as data and checked, and can run nothing here. A
package holds the rows and the recipes and is sent once; a task and its outcome are small JSON with arrays beside it.
"""

import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final

import numpy as np
import pyarrow as pa
from safetensors import SafetensorError
from safetensors.numpy import load, save

from fullbake.comparison.design import Candidate
from fullbake.comparison.schedule import NextTrial, Size, Trial
from fullbake.comparison.trial import TrialPredictions, TrialResult, TrialWeights
from fullbake.comparison.trial_work import TrialTask
from fullbake.config.recipe import Recipe
from fullbake.config.sections import Columns, DecisionConfig
from fullbake.core.errors import Fault
from fullbake.data.dataset import Dataset
from fullbake.data.splits import Part, Parts

_ipc: Any = pa.ipc  # pyarrow has no types for these functions

_HEAD: Final = struct.Struct("<4sQ")
_MAGIC: Final = b"fbk1"
_TEXT_COLUMNS: Final = ("texts", "text_pair", "group")


def join_message(head: Mapping[str, Any], blobs: Mapping[str, bytes]) -> bytes:
    """Return JSON values and named byte strings as one byte string."""
    words = json.dumps({"head": head, "blobs": {name: len(blob) for name, blob in blobs.items()}}).encode()
    return b"".join([_HEAD.pack(_MAGIC, len(words)), words, *blobs.values()])


def divide_message(data: bytes) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return what `join_message` was given.

    Raises:
        ValueError: The bytes are not of that form.
    """
    if len(data) < _HEAD.size:
        raise ValueError("it is too short")
    magic, length = _HEAD.unpack_from(data)
    if magic != _MAGIC:
        raise ValueError("it does not begin as a message does")
    whole = json.loads(data[_HEAD.size : _HEAD.size + length])
    blobs, at = {}, _HEAD.size + length
    for name, size in whole["blobs"].items():
        blobs[name] = data[at : at + size]
        at += size
    if at != len(data) or not isinstance(whole["head"], dict):
        raise ValueError(f"it has {len(data):,} bytes in place of {at:,}")
    return whole["head"], blobs


def pack_rows(folds: Sequence[Parts]) -> bytes:
    """Return the rows of all folds: each data set once, and the positions of each part in it."""
    sources: dict[int, Dataset] = {}
    parts: list[dict[str, int]] = []
    arrays: dict[str, np.ndarray] = {}
    for number, fold in enumerate(folds):
        parts.append({})
        for name, part in fold.by_name().items():
            sources.setdefault(id(part.source), part.source)
            parts[-1][name] = list(sources).index(id(part.source))
            arrays[f"fold {number} {name}"] = np.ascontiguousarray(part.indices)
    heads, blobs = [], dict[str, bytes]()
    for number, source in enumerate(sources.values()):
        columns = {name: column for name in _TEXT_COLUMNS if (column := getattr(source, name)) is not None}
        blobs[f"texts {number}"] = _pack_table(pa.table(columns))
        arrays[f"rows {number}"] = np.ascontiguousarray(source.rows)
        if source.labels is not None:
            arrays[f"labels {number}"] = np.ascontiguousarray(source.labels)
        facts = {"label_names": list(source.label_names), "source": source.source, "columns": asdict(source.columns)}
        heads.append(facts)
    return join_message({"sources": heads, "parts": parts}, blobs | {"arrays": save(arrays)})


def unpack_rows(data: bytes) -> list[Parts]:
    """Return the folds that `pack_rows` was given, with the rows that train, choose and test alone."""
    head, blobs = divide_message(data)
    arrays = load(blobs["arrays"])
    sources = []
    for number, facts in enumerate(head["sources"]):
        table = _ipc.open_stream(blobs[f"texts {number}"]).read_all()
        columns = {name: table.column(name) if name in table.column_names else None for name in _TEXT_COLUMNS}
        labels = facts["columns"].pop("labels")
        sources.append(
            Dataset(
                **columns,
                labels=arrays.get(f"labels {number}"),
                label_names=tuple(facts["label_names"]),
                rows=arrays[f"rows {number}"],
                source=facts["source"],
                columns=Columns(**facts["columns"], labels=None if labels is None else tuple(labels)),
            )
        )
    folds = []
    for number, places in enumerate(head["parts"]):
        found = {name: Part(sources[at], arrays[f"fold {number} {name}"]) for name, at in places.items()}
        folds.append(Parts(found["train"], found.get("validation"), found.get("test")))
    return folds


def _pack_table(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with _ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    found: bytes = sink.getvalue().to_pybytes()
    return found


@dataclass(frozen=True)
class WorkPackage:
    """Everything that all trials of a comparison share."""

    candidates: Mapping[str, Candidate]
    """By name, with their recipes as the jobs have them: all fields filled in."""
    base_keys: Mapping[str, str]
    """Candidate -> fingerprint of its base's weights, which a worker's own base must have."""
    folds: Sequence[Parts]
    metric: str
    decision: DecisionConfig
    facts: Mapping[str, Any]
    """JSON values: `cache_dir`, `folder` (where relative paths begin), `device`."""

    def to_bytes(self) -> bytes:
        """Return it as bytes."""
        candidates = {
            name: {
                "title": one.title,
                "seed": one.seed,
                "recipe": None if one.recipe is None else one.recipe.model_dump(mode="json"),
            }
            for name, one in self.candidates.items()
        }
        head = {
            "candidates": candidates,
            "base_keys": dict(self.base_keys),
            "metric": self.metric,
            "decision": self.decision.model_dump(mode="json"),
            "facts": dict(self.facts),
        }
        return join_message(head, {"rows": pack_rows(self.folds)})

    @classmethod
    def from_bytes(cls, data: bytes) -> "WorkPackage":
        """Return what `to_bytes` was called on."""
        head, blobs = divide_message(data)
        candidates = {
            name: Candidate(
                name, one["title"], None if one["recipe"] is None else Recipe.load(one["recipe"]), one["seed"]
            )
            for name, one in head["candidates"].items()
        }
        decision = DecisionConfig.model_validate(head["decision"])
        rows = unpack_rows(blobs["rows"])
        return cls(candidates, head["base_keys"], rows, head["metric"], decision, head["facts"])


@dataclass(frozen=True)
class Assignment:
    """A task for a worker."""

    task: TrialTask
    step: NextTrial
    """What the schedule says of it."""
    threads: int
    left: float | None
    """Seconds left for trials; None without a budget."""
    scoring: float
    """Seconds that scoring it is expected to take."""
    closing: float = 0.0
    """Seconds after `left` until scoring must end too."""
    prepares: bool = False
    """Only the shared work is to be done."""
    keep_from: float | None = None
    """Weights come back only if the validation metric is at least this: those of a better seed are there already."""
    needs: list[str] = field(default_factory=list)
    """Keys of all shared work of the trial, done or not."""
    sends_entries: bool = False
    """What was put into the caches comes back too: the workers share no folder."""

    @property
    def id(self) -> str:
        """Return the trial's id, and what is done of it."""
        return f"{self.task.trial.id}{' (shared work)' if self.prepares else ''}"

    def to_bytes(self) -> bytes:
        """Return it as bytes."""
        return join_message(asdict(self), {})

    @classmethod
    def from_bytes(cls, data: bytes) -> "Assignment":
        """Return what `to_bytes` was called on."""
        head, _ = divide_message(data)
        trial = head["task"]["trial"]
        trial = Trial(**{**trial, "size": Size(**trial["size"])})
        task = TrialTask(**{**head["task"], "trial": trial})
        return cls(**{**head, "task": task, "step": NextTrial(**{**head["step"], "trial": trial})})


@dataclass(frozen=True)
class Outcome:
    """What came of an assignment."""

    machine: str
    result: TrialResult | None = None
    """None for shared work, and if there was no result in time."""
    weights: TrialWeights = field(default_factory=dict)
    predictions: TrialPredictions | None = None
    gave_up: str | None = None
    """Why there is no result: the time was up."""
    error: Mapping[str, str] | None = None
    """What went wrong so that no trial can run there: `kind`, `what`, and `remedy`."""
    elapsed: float = 0.0
    shared_seconds: float = 0.0
    slower: float = 1.0
    part: str | None = None
    learned: Sequence[tuple[list[str], float]] = ()
    """Keys of shared work that was done, and its seconds."""
    entries: Mapping[str, bytes] = field(default_factory=dict)
    """Entries of the caches, by "cache/key", each as `cache_entries.pack` returns it."""
    versions: Mapping[str, str] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """Return it as bytes."""
        plain = ("machine", "gave_up", "error", "elapsed", "shared_seconds", "slower", "part", "learned", "versions")
        head: dict[str, Any] = {name: getattr(self, name) for name in plain}
        head["result"] = None if self.result is None else self.result.facts()
        arrays = {} if self.result is None else {"validation": np.ascontiguousarray(self.result.logits)}
        if self.predictions is not None:
            head["rows_per_second"] = self.predictions.rows_per_second
            arrays["test"] = np.ascontiguousarray(self.predictions.logits)
        weights = {name: np.ascontiguousarray(array) for name, array in self.weights.items()}
        blobs = {"arrays": save(arrays), "weights": save(weights)}
        return join_message(head, blobs | {f"entry {name}": data for name, data in self.entries.items()})


_RESULT_FIELDS: Final = {one.name for one in fields(TrialResult)} - {"logits"}


def read_outcome(data: bytes, assignment: Assignment, package: WorkPackage) -> Outcome:
    """Read and check what a worker sent.

    Args:
        data: The bytes.
        assignment: What it was sent for.
        package: The comparison.

    Raises:
        Fault: The bytes are damaged, or what they hold does not fit the assignment.
    """
    try:
        found = _read(data)
        parts = package.folds[assignment.task.trial.fold or 0]
        _check(found, assignment, parts)
    except (ValueError, KeyError, TypeError, AttributeError, SafetensorError, struct.error) as error:
        raise Fault(
            "what a worker sent back cannot be used",
            where=assignment.id,
            got=f"{type(error).__name__}: {error}",
            remedy="The trial is not finished; the same command runs it again.",
        ) from error
    return found


def _read(data: bytes) -> Outcome:
    head, blobs = divide_message(data)
    arrays, weights = load(blobs["arrays"]), load(blobs["weights"])
    result = predictions = None
    if head["result"] is not None:
        unknown = set(head["result"]) ^ _RESULT_FIELDS
        if unknown:
            raise ValueError(f"fields of the result: {', '.join(sorted(unknown))}")
        result = TrialResult(logits=arrays["validation"], **head["result"])
    if "test" in arrays:
        predictions = TrialPredictions(arrays["test"], float(head["rows_per_second"]))
    entries = {name.removeprefix("entry "): blob for name, blob in blobs.items() if name.startswith("entry ")}
    return Outcome(
        str(head["machine"]),
        result,
        weights,
        predictions,
        _text(head["gave_up"]),
        head["error"],
        _seconds(head["elapsed"]),
        _seconds(head["shared_seconds"]),
        _seconds(head["slower"]),
        _text(head["part"]),
        [([str(key) for key in keys], _seconds(seconds)) for keys, seconds in head["learned"]],
        entries,
        {str(name): str(version) for name, version in head["versions"].items()},
    )


def _check(found: Outcome, assignment: Assignment, parts: Parts) -> None:
    """Raise ValueError unless the arrays are the scores of the rows of these parts."""
    if found.result is None:
        if found.predictions is not None or (not assignment.prepares and not (found.gave_up or found.error)):
            raise ValueError("there is no result, and no reason for it")
        return
    classes = len(parts.train.source.label_names)
    if found.result.value is None:
        return
    if not math.isfinite(found.result.value) or not 0 <= found.result.share <= 1:
        raise ValueError(f"the value {found.result.value} of the metric")
    _check_logits("validation", found.result.logits, len(parts.selection_part), classes)
    if found.predictions is not None:
        assert parts.test is not None
        _check_logits("test", found.predictions.logits, len(parts.test), classes)


def _check_logits(name: str, logits: np.ndarray, rows: int, classes: int) -> None:
    # Two classes may have one column of logits.
    if logits.ndim != 2 or len(logits) != rows or logits.shape[1] not in (classes, 1) or logits.dtype != np.float32:
        raise ValueError(f"{name} logits {logits.shape} {logits.dtype} in place of ({rows}, {classes}) float32")
    if not np.isfinite(logits).all():
        raise ValueError(f"{name} logits that are no numbers")


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _seconds(value: Any) -> float:
    number = float(value)
    if not number >= 0:
        raise ValueError(f"{number} seconds")
    return number
