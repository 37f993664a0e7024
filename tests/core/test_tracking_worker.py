"""Trackers get everything on threads of their own; one that fails or hangs costs the run one line."""

import logging
import time
from pathlib import Path

import pytest
from helpers.trackers import FailingTracker, MemoryTracker

from fullbake.core import tracking, tracking_worker
from fullbake.core.tracking_worker import Journal, tracked_run


@pytest.fixture(autouse=True)
def _no_collecting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking_worker, "BATCH_SECONDS", 0.01)


def test_without_trackers_nothing_is_recorded() -> None:
    with tracked_run([], "m", {}) as recorder:
        assert recorder is None
        assert not tracking.is_recorded()


def test_a_run_gets_settings_points_scores_files_and_its_end(tmp_path: Path) -> None:
    memory, other = MemoryTracker(), MemoryTracker("other")
    (tmp_path / "weights").write_text("w")
    with tracked_run([memory, other], "my model!", {"seed": 1}) as recorder:
        assert recorder is not None
        for step in range(5):
            tracking.note_step(step, float(step), 0.1)
        recorder.scores({"test/f1_macro": 0.5})
        recorder.bundle(tmp_path)
    for tracker in (memory, other):
        run = tracker.named("my model!")
        assert run.info.id.startswith("my-model-")
        assert run.info.settings == {"seed": 1}
        assert run.steps("train/loss") == [0, 1, 2, 3, 4]
        assert (run.scores, run.files, run.status) == ({"test/f1_macro": 0.5}, {"weights": b"w"}, "finished")


def test_children_belong_to_their_parent_which_takes_no_notes_itself() -> None:
    memory = MemoryTracker()
    with tracked_run([memory], "comparison", {}, of_children=True):
        tracking.note_step(1, 1.0, 0.1)
        with tracking.child_run("finetune/0", {"seed": 0}):
            tracking.note_step(2, 1.0, 0.1)
    parent, child = memory.named("comparison"), memory.named("finetune/0")
    assert child.info.parent == parent.info.id
    assert (parent.points, child.steps("train/loss")) == ([], [2])


def test_a_resumed_run_continues_without_the_steps_that_are_known(tmp_path: Path) -> None:
    memory, place = MemoryTracker(), tmp_path / "tracking.json"

    def train(first: int, last: int, identity: str = "this run", stop: bool = False) -> None:
        with tracked_run([memory], "m", {}, place=place, identity=identity):
            for step in range(first, last):
                tracking.note_step(step, float(step), 0.1)
            if stop:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(0, 7, stop=True)
    assert memory.named("m").status == "stopped"
    train(4, 10)  # the checkpoint was at step 4
    run = memory.named("m")
    assert run.steps("train/loss") == list(range(10))
    assert run.status == "finished"
    train(0, 3, identity="another run")
    assert len(memory.runs) == 2


def test_a_finished_child_is_known_to_the_next_call(tmp_path: Path) -> None:
    memory, place = MemoryTracker(), tmp_path / "tracking.json"
    for known in (False, True):
        with tracked_run([memory], "m", {}, place=place, identity="x", of_children=True):
            assert tracking.has_child("finetune/0") is known
            with tracking.child_run("finetune/0", {}):
                pass
    assert len(memory.runs) == 2


@pytest.mark.parametrize("content", ["", "[]", '{"id": 1, "steps": {}}', "\x00"])
def test_a_damaged_journal_begins_a_new_run(tmp_path: Path, content: str) -> None:
    place = tmp_path / "tracking.json"
    place.write_text(content)
    assert not Journal(place, "x").resumed
    assert Journal(place, "x").resumed
    assert not Journal(tmp_path / "no such folder" / "tracking.json", "x").resumed


@pytest.mark.parametrize("call", ["open_run", "log", "log_scores", "log_bundle", "close"])
def test_a_tracker_that_fails_costs_one_line(caplog: pytest.LogCaptureFixture, tmp_path: Path, call: str) -> None:
    memory = MemoryTracker()
    with caplog.at_level(logging.INFO, "fullbake"), tracked_run([FailingTracker(call), memory], "m", {}) as recorder:
        assert recorder is not None
        tracking.note_step(1, 1.0, 0.1)
        tracking.settle()
        tracking.note_step(2, 1.0, 0.1)
        recorder.scores({"a": 1.0})
        recorder.bundle(tmp_path)
    assert memory.named("m").steps("train/loss") == [1, 2]
    lines = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert lines == [
        "failing failed and records no more of this run, which continues without it: SystemExit: the server said: no"
    ]


def test_a_tracker_that_hangs_is_not_waited_for(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CLOSE_SECONDS", "SETTLE_SECONDS", "PATIENCE_SECONDS"):
        monkeypatch.setattr(tracking_worker, name, 0.05)
    started = time.monotonic()
    with caplog.at_level(logging.INFO, "fullbake"), tracked_run([FailingTracker("log", seconds=60)], "m", {}):
        tracking.note_step(1, 1.0, 0.1)
        tracking.settle()
    assert time.monotonic() - started < 50
    assert "did not take everything" in caplog.text


def test_points_that_come_too_fast_are_dropped_and_counted(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking_worker, "MOST_POINTS", 3)
    monkeypatch.setattr(tracking_worker, "BATCH_SECONDS", 1.0)
    memory = MemoryTracker()
    with caplog.at_level(logging.INFO, "fullbake"), tracked_run([memory], "m", {}) as recorder:
        assert recorder is not None
        for step in range(50):
            tracking.note_step(step, 1.0, 0.1)
        recorder.scores({"a": 1.0})
    assert memory.named("m").scores == {"a": 1.0}
    assert 0 < len(memory.named("m").points) < 50
    assert "was too slow" in caplog.text
