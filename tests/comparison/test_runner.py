"""The runner with functions that train nothing and a clock that they advance; test_compare.py runs real trainings."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fullbake.comparison.artifacts import ArtifactStore
from fullbake.comparison.design import read_candidates
from fullbake.comparison.forecast import DataSizes, Forecast, Speed
from fullbake.comparison.functions import ComparisonFunctions
from fullbake.comparison.live_table import LiveRow, LiveTable
from fullbake.comparison.runner import (
    LONG_TRIAL_SECONDS,
    CandidateResult,
    Runner,
    RunnerSettings,
)
from fullbake.comparison.schedule import WHOLE, Plan, Size, Trial
from fullbake.comparison.trial import TrialPredictions, TrialResult, failed_trial
from fullbake.config.recipe import Recipe
from fullbake.config.sections import DecisionConfig
from fullbake.core import stopping
from fullbake.core.errors import DeadlinePassed
from fullbake.training.checkpoints import begin_run

LOGITS = np.zeros((2, 2), np.float32)

Values = Mapping[tuple[str, int], float | None]


@dataclass(frozen=True)
class Part:
    """As much of a part of the rows as a runner uses."""

    count: int

    def __len__(self) -> int:
        return self.count

    def fingerprint(self) -> str:
        return f"{self.count} rows"


@dataclass(frozen=True)
class Parts:
    """As much of the rows as a runner uses."""

    train: Part = Part(1000)
    validation: Part = Part(100)
    test: Part | None = Part(100)

    def by_name(self) -> dict[str, Any]:
        return {"train": self.train, "validation": self.validation}


@dataclass(frozen=True)
class Job:
    """A job that trains nothing."""

    recipe: Recipe
    parts: Parts = Parts()
    run: Any = None
    adapted: Any = None
    cache_dir: Any = None

    def facts(self) -> dict[str, Any]:
        return self.recipe.model_dump(mode="json") | {"threads": 2}


class Simulation:
    """A comparison with simulated trainings.

    values: validation score of (way, seed); None for a failed trial; 0.5 if not given. A fine-tuning takes `seconds` on
    the clock, in 100 steps of which the first ten are an epoch, a head takes 1 second. trained: (way, rate, seed) in
    order. scored: what was scored. checkpointed: whether each training writes checkpoints. verdicts: at which times the
    verdict so far was written.
    """

    def __init__(self, folder: Path, values: Values, seconds: float) -> None:
        self.folder, self.values, self.seconds, self.now = folder, values, seconds, 0.0
        self.trained: list[tuple[str, float | None, int]] = []
        self.scored: list[str] = []
        self.checkpointed: list[bool] = []
        self.verdicts: list[float] = []
        self.threads = 1
        self.stage, self.has_head = 0.0, False
        self.stages: list[int] = []
        self.further_checkpointed: list[bool] = []

    def _train(self, job: Job, rate: float | None) -> tuple[TrialResult, dict[str, np.ndarray]]:
        assert job.parts.test is None
        started, way, seed = self.now, job.recipe.way, job.recipe.training.seed
        self.trained.append((way, rate, seed))
        self.checkpointed.append(job.run is not None)
        share = self._take_steps(self.seconds * job.recipe.training.epochs / 3) if way == "finetune" else 1.0
        if way == "frozen":
            self.now += 1.0
        spent = self.now - started
        value = self.values.get((way, seed), 0.5)
        if value is None:
            return failed_trial("no number", seed, spent), {}
        stopped = None if share == 1 else "the time was up"
        result = TrialResult(value, None, LOGITS, seed, seconds=spent, rate=rate or 1e-3, share=share, stopped=stopped)
        return result, {"head": np.full(1, value, np.float32)}

    def _take_steps(self, seconds: float) -> float:
        for number in range(100):
            self.now += seconds / 100
            stopping.note_progress((number + 1) / 100)
            if stopping.must_stop()[1] and number < 99:
                if number < 10:
                    raise DeadlinePassed("the time was up before the first validation")
                return (number // 10) / 10
        return 1.0

    def _further_pretrain(self, job: Job) -> Job:
        """Train a masked-LM head for 50 s, once, then further pretraining for `stage` seconds times its steps."""
        if job.recipe.further_pretraining is None:
            return job
        self.further_checkpointed.append(job.run is not None)
        if not self.has_head:
            self.now += 50
            self.has_head = True
        steps = job.recipe.stage.steps or 4 * (job.recipe.stage.epochs or 0)
        if self.stages[-1:] != [steps]:  # else it is in the cache
            self.stages.append(steps)
            for _ in range(10):
                self.now += self.stage * steps / 10
                if stopping.must_stop()[1]:
                    raise DeadlinePassed("the time was up")
        return replace(job, adapted=SimpleNamespace(about={}))

    def _score(self, job: Job, part: Part, weights: Mapping[str, np.ndarray]) -> TrialPredictions:
        assert part == Part(100)
        rate = job.recipe.training.learning_rate
        self.scored.append(f"{job.recipe.way} seed {job.recipe.training.seed} rate {rate}: {weights['head'][0]:g}")
        return TrialPredictions(LOGITS, 1.0)

    def _use_threads(self, setting: Any) -> int:
        return self.threads if setting == "auto" else int(setting)

    def run(
        self,
        names: tuple[str, ...] = ("frozen-mlp",),
        seeds: int = 2,
        budget: float | None = None,
        checkpoint_seconds: float = LONG_TRIAL_SECONDS,
    ) -> Runner:
        candidates = {one.name: one for one in read_candidates(names, base="base", epochs=3)}
        jobs = {name: [Job(one.recipe)] for name, one in candidates.items() if one.recipe is not None}
        settings = RunnerSettings(
            ArtifactStore(self.folder),
            candidates,
            jobs,  # type: ignore[arg-type]
            [Parts()],  # type: ignore[list-item]
            "accuracy",
            DecisionConfig(),
            "key",
            started=self.now,
            checkpoint_seconds=checkpoint_seconds,
        )
        functions = ComparisonFunctions(
            train=self._train,  # type: ignore[arg-type]
            score=self._score,  # type: ignore[arg-type]
            further_pretrain=self._further_pretrain,  # type: ignore[arg-type]
            has_language_head=lambda *_: self.has_head,
            use_threads=self._use_threads,
            clock=lambda: self.now,
        )
        plan = Plan(tuple(one.planned(seeds, 1000) for one in candidates.values()), (1.0,))
        table = LiveTable("accuracy", {name: LiveRow(name, seeds) for name in names}, functions.clock)
        sizes = DataSizes(1000, 100, 100, 1200, 1)
        # An epoch of fine-tuning is expected to take 10 s.
        forecast = Forecast(candidates, {"base": Speed(100.0, 1e6, language_head=False)}, sizes)
        deadline = None if budget is None else self.now + budget
        runner = Runner(settings, plan, forecast, table, deadline, functions, lambda: self.verdicts.append(self.now))
        runner.run()
        return runner

    def weights(self) -> list[str]:
        """Return the ids of the trials whose weights are on disk."""
        return sorted(path.parent.relative_to(self.folder).as_posix() for path in self.folder.glob("**/weights"))


@pytest.fixture
def simulate(tmp_path: Path) -> Callable[..., Simulation]:
    """Return a function that makes a `Simulation`."""

    def make(values: Values = MappingProxyType({}), seconds: float = 30.0) -> Simulation:
        return Simulation(tmp_path, values, seconds)

    return make


# Results


def _result(seed: int, value: float | None = 0.5, *, share: float = 1.0, rate: float = 1e-3) -> TrialResult:
    return TrialResult(value, None, LOGITS, seed, share=share, rate=rate)


def test_seed_counts_only_if_it_was_scored_in_every_fold() -> None:
    (candidate,) = read_candidates(["frozen-mlp"], base="base")
    result = CandidateResult(candidate)
    for trial, value, rate in (
        (Trial("frozen-mlp", 0, 0), 0.1, 1e-2),
        (Trial("frozen-mlp", 0, 1), 0.7, 1e-3),
        (Trial("frozen-mlp", 1, 0), 0.9, 1e-2),
    ):
        result.trials[trial] = _result(trial.seed, value, rate=rate)
        result.predictions[trial] = TrialPredictions(LOGITS, 1.0)
    assert result.chosen_rates == {0: 1e-2, 1: 1e-3}
    assert result.scored_seeds() == [0]
    assert [trial.fold for trial in result.scored_trials()] == [0, 1]
    assert result.best_trial() == Trial("frozen-mlp", 0, 1), "the better seed lacks a fold"


def test_sizes_and_stopped_trials_are_never_averaged() -> None:
    (candidate,) = read_candidates(["finetune"], base="base")
    result = CandidateResult(candidate)
    small, whole, stopped = Trial("finetune", 0, None, Size(0.5)), Trial("finetune", 0), Trial("finetune", 1)
    for trial, share in ((small, 1.0), (whole, 1.0), (stopped, 0.3)):
        result.trials[trial] = _result(trial.seed, share=share)
        result.predictions[trial] = TrialPredictions(LOGITS, 1.0)
    assert result.scored_trials() == [whole]
    result.size = Size(0.5)
    assert result.scored_trials() == [small]
    del result.trials[whole], result.predictions[whole]
    result.size = WHOLE
    assert result.scored_trials() == [stopped], "it counts where nothing else is there"


# Running


def test_first_seed_chooses_the_rate_and_the_others_take_it(simulate: Callable[..., Simulation]) -> None:
    simulation = simulate({("frozen", 1): 0.8})
    result = simulation.run().results["frozen-mlp"]
    assert simulation.trained == [("frozen", None, 0), ("frozen", 1e-3, 1)]
    assert result.chosen_rates == {None: 1e-3}
    assert simulation.scored == ["frozen seed 0 rate (0.001,): 0.5", "frozen seed 1 rate (0.001,): 0.8"]
    assert simulation.weights() == ["frozen-mlp/1"], "only the best weights stay"


def test_second_run_reads_the_results_of_the_first(simulate: Callable[..., Simulation]) -> None:
    simulate().run()
    again = simulate()
    again.threads = 2
    result = again.run().results["frozen-mlp"]
    assert not again.trained, "other threads change nothing in what is done"
    assert not again.scored
    assert len(result.predictions) == 2


def test_with_more_seeds_only_the_new_ones_are_trained(simulate: Callable[..., Simulation]) -> None:
    simulate().run(seeds=1)
    simulation = simulate()
    simulation.run(seeds=2)
    assert {seed for _, _, seed in simulation.trained} == {1}


def test_trial_that_lacks_its_scores_is_scored_without_training(simulate: Callable[..., Simulation]) -> None:
    runner = simulate().run(seeds=1)
    runner.settings.store.remove("frozen-mlp/0", "scored")
    again = simulate()
    again.run(seeds=1)
    assert not again.trained
    assert len(again.scored) == 1


def test_removed_weights_are_trained_again_when_needed(simulate: Callable[..., Simulation]) -> None:
    simulation = simulate()
    runner = simulation.run()
    trial = runner.results["frozen-mlp"].best_trial()
    runner.settings.store.remove(trial.id, "weights")
    assert runner.weights(trial)["head"][0] == 0.5
    assert simulation.trained[-1][2] == trial.seed
    assert trial.id in simulation.weights()


def test_recipe_whose_trials_all_fail_is_reported_as_failed(simulate: Callable[..., Simulation]) -> None:
    simulation = simulate({("frozen", seed): None for seed in (0, 1)})
    runner = simulation.run(("frozen-mlp", "finetune"))
    assert (runner.results["frozen-mlp"].status, runner.results["frozen-mlp"].reason) == ("failed", "no number")
    assert runner.results["finetune"].status == "done"
    assert runner.table.rows["frozen-mlp"].note == "failed: no number"


def test_recipe_with_one_seed_that_succeeds_is_done(simulate: Callable[..., Simulation]) -> None:
    simulation = simulate({("frozen", 0): None, ("frozen", 1): 0.9})
    result = simulation.run().results["frozen-mlp"]
    assert (result.status, result.scored_seeds()) == ("done", [1])
    assert simulation.trained[-1] == ("frozen", None, 1), "it chooses the rate itself"


# Time


def test_without_a_budget_everything_runs_and_each_sweep_has_a_verdict(simulate: Callable[..., Simulation]) -> None:
    simulation = simulate(seconds=1e4)
    runner = simulation.run(("finetune", "frozen-mlp"), seeds=3)
    assert {len(result.scored_seeds()) for result in runner.results.values()} == {3}
    assert not runner.not_run()
    assert not runner.reduced()
    assert len(simulation.verdicts) == 2


def test_slow_training_ends_at_its_last_validation_and_says_so(simulate: Callable[..., Simulation]) -> None:
    """It is expected to take about 40 s and takes 200 s; nothing else has to run."""
    simulation = simulate(seconds=200.0)
    runner = simulation.run(("finetune",), seeds=1, budget=150)
    assert simulation.now <= 1.1 * 150
    assert runner.results["finetune"].scored_seeds() == [0]
    (words,) = runner.reduced()["finetune"]
    assert words == "Training was stopped: the time was up."


def test_recipe_that_gives_no_result_is_tried_smaller_then_named_as_not_run(
    simulate: Callable[..., Simulation],
) -> None:
    simulation = simulate(seconds=9000)  # not even the first epoch of the shortest training fits
    runner = simulation.run(("finetune", "frozen-mlp"), seeds=1, budget=200)
    assert simulation.now <= 1.1 * 200
    assert list(runner.results) == ["frozen-mlp"]
    (missing,) = runner.not_run().values()
    assert missing.reason == "the budget of 3 min 20 s is too short"
    assert missing.seconds_needed is not None
    assert missing.seconds_needed > 200


def test_head_for_masked_words_is_not_counted_again_after_a_further_pretraining_that_was_stopped(
    simulate: Callable[..., Simulation],
) -> None:
    simulation = simulate()
    simulation.stage = 10.0  # seconds of a step, of which 4 are expected
    runner = simulation.run(("frozen-mlp", "further-frozen-mlp"), seeds=1, budget=200)
    assert len(simulation.stages) > 1, "the first further pretraining is stopped"
    assert list(runner.results) == ["frozen-mlp", "further-frozen-mlp"]
    assert simulation.now <= 1.1 * 200


def test_shorter_training_says_what_is_smaller(simulate: Callable[..., Simulation]) -> None:
    runner = simulate(seconds=30.0).run(("finetune",), seeds=1, budget=30)
    assert runner.reduced()["finetune"][0].endswith("in place of 3 epochs.")


def test_killed_comparison_continues_with_what_is_stored(simulate: Callable[..., Simulation]) -> None:
    simulate().run(("finetune", "frozen-mlp"), seeds=1, budget=100)
    again = simulate()
    again.run(("finetune", "frozen-mlp"), seeds=2, budget=200)
    assert {seed for _, _, seed in again.trained} == {1}


def test_trial_that_is_expected_to_be_long_writes_checkpoints(
    simulate: Callable[..., Simulation], tmp_path: Path
) -> None:
    simulation = simulate()
    simulation.run(seeds=1, checkpoint_seconds=1e-9)
    assert not list(tmp_path.glob("**/unfinished")), "nobody needs the checkpoints of a finished trial"
    simulation.run(seeds=2, checkpoint_seconds=1e9)
    assert simulation.checkpointed == [True, False]


def test_long_further_pretraining_of_a_short_trial_writes_checkpoints(simulate: Callable[..., Simulation]) -> None:
    simulation = simulate()
    simulation.run(("further-frozen-mlp",), seeds=1, checkpoint_seconds=60)
    assert simulation.further_checkpointed == [True, False], "scoring finds the base made"


def test_shared_work_keeps_its_number_of_threads(simulate: Callable[..., Simulation]) -> None:
    simulation = simulate()
    runner = simulation.run(("frozen-mlp", "finetune"), seeds=1)
    simulation.threads = 4
    trial = Trial("frozen-mlp", 0)
    assert runner._choose_threads(trial) == 1
    assert runner._choose_threads(replace(trial, candidate="finetune")) == 4


def test_trial_that_was_begun_keeps_its_number_of_threads(
    simulate: Callable[..., Simulation], caplog: pytest.LogCaptureFixture
) -> None:
    simulation = simulate()
    runner = simulation.run(seeds=1, checkpoint_seconds=1e-9)
    trial, simulation.threads = Trial("frozen-mlp", 1), 4
    folder = runner._unfinished_folder(trial)
    begin_run(folder, runner.identity(trial), 3)
    assert runner._choose_threads(trial) != 3, "there is no checkpoint yet"
    (folder / "rate" / "step-000000005").mkdir(parents=True)
    assert runner._choose_threads(trial) == 3
    runner.settings = replace(runner.settings, threads=2)
    caplog.set_level("INFO", "fullbake")
    assert runner._choose_threads(trial) == 3
    assert f"trial {trial.id} computes with 3 threads, not 2: it was begun with them" in caplog.text
