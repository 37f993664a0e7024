"""Whether one recipe is better than another: differences, intervals, p-values, rows needed; recalls; disagreements.

A score varies with the test rows and with the seed. The rows are drawn by a bootstrap that all recipes share; the seeds
are the few that were trained. The variance is added up from its parts (see `Variance`), because drawing the seeds with
replacement too is wrong in two ways: it makes their variance too small by (n - 1) / n, and it counts twice what a seed
changes at single rows. In simulations with three seeds, equally good recipes then differed "significantly" in up to 15%
of comparisons instead of 5%; this test had 2 to 7% (benchmarks/simulated_contests.py). The price is the assumption of a
normal shape: from a handful of rows, or for scores at their limit, an interval is rough.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
class SeedEstimate:
    """The sample variance of one recipe's scores over its seeds, and what it adds to the variance of a difference."""

    parts: tuple[float, ...]
    """What it adds to the spread of each side. A side that was trained once borrows the estimates of other recipes."""

    freedom: int
    """Degrees of freedom: the recipe's seeds less one."""


@dataclass(frozen=True)
class Variance:
    """Variance of a mean over seeds, or of the difference of two such means, in parts.

    This is the analysis of readers and cases from radiology: few readers (here seeds, nested in recipes) judge the same
    cases (here rows). Obuchowski and Rockette 1995 (Communications in Statistics B 24); degrees of freedom of Hillis
    2007 (Statistics in Medicine 26) and, for readers nested in tests, Hillis 2014 (Statistics in Medicine 33):

        variance of the difference = shared + s_a^2 / n_a + s_b^2 / n_b

    s^2 is the sample variance of a side's scores over its n seeds. The sides need not vary alike (a logistic regression
    does not depend on the seed at all), so the degrees of freedom are Satterthwaite's for a sum of independent sample
    variances. The shared part is taken as known (see `StandardError`). A side with one seed has no s^2 of its own. It
    borrows the mean of those of similar recipes, weighted by their degrees of freedom; the other side may be one of
    them.
    """

    shared: float
    """From the rows: what they change in all seeds of a side alike, and in the other side differently."""

    estimates: tuple[SeedEstimate, ...]
    """From the seeds: independent sample variances, each with what it adds to s^2 / n of each side."""

    noise: tuple[float, ...]
    """The part of each side's spread that is expected from what seeds change at single rows."""

    seeds_known: bool = True
    """False if nothing tells what another seed would change on a side; the result is about these trainings only."""

    @property
    def spread(self) -> tuple[float, ...]:
        """Return s^2 / n of each side."""
        return tuple(sum(estimate.parts[side] for estimate in self.estimates) for side in range(len(self.noise)))

    def on_these_rows(self) -> "StandardError":
        """Return the standard error on as many rows as were scored."""
        return self._with(self.shared, [1.0] * len(self.noise))

    def on_other_rows(self, ratio: float) -> "StandardError":
        """Return the standard error on another number of rows.

        More rows shrink all but what seeds change beyond single rows. That is the excess of the spread over the noise;
        it is taken over both sides together, since a single side tells little about it.

        Args:
            ratio: The number of rows that were scored, divided by the other number.
        """
        spread = self.spread
        excess = max(1 - sum(self.noise) / sum(spread), 0.0) if sum(spread) else 0.0
        factors = [
            (side * excess + noise * ratio) / side if side else 0.0
            for side, noise in zip(spread, self.noise, strict=True)
        ]
        return self._with(self.shared * ratio, factors)

    def _with(self, shared: float, factors: Sequence[float]) -> "StandardError":
        """Return the standard error with another shared part and each side's spread multiplied."""
        amounts = [
            sum(part * factor for part, factor in zip(estimate.parts, factors, strict=True))
            for estimate in self.estimates
        ]
        doubt = sum(amount**2 / estimate.freedom for amount, estimate in zip(amounts, self.estimates, strict=True))
        return StandardError(shared, sum(amounts), sum(amounts) ** 2 / doubt if doubt else np.inf)


@dataclass(frozen=True)
class StandardError:
    """A standard error whose square is partly known, from the rows, and partly estimated, from few seeds.

    Its tail is the mean of the normal distribution's and Student's, weighted by the two variances. The idea is that of
    Cochran and Cox (1950, Experimental Designs), who take the mean of the quantiles. Satterthwaite's degrees of freedom
    for the sum are the usual choice, but where the few seeds happen to lie close together they make both the error and
    the quantile too small: with two degrees of freedom up to 8% false alarms in place of 5%. For the same reason the
    estimated variance has the weight of an estimate without a bias in its median
    (benchmarks/seed_numbers.py).
    """

    shared: float
    """The known variance."""

    seeds: float
    """The estimated variance."""

    freedom: float
    """Degrees of freedom of the estimated variance."""

    @property
    def size(self) -> float:
        """Return the standard error."""
        return float(np.sqrt(self.shared + self.seeds))

    @property
    def total_freedom(self) -> float:
        """Return Satterthwaite's degrees of freedom of the whole variance."""
        return (1 + self.shared / self.seeds) ** 2 * self.freedom if self.seeds else np.inf

    def p_value(self, difference: float) -> float:
        """Return the two-sided p-value of a difference."""
        return self._tail(abs(difference) / self.size)

    def quantile(self, level: float) -> float:
        """Return the number of standard errors that chance exceeds, to either side, with probability `level`."""
        from scipy.optimize import brentq
        from scipy.stats import norm, t  # type: ignore[attr-defined]

        least = float(norm.isf(level / 2))
        if not self.seeds:
            return least
        most = float(t.isf(level / 2, self.freedom))
        # At the ends rounding may put the tail on the wrong side of the level.
        if self._tail(most) >= level or self._tail(least) <= level:
            return most if self._tail(most) >= level else least
        return float(brentq(lambda distance: self._tail(distance) - level, least, most, xtol=1e-10, rtol=1e-10))

    def _tail(self, distance: float) -> float:
        """Return the probability that chance exceeds so many standard errors, to either side."""
        from scipy.special import gammaincinv
        from scipy.stats import norm, t  # type: ignore[attr-defined]

        certain = 2 * float(norm.sf(distance))
        if not self.seeds:
            return certain
        median = 2 * float(gammaincinv(self.freedom / 2, 0.5)) / self.freedom  # of chi squared over its freedom
        weight = self.seeds / (self.seeds + self.shared * median)
        return certain + weight * (2 * float(t.sf(distance, self.freedom)) - certain)


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its 95% interval over rows and seeds."""

    mean: float
    low: float | None
    """Lower end of the interval; None if there is none."""

    high: float | None
    """Upper end of the interval."""

    reason: str | None = None
    """Why there is no interval, or why it is of another kind."""


@dataclass(frozen=True)
class Difference:
    """The difference a - b of two recipes' means over seeds."""

    difference: float
    low: float | None
    """Lower end of the 95% interval over rows and seeds; None where nothing varies."""

    high: float | None
    """Upper end of the interval."""

    p: float
    """Two-sided p-value; under 0.05 exactly where the interval excludes 0."""

    variance: Variance
    rows: int
    """Number of test rows."""


NOTHING_VARIES: Final = "no interval: every row counts alike, so drawing other rows shows no spread"
"""Why a score has no interval."""

Lenders = Sequence[BootstrapScores]
"""Scores of similar recipes, for a side with one seed: those with several seeds tell what a seed changes."""


def contrast(
    a: BootstrapScores, b: BootstrapScores, *, a_lenders: Lenders = (), b_lenders: Lenders = (), share: bool = False
) -> Difference:
    """Return the difference a - b with its interval and p-value.

    Where nothing varies the p-value is that of the sign test: all rows speak for the same side, or none speaks. The
    interval is then empty, or of a share of rows the one in which a difference on a row of these was never seen.

    Args:
        a: Scores of one recipe.
        b: Scores of another.
        a_lenders: Scores of recipes like a, of which a borrows the variance over seeds if it has one seed.
        b_lenders: The same for b.
        share: Whether the metric is a share of the rows, such as accuracy.

    Raises:
        DataError: The two were scored on different numbers of rows, groups or draws.
    """
    if (a.rows, a.groups, len(a.draws)) != (b.rows, b.groups, len(b.draws)):
        raise DataError(
            "two recipes cannot be compared",
            expected="the same test rows and the same number of draws",
            got=f"{a.rows:,} rows and {len(a.draws):,} draws; {b.rows:,} rows and {len(b.draws):,} draws",
        )
    difference, variance = a.mean - b.mean, _variance([a, b], [a_lenders, b_lenders])
    if variance.on_these_rows().size > _TIE:
        low, high = _interval(difference, variance)
        return Difference(difference, low, high, variance.on_these_rows().p_value(difference), variance, a.rows)
    if abs(difference) > _TIE:
        return Difference(difference, None, None, min(2.0 ** (1 - a.units), 1.0), variance, a.rows)
    reach = _exact_share(0, a.units)[1] if share else None
    return Difference(difference, None if reach is None else -reach, reach, 1.0, variance, a.rows)


def estimate(
    scores: BootstrapScores,
    *,
    lenders: Lenders = (),
    share: bool = False,
    least: float = -np.inf,
    most: float = np.inf,
) -> Estimate:
    """Return the mean over seeds with its interval.

    A share of rows has Wilson's interval, as in `class_recalls` and in `evaluate`: near 0 and 1 the plain interval of
    the bootstrap covers as little as 88% (benchmarks/interval_coverage.py). Where every draw of the rows gives the same
    score (all rows right, or all wrong), a share of rows has the exact interval of Clopper and Pearson (1934,
    Biometrika 26); any other metric has none.

    Args:
        scores: A recipe's resampled metric.
        lenders: Scores of similar recipes, of which a single seed borrows the variance over seeds.
        share: Whether the metric is a share of the rows, such as accuracy.
        least: The lowest value of the metric, where the interval ends at the latest.
        most: The highest value of the metric.
    """
    drawn = scores.draws[~np.isnan(scores.draws).any(axis=1)]
    if np.ptp(drawn) <= _TIE:
        if not share:
            return Estimate(scores.mean, None, None, NOTHING_VARIES)
        low, high = _exact_share(round(scores.mean * scores.units), scores.units)
        return Estimate(scores.mean, low, high)
    variance = _variance([scores], [lenders])
    if share:
        return Estimate(scores.mean, *_wilson(scores.mean, scores.rows, variance, scores.units))
    low, high = _interval(scores.mean, variance)
    return Estimate(scores.mean, max(low, least), min(high, most))


def _exact_share(hits: int, rows: int) -> tuple[float, float]:
    from scipy.stats import binomtest  # type: ignore[attr-defined]

    found = binomtest(hits, rows).proportion_ci(CONFIDENCE, method="exact")
    return float(found.low), float(found.high)


@dataclass(frozen=True, eq=False)
class _Sample:
    """What one recipe's seeds tell of the variance over seeds."""

    variance: float
    noise: float
    freedom: int


def _variance(sides: Sequence[BootstrapScores], lenders: Sequence[Lenders]) -> Variance:
    known: dict[int, _Sample] = {}  # by the scores' id: a side may borrow from the other one
    samples = []
    for side, lent in zip(sides, lenders, strict=True):
        donors = [side] if len(side.points) > 1 or not side.depends_on_seed else lent
        several = [donor for donor in donors if donor.depends_on_seed and len(donor.points) > 1]
        samples.append([known.setdefault(id(donor), _sample(donor)) for donor in several])
    drawn = np.hstack([side.draws for side in sides])
    covariances = np.atleast_2d(np.cov(drawn[~np.isnan(drawn).any(axis=1)], rowvar=False)) * sides[0].shortfall
    variance = _partition([side.points for side in sides], covariances, samples)
    all_known = all(own or not side.depends_on_seed for own, side in zip(samples, sides, strict=True))
    return replace(variance, seeds_known=all_known)


def _sample(scores: BootstrapScores) -> _Sample:
    drawn = scores.draws[~np.isnan(scores.draws).any(axis=1)]
    return _sample_of(scores.points, np.atleast_2d(np.cov(drawn, rowvar=False)) * scores.shortfall)


def _sample_of(points: NDArray[np.float64], covariances: NDArray[np.float64]) -> _Sample:
    noise = _within(covariances)[1]
    return _Sample(_spread(points, noise), noise, len(points) - 1)


def partition_variance(points: Sequence[NDArray[np.float64]], covariances: NDArray[np.float64]) -> Variance:
    """Return the variance of one side's mean over seeds, or of the first side's mean less the second's.

    Args:
        points: Each side's scores, (seeds,).
        covariances: Covariances of all these scores over other test rows, (all seeds, all seeds).
    """
    samples = [
        [_sample_of(own, covariances[side, side])] if len(own) > 1 else []
        for own, side in zip(points, _slices(points), strict=True)
    ]
    return _partition(points, covariances, samples)


def _slices(points: Sequence[NDArray[np.float64]]) -> list[slice]:
    ends = np.cumsum([0, *map(len, points)]).tolist()
    return [slice(start, end) for start, end in pairwise(ends)]


def _partition(
    points: Sequence[NDArray[np.float64]], covariances: NDArray[np.float64], samples: Sequence[Sequence[_Sample]]
) -> Variance:
    """Return the variance. samples: those that tell of each side's seeds; of several the mean is taken."""
    sides, seeds = _slices(points), list(map(len, points))
    weights = [
        {sample: sample.freedom / (sum(other.freedom for other in own) * n) for sample in own}
        for own, n in zip(samples, seeds, strict=True)
    ]
    noise = tuple(sum(sample.noise * weight for sample, weight in own.items()) for own in weights)
    together = sum(
        # What a single seed changes at single rows is in its variance over the rows too: it is counted once.
        _within(covariances[side, side])[0] - (alone if n == 1 else 0.0)
        for side, alone, n in zip(sides, noise, seeds, strict=True)
    )
    across = 2 * float(covariances[sides[0], sides[1]].mean()) if len(sides) == 2 else 0.0
    estimates = tuple(
        SeedEstimate(tuple(sample.variance * own.get(sample, 0.0) for own in weights), sample.freedom)
        for sample in dict.fromkeys(sample for own in weights for sample in own)
    )
    return Variance(max(together - across, 0.0), estimates, noise)


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

    Where different predictions give equal scores (on few rows scores take few values), s^2 is not visible. Then the
    noise that the rows show takes its place.
    """
    return float(points.var(ddof=1)) if np.ptp(points) > _TIE else noise


def _interval(value: float, variance: Variance) -> tuple[float, float]:
    error = variance.on_these_rows()
    reach = error.quantile(LEVEL) * error.size
    return value - reach, value + reach


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


def mcnemar(a_correct: NDArray[Any], b_correct: NDArray[Any], groups: NDArray[Any] | None = None) -> float:
    """Return the exact two-sided p-value of McNemar's test (1947) for two trained models.

    Where rows belong together, whole groups take a side: the p-value is that of the exact sign-flip test over the
    groups' differences (Fisher 1935, The Design of Experiments). With one row a group it is McNemar's.

    Args:
        a_correct: Whether model a is right on each row, (rows,).
        b_correct: The same for model b.
        groups: The group of each row, (rows,); None for independent rows.
    """
    from scipy.stats import binomtest  # type: ignore[attr-defined]

    a, b = np.asarray(a_correct, dtype=bool), np.asarray(b_correct, dtype=bool)
    if groups is not None:
        return _sign_flip_p(np.bincount(np.unique(groups, return_inverse=True)[1], a.astype(float) - b).astype(int))
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    return float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def _sign_flip_p(differences: NDArray[np.int64]) -> float:
    """Return the probability that the sum is as far from 0 if the sign of each difference is a fair coin's."""
    from scipy.signal import fftconvolve  # type: ignore[attr-defined]
    from scipy.stats import binom  # type: ignore[attr-defined]

    # The sum of n differences of size v is v (2 heads - n): its distribution lies on every 2v-th place.
    total, probabilities = 0, np.ones(1)
    for size, count in zip(*np.unique(np.abs(differences[differences != 0]), return_counts=True), strict=True):
        own = np.zeros(2 * int(size) * int(count) + 1)
        own[:: 2 * int(size)] = binom.pmf(np.arange(count + 1), count, 0.5)
        probabilities, total = fftconvolve(probabilities, own), total + int(size) * int(count)
    sums = np.abs(np.arange(-total, total + 1))
    return float(probabilities[sums >= abs(int(differences.sum()))].sum().clip(0.0, 1.0))


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
    from scipy.stats import nct, norm  # type: ignore[attr-defined]

    true = observed.difference if size is None else size
    error = observed.variance.on_other_rows(1.0 if rows is None else observed.rows / rows)
    if error.size <= _TIE:
        return float(abs(true) > _TIE)
    limit, shift, freedom = error.quantile(level), abs(true) / error.size, error.total_freedom
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
    predictions: NDArray[Any], labels: NDArray[Any], label_names: Sequence[str], groups: NDArray[Any] | None = None
) -> list[dict[str, float | int | str | None]]:
    """Return each class's recall over rows and seeds with its interval.

    The interval is Wilson's (1927) on the number of rows that the mean over seeds is worth, p (1 - p) / variance, and
    never more than the class has (effective rows: Korn and Graubard 1998, Survey Methodology 24). So a class of five
    rows that every seed finds whole still gets an interval with a width.

    Args:
        predictions: Class ids (seeds, rows), or label matrices (seeds, rows, labels).
        labels: Class ids (rows,), or a label matrix (rows, labels).
        label_names: (classes,).
        groups: The group of each row, (rows,), where rows belong together; None for independent rows.

    Returns:
        {"label", "support", "mean", "low", "high", "reason"} of each class; null with the reason where no row has it.
    """
    problem, recalls = problem_of(labels), []
    for label, name in enumerate(label_names):
        rows = problem.has_label(labels, label)
        found = problem.has_label(predictions, label)[:, rows].astype(np.float64)
        recalls.append(_recall(found, name, None if groups is None else groups[rows]))
    return recalls


def _recall(found: NDArray[np.float64], name: str, groups: NDArray[Any] | None) -> dict[str, float | int | str | None]:
    """found: 1 where a seed predicted the class for a row that has it, else 0, (seeds, rows of the class)."""
    seeds, support = found.shape
    if not support:
        reason = f"no test row is labeled {name!r}"
        return {"label": name, "support": 0, "mean": None, "low": None, "high": None, "reason": reason}
    units = support if groups is None else len(np.unique(groups))
    covariances = np.cov(found, bias=True).reshape(seeds, seeds) / support
    if groups is not None:
        covariances = _covariances_of_groups(found, groups)
    mean = float(found.mean())
    low, high = _wilson(mean, support, partition_variance([found.mean(axis=1)], covariances), units)
    return {"label": name, "support": support, "mean": mean, "low": low, "high": high, "reason": None}


def _covariances_of_groups(found: NDArray[np.float64], groups: NDArray[Any]) -> NDArray[np.float64]:
    """Return the covariances (seeds, seeds) of each seed's mean over rows that vary by whole groups."""
    names, group_of = np.unique(groups, return_inverse=True)
    off = found - found.mean(axis=1, keepdims=True)
    sums = np.stack([np.bincount(group_of, own, minlength=len(names)) for own in off])
    covariances: NDArray[np.float64] = sums @ sums.T / found.shape[1] ** 2 * len(names) / max(len(names) - 1, 1)
    return covariances


def _wilson(mean: float, support: int, variance: Variance, units: int) -> tuple[float, float]:
    """Return Wilson's interval on effective rows. units: independent units, which is what a share of 0 or 1 rests on;
    of a single group nothing is known but that it is one."""
    error = variance.on_these_rows()
    effective = min(mean * (1 - mean) / error.size**2, support) if error.size and 0 < mean < 1 else units
    effective = effective if units > 1 else 1
    quantile = error.quantile(LEVEL)
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
