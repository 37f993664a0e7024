"""wandb gets what it is given and nothing else. The stand-in has the surface of wandb 0.31, which was tried by hand."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fullbake.core.tracking import Point, RunInfo
from fullbake.integrations.track_wandb import WandbTracker


class Run:
    def __init__(self, **given: Any) -> None:
        self.given, self.logged, self.metrics, self.summary = (
            given,
            list[dict[str, Any]](),
            dict[str, str](),
            dict[str, Any](),
        )
        self.id, self.offline, self.url, self.dir = given["id"], True, None, "wandb/offline-run-1/files"
        self.artifacts: list[Any] = []
        self.exit_code: int | None = None

    def log(self, values: dict[str, Any]) -> None:
        self.logged.append(values)

    def define_metric(self, name: str, step_metric: str) -> None:
        self.metrics[name] = step_metric

    def log_artifact(self, artifact: Any) -> None:
        self.artifacts.append(artifact)

    def finish(self, exit_code: int) -> None:
        self.exit_code = exit_code


class Artifact:
    def __init__(self, name: str, type: str) -> None:  # noqa: A002
        self.name, self.type, self.folders = name, type, list[str]()

    def add_dir(self, folder: str) -> None:
        self.folders.append(folder)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    made: list[Run] = []

    def init(**given: Any) -> Run:
        made.append(Run(**given))
        return made[-1]

    stand_in = SimpleNamespace(init=init, Artifact=Artifact, Settings=lambda **fields: fields)
    monkeypatch.setitem(sys.modules, "wandb", stand_in)  # type: ignore[arg-type]
    return made


def test_a_run_is_recorded(runs: list[Run], tmp_path: Path) -> None:
    opened = WandbTracker().open_run(RunInfo("m-1", "m", {"seed": 1}))
    opened.log([Point(3, {"train/loss": 0.5}, 1.0), Point(7, {"rate-1/train/loss": 0.25, "train/loss": 1.0}, 2.0)])
    opened.log_scores({"test/f1_macro": 0.5})
    opened.log_bundle(tmp_path)
    opened.close("finished")
    (run,) = runs
    assert {name: run.given[name] for name in ("project", "id", "name", "group", "resume", "config")} == {
        "project": "fullbake",
        "id": "m-1",
        "name": "m",
        "group": "m-1",
        "resume": "allow",
        "config": {"seed": 1},
    }
    assert run.logged == [
        {"train/loss": 0.5, "step": 3},
        {"rate-1/train/loss": 0.25, "rate-1/step": 7},
        {"train/loss": 1.0, "step": 7},
    ]
    assert run.metrics == {"train/loss": "step", "rate-1/train/loss": "rate-1/step"}
    assert (run.summary, run.exit_code) == ({"test/f1_macro": 0.5}, 0)
    assert (run.artifacts[0].type, run.artifacts[0].folders) == ("model", [str(tmp_path)])
    assert "wandb sync" in opened.where


def test_nothing_is_recorded_that_was_not_given(runs: list[Run]) -> None:
    WandbTracker("mine").open_run(RunInfo("m-1-2", "finetune/0", {}, parent="m-1")).close("failed")
    (run,) = runs
    settings = run.given["settings"]
    assert settings["console"] == "off"
    assert settings["disable_git"]
    assert settings["disable_code"]
    assert settings["x_disable_meta"]
    assert (run.given["group"], run.given["job_type"], run.given["reinit"]) == ("m-1", "trial", "create_new")
    assert (run.given["project"], run.exit_code) == ("mine", 1)
