"""The work of one trial; test_runner.py plays it in order, test_dispatcher.py at several workers."""

from pathlib import Path
from typing import Any

import pytest
from helpers.rows import make_job

from fullbake.comparison.design import Candidate
from fullbake.comparison.functions import ComparisonFunctions
from fullbake.comparison.schedule import NextTrial, Trial, Watch
from fullbake.comparison.sizes import SizedJobs
from fullbake.comparison.trial import TrialResult, failed_trial
from fullbake.comparison.trial_work import TrialTask, TrialWork, without_test
from fullbake.config.sections import DecisionConfig
from fullbake.core.errors import BaseModelError, SpaceFault
from fullbake.training.job import Job

TRIAL = Trial("one", 3)


def work_of(job: Job, **functions: Any) -> TrialWork:
    candidates = {"one": Candidate("one", "one", job.recipe)}
    sized = SizedJobs({"one": [job]}, [job.parts])
    return TrialWork(sized, candidates, "f1_macro", DecisionConfig(), ComparisonFunctions(**functions))


def watch() -> Watch:
    return Watch(NextTrial(TRIAL, "sweep", 1.0, True), 100.0, 1.0, lambda: 0.0)


@pytest.fixture
def job(bases: Any, tmp_path: Path) -> Job:
    return make_job(bases("bert"), tmp_path, test=0.25)


def test_training_sees_no_test_rows_and_has_the_seed(job: Job) -> None:
    seen: list[Job] = []

    def train(given: Job, rate: float | None) -> tuple[TrialResult, dict[str, Any]]:
        seen.append(given)
        assert rate == 0.1
        return failed_trial("nothing", 3), {}

    learned: list[Any] = []
    task = TrialTask(TRIAL, 0.1, shared={"features of x": 2.0})
    work_of(job, train=train).train(task, watch(), lambda keys, seconds: learned.append(keys))
    assert seen[0].parts.test is None
    assert seen[0].recipe.training.seed == 3
    assert seen[0].run is None
    assert learned == [[], ["features of x"]]
    assert without_test(job.parts).test is None


def test_checkpoints_are_written_where_the_task_says(job: Job, tmp_path: Path) -> None:
    task = TrialTask(TRIAL, identity="id", unfinished=str(tmp_path / "unfinished"), checkpoint_seconds=60)
    work = work_of(job)
    prepared = work.prepared_job(task)
    assert prepared.run is not None
    assert (tmp_path / "unfinished").is_dir()
    assert work.prepared_job(task.without_checkpoints()).run is None


def test_shared_work_that_fails_is_a_failed_trial_but_a_full_disk_is_not(job: Job) -> None:
    further = work_of(
        Job(**{**vars(job), "recipe": job.recipe.with_fields(further_pretraining={"steps": 2})}),
        further_pretrain=raising(BaseModelError("no such base")),
    )
    result, _ = further.train(TrialTask(TRIAL), watch(), lambda *_: None)
    assert result.reason == "no such base"
    full = work_of(
        Job(**{**vars(job), "recipe": job.recipe.with_fields(further_pretraining={"steps": 2})}),
        further_pretrain=raising(SpaceFault("full")),
    )
    with pytest.raises(SpaceFault):
        full.train(TrialTask(TRIAL), watch(), lambda *_: None)


def raising(error: Exception) -> Any:
    def fail(_: Job) -> Job:
        raise error

    return fail
