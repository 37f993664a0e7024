"""The runner with functions that train nothing and a clock that they advance; test_compare.py runs real trainings."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fullbake.comparison.design import Trial, read_candidates
from fullbake.comparison.forecast import DataSizes, Forecast, Speed
from fullbake.comparison.live_table import LiveRow, LiveTable
from fullbake.comparison.runner import (
    CLOSING_SECONDS,
    LONG_TRIAL_SECONDS,
    Artifact,
    ArtifactStore,
    CandidateResult,
    ComparisonFunctions,
    Runner,
    RunnerSettings,
    choose_rate,
)
from fullbake.comparison.trial import TrialPredictions, TrialResult, failed_trial
from fullbake.config.recipe import Recipe
from fullbake.config.sections import DecisionConfig

# The store


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "cells")


ARTIFACT = Artifact({"value": 0.5, "history": [{"epoch": 1}]}, {"logits": np.arange(6, dtype=np.float32).reshape(3, 2)})


def test_stored_artifact_is_read_unchanged(store: ArtifactStore) -> None:
    store.write("finetune/5e-05/0", "trained", "one", ARTIFACT)
    found = store.read("finetune/5e-05/0", "trained", "one")
    assert found is not None
    assert found.facts == ARTIFACT.facts
    np.testing.assert_array_equal(found.arrays["logits"], ARTIFACT.arrays["logits"])
    assert store.read("finetune/5e-05/0", "scored", "one") is None
    assert store.read("finetune/5e-05/1", "trained", "one") is None


def test_artifact_of_another_identity_is_ignored_and_replaced(store: ArtifactStore) -> None:
    store.write("a/only/0", "trained", "one", ARTIFACT)
    assert store.read("a/only/0", "trained", "two") is None
    store.write("a/only/0", "trained", "two", Artifact({"value": 1.0}, {}))
    found = store.read("a/only/0", "trained", "two")
    assert found is not None
    assert found.facts == {"value": 1.0}


def test_damaged_artifact_is_reported_and_ignored(store: ArtifactStore, caplog: pytest.LogCaptureFixture) -> None:
    store.write("a/only/0", "trained", "one", ARTIFACT)
    path = store.folder("a/only/0") / "trained" / "arrays.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING, "fullbake"):
        assert store.read("a/only/0", "trained", "one") is None
    assert "trial a/only/0 is damaged on disk and will be run again" in caplog.text


def test_artifact_can_be_removed_twice(store: ArtifactStore) -> None:
    store.write("a/only/0", "weights", "one", ARTIFACT)
    store.remove("a/only/0", "weights")
    store.remove("a/only/0", "weights")
    assert store.read("a/only/0", "weights", "one") is None


# A runner with simulated trainings

RATES = (1e-2, 1e-3)
LOGITS = np.zeros((2, 2), np.float32)

Values = Mapping[tuple[str, float | None, int], float | None]


@dataclass(frozen=True)
class Parts:
    """As much of the rows as a runner uses."""

    test: str | None = "test rows"

    def by_name(self) -> dict[str, Any]:
        return {"train": SimpleNamespace(fingerprint=lambda: "rows")}


@dataclass(frozen=True)
class Job:
    """A job that trains nothing."""

    recipe: Recipe
    parts: Parts
    run: Any = None
    adapted: Any = None

    def facts(self) -> dict[str, Any]:
        return self.recipe.model_dump(mode="json")


class Simulation:
    """A comparison with simulated trainings.

    values: validation score of (way, rate, seed); None for a failed trial; 0.5 if not given. A fine-tuning takes
    `seconds` on the clock, a head 1 second. trained, scored: the trials in order. checkpointed: whether each training
    writes checkpoints.
    """

    def __init__(self, folder: Path, values: Values, seconds: float) -> None:
        self.folder, self.values, self.seconds, self.now = folder, values, seconds, 0.0
        self.trained: list[tuple[str, float | None, int]] = []
        self.scored: list[str] = []
        self.checkpointed: list[bool] = []

    def _train(self, job: Job, rate: float | None) -> tuple[TrialResult, dict[str, np.ndarray]]:
        assert job.parts.test is None
        spent = self.seconds if job.recipe.way == "finetune" else 1.0
        self.now += spent
        key = job.recipe.way, rate, job.recipe.training.seed
        self.trained.append(key)
        self.checkpointed.append(job.run is not None)
        value = self.values.get(key, 0.5)
        if value is None:
            return failed_trial("no number", key[2], spent), {}
        return TrialResult(value, None, LOGITS, key[2], seconds=spent), {"head": np.full(1, value, np.float32)}

    def _score(self, job: Job, part: str, weights: Mapping[str, np.ndarray]) -> TrialPredictions:
        assert part == "test rows"
        self.scored.append(f"{job.recipe.way} seed {job.recipe.training.seed}: {weights['head'][0]:g}")
        return TrialPredictions(LOGITS, 1.0)

    def run(
        self,
        names: tuple[str, ...] = ("frozen-mlp",),
        seeds: int = 2,
        deadline: float | None = None,
        checkpoint_seconds: float = LONG_TRIAL_SECONDS,
    ) -> Runner:
        candidates = {one.name: one for one in read_candidates(names, base="base", rates=RATES, head_rates=RATES)}
        jobs = {name: [Job(one.recipe, Parts())] for name, one in candidates.items() if one.recipe is not None}
        settings = RunnerSettings(
            ArtifactStore(self.folder),
            candidates,
            jobs,  # type: ignore[arg-type]
            [Parts()],  # type: ignore[list-item]
            "accuracy",
            DecisionConfig(),
            "key",
            checkpoint_seconds,
        )
        functions = ComparisonFunctions(
            train=self._train,  # type: ignore[arg-type]
            score=self._score,  # type: ignore[arg-type]
            clock=lambda: self.now,
        )
        plan = [trial for one in candidates.values() for trial in one.plan(seeds).trials(len(RATES), seeds, None)]
        table = LiveTable("accuracy", {name: LiveRow(name, len(RATES) * seeds) for name in names}, functions.clock)
        forecast = Forecast(candidates, {"base": Speed(100.0, 1e6)}, DataSizes(100, 10, 10, 120, 1))
        runner = Runner(settings, plan, forecast, table, deadline, functions)
        runner.run()
        return runner

    def weights(self) -> list[str]:
        """Return the ids of the trials whose weights are on disk."""
        return sorted(path.parent.relative_to(self.folder).as_posix() for path in self.folder.glob("**/weights"))


@pytest.fixture
def simulate(tmp_path: Path) -> Callable[..., Simulation]:
    """Return a function that makes a `Simulation`."""

    def make(values: Values = MappingProxyType({}), seconds: float = 10.0) -> Simulation:
        return Simulation(tmp_path, values, seconds)

    return make


# The choice of a rate


@given(
    st.dictionaries(
        st.sampled_from((5e-5, 4e-5, 3e-5, 2e-5)),
        st.lists(st.none() | st.floats(0, 1), min_size=3, max_size=3),
        min_size=1,
    )
)
def test_rate_with_fewest_failures_then_best_mean_is_chosen(values: dict[float | None, list[float | None]]) -> None:
    known = {rate: [value for value in found if value is not None] for rate, found in values.items()}
    if not any(known.values()):
        with pytest.raises(ValueError, match="no trial succeeded"):
            choose_rate(values)
        return
    chosen = choose_rate(values)
    most = max(map(len, known.values()))
    assert len(known[chosen]) == most
    rivals = [np.mean(found) for found in known.values() if len(found) == most]
    assert np.mean(known[chosen]) == pytest.approx(max(rivals))


def test_of_equal_rates_the_earlier_is_chosen() -> None:
    assert choose_rate({3e-5: [0.5, 0.5], 5e-5: [0.5, 0.5]}) == 3e-5


def test_seed_counts_only_if_it_was_scored_in_every_fold() -> None:
    (candidate,) = read_candidates(["frozen-mlp"], base="base")
    result = CandidateResult(candidate, chosen_rates={0: 1e-2, 1: 1e-3})
    for trial, value in (
        (Trial("frozen-mlp", 1e-2, 0, 0), 0.1),
        (Trial("frozen-mlp", 1e-3, 0, 1), 0.7),
        (Trial("frozen-mlp", 1e-2, 1, 0), 0.9),
    ):
        result.trials[trial] = TrialResult(value, None, LOGITS, trial.seed)
        result.predictions[trial] = TrialPredictions(LOGITS, 1.0)
    assert result.scored_seeds() == [0]
    assert [trial.fold for trial in result.scored_trials()] == [0, 1]
    assert result.best_trial() == Trial("frozen-mlp", 1e-3, 0, 1), "the better seed lacks a fold"


# Running


def test_every_trial_is_trained_once_rate_by_rate_and_the_chosen_ones_are_scored(
    simulate: Callable[..., Simulation],
) -> None:
    simulation = simulate({("frozen", 1e-3, 0): 0.8, ("frozen", 1e-3, 1): 0.6})
    result = simulation.run().results["frozen-mlp"]
    assert simulation.trained == [("frozen", rate, seed) for rate in RATES for seed in (0, 1)]
    assert result.chosen_rates == {None: 1e-3}
    assert simulation.scored == ["frozen seed 0: 0.8", "frozen seed 1: 0.6"]
    expected = ["frozen-mlp/0.001/0", "frozen-mlp/0.001/1"]
    assert simulation.weights() == expected, "weights of the rate that lost are removed"


def test_second_run_reads_the_results_of_the_first(simulate: Callable[..., Simulation]) -> None:
    simulate().run()
    again = simulate()
    result = again.run().results["frozen-mlp"]
    assert not again.trained
    assert not again.scored
    assert len(result.predictions) == 2


def test_with_more_seeds_only_the_new_ones_are_trained(simulate: Callable[..., Simulation]) -> None:
    simulate().run(seeds=1)
    simulation = simulate()
    simulation.run(seeds=2)
    assert {seed for _, _, seed in simulation.trained} == {1}


def test_removed_weights_are_trained_again_when_needed(simulate: Callable[..., Simulation]) -> None:
    simulation = simulate()
    runner = simulation.run()
    trial = runner.results["frozen-mlp"].best_trial()
    runner.settings.store.remove(trial.id, "weights")
    assert runner.weights(trial)["head"][0] == 0.5
    assert simulation.trained[-1] == ("frozen", trial.rate, trial.seed)
    assert trial.id in simulation.weights()


def test_recipe_whose_trials_all_fail_is_reported_as_failed(simulate: Callable[..., Simulation]) -> None:
    simulation = simulate({("frozen", rate, seed): None for rate in RATES for seed in (0, 1)})
    runner = simulation.run(("frozen-mlp", "finetune"))
    assert (runner.results["frozen-mlp"].status, runner.results["frozen-mlp"].reason) == ("failed", "no number")
    assert runner.results["finetune"].status == "done"
    assert runner.table.rows["frozen-mlp"].note == "failed: no number"


def test_rate_with_a_failed_seed_loses_to_one_without(simulate: Callable[..., Simulation]) -> None:
    simulation = simulate({("frozen", 1e-2, 0): None, ("frozen", 1e-2, 1): 0.9})
    result = simulation.run().results["frozen-mlp"]
    assert result.chosen_rates == {None: 1e-3}
    assert result.scored_seeds() == [0, 1]


# Time


def test_without_a_deadline_nothing_is_left_out(simulate: Callable[..., Simulation]) -> None:
    runner = simulate(seconds=1e6).run(("finetune", "frozen-mlp"), seeds=3)
    assert not runner.left_out
    assert {len(result.scored_seeds()) for result in runner.results.values()} == {3}


def test_seeds_are_dropped_before_recipes_and_rates_stay(simulate: Callable[..., Simulation]) -> None:
    """Six fine-tunings of 4 s are forecast; each takes 60 s."""
    simulation = simulate(seconds=60.0)
    runner = simulation.run(("finetune", "frozen-mlp"), seeds=3, deadline=320 + CLOSING_SECONDS)
    assert runner.left_out == ["seeds: only 2 of finetune, frozen-mlp, to stay within the budget"]
    assert [len(result.scored_seeds()) for result in runner.results.values()] == [2, 2]
    assert {rate for _, rate, _ in simulation.trained} == set(RATES)


def test_most_expensive_recipe_is_dropped_when_fewer_seeds_are_not_enough(
    simulate: Callable[..., Simulation],
) -> None:
    runner = simulate(seconds=100.0).run(("finetune", "frozen-mlp"), seeds=2, deadline=150 + CLOSING_SECONDS)
    assert runner.left_out == ["finetune: no time was left in the budget"]
    assert list(runner.results) == ["frozen-mlp"]
    assert runner.table.rows["finetune"].note == "left out: no time"


def test_last_candidate_is_trained_even_over_budget(simulate: Callable[..., Simulation]) -> None:
    runner = simulate(seconds=1000.0).run(("finetune",), seeds=2, deadline=1.0)
    assert not runner.left_out
    assert runner.results["finetune"].status == "done"


def test_trial_that_is_expected_to_be_long_writes_checkpoints(simulate: Callable[..., Simulation]) -> None:
    simulation = simulate()
    simulation.run(seeds=1, checkpoint_seconds=1e-9)
    simulation.run(seeds=2, checkpoint_seconds=1e9)
    assert simulation.checkpointed == [True, True, False, False]
