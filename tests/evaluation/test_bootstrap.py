"""Scores on resampled rows equal the plain function on the same rows, draw by draw."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fullbake.config.problems import MULTI_LABEL, SINGLE_LABEL, ProblemType
from fullbake.core.errors import DataError
from fullbake.evaluation.bootstrap import draw_weights, resample
from fullbake.evaluation.metrics import METRICS, selection_metrics, selection_score


def resampled(reads: str, problem_type: ProblemType) -> list[str]:
    """Names of the metrics that validation may choose by, for one kind of problem, and that read one kind of array."""
    return [name for name in selection_metrics(problem_type) if METRICS[name].reads == reads]


def predicted_ids(classes: int, rows: int, seeds: int = 2, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Predictions that know something of the labels, and the labels."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, rows)
    return np.where(random.random((seeds, rows)) < 0.6, labels, random.integers(0, classes, (seeds, rows))), labels


def predicted_matrices(labels: int, rows: int, seeds: int = 2) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    held = (random.random((rows, labels)) < 0.3).astype(np.uint8)
    flips = random.random((seeds, rows, labels)) < 0.2
    return np.where(flips, 1 - held, held), held


def one_by_one(predictions: np.ndarray, labels: np.ndarray, metric: str, draws: int) -> np.ndarray:
    """The plain version: take the rows of every draw and score every seed by `selection_score`."""
    classes = labels.shape[1] if labels.ndim == 2 else int(max(predictions.max(), labels.max())) + 1
    probabilities = np.full((len(labels), classes), 0.5 if labels.ndim == 2 else 1 / classes)
    scores = np.empty((draws, len(predictions)))
    (weights,) = draw_weights(len(labels), draws, 0)
    for place, counts in enumerate(weights.astype(int)):
        rows = np.repeat(np.arange(len(labels)), counts)
        for seed, own in enumerate(predictions):
            scores[place, seed] = selection_score(metric, labels[rows], probabilities[rows], predicted=own[rows])
    return scores


@pytest.mark.parametrize("metric", resampled("predictions", SINGLE_LABEL))
@pytest.mark.parametrize("classes", [2, 5])
def test_draws_of_single_labels_equal_the_plain_version(metric: str, classes: int) -> None:
    predictions, labels = predicted_ids(classes, 40)
    assert resample(predictions, labels, metric, draws=20).draws == pytest.approx(
        one_by_one(predictions, labels, metric, 20)
    )


@pytest.mark.parametrize("metric", resampled("predictions", MULTI_LABEL))
def test_draws_of_many_labels_equal_the_plain_version(metric: str) -> None:
    predictions, labels = predicted_matrices(4, 40)
    assert resample(predictions, labels, metric, draws=20).draws == pytest.approx(
        one_by_one(predictions, labels, metric, 20), abs=1e-6
    )


@pytest.mark.parametrize(
    ("metric", "many"),
    [
        (metric, problem_type == MULTI_LABEL)
        for problem_type in (SINGLE_LABEL, MULTI_LABEL)
        for metric in resampled("probabilities", problem_type)
    ],
)
@pytest.mark.parametrize("classes", [2, 4])
def test_draws_of_probabilities_equal_the_plain_version(metric: str, classes: int, many: bool) -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, (60, classes)) if many else np.arange(60) % classes
    probabilities = random.integers(1, 9, (2, 60, classes)) / 8  # with ties
    if not many:
        probabilities /= probabilities.sum(axis=2, keepdims=True)
    found = resample(probabilities, labels, metric, draws=15)
    plain = resample(probabilities, labels, lambda truth, own: selection_score(metric, truth, own), draws=15)
    assert found.points == pytest.approx(plain.points)
    assert found.draws == pytest.approx(plain.draws, rel=1e-5)


def test_draw_without_a_class_averages_over_the_others() -> None:
    probabilities = np.random.default_rng(0).dirichlet([1, 1, 1], (1, 30))
    labels = np.array([0] * 15 + [1] * 14 + [2])
    found = resample(probabilities, labels, "roc_auc", draws=50)
    assert not np.isnan(found.draws).any()


def test_function_is_resampled_on_the_same_rows_as_a_name() -> None:
    predictions, labels = predicted_ids(3, 50)
    named = resample(predictions, labels, "accuracy", draws=30)
    called = resample(predictions, labels, lambda truth, own: float((truth == own).mean()), draws=30)
    assert called.draws == pytest.approx(named.draws)
    assert (called.points == named.points).all()


def test_function_may_read_any_array_with_a_row_along_the_second_axis() -> None:
    probabilities = np.random.default_rng(0).random((2, 30, 3))
    found = resample(probabilities, np.zeros(30, dtype=int), lambda _, own: float(own[:, 0].mean()), draws=5)
    assert found.points == pytest.approx(probabilities[:, :, 0].mean(axis=1))


def test_draws_depend_neither_on_the_recipe_nor_on_the_weights_held_at_a_time() -> None:
    predictions, labels = predicted_ids(3, 50, seeds=3)
    whole = resample(predictions, labels, "f1_macro", draws=30)
    assert (resample(predictions[1:], labels, "f1_macro", draws=30).draws == whole.draws[:, 1:]).all()
    assert (resample(predictions, labels, "f1_macro", draws=30, block_weights=350).draws == whole.draws).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 60), st.integers(2, 6), st.integers(0, 10**6))
def test_resampled_f1_is_a_share(rows: int, classes: int, seed: int) -> None:
    predictions, labels = predicted_ids(classes, rows, seed=seed)
    found = resample(predictions, labels, "f1_macro", draws=10)
    assert found.draws.shape == (10, 2)
    assert ((found.draws >= 0) & (found.draws <= 1)).all()


def test_metric_that_is_undefined_on_the_rows_is_refused() -> None:
    with pytest.raises(DataError, match="undefined on these rows"):
        resample(np.zeros((1, 9), dtype=int), np.zeros(9, dtype=int), "matthews_corrcoef", draws=5)


@pytest.mark.parametrize("metric", ["f1_makro", "f1_samples"])
def test_unknown_metric_is_refused(metric: str) -> None:
    with pytest.raises(DataError, match="cannot be resampled"):
        resample(*predicted_ids(3, 20), metric)


def test_arrays_that_do_not_fit_are_refused() -> None:
    predictions, labels = predicted_ids(3, 20)
    with pytest.raises(DataError, match=r"of shape \(seeds, 19\)"):
        resample(predictions, labels[:-1], "accuracy")
    with pytest.raises(DataError, match="cannot be compared"):
        resample(predictions[0], labels, "accuracy")
    with pytest.raises(DataError, match=r"\(seeds, 20, classes\)"):
        resample(predictions, labels, "roc_auc")
    with pytest.raises(DataError, match=r"\(seeds, 19, \.\.\.\)"):
        resample(predictions, labels[:-1], lambda truth, own: float((truth == own).mean()))
    with pytest.raises(DataError, match="at least one row"):
        resample(predictions[:, :0], labels[:0], "accuracy")


# Groups of rows


def test_groups_of_one_row_are_drawn_like_rows() -> None:
    rows = list(draw_weights(20, 50, 3))
    for names in (np.arange(20), np.arange(20) * 7 + 2):
        for one, other in zip(rows, draw_weights(20, 50, 3, groups=names), strict=True):
            np.testing.assert_array_equal(one, other)


def test_draw_holds_whole_groups() -> None:
    groups = np.array([3, 1, 1, 0, 3, 3, 0])
    for block in (1, 30, 10**6):
        weights = np.concatenate(list(draw_weights(7, 40, 0, block, groups=groups)))
        assert weights.shape == (40, 7)
        for name in (0, 1, 3):
            own = weights[:, groups == name]
            assert (own == own[:, :1]).all()
        assert (weights[:, [3, 1, 0]].sum(axis=1) == 3).all()  # as many groups as there are
        if block > 1:
            np.testing.assert_array_equal(weights, np.concatenate(list(draw_weights(7, 40, 0, 7, groups=groups))))


@pytest.mark.parametrize("metric", ["accuracy", "f1_macro", "log_loss", "roc_auc"])
def test_score_of_a_draw_of_groups_is_that_of_its_rows(metric: str) -> None:
    """Draws of groups have different numbers of rows."""
    random = np.random.default_rng(0)
    labels, groups = random.integers(0, 2, 60), np.sort(random.integers(0, 9, 60))
    probabilities = random.dirichlet((1, 1), (2, 60))
    predictions = probabilities if metric in ("log_loss", "roc_auc") else probabilities.argmax(axis=2)
    found = resample(predictions, labels, metric, groups=groups, draws=30)
    assert (found.rows, found.groups, found.units) == (60, len(set(groups)), len(set(groups)))
    weights = np.concatenate(list(draw_weights(60, 30, 0, groups=groups)))
    for draw, counts in enumerate(weights.astype(int)):
        drawn = np.repeat(np.arange(60), counts)
        if len(set(labels[drawn])) == 2:
            alone = resample(predictions[:, drawn], labels[drawn], metric, draws=1)
            np.testing.assert_allclose(found.draws[draw], alone.points, rtol=1e-5)
