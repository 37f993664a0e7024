"""Fast resamplers give, for every draw, the plain metric of scikit-learn on the rows of that draw."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from fullbake.evaluation import resamplers
from fullbake.evaluation.resamplers import by_calling, by_counts, by_ranks, by_row_means

ROWS, CLASSES, SEEDS, DRAWS = 60, 3, 2, 8


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def weights(random: np.random.Generator) -> np.ndarray:
    """How often each draw holds each row, (draws, rows)."""
    return random.multinomial(ROWS, np.full(ROWS, 1 / ROWS), size=DRAWS).astype(np.float32)


def score_draws(
    metric: Callable[[np.ndarray, np.ndarray], float], predictions: np.ndarray, labels: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Call a metric of scikit-learn on the rows of each draw. Returns (draws, seeds)."""
    draws = [np.repeat(np.arange(ROWS), counts.astype(int)) for counts in weights]
    return np.array([[metric(labels[rows], own[rows]) for own in predictions] for rows in draws])


def f1(average: str) -> Callable[[np.ndarray, np.ndarray], float]:
    return lambda labels, predicted: sklearn_metrics.f1_score(labels, predicted, average=average)


@pytest.mark.parametrize(
    ("measure", "metric"),
    [
        (resamplers.f1_micro, sklearn_metrics.accuracy_score),
        (resamplers.f1_macro, f1("macro")),
        (resamplers.f1_weighted, f1("weighted")),
        (resamplers.recall_macro, sklearn_metrics.balanced_accuracy_score),
        (resamplers.matthews_corrcoef, sklearn_metrics.matthews_corrcoef),
    ],
)
def test_metrics_by_counts_equal_scikit_learns(measure: Any, metric: Any, random: Any, weights: np.ndarray) -> None:
    labels, predictions = random.integers(0, CLASSES, ROWS), random.integers(0, CLASSES, (SEEDS, ROWS))
    found = by_counts(measure)(predictions, labels)(weights)
    assert found == pytest.approx(score_draws(metric, predictions, labels, weights), abs=1e-12)


@pytest.mark.parametrize(
    ("measure", "metric"),
    [
        (resamplers.f1_micro, f1("micro")),
        (resamplers.f1_macro, f1("macro")),
        (resamplers.f1_weighted, f1("weighted")),
    ],
)
def test_metrics_by_counts_equal_scikit_learns_for_label_matrices(
    measure: Any, metric: Any, random: Any, weights: np.ndarray
) -> None:
    labels = random.integers(0, 2, (ROWS, CLASSES)).astype(np.uint8)
    predictions = random.integers(0, 2, (SEEDS, ROWS, CLASSES)).astype(np.uint8)
    found = by_counts(measure)(predictions, labels)(weights)
    assert found == pytest.approx(score_draws(metric, predictions, labels, weights), abs=1e-12)


@pytest.mark.parametrize(
    ("measure", "metric"),
    [
        (resamplers.all_right, sklearn_metrics.accuracy_score),
        (resamplers.f1_of_rows, lambda *arrays: sklearn_metrics.f1_score(*arrays, average="samples", zero_division=1)),
    ],
)
def test_means_over_rows_equal_scikit_learns(measure: Any, metric: Any, random: Any, weights: np.ndarray) -> None:
    labels = random.integers(0, 2, (ROWS, CLASSES)).astype(np.uint8)
    predictions = random.integers(0, 2, (SEEDS, ROWS, CLASSES)).astype(np.uint8)
    found = by_row_means(measure)(predictions, labels)(weights)
    assert found == pytest.approx(score_draws(metric, predictions, labels, weights), abs=1e-6)


def test_log_loss_equals_scikit_learns(random: np.random.Generator, weights: np.ndarray) -> None:
    labels = random.integers(0, CLASSES, ROWS)
    probabilities = random.dirichlet(np.ones(CLASSES), (SEEDS, ROWS))
    expected = score_draws(
        lambda own, shares: sklearn_metrics.log_loss(own, shares, labels=range(CLASSES)), probabilities, labels, weights
    )
    losses = by_row_means(resamplers.log_losses)(probabilities, labels)(weights)
    likelihoods = by_row_means(resamplers.log_likelihoods)(probabilities, labels)(weights)
    assert losses == pytest.approx(expected, rel=1e-6)
    assert np.array_equal(likelihoods, -losses)


@pytest.mark.parametrize(
    ("curve", "metric"),
    [
        (resamplers.area_under_roc, sklearn_metrics.roc_auc_score),
        (resamplers.average_precision, sklearn_metrics.average_precision_score),
    ],
)
def test_areas_under_curves_equal_scikit_learns(curve: Any, metric: Any, random: Any, weights: np.ndarray) -> None:
    """Probabilities are rounded, so that many are equal."""
    labels = random.integers(0, 2, ROWS)
    last = random.random((SEEDS, ROWS)).round(1)
    found = by_ranks(curve)(np.stack([1 - last, last], axis=2), labels)(weights)
    assert found == pytest.approx(score_draws(metric, last, labels, weights), abs=1e-12)


def test_class_that_a_draw_lacks_is_left_out_of_the_mean() -> None:
    labels = np.array([0, 1, 2, 0])
    probabilities = np.eye(3)[[0, 1, 2, 1]][None]
    without_the_third_class = np.array([[1.0, 1.0, 0.0, 1.0]], dtype=np.float32)
    (found,) = by_ranks(resamplers.area_under_roc)(probabilities, labels)(without_the_third_class)
    assert found == pytest.approx([(0.75 + 0.75) / 2])


def test_undefined_draws_are_nan() -> None:
    labels, predictions = np.array([0, 0, 1]), np.array([[0, 1, 1]])
    one_class = np.array([[2.0, 1.0, 0.0]], dtype=np.float32)
    assert np.isnan(by_counts(resamplers.matthews_corrcoef)(predictions, labels)(one_class)).all()
    probabilities = np.array([[[0.9, 0.1], [0.4, 0.6], [0.2, 0.8]]])
    assert np.isnan(by_ranks(resamplers.area_under_roc)(probabilities, labels)(one_class)).all()


def test_any_function_is_called_on_the_rows_of_each_draw(weights: np.ndarray) -> None:
    numbers = np.arange(ROWS)
    found = by_calling(lambda labels, own: float(labels.sum() + own.sum()))(np.stack([numbers, 2 * numbers]), numbers)
    sums = weights.astype(np.float64) @ numbers
    assert found(weights) == pytest.approx(np.stack([2 * sums, 3 * sums], axis=1))
