"""Whether one recipe is better than another: differences, intervals, p-values, rows needed; recalls; disagreements.

A score varies with the test rows and with the seed. The rows are drawn by a bootstrap that all recipes share; the seeds
are the few that were trained. The variance is added up from its parts (see `Variance`), because drawing the seeds with
replacement too is wrong in two ways: it makes their variance too small by (n - 1) / n, and it counts twice what a seed
changes at single rows. In simulations with three seeds, equally good recipes then differed "significantly" in up to 15%
of comparisons instead of 5%; this test had 2 to 7% (benchmarks/simulated_contests.py). The price is the assumption of a
normal shape: from a handful of rows, or for scores at their limit, an interval is rough.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fullbake.config.problems import problem_of
from fullbake.core.errors import DataError
from fullbake.evaluation.bootstrap import BootstrapScores
from fullbake.evaluation.scores import CONFIDENCE

LEVEL: Final = round(1 - CONFIDENCE, 10)
"""Accepted probability of a false alarm."""
POWER: Final = 0.8
"""Probability with which the number of rows from `rows_needed` shows the difference."""
MOST_ROWS_NEEDED: Final = 10_000_000
"""No number of rows is given above this one, because nobody labels so many."""


@dataclass(frozen=True)
class Variance:
    """Variance of a mean over seeds, or of the difference of two such means, in parts.

    This is the analysis of readers and cases from radiology: few readers (here seeds, nested in recipes) judge the same
    cases (here rows). Obuchowski and Rockette 1995 (Communications in Statistics B 24); degrees of freedom of Hillis
    2007 (Statistics in Medicine 26) and, for readers nested in tests, Hillis 2014 (Statistics in Medicine 33):

        variance of the difference = shared + s_a^2 / n_a + s_b^2 / n_b

    s^2 is the sample variance of a side's scores over its n seeds. The sides need not vary alike (a logistic regression
    does not depend on the seed at all), so the degrees of freedom are Welch-Satterthwaite's, with the shared part taken
    as known. With one seed a side, nothing is known about seeds: the result is about these trained models.
    """

    shared: float
    """From the rows: what they change in all seeds of a side alike, and in the other side differently."""

    spread: tuple[float, ...]
    """s^2 / n of each side."""

    noise: tuple[float, ...]
    """The part of each side's spread that is expected from what seeds change at single rows."""

    seeds: tuple[int, ...]
    """Number of seeds n of each side."""

    def on_these_rows(self) -> tuple[float, float]:
        """Return (standard error, degrees of freedom) on as many rows as were scored."""
        return self._of(self.shared, self.spread)

    def on_other_rows(self, ratio: float) -> tuple[float, float]:
        """Return (standard error, degrees of freedom) on another number of rows.

        More rows shrink all but what seeds change beyond single rows. That is the excess of the spread over the noise;
        it is taken over both sides together, since a single side tells little about it.

        Args:
            ratio: The number of rows that were scored, divided by the other number.
        """
        excess = max(1 - sum(self.noise) / sum(self.spread), 0.0) if sum(self.spread) else 0.0
        sides = [spread * excess + noise * ratio for spread, noise in zip(self.spread, self.noise, strict=True)]
        return self._of(self.shared * ratio, sides)

    def _of(self, shared: float, sides: Sequence[float]) -> tuple[float, float]:
        total = shared + sum(sides)
        doubt = sum(side**2 / (n - 1) for side, n in zip(sides, self.seeds, strict=True) if n > 1)
        return float(np.sqrt(total)), float(total**2 / doubt) if doubt else np.inf


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its 95% interval over rows and seeds."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """The difference a - b of two recipes' means over seeds."""

    difference: float
    low: float
    """Lower end of the 95% interval over rows and seeds."""

    high: float
    """Upper end of the interval."""

    p: float
    """Two-sided p-value; under 0.05 exactly where the interval excludes 0."""

    variance: Variance
    rows: int
    """Number of test rows."""


def contrast(a: BootstrapScores, b: BootstrapScores) -> Difference:
    """Return the difference a - b with its interval and p-value, both from Student's t.

    Raises:
        DataError: The two were scored on different numbers of rows or draws.
    """
    if (a.rows, len(a.draws)) != (b.rows, len(b.draws)):
        raise DataError(
            "two recipes cannot be compared",
            expected="the same test rows and the same number of draws",
            got=f"{a.rows:,} rows and {len(a.draws):,} draws; {b.rows:,} rows and {len(b.draws):,} draws",
        )
    difference, variance = a.mean - b.mean, _variance(a, b)
    low, high = _interval(difference, variance)
    return Difference(difference, low, high, _p_value(difference, variance), variance, a.rows)


def estimate(scores: BootstrapScores, *, least: float = -np.inf, most: float = np.inf) -> Estimate:
    """Return the mean over seeds with its interval.

    Args:
        scores: A recipe's resampled metric.
        least: The lowest value of the metric, where the interval ends at the latest.
        most: The highest value of the metric.
    """
    low, high = _interval(scores.mean, _variance(scores))
    return Estimate(scores.mean, max(low, least), min(high, most))


def _variance(*sides: BootstrapScores) -> Variance:
    drawn = np.hstack([side.draws for side in sides])
    covariances = np.atleast_2d(np.cov(drawn[~np.isnan(drawn).any(axis=1)], rowvar=False))
    return partition_variance([side.points for side in sides], covariances)


def partition_variance(points: Sequence[NDArray[np.float64]], covariances: NDArray[np.float64]) -> Variance:
    """Return the variance of one side's mean over seeds, or of the first side's mean less the second's.

    Args:
        points: Each side's scores, (seeds,).
        covariances: Covariances of all these scores over other test rows, (all seeds, all seeds).
    """
    ends = np.cumsum([0, *map(len, points)])
    sides = [slice(start, end) for start, end in pairwise(ends)]
    within = [_within(covariances[side, side]) for side in sides]
    across = 2 * float(covariances[sides[0], sides[1]].mean()) if len(sides) == 2 else 0.0
    shared = max(sum(together for together, _ in within) - across, 0.0)
    seeds = tuple(map(len, points))
    noise = tuple(alone / n for (_, alone), n in zip(within, seeds, strict=True))
    spread = tuple(_spread(own, alone) / n for own, (_, alone), n in zip(points, within, seeds, strict=True))
    return Variance(shared, spread, noise, seeds)


def _within(covariances: NDArray[np.float64]) -> tuple[float, float]:
    """Return (mean covariance of two seeds, the excess of a seed's variance over it), both over the draws of rows."""
    seeds, own = len(covariances), float(np.trace(covariances)) / len(covariances)
    if seeds == 1:
        return own, 0.0
    together = float(covariances.sum() - np.trace(covariances)) / (seeds * (seeds - 1))
    return together, max(own - together, 0.0)


_TIE: Final = 1e-12
"""Scores closer than this count as equal."""


def _spread(points: NDArray[np.float64], noise: float) -> float:
    """Return s^2 of the seeds' scores.

    With one seed, or where different predictions give equal scores (on few rows scores take few values), s^2 is not
    visible. Then the noise that the rows show takes its place.
    """
    return float(points.var(ddof=1)) if len(points) > 1 and np.ptp(points) > _TIE else noise


def _interval(value: float, variance: Variance) -> tuple[float, float]:
    from scipy.stats import t  # type: ignore[attr-defined]

    error, freedom = variance.on_these_rows()
    reach = float(t.isf(LEVEL / 2, freedom)) * error
    return value - reach, value + reach


def _p_value(difference: float, variance: Variance) -> float:
    from scipy.stats import t  # type: ignore[attr-defined]

    error, freedom = variance.on_these_rows()
    if error <= _TIE:
        return 1.0 if abs(difference) <= _TIE else 0.0
    return float(2 * t.sf(abs(difference) / error, freedom))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number, in the same order (Holm 1979, Scandinavian Journal of Statistics 6).

    Calling those under a level significant keeps the probability of any false alarm among all of them under that level.
    """
    values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    stepped = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1)).clip(max=1.0)
    adjusted = np.empty_like(values)
    adjusted[order] = stepped
    return [float(value) for value in adjusted]


def mcnemar(a_correct: NDArray[Any], b_correct: NDArray[Any]) -> float:
    """Return the exact two-sided p-value of McNemar's test (1947) for two trained models.

    Args:
        a_correct: Whether model a is right on each row, (rows,).
        b_correct: The same for model b.
    """
    from scipy.stats import binomtest  # type: ignore[attr-defined]

    a, b = np.asarray(a_correct, dtype=bool), np.asarray(b_correct, dtype=bool)
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    return float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def median_seed(points: NDArray[np.float64]) -> int:
    """Return the position of the seed whose score is nearest the median (the first of equals). points: (seeds,)."""
    return int(np.abs(points - np.median(points)).round(12).argmin())


def predict_power(
    observed: Difference, *, size: float | None = None, rows: int | None = None, level: float = LEVEL
) -> float:
    """Return the probability that a comparison like this one finds a true difference, with the right sign.

    The noncentral t distribution gives it.

    Args:
        observed: The comparison that was made; its variance is taken.
        size: The true difference; None takes the observed one.
        rows: Number of test rows; None takes as many as were scored.
        level: p-values under it count as found.
    """
    from scipy.stats import nct, norm, t  # type: ignore[attr-defined]

    true = observed.difference if size is None else size
    error, freedom = observed.variance.on_other_rows(1.0 if rows is None else observed.rows / rows)
    if error <= _TIE:
        return float(abs(true) > _TIE)
    limit, shift = float(t.isf(level / 2, freedom)), abs(true) / error
    return float(norm.sf(limit - shift) if np.isinf(freedom) else nct.sf(limit, freedom, shift))


def rows_needed(observed: Difference, *, pairs: int = 1, power: float = POWER) -> int | None:
    """Return how many test rows would show a difference of the observed size.

    Args:
        observed: The comparison that was made. Recipes and seeds stay as they are.
        pairs: Pairs in the whole comparison; the level is that of the strictest of Holm's steps.
        power: Probability with which the difference is found.

    Returns:
        The number of rows, or None where none up to `MOST_ROWS_NEEDED` is enough: the difference is 0, or smaller than
        what the seeds change.
    """

    def enough(rows: int) -> bool:
        return predict_power(observed, rows=rows, level=LEVEL / pairs) >= power

    if abs(observed.difference) <= _TIE or not enough(MOST_ROWS_NEEDED):
        return None
    low, high = 0, MOST_ROWS_NEEDED
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


# Recall per class, and its threshold curve

THRESHOLDS: Final = tuple(round(step / 100, 2) for step in range(101))
"""Thresholds of the curve."""


def class_recalls(
    predictions: NDArray[Any], labels: NDArray[Any], label_names: Sequence[str]
) -> list[dict[str, float | int | str | None]]:
    """Return each class's recall over rows and seeds with its interval.

    The interval is Wilson's (1927) on the number of rows that the mean over seeds is worth, p (1 - p) / variance, and
    never more than the class has (effective rows: Korn and Graubard 1998, Survey Methodology 24). So a class of five
    rows that every seed finds whole still gets an interval with a width.

    Args:
        predictions: Class ids (seeds, rows), or label matrices (seeds, rows, labels).
        labels: Class ids (rows,), or a label matrix (rows, labels).
        label_names: (classes,).

    Returns:
        {"label", "support", "mean", "low", "high", "reason"} of each class; null with the reason where no row has it.
    """
    problem, recalls = problem_of(labels), []
    for label, name in enumerate(label_names):
        rows = problem.has_label(labels, label)
        recalls.append(_recall(problem.has_label(predictions, label)[:, rows].astype(np.float64), name))
    return recalls


def _recall(found: NDArray[np.float64], name: str) -> dict[str, float | int | str | None]:
    """found: 1 where a seed predicted the class for a row that has it, else 0, (seeds, rows of the class)."""
    seeds, support = found.shape
    if not support:
        reason = f"no test row is labeled {name!r}"
        return {"label": name, "support": 0, "mean": None, "low": None, "high": None, "reason": reason}
    covariances = np.cov(found, bias=True).reshape(seeds, seeds) / support
    mean = float(found.mean())
    low, high = _wilson(mean, support, partition_variance([found.mean(axis=1)], covariances))
    return {"label": name, "support": support, "mean": mean, "low": low, "high": high, "reason": None}


def _wilson(mean: float, support: int, variance: Variance) -> tuple[float, float]:
    from scipy.stats import t  # type: ignore[attr-defined]

    error, freedom = variance.on_these_rows()
    effective = min(mean * (1 - mean) / error**2, support) if error and 0 < mean < 1 else support
    quantile = float(t.isf(LEVEL / 2, freedom))
    weight = quantile**2 / effective
    center = (mean + weight / 2) / (1 + weight)
    reach = quantile * np.sqrt(mean * (1 - mean) / effective + weight / (4 * effective)) / (1 + weight)
    return max(min(center - reach, mean), 0.0), min(max(center + reach, mean), 1.0)


def threshold_curve(probabilities: NDArray[np.floating[Any]], positive: NDArray[Any], label: str) -> dict[str, Any]:
    """Return recall, precision and specificity of one class at each of `THRESHOLDS`, as means over the seeds.

    Args:
        probabilities: Probabilities of the class, (seeds, rows).
        positive: Whether each row is of the class, (rows,).
        label: Name of the class.

    Returns:
        {"label", "thresholds", "recall", "precision", "specificity", "reason"}. A row is predicted where its
        probability reaches the threshold. Precision is null where no seed predicts a row. A whole curve is null where
        no row is of the class, or none is of another; then `reason` says so.
    """
    truth = np.asarray(positive, dtype=bool)
    predicted = np.stack([probabilities >= threshold for threshold in THRESHOLDS])  # (thresholds, seeds, rows)
    hits, claimed = predicted[..., truth].sum(axis=2), predicted.sum(axis=2)
    positives, negatives = int(truth.sum()), int((~truth).sum())
    missing = [name for name, rows in ((f"labeled {label!r}", positives), ("labeled otherwise", negatives)) if not rows]
    return {
        "label": label,
        "thresholds": list(THRESHOLDS),
        "recall": _mean_ratios(hits, np.full_like(hits, positives)),
        "precision": _mean_ratios(hits, claimed),
        "specificity": _mean_ratios(negatives - (claimed - hits), np.full_like(hits, negatives)),
        "reason": f"no test row is {missing[0]}" if missing else None,
    }


def _mean_ratios(above: NDArray[Any], below: NDArray[Any]) -> list[float | None]:
    """The mean ratio of each threshold over the seeds where `below` is not 0; None where no seed is left.

    above, below: (thresholds, seeds).
    """
    defined = below > 0
    ratios = np.where(defined, above / np.maximum(below, 1), 0.0)
    return [float(own.sum() / known.sum()) if known.any() else None for own, known in zip(ratios, defined, strict=True)]


# Disagreements


def rank_disagreements(
    predictions: Mapping[str, NDArray[Any]], labels: NDArray[Any], most: int | None = None
) -> NDArray[np.int64]:
    """Return the positions of the rows for which not all recipes predict the same, the most disputed first.

    These rows show where a choice between recipes matters, and often where a label is doubtful. The most disputed row
    is the one whose most common answer has the fewest recipes behind it; among equals, the one where right and wrong
    answers are closest in number; among equals, the earlier one.

    Args:
        predictions: By recipe, what one of its models predicts: class ids (rows,), or a label matrix (rows, labels).
        labels: True labels, in the same form.
        most: How many rows to return at most; None for all.
    """
    if not predictions:
        return np.empty(0, dtype=np.int64)
    answers = np.stack([_as_rows(own) for own in predictions.values()])  # (recipes, rows, labels or 1)
    backing = _same(answers[:, None], answers[None]).sum(axis=0).max(axis=0)  # recipes with the most common answer
    right = _same(answers, _as_rows(labels)[None]).sum(axis=0)
    disputed = np.flatnonzero(backing < len(answers))
    uneven = np.abs(2 * right - len(answers))
    order = np.lexsort((disputed, uneven[disputed], backing[disputed]))
    ranked: NDArray[np.int64] = disputed[order][:most]
    return ranked


def _as_rows(ids: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(ids).reshape(len(ids), -1)


def _same(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.bool_]:
    same: NDArray[np.bool_] = (a == b).all(axis=-1)
    return same
