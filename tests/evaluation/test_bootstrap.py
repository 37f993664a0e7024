"""Resampled scores equal scikit-learn's on the same rows, taken one by one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fullbake.core.errors import DataError
from fullbake.evaluation import bootstrap, metrics
from fullbake.evaluation.bootstrap import BY_CHANCES, BY_COUNTS, resample


def drawn(classes: int, rows: int, seeds: int = 2, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Predictions that know something, and labels."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, rows)
    return np.where(random.random((seeds, rows)) < 0.6, labels, random.integers(0, classes, (seeds, rows))), labels


def drawn_marks(labels: int, rows: int, seeds: int = 2) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    held = (random.random((rows, labels)) < 0.3).astype(np.uint8)
    flips = random.random((seeds, rows, labels)) < 0.2
    return np.where(flips, 1 - held, held), held


def one_by_one(predictions: np.ndarray, labels: np.ndarray, metric: str, draws: int) -> np.ndarray:
    """The plain version: every draw's rows taken, every seed scored by `metrics`."""
    classes = labels.shape[1] if labels.ndim == 2 else int(max(predictions.max(), labels.max())) + 1
    chances = np.full((len(labels), classes), 0.5 if labels.ndim == 2 else 1 / classes)
    scores = np.empty((draws, len(predictions)))
    (weights,) = bootstrap._weights(len(labels), draws, 0)
    for place, counts in enumerate(weights.astype(int)):
        rows = np.repeat(np.arange(len(labels)), counts)
        for seed, own in enumerate(predictions):
            scores[place, seed] = metrics.selection_score(metric, labels[rows], chances[rows], predicted=own[rows])
    return scores


@pytest.mark.parametrize("metric", BY_COUNTS)
@pytest.mark.parametrize("classes", [2, 5])
def test_draws_of_single_labels_equal_the_plain_version(metric: str, classes: int) -> None:
    predictions, labels = drawn(classes, 40)
    found = resample(predictions, labels, metric, draws=20)
    assert found.draws == pytest.approx(one_by_one(predictions, labels, metric, 20))
    chances = np.full((40, classes), 1 / classes)
    assert found.points == pytest.approx(
        [metrics.selection_score(metric, labels, chances, predicted=p) for p in predictions]
    )


@pytest.mark.parametrize("metric", ["accuracy", "f1_macro", "f1_micro", "f1_weighted", "f1_samples", "recall_macro"])
def test_draws_of_many_labels_equal_the_plain_version(metric: str) -> None:
    predictions, labels = drawn_marks(4, 40)
    found = resample(predictions, labels, metric, draws=20)
    assert found.draws == pytest.approx(one_by_one(predictions, labels, metric, 20), abs=1e-6)
    chances = np.full(labels.shape, 0.5)
    assert found.points == pytest.approx(
        [metrics.selection_score(metric, labels, chances, predicted=p) for p in predictions]
    )


@pytest.mark.parametrize("metric", BY_CHANCES)
@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("many", [False, True])
def test_draws_of_probabilities_equal_the_plain_version(metric: str, classes: int, many: bool) -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, (60, classes)) if many else np.arange(60) % classes
    chances = random.integers(1, 9, (2, 60, classes)) / 8  # with ties
    if not many:
        chances /= chances.sum(axis=2, keepdims=True)
    found = resample(chances, labels, metric, draws=15)
    plain = resample(chances, labels, lambda truth, own: metrics.selection_score(metric, truth, own), draws=15)
    assert found.points == pytest.approx(plain.points)
    assert found.draws == pytest.approx(plain.draws, rel=1e-5)


def test_a_draw_without_a_class_averages_over_the_others() -> None:
    chances = np.random.default_rng(0).dirichlet([1, 1, 1], (1, 30))
    labels = np.array([0] * 15 + [1] * 14 + [2])
    found = resample(chances, labels, "roc_auc", draws=50)
    assert not np.isnan(found.draws).any()


def test_a_function_is_resampled_on_the_same_rows_as_a_name() -> None:
    predictions, labels = drawn(3, 50)
    named = resample(predictions, labels, "accuracy", draws=30)
    called = resample(predictions, labels, lambda truth, own: float((truth == own).mean()), draws=30)
    assert called.draws == pytest.approx(named.draws)
    assert (called.points == named.points).all()


def test_a_function_may_read_scores() -> None:
    chances = np.random.default_rng(0).random((2, 30, 3))
    found = resample(chances, np.zeros(30, dtype=int), lambda _, own: float(own[:, 0].mean()), draws=5)
    assert found.points == pytest.approx(chances[:, :, 0].mean(axis=1))


def test_draws_do_not_depend_on_the_recipe_nor_on_how_many_are_held_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    predictions, labels = drawn(3, 50, seeds=3)
    whole = resample(predictions, labels, "f1_macro", draws=30)
    assert (resample(predictions[1:], labels, "f1_macro", draws=30).draws == whole.draws[:, 1:]).all()
    monkeypatch.setattr(bootstrap, "_BLOCK_ROWS", 350)
    assert (resample(predictions, labels, "f1_macro", draws=30).draws == whole.draws).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 60), st.integers(2, 6), st.integers(0, 10**6))
def test_scores_are_shares(rows: int, classes: int, seed: int) -> None:
    predictions, labels = drawn(classes, rows, seed=seed)
    found = resample(predictions, labels, "f1_macro", draws=10)
    assert found.draws.shape == (10, 2)
    assert ((found.draws >= 0) & (found.draws <= 1)).all()


def test_a_metric_without_a_value_is_refused() -> None:
    with pytest.raises(DataError, match="undefined on these rows"):
        resample(np.zeros((1, 9), dtype=int), np.zeros(9, dtype=int), "matthews_corrcoef", draws=5)


@pytest.mark.parametrize("metric", ["f1_makro", "f1_samples"])
def test_a_metric_that_there_is_not_is_refused(metric: str) -> None:
    with pytest.raises(DataError, match="cannot be resampled"):
        resample(*drawn(3, 20), metric)


def test_arrays_that_do_not_fit_are_refused() -> None:
    predictions, labels = drawn(3, 20)
    with pytest.raises(DataError, match=r"of shape \(seeds, 19\)"):
        resample(predictions, labels[:-1], "accuracy")
    with pytest.raises(DataError, match="cannot be compared"):
        resample(predictions[0], labels, "accuracy")
    with pytest.raises(DataError, match=r"\(seeds, 20, classes\)"):
        resample(predictions, labels, "roc_auc")
