"""A metric again and again on resampled test rows: what the intervals and tests of `contests` are made of.

The draws depend on the number of rows, on how many are drawn and on the seed alone, so every recipe that was scored on
the same rows is drawn alike, and two of them can be compared draw by draw though each was resampled by itself: the work
grows with the recipes, not with their pairs. The metrics that validation may choose by are computed for all draws at
once: those of predicted labels by a matrix product, those of probabilities along their sorted rows. Any other is a
function that is called for each draw and seed, some thousand times slower.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fullbake.core.errors import DataError, did_you_mean

DRAWS: Final = 2000
"""Draws of the rows. A standard error is then known to 1 in 60 (its relative error is 1 / sqrt(2 draws))."""

Statistic = str | Callable[[NDArray[Any], NDArray[Any]], float]
"""A name (of `BY_COUNTS`, `BY_ROWS` or `BY_CHANCES`), or (labels, predictions) -> number, NaN where it is undefined."""

Floats = NDArray[np.float64]

_BLOCK_ROWS: Final = 4_000_000
"""Weights (a draw's count of a row) held at a time."""


@dataclass(frozen=True)
class BootstrapScores:
    """A metric of one recipe. points: of each seed on the test rows, (seeds,). draws: the same on resampled rows,
    (draws, seeds), NaN where it is undefined. rows: test rows."""

    points: Floats
    draws: Floats
    rows: int

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return float(self.points.mean())


def resample(
    predictions: NDArray[Any], labels: NDArray[Any], statistic: Statistic, *, draws: int = DRAWS, seed: int = 0
) -> BootstrapScores:
    """Score every seed on the rows as they are, and on `draws` draws of as many rows with replacement.

    predictions: ids (seeds, rows), or 0 and 1 (seeds, rows, labels); probabilities (seeds, rows, classes) where the
    metric is one of `BY_CHANCES`; anything with a row along the second axis for a function. labels: (rows,) or (rows,
    labels). Averages run over the classes that occur in a draw, as in `metrics`; where a metric of probabilities needs
    rows of a class and other rows, over the classes that have both.

    Raises DataError where the arrays do not fit together or the metric is undefined on most draws, or on the rows.
    """
    _check(predictions, labels, statistic)
    rows = len(labels)
    score = _scorer(predictions, labels, statistic)
    points = score(np.ones((1, rows)))[0]
    drawn = np.concatenate([score(weights) for weights in _weights(rows, draws, seed)])
    if np.isnan(points).any() or np.isnan(drawn).any(axis=1).mean() > 0.5:
        raise DataError(
            "the metric is undefined on these rows, or on most draws of them",
            where="test",
            got=f"{np.isnan(drawn).any(axis=1).mean():.0%} of {draws:,} draws without a value",
            remedy="Give more test rows, or choose a metric that is always defined, such as f1_macro.",
        )
    return BootstrapScores(points, drawn, rows)


def _weights(rows: int, draws: int, seed: int) -> Iterator[NDArray[np.float32]]:
    """How often each row is in each draw: float32 (some draws, rows) at a time."""
    random, block = np.random.default_rng(seed), max(1, _BLOCK_ROWS // rows)
    for start in range(0, draws, block):
        size = min(block, draws - start)
        taken = random.integers(0, rows, (size, rows)) + rows * np.arange(size)[:, None]
        yield np.bincount(taken.ravel(), minlength=size * rows).reshape(size, rows).astype(np.float32)


Scorer = Callable[[NDArray[Any]], Floats]
"""Weights (draws, rows) -> the metric (draws, seeds)."""


def _scorer(predictions: NDArray[Any], labels: NDArray[Any], statistic: Statistic) -> Scorer:
    if callable(statistic):
        return _called(predictions, labels, statistic)
    if statistic == "neg_log_loss":
        return _averaged(np.array([_log_chances(labels, own) for own in predictions]))
    if statistic in BY_CHANCES:
        return _sorted(predictions, labels, _CURVES[statistic])
    if labels.ndim == 2 and statistic in BY_ROWS:
        return _averaged(np.array([BY_ROWS[statistic](labels == 1, own == 1) for own in predictions]))
    return _counted(predictions, labels, BY_COUNTS[statistic])


def _called(
    predictions: NDArray[Any], labels: NDArray[Any], statistic: Callable[[NDArray[Any], NDArray[Any]], float]
) -> Scorer:
    def score(weights: NDArray[Any]) -> Floats:
        taken = [np.repeat(np.arange(len(labels)), counts.astype(np.int64)) for counts in weights]
        return np.array([[statistic(labels[rows], own[rows]) for own in predictions] for rows in taken])

    return score


def _averaged(values: NDArray[Any]) -> Scorer:
    """The mean over rows. values: (seeds, rows)."""
    return lambda weights: (weights @ values.T.astype(weights.dtype) / values.shape[1]).astype(np.float64)


def _counted(predictions: NDArray[Any], labels: NDArray[Any], measure: "CountMeasure") -> Scorer:
    classes = 0 if labels.ndim == 2 else int(max(predictions.max(), labels.max())) + 1
    held = _marks(labels, classes)

    def score(weights: NDArray[Any]) -> Floats:
        support = _count(weights, held)
        columns = []
        for own in predictions:
            claimed = _marks(own, classes)
            columns.append(measure(_count(weights, claimed & held), support, _count(weights, claimed)))
        return np.stack(columns, axis=1)

    return score


def _marks(ids: NDArray[Any], classes: int) -> NDArray[np.bool_]:
    """Which classes each row has, (rows, classes)."""
    marks: NDArray[np.bool_] = ids == 1 if ids.ndim == 2 else ids[:, None] == np.arange(classes)
    return marks


def _count(weights: NDArray[Any], marks: NDArray[np.bool_]) -> Floats:
    """(draws, classes). Whole numbers under 2^24, so float32 holds them exactly."""
    counts: Floats = (weights @ marks.astype(weights.dtype)).astype(np.float64)
    return counts


# Metrics by counts: hits (rightly predicted), support (labelled), claimed (predicted), each (draws, classes)

CountMeasure = Callable[[Floats, Floats, Floats], Floats]


def _over(above: Floats, below: Floats) -> Floats:
    """The ratio, NaN where it is 0 / 0."""
    ratio: Floats = np.divide(above, below, out=np.full(np.shape(below), np.nan), where=below > 0)
    return ratio


def _mean_of_occurring(scores: Floats, occurring: NDArray[np.bool_]) -> Floats:
    return _over(np.where(occurring, scores, 0).sum(axis=1), occurring.sum(axis=1).astype(np.float64))


def _f1_macro(hits: Floats, support: Floats, claimed: Floats) -> Floats:
    both = support + claimed
    return _mean_of_occurring(_over(2 * hits, both), both > 0)


def _f1_weighted(hits: Floats, support: Floats, claimed: Floats) -> Floats:
    scores = np.nan_to_num(_over(2 * hits, support + claimed))
    return _over((scores * support).sum(axis=1), support.sum(axis=1))


def _f1_micro(hits: Floats, support: Floats, claimed: Floats) -> Floats:
    return _over(2 * hits.sum(axis=1), (support + claimed).sum(axis=1))


def _recall_macro(hits: Floats, support: Floats, claimed: Floats) -> Floats:  # noqa: ARG001  (one shape for all)
    return _mean_of_occurring(_over(hits, support), support > 0)


def _matthews(hits: Floats, support: Floats, claimed: Floats) -> Floats:
    rows = support.sum(axis=1)
    together = hits.sum(axis=1) * rows - (support * claimed).sum(axis=1)
    apart = (rows**2 - (support**2).sum(axis=1)) * (rows**2 - (claimed**2).sum(axis=1))
    one_label = (support == rows[:, None]).any(axis=1)
    return np.where(one_label, np.nan, together / np.sqrt(np.where(apart > 0, apart, np.inf)))


BY_COUNTS: Final[dict[str, CountMeasure]] = {
    "accuracy": _f1_micro,  # where a row has one label both are the share of right rows
    "f1_macro": _f1_macro,
    "f1_micro": _f1_micro,
    "f1_weighted": _f1_weighted,
    "recall_macro": _recall_macro,
    "matthews_corrcoef": _matthews,
}
"""Metrics that follow from each class's hits, support and claims."""


def _f1_samples(held: NDArray[np.bool_], claimed: NDArray[np.bool_]) -> Floats:
    both = held.sum(axis=1) + claimed.sum(axis=1)
    shares: Floats = np.where(both > 0, 2 * (held & claimed).sum(axis=1) / np.maximum(both, 1), 1.0)
    return shares


BY_ROWS: Final[dict[str, Callable[[NDArray[np.bool_], NDArray[np.bool_]], Floats]]] = {
    "accuracy": lambda held, claimed: (held == claimed).all(axis=1).astype(np.float64),
    "f1_samples": _f1_samples,
}
"""Metrics that are means over rows where a row may have many labels."""


# Metrics of probabilities


def _log_chances(labels: NDArray[Any], chances: NDArray[Any]) -> Floats:
    """Log-likelihood of each row, in nats; the mean over labels where it may have many. 0 counts as an epsilon."""
    exact = np.asarray(chances, dtype=np.float64)
    own = exact[np.arange(len(labels)), labels] if labels.ndim == 1 else np.where(labels == 1, exact, 1 - exact)
    logs: Floats = np.log(np.clip(own, np.finfo(np.float64).eps, 1))
    return logs if labels.ndim == 1 else logs.mean(axis=1)


Curve = Callable[[Floats, Floats], Floats]
"""Weights of a class's rows and of the others at each distinct probability, the highest first, (draws, probabilities)
-> area under the curve (draws,), NaN where a draw lacks one of the two."""


def _roc_auc(held: Floats, others: Floats) -> Floats:
    below = others.sum(axis=1, keepdims=True) - others.cumsum(axis=1)
    return _over((held * (below + others / 2)).sum(axis=1), held.sum(axis=1) * others.sum(axis=1))


def _average_precision(held: Floats, others: Floats) -> Floats:
    hits = held.cumsum(axis=1)
    precision = np.nan_to_num(_over(hits, hits + others.cumsum(axis=1)))
    mixed = (held.sum(axis=1) > 0) & (others.sum(axis=1) > 0)
    return np.where(mixed, _over((precision * held).sum(axis=1), held.sum(axis=1)), np.nan)


_CURVES: Final[dict[str, Curve]] = {"roc_auc": _roc_auc, "average_precision": _average_precision}

BY_CHANCES: Final = (*_CURVES, "neg_log_loss")
"""Metrics that need probabilities: of two exclusive classes that of the last, of more the mean of one against the
rest."""


def _sorted(chances: NDArray[Any], labels: NDArray[Any], curve: Curve) -> Scorer:
    held = _marks(labels, chances.shape[2])
    places = [1] if labels.ndim == 1 and chances.shape[2] == 2 else list(range(chances.shape[2]))

    def score(weights: NDArray[Any]) -> Floats:
        areas = [[_area(weights, own[:, place], held[:, place], curve) for place in places] for own in chances]
        by_class = np.array(areas)  # (seeds, classes, draws)
        known = ~np.isnan(by_class)
        return _over(np.where(known, by_class, 0).sum(axis=1), known.sum(axis=1).astype(np.float64)).T

    return score


def _area(weights: NDArray[Any], chances: NDArray[Any], held: NDArray[np.bool_], curve: Curve) -> Floats:
    order = np.argsort(-chances, kind="stable")
    starts = np.flatnonzero(np.diff(chances[order], prepend=np.inf))
    own, truth = weights[:, order].astype(np.float64), held[order]
    return curve(np.add.reduceat(own * truth, starts, axis=1), np.add.reduceat(own * ~truth, starts, axis=1))


def _check(predictions: NDArray[Any], labels: NDArray[Any], statistic: Statistic) -> None:
    problems = _fault(np.shape(predictions), np.shape(labels), statistic)
    if problems:
        raise DataError(
            "predictions and labels cannot be compared", expected=problems, got=f"shape {np.shape(predictions)}"
        )
    known = {*BY_COUNTS, *BY_CHANCES}
    if np.ndim(labels) == 2:
        known = (known | {*BY_ROWS}) - {"matthews_corrcoef"}
    if isinstance(statistic, str) and statistic not in known:
        raise DataError(
            "the metric cannot be resampled",
            where="statistic",
            got=repr(statistic),
            remedy=f"{did_you_mean(statistic, sorted(known))} Any other is passed as a function.",
        )


def _fault(shape: tuple[int, ...], labels: tuple[int, ...], statistic: Statistic) -> str | None:
    """What should have been given, None where it was."""
    wanted = [str(size) for size in labels]
    if statistic in BY_CHANCES and len(labels) == 1:
        wanted, labels = [*wanted, "classes"], (*labels, *shape[2:3])
    seen = shape[1:2] if callable(statistic) else shape[1:]
    if len(shape) >= 2 and seen == (labels[:1] if callable(statistic) else labels) and len(wanted) == len(labels):
        return None if labels[0] else "at least one row"
    return f"predictions of shape (seeds, {', '.join(wanted)})"
