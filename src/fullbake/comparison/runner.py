"""Run the trials of a comparison: train them, let validation choose a learning rate, score the chosen ones on test.

Candidates run one after another. Training and choosing never see the test rows; these are scored when a candidate's
choice is made, once for each of its seeds. All seeds of a rate run before the next rate, so that the weights of a rate
that has lost can be removed early.

Finished trials are stored as sealed folders of JSON and arrays, each put in place by one rename and verified when read.
An artifact carries the identity of everything it depends on. One with another identity, or a damaged one, is ignored
and made again; so the same command continues where it was stopped.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from transformers import PreTrainedModel

from fullbake.comparison.design import Candidate, Trial
from fullbake.comparison.forecast import FIXED_SECONDS, Forecast, Speed, measure_speed
from fullbake.comparison.live_table import LiveTable
from fullbake.comparison.trial import (
    TrialPredictions,
    TrialResult,
    TrialWeights,
    failed_trial,
    restore_network,
    score_baseline,
    score_trial,
    train_baseline,
    train_trial,
)
from fullbake.config.sections import DecisionConfig
from fullbake.core import storage
from fullbake.core.console import warn
from fullbake.core.errors import Error, Fault, SpaceFault
from fullbake.core.hashing import fingerprint
from fullbake.data.splits import Part, Parts
from fullbake.pretraining.forgetting import ForgettingProbe, open_probe
from fullbake.pretraining.stage import with_further_pretraining
from fullbake.training.checkpoints import CheckpointInterval, UnfinishedRun
from fullbake.training.job import Job

ArtifactKind = Literal["trained", "weights", "scored", "probed"]
"""What is stored of a trial: `trained` (its validation results), `weights` (until the comparison is done), and of the
chosen trials `scored` (test logits) and `probed` (what the encoder forgot)."""

_ARRAYS = "arrays.safetensors"


@dataclass(frozen=True)
class Artifact:
    """The content of a sealed folder."""

    facts: Mapping[str, Any]
    """JSON values."""
    arrays: Mapping[str, np.ndarray]
    """By name."""


@dataclass(frozen=True)
class ArtifactStore:
    """The artifacts of all trials, in one folder."""

    root: Path

    def folder(self, trial_id: str) -> Path:
        """Return the folder with all artifacts of a trial."""
        return self.root / trial_id

    def read(self, trial_id: str, kind: ArtifactKind, identity: str) -> Artifact | None:
        """Return an artifact; None if there is none with this identity. Warn if it is damaged."""
        folder = self.root / trial_id / kind
        if not folder.is_dir():
            return None
        try:
            seal = storage.verify(folder)
            arrays = storage.read_tensors(folder / _ARRAYS)
        except (Fault, OSError, ValueError) as fault:
            warn(f"trial {trial_id} is damaged on disk and will be run again: {fault}")
            return None
        return Artifact(seal["facts"], arrays) if seal["identity"] == identity else None

    def write(self, trial_id: str, kind: ArtifactKind, identity: str, artifact: Artifact) -> None:
        """Store an artifact in place of the one that is there."""
        with storage.staged(self.root / trial_id / kind, overwrite=True) as folder:
            storage.write_tensors(folder / _ARRAYS, artifact.arrays)
            storage.seal(folder, {"identity": identity, "facts": dict(artifact.facts)})

    def remove(self, trial_id: str, kind: ArtifactKind) -> None:
        """Remove an artifact, if there is one."""
        if (self.root / trial_id / kind).is_dir():
            storage.remove_tree(self.root / trial_id / kind)


LONG_TRIAL_SECONDS: Final = 300.0
"""A trial that is expected to take longer than this writes checkpoints, this many seconds apart."""

CLOSING_SECONDS: Final = 20.0
"""Seconds reserved for the verdict, the bundle and the page."""


@dataclass(frozen=True)
class ComparisonFunctions:
    """The functions that do the work of a comparison. Tests replace the slow ones."""

    train: Callable[[Job, float | None], tuple[TrialResult, TrialWeights]] = train_trial
    """A job without test rows and a learning rate to the result and the weights."""
    score: Callable[[Job, Part, Mapping[str, np.ndarray]], TrialPredictions] = score_trial
    """A job, the test rows and the weights to the predictions."""
    train_baseline: Callable[[str, Parts, str, DecisionConfig], TrialResult] = train_baseline
    score_baseline: Callable[[str, Parts, Part, TrialResult], TrialPredictions] = score_baseline
    further_pretrain: Callable[[Job], Job] = with_further_pretraining
    """A job to the same job on its further-pretrained base."""
    restore: Callable[[Job, Mapping[str, np.ndarray]], PreTrainedModel] = restore_network
    """A job and its weights to the network."""
    measure_speed: Callable[[Job], Speed] = measure_speed
    open_probe: Callable[..., ForgettingProbe] = open_probe
    """A base and `cache_dir` to its forgetting probe."""
    clock: Callable[[], float] = time.monotonic
    """Seconds from any fixed moment."""


@dataclass(frozen=True)
class RunnerSettings:
    """What all trials share."""

    store: ArtifactStore
    candidates: Mapping[str, Candidate]
    """By name."""
    jobs: Mapping[str, Sequence[Job]]
    """For each candidate with a recipe one job a fold, with all parts of the rows."""
    folds: Sequence[Parts]
    """The parts of the rows, fold by fold; a single entry without folds."""
    metric: str
    """What baselines choose by."""
    decision: DecisionConfig
    """How baselines decide."""
    baseline_key: str
    """Fingerprint of what a baseline's trials depend on besides the rows."""
    checkpoint_seconds: float = LONG_TRIAL_SECONDS
    """A trial that is expected to take longer writes checkpoints, this many seconds apart."""


@dataclass
class CandidateResult:
    """The results of one candidate."""

    candidate: Candidate
    trials: dict[Trial, TrialResult] = field(default_factory=dict)
    """All trials that ran."""
    chosen_rates: dict[int | None, float | None] = field(default_factory=dict)
    """The chosen learning rate, by fold."""
    predictions: dict[Trial, TrialPredictions] = field(default_factory=dict)
    """Test predictions of the trials at the chosen rates."""
    status: str = "done"
    """`done` or `failed`."""
    reason: str | None = None
    """Why the candidate failed."""

    def scored_trials(self) -> list[Trial]:
        """Return the scored trials whose seed was scored in every fold, fold by fold and seed by seed."""
        folds = list(self.chosen_rates)
        seeds = sorted({trial.seed for trial in self.predictions})
        complete = [seed for seed in seeds if all(self._chosen(fold, seed) in self.predictions for fold in folds)]
        return [self._chosen(fold, seed) for fold in folds for seed in complete]

    def _chosen(self, fold: int | None, seed: int) -> Trial:
        return Trial(self.candidate.name, self.chosen_rates[fold], seed, fold)

    def best_trial(self) -> Trial:
        """Return the scored trial with the best metric on validation."""
        values = {trial: self.trials[trial].value for trial in self.scored_trials()}
        return max(values, key=lambda trial: -math.inf if (value := values[trial]) is None else value)

    def scored_seeds(self) -> list[int]:
        """Return the seeds of the scored trials, sorted."""
        return sorted({trial.seed for trial in self.scored_trials()})


def without_test(parts: Parts) -> Parts:
    """Return the parts that may train and choose: all but test."""
    return replace(parts, test=None)


def choose_rate(values: Mapping[float | None, Sequence[float | None]]) -> float | None:
    """Choose the learning rate with the best mean on validation; the earlier of equals.

    A rate with fewer failed seeds is preferred to any with more.

    Args:
        values: The validation metric of each seed, by rate; None for a seed that failed.

    Raises:
        ValueError: Every seed of every rate failed.
    """

    def rank(rate: float | None) -> tuple[int, float]:
        known = [value for value in values[rate] if value is not None]
        return len(known) - len(values[rate]), sum(known) / len(known)

    usable = [rate for rate, found in values.items() if any(value is not None for value in found)]
    if not usable:
        raise ValueError("no trial succeeded")
    return max(usable, key=rank)


class Runner:
    """Runs the planned trials, within a time budget if there is one."""

    def __init__(
        self,
        settings: RunnerSettings,
        plan: Sequence[Trial],
        forecast: Forecast,
        table: LiveTable,
        deadline: float | None,
        functions: ComparisonFunctions | None = None,
    ) -> None:
        """Prepare to run.

        Args:
            settings: What all trials share.
            plan: The trials to run.
            forecast: Expected seconds; it learns from the trials that are done.
            table: Shows the progress.
            deadline: When to be done, on the clock of `functions`; None without a budget.
            functions: What trains, scores and tells the time; None for the real ones.
        """
        self.settings, self.forecast, self.table, self.deadline = settings, forecast, table, deadline
        self.functions = functions or ComparisonFunctions()
        self.plan = {name: [trial for trial in plan if trial.candidate == name] for name in settings.candidates}
        self.left_out: list[str] = []
        self.results: dict[str, CandidateResult] = {}

    def run(self) -> dict[str, CandidateResult]:
        """Run all planned trials. Return the results by candidate.

        What is dropped for lack of time is described in `left_out`.
        """
        for name in [name for name, trials in self.plan.items() if trials]:
            if not self.plan[name]:  # dropped meanwhile for lack of time
                continue
            self.results[name] = result = CandidateResult(self.settings.candidates[name])
            for fold in dict.fromkeys(trial.fold for trial in self.plan[name]):
                self._run_fold(result, fold)
            self.forecast.prepared |= self.forecast.preparation_keys(name)
            self._finish_candidate(result)
        return self.results

    def _finish_candidate(self, result: CandidateResult) -> None:
        name = result.candidate.name
        row = self.table.rows[name]
        if not self.plan[name]:
            del self.results[name]
        elif result.status == "failed" or not result.scored_trials():
            reasons = [trial.reason for trial in result.trials.values() if trial.reason]
            result.status, result.reason = "failed", result.reason or (reasons or ["no seed succeeded"])[0]
            row.note = f"failed: {result.reason}"
            warn(f"{name} failed: {result.reason}")

    def _run_fold(self, result: CandidateResult, fold: int | None) -> None:
        """Train a candidate's trials of one fold, choose a rate, and score it on test."""
        name = result.candidate.name
        number, trials = 0, self._planned(name, fold)
        while number < len(trials):
            self._drop_what_does_not_fit(name)
            trials = self._planned(name, fold)
            if number >= len(trials):
                break
            trial = trials[number]
            number += 1
            self.table.begin(f"training {trial.id}", self._seconds_left(trial))
            stored = self._read_result(trial)
            trial_result = result.trials[trial] = stored or self._train_and_store(trial)
            if stored is None:
                self.forecast.record(name, trial_result.seconds + FIXED_SECONDS)
                # With folds, the shared work is done only when the last fold has done it.
                if trial.fold is None:
                    self.forecast.prepared |= self.forecast.preparation_keys(name)
            self._show_result(result, trial, stored=stored is not None)
            self._remove_losing_weights(result, trials[:number])
        if trials:
            self._choose_and_score(result, fold, trials)

    def _planned(self, name: str, fold: int | None) -> list[Trial]:
        """Return the planned trials of a candidate in one fold, rate by rate."""
        own = [trial for trial in self.plan[name] if trial.fold == fold]
        rates = list(dict.fromkeys(trial.rate for trial in own))
        return sorted(own, key=lambda trial: rates.index(trial.rate))

    def _show_result(self, result: CandidateResult, trial: Trial, *, stored: bool) -> None:
        row, trial_result = self.table.rows[trial.candidate], result.trials[trial]
        values = _values_by_rate(result, [other for other in result.trials if other.fold == trial.fold])
        if _any_success(values):
            best = [value for value in values[choose_rate(values)] if value is not None]
            row.best = sum(best) / len(best)
        for restart in trial_result.restarts if not stored else ():
            warn(f"{trial.id}: {restart}")
        if trial_result.reason:
            row.note = trial_result.reason
        score = (
            f"validation {self.table.metric} {trial_result.value:.4f}"
            if trial_result.value is not None
            else f"failed: {trial_result.reason}"
        )
        spent = "done before" if stored else f"{trial_result.seconds:.1f} s"
        self.table.finish(trial.candidate, f"{trial.id:<36} {score}  {spent}")

    def _choose_and_score(self, result: CandidateResult, fold: int | None, trials: Sequence[Trial]) -> None:
        values = _values_by_rate(result, trials)
        if not _any_success(values):
            result.status = "failed"
            return
        rate = result.chosen_rates[fold] = choose_rate(values)
        for trial in trials:
            if trial.rate != rate:
                self.settings.store.remove(trial.id, "weights")  # only chosen trials are scored or saved
            elif result.trials[trial].value is not None:
                self.table.begin(f"testing {trial.id}", self._seconds_left(None))
                result.predictions[trial] = self._predictions(trial, result.trials[trial])
        self.table.rows[result.candidate.name].note = "" if rate is None else f"rate {rate:g}"

    def _remove_losing_weights(self, result: CandidateResult, done: Sequence[Trial]) -> None:
        """Remove the weights of rates whose seeds are all done and which are not the best of these."""
        rates = list(dict.fromkeys(trial.rate for trial in done))
        complete = [trial for trial in done if trial.rate in rates[:-1]]
        values = _values_by_rate(result, complete)
        if len(values) < 2 or not _any_success(values):
            return
        leading = choose_rate(values)
        for trial in complete:
            if trial.rate != leading:
                self.settings.store.remove(trial.id, "weights")

    # Time

    def _seconds_left(self, current: Trial | None) -> float:
        """Return the expected seconds until the end, including the current trial."""
        done = {trial for result in self.results.values() for trial in result.trials}
        trials = [trial for own in self.plan.values() for trial in own if trial not in done or trial == current]
        finished = self._finished()
        unscored = [trial for own in self.plan.values() for trial in own if trial.candidate not in finished]
        names = list(dict.fromkeys(trial.candidate for trial in trials))
        forecast = self.forecast
        work = forecast.preparation_seconds(names) + forecast.training_seconds(trials)
        return work + forecast.all_scoring_seconds(unscored) + CLOSING_SECONDS

    def _finished(self) -> set[str]:
        """Return the candidates that are done: all that have results but the current one, which is the last."""
        current = next(reversed(self.results), None)
        return {name for name, result in self.results.items() if result.chosen_rates and name != current}

    def _drop_what_does_not_fit(self, name: str) -> None:
        """Shrink the plan while the work left does not fit the budget. name: the candidate that is running.

        Seeds of unfinished candidates go first, then whole candidates, the most expensive first. Rates stay, so that
        every candidate chooses among the same number.
        """
        while self.deadline is not None and self.functions.clock() + self._seconds_left(None) > self.deadline:
            finished = self._finished()
            unfinished = [other for other, trials in self.plan.items() if trials and other not in finished]
            if any(len({trial.seed for trial in self.plan[other]}) > 2 for other in unfinished):
                for other in unfinished:
                    first_two = sorted({trial.seed for trial in self.plan[other]})[:2]
                    self._replan(other, [trial for trial in self.plan[other] if trial.seed in first_two])
                self.left_out.append(f"seeds: only 2 of {', '.join(unfinished)}, to stay within the budget")
                continue
            with_recipe = [other for other in self.plan if self.plan[other] and self.settings.candidates[other].recipe]
            if len(with_recipe) < 2:
                return  # the last classifier is trained even over budget: there must be a result
            dearest = max(unfinished, key=self._candidate_seconds)
            self.left_out.append(f"{dearest}: no time was left in the budget")
            self._replan(dearest, [])
            if dearest == name:
                return

    def _replan(self, name: str, trials: list[Trial]) -> None:
        self.plan[name] = trials
        self.table.rows[name].total = len(trials)
        if not trials:
            self.table.rows[name].note = "left out: no time"

    def _candidate_seconds(self, name: str) -> float:
        return self.forecast.preparation_seconds([name]) + self.forecast.training_seconds(self.plan[name])

    # Trials: read from the store, or run and stored

    def _read_result(self, trial: Trial) -> TrialResult | None:
        artifact = self.settings.store.read(trial.id, "trained", self.identity(trial))
        return None if artifact is None else TrialResult(logits=artifact.arrays["logits"], **artifact.facts)

    def _train_and_store(self, trial: Trial) -> TrialResult:
        identity, store = self.identity(trial), self.settings.store
        result, weights = self._train(trial)
        # Weights first: a trial whose result is stored always had its weights stored too.
        if weights:
            store.write(trial.id, "weights", identity, Artifact({}, weights))
        store.write(trial.id, "trained", identity, Artifact(result.facts(), {"logits": result.logits}))
        return result

    def _train(self, trial: Trial) -> tuple[TrialResult, TrialWeights]:
        name, settings = trial.candidate, self.settings
        if settings.candidates[name].recipe is None:
            parts = without_test(settings.folds[trial.fold or 0])
            return self.functions.train_baseline(name, parts, settings.metric, settings.decision), {}
        try:
            job = self._prepared_job(trial)
        except SpaceFault:
            raise
        except Error as error:
            return failed_trial(error.what, trial.seed), {}
        result, weights = self.functions.train(replace(job, parts=without_test(job.parts)), trial.rate)
        return replace(result, stage_seconds=_stage_seconds(job)), weights

    def _prepared_job(self, trial: Trial) -> Job:
        """Return the trial's job on its further-pretrained base.

        Further pretraining is given the test texts only to keep them out of its corpus.
        """
        job = self._trial_job(trial)
        if job.recipe.further_pretraining is None:
            return job
        # A trial's checkpoints are for its own training; further pretraining has its cache.
        return replace(job, adapted=self.functions.further_pretrain(replace(job, run=None)).adapted)

    def _trial_job(self, trial: Trial) -> Job:
        job = self.settings.jobs[trial.candidate][trial.fold or 0]
        rate = job.recipe.training.learning_rate[:1] if trial.rate is None else (trial.rate,)
        job = replace(job, recipe=job.recipe.with_fields(seed=trial.seed, learning_rate=rate))
        seconds = self.settings.checkpoint_seconds
        if self.forecast.trial_seconds(trial.candidate) < seconds:
            return job
        folder = self.settings.store.folder(trial.id) / "unfinished"
        run = UnfinishedRun(folder, self.identity(trial), CheckpointInterval(seconds=seconds), writes=True)
        return replace(job, run=run)

    def identity(self, trial: Trial) -> str:
        """Return a fingerprint of everything that a trial depends on."""
        parts = self.settings.folds[trial.fold or 0]
        if self.settings.candidates[trial.candidate].recipe is None:
            return fingerprint(self.settings.baseline_key, [part.fingerprint() for part in parts.by_name().values()])
        # Not of the prepared job: a stored trial must be found before any further pretraining has run.
        job = self.settings.jobs[trial.candidate][trial.fold or 0]
        return fingerprint(job.facts(), trial.id)

    def _predictions(self, trial: Trial, result: TrialResult) -> TrialPredictions:
        """Return the trial's test predictions, from the store if they are there."""
        identity, store = self.identity(trial), self.settings.store
        artifact = store.read(trial.id, "scored", identity)
        if artifact is not None:
            return TrialPredictions(artifact.arrays["logits"], float(artifact.facts["rows_per_second"]))
        found = self._score(trial, result)
        facts = {"rows_per_second": found.rows_per_second}
        store.write(trial.id, "scored", identity, Artifact(facts, {"logits": found.logits}))
        return found

    def _score(self, trial: Trial, result: TrialResult) -> TrialPredictions:
        parts = self.settings.folds[trial.fold or 0]
        assert parts.test is not None
        if self.settings.candidates[trial.candidate].recipe is None:
            return self.functions.score_baseline(trial.candidate, without_test(parts), parts.test, result)
        return self.functions.score(self.trained_job(trial, result), parts.test, self.weights(trial))

    def trained_job(self, trial: Trial, result: TrialResult) -> Job:
        """Return the job of a trial with the seed that it was finally trained with."""
        job = self._prepared_job(trial)
        return replace(job, recipe=job.recipe.with_fields(seed=result.seed), run=None)

    def weights(self, trial: Trial) -> TrialWeights:
        """Return the weights of a trial: the stored ones, or those of training again, which are the same bits."""
        artifact = self.settings.store.read(trial.id, "weights", self.identity(trial))
        if artifact is not None:
            return dict(artifact.arrays)
        _, weights = self._train(trial)
        self.settings.store.write(trial.id, "weights", self.identity(trial), Artifact({}, weights))
        return weights


def _values_by_rate(result: CandidateResult, trials: Sequence[Trial]) -> dict[float | None, list[float | None]]:
    values: dict[float | None, list[float | None]] = {}
    for trial in trials:
        values.setdefault(trial.rate, []).append(result.trials[trial].value)
    return values


def _any_success(values: Mapping[float | None, Sequence[float | None]]) -> bool:
    return any(value is not None for found in values.values() for value in found)


def _stage_seconds(job: Job) -> float:
    """Return the seconds that the further pretraining took, now or when it was put into the cache."""
    history = [] if job.adapted is None else job.adapted.about.get("history", [])
    return float(sum(entry.get("seconds", 0.0) for entry in history))
