"""trackio as a tracker: runs in a local database, which `trackio show` draws, or in the Space of TRACKIO_SPACE_ID.

The trials of a comparison are runs of one group.
"""

import os
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from contextvars import Context
from functools import partial
from pathlib import Path
from typing import Any, Final

from fullbake.core.tracking import Point, RunInfo, RunStatus

PROJECT: Final = "fullbake"
"""The project where TRACKIO_PROJECT names none."""


class TrackioTracker:
    """Records runs in a project of trackio."""

    name = "trackio"

    def __init__(self, project: str | None = None) -> None:
        """Choose the project.

        Args:
            project: None: TRACKIO_PROJECT, or `fullbake`.
        """
        self.project = project or os.environ.get("TRACKIO_PROJECT") or PROJECT

    def open_run(self, run: RunInfo) -> "TrackioRun":
        """Open the run of this id, or continue it."""
        import trackio

        name = run.id if run.parent is None else f"{run.parent}/{run.name}"
        begin = partial(
            trackio.init,
            project=self.project,
            name=name,
            group=run.parent or run.id,
            config=dict(run.settings),
            resume="allow",
            embed=False,
            auto_log_cpu=False,
            auto_log_gpu=False,
        )
        # trackio ends the run that its context variables hold: a new context keeps the one of the comparison open.
        with redirect_stdout(_WithoutThisThread()):
            opened = Context().run(begin)
        return TrackioRun(opened, f"run {name} of project {self.project!r} (trackio show --project {self.project})")


class TrackioRun:
    """A run of trackio."""

    def __init__(self, run: Any, where: str) -> None:
        self._run, self.where = run, where

    def log(self, points: Sequence[Point]) -> None:
        """Record the points."""
        for point in points:
            self._run.log(dict(point.values), step=point.step)

    def log_scores(self, scores: Mapping[str, float]) -> None:
        """Record the scores as values of the last step."""
        self._run.log(dict(scores))

    def log_bundle(self, folder: Path) -> None:
        """Record the files as an artifact of type `model`."""
        import trackio

        artifact = trackio.Artifact("bundle", type="model")
        artifact.add_dir(str(folder))
        self._run.log_artifact(artifact)

    def close(self, status: RunStatus) -> None:  # noqa: ARG002  (trackio knows no other end)
        """End the run, when everything was sent or written."""
        with redirect_stdout(_WithoutThisThread()):
            self._run.finish()


class _WithoutThisThread:
    """A stdout that drops what this thread prints: trackio prints five lines a run, and stdout is for results."""

    def __init__(self) -> None:
        self._thread, self._stream = threading.current_thread(), sys.stdout

    def write(self, text: str) -> int:
        """Write the text of any other thread."""
        return len(text) if threading.current_thread() is self._thread else self._stream.write(text)

    def flush(self) -> None:
        """Flush the true stdout."""
        self._stream.flush()
