"""What a small comparison cannot show: where costs come from, when forgetting is measured, and what the page omits."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from helpers.rows import dataset

from fullbake.classifier.speed import EngineSpeed
from fullbake.comparison.artifacts import ArtifactStore
from fullbake.comparison.design import read_candidates
from fullbake.comparison.leaderboard import (
    PROBE_OPENING_SECONDS,
    PROBE_SECONDS,
    FinishedComparison,
    ForgettingMeasurement,
    command_line,
    describe_collapses,
    describe_cost,
    describe_design,
    describe_rates,
    describe_restarts,
    measure_best,
    reason_left_out,
    remove_best,
    scope_of,
)
from fullbake.comparison.runner import CandidateResult
from fullbake.comparison.schedule import Size, Trial
from fullbake.comparison.trial import TrialPredictions, TrialResult
from fullbake.comparison.verdict import NotRun
from fullbake.core.errors import BaseModelError
from fullbake.data.splits import Part, Parts

# Forgetting

NAMES = ("finetune", "further-frozen-mlp", "frozen-mlp", "majority")


class Probe:
    """Scores an encoder by the text that stands for it."""

    head = SimpleNamespace(model=SimpleNamespace(base_model="untouched"))

    def measure(self, encoder: str) -> dict[str, str]:
        return {"mlm_loss": encoder}


class FinishedRunner:
    """As much of a runner as the measurement of forgetting uses. opened: the bases whose probes were opened."""

    def __init__(self, folder: Path) -> None:
        self.settings = SimpleNamespace(store=ArtifactStore(folder))
        self.functions = SimpleNamespace(open_probe=self._open_probe, restore=self._restore)
        self.left_out: list[str] = []
        self.opened: list[str] = []

    def _open_probe(self, base: str, cache_dir: None) -> Probe:
        self.opened.append(base)
        return Probe()

    def _restore(self, job: Any, weights: str) -> str:
        return f"seed {job.seed} with weights of {weights}"

    def identity(self, trial: Trial) -> str:
        return f"{trial.id} of these rows"

    def trained_job(self, _: Trial, result: TrialResult) -> Any:
        return SimpleNamespace(recipe=SimpleNamespace(base="demo"), cache_dir=None, seed=result.seed)

    def weights(self, trial: Trial) -> str:
        return str(trial.seed)


def measurement(runner: FinishedRunner, *seconds_left: float) -> ForgettingMeasurement:
    """A measurement with that much time left before each recipe; with all time if none is given."""
    left = iter(seconds_left)
    return ForgettingMeasurement(runner, lambda: next(left) if seconds_left else float("inf"))  # type: ignore[arg-type]


def two_seeds_each() -> dict[str, CandidateResult]:
    """Results of each recipe with two seeds; the second is better on validation."""
    results = {}
    for candidate in read_candidates(NAMES, base="demo"):
        result = CandidateResult(candidate)
        for seed, value in ((0, -0.5), (1, 0.0)):
            trial = Trial(candidate.name, seed)
            result.trials[trial] = TrialResult(value, None, LOGITS, seed)
            result.predictions[trial] = TrialPredictions(LOGITS, 1.0)
        results[candidate.name] = result
    return results


def test_every_changed_encoder_is_measured_and_its_base_once(tmp_path: Path) -> None:
    runner = FinishedRunner(tmp_path)
    measured = measurement(runner)
    found = {name: measured.measure(result) for name, result in two_seeds_each().items()}
    scores = {"before": {"mlm_loss": "untouched"}, "after": {"mlm_loss": "seed 1 with weights of 1"}}
    assert found == {"finetune": scores, "further-frozen-mlp": scores, "frozen-mlp": None, "majority": None}
    assert runner.opened == ["demo"]


def test_measured_forgetting_is_stored(tmp_path: Path) -> None:
    first, second = FinishedRunner(tmp_path), FinishedRunner(tmp_path)
    result = two_seeds_each()["finetune"]
    assert measurement(first).measure(result) == measurement(second, 0.0).measure(result)
    assert (first.opened, second.opened) == (["demo"], [])


def test_forgetting_is_measured_if_time_is_left_and_an_open_probe_needs_less(tmp_path: Path) -> None:
    runner, results = FinishedRunner(tmp_path), two_seeds_each()
    measured = measurement(runner, PROBE_OPENING_SECONDS - 1, PROBE_OPENING_SECONDS, PROBE_SECONDS - 1, PROBE_SECONDS)
    assert measured.measure(results["finetune"]) is None
    assert runner.left_out == ["forgetting by finetune: no time was left to measure it"]
    assert measured.measure(results["finetune"]) is not None
    assert measured.measure(results["further-frozen-mlp"]) is None
    assert measured.measure(results["further-frozen-mlp"]) is not None
    assert len(runner.left_out) == 2


def test_base_that_cannot_be_probed_is_warned_about(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise BaseModelError("its tokenizer has no mask token")

    runner = FinishedRunner(tmp_path)
    runner.functions.open_probe = refuse
    assert measurement(runner).measure(two_seeds_each()["finetune"]) is None
    assert "what finetune forgot could not be measured: its tokenizer has no mask token" in caplog.text


# The entry of a recipe

LOGITS = np.zeros((2, 2), np.float32)


def result_of(name: str, *, stage_seconds: float = 0.0) -> CandidateResult:
    """Two seeds of a recipe, 10 s and 30 s of training, and a smaller trial of 200 s; 50 rows per second."""
    (candidate,) = read_candidates([name], base="demo")
    result = CandidateResult(candidate)
    searched = [{"rate": 1e-3, "validation": 0.4}, {"rate": 1e-2, "validation": 0.5}]
    for size, seed, seconds in ((Size(0.5), 0, 200.0), (Size(), 0, 10.0), (Size(), 1, 30.0)):
        trial = Trial(name, seed, None, size)
        result.trials[trial] = TrialResult(
            0.5,
            None,
            LOGITS,
            seed,
            seconds=seconds,
            memory=1_000 * (seed + 1),
            parameters=7,
            size=9,
            stage_seconds=stage_seconds,
            rate=1e-2,
            rates=searched if seed == 0 else [],
        )
        result.predictions[trial] = TrialPredictions(LOGITS, 50.0)
    return result


def cost(result: CandidateResult) -> dict[str, Any]:
    """The cost with 80 training and 20 validation rows."""
    parts: Any = SimpleNamespace(train=range(80), selection_part=range(20))
    return describe_cost(parts, result)


def change(result: CandidateResult, trial: Trial, **fields: Any) -> None:
    result.trials[trial] = replace(result.trials[trial], **fields)


def test_cost_is_the_mean_training_of_one_whole_trial() -> None:
    found = cost(result_of("finetune"))
    assert found["train_seconds"] == 20.0
    assert found["search_seconds"] == 240.0
    assert (found["peak_memory_bytes"], found["trained_parameters"], found["bundle_bytes"]) == (2_000, 7, 9)
    assert found["rows_per_second"] == 50.0


def test_cost_includes_features_even_if_they_came_from_the_cache() -> None:
    found = cost(result_of("frozen-mlp"))
    assert found["train_seconds"] == 20.0 + 100 / 50
    assert found["search_seconds"] == 240.0 + 100 / 50


def test_cost_includes_further_pretraining_once() -> None:
    found = cost(result_of("further-frozen-mlp", stage_seconds=60.0))
    assert found["train_seconds"] == 60.0 + 20.0 + 2.0
    assert found["search_seconds"] == 60.0 + 240.0 + 2.0


def test_unknown_memory_is_null() -> None:
    result = result_of("finetune")
    for trial in list(result.trials):
        change(result, trial, memory=None)
    assert cost(result)["peak_memory_bytes"] is None


def test_collapsed_and_restarted_trials_are_listed() -> None:
    result = result_of("finetune")
    bad, again = list(result.trials)[:2]
    change(result, bad, reason="collapsed: one class")
    change(result, again, restarts=["one class; started again with seed 1001"])
    assert describe_collapses(result) == [{"cell": bad.id, "reason": "collapsed: one class"}]
    assert describe_restarts(result) == [{"cell": again.id, "reason": "one class; started again with seed 1001"}]


def test_rates_are_listed_from_high_to_low_and_failed_seeds_do_not_count_in_the_mean() -> None:
    """The first seed tried two rates, the second took the better one and failed."""
    result = result_of("finetune")
    change(result, Trial("finetune", 1), value=None)
    assert describe_rates(result) == [
        {"rate": 1e-2, "validation": [0.5, None], "mean": 0.5},
        {"rate": 1e-3, "validation": [0.4], "mean": 0.4},
    ]


# Facts


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["/opt/bin/fullbake", "compare", "/home/me/secret/rows.csv"], "fullbake compare rows.csv"),
        (["fullbake", "compare", "rows.csv", "--text", "the text"], 'fullbake compare rows.csv --text "the text"'),
        (["/usr/bin/pytest", "tests"], "fullbake.compare(...)"),
    ],
)
def test_command_is_shown_without_folders(arguments: list[str], expected: str) -> None:
    assert command_line(arguments) == expected


def finished_with(runner: Any, folder: Path, **fields: Any) -> FinishedComparison:
    """A comparison with a budget of a minute."""
    return FinishedComparison(folder, runner, started=0.0, budget_seconds=60.0, max_rows=None, folds=None, **fields)


@pytest.mark.parametrize(
    ("elapsed", "fits", "measured"), [(10.0, True, True), (10.0, False, False), (59.0, True, False)]
)
def test_speed_of_the_recommended_classifier_is_measured_if_the_time_allows(
    tmp_path: Path, elapsed: float, fits: bool, measured: bool
) -> None:
    """`fits`: whether a busy machine starts an engine within the limit."""
    data = dataset(tmp_path)
    asked: list[Any] = []

    def measure(bundle: Path, texts: list[list[str]], **given: Any) -> list[EngineSpeed]:
        asked.append((bundle, texts, given["seconds"], given["limit"]))
        return [EngineSpeed("torch", "fp32", 2.5, 0.4, 9.5, 20.0, 75.0, 80.0, None, 1)] if fits else []

    functions = SimpleNamespace(measure_engines=measure, clock=lambda: elapsed)
    parts = Parts(Part(data, np.arange(4)), None, Part(data, np.array([5, 7])))
    runner: Any = SimpleNamespace(functions=functions, settings=SimpleNamespace(folds=[parts]), left_out=[])
    assert measure_best(finished_with(runner, tmp_path)) is None, "nobody asked for it"
    found = measure_best(finished_with(runner, tmp_path, bench=True))
    if measured:
        assert found is not None
        assert found[0]["p50_ms"] == 9.5
        assert asked == [(tmp_path / "best", [data.texts.take([5, 7]).to_pylist()], 1.0, pytest.approx(51.8))]
    else:
        assert (found, len(asked)) == (None, elapsed < 59)
        assert runner.left_out == ["speed of the recommended classifier: no time was left to measure it"]


def test_what_did_not_run_and_what_was_not_measured_is_listed_once(tmp_path: Path) -> None:
    result = result_of("finetune")
    runner: Any = SimpleNamespace(results={"finetune": result}, left_out=["forgetting: no time", "forgetting: no time"])
    finished = finished_with(runner, tmp_path, not_run={"tfidf": NotRun("the budget of 1 min is too short", 90.0)})
    found = describe_design(finished)
    assert found["left_out"] == ["tfidf: the budget of 1 min is too short", "forgetting: no time"]
    assert found["seeds"] == [0, 1]
    assert found["rates"] == {"finetune": [1e-2, 1e-3]}
    assert reason_left_out(finished, "tfidf") == "the budget of 1 min is too short"
    assert reason_left_out(finished, "majority") == "left out"


def test_verdict_is_told_by_title_what_failed_did_not_run_or_was_made_smaller(tmp_path: Path) -> None:
    finetune, frozen = result_of("finetune"), result_of("frozen-mlp")
    frozen.status, frozen.reason = "failed", "no memory"
    tfidf = SimpleNamespace(title="TF-IDF")
    runner: Any = SimpleNamespace(
        results={"finetune": finetune, "frozen-mlp": frozen},
        settings=SimpleNamespace(
            candidates={"finetune": finetune.candidate, "frozen-mlp": frozen.candidate, "tfidf": tfidf}
        ),
    )
    finished = finished_with(
        runner,
        tmp_path,
        not_run={"tfidf": NotRun("too short", 90.0), "frozen-mlp": NotRun("too short", 90.0)},
        reduced={"finetune": ["Fewer epochs."], "frozen-mlp": ["Fewer rows."]},
    )
    scope = scope_of(finished)
    failed = NotRun("it failed (no memory)")
    assert scope.not_run == {"TF-IDF": NotRun("too short", 90.0), frozen.candidate.title: failed}
    assert scope.reduced == {finetune.candidate.title: ["Fewer epochs."]}


def test_bundle_of_an_earlier_verdict_is_removed(tmp_path: Path) -> None:
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "model.safetensors").write_bytes(b"")
    remove_best(tmp_path)
    remove_best(tmp_path)
    assert list(tmp_path.iterdir()) == []
