from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from fullbake.config.problems import MULTI_LABEL, SINGLE_LABEL
from fullbake.evaluation.decisions import probabilities
from fullbake.evaluation.metrics import judge
from fullbake.training.frozen import STRENGTHS, LogisticRows, fit_logistic

RANDOM = np.random.default_rng(0)
FEATURES = RANDOM.normal(size=(90, 5)).astype(np.float32)
LABELS = (FEATURES[:, :3] + RANDOM.normal(size=(90, 3))).argmax(axis=1)
MARKS = (FEATURES[:, :3] + RANDOM.normal(size=(90, 3)) > 0.7).astype(np.uint8)


def fit(labels: np.ndarray, weights: np.ndarray | None = None, last: int | None = None) -> tuple[Any, np.ndarray]:
    """(history, logits of the rows that were fitted)."""
    layer = nn.Linear(5, 3)

    def logits(module: nn.Module) -> np.ndarray:
        with torch.inference_mode():
            scores: np.ndarray = module(torch.from_numpy(FEATURES)).numpy()
        return scores

    def validate(module: nn.Module, _: int) -> dict[str, float]:
        return judge(logits(module), labels, "neg_log_loss")

    history = fit_logistic(layer, LogisticRows(FEATURES, labels, weights), validate, "neg_log_loss", last)
    return history, logits(layer)


def plain(labels: np.ndarray, strength: float, weights: np.ndarray | None = None) -> np.ndarray:
    """scikit-learn's own probabilities."""
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(C=strength, tol=1e-8, max_iter=5000))
    scores: np.ndarray = pipeline.fit(FEATURES, labels, logisticregression__sample_weight=weights).predict_proba(
        FEATURES
    )
    return scores


def test_many_labels_are_a_regression_each() -> None:
    history, logits = fit(MARKS, last=9)
    best = next(entry for entry in history if entry["best"])
    expected = np.stack([plain(MARKS[:, place], best["C"])[:, 1] for place in range(3)], axis=1)
    np.testing.assert_allclose(probabilities(logits, MULTI_LABEL), expected, atol=1e-3)
    assert [entry["C"] for entry in history] == list(STRENGTHS[:9])


def test_class_weights_are_sample_weights() -> None:
    weights = np.array([5.0, 1.0, 0.5])
    history, logits = fit(LABELS, weights, last=9)
    best = next(entry for entry in history if entry["best"])
    expected = plain(LABELS, best["C"], weights[LABELS])
    np.testing.assert_allclose(probabilities(logits, SINGLE_LABEL), expected, atol=1e-3)


def test_weights_of_many_labels_are_those_of_the_rows_that_have_them() -> None:
    weights = np.array([5.0, 1.0, 0.5])
    history, logits = fit(MARKS, weights, last=9)
    best = next(entry for entry in history if entry["best"])
    expected = plain(MARKS[:, 0], best["C"], np.where(MARKS[:, 0], 5.0, 1.0))[:, 1]
    np.testing.assert_allclose(probabilities(logits, MULTI_LABEL)[:, 0], expected, atol=1e-3)


def test_a_class_that_the_rows_lack_gets_next_to_no_chance() -> None:
    labels = np.where(LABELS == 1, 0, LABELS)
    chances = probabilities(fit(labels, last=5)[1], SINGLE_LABEL)
    assert chances[:, 1].max() < 1e-3
    assert (chances.argmax(axis=1) != 1).all()


def test_a_label_that_none_has_keeps_a_small_constant_chance() -> None:
    marks = MARKS.copy()
    marks[:, 2] = 0
    chances = probabilities(fit(marks, last=5)[1], MULTI_LABEL)
    np.testing.assert_allclose(chances[:, 2], 0.5 / 91, rtol=1e-3)


@pytest.mark.parametrize("last", [1, 4])
def test_it_stops_where_it_is_told(last: int) -> None:
    history, _ = fit(LABELS, last=last)
    assert len(history) == last
