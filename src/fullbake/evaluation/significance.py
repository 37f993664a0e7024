"""Whether one recipe is better than another, or only luckier: differences, their intervals, p-values, and rows needed.

A recipe's score moves for two reasons: other test rows, and other seeds. Both are drawn here: the rows by a bootstrap
that all recipes share (`resampling`), the seeds from the few that were trained. To draw the seeds too, with
replacement, is what first comes to mind, and with three seeds it is wrong in two ways. The seeds' variance comes out
too small by (n - 1) / n, and by more than its mean says, as three values often lie together: in simulated worlds
equally good recipes whose seeds differ were told apart in up to 15% of comparisons, not 5%. And what a seed changes at
single rows is counted twice, by the rows and by the seeds: where seeds differ in nothing else, alarms came in under 1%,
and real differences were missed (benchmarks/simulated_contests.py; the test below had 2 to 7% in all of them).

So the variance is put together from its parts, as in the analysis of readers and cases in radiology, where few readers
(here: seeds, nested in recipes) judge the same cases (here: rows): Obuchowski and Rockette 1995 (Communications in
Statistics B 24), with the degrees of freedom of Hillis 2007 (Statistics in Medicine 26) and, for readers nested in
tests, Hillis 2014 (Statistics in Medicine 33):

    variance of the difference = shared + s_a^2 / n_a + s_b^2 / n_b

`shared` is what the rows move in all seeds of a side alike and in the other side otherwise: means of covariances over
the draws of rows, within a and within b less twice that across. s^2 is the sample variance of a side's scores over its
n seeds; drawing seeds with replacement and mending the factor (n - 1) / n gives just this, so no draws are spent on it.
The two sides need not vary alike (a logistic regression has no luck at all), so the degrees of freedom are
Welch-Satterthwaite's, the shared part counting as known. Student's t gives the interval and the p-value; they agree.

Where seeds make different predictions and yet score the same to the last digit, the grain of a small test set hides
what they do: what the rows say of it takes the place of s^2. With one seed a side, nothing is known of luck: the result
is about these two trained models. The normal shape is the price: of a handful of rows, or scores at their very limit,
an interval is rough.

Who finds the rows of a class, and what is let through: recall per class over rows and seeds, and its curve.

The interval is Wilson's (1927) on as many rows as the mean over seeds is worth, p (1 - p) / variance, never more than
the class has (effective rows, as Korn and Graubard 1998, Survey Methodology 24, have it for clustered samples): so a
class of five rows that is found whole by every seed does not get an interval without width. The variance over rows and
seeds is that of `contests`.

The rows that recipes judge differently: where a choice between them shows, and often where a label is doubtful.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fullbake.config.problems import problem_of
from fullbake.core.errors import DataError
from fullbake.evaluation.bootstrap import DRAWS, BootstrapScores, Statistic, resample
from fullbake.evaluation.scores import CONFIDENCE

LEVEL: Final = round(1 - CONFIDENCE, 10)
"""Chance of a false alarm that is accepted."""
POWER: Final = 0.8
"""Chance with which as many rows as `rows_needed` says show the difference."""
MOST_ROWS_NEEDED: Final = 10_000_000
"""More rows than this nobody will label: then no number is given."""


@dataclass(frozen=True)
class Variance:
    """Variance of a mean over seeds, or of the difference of two, in parts.

    shared: from the rows, alike for all seeds of a side. spread: of each side's mean, as its seeds' scores tell. noise:
    how much of that is expected from what seeds change at single rows. seeds: how many each side has.
    """

    shared: float
    spread: tuple[float, ...]
    noise: tuple[float, ...]
    seeds: tuple[int, ...]

    def seen(self) -> tuple[float, float]:
        """(standard error, degrees of freedom) on these rows."""
        return self._of(self.shared, self.spread)

    def expected(self, scale: float) -> tuple[float, float]:
        """The same for `1 / scale` times as many rows: they shrink all but what seeds do beyond single rows, which is
        what the sides' spread has in excess of their noise, taken together: of one side alone it is hardly known."""
        excess = max(1 - sum(self.noise) / sum(self.spread), 0.0) if sum(self.spread) else 0.0
        sides = [all_ * excess + noise * scale for all_, noise in zip(self.spread, self.noise, strict=True)]
        return self._of(self.shared * scale, sides)

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
    """a - b with its 95% interval over rows and seeds, and the two-sided p-value. variance: how wide, and why. rows:
    test rows."""

    difference: float
    low: float
    high: float
    p: float
    variance: Variance
    rows: int


def compare_pair(
    a: NDArray[Any], b: NDArray[Any], labels: NDArray[Any], statistic: Statistic, *, draws: int = DRAWS, seed: int = 0
) -> Difference:
    """The difference of two recipes on the same test rows. a, b: predictions, (seeds, rows) or (seeds, rows, labels);
    the rest as for `resampling.resample`, which raises what is raised. For many recipes: `resample` each, `contrast`
    the pairs."""
    first, second = (resample(side, labels, statistic, draws=draws, seed=seed) for side in (a, b))
    return contrast(first, second)


def contrast(a: BootstrapScores, b: BootstrapScores) -> Difference:
    """a - b. Raises DataError where the two were not drawn alike."""
    if (a.rows, len(a.draws)) != (b.rows, len(b.draws)):
        raise DataError(
            "two recipes cannot be compared",
            expected="the same test rows, drawn as often",
            got=f"{a.rows:,} rows and {len(a.draws):,} draws; {b.rows:,} and {len(b.draws):,}",
        )
    difference, variance = a.mean - b.mean, _variance(a, b)
    low, high = _interval(difference, variance)
    return Difference(difference, low, high, _p_value(difference, variance), variance, a.rows)


def estimate(scores: BootstrapScores, *, least: float = -np.inf, most: float = np.inf) -> Estimate:
    """The mean over seeds; its interval ends at the metric's own limits."""
    low, high = _interval(scores.mean, _variance(scores))
    return Estimate(scores.mean, max(low, least), min(high, most))


def _variance(*sides: BootstrapScores) -> Variance:
    drawn = np.hstack([side.draws for side in sides])
    covariances = np.atleast_2d(np.cov(drawn[~np.isnan(drawn).any(axis=1)], rowvar=False))
    return partition_variance([side.points for side in sides], covariances)


def partition_variance(points: Sequence[NDArray[np.float64]], covariances: NDArray[np.float64]) -> Variance:
    """The variance of the mean over seeds of one side, or of the first's less the second's. points: each side's scores,
    (seeds,). covariances: of all of them over other test rows, (all seeds, all seeds)."""
    ends = np.cumsum([0, *map(len, points)])
    places = [slice(start, end) for start, end in pairwise(ends)]
    within = [_within(covariances[place, place]) for place in places]
    across = 2 * float(covariances[places[0], places[1]].mean()) if len(places) == 2 else 0.0
    shared = max(sum(together for together, _ in within) - across, 0.0)
    seeds = tuple(map(len, points))
    noise = tuple(alone / n for (_, alone), n in zip(within, seeds, strict=True))
    spread = tuple(_spread(own, alone) / n for own, (_, alone), n in zip(points, within, seeds, strict=True))
    return Variance(shared, spread, noise, seeds)


def _within(covariances: NDArray[np.float64]) -> tuple[float, float]:
    """(covariance of two seeds, what a seed's variance has beyond it) over the draws of rows."""
    seeds, own = len(covariances), float(np.trace(covariances)) / len(covariances)
    if seeds == 1:
        return own, 0.0
    together = float(covariances.sum() - np.trace(covariances)) / (seeds * (seeds - 1))
    return together, max(own - together, 0.0)


_TIE: Final = 1e-12
"""Scores of seeds that lie closer than this are the same."""


def _spread(points: NDArray[np.float64], noise: float) -> float:
    """s^2 of the seeds' scores, or what the rows say of it where it cannot be seen."""
    return float(points.var(ddof=1)) if len(points) > 1 and np.ptp(points) > _TIE else noise


def _interval(value: float, variance: Variance) -> tuple[float, float]:
    from scipy.stats import t  # type: ignore[attr-defined]

    error, freedom = variance.seen()
    reach = float(t.isf(LEVEL / 2, freedom)) * error
    return value - reach, value + reach


def _p_value(difference: float, variance: Variance) -> float:
    from scipy.stats import t  # type: ignore[attr-defined]

    error, freedom = variance.seen()
    if error <= _TIE:
        return 1.0 if abs(difference) <= _TIE else 0.0
    return float(2 * t.sf(abs(difference) / error, freedom))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number, in the same order: those under a level keep the chance of any false alarm
    among all of them under it (Holm 1979, Scandinavian Journal of Statistics 6)."""
    values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    stepped = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1)).clip(max=1.0)
    adjusted = np.empty_like(values)
    adjusted[order] = stepped
    return [float(value) for value in adjusted]


def mcnemar(a_correct: NDArray[Any], b_correct: NDArray[Any]) -> float:
    """Exact two-sided p of McNemar's test (1947) for two trained models. a_correct, b_correct: yes or no, (rows,)."""
    from scipy.stats import binomtest  # type: ignore[attr-defined]

    a, b = np.asarray(a_correct, dtype=bool), np.asarray(b_correct, dtype=bool)
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    return float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def median_seed(points: NDArray[np.float64]) -> int:
    """Which seed scored nearest the median (the first of equals). points: (seeds,)."""
    return int(np.abs(points - np.median(points)).round(12).argmin())


def predict_power(
    seen: Difference, *, size: float | None = None, rows: int | None = None, level: float = LEVEL
) -> float:
    """Chance that a comparison like this one finds a true difference, the right way round. size: of the difference; as
    seen when None. rows: test rows; as many as here when None. level: p-values under it count. By the noncentral t."""
    from scipy.stats import nct, norm, t  # type: ignore[attr-defined]

    true = seen.difference if size is None else size
    error, freedom = seen.variance.expected(1.0 if rows is None else seen.rows / rows)
    if error <= _TIE:
        return float(abs(true) > _TIE)
    limit, shift = float(t.isf(level / 2, freedom)), abs(true) / error
    return float(norm.sf(limit - shift) if np.isinf(freedom) else nct.sf(limit, freedom, shift))


def rows_needed(seen: Difference, *, pairs: int = 1, power: float = POWER) -> int | None:
    """Test rows that would show a difference of the size seen with this chance, the recipes and seeds staying as they
    are; None where no number of rows would (up to `MOST_ROWS`): the difference is nothing, or smaller than the luck of
    the seeds. pairs: of the whole comparison; the level is that of the strictest of Holm's steps."""

    def enough(rows: int) -> bool:
        return predict_power(seen, rows=rows, level=LEVEL / pairs) >= power

    if abs(seen.difference) <= _TIE or not enough(MOST_ROWS_NEEDED):
        return None
    low, high = 0, MOST_ROWS_NEEDED
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


THRESHOLDS: Final = tuple(round(step / 100, 2) for step in range(101))
"""Where the curve is taken."""


def class_recalls(
    predictions: NDArray[Any], labels: NDArray[Any], label_names: Sequence[str]
) -> list[dict[str, float | int | str | None]]:
    """{"label", "support", "mean", "low", "high", "reason"} of each class; null with the reason where no row has it.

    predictions: ids (seeds, rows), or 0 and 1 (seeds, rows, labels). labels: (rows,) or (rows, labels).
    """
    return [_recall(_found(predictions, labels, place), name) for place, name in enumerate(label_names)]


def _found(predictions: NDArray[Any], labels: NDArray[Any], place: int) -> NDArray[np.float64]:
    """Whether each seed found each row of the class, (seeds, rows of the class)."""
    problem = problem_of(labels)
    return problem.has_label(predictions, place)[:, problem.has_label(labels, place)].astype(np.float64)


def _recall(found: NDArray[np.float64], name: str) -> dict[str, float | int | str | None]:
    support = found.shape[1]
    if not support:
        reason = f"no test row is labelled {name!r}"
        return {"label": name, "support": 0, "mean": None, "low": None, "high": None, "reason": reason}
    mean = float(found.mean())
    low, high = _bounds(mean, support, _recall_variance(found))
    return {"label": name, "support": support, "mean": mean, "low": low, "high": high, "reason": None}


def _recall_variance(found: NDArray[np.float64]) -> Variance:
    seeds, support = found.shape
    covariances = np.cov(found, bias=True).reshape(seeds, seeds) / support
    return partition_variance([found.mean(axis=1)], covariances)


def _bounds(mean: float, support: int, variance: Variance) -> tuple[float, float]:
    from scipy.stats import t  # type: ignore[attr-defined]

    error, freedom = variance.seen()
    worth = min(mean * (1 - mean) / error**2, support) if error and 0 < mean < 1 else support
    quantile = float(t.isf(LEVEL / 2, freedom))
    weight = quantile**2 / worth
    center = (mean + weight / 2) / (1 + weight)
    reach = quantile * np.sqrt(mean * (1 - mean) / worth + weight / (4 * worth)) / (1 + weight)
    return max(min(center - reach, mean), 0.0), min(max(center + reach, mean), 1.0)


def threshold_curve(chances: NDArray[np.floating[Any]], held: NDArray[Any], label: str) -> dict[str, Any]:
    """{"label", "thresholds", "recall", "precision", "specificity", "reason"}: at each of `THRESHOLDS` the share of the
    class's rows whose chance reaches it, of the rows that reach it those of the class, and of the other rows those that
    stay below; means over the seeds. Precision is null where no seed's rows reach it, and a curve is where there are no
    rows to count; `reason` tells the latter.

    chances: of the class, (seeds, rows). held: whether a row is of the class, (rows,).
    """
    truth = np.asarray(held, dtype=bool)
    reached = np.stack([chances >= threshold for threshold in THRESHOLDS])  # (thresholds, seeds, rows)
    hits, claimed = reached[..., truth].sum(axis=2), reached.sum(axis=2)
    positives, negatives = int(truth.sum()), int((~truth).sum())
    missing = [
        name for name, rows in ((f"labelled {label!r}", positives), ("labelled otherwise", negatives)) if not rows
    ]
    return {
        "label": label,
        "thresholds": list(THRESHOLDS),
        "recall": _means(hits, np.full_like(hits, positives)),
        "precision": _means(hits, claimed),
        "specificity": _means(negatives - (claimed - hits), np.full_like(hits, negatives)),
        "reason": f"no test row is {missing[0]}" if missing else None,
    }


def _means(above: NDArray[Any], below: NDArray[Any]) -> list[float | None]:
    """Of each threshold, over the seeds where there is something below the line. above, below: (thresholds, seeds)."""
    defined = below > 0
    ratios = np.where(defined, above / np.maximum(below, 1), 0.0)
    return [float(own.sum() / known.sum()) if known.any() else None for own, known in zip(ratios, defined, strict=True)]


def rank_disagreements(
    predictions: Mapping[str, NDArray[Any]], labels: NDArray[Any], most: int | None = None
) -> NDArray[np.int64]:
    """Positions of the rows that not all recipes judge alike, the most disputed first.

    predictions: by recipe, of one model each: ids (rows,), or 0 and 1 (rows, labels). labels: the truth, alike. most:
    how many at most. Most disputed is the row whose commonest answer has the fewest recipes behind it; of equals, the
    one where right and wrong are the most even; of equals, the earlier.
    """
    if not predictions:
        return np.empty(0, dtype=np.int64)
    answers = np.stack([_as_rows(own) for own in predictions.values()])  # (recipes, rows, labels or 1)
    backing = _same(answers[:, None], answers[None]).sum(axis=0).max(axis=0)
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
