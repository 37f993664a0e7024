"""Runs of a comparison in an MLflow folder; tests/classifier/test_recorded.py records a training there."""

from pathlib import Path

import pytest

from fullbake.core.tracking import Point, RunInfo
from fullbake.integrations.track_mlflow import MlflowTracker


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    return f"file://{tmp_path / 'store'}"


def test_trials_are_below_their_comparison_and_a_continued_run_is_found(store: str, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    many = {f"versions.library-{number}": "1" for number in range(150)} | {"long": "x" * 9000}
    for resumed in (False, True):
        tracker = MlflowTracker(store, "mine")
        parent = tracker.open_run(RunInfo("m-1", "m", many, resumed=resumed))
        child = tracker.open_run(RunInfo("m-1-2", "finetune/0", {"seed": 0}, resumed=resumed, parent="m-1"))
        child.log([Point(step, {"train/loss": 1.0, "train/learning_rate": 0.1}, 1e9) for step in range(700)])
        child.close("stopped" if not resumed else "finished")
        parent.close("failed" if not resumed else "finished")
    client = MlflowClient(store)
    found = {
        run.info.run_name: run for run in client.search_runs([client.get_experiment_by_name("mine").experiment_id])
    }
    assert set(found) == {"m", "finetune/0"}
    assert found["finetune/0"].data.tags["mlflow.parentRunId"] == found["m"].info.run_id
    assert {run.info.status for run in found.values()} == {"FINISHED"}
    assert len(found["m"].data.params) == 151
    assert len(client.get_metric_history(found["finetune/0"].info.run_id, "train/loss")) == 1400
    assert found["m"].info.run_id in parent.where


def test_passwords_are_not_shown() -> None:
    from fullbake.integrations.track_mlflow import without_password

    assert without_password("https://me:secret@host:5000/x") == "https://host:5000/x"
    assert without_password("mlruns") == "mlruns"
    assert without_password("file:///tmp/x") == "file:///tmp/x"
