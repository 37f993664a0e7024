"""The work of one trial, apart from what decides: train it, and score it on test.

A trial is a pure function of its recipe, the rows, its seed and its size. What decides (`runner`, `dispatcher`) sends a
`TrialTask`, plain values that JSON can hold; the same functions do the work in this process, in another one, and on
another machine.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from fullbake.comparison.design import Candidate
from fullbake.comparison.forecast import FEATURES, PRETRAINING, kind_of_work
from fullbake.comparison.functions import ComparisonFunctions
from fullbake.comparison.schedule import Trial, Watch
from fullbake.comparison.sizes import SizedJobs
from fullbake.comparison.trial import TrialPredictions, TrialResult, TrialWeights, failed_trial
from fullbake.config.sections import DecisionConfig
from fullbake.core import runtime
from fullbake.core.errors import Error, SpaceFault
from fullbake.data.splits import Parts
from fullbake.training.checkpoints import CheckpointInterval, UnfinishedRun, begin_run
from fullbake.training.job import Job, part_features


def without_test(parts: Parts) -> Parts:
    """Return the parts that may train and choose: all but test."""
    return replace(parts, test=None)


@dataclass(frozen=True)
class TrialTask:
    """What is to be done of a trial, and what it may take. All values are plain."""

    trial: Trial
    rate: float | None = None
    """The learning rate that the first seed chose; None where validation chooses, or the recipe has none."""
    identity: str = ""
    """Fingerprint of everything that the trial depends on; empty where no checkpoints are written."""
    own: float = 0.0
    """Expected seconds of its own training and scoring."""
    shared: Mapping[str, float] = field(default_factory=dict)
    """Expected seconds of the shared work that is not done yet, by key."""
    unfinished: str | None = None
    """The folder of the checkpoints of its training and of its further pretraining; None if both are short, so that
    none are written."""
    checkpoint_seconds: float = 0.0
    """The time between two checkpoints."""

    def without_checkpoints(self) -> "TrialTask":
        """Return the task for a worker that does not see the comparison's folder."""
        return replace(self, unfinished=None)


LearnShared = Callable[[list[str], float], None]
"""Takes the keys of shared work that is done now, and the seconds that it took."""


@dataclass(frozen=True)
class TrialWork:
    """Does the work of trials, on the rows and recipes of a comparison."""

    sized: SizedJobs
    candidates: Mapping[str, Candidate]
    """By name."""
    metric: str
    """What baselines choose by."""
    decision: DecisionConfig
    """How baselines decide."""
    functions: ComparisonFunctions

    def train(self, task: TrialTask, watch: Watch, learn: LearnShared) -> tuple[TrialResult, TrialWeights]:
        """Do the shared work that is missing, and train.

        Args:
            task: What to do.
            watch: Sees which part runs, and how long it takes.
            learn: Is called after each part of the shared work.

        Raises:
            DeadlinePassed: The time was up before there was a result.
            SpaceFault: The disk is full.
        """
        trial = task.trial
        if self.candidates[trial.candidate].recipe is None:
            watch.begin(task.own, encoder=False)
            parts = without_test(self.sized.parts(trial))
            return self.functions.train_baseline(trial.candidate, parts, self.metric, self.decision), {}
        try:
            job = self._after_pretraining(task, watch, learn)
        except SpaceFault:
            raise
        except Error as error:
            return failed_trial(error.what, trial.seed), {}
        began, keys = watch.elapsed, _of_kind(task, FEATURES)
        watch.begin(task.own + sum(task.shared[key] for key in keys), encoder=job.recipe.way == "finetune")
        result, weights = self.functions.train(replace(job, parts=without_test(job.parts)), task.rate)
        features = max(watch.elapsed - began - result.seconds, 0.0)
        learn(keys, features)
        watch.shared_seconds = began + (features if job.recipe.way == "frozen" else 0.0)
        return replace(result, stage_seconds=_stage_seconds(job)), weights

    def prepare(self, task: TrialTask, watch: Watch, learn: LearnShared) -> None:
        """Do the shared work of a trial alone: the further-pretrained base and the features, into the caches.

        Args:
            task: Its `shared` says what is missing.
            watch: As for `train`.
            learn: As for `train`.

        Raises:
            Error: The further pretraining failed. The trial itself will say so.
            DeadlinePassed: The time was up.
        """
        job = self._after_pretraining(task, watch, learn)
        began, keys = watch.elapsed, _of_kind(task, FEATURES)
        if job.recipe.way == "frozen" and keys:
            watch.begin(sum(task.shared[key] for key in keys), FEATURES, encoder=True)
            part_features(replace(job, run=None), list(job.parts.by_name().values()))
            learn(keys, watch.elapsed - began)

    def _after_pretraining(self, task: TrialTask, watch: Watch, learn: LearnShared) -> Job:
        """Return the trial's job on its base, which is further pretrained first if it is not in the cache."""
        keys = [key for key in task.shared if kind_of_work(key) != FEATURES]
        stage = sum(task.shared[key] for key in keys)
        watch.begin(stage, PRETRAINING if stage else None, encoder=bool(stage))
        job = self.prepared_job(task)
        learn(keys, watch.elapsed)
        return job

    def prepared_job(self, task: TrialTask) -> Job:
        """Return the trial's job on its further-pretrained base.

        Further pretraining is given the test texts only to keep them out of its corpus.
        """
        job = self._trial_job(task)
        if job.recipe.further_pretraining is None:
            return job
        return replace(job, adapted=self.functions.further_pretrain(job).adapted)

    def _trial_job(self, task: TrialTask) -> Job:
        job = self.sized.job(task.trial)
        job = replace(job, recipe=job.recipe.with_fields(seed=task.trial.seed))
        if task.unfinished is None:
            return job
        folder = Path(task.unfinished)
        begin_run(folder, task.identity, runtime.threads())
        interval = CheckpointInterval(seconds=task.checkpoint_seconds)
        return replace(job, run=UnfinishedRun(folder, task.identity, interval, writes=True))

    def trained_job(self, task: TrialTask, result: TrialResult) -> Job:
        """Return the job of a trial as it was finally trained: with its seed, its learning rate and its head."""
        job = self.prepared_job(replace(task, unfinished=None))
        fields: dict[str, Any] = {"seed": result.seed}
        if result.rate is not None:
            fields["learning_rate"] = (result.rate,)
        if result.head is not None:
            fields |= {"head": result.head} | ({"optimizer": "lbfgs"} if result.head == "linear" else {})
        return replace(job, recipe=job.recipe.with_fields(**fields))

    def score(
        self, task: TrialTask, result: TrialResult, weights: Callable[[], Mapping[str, np.ndarray]]
    ) -> TrialPredictions:
        """Predict the test rows.

        Args:
            task: What was trained.
            result: What came of it.
            weights: Returns the trained weights; it is not called for a baseline.
        """
        parts, name = self.sized.parts(task.trial), task.trial.candidate
        assert parts.test is not None
        if self.candidates[name].recipe is None:
            return self.functions.score_baseline(name, without_test(parts), parts.test, result)
        return self.functions.score(self.trained_job(task, result), parts.test, weights())


def _of_kind(task: TrialTask, kind: str) -> list[str]:
    return [key for key in task.shared if kind_of_work(key) == kind]


def _stage_seconds(job: Job) -> float:
    """Return the seconds that the further pretraining took, now or when it was put into the cache."""
    history = [] if job.adapted is None else job.adapted.about.get("history", [])
    return float(sum(entry.get("seconds", 0.0) for entry in history))
