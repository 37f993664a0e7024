"""A validation part or folds choose rate and epoch; tried on a strategy whose training is plain arithmetic."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.bases import FAMILIES
from torch import nn

from fullbake.config.problems import MULTI_LABEL, SINGLE_LABEL, problem_named
from fullbake.config.sections import DecisionConfig, HeadConfig, TokensConfig
from fullbake.core.errors import DivergenceFault
from fullbake.evaluation.calibration import fit_temperature, score_decision, threshold_aim
from fullbake.evaluation.decisions import Decision
from fullbake.evaluation.metrics import validation_scores
from fullbake.models import network
from fullbake.models.heads import divide_logits
from fullbake.models.inference import logits_over
from fullbake.models.prediction import encode
from fullbake.models.tokenizer import load_tokenizer
from fullbake.training.rates import RateProbe
from fullbake.training.selection import (
    SelectedRun,
    SelectionMetrics,
    Strategy,
    TrainingRun,
    calibrate_network,
    train_best,
)


@dataclass(frozen=True)
class Numbers:
    """Rows that are numbers, of class 1 above 0."""

    values: np.ndarray

    @property
    def labels(self) -> np.ndarray:
        return (self.values > 0).astype(np.int64)

    def take(self, texts: np.ndarray) -> "Numbers":
        return Numbers(self.values[texts])


class Slope(nn.Module):
    """Logits (0, slope * number). Training sets the slope to rate * epoch, and to its negative at epoch 3."""

    slope = 0.0


class RecordedStrategy:
    """A strategy that records what it is asked to do."""

    def __init__(self, validation: Numbers | None, train: Numbers) -> None:
        self.runs: list[tuple[TrainingRun, int]] = []
        self.starts = 0
        self.strategy = Strategy(train, validation, self.start, self.fit, self.logits, lambda network: network)  # type: ignore[arg-type]

    def start(self) -> Any:
        self.starts += 1
        return Slope()

    def fit(self, network: Any, rows: Numbers, validate: Any, run: TrainingRun) -> list[dict[str, Any]]:
        self.runs.append((run, len(rows.values)))
        history, slopes = [], [run.rate * epoch * (-1 if epoch == 3 else 1) for epoch in (1, 2, 3)]
        for epoch, slope in enumerate(slopes[: run.last_trial]):
            network.slope = slope
            history.append({"epoch": epoch + 1, "train_loss": 0.0} | validate(network, epoch))
        best = max(range(len(history)), key=lambda place: history[place][run.metric])
        network.slope = slopes[best]
        return [entry | {"best": place == best} for place, entry in enumerate(history)]

    def logits(self, network: Any, rows: Numbers) -> np.ndarray:
        return np.stack([np.zeros(len(rows.values)), network.slope * rows.values], axis=1).astype(np.float32)


def by(metric: str) -> SelectionMetrics:
    """One metric that chooses epoch and rate."""
    return SelectionMetrics(metric, metric)


TRAIN = Numbers(np.linspace(-3, 3, 20))
HELD = Numbers(np.array([-2.0, -1.0, 1.0, 2.0]))
FOLDS = [np.arange(start, 20, 4) for start in range(4)]


def test_a_validation_part_chooses_rate_and_epoch() -> None:
    recorded = RecordedStrategy(HELD, TRAIN)
    best = train_best(recorded.strategy, (-1.0, 2.0, 1.0), by("neg_log_loss"))
    assert best.network.slope == 4.0  # rate 2, epoch 2
    assert best.score == pytest.approx(validation_scores(best.logits, HELD.labels, "neg_log_loss")["neg_log_loss"])
    assert [entry["rate"] for entry in best.history] == [-1.0] * 3 + [2.0] * 3 + [1.0] * 3
    assert [(entry["rate"], entry["epoch"]) for entry in best.history if entry["best"]] == [(2.0, 2)]
    assert recorded.starts == 3


def test_one_rate_needs_no_comparison() -> None:
    best = train_best(RecordedStrategy(HELD, TRAIN).strategy, (1.0,), by("accuracy"))
    assert all("rate" not in entry for entry in best.history)


def test_no_epoch_is_scored_twice() -> None:
    """The logits of the best epoch are kept, unless that epoch was before a stop."""
    recorded = RecordedStrategy(HELD, TRAIN)
    scored: list[float] = []

    def logits(network: Any, rows: Numbers) -> np.ndarray:
        scored.append(network.slope)
        return recorded.logits(network, rows)

    whole = train_best(replace(recorded.strategy, logits=logits), (1.0,), by("neg_log_loss"))
    assert scored == [1.0, 2.0, -3.0]

    def resume(network: Any, rows: Numbers, validate: Any, run: TrainingRun) -> list[dict[str, Any]]:
        earlier = recorded.fit(
            network,
            rows,
            lambda module, _: validation_scores(recorded.logits(module, HELD), HELD.labels, run.metric),
            run,
        )
        last = {"epoch": 3, "best": False} | validate(Slope(), 2)
        return [*earlier[:2], last]

    resumed = train_best(replace(recorded.strategy, fit=resume, logits=logits), (1.0,), by("neg_log_loss"))
    assert scored[3:] == [0.0, 2.0]
    assert np.array_equal(resumed.logits, whole.logits)


def test_of_equal_rates_the_earlier_is_chosen() -> None:
    best = train_best(RecordedStrategy(HELD, TRAIN).strategy, (1.0, 2.0), by("accuracy"))
    assert best.network.slope == 1.0


def test_folds_choose_and_then_all_rows_train() -> None:
    recorded = RecordedStrategy(None, TRAIN)
    best = train_best(recorded.strategy, (-1.0, 2.0), by("neg_log_loss"), FOLDS)
    in_folds = [(run, rows) for run, rows in recorded.runs if "fold" in run.name]
    assert [rows for _, rows in in_folds] == [15] * 8
    assert not any(run.early_stopping for run, _ in recorded.runs)
    last, rows = recorded.runs[-1]
    assert (last.rate, last.last_trial, rows) == (2.0, 2, 20)
    assert best.network.slope == 4.0
    expected = np.stack([np.zeros(20), 4.0 * TRAIN.values], axis=1)
    np.testing.assert_allclose(best.logits, expected, atol=1e-5)
    assert best.score == pytest.approx(
        validation_scores(expected, TRAIN.labels, "neg_log_loss")["neg_log_loss"], rel=1e-5
    )
    assert len({run.name for run, _ in recorded.runs}) == len(recorded.runs)
    assert all("held_logits" not in entry for entry in best.history)


def test_a_metric_undefined_within_folds_can_choose_over_all_rows() -> None:
    """ROC-AUC is undefined on a fold of one class, and defined on all rows."""
    alone = [np.flatnonzero(TRAIN.labels == 0), np.flatnonzero(TRAIN.labels == 1)]
    best = train_best(RecordedStrategy(None, TRAIN).strategy, (1.0,), by("roc_auc"), alone)
    assert best.score == 1.0


def test_log_loss_chooses_the_rate_where_the_metric_cannot_tell_them_apart() -> None:
    best = train_best(RecordedStrategy(HELD, TRAIN).strategy, (1.0, 2.0), SelectionMetrics("accuracy"))
    assert (best.rate, best.network.slope) == (2.0, 2.0)  # epoch 1 by accuracy, which epoch 2 does not improve
    assert best.score == 1.0
    logits = best.logits / fit_temperature(best.logits, HELD.labels)
    assert best.search_score == pytest.approx(validation_scores(logits, HELD.labels, "neg_log_loss")["neg_log_loss"])


def test_rates_are_compared_after_calibration() -> None:
    """A training that is right but too sure of one mistake would lose by log loss before the temperature."""
    held = Numbers(np.array([-3.0, -2.0, 1.0, 2.0, 3.0]))
    sure = RecordedStrategy(held, TRAIN)

    def logits(network: Any, rows: Numbers) -> np.ndarray:
        found = sure.logits(network, rows)
        if network.slope > 5 and len(rows.values) == 5:
            found[2, 1] *= -1  # one mistake, at a slope of 10
        return found if network.slope > 5 else found * np.float32([[1, 0.02]])

    best = train_best(replace(sure.strategy, logits=logits), (1.0, 10.0), SelectionMetrics("accuracy"))
    raw = validation_scores(best.logits, held.labels, "neg_log_loss")["neg_log_loss"]
    assert raw < -np.log(2)  # worse than knowing nothing
    assert best.rate == 10.0


def test_metric_chooses_epochs_and_search_metric_chooses_strengths() -> None:
    plain = RecordedStrategy(HELD, TRAIN).strategy
    strengths = replace(plain, by_strengths=True)
    metrics = SelectionMetrics("accuracy", "neg_log_loss")
    assert train_best(plain, (1.0,), metrics).network.slope == 1.0
    folded = train_best(replace(strengths, validation=None), (1.0,), metrics, FOLDS)
    assert folded.logits[-1, 1] == pytest.approx(2 * 3)  # strength 2 of the folds, by log loss


# The probe of learning rates

PROBE = RateProbe(rule=2.0, width=384, batch=1, steps=480)


def test_the_probe_takes_a_rate_that_is_clearly_better_than_the_rules() -> None:
    recorded = RecordedStrategy(HELD, Numbers(np.linspace(-3, 3, 200)))
    best = train_best(recorded.strategy, PROBE, by("neg_log_loss"))
    assert best.rate == 4.0
    short, whole = recorded.runs[:-1], recorded.runs[-1]
    assert [(run.rate, rows, run.epochs) for run, rows in short] == [(rate, 30, 1) for rate in PROBE.candidates]
    assert (whole[0].rate, whole[1], whole[0].epochs) == (4.0, 200, None)
    assert len({run.name for run, _ in recorded.runs}) == len(recorded.runs)


def test_the_second_round_of_a_probe_trains_the_rule_and_the_best_other_rate_for_longer() -> None:
    recorded = RecordedStrategy(HELD, Numbers(np.linspace(-3, 3, 2000)))
    train_best(recorded.strategy, replace(PROBE, steps=4800), by("neg_log_loss"))
    assert [rows for _, rows in recorded.runs] == [150] * 4 + [300] * 2 + [2000]
    assert [run.rate for run, _ in recorded.runs[4:6]] == [2.0, 4.0]


def test_the_rule_keeps_its_rate_where_no_other_is_better(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    recorded = RecordedStrategy(HELD, Numbers(np.linspace(-3, 3, 200)))

    def fit(network: Any, rows: Numbers, validate: Any, run: TrainingRun) -> list[dict[str, Any]]:
        return recorded.fit(network, rows, validate, replace(run, rate=min(run.rate, 2.0)))

    assert train_best(replace(recorded.strategy, fit=fit), PROBE, by("neg_log_loss")).rate == 2.0
    assert "learning rate 2: the rule for width 384, which short trainings chose" in caplog.text


def test_too_few_steps_take_the_rule_without_a_probe(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    recorded = RecordedStrategy(HELD, TRAIN)
    assert train_best(recorded.strategy, replace(PROBE, steps=479), by("neg_log_loss")).rate == 2.0
    assert len(recorded.runs) == 1
    assert "(479 steps are too few to try other rates beside it)" in caplog.text


def test_with_folds_the_first_fold_probes() -> None:
    recorded = RecordedStrategy(None, TRAIN)
    best = train_best(recorded.strategy, replace(PROBE, steps=480), by("neg_log_loss"), FOLDS)
    assert [rows for _, rows in recorded.runs] == [15] * 4 + [15] * 4 + [20]
    assert best.rate == 4.0


def test_a_rate_that_diverges_is_out_of_the_probe() -> None:
    recorded = RecordedStrategy(HELD, TRAIN)

    def fit(network: Any, rows: Numbers, validate: Any, run: TrainingRun) -> list[dict[str, Any]]:
        if run.rate > 1.0 and run.epochs:
            raise DivergenceFault("the loss is not finite")
        return recorded.fit(network, rows, validate, run)

    strategy = replace(recorded.strategy, fit=fit)
    assert train_best(strategy, PROBE, by("neg_log_loss")).rate == 1.0
    with pytest.raises(DivergenceFault):
        train_best(strategy, replace(PROBE, rule=100.0), by("neg_log_loss"))


@pytest.mark.parametrize("way", ["in turn", "together", "in folds"])
def test_a_rate_that_diverges_leaves_the_others(way: str) -> None:
    recorded = RecordedStrategy(None if way == "in folds" else HELD, TRAIN)
    fault = DivergenceFault("the loss is not finite")

    def fit(network: Any, rows: Numbers, validate: Any, run: TrainingRun) -> list[dict[str, Any]]:
        if run.rate == 9.0:
            raise fault
        return recorded.fit(network, rows, validate, run)

    def fit_all(network: Any, rows: Numbers, validate: Any, runs: Any) -> list[Any]:
        networks = [Slope() for _ in runs]
        return [
            fault if run.rate == 9.0 else (own, recorded.fit(own, rows, validate, run))
            for own, run in zip(networks, runs, strict=True)
        ]

    strategy = replace(recorded.strategy, fit=fit, fit_all=fit_all if way == "together" else None)
    folds = FOLDS if way == "in folds" else ()
    assert train_best(strategy, (9.0, 1.0, 2.0), by("neg_log_loss"), folds).rate == 2.0
    with pytest.raises(DivergenceFault):
        train_best(strategy, (9.0,), by("neg_log_loss"), folds)
    with pytest.raises(DivergenceFault):
        train_best(strategy, (9.0, 9.0), by("neg_log_loss"), folds)


Bases = Callable[..., Path]
TOKENS = TokensConfig(max_length=24)
TEXTS = ["a good game", "the bank of the water", "never think of the market price"]


def scored(model: Any, base: Path) -> np.ndarray:
    tokenizer = load_tokenizer(base)
    return logits_over(model, encode(TEXTS, tokenizer, TOKENS), tokens=TOKENS, pad_id=tokenizer.pad_token_id)


@pytest.mark.parametrize("head", ["standard", "linear", "mlp"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_temperature_is_folded_into_the_weights_of_every_family(bases: Bases, family: str, head: str) -> None:
    base = bases(family)
    model = network.build_network(base, HeadConfig(kind=head), ("a", "b", "c"), seed=0)  # type: ignore[arg-type]
    before = scored(model, base)
    divide_logits(model, 2.5)
    np.testing.assert_allclose(scored(model, base), before / 2.5, atol=1e-6)


def test_overconfident_logits_are_calibrated_in_the_network_too(bases: Bases) -> None:
    base = bases("bert")
    model = network.build_network(base, HeadConfig(kind="linear"), ("no", "yes"), seed=0)
    before = scored(model, base)
    random = np.random.default_rng(0)
    honest = random.normal(size=(2000, 2)).astype(np.float32)
    labels = (random.random(2000) < problem_named(SINGLE_LABEL).probabilities(honest)[:, 1]).astype(np.int64)
    done = calibrate_network(
        SelectedRun(model, [], honest * 3, 0.0, 1.0, 0.0), labels, ("no", "yes"), DecisionConfig(thresholds="f1")
    )
    temperature = done.calibration["temperature"]
    assert temperature == pytest.approx(3, rel=0.15)
    assert done.calibration["after"]["ece"] < done.calibration["before"]["ece"]
    np.testing.assert_allclose(scored(model, base), before / temperature, atol=1e-6)
    np.testing.assert_allclose(done.logits, honest * 3 / temperature, rtol=1e-5)
    assert done.decision.positive == 1
    (entry,) = done.thresholds
    scores = score_decision(labels, done.logits, done.decision)
    assert scores["per_class"][1]["f1"]["value"] == pytest.approx(entry["f1"])
    assert scores["calibration"] == done.calibration["after"]


def test_calibration_can_be_left_out(bases: Bases) -> None:
    base = bases("bert")
    model = network.build_network(base, HeadConfig(kind="linear"), ("no", "yes"), seed=0)
    before = scored(model, base)
    logits = np.array([[1, 0], [0, 1]], dtype=np.float32)
    done = calibrate_network(
        SelectedRun(model, [], logits, 0.0, 1.0, 0.0), np.array([0, 1]), ("no", "yes"), DecisionConfig(calibrate=False)
    )
    assert done.calibration["temperature"] == 1
    assert np.array_equal(scored(model, base), before)
    assert done.decision == Decision(problem_named(SINGLE_LABEL), ("no", "yes"))


def test_a_precision_that_no_threshold_reaches_is_reported(bases: Bases, caplog: pytest.LogCaptureFixture) -> None:
    model = network.build_network(bases("bert"), HeadConfig(kind="linear"), ("no", "yes"), seed=0)
    logits = np.array([[0, 3], [0, 2], [0, 1]], dtype=np.float32)
    config = DecisionConfig(at_precision=0.9)
    calibrate_network(SelectedRun(model, [], logits, 0.0, 1.0, 0.0), np.array([0, 1, 0]), ("no", "yes"), config)
    assert any("'yes' does not reach its aim" in message for message in caplog.messages)


def test_auto_thresholds_depend_on_the_problem() -> None:
    assert threshold_aim(DecisionConfig(), problem_named(MULTI_LABEL)).thresholds == "f1"
    assert threshold_aim(DecisionConfig(), problem_named(SINGLE_LABEL)).plain
    assert threshold_aim(DecisionConfig(at_recall=0.9), problem_named(MULTI_LABEL)).thresholds == "default"
    assert threshold_aim(DecisionConfig(thresholds="default"), problem_named(MULTI_LABEL)).plain
