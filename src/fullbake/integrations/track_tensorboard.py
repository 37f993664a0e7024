"""TensorBoard: runs as event files below `runs`, which `tensorboard --logdir runs` shows.

TENSORBOARD_LOGGING_DIR names another folder, as for transformers. The library is tensorboardX, or else that of torch,
which needs the package tensorboard; both have the same writer. TensorBoard keeps no files of a classifier.
"""

import json
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fullbake.core.extras import is_installed
from fullbake.core.tracking import Point, RunInfo, RunStatus


class TensorBoardTracker:
    """Writes each run into a folder of its own; the trials of a comparison into folders below that."""

    name = "tensorboard"

    def __init__(self, folder: str | Path | None = None) -> None:
        """Choose where the runs are.

        Args:
            folder: Holds all runs. None: TENSORBOARD_LOGGING_DIR, or `runs` in the working folder.
        """
        self.folder = Path(folder or os.environ.get("TENSORBOARD_LOGGING_DIR") or "runs")

    def open_run(self, run: RunInfo) -> "TensorBoardRun":
        """Open the folder of a run. Event files of a run that is continued stay beside the new one."""
        place = self.folder / (run.id if run.parent is None else f"{run.parent}/{run.name}")
        opened = TensorBoardRun(place, f"{place} (tensorboard --logdir {self.folder})")
        if not run.resumed:
            listed = json.dumps(dict(run.settings), indent=2, ensure_ascii=False)
            opened.writer.add_text("settings", f"```json\n{listed}\n```")
        return opened


class TensorBoardRun:
    """The event file of a run."""

    def __init__(self, place: Path, where: str) -> None:
        self.where = where
        self.writer = _open_writer(place)

    def log(self, points: Sequence[Point]) -> None:
        """Write the points to the file."""
        for point in points:
            for name, value in point.values.items():
                self.writer.add_scalar(name, value, point.step, walltime=point.time)
        self.writer.flush()

    def log_scores(self, scores: Mapping[str, float]) -> None:
        """Write the scores as series of one value, below `final`."""
        for name, value in scores.items():
            self.writer.add_scalar(f"final/{name}", value, 0)
        self.writer.flush()

    def log_bundle(self, folder: Path) -> None:
        """Do nothing: event files hold no files."""

    def close(self, status: RunStatus) -> None:
        """Close the file."""
        self.writer.add_text("status", status)
        self.writer.close()


def _open_writer(place: Path) -> Any:
    """Return a writer of event files."""
    suffix = f".{secrets.token_hex(3)}"  # else a file that is opened within a second of another one replaces it
    if is_installed("tensorboardX"):
        from tensorboardX import SummaryWriter

        return SummaryWriter(str(place), filename_suffix=suffix)
    from torch.utils.tensorboard import SummaryWriter as TorchWriter

    return TorchWriter(str(place), filename_suffix=suffix)
