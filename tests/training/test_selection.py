"""fullbake.training.selection: What chooses: a validation part, or folds; on a way that is plain arithmetic."""

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
from fullbake.evaluation.calibration import score_decision, threshold_aim
from fullbake.evaluation.decisions import Decision
from fullbake.evaluation.metrics import validation_scores
from fullbake.models import network
from fullbake.models.heads import divide_logits
from fullbake.models.inference import encode, logits_over
from fullbake.models.tokenizer import load_tokenizer
from fullbake.training.selection import SelectedRun, Strategy, TrainingRun, calibrate_network, train_best


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
    """Logits (0, slope * number). Training at a rate sets the slope to rate * epoch, turned about at epoch 3."""

    slope = 0.0


class Watched:
    """A way that notes what it was asked to do."""

    def __init__(self, validation: Numbers | None, train: Numbers) -> None:
        self.trials: list[tuple[TrainingRun, int]] = []
        self.starts = 0
        self.way = Strategy(train, validation, self.start, self.fit, self.logits, lambda network: network)  # type: ignore[arg-type]

    def start(self) -> Any:
        self.starts += 1
        return Slope()

    def fit(self, network: Any, rows: Numbers, validate: Any, trial: TrainingRun) -> list[dict[str, Any]]:
        self.trials.append((trial, len(rows.values)))
        history, slopes = [], [trial.rate * epoch * (-1 if epoch == 3 else 1) for epoch in (1, 2, 3)]
        for epoch, slope in enumerate(slopes[: trial.last]):
            network.slope = slope
            history.append({"epoch": epoch + 1, "train_loss": 0.0} | validate(network, epoch))
        best = max(range(len(history)), key=lambda place: history[place][trial.metric])
        network.slope = slopes[best]
        return [entry | {"best": place == best} for place, entry in enumerate(history)]

    def logits(self, network: Any, rows: Numbers) -> np.ndarray:
        return np.stack([np.zeros(len(rows.values)), network.slope * rows.values], axis=1).astype(np.float32)


TRAIN = Numbers(np.linspace(-3, 3, 20))
HELD = Numbers(np.array([-2.0, -1.0, 1.0, 2.0]))
FOLDS = [np.arange(start, 20, 4) for start in range(4)]


def test_a_validation_part_chooses_rate_and_epoch() -> None:
    watched = Watched(HELD, TRAIN)
    best = train_best(watched.way, (-1.0, 2.0, 1.0), "neg_log_loss")
    assert best.network.slope == 4.0  # rate 2, epoch 2
    assert best.value == pytest.approx(validation_scores(best.logits, HELD.labels, "neg_log_loss")["neg_log_loss"])
    assert [entry["rate"] for entry in best.history] == [-1.0] * 3 + [2.0] * 3 + [1.0] * 3
    assert [(entry["rate"], entry["epoch"]) for entry in best.history if entry["best"]] == [(2.0, 2)]
    assert watched.starts == 3


def test_one_rate_needs_no_comparison() -> None:
    best = train_best(Watched(HELD, TRAIN).way, (1.0,), "accuracy")
    assert all("rate" not in entry for entry in best.history)


def test_no_epoch_is_scored_twice() -> None:
    """The best epoch's logits are there already, unless it came before a stop."""
    watched = Watched(HELD, TRAIN)
    scored: list[float] = []

    def logits(network: Any, rows: Numbers) -> np.ndarray:
        scored.append(network.slope)
        return watched.logits(network, rows)

    whole = train_best(replace(watched.way, logits=logits), (1.0,), "neg_log_loss")
    assert scored == [1.0, 2.0, -3.0]

    def go_on(network: Any, rows: Numbers, validate: Any, trial: TrainingRun) -> list[dict[str, Any]]:
        earlier = watched.fit(
            network,
            rows,
            lambda module, _: validation_scores(watched.logits(module, HELD), HELD.labels, trial.metric),
            trial,
        )
        last = {"epoch": 3, "best": False} | validate(Slope(), 2)
        return [*earlier[:2], last]

    resumed = train_best(replace(watched.way, fit=go_on, logits=logits), (1.0,), "neg_log_loss")
    assert scored[3:] == [0.0, 2.0]
    assert np.array_equal(resumed.logits, whole.logits)


def test_of_equals_the_earlier_rate_is_kept() -> None:
    best = train_best(Watched(HELD, TRAIN).way, (1.0, 2.0), "accuracy")
    assert best.network.slope == 1.0


def test_folds_choose_and_then_all_rows_train() -> None:
    watched = Watched(None, TRAIN)
    best = train_best(watched.way, (-1.0, 2.0), "neg_log_loss", FOLDS)
    in_folds = [(trial, rows) for trial, rows in watched.trials if "fold" in trial.name]
    assert [rows for _, rows in in_folds] == [15] * 8
    assert not any(trial.patient for trial, _ in watched.trials)
    last, rows = watched.trials[-1]
    assert (last.rate, last.last, rows) == (2.0, 2, 20)
    assert best.network.slope == 4.0
    expected = np.stack([np.zeros(20), 4.0 * TRAIN.values], axis=1)
    np.testing.assert_allclose(best.logits, expected, atol=1e-5)
    assert best.value == pytest.approx(
        validation_scores(expected, TRAIN.labels, "neg_log_loss")["neg_log_loss"], rel=1e-5
    )
    assert len({trial.name for trial, _ in watched.trials}) == len(watched.trials)
    assert all("held_logits" not in entry for entry in best.history)


def test_a_metric_that_a_fold_does_not_have_can_choose_over_all() -> None:
    """ROC-AUC is undefined on a fold of one class, and defined on all rows."""
    alone = [np.flatnonzero(TRAIN.labels == 0), np.flatnonzero(TRAIN.labels == 1)]
    best = train_best(Watched(None, TRAIN).way, (1.0,), "roc_auc", alone)
    assert best.value == 1.0


Bases = Callable[..., Path]
TOKENS = TokensConfig(max_length=24)
TEXTS = ["a good game", "the bank of the water", "never think of the market price"]


def scored(model: Any, base: Path) -> np.ndarray:
    tokenizer = load_tokenizer(base)
    return logits_over(model, encode(TEXTS, tokenizer, TOKENS), tokens=TOKENS, pad_id=tokenizer.pad_token_id)


@pytest.mark.parametrize("head", ["standard", "linear", "mlp"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_temperature_goes_into_the_weights_of_every_family(bases: Bases, family: str, head: str) -> None:
    base = bases(family)
    model = network.build_network(base, HeadConfig(kind=head), ("a", "b", "c"), seed=0)  # type: ignore[arg-type]
    before = scored(model, base)
    divide_logits(model, 2.5)
    np.testing.assert_allclose(scored(model, base), before / 2.5, atol=1e-6)


def test_scores_that_are_too_sure_are_calmed_and_the_network_with_them(bases: Bases) -> None:
    base = bases("bert")
    model = network.build_network(base, HeadConfig(kind="linear"), ("no", "yes"), seed=0)
    before = scored(model, base)
    random = np.random.default_rng(0)
    honest = random.normal(size=(2000, 2)).astype(np.float32)
    labels = (random.random(2000) < problem_named(SINGLE_LABEL).probabilities(honest)[:, 1]).astype(np.int64)
    done = calibrate_network(
        SelectedRun(model, [], honest * 3, 0.0), labels, ("no", "yes"), DecisionConfig(thresholds="f1")
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
        SelectedRun(model, [], logits, 0.0), np.array([0, 1]), ("no", "yes"), DecisionConfig(calibrate=False)
    )
    assert done.calibration["temperature"] == 1
    assert np.array_equal(scored(model, base), before)
    assert done.decision == Decision(problem_named(SINGLE_LABEL), ("no", "yes"))


def test_a_floor_that_nothing_reaches_is_warned_of(bases: Bases, caplog: pytest.LogCaptureFixture) -> None:
    model = network.build_network(bases("bert"), HeadConfig(kind="linear"), ("no", "yes"), seed=0)
    logits = np.array([[0, 3], [0, 2], [0, 1]], dtype=np.float32)
    config = DecisionConfig(at_precision=0.9)
    calibrate_network(SelectedRun(model, [], logits, 0.0), np.array([0, 1, 0]), ("no", "yes"), config)
    assert any("'yes' misses its aim" in message for message in caplog.messages)


def test_what_auto_means() -> None:
    assert threshold_aim(DecisionConfig(), problem_named(MULTI_LABEL)).thresholds == "f1"
    assert threshold_aim(DecisionConfig(), problem_named(SINGLE_LABEL)).plain
    assert threshold_aim(DecisionConfig(at_recall=0.9), problem_named(MULTI_LABEL)).thresholds == "default"
    assert threshold_aim(DecisionConfig(thresholds="default"), problem_named(MULTI_LABEL)).plain
