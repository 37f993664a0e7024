"""Run the trials of a comparison in the order of the schedule: train each, and score it on test.

Training and choosing never see the test rows. The trial of a candidate's first seed chooses the learning rate on
validation; the other seeds take that rate. So a trial can be scored as soon as it is trained: nothing is chosen by test
scores. While a trial runs, a watch ends it when its time is up.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from fullbake.comparison.artifacts import Artifact, ArtifactStore
from fullbake.comparison.design import Candidate
from fullbake.comparison.forecast import PRETRAINING, Forecast, kind_of_work, language_head_key
from fullbake.comparison.functions import ComparisonFunctions
from fullbake.comparison.live_table import LiveTable
from fullbake.comparison.recorded_trials import record_finished, recorded_trial
from fullbake.comparison.schedule import WHOLE, NextTrial, Plan, Progress, Scheduler, Size, Trial, Watch
from fullbake.comparison.sizes import SizedJobs
from fullbake.comparison.trial import TrialPredictions, TrialResult, TrialWeights
from fullbake.comparison.trial_work import TrialTask, TrialWork, without_test
from fullbake.comparison.verdict import NotRun
from fullbake.config.sections import DecisionConfig
from fullbake.core import stopping, storage
from fullbake.core.console import format_duration, say, warn
from fullbake.core.errors import DeadlinePassed
from fullbake.core.hashing import fingerprint
from fullbake.core.processors import ThreadSetting
from fullbake.data.splits import Parts
from fullbake.training.checkpoints import threads_in
from fullbake.training.job import Job

LONG_TRIAL_SECONDS: Final = 300.0
"""A trial that is expected to take longer than this writes checkpoints, this many seconds apart."""

CLOSING_SECONDS: Final = 20.0
"""Seconds reserved for the verdict, the bundle and the page, at most, before their time has been measured."""

CLOSING_SHARE: Final = 0.05
"""The same as a share of a short budget."""

ENTRY_MARGIN: Final = 1.2
"""A budget that would be enough is named with this much more than is expected."""

FROM_CACHE: Final = 0.05
"""Shared work that took less than this share of its forecast was found in a cache."""

VERDICT_SHARE: Final = 10.0
"""The verdict after a sweep is written if this many times its own time has passed since the last one."""


@dataclass(frozen=True)
class RunnerSettings:
    """What all trials share."""

    store: ArtifactStore
    candidates: Mapping[str, Candidate]
    """By name."""
    jobs: Mapping[str, Sequence[Job]]
    """For each candidate with a recipe one whole job a fold, with all parts of the rows."""
    folds: Sequence[Parts]
    """The parts of the rows, fold by fold; a single entry without folds."""
    metric: str
    """What baselines choose by."""
    decision: DecisionConfig
    """How baselines decide."""
    baseline_key: str
    """Fingerprint of what a baseline's trials depend on besides the rows."""
    started: float = 0.0
    """When the call began, on the clock of the functions."""
    threads: ThreadSetting = "auto"
    """How many threads each trial computes with; `auto` looks at the machine before each one."""
    checkpoint_seconds: float = LONG_TRIAL_SECONDS
    """A trial that is expected to take longer writes checkpoints, this many seconds apart."""


@dataclass
class CandidateResult:
    """The results of one candidate."""

    candidate: Candidate
    trials: dict[Trial, TrialResult] = field(default_factory=dict)
    """All trials that ran, of all sizes."""
    predictions: dict[Trial, TrialPredictions] = field(default_factory=dict)
    """Test predictions of the trials that gave a classifier."""
    size: Size = WHOLE
    """The size of the trials that the verdict is about."""
    status: str = "done"
    """`done`, `failed` or `left_out`."""
    reason: str | None = None
    """Why the candidate failed or was left out."""

    @property
    def folds(self) -> list[int | None]:
        """Return the folds that it ran in; a single None without folds."""
        return list(dict.fromkeys(trial.fold for trial in self.trials if trial.size == self.size))

    @property
    def chosen_rates(self) -> dict[int | None, float | None]:
        """Return the learning rate that the first seed's trial chose, by fold."""
        rates: dict[int | None, float | None] = {}
        for trial, result in self.trials.items():
            if trial.size == self.size:
                rates.setdefault(trial.fold, result.rate)
        return rates

    def scored_trials(self) -> list[Trial]:
        """Return the trials that the verdict is about, fold by fold and seed by seed.

        They are of one size, and their seeds were scored in every fold. Trials that were stopped before their end are
        never averaged with others: one of them counts only if there is nothing else.
        """
        folds = self.folds
        seeds = sorted({trial.seed for trial in self.predictions if trial.size == self.size})
        complete = [seed for seed in seeds if all(self._trial(seed, fold) in self.predictions for fold in folds)]
        to_the_end = [seed for seed in complete if all(self._share(seed, fold) == 1 for fold in folds)]
        return [self._trial(seed, fold) for fold in folds for seed in to_the_end or complete[:1]]

    def _trial(self, seed: int, fold: int | None) -> Trial:
        return Trial(self.candidate.name, seed, fold, self.size)

    def _share(self, seed: int, fold: int | None) -> float:
        return self.trials[self._trial(seed, fold)].share

    def best_trial(self) -> Trial:
        """Return the scored trial with the best metric on validation."""
        values = {trial: self.trials[trial].value for trial in self.scored_trials()}
        return max(values, key=lambda trial: -math.inf if (value := values[trial]) is None else value)

    def scored_seeds(self) -> list[int]:
        """Return the seeds of the scored trials, sorted."""
        return sorted({trial.seed for trial in self.scored_trials()})


@dataclass(frozen=True)
class Spent:
    """What a trial took."""

    elapsed: float
    """Seconds since it began."""
    shared_seconds: float
    """Seconds of the shared work in it."""
    slower: float
    """How many times as long as expected it took, by its own steps."""
    part: str | None
    """The kind of shared work that ran last; None if the trial's own training did."""

    @classmethod
    def of(cls, watch: Watch) -> "Spent":
        """Return what the watch of a trial shows now."""
        return cls(watch.elapsed, watch.shared_seconds, watch.slower, watch.part)


class Runner:
    """Runs the trials of a plan, within a time budget if there is one."""

    def __init__(
        self,
        settings: RunnerSettings,
        plan: Plan,
        forecast: Forecast,
        table: LiveTable,
        deadline: float | None = None,
        functions: ComparisonFunctions | None = None,
        after_sweep: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepare to run.

        Args:
            settings: What all trials share.
            plan: What was asked for.
            forecast: What it will take; it learns from the trials that are done.
            table: Shows the progress.
            deadline: When to be done, on the clock of `functions`; None without a budget.
            functions: What trains, scores and tells the time; None for the real ones.
            after_sweep: Called when a sweep is done and another one follows. It may write the verdict so far.
        """
        self.settings, self.plan, self.forecast, self.table = settings, plan, forecast, table
        self.deadline, self.after_sweep = deadline, after_sweep
        self.functions = functions or ComparisonFunctions()
        self.sized = SizedJobs(settings.jobs, settings.folds)
        self.work = TrialWork(self.sized, settings.candidates, settings.metric, settings.decision, self.functions)
        self.progress = Progress()
        self.started = self.functions.clock()
        budget = math.inf if deadline is None else deadline - self.started
        self.closing = min(CLOSING_SECONDS, CLOSING_SHARE * budget)
        self.workers = 1
        """How many trials run at once."""
        self.left_out: list[str] = []
        self._verdict_at = self.started
        self._all: dict[str, CandidateResult] = {}
        self._threads: dict[str, int] = {}
        """Threads that shared work was computed with, by its key: its cache is found only with the same number."""
        self._said: set[str] = set()

    @property
    def schedule(self) -> Scheduler:
        """Return the rules over what is done now."""
        return Scheduler(self.plan, self.progress, self.forecast)

    @property
    def results(self) -> dict[str, CandidateResult]:
        """Return the results of the candidates that the verdict is about, in the order of the plan."""
        rules = self.schedule
        return {one.name: self._all[one.name] for one in self.plan.recipes if rules.best(one.name) is not None}

    @property
    def seconds_left(self) -> float:
        """Return the seconds left for trials; infinity without a budget."""
        return math.inf if self.deadline is None else self.deadline - self.functions.clock() - self.closing

    def run(self) -> None:
        """Run all trials that fit. The results are in `results`."""
        self.read_finished()
        sweep: str | None = None
        while (step := self.schedule.next_step(self.seconds_left)) is not None:
            if sweep not in (None, step.sweep) and self.verdict_is_due():
                self.write_verdict()
                sweep = None  # the time that was taken may change what comes next
                continue
            sweep = step.sweep
            self._run(step)
        self.end()

    def end(self) -> None:
        """Show that all trials are done."""
        self.table.begin("the verdict and the page", self.closing, 0.0)

    def verdict_is_due(self) -> bool:
        """Return True if a sweep's verdict may be written: it takes a small part of the time."""
        since = self.functions.clock() - self._verdict_at
        return bool(self.results) and since >= VERDICT_SHARE * self.closing and self.seconds_left >= 3 * self.closing

    def write_verdict(self) -> None:
        """Write the verdict so far, and measure how long that takes."""
        self.table.begin("the verdict so far", self.closing, self._seconds_after(None))
        started = self.functions.clock()
        self.after_sweep()
        self._verdict_at = self.functions.clock()
        # With a budget, the last verdict is expected to take as long as this one.
        self.closing = max(1.2 * (self._verdict_at - started), 0.2)

    def not_run(self) -> dict[str, NotRun]:
        """Return the candidates without a result, and what would let them run."""
        if self.deadline is None:
            return {}
        rules, now = self.schedule, self.functions.clock()
        budget = self.deadline - self.settings.started
        found = {}
        for recipe in self.plan.recipes:
            if rules.best(recipe.name) is None:
                more = rules.seconds_to_enter(recipe.name) * ENTRY_MARGIN + self.closing
                needed = max(now - self.settings.started + more, budget)
                found[recipe.name] = NotRun(f"the budget of {format_duration(budget)} is too short", needed)
        return found

    def reduced(self) -> dict[str, list[str]]:
        """Return what was made smaller for each candidate, in sentences."""
        found = {}
        for name, result in self.results.items():
            trials = result.scored_trials()
            words = self.sized.describe(trials[0], result.trials[trials[0]].stopped) if trials else []
            if words:
                found[name] = words
        return found

    # One trial

    def _run(self, step: NextTrial) -> None:
        """Train and score a trial, and learn from how long it took."""
        trial = step.trial
        watch = Watch(step, self.seconds_left, self.forecast.scoring(trial), self.functions.clock)
        self.say_smaller(trial)
        self.table.begin(f"{step.sweep}: {trial.id}", step.expected, self._seconds_after(step))
        try:
            with recorded_trial(self.settings.candidates[trial.candidate], trial) as recorded:
                with stopping.deadline(watch.time_is_up, watch.note):
                    result = self._train_and_store(step, watch)
                if result.value is not None:
                    with stopping.deadline(self._is_over), stopping.interruptible():
                        self.keep_predictions(trial, self._score(trial, result))
                recorded.finish(result, self._result_of(trial).predictions.get(trial), self.sized.parts(trial).test)
        except DeadlinePassed as stop:
            self.give_up(step, Spent.of(watch), str(stop))
            return
        self.learn_own(step, result, Spent.of(watch))
        self.keep(trial, result)
        self.table.begin(trial.id, 0.0, self._seconds_after(None))
        self.show(trial, f"{result.seconds:.1f} s", result.restarts)

    def _is_over(self) -> bool:
        return self.deadline is not None and self.functions.clock() >= self.deadline

    def _seconds_after(self, step: NextTrial | None) -> float:
        """Return the expected seconds of everything that follows the current step."""
        expected = step.expected if step else 0.0
        return self.seconds_after(expected, self.schedule.seconds_wanted() - expected)

    def seconds_after(self, expected: float, wanted: float) -> float:
        """Return the expected seconds of everything that follows what is running.

        Args:
            expected: Seconds until that is done.
            wanted: Seconds of what is wanted after it; what does not fit into the budget is not waited for.
        """
        left = self.seconds_left - expected
        return max(min(wanted, left), 0.0) + (0.0 if self.deadline is None else self.closing)

    def say_smaller(self, trial: Trial) -> None:
        """Say once of each candidate, and once for all of what all share, what is made smaller."""
        for line in self.sized.describe(trial, None):
            of_all = line.startswith("Only")
            said = line if of_all else f"{trial.candidate}: {line}"
            if said not in self._said:
                self._said.add(said)
                say(f"to stay within the budget: {said[0].lower() + said[1:] if of_all else said}", aloud=True)

    def give_up(self, step: NextTrial, spent: Spent, reason: str) -> None:
        """Note that a trial gave no result in time, so that only a smaller one is tried.

        Args:
            step: The trial.
            spent: What it took.
            reason: A clause.
        """
        trial = step.trial
        self.progress.too_large.setdefault(trial.candidate, []).append(trial.size)
        slower = max(spent.slower, spent.elapsed / max(step.expected, 1e-9), 1.0)
        kind = spent.part or trial.candidate
        self.forecast.corrections.record(kind, self.forecast.corrections.factor(kind) * slower, encoder=False)
        self._note_language_head(trial)
        say(f"{trial.id} gave no result: {reason}", aloud=True)
        self.table.rows[trial.candidate].note = "no result in time"

    def _note_language_head(self, trial: Trial) -> None:
        """Note that the masked-LM head, which is the first part of further pretraining, is trained, if it is.

        A further pretraining that was stopped afterwards need not train it again.
        """
        recipe = self.settings.candidates[trial.candidate].recipe
        if recipe is None or (key := language_head_key(recipe.base)) not in self.forecast.shared(trial):
            return
        cache_dir = self.settings.jobs[trial.candidate][0].cache_dir
        if self.functions.has_language_head(recipe.base, cache_dir):
            self.forecast.prepared.add(key)

    def keep(self, trial: Trial, result: TrialResult) -> None:
        """Note a finished trial, new or from an earlier call."""
        own = self._result_of(trial)
        own.trials[trial] = result
        self.progress.finished[trial] = result.share
        for key in self.forecast.plain_shared(trial):
            self.forecast.prepared.add(key)
            if result.threads is not None:
                self._threads.setdefault(key, result.threads)
        best = self.schedule.best(trial.candidate)
        if best is None:
            return
        own.size = best
        own.status, own.reason = "done", None
        if not own.scored_trials():
            reasons = [found.reason for found in own.trials.values() if found.reason]
            own.status, own.reason = "failed", (reasons or ["no seed succeeded"])[0]
            warn(f"{trial.candidate} failed: {own.reason}")
        self._remove_needless_weights(own)

    def _result_of(self, trial: Trial) -> CandidateResult:
        name = trial.candidate
        return self._all.setdefault(name, CandidateResult(self.settings.candidates[name]))

    def _remove_needless_weights(self, own: CandidateResult) -> None:
        """Keep only the weights that the bundle may need: any others can be trained again to the same bits."""
        kept = own.best_trial() if own.scored_trials() else None
        for trial in own.trials:
            if trial != kept:
                self.settings.store.remove(trial.id, "weights")

    def show(self, trial: Trial, spent: str, restarts: Sequence[str] = ()) -> None:
        """Show a trial that is finished.

        Args:
            trial: The trial.
            spent: What it took, in words.
            restarts: Why it was started again.
        """
        own, row = self._result_of(trial), self.table.rows[trial.candidate]
        result = own.trials[trial]
        scored = [value for one in own.scored_trials() if (value := own.trials[one].value) is not None]
        row.best = sum(scored) / len(scored) if scored else None
        row.done = len(own.scored_trials())
        for restart in restarts:
            warn(f"{trial.id}: {restart}")
        if own.status == "failed":
            row.note = f"failed: {own.reason}"
        elif result.stopped or result.reason:
            row.note = result.stopped or result.reason or ""
        else:
            row.note = "" if result.rate is None else f"rate {result.rate:g}"
        words = f"failed: {result.reason}"
        if result.value is not None:
            words = f"validation {self.table.metric} {result.value:.4f}"
        self.table.finish(f"{trial.id:<36} {words}  {spent}{f' ({result.stopped})' if result.stopped else ''}")

    # What a trial teaches the forecast

    def learn_own(self, step: NextTrial, result: TrialResult, spent: Spent) -> None:
        """Correct the forecast of a trial's own work, by the seconds since its training began."""
        if result.value is None:
            return
        plain = self.forecast.plain_own(step.trial, searches=step.searches)
        seconds = spent.elapsed - spent.shared_seconds
        finetunes = self.settings.candidates[step.trial.candidate].way == "finetune"
        self.forecast.corrections.record(step.trial.candidate, seconds / plain / result.share, encoder=finetunes)

    def learn_shared(self, trial: Trial, keys: Sequence[str], seconds: float) -> None:
        """Correct the forecast of shared work that is now done, unless it was found in a cache."""
        plain = self.forecast.plain_shared(trial)
        expected = sum(plain[key] for key in keys)
        self.forecast.prepared.update(keys)
        if expected and seconds > FROM_CACHE * expected:
            for kind in {kind_of_work(key) for key in keys}:
                self.forecast.corrections.record(kind, seconds / expected, encoder=True)

    # Trials: read from the store, or run and stored

    def read_finished(self) -> None:
        """Read all trials that an earlier call finished, of any size. A trial without its scores is not finished."""
        for recipe in self.plan.recipes:
            for size in self.plan.sizes(recipe.name):
                for number in range(len(recipe.seeds)):  # the first seed first: the others depend on its rate
                    for trial in self.plan.trials(recipe.name, size, number):
                        self._read_trial(trial)

    def _read_trial(self, trial: Trial) -> None:
        store = self.settings.store
        if not store.folder(trial.id).is_dir():
            return
        artifact = store.read(trial.id, "trained", self.identity(trial))
        if artifact is None:
            return
        result = TrialResult(logits=artifact.arrays["logits"], **artifact.facts)
        if result.value is not None:
            scored = store.read(trial.id, "scored", self.identity(trial))
            if scored is None:
                return
            speed = float(scored.facts["rows_per_second"])
            self._result_of(trial).predictions[trial] = TrialPredictions(scored.arrays["logits"], speed)
        self.keep(trial, result)
        own = self._result_of(trial)
        record_finished(own.candidate, trial, result, own.predictions.get(trial), self.sized.parts(trial).test)
        self.show(trial, "done before")

    def _train_and_store(self, step: NextTrial, watch: Watch) -> TrialResult:
        trial, store = step.trial, self.settings.store
        identity = self.identity(trial)
        artifact = store.read(trial.id, "trained", identity)
        if artifact is not None and artifact.facts.get("stopped") is None:  # only its scores are missing
            return TrialResult(logits=artifact.arrays["logits"], **artifact.facts)
        threads = self._choose_threads(trial)
        task = self.task(trial, searches=step.searches)
        result, weights = self.work.train(task, watch, lambda keys, seconds: self.learn_shared(trial, keys, seconds))
        result = replace(result, threads=threads)
        self.store_trained(trial, result, weights)
        return result

    def store_trained(self, trial: Trial, result: TrialResult, weights: TrialWeights) -> None:
        """Store what came of a training, and remove its checkpoints."""
        identity, store = self.identity(trial), self.settings.store
        # Weights first: a trial whose result is stored always had its weights stored too.
        if weights:
            store.write(trial.id, "weights", identity, Artifact({}, weights))
        store.write(trial.id, "trained", identity, Artifact(result.facts(), {"logits": result.logits}))
        store.remove(trial.id, "scored")
        self._remove_checkpoints(trial, result)

    def _remove_checkpoints(self, trial: Trial, result: TrialResult) -> None:
        """Remove the checkpoints of a training, unless the budget ended it: a larger budget continues from them."""
        folder = self._unfinished_folder(trial)
        if result.stopped is None and folder.is_dir():
            storage.remove_tree(folder)

    def _choose_threads(self, trial: Trial) -> int | None:
        """Let torch compute with as many threads as suit the machine now, and return the number.

        Work that is shared through a cache keeps the number of threads that it was first computed with.
        """
        if self.settings.candidates[trial.candidate].recipe is None:
            return None
        begun = threads_in(self._unfinished_folder(trial), self.identity(trial))
        asked = self.settings.threads
        kept = begun if begun is not None else self._threads_of_shared(trial)
        if kept is None:
            return self.functions.use_threads(asked)
        if asked not in ("auto", kept):
            reason = "it was begun with them" if begun is not None else "it shares work that was computed with them"
            say(f"trial {trial.id} computes with {kept} threads, not {asked}: {reason}. --restart begins anew")
        return self.functions.use_threads(kept)

    def _threads_of_shared(self, trial: Trial) -> int | None:
        """Return the threads that shared work of a trial was computed with; None if none was.

        Only an equal number finds that work in the caches.
        """
        return next((self._threads[key] for key in self.forecast.plain_shared(trial) if key in self._threads), None)

    def recorded_threads(self, trial: Trial) -> int | None:
        """Return the threads that a trial was begun with, or its shared work; None if nothing of it is there."""
        if self.settings.candidates[trial.candidate].recipe is None:
            return None
        begun = threads_in(self._unfinished_folder(trial), self.identity(trial))
        return begun if begun is not None else self._threads_of_shared(trial)

    def best_value(self, trial: Trial) -> float | None:
        """Return the best validation metric of the candidate's finished trials of this size, None without one."""
        own = self._all.get(trial.candidate)
        trials = {} if own is None else own.trials
        values = [one.value for other, one in trials.items() if other.size == trial.size and one.value is not None]
        return max(values, default=None)

    def _unfinished_folder(self, trial: Trial) -> Path:
        return self.settings.store.folder(trial.id) / "unfinished"

    def task(self, trial: Trial, *, searches: bool = True) -> TrialTask:
        """Return what is to be done of a trial, as plain values.

        Args:
            trial: The trial.
            searches: Whether it chooses the learning rate.
        """
        seconds, shared = self.settings.checkpoint_seconds, self.forecast.shared(trial)
        has_recipe = self.settings.candidates[trial.candidate].recipe is not None
        pretraining = sum(left for key, left in shared.items() if kind_of_work(key) == PRETRAINING)
        is_long = has_recipe and max(self.forecast.own(trial, searches=True), pretraining) >= seconds
        return TrialTask(
            trial,
            self._rate(trial),
            self.identity(trial) if is_long else "",
            self.forecast.own(trial, searches=searches),
            shared,
            str(self._unfinished_folder(trial)) if is_long else None,
            seconds,
        )

    def _rate(self, trial: Trial) -> float | None:
        """Return the learning rate that the first seed chose; None if this is the first seed, or that one failed."""
        first = self.plan.by_name[trial.candidate].seeds[0]
        own = self._all.get(trial.candidate)
        if trial.seed == first or own is None:
            return None
        result = own.trials.get(replace(trial, seed=first))
        return None if result is None else result.rate

    def identity(self, trial: Trial) -> str:
        """Return a fingerprint of everything that a trial depends on, but the number of threads, which it records."""
        parts = self.sized.parts(trial)
        if self.settings.candidates[trial.candidate].recipe is None:
            return fingerprint(self.settings.baseline_key, [part.fingerprint() for part in parts.by_name().values()])
        # Not of the prepared job: a stored trial must be found before any further pretraining has run.
        facts = {name: value for name, value in self.sized.job(trial).facts().items() if name != "threads"}
        return fingerprint(facts, trial.id, self._rate(trial))

    def keep_predictions(self, trial: Trial, found: TrialPredictions) -> None:
        """Store the test predictions of a trial."""
        facts = {"rows_per_second": found.rows_per_second}
        self.settings.store.write(trial.id, "scored", self.identity(trial), Artifact(facts, {"logits": found.logits}))
        self._result_of(trial).predictions[trial] = found

    def _score(self, trial: Trial, result: TrialResult) -> TrialPredictions:
        return self.work.score(self.task(trial), result, lambda: self._weights(trial, result))

    def trained_job(self, trial: Trial, result: TrialResult) -> Job:
        """Return the job of a trial as it was finally trained: with its seed, its learning rate and its head."""
        return self.work.trained_job(self.task(trial), result)

    def weights(self, trial: Trial) -> TrialWeights:
        """Return the weights of a trial: the stored ones, or those of training again, which are the same bits."""
        return self._weights(trial, self._all[trial.candidate].trials[trial])

    def _weights(self, trial: Trial, result: TrialResult) -> TrialWeights:
        artifact = self.settings.store.read(trial.id, "weights", self.identity(trial))
        if artifact is not None:
            return dict(artifact.arrays)
        if result.threads is not None:
            self.functions.use_threads(result.threads)
        job = self.work.prepared_job(self.task(trial))
        _, weights = self.functions.train(replace(job, parts=without_test(job.parts)), self._rate(trial))
        self.settings.store.write(trial.id, "weights", self.identity(trial), Artifact({}, weights))
        self._remove_checkpoints(trial, result)
        return weights
