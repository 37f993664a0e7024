"""Runs are folders of event files, trials folders within them; tests/classifier/test_recorded.py records a training."""

from pathlib import Path

import pytest
from helpers.event_files import read_scalars

from fullbake.core.tracking import Point, RunInfo
from fullbake.integrations.track_tensorboard import TensorBoardTracker


def test_a_run_and_its_trial_are_folders(tmp_path: Path) -> None:
    tracker = TensorBoardTracker(tmp_path)
    parent = tracker.open_run(RunInfo("m-1", "m", {"seed": 1}))
    child = tracker.open_run(RunInfo("m-1-2", "finetune/0", {}, parent="m-1"))
    child.log([Point(3, {"train/loss": 0.5}, 1e9), Point(4, {"train/loss": 0.25}, 1e9)])
    parent.log_scores({"test/f1_macro": 0.75})
    parent.log_bundle(tmp_path)
    child.close("finished")
    parent.close("stopped")
    assert read_scalars(tmp_path / "m-1" / "finetune" / "0") == {"train/loss": [(3, 0.5), (4, 0.25)]}
    assert read_scalars(tmp_path / "m-1") == {"final/test/f1_macro": [(0, 0.75)]}
    assert f"tensorboard --logdir {tmp_path}" in parent.where


def test_a_run_that_is_continued_keeps_its_files(tmp_path: Path) -> None:
    for resumed in (False, True):
        run = TensorBoardTracker(tmp_path).open_run(RunInfo("m-1", "m", {"seed": 1}, resumed=resumed))
        run.log([Point(int(resumed), {"train/loss": 0.5}, 1e9)])
        run.close("finished")
    assert sorted(step for step, _ in read_scalars(tmp_path / "m-1")["train/loss"]) == [0, 1]


def test_the_folder_is_that_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert TensorBoardTracker().folder == Path("runs")
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", "elsewhere")
    assert TensorBoardTracker().folder == Path("elsewhere")
