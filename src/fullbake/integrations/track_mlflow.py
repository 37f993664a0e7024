"""MLflow as a tracker: one run with its parameters, metrics and the bundle; a comparison is a parent with nested runs.

MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME and the credentials are read by MLflow itself. Only its client is used, not
its active run, which belongs to the user's own code. A run is found again by its tag `fullbake.run`.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from fullbake.core.tracking import Point, RunInfo, RunStatus

EXPERIMENT: Final = "fullbake"
"""The experiment where MLFLOW_EXPERIMENT_NAME names none."""

RUN_TAG: Final = "fullbake.run"
"""The tag with the id by which a run is found again."""

ARTIFACT_FOLDER: Final = "bundle"
"""Where the bundle is within the artifacts of a run."""

_LONGEST_VALUE: Final = 500
"""Characters of a parameter; MLflow takes 6,000, older servers 500."""

_AT_ONCE: Final = 100
"""Parameters of one request, and a tenth of the metrics of one: MLflow's own limits."""

_STATUS: Final = {"finished": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}


class MlflowTracker:
    """Records runs in an MLflow server or folder."""

    name = "mlflow"

    def __init__(self, uri: str | None = None, experiment: str | None = None) -> None:
        """Choose where the runs are.

        Args:
            uri: As MLFLOW_TRACKING_URI: a server, a database, or a folder as `file:///...`. None: that variable.
            experiment: None: MLFLOW_EXPERIMENT_NAME, or `fullbake`.
        """
        self.uri = uri
        self.experiment = experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
        self._client: Any = None
        self._runs: dict[str, str] = {}
        """The id of fullbake -> that of MLflow."""

    def open_run(self, run: RunInfo) -> "MlflowRun":
        """Find the run by its tag, or create it with its parameters."""
        client = self._open_client()
        experiment = _experiment_id(client, self.experiment)
        found = _find_run(client, experiment, run.id) if run.resumed else None
        if found is None:
            tags = {RUN_TAG: run.id}
            if run.parent is not None:
                tags["mlflow.parentRunId"] = self._runs[run.parent]
            found = client.create_run(experiment, tags=tags, run_name=run.name).info.run_id
            _log_params(client, found, run.settings)
        else:
            client.update_run(found, status="RUNNING")
        self._runs[run.id] = found
        where = f"run {found} of experiment {self.experiment!r} in {without_password(client.tracking_uri)}"
        return MlflowRun(client, found, where)

    def _open_client(self) -> Any:
        if self._client is None:
            from mlflow import MlflowClient

            self._client = MlflowClient(self.uri)
        return self._client


class MlflowRun:
    """A run of MLflow."""

    def __init__(self, client: Any, run_id: str, where: str) -> None:
        self._client, self.run_id, self.where = client, run_id, where

    def log(self, points: Sequence[Point]) -> None:
        """Send the points, many with each request."""
        from mlflow.entities import Metric

        metrics = [
            Metric(name, value, int(1000 * point.time), point.step)
            for point in points
            for name, value in point.values.items()
        ]
        for start in range(0, len(metrics), 10 * _AT_ONCE):
            self._client.log_batch(self.run_id, metrics=metrics[start : start + 10 * _AT_ONCE])

    def log_scores(self, scores: Mapping[str, float]) -> None:
        """Send the scores, as metrics of step 0."""
        import time

        self.log([Point(0, scores, time.time())])

    def log_bundle(self, folder: Path) -> None:
        """Store the files as artifacts, in `bundle`."""
        self._client.log_artifacts(self.run_id, str(folder), ARTIFACT_FOLDER)

    def close(self, status: RunStatus) -> None:
        """End the run."""
        self._client.set_terminated(self.run_id, _STATUS[status])


def _experiment_id(client: Any, name: str) -> str:
    """Return the id of an experiment, which is created where there is none."""
    found = client.get_experiment_by_name(name)
    return str(client.create_experiment(name) if found is None else found.experiment_id)


def _find_run(client: Any, experiment: str, run: str) -> str | None:
    """Return MLflow's id of the run with this id of fullbake; None if there is none."""
    found = client.search_runs([experiment], f"tags.`{RUN_TAG}` = '{run}'", max_results=1)
    return str(found[0].info.run_id) if found else None


def _log_params(client: Any, run_id: str, settings: Mapping[str, Any]) -> None:
    from mlflow.entities import Param

    params = [Param(name, str(value)[:_LONGEST_VALUE]) for name, value in settings.items()]
    for start in range(0, len(params), _AT_ONCE):
        client.log_batch(run_id, params=params[start : start + _AT_ONCE])


def without_password(uri: str) -> str:
    """Return an address without the user's name and password."""
    scheme, separator, rest = uri.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}" if separator else uri
