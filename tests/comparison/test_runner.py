"""fullbake.comparison.runner: Whole comparisons are played in test_comparison.py; here trainings are stand-ins that give what a test wants them to,
and a clock that goes on by what they take."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fullbake.comparison import runner
from fullbake.comparison.design import Trial, read_candidates
from fullbake.comparison.forecast import DataSizes, Forecast, Speed
from fullbake.comparison.live_table import LiveRow, LiveTable
from fullbake.comparison.runner import (
    CLOSING_SECONDS,
    Artifact,
    ArtifactStore,
    CandidateResult,
    Runner,
    RunnerSettings,
    choose_rate,
)
from fullbake.comparison.trial import TestLogits, TrialResult, failed_trial
from fullbake.config.recipe import Recipe
from fullbake.config.sections import DecisionConfig


@pytest.fixture
def cells(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "cells")


KEPT = Artifact({"value": 0.5, "history": [{"epoch": 1}]}, {"logits": np.arange(6, dtype=np.float32).reshape(3, 2)})


def test_what_is_kept_comes_back(cells: ArtifactStore) -> None:
    cells.keep("finetune/5e-05/0", "trained", "one", KEPT)
    found = cells.read("finetune/5e-05/0", "trained", "one")
    assert found is not None
    assert found.facts == KEPT.facts
    np.testing.assert_array_equal(found.arrays["logits"], KEPT.arrays["logits"])
    assert cells.read("finetune/5e-05/0", "scored", "one") is None
    assert cells.read("finetune/5e-05/1", "trained", "one") is None


def test_another_identity_counts_as_not_there_and_is_replaced(cells: ArtifactStore) -> None:
    cells.keep("a/only/0", "trained", "one", KEPT)
    assert cells.read("a/only/0", "trained", "two") is None
    cells.keep("a/only/0", "trained", "two", Artifact({"value": 1.0}, {}))
    found = cells.read("a/only/0", "trained", "two")
    assert found is not None
    assert found.facts == {"value": 1.0}


def test_a_damaged_cell_is_told_and_not_used(cells: ArtifactStore, caplog: pytest.LogCaptureFixture) -> None:
    cells.keep("a/only/0", "trained", "one", KEPT)
    path = cells.folder("a/only/0") / "trained" / "arrays.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING, "fullbake"):
        assert cells.read("a/only/0", "trained", "one") is None
    assert "made again" in caplog.text


def test_dropping(cells: ArtifactStore) -> None:
    cells.keep("a/only/0", "weights", "one", KEPT)
    cells.drop("a/only/0", "weights")
    cells.drop("a/only/0", "weights")
    assert cells.read("a/only/0", "weights", "one") is None


RATES = (1e-2, 1e-3)
LOGITS = np.zeros((2, 2), np.float32)

Values = Mapping[tuple[str, float | None, int], float | None]


@dataclass(frozen=True)
class Parts:
    """Rows, as far as rounds ask for them."""

    test: str | None = "test rows"

    def named(self) -> dict[str, Any]:
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


class Play:
    """Rounds over stand-ins. values: validation score of (recipe, rate, seed), None for a cell that fails, 0.5 where
    nothing is said. A fine-tuning takes `seconds` on the clock, a head one. trained, scored: which, in order."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, values: Values, seconds: float) -> None:
        self.folder, self.values, self.seconds, self.now = folder, values, seconds, 0.0
        self.trained: list[tuple[str, float | None, int]] = []
        self.scored: list[str] = []
        monkeypatch.setattr(runner.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(runner, "train_trial", self._train)
        monkeypatch.setattr(runner, "score_trial", self._score)

    def _train(self, job: Job, rate: float | None) -> tuple[TrialResult, dict[str, np.ndarray]]:
        assert job.parts.test is None
        taken = self.seconds if job.recipe.way == "finetune" else 1.0
        self.now += taken
        key = job.recipe.way, rate, job.recipe.training.seed
        self.trained.append(key)
        value = self.values.get(key, 0.5)
        if value is None:
            return failed_trial("no number", key[2], taken), {}
        return TrialResult(value, None, LOGITS, key[2], seconds=taken), {"head": np.full(1, value, np.float32)}

    def _score(self, job: Job, part: str, weights: Mapping[str, np.ndarray]) -> TestLogits:
        assert part == "test rows"
        self.scored.append(f"{job.recipe.way} seed {job.recipe.training.seed}: {weights['head'][0]:g}")
        return TestLogits(LOGITS, 1.0)

    def run(self, names: tuple[str, ...] = ("frozen-mlp",), seeds: int = 2, deadline: float | None = None) -> Runner:
        entrants = {one.name: one for one in read_candidates(names, base="base", rates=RATES, head_rates=RATES)}
        jobs = {name: [Job(one.recipe, Parts())] for name, one in entrants.items() if one.recipe is not None}
        setting = RunnerSettings(
            ArtifactStore(self.folder),
            entrants,
            jobs,  # type: ignore[arg-type]
            [Parts()],  # type: ignore[list-item]
            "accuracy",
            DecisionConfig(),
            "rules",
        )
        plan = [cell for one in entrants.values() for cell in one.line(seeds).cells(len(RATES), seeds, None)]
        board = LiveTable("accuracy", {name: LiveRow(name, len(RATES) * seeds) for name in names})
        forecast = Forecast(entrants, {"base": Speed(100.0, 1e6)}, DataSizes(100, 10, 10, 120, 1))
        played = Runner(setting, plan, forecast, board, deadline)
        played.run()
        return played

    def weights(self) -> list[str]:
        """The cells that have weights on disk."""
        return sorted(path.parent.relative_to(self.folder).as_posix() for path in self.folder.glob("**/weights"))


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Play]:
    """Makes a `Play`."""

    def make(values: Values = MappingProxyType({}), seconds: float = 10.0) -> Play:
        return Play(tmp_path, monkeypatch, values, seconds)

    return make


# The choice


@given(
    st.dictionaries(
        st.sampled_from((5e-5, 4e-5, 3e-5, 2e-5)),
        st.lists(st.none() | st.floats(0, 1), min_size=3, max_size=3),
        min_size=1,
    )
)
def test_the_rate_with_the_fewest_failures_then_the_best_mean(values: dict[float | None, list[float | None]]) -> None:
    known = {rate: [value for value in found if value is not None] for rate, found in values.items()}
    if not any(known.values()):
        with pytest.raises(ValueError, match="no cell succeeded"):
            choose_rate(values)
        return
    chosen = choose_rate(values)
    fewest = max(map(len, known.values()))
    assert len(known[chosen]) == fewest
    rivals = [np.mean(found) for found in known.values() if len(found) == fewest]
    assert np.mean(known[chosen]) == pytest.approx(max(rivals))


def test_of_equal_rates_the_earlier_is_chosen() -> None:
    assert choose_rate({3e-5: [0.5, 0.5], 5e-5: [0.5, 0.5]}) == 3e-5


def test_a_seed_counts_where_every_fold_scored_it() -> None:
    (entrant,) = read_candidates(["frozen-mlp"], base="base")
    result = CandidateResult(entrant, chosen={0: 1e-2, 1: 1e-3})
    for cell, value in ((Trial("frozen-mlp", 1e-2, 0, 0), 0.1), (Trial("frozen-mlp", 1e-3, 0, 1), 0.7)):
        result.outcomes[cell], result.scores[cell] = TrialResult(value, None, LOGITS, 0), TestLogits(LOGITS, 1.0)
    alone = Trial("frozen-mlp", 1e-2, 1, 0)
    result.outcomes[alone], result.scores[alone] = TrialResult(0.9, None, LOGITS, 1), TestLogits(LOGITS, 1.0)
    assert result.seeds() == [0]
    assert [cell.fold for cell in result.picked()] == [0, 1]
    assert result.favorite() == Trial("frozen-mlp", 1e-3, 0, 1), "the better seed is not whole"


# Playing


def test_every_cell_is_trained_once_rate_by_rate_and_the_choice_scored(play: Callable[..., Play]) -> None:
    game = play({("frozen", 1e-3, 0): 0.8, ("frozen", 1e-3, 1): 0.6})
    result = game.run().results["frozen-mlp"]
    assert game.trained == [("frozen", rate, seed) for rate in RATES for seed in (0, 1)]
    assert result.chosen == {None: 1e-3}
    assert game.scored == ["frozen seed 0: 0.8", "frozen seed 1: 0.6"]
    assert game.weights() == ["frozen-mlp/0.001/0", "frozen-mlp/0.001/1"], "those of the rate that lost are gone"


def test_a_second_run_reads_what_the_first_one_made(play: Callable[..., Play]) -> None:
    play().run()
    again = play()
    result = again.run().results["frozen-mlp"]
    assert not again.trained
    assert not again.scored
    assert len(result.scores) == 2


def test_more_seeds_train_what_is_new_alone(play: Callable[..., Play]) -> None:
    play().run(seeds=1)
    game = play()
    game.run(seeds=2)
    assert {seed for _, _, seed in game.trained} == {1}


def test_weights_that_are_gone_are_trained_again_for_the_score(play: Callable[..., Play]) -> None:
    game = play()
    played = game.run()
    cell = played.results["frozen-mlp"].favorite()
    played.setting.cells.drop(cell.id, "weights")
    assert played.weights(cell)["head"][0] == 0.5
    assert game.trained[-1] == ("frozen", cell.rate, cell.seed)
    assert cell.id in game.weights()


def test_a_recipe_of_which_nothing_came_through_is_a_result(play: Callable[..., Play]) -> None:
    game = play({("frozen", rate, seed): None for rate in RATES for seed in (0, 1)})
    played = game.run(("frozen-mlp", "finetune"))
    assert (played.results["frozen-mlp"].status, played.results["frozen-mlp"].reason) == ("failed", "no number")
    assert played.results["finetune"].status == "done"
    assert played.board.rows["frozen-mlp"].note == "failed: no number"


def test_a_failed_seed_leaves_the_others(play: Callable[..., Play]) -> None:
    game = play({("frozen", 1e-2, 0): None, ("frozen", 1e-2, 1): 0.9})
    result = game.run().results["frozen-mlp"]
    assert result.chosen == {None: 1e-3}, "a rate that failed once comes after one that never did"
    assert result.seeds() == [0, 1]


# Time


def test_without_a_deadline_nothing_is_left_out(play: Callable[..., Play]) -> None:
    played = play(seconds=1e6).run(("finetune", "frozen-mlp"), seeds=3)
    assert not played.gone
    assert {len(result.seeds()) for result in played.results.values()} == {3}


def test_seeds_go_before_recipes_and_rates_stay(play: Callable[..., Play]) -> None:
    """Six trainings of 4 s were forecast for fine-tuning; they take 60 s."""
    game = play(seconds=60.0)
    played = game.run(("finetune", "frozen-mlp"), seeds=3, deadline=320 + CLOSING_SECONDS)
    assert played.gone == ["seeds: 2, not more, of finetune, frozen-mlp, to keep to the time"]
    assert [len(result.seeds()) for result in played.results.values()] == [2, 2]
    assert {rate for _, rate, _ in game.trained} == set(RATES)


def test_the_dearest_recipe_goes_when_seeds_are_not_enough(play: Callable[..., Play]) -> None:
    game = play(seconds=100.0)
    played = game.run(("finetune", "frozen-mlp"), seeds=2, deadline=150 + CLOSING_SECONDS)
    assert played.gone == ["finetune: the time was needed by what came before"]
    assert list(played.results) == ["frozen-mlp"]
    assert played.board.rows["finetune"].note == "left out: no time"


def test_the_last_classifier_is_played_whatever_it_takes(play: Callable[..., Play]) -> None:
    played = play(seconds=1000.0).run(("finetune",), seeds=2, deadline=1.0)
    assert not played.gone
    assert played.results["finetune"].status == "done"


def test_a_cell_that_is_expected_to_be_long_has_checkpoints(
    play: Callable[..., Play], monkeypatch: pytest.MonkeyPatch
) -> None:
    game, runs = play(), list[bool]()

    def watch(job: Job, rate: float | None) -> tuple[TrialResult, dict[str, np.ndarray]]:
        runs.append(job.run is not None)
        return game._train(replace(job, run=None), rate)

    monkeypatch.setattr(runner, "train_trial", watch)
    monkeypatch.setattr(runner, "LONG_TRIAL_SECONDS", 1e-9)
    game.run(seeds=1)
    monkeypatch.setattr(runner, "LONG_TRIAL_SECONDS", 1e9)
    game.run(seeds=2)
    assert runs == [True, True, False, False]
