"""Ways to compute a metric on thousands of bootstrap draws at once.

A draw of rows with replacement is a vector of weights: how often it holds each row. A resampler takes the predictions
and labels once and returns a function from weights (draws, rows) to scores (draws, seeds). There are three fast kinds:
`by_counts` (a matrix product counts each class's rows), `by_row_means` (a matrix product averages a number per row) and
`by_ranks` (areas under curves along the sorted rows). `by_calling` fits every metric: it takes the rows of each draw
and calls a plain function, some thousand times slower.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullbake.config.problems import problem_of
from fullbake.evaluation.scores import Floats

AnyArray = NDArray[Any]

Scorer = Callable[[AnyArray], Floats]
"""Weights (draws, rows) -> the metric (draws, seeds), NaN where it is undefined."""

Resampler = Callable[[AnyArray, AnyArray], Scorer]
"""(predictions of each seed, labels) -> the function that scores draws. Shapes as for `bootstrap.resample`."""

CountMeasure = Callable[[Floats, Floats, Floats], Floats]
"""(hits, support, claimed), each (draws, classes) -> the metric (draws,). The counts as in `scores.Case`."""

RowMeasure = Callable[[AnyArray, AnyArray], Floats]
"""(labels, predictions of one seed) -> a number per row, (rows,)."""

CurveMeasure = Callable[[Floats, Floats], Floats]
"""Weights of a class's rows and of the other rows at each distinct probability, the highest first, each (draws,
probabilities) -> the area (draws,), NaN where a draw lacks one of the two."""


def by_counts(measure: CountMeasure) -> Resampler:
    """Resample a metric that follows from each class's hits, support and claims."""

    def prepare(predictions: AnyArray, labels: AnyArray) -> Scorer:
        problem = problem_of(labels)
        classes = problem.count_classes(labels, predictions)
        held = problem.label_matrix(labels, classes)

        def score(weights: AnyArray) -> Floats:
            support = _count(weights, held)
            columns = []
            for own in predictions:
                claimed = problem.label_matrix(own, classes)
                columns.append(measure(_count(weights, claimed & held), support, _count(weights, claimed)))
            return np.stack(columns, axis=1)

        return score

    return prepare


def by_row_means(measure: RowMeasure) -> Resampler:
    """Resample a metric that is the mean of a number per row."""

    def prepare(predictions: AnyArray, labels: AnyArray) -> Scorer:
        values = np.array([measure(labels, own) for own in predictions])  # (seeds, rows)
        # A draw of groups holds more or fewer rows than there are; one of rows holds as many.
        return lambda weights: (weights @ values.T.astype(weights.dtype) / weights.sum(axis=1, keepdims=True)).astype(
            np.float64
        )

    return prepare


def by_ranks(curve: CurveMeasure) -> Resampler:
    """Resample an area under a curve: of the last of two classes, else the mean over classes or labels.

    A draw that lacks rows of a class, or other rows, is averaged over the remaining classes.
    """

    def prepare(probabilities: AnyArray, labels: AnyArray) -> Scorer:
        classes = probabilities.shape[2]
        problem = problem_of(labels)
        held, places = problem.label_matrix(labels, classes), problem.one_against_rest(classes)

        def score(weights: AnyArray) -> Floats:
            areas = [
                [_area(weights, own[:, place], held[:, place], curve) for place in places] for own in probabilities
            ]
            by_class = np.array(areas)  # (seeds, classes, draws)
            known = ~np.isnan(by_class)
            return _ratio(np.where(known, by_class, 0).sum(axis=1), known.sum(axis=1).astype(np.float64)).T

        return score

    return prepare


def by_calling(statistic: Callable[[AnyArray, AnyArray], float]) -> Resampler:
    """Resample any function of (labels, predictions of one seed) by calling it on the rows of each draw."""

    def prepare(predictions: AnyArray, labels: AnyArray) -> Scorer:
        def score(weights: AnyArray) -> Floats:
            drawn = [np.repeat(np.arange(len(labels)), counts.astype(np.int64)) for counts in weights]
            return np.array([[statistic(labels[rows], own[rows]) for own in predictions] for rows in drawn])

        return score

    return prepare


def _count(weights: AnyArray, matrix: NDArray[np.bool_]) -> Floats:
    # Counts are whole numbers under 2^24, so that float32 holds them exactly and the product may run in it.
    counts: Floats = (weights @ matrix.astype(weights.dtype)).astype(np.float64)
    return counts


def _ratio(above: Floats, below: Floats) -> Floats:
    """The ratio, NaN where it is 0 / 0."""
    ratio: Floats = np.divide(above, below, out=np.full(np.shape(below), np.nan), where=below > 0)
    return ratio


def _area(weights: AnyArray, scores: AnyArray, held: NDArray[np.bool_], curve: CurveMeasure) -> Floats:
    order = np.argsort(-scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=np.inf))  # of each run of equal scores
    own, truth = weights[:, order].astype(np.float64), held[order]
    return curve(np.add.reduceat(own * truth, starts, axis=1), np.add.reduceat(own * ~truth, starts, axis=1))


# Metrics by counts


def f1_macro(hits: Floats, support: Floats, claimed: Floats) -> Floats:
    """Return the mean F1 over the classes that occur in a draw."""
    both = support + claimed
    return _mean_of_occurring(_ratio(2 * hits, both), both > 0)


def f1_weighted(hits: Floats, support: Floats, claimed: Floats) -> Floats:
    """Return the mean F1 weighted by the classes' rows."""
    scores = np.nan_to_num(_ratio(2 * hits, support + claimed))
    return _ratio((scores * support).sum(axis=1), support.sum(axis=1))


def f1_micro(hits: Floats, support: Floats, claimed: Floats) -> Floats:
    """Return F1 over all classes together; accuracy where a row has one label."""
    return _ratio(2 * hits.sum(axis=1), (support + claimed).sum(axis=1))


def recall_macro(hits: Floats, support: Floats, claimed: Floats) -> Floats:  # noqa: ARG001  (one shape for all)
    """Return the mean recall over the classes that have rows in a draw."""
    return _mean_of_occurring(_ratio(hits, support), support > 0)


def matthews_corrcoef(hits: Floats, support: Floats, claimed: Floats) -> Floats:
    """Return Matthews' correlation coefficient, NaN where all rows of a draw have one label."""
    rows = support.sum(axis=1)
    together = hits.sum(axis=1) * rows - (support * claimed).sum(axis=1)
    apart = (rows**2 - (support**2).sum(axis=1)) * (rows**2 - (claimed**2).sum(axis=1))
    one_label = (support == rows[:, None]).any(axis=1)
    return np.where(one_label, np.nan, together / np.sqrt(np.where(apart > 0, apart, np.inf)))


def _mean_of_occurring(scores: Floats, occurring: NDArray[np.bool_]) -> Floats:
    return _ratio(np.where(occurring, scores, 0).sum(axis=1), occurring.sum(axis=1).astype(np.float64))


# Metrics that are means over rows


def all_right(labels: AnyArray, predicted: AnyArray) -> Floats:
    """Return 1 for each row whose labels are all right, else 0."""
    right: Floats = ((labels == 1) == (predicted == 1)).all(axis=1).astype(np.float64)
    return right


def f1_of_rows(labels: AnyArray, predicted: AnyArray) -> Floats:
    """Return each row's F1 over its labels; 1 where it has none and none was predicted."""
    held, claimed = labels == 1, predicted == 1
    both = held.sum(axis=1) + claimed.sum(axis=1)
    scores: Floats = np.where(both > 0, 2 * (held & claimed).sum(axis=1) / np.maximum(both, 1), 1.0)
    return scores


def log_losses(labels: AnyArray, probabilities: AnyArray) -> Floats:
    """Return each row's negative log-likelihood in nats; the mean over its labels where it may have many."""
    return problem_of(labels).probability_losses(probabilities, labels)


def log_likelihoods(labels: AnyArray, probabilities: AnyArray) -> Floats:
    """Return minus `log_losses`."""
    return -log_losses(labels, probabilities)


# Areas under curves


def area_under_roc(held: Floats, others: Floats) -> Floats:
    """Return the share of pairs of a class's row and another row that are in the right order; ties count half."""
    below = others.sum(axis=1, keepdims=True) - others.cumsum(axis=1)
    return _ratio((held * (below + others / 2)).sum(axis=1), held.sum(axis=1) * others.sum(axis=1))


def average_precision(held: Floats, others: Floats) -> Floats:
    """Return the mean over a class's rows of the precision at their probability."""
    hits = held.cumsum(axis=1)
    precision = np.nan_to_num(_ratio(hits, hits + others.cumsum(axis=1)))
    mixed = (held.sum(axis=1) > 0) & (others.sum(axis=1) > 0)
    return np.where(mixed, _ratio((precision * held).sum(axis=1), held.sum(axis=1)), np.nan)
