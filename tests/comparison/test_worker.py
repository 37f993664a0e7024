"""The frames between processes, and what a worker refuses. test_executors.py runs whole trials."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.rows import dataset
from hypothesis import given
from hypothesis import strategies as st

from fullbake.comparison import worker
from fullbake.comparison.design import Candidate
from fullbake.comparison.packing import Assignment, WorkPackage, divide_message, read_outcome
from fullbake.comparison.schedule import NextTrial, Trial
from fullbake.comparison.trial_work import TrialTask
from fullbake.comparison.worker import PackageWork, ProgressBoard, perform, read_frames, run_assignments, write_frame
from fullbake.config.recipe import Recipe
from fullbake.config.sections import DecisionConfig
from fullbake.core import runtime
from fullbake.data.splits import divide
from fullbake.training.job import resolve_recipe


@given(frames=st.lists(st.binary(max_size=50), max_size=5), cut=st.integers(0, 40))
def test_frames_survive_and_half_a_frame_is_none(frames: list[bytes], cut: int) -> None:
    stream = io.BytesIO()
    for data in frames:
        write_frame(stream, data)
    whole = stream.getvalue()
    assert list(read_frames(io.BytesIO(whole))) == frames
    read = list(read_frames(io.BytesIO(whole[: max(len(whole) - cut, 0)])))
    assert read == frames[: len(read)]


@pytest.fixture
def package(bases: Callable[..., Path], tmp_path: Path) -> WorkPackage:
    recipe = resolve_recipe(Recipe.load("frozen-linear", base=str(bases("bert")), max_length=16, test=0.25, folds=0))
    candidates = {"linear": Candidate("linear", "linear", recipe), "majority": Candidate("majority", "majority", None)}
    folds = [divide(dataset(tmp_path), recipe.data)]
    facts = {"cache_dir": str(tmp_path / "cache"), "folder": str(tmp_path), "device": runtime.device().type}
    return WorkPackage(candidates, {"linear": "another"}, folds, "f1_macro", DecisionConfig(), facts)


def assignment(name: str, **fields: Any) -> Assignment:
    trial = Trial(name, 0)
    return Assignment(TrialTask(trial), NextTrial(trial, "sweep", 1.0, True), 1, None, 0.5, **fields)


def test_another_base_is_refused(package: WorkPackage) -> None:
    outcome = perform(PackageWork(package), assignment("linear"), lambda _: None)
    assert outcome.error is not None
    assert "the base has other weights here" in outcome.error["what"]
    assert "same files" in outcome.error["remedy"]
    assert outcome.machine == worker.machine_name()


def test_another_device_is_refused(package: WorkPackage) -> None:
    facts = {**package.facts, "device": "abacus"}
    other = WorkPackage(package.candidates, {}, package.folds, package.metric, package.decision, facts)
    outcome = perform(PackageWork(other), assignment("majority"), lambda _: None)
    assert outcome.error is not None
    assert "another device; expected abacus" in outcome.error["what"]


def test_a_worker_serves_until_there_is_nothing_more(package: WorkPackage) -> None:
    sent: list[bytes] = []
    task = assignment("majority")
    run_assignments(iter([package.to_bytes(), task.to_bytes(), task.to_bytes()]), sent.append)
    found = [divide_message(data) for data in sent]
    assert [list(head) for head, _ in found] == [["ready"], ["outcome"], ["outcome"]]
    outcome = read_outcome(found[1][1]["data"], task, package)
    assert outcome.result is not None
    assert outcome.predictions is not None
    assert outcome.result.threads is None, "a baseline computes with one thread in any case"


def test_a_weight_that_nobody_needs_stays(package: WorkPackage) -> None:
    kept = worker._wanted
    result = perform(PackageWork(package), assignment("majority"), lambda _: None).result
    assert result is not None
    assert result.value is not None
    weights: dict[str, Any] = {"head": 1}
    assert kept(result, weights, assignment("majority")) == weights
    assert kept(result, weights, assignment("majority", keep_from=result.value)) == weights
    assert kept(result, weights, assignment("majority", keep_from=result.value + 0.1)) == {}


def test_board_keeps_the_last_note() -> None:
    board = ProgressBoard()
    board.note("a", 0.1, "one", "n1")
    board.note("a", 0.2, "two", "n2")
    assert board.read() == {"a": (0.2, "two", "n2")}
