"""Weights & Biases as a tracker. The trials of a comparison are runs of one group.

WANDB_PROJECT, WANDB_ENTITY, WANDB_MODE and the key are read by wandb itself. What wandb would record by itself is
turned off: what the process prints (it may show texts of rows), its arguments, code and git state.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from fullbake.core.tracking import Point, RunInfo, RunStatus

PROJECT: Final = "fullbake"
"""The project where WANDB_PROJECT names none."""

PRIVATE_SETTINGS: Final[dict[str, Any]] = {
    "console": "off",
    "disable_git": True,
    "disable_code": True,
    "save_code": False,
    "x_disable_meta": True,
    "x_save_requirements": False,
    "silent": True,
}
"""Settings that keep wandb from recording anything but what it is given."""

_EXIT_CODES: Final = {"finished": 0, "failed": 1, "stopped": 1}


class WandbTracker:
    """Records runs in a project of Weights & Biases, or in a local folder where WANDB_MODE is offline."""

    name = "wandb"

    def __init__(self, project: str | None = None) -> None:
        """Choose the project.

        Args:
            project: None: WANDB_PROJECT, or `fullbake`.
        """
        self.project = project or os.environ.get("WANDB_PROJECT") or PROJECT

    def open_run(self, run: RunInfo) -> "WandbRun":
        """Open the run of this id, or continue it."""
        import wandb

        opened = wandb.init(
            project=self.project,
            id=run.id,
            name=run.name,
            config=dict(run.settings),
            group=run.parent or run.id,
            job_type="trial" if run.parent else "run",
            resume="allow",
            reinit="create_new",  # a trial does not end the run of its comparison
            allow_val_change=True,
            settings=wandb.Settings(**PRIVATE_SETTINGS),
        )
        return WandbRun(opened)


class WandbRun:
    """A run of wandb."""

    def __init__(self, run: Any) -> None:
        self._run, self._named = run, set[str]()
        self.where = f"{Path(run.dir).parent} (wandb sync sends it)" if run.offline else str(run.url)

    def log(self, points: Sequence[Point]) -> None:
        """Record the points. Each series has a step of its own: wandb's one step may never decrease."""
        for point in points:
            by_series: dict[str, dict[str, float]] = {}
            for name, value in point.values.items():
                by_series.setdefault("/".join(name.split("/")[:-2]), {})[name] = value
            for series, values in by_series.items():
                step = f"{series}/step".lstrip("/")
                self._name_step(step, values)
                self._run.log({**values, step: point.step})

    def _name_step(self, step: str, values: Mapping[str, float]) -> None:
        """Let wandb draw values over the step of their series."""
        for name in values:
            if name not in self._named:
                self._named.add(name)
                self._run.define_metric(name, step_metric=step)

    def log_scores(self, scores: Mapping[str, float]) -> None:
        """Write the scores into the summary."""
        self._run.summary.update(dict(scores))

    def log_bundle(self, folder: Path) -> None:
        """Record the files as an artifact of type `model`."""
        import wandb

        artifact = wandb.Artifact(f"bundle-{self._run.id}", type="model")
        artifact.add_dir(str(folder))
        self._run.log_artifact(artifact)

    def close(self, status: RunStatus) -> None:
        """End the run, when everything was sent or written."""
        self._run.finish(exit_code=_EXIT_CODES[status])
