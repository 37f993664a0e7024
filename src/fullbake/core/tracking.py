"""Record runs with trackers such as MLflow: the protocol that a tracker has, and what training calls to be recorded.

Training calls `note_step` and `note_epoch` wherever it runs. They do nothing unless a caller above opened a run by
`tracked_run`; then the values go to the trackers on threads of their own (`tracking_worker`), so that no tracker
changes what is computed, delays a step, or ends the training when it fails.

accelerate's tracker classes are not used: they keep one run a process, cannot continue a run by its id, and most of
them store no files. What is recorded are numbers and the fields of the recipe, never a text of a row.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Protocol, runtime_checkable

from fullbake.core.errors import DeadlinePassed

Setting = str | int | float | bool
"""A value of a recipe, as trackers take it."""

RunStatus = Literal["finished", "failed", "stopped"]
"""How a run ended; `stopped` by a signal, so that it may be resumed."""


@dataclass(frozen=True)
class Point:
    """What was measured at one step of a training."""

    step: int
    """Optimizer steps taken so far."""

    values: Mapping[str, float]
    """Value by name, such as `train/loss`."""

    time: float
    """Seconds since 1970."""


@dataclass(frozen=True)
class RunInfo:
    """What a tracker needs to open a run."""

    id: str
    """Names this run and no other, in letters, digits and hyphens. A resumed run has the id that it had before."""

    name: str
    """What people call it."""

    settings: Mapping[str, Setting]
    """The fields of the recipe and facts of the run, by name."""

    resumed: bool = False
    """Whether a run of this id was opened before: continue it."""

    parent: str | None = None
    """The id of the run that this one belongs to: a trial to its comparison."""


class TrackedRun(Protocol):
    """One run in a tracker. All methods are called on the same thread, which is not that of the training."""

    where: str
    """Where people find the run: a folder, a page, or a command that shows it."""

    def log(self, points: Sequence[Point]) -> None:
        """Record measurements.

        Args:
            points: In the order in which they were made. The first steps of a resumed run were recorded before.
        """

    def log_scores(self, scores: Mapping[str, float]) -> None:
        """Record the final scores, such as `test/f1_macro`, and the ends of its interval, `test/f1_macro_low`, `_high`.

        Args:
            scores: Value by name.
        """

    def log_bundle(self, folder: Path) -> None:
        """Keep the files of the finished classifier, where the tracker can.

        Args:
            folder: Holds what is to be kept, without `seen.safetensors`, whose hashes would let others test guesses of
                training texts. It may be deleted after this call.
        """

    def close(self, status: RunStatus) -> None:
        """End the run. Everything recorded so far must be kept.

        Args:
            status: How it ended.
        """


@runtime_checkable
class Tracker(Protocol):
    """What records runs. Any object with these members may be passed as `track`."""

    name: str
    """What messages call it."""

    def open_run(self, run: RunInfo) -> TrackedRun:
        """Open a run, or continue it.

        Args:
            run: Its id, name, settings and parent. The parent was opened before.
        """


class RunRecorder(Protocol):
    """What takes the notes of a training (`tracking_worker.Recorder` is one)."""

    def note(self, step: int, values: Mapping[str, float]) -> None:
        """Take values of a step."""

    def settle(self) -> None:
        """Hand what was noted to the trackers now, within a short time."""

    def open_child(self, name: str, settings: Mapping[str, Setting]) -> "RunRecorder":
        """Open a run that belongs to this one."""

    def has_child(self, name: str) -> bool:
        """Return True if a run of this name below this one was finished before."""

    def scores(self, scores: Mapping[str, float]) -> None:
        """Take the final scores."""

    def close(self, status: RunStatus) -> None:
        """End this run."""


_recorder: ContextVar[RunRecorder | None] = ContextVar("run_recorder", default=None)
_series: ContextVar[tuple[str, ...]] = ContextVar("series", default=())

_NO_METRICS: Final = ("epoch", "trial", "best")
"""Entries of a history that are no measurements."""


@contextmanager
def recorded_by(recorder: RunRecorder | None) -> Iterator[None]:
    """Within the block, hand all notes of trainings to this recorder; None hands them to nobody."""
    tokens = _recorder.set(recorder), _series.set(())
    try:
        yield
    finally:
        _recorder.reset(tokens[0])
        _series.reset(tokens[1])


@contextmanager
def series(name: str) -> Iterator[None]:
    """Within the block, put a name before those of all values, for trainings that belong to the same run.

    Args:
        name: Such as `rate-5e-05`; an empty one changes nothing.
    """
    plain = re.sub(r"[^\w.-]", "-", name)  # the letters that all trackers take
    token = _series.set((*_series.get(), plain) if plain else _series.get())
    try:
        yield
    finally:
        _series.reset(token)


@contextmanager
def unrecorded() -> Iterator[None]:
    """Within the block, record nothing: short trials are no part of a run."""
    with recorded_by(None):
        yield


def is_recorded() -> bool:
    """Return True if somebody takes notes."""
    return _recorder.get() is not None


def note_step(step: int, loss: float, rate: float) -> None:
    """Note the loss of an optimizer step.

    Args:
        step: Steps taken so far.
        loss: Mean over the rows of the step.
        rate: The learning rate of the step.
    """
    recorder = _recorder.get()
    if recorder is not None:
        recorder.note(step, _named({"train/loss": loss, "train/learning_rate": rate}))


def note_epoch(step: int, entry: Mapping[str, Any]) -> None:
    """Note an epoch, by its entry of the history; lists and words in it are left out.

    Args:
        step: Steps taken so far.
        entry: Losses, metrics, seconds.
    """
    recorder = _recorder.get()
    if recorder is not None:
        numbers = {
            f"epoch/{name}": float(value)
            for name, value in entry.items()
            if name not in _NO_METRICS and _is_number(value)
        }
        recorder.note(step, _named(numbers))


def _is_number(value: Any) -> bool:
    """Return True for what every tracker can draw."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def settle() -> None:
    """Hand what was noted to the trackers before a checkpoint counts as saved. It takes two seconds at most."""
    recorder = _recorder.get()
    if recorder is not None:
        recorder.settle()


def has_child(name: str) -> bool:
    """Return True if a run of this name below the open one was finished before.

    Args:
        name: As for `child_run`.
    """
    recorder = _recorder.get()
    return recorder is not None and recorder.has_child(name)


@contextmanager
def child_run(name: str, settings: Mapping[str, Setting]) -> Iterator[RunRecorder | None]:
    """Within the block, record into a run of its own that belongs to the open one.

    Args:
        name: The name of the run, the same each time.
        settings: The fields of its recipe.

    Yields:
        The run; None where nothing is recorded.
    """
    recorder = _recorder.get()
    if recorder is None:
        yield None
        return
    child = recorder.open_child(name, settings)
    status: RunStatus = "stopped"
    try:
        with recorded_by(child):
            yield child
        status = "finished"
    except DeadlinePassed:
        raise
    except Exception:
        status = "failed"
        raise
    finally:
        child.close(status)


def _named(values: Mapping[str, float]) -> dict[str, float]:
    names = _series.get()
    return {"/".join((*names, name)): value for name, value in values.items()} if names else dict(values)


def flat_settings(values: Mapping[str, Any], prefix: str = "") -> dict[str, Setting]:
    """Return nested JSON values as settings, with dots between the names. What is None is left out.

    Args:
        values: Such as a recipe.
        prefix: Goes before each name.
    """
    found: dict[str, Setting] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= flat_settings(value, f"{prefix}{name}.")
        elif isinstance(value, list | tuple):
            found[f"{prefix}{name}"] = ", ".join(map(str, value))
        elif isinstance(value, str | int | float | bool):
            found[f"{prefix}{name}"] = value
    return found


def flat_scores(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return the scores of each part with the ends of their intervals, such as `test/f1_macro_low`.

    Args:
        metrics: The entry `metrics` of a bundle's fullbake.json.
    """
    found: dict[str, float] = {}
    for part, result in metrics.items():
        found[f"{part}/rows"] = float(result["rows"])
        for name, score in result["overall"].items():
            ends = {"": score["value"], "_low": score["low"], "_high": score["high"]}
            found |= {f"{part}/{name}{end}": float(value) for end, value in ends.items() if value is not None}
    return found
