"""Trackers for tests: one that keeps everything in memory, one that fails."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fullbake.core.tracking import Point, RunInfo


@dataclass
class MemoryRun:
    """Everything that one run was given."""

    info: RunInfo
    where: str = "memory"
    points: list[Point] = field(default_factory=list)
    scores: dict[str, float] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    status: str = "open"

    def log(self, points: Sequence[Point]) -> None:
        self.points += points

    def log_scores(self, scores: Mapping[str, float]) -> None:
        self.scores |= scores

    def log_bundle(self, folder: Path) -> None:
        found = (path for path in folder.rglob("*") if path.is_file())
        self.files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}

    def close(self, status: str) -> None:
        self.status = status

    def steps(self, name: str) -> list[int]:
        """Return the steps of a value in the order in which they came."""
        return [point.step for point in self.points if name in point.values]


class MemoryTracker:
    """Keeps runs by id. A run that is opened again is continued."""

    def __init__(self, name: str = "memory") -> None:
        self.name, self.runs = name, dict[str, MemoryRun]()

    def open_run(self, run: RunInfo) -> MemoryRun:
        if run.id not in self.runs:
            self.runs[run.id] = MemoryRun(run)
        self.runs[run.id].status = "open"
        return self.runs[run.id]

    def named(self, name: str) -> MemoryRun:
        """Return the only run of this name."""
        (found,) = [run for run in self.runs.values() if run.info.name == name]
        return found


class FailingTracker(MemoryTracker):
    """Fails at the call of a name, or takes very long for it."""

    def __init__(self, call: str, *, seconds: float | None = None) -> None:
        super().__init__("failing")
        self.call, self.seconds = call, seconds

    def open_run(self, run: RunInfo) -> MemoryRun:
        opened = super().open_run(run)
        if self.call == "open_run":
            self._fail()
        else:
            setattr(opened, self.call, lambda *_: self._fail())
        return opened

    def _fail(self) -> None:
        if self.seconds is None:
            raise SystemExit("the server said:\n no")
        time.sleep(self.seconds)
