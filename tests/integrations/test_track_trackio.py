"""trackio gets what it is given. The stand-in has the surface of trackio 0.43, which was tried by hand."""

import sys
from contextvars import ContextVar
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fullbake.core.tracking import Point, RunInfo
from fullbake.integrations.track_trackio import TrackioTracker

current: ContextVar[Any] = ContextVar("current_run", default=None)


class Run:
    def __init__(self, given: dict[str, Any]) -> None:
        self.given, self.logged, self.artifacts, self.ended = given, list[Any](), list[Any](), False

    def log(self, values: dict[str, float], step: int | None = None) -> None:
        assert not self.ended
        self.logged.append((step, values))

    def log_artifact(self, artifact: Any) -> None:
        self.artifacts.append(artifact.folders)

    def finish(self) -> None:
        print("* Run finished")
        self.ended = True


class Artifact:
    def __init__(self, name: str, type: str) -> None:  # noqa: A002
        self.folders: list[str] = []

    def add_dir(self, folder: str) -> None:
        self.folders.append(folder)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    made: list[Run] = []

    def init(**given: Any) -> Run:
        print("* Trackio project initialized")
        if current.get() is not None:
            current.get().finish()
        made.append(Run(given))
        current.set(made[-1])
        return made[-1]

    monkeypatch.setitem(sys.modules, "trackio", SimpleNamespace(init=init, Artifact=Artifact))  # type: ignore[arg-type]
    return made


def test_a_trial_does_not_end_its_comparison_and_stdout_stays_clean(
    runs: list[Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tracker = TrackioTracker()
    parent = tracker.open_run(RunInfo("m-1", "m", {"seed": 1}))
    child = tracker.open_run(RunInfo("m-1-2", "finetune/0", {}, parent="m-1"))
    child.log([Point(3, {"train/loss": 0.5}, 1.0)])
    parent.log_scores({"test/f1_macro": 0.5})
    parent.log_bundle(tmp_path)
    child.close("finished")
    assert [run.ended for run in runs] == [False, True]
    parent.close("finished")
    assert (runs[0].logged, runs[0].artifacts) == ([(None, {"test/f1_macro": 0.5})], [[str(tmp_path)]])
    assert runs[1].logged == [(3, {"train/loss": 0.5})]
    assert (runs[1].given["name"], runs[1].given["group"], runs[1].given["resume"]) == (
        "m-1/finetune/0",
        "m-1",
        "allow",
    )
    assert runs[0].given["config"] == {"seed": 1}
    assert not runs[0].given["auto_log_cpu"]
    assert capsys.readouterr().out == ""
    assert "trackio show --project fullbake" in parent.where
