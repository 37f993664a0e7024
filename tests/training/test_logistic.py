"""Logistic regression agrees with scikit-learn's own, for single labels and for label matrices."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from fullbake.config.problems import MULTI_LABEL, SINGLE_LABEL, problem_named
from fullbake.core import stopping
from fullbake.core.errors import DeadlinePassed
from fullbake.evaluation.metrics import validation_scores
from fullbake.training import logistic
from fullbake.training.logistic import (
    LARGEST_WEIGHT,
    LOGISTIC_STRENGTHS,
    WIDER_STRENGTHS,
    LogisticModel,
    LogisticRows,
    fit_logistic,
    fit_scaler,
)

RANDOM = np.random.default_rng(0)
FEATURES = RANDOM.normal(size=(90, 5)).astype(np.float32)
LABELS = (FEATURES[:, :3] + RANDOM.normal(size=(90, 3))).argmax(axis=1)
MATRIX = (FEATURES[:, :3] + RANDOM.normal(size=(90, 3)) > 0.7).astype(np.uint8)
SINGLE, MULTI = problem_named(SINGLE_LABEL), problem_named(MULTI_LABEL)


def fit(labels: np.ndarray, weights: np.ndarray | None = None, last: int | None = None) -> tuple[Any, np.ndarray]:
    """Fit a layer. Return (history, logits of the rows that it was fitted on)."""
    layer = nn.Linear(5, 3)

    def logits(module: nn.Module) -> np.ndarray:
        with torch.inference_mode():
            scores: np.ndarray = module(torch.from_numpy(FEATURES)).numpy()
        return scores

    def validate(module: nn.Module, _: int) -> dict[str, float]:
        return validation_scores(logits(module), labels, "neg_log_loss")

    rows = LogisticRows(FEATURES, labels, weights)
    history = fit_logistic(layer, rows, validate, "neg_log_loss", last, all_strengths=last is not None)
    return history, logits(layer)


def best_strength(history: list[dict[str, Any]]) -> float:
    (best,) = [entry["C"] for entry in history if entry["best"]]
    return float(best)


def reference(labels: np.ndarray, strength: float, weights: np.ndarray | None = None) -> np.ndarray:
    """Return scikit-learn's own probabilities."""
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(C=strength, tol=1e-8, max_iter=5000))
    pipeline.fit(FEATURES, labels, logisticregression__sample_weight=weights)
    probabilities: np.ndarray = pipeline.predict_proba(FEATURES)
    return probabilities


def test_a_label_matrix_is_one_regression_for_each_label() -> None:
    history, logits = fit(MATRIX, last=13)
    strength = best_strength(history)
    expected = np.stack([reference(MATRIX[:, label], strength)[:, 1] for label in range(3)], axis=1)
    np.testing.assert_allclose(MULTI.probabilities(logits), expected, atol=1e-3)
    assert [entry["C"] for entry in history] == list(WIDER_STRENGTHS[:13])


def test_class_weights_are_sample_weights() -> None:
    weights = np.array([5.0, 1.0, 0.5])
    history, logits = fit(LABELS, weights, last=13)
    expected = reference(LABELS, best_strength(history), weights[LABELS])
    np.testing.assert_allclose(SINGLE.probabilities(logits), expected, atol=1e-3)


def test_class_weights_of_a_label_matrix_apply_to_rows_that_have_the_label() -> None:
    weights = np.array([5.0, 1.0, 0.5])
    history, logits = fit(MATRIX, weights, last=13)
    expected = reference(MATRIX[:, 0], best_strength(history), np.where(MATRIX[:, 0], 5.0, 1.0))[:, 1]
    np.testing.assert_allclose(MULTI.probabilities(logits)[:, 0], expected, atol=1e-3)


def test_a_class_that_no_row_has_gets_next_to_no_probability() -> None:
    labels = np.where(LABELS == 1, 0, LABELS)
    probabilities = SINGLE.probabilities(fit(labels, last=9)[1])
    assert probabilities[:, 1].max() < 1e-3
    assert (probabilities.argmax(axis=1) != 1).all()


def test_a_label_that_no_row_has_gets_a_small_constant_probability() -> None:
    matrix = MATRIX.copy()
    matrix[:, 2] = 0
    probabilities = MULTI.probabilities(fit(matrix, last=9)[1])
    np.testing.assert_allclose(probabilities[:, 2], 0.5 / 91, rtol=1e-3)


@pytest.mark.parametrize("last", [1, 4])
def test_fitting_stops_after_the_last_trial(last: int) -> None:
    history, _ = fit(LABELS, last=last)
    assert len(history) == last


@pytest.mark.parametrize("labels", [LABELS, LABELS % 2, np.where(LABELS == 1, 0, LABELS)], ids=["3", "2", "2 of 3"])
def test_model_gives_the_bits_of_scikit_learn(labels: np.ndarray) -> None:
    model = LogisticModel(labels).fit(FEATURES, 0.5)
    plain = LogisticRegression(C=0.5, max_iter=1000).fit(FEATURES, labels)
    np.testing.assert_array_equal(model.outputs, plain.classes_)
    np.testing.assert_array_equal(model.probabilities(FEATURES), plain.predict_proba(FEATURES))
    weight, bias = model.coefficients()
    np.testing.assert_allclose(FEATURES @ weight.T + bias, model.logits(FEATURES), atol=1e-5)
    np.testing.assert_allclose(SINGLE.probabilities(model.logits(FEATURES)), plain.predict_proba(FEATURES), atol=1e-6)


def test_model_of_a_label_matrix_gives_the_bits_of_one_against_rest() -> None:
    model = LogisticModel(MATRIX).fit(FEATURES, 0.5)
    plain = OneVsRestClassifier(LogisticRegression(C=0.5, max_iter=1000)).fit(FEATURES, MATRIX)
    np.testing.assert_array_equal(model.probabilities(FEATURES), plain.predict_proba(FEATURES))
    assert model.logits(FEATURES).shape == (90, 3)


def test_only_classes_and_labels_that_vary_are_fitted() -> None:
    matrix = np.stack([np.zeros(90), MATRIX[:, 1], np.ones(90)], axis=1).astype(np.uint8)
    one = LogisticModel(matrix).fit(FEATURES, 1.0)
    assert one.outputs.tolist() == [1]
    assert one.probabilities(FEATURES).shape == (90, 1)
    alone = LogisticModel(np.full(90, 2)).fit(FEATURES, 1.0)
    assert alone.outputs.tolist() == [2]
    assert alone.probabilities(FEATURES).tolist() == [[1.0]] * 90
    assert alone.coefficients()[0].shape == (1, 5)


# Features that hardly vary


def fitted_layer(features: np.ndarray, labels: np.ndarray) -> nn.Linear:
    """Return the layer that is fitted on these rows and chosen by their own log loss."""
    layer = nn.Linear(features.shape[1], int(labels.max()) + 1)

    def validate(module: nn.Module, _: int) -> dict[str, float]:
        with torch.inference_mode():
            return validation_scores(module(torch.from_numpy(features)).numpy(), labels, "neg_log_loss")

    fit_logistic(layer, LogisticRows(features, labels, None), validate, "neg_log_loss")
    return layer


def demo_like_rows(rows: int = 300, width: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Return features of which 0 to 3 are as odd as in real bases, with labels of 4 classes that depend on the others.

    Their deviations are 1e-33, 2e-9, 1e3, and 1e-12 about an offset of 1.
    """
    random = np.random.default_rng(1)
    values = random.normal(0, 0.3, size=(rows, width))
    labels = (values[:, 4:8] + random.normal(0, 0.2, size=(rows, 4))).argmax(axis=1)
    noise = random.normal(size=(rows, 4))
    values[:, :4] = noise * [1e-33, 2e-9, 1e3, 1e-12] + [0, -1e-7, 0, 1]
    return values.astype(np.float32), labels


def test_features_that_hardly_vary_are_constants() -> None:
    features, labels = demo_like_rows()
    constant = np.isinf(fit_scaler(features).scale_)
    assert np.flatnonzero(constant).tolist() == [0, 1, 3]
    weight = fitted_layer(features, labels).weight.detach().numpy()
    assert not weight[:, constant].any()
    assert weight[:, ~constant].all()


@settings(max_examples=50)
@given(unit=st.floats(-12, 12), seed=st.integers(0, 99), flat=st.integers(0, 5))
def test_which_features_are_constants_does_not_depend_on_their_unit(unit: float, seed: int, flat: int) -> None:
    features = np.random.default_rng(seed).normal(size=(30, 8)) + 3
    features[:, :flat] = 3 + (features[:, :flat] - 3) * 1e-7
    scaler, other = (fit_scaler((features * factor).astype(np.float32)) for factor in (1, 10.0**unit))
    assert np.isinf(scaler.scale_).tolist() == [True] * flat + [False] * (8 - flat)
    assert np.isinf(other.scale_).tolist() == np.isinf(scaler.scale_).tolist()


@pytest.mark.parametrize("varying", [0, 1, 8])
def test_scaler_where_none_one_or_all_features_vary(varying: int) -> None:
    features = np.full((20, 8), 0.7)
    features[:, :varying] += RANDOM.normal(size=(20, varying))
    scaler = fit_scaler(features)
    assert np.isfinite(scaler.scale_).tolist() == [True] * varying + [False] * (8 - varying)
    np.testing.assert_allclose(scaler.transform(features)[:, :varying].std(axis=0), 1.0)
    assert not scaler.transform(features)[:, varying:].any()


def test_a_feature_of_huge_spread_does_not_make_the_others_constants() -> None:
    features = RANDOM.normal(size=(50, 12))
    features[:, 0] *= 1e9
    assert np.isfinite(fit_scaler(features).scale_).all()


def test_layer_is_of_use_in_half_precision_and_as_8_bit_integers() -> None:
    features, labels = demo_like_rows()
    layer = fitted_layer(features, labels)
    weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    expected = (features @ weight.T + bias).argmax(axis=1)
    assert (expected == labels).mean() > 0.85

    half = weight.astype(np.float16)
    assert np.isfinite(half).all()
    assert np.isfinite(bias.astype(np.float16)).all()
    normal = np.abs(half[half != 0]) >= np.finfo(np.float16).tiny
    assert normal.mean() > 0.9
    assert (features @ half.astype(np.float32).T + bias).argmax(axis=1).tolist() == expected.tolist()

    step = np.abs(weight).max(axis=1, keepdims=True) / 127  # symmetric, one step for each output
    integers = np.round(weight / step).astype(np.int8)
    usual = np.delete(np.arange(features.shape[1]), 2)  # of the feature of spread 1e3 no 8 bits can hold the weight
    assert np.abs(integers[:, usual]).mean() > 10
    shown = (features[:, usual] @ (integers * step)[:, usual].T + features[:, [2]] @ weight[:, [2]].T + bias).argmax(
        axis=1
    )
    assert (shown == expected).mean() > 0.95


@pytest.mark.parametrize("deviation", [1e-8, 1e-3, 1.0, 1e4])
def test_weights_stay_within_half_precision(deviation: float) -> None:
    """Unless the features are so small that even the strongest regularization has larger weights."""
    features, labels = demo_like_rows()
    features = (features[:, 4:] * deviation).astype(np.float32)
    largest = fitted_layer(features, labels).weight.abs().max().item()
    assert largest <= (LARGEST_WEIGHT if deviation >= 1e-3 else np.inf)


def test_weights_that_half_precision_cannot_hold_are_not_chosen(caplog: pytest.LogCaptureFixture) -> None:
    features, labels = demo_like_rows()
    with caplog.at_level(logging.INFO):
        layer = fitted_layer(features[:, 4:] * 1e-4, labels)
    assert "half precision could not hold" in caplog.text
    assert 100 < layer.weight.abs().max().item() <= LARGEST_WEIGHT


# The grid of strengths


def scored(wanted: float, **options: Any) -> list[dict[str, Any]]:
    """Fit with a validation that scores the strength best that is nearest to `wanted`, and return the history."""
    order: list[float] = []

    class Watched(LogisticModel):
        def fit(self, inputs: Any, strength: float) -> LogisticModel:
            order.append(strength)
            return super().fit(inputs, strength)

    def validate(_: nn.Module, trial: int) -> dict[str, float]:
        assert trial == len(order) - 1
        return {"validation_loss": 0.0, "f1_macro": -abs(np.log10(order[-1] / wanted))}

    rows = LogisticRows(FEATURES, LABELS, None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logistic, "LogisticModel", Watched)
        return fit_logistic(nn.Linear(5, 3), rows, validate, "f1_macro", **options)


@pytest.mark.parametrize(
    ("wanted", "tried", "words"),
    [
        (1e-2, LOGISTIC_STRENGTHS, ()),
        (1e-5, WIDER_STRENGTHS[:-4], ("C = 0.0001, is at the end of the grid: C = 1e-06 to 3.2e-05 are tried too",)),
        (1e-4, WIDER_STRENGTHS[:-4], ("is at the end of the grid",)),
        (1e-9, WIDER_STRENGTHS[:-4], ("is at the end of the grid", "strongest regularization that is tried")),
        (1e3, WIDER_STRENGTHS[4:], ("C = 1e+02, is at the end of the grid: C = 3.2e+02 to 1e+04 are tried too",)),
        (1e9, WIDER_STRENGTHS[4:], ("is at the end of the grid", "weakest regularization that is tried")),
    ],
)
def test_the_grid_is_widened_once_at_its_end(
    wanted: float, tried: Sequence[float], words: Sequence[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        history = scored(wanted)
    assert [entry["C"] for entry in history] == list(tried)
    best = best_strength(history)
    assert best == min(tried, key=lambda strength: abs(np.log10(strength / wanted)))
    assert all(part in caplog.text for part in words)
    assert ("are tried too" in caplog.text) == (len(words) > 0)
    assert ("that is tried" in caplog.text) == (len(words) > 1)


def test_folds_try_the_same_strengths_whatever_the_scores() -> None:
    for wanted in (1e-9, 1e-2, 1e9):
        history = scored(wanted, all_strengths=True)
        assert [entry["C"] for entry in history] == list(WIDER_STRENGTHS)
        assert [entry["trial"] for entry in history] == list(range(1, 22))


def test_of_equal_scores_the_strongest_regularization_of_the_grid_is_chosen() -> None:
    rows = LogisticRows(FEATURES, LABELS, None)
    history = fit_logistic(nn.Linear(5, 3), rows, lambda *_: {"validation_loss": 1.0, "f1_macro": 0.5}, "f1_macro")
    assert best_strength(history) == LOGISTIC_STRENGTHS[0]


def test_the_metric_that_is_given_chooses() -> None:
    """Macro-F1 rises and log loss is best in the middle."""
    rows, middle = LogisticRows(FEATURES, LABELS, None), len(LOGISTIC_STRENGTHS) // 2

    def validate(_: nn.Module, trial: int) -> dict[str, float]:
        return {"validation_loss": 0.0, "neg_log_loss": -abs(trial - middle), "f1_macro": float(trial)}

    chosen = {
        metric: best_strength(fit_logistic(nn.Linear(5, 3), rows, validate, metric))
        for metric in ("neg_log_loss", "f1_macro")
    }
    assert chosen == {"neg_log_loss": LOGISTIC_STRENGTHS[middle], "f1_macro": WIDER_STRENGTHS[-1]}


def test_layer_does_not_depend_on_the_strengths_before_it() -> None:
    """Each fit starts from the solution before; by itself it starts from the shares of the classes."""
    scaled = fit_scaler(FEATURES).transform(FEATURES)
    for labels in (LABELS, LABELS % 2, MATRIX):
        path = LogisticModel(labels, tolerance=1e-8).start_at_priors(5)
        for strength in WIDER_STRENGTHS[:12]:
            path.fit(scaled, strength)
        alone = LogisticModel(labels, tolerance=1e-8).fit(scaled, WIDER_STRENGTHS[11])
        np.testing.assert_allclose(path.logits(scaled), alone.logits(scaled), atol=5e-3)


@pytest.mark.parametrize("labels", [LABELS, LABELS % 2, np.where(LABELS == 1, 0, LABELS), MATRIX, LABELS * 0])
def test_the_start_is_what_no_features_give(labels: np.ndarray) -> None:
    nothing = np.zeros((90, 5))
    started = LogisticModel(labels).start_at_priors(5).fit(nothing, 1e-4)
    np.testing.assert_allclose(
        started.probabilities(nothing),
        LogisticModel(labels, tolerance=1e-8).fit(nothing, 1e-4).probabilities(nothing),
        atol=0.01,
    )


def test_a_solver_that_does_not_converge_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(logistic, "SOLVER_STEPS", 2)
    with caplog.at_level(logging.INFO):
        LogisticModel(LABELS).fit(FEATURES, 100.0)
    assert "the solver stopped after 2 steps at C = 1e+02" in caplog.text


# The deadline


def test_at_the_deadline_the_best_strength_so_far_is_kept() -> None:
    calls = []
    with stopping.deadline(lambda: calls.append(1) or len(calls) > 5):
        history = scored(1e-3)
    assert [entry["C"] for entry in history] == list(LOGISTIC_STRENGTHS[:5])
    assert best_strength(history) == LOGISTIC_STRENGTHS[2]
    assert "time was up" in history[-1]["stopped"]


def test_folds_that_the_deadline_cuts_short_have_no_result() -> None:
    with stopping.deadline(lambda: True), pytest.raises(DeadlinePassed):
        scored(1e-3, all_strengths=True)
    with stopping.deadline(lambda: True):
        assert len(scored(1e-3, all_strengths=True, last_trial=1)) == 1
