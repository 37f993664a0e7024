"""Logistic regression agrees with scikit-learn's own, for single labels and for label matrices."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from fullbake.config.problems import MULTI_LABEL, SINGLE_LABEL, problem_named
from fullbake.evaluation.metrics import validation_scores
from fullbake.training.logistic import LOGISTIC_STRENGTHS, LogisticModel, LogisticRows, fit_logistic

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

    history = fit_logistic(layer, LogisticRows(FEATURES, labels, weights), validate, "neg_log_loss", last)
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
    history, logits = fit(MATRIX, last=9)
    strength = best_strength(history)
    expected = np.stack([reference(MATRIX[:, label], strength)[:, 1] for label in range(3)], axis=1)
    np.testing.assert_allclose(MULTI.probabilities(logits), expected, atol=1e-3)
    assert [entry["C"] for entry in history] == list(LOGISTIC_STRENGTHS[:9])


def test_class_weights_are_sample_weights() -> None:
    weights = np.array([5.0, 1.0, 0.5])
    history, logits = fit(LABELS, weights, last=9)
    expected = reference(LABELS, best_strength(history), weights[LABELS])
    np.testing.assert_allclose(SINGLE.probabilities(logits), expected, atol=1e-3)


def test_class_weights_of_a_label_matrix_apply_to_rows_that_have_the_label() -> None:
    weights = np.array([5.0, 1.0, 0.5])
    history, logits = fit(MATRIX, weights, last=9)
    expected = reference(MATRIX[:, 0], best_strength(history), np.where(MATRIX[:, 0], 5.0, 1.0))[:, 1]
    np.testing.assert_allclose(MULTI.probabilities(logits)[:, 0], expected, atol=1e-3)


def test_a_class_that_no_row_has_gets_next_to_no_probability() -> None:
    labels = np.where(LABELS == 1, 0, LABELS)
    probabilities = SINGLE.probabilities(fit(labels, last=5)[1])
    assert probabilities[:, 1].max() < 1e-3
    assert (probabilities.argmax(axis=1) != 1).all()


def test_a_label_that_no_row_has_gets_a_small_constant_probability() -> None:
    matrix = MATRIX.copy()
    matrix[:, 2] = 0
    probabilities = MULTI.probabilities(fit(matrix, last=5)[1])
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
