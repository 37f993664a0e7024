"""What is scored, and what a score is: checked arrays in, a value with its interval or a reason out.

Numpy alone computes here. The order of operations is that of scikit-learn and scipy, so that the values equal theirs to
the last bit. Both libraries are the reference of the tests and are never imported here, because prediction and
`evaluate` have to start quickly.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import sqrt
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fullbake.config.problems import Problem, problem_of
from fullbake.core.errors import DataError, DivergenceFault

CONFIDENCE: Final = 0.95
"""Coverage of every interval."""

NORMAL_QUANTILE: Final = 1.959963984540054
"""The standard normal distribution's quantile at (1 + CONFIDENCE) / 2, as scipy.special.ndtri gives it."""

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]

ScoreValue = dict[str, float | str | None]
"""{"value", "low", "high", "reason"}: all four keys always; numbers are finite or null.

`value` is null where the metric is undefined, and `reason` says why. `low` and `high` bound the 95% interval and are
null where none is given.
"""


class UndefinedScoreError(Exception):
    """A metric has no value on these rows; the message says why."""


@dataclass(frozen=True)
class Case:
    """The checked arrays that a metric reads. Build one with `make_case`."""

    problem: Problem

    labels: NDArray[Any]
    """Class ids int64 (rows,), or a label matrix of booleans (rows, labels)."""

    probabilities: Floats
    """(rows, classes)."""

    predicted: NDArray[Any]
    """What was decided for each row, in the form of `labels`."""

    names: Sequence[str]
    """Names of the classes, (classes,)."""

    groups: NDArray[Any] | None = None
    """The group of each row, (rows,), where rows belong together; None for independent rows."""

    def proportion(self, hits: NDArray[np.bool_], trials: NDArray[np.bool_], reason: str) -> ScoreValue:
        """Return hits / trials with its interval, as `proportion_score` does; of groups it counts effective trials.

        Args:
            hits: Trials that hit, (rows,) or (rows, labels).
            trials: What is counted, of the same shape.
            reason: Why there is no value without a trial.
        """
        found, counted = int(hits.sum()), int(trials.sum())
        if self.groups is None or not counted:
            return proportion_score(found, counted, reason)
        hits_of_rows, trials_of_rows = (own.reshape(len(own), -1).sum(axis=1) for own in (hits, trials))
        return proportion_score(found, counted, reason, effective_trials(hits_of_rows, trials_of_rows, self.groups))

    @cached_property
    def hits(self) -> Counts:
        """Rows of each class that were predicted as it, (classes,)."""
        exclusive = self.problem.exclusive
        right = self.labels[self.labels == self.predicted] if exclusive else self.labels & self.predicted
        return self.problem.count_rows(right, len(self.names))

    @cached_property
    def support(self) -> Counts:
        """Rows of each class, (classes,)."""
        return self.problem.count_rows(self.labels, len(self.names))

    @cached_property
    def claimed(self) -> Counts:
        """Rows that were predicted as each class, (classes,)."""
        return self.problem.count_rows(self.predicted, len(self.names))


# Checks


def make_case(
    labels: NDArray[Any],
    probabilities: NDArray[np.floating[Any]],
    names: Sequence[str],
    predicted: NDArray[Any] | None = None,
    groups: NDArray[Any] | None = None,
) -> Case:
    """Check that the arrays fit together and return them as one value.

    Args:
        labels: Class ids (rows,), or a label matrix of 0 and 1 (rows, labels).
        probabilities: (rows, classes). Each row sums to 1 where a row has one label.
        names: Names of the classes, (classes,).
        predicted: What was decided, in the form of `labels`. None takes the most probable class (the lower id on a
            tie), or every label with a probability of 0.5 or more.
        groups: The group of each row, (rows,), where rows belong together; None for independent rows.

    Raises:
        DataError: The arrays do not fit together.
        DivergenceFault: A probability is not finite.
    """
    problem, checked = problem_of(labels), _check_probabilities(probabilities, len(labels), len(names))
    if problem.exclusive:
        _check_sums(checked)
    decided = problem.decide(checked) if predicted is None else np.asarray(predicted)
    check = _check_ids if problem.exclusive else _check_matrix
    check("labels", np.asarray(labels), checked)
    check("predictions", decided, checked)
    return Case(problem, as_held(np.asarray(labels), problem), checked, as_held(decided, problem), names, groups)


def as_held(labels: NDArray[Any], problem: Problem) -> NDArray[Any]:
    """Labels in the type that a `Case` holds: int64 ids, or booleans."""
    return labels.astype(np.int64) if problem.exclusive else labels == 1


def _check_probabilities(probabilities: NDArray[np.floating[Any]], rows: int, classes: int) -> Floats:
    exact = np.asarray(probabilities, dtype=np.float64)
    if not rows:
        raise _misfit("at least one row", "none")
    if exact.shape != (rows, classes):
        raise _misfit(f"probabilities of shape ({rows}, {classes})", f"shape {exact.shape}")
    bad = np.flatnonzero(~np.isfinite(exact).all(axis=1))
    if len(bad):
        raise DivergenceFault(
            "a probability is not a finite number",
            where=f"row {bad[0]} of the scores",
            got=f"{exact[bad[0]].tolist()}; {len(bad)} of {rows} rows have such values",
            remedy="The model has diverged: train again with a lower --learning-rate.",
        )
    if exact.min() < 0 or exact.max() > 1 + 1e-2:
        raise _misfit("probabilities", f"values from {exact.min():g} to {exact.max():g}")
    return exact


def _check_sums(probabilities: Floats) -> None:
    # Half precision rounds to 1e-3. Sums farther from 1 mean logits, or sigmoids of another problem type.
    off = float(np.abs(probabilities.sum(axis=1) - 1).max())
    if off > 1e-2:
        raise _misfit("rows of probabilities that sum to 1", f"sums off by {off:g}")


def _check_ids(what: str, ids: NDArray[Any], probabilities: Floats) -> None:
    rows, classes = probabilities.shape
    if ids.shape != (rows,) or ids.dtype.kind not in "iu":
        raise _misfit(f"{what} as {rows} whole numbers", f"{ids.dtype} of shape {ids.shape}")
    if ids.min() < 0 or ids.max() >= classes:
        raise _misfit(f"{what} from 0 to {classes - 1}", f"{ids.min()} to {ids.max()}")


def _check_matrix(what: str, matrix: NDArray[Any], probabilities: Floats) -> None:
    if matrix.shape != probabilities.shape or not np.isin(matrix, (0, 1)).all():
        raise _misfit(f"{what} of 0 and 1 of shape {probabilities.shape}", f"{matrix.dtype} of shape {matrix.shape}")


def _misfit(expected: str, got: str) -> DataError:
    return DataError("labels and probabilities cannot be scored", expected=expected, got=got)


# Values with their intervals


def compute_score(measure: Callable[[Case], float], case: Case) -> ScoreValue:
    """Return a metric's value without an interval, or null with the reason where it raises UndefinedScoreError."""
    try:
        return {"value": measure(case), "low": None, "high": None, "reason": None}
    except UndefinedScoreError as undefined:
        return missing_score(str(undefined))


def missing_score(reason: str) -> ScoreValue:
    """Return a score without a value, and why it has none."""
    return {"value": None, "low": None, "high": None, "reason": reason}


def effective_trials(hits: NDArray[np.int64], trials: NDArray[np.int64], groups: NDArray[Any]) -> float:
    """Return how many independent trials tell as much as these, whose rows vary by whole groups.

    That is p (1 - p) / variance, with the variance of a share over groups, and a correction for few groups (Korn and
    Graubard 1998, Survey Methodology 24). A share of 0 or 1 has no variance that could be seen: then the number of
    groups counts. There are at least 1 and never more than all trials.

    Args:
        hits: Trials of each row that hit, (rows,).
        trials: Trials of each row, (rows,). At least one row has one.
        groups: The group of each row, (rows,).
    """
    _, group_of = np.unique(groups, return_inverse=True)
    own_hits, own_trials = (np.bincount(group_of, counts) for counts in (hits, trials))
    counted, total = int((own_trials > 0).sum()), float(own_trials.sum())
    if counted < 2:
        return 1.0
    share = float(own_hits.sum()) / total
    if share in (0, 1):
        return float(counted)
    squares = float(((own_hits - share * own_trials) ** 2).sum())
    variance = counted / (counted - 1) * squares / total**2
    if not variance:
        return total
    effective = share * (1 - share) / variance * (NORMAL_QUANTILE / student_quantile(counted - 1)) ** 2
    return min(max(effective, 1.0), total)


def student_quantile(freedom: int) -> float:
    """Return the 97.5% quantile of Student's distribution, by Fisher's expansion about the normal one (Abramowitz and
    Stegun 1964, 26.7.5); 1% too small at 3 degrees of freedom, less beyond."""
    z = NORMAL_QUANTILE
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return float(z + sum(term / freedom**power for power, term in enumerate(terms, start=1)))


def proportion_score(hits: int, trials: int, reason: str, effective: float | None = None) -> ScoreValue:
    """Return hits / trials with Wilson's score interval (1927), or null with `reason` where there was no trial.

    Args:
        hits: Trials that hit.
        trials: All trials.
        reason: Why there is no value without a trial.
        effective: How many independent trials they are worth (`effective_trials`); None for all.
    """
    if not trials:
        return missing_score(reason)
    share, squared = hits / trials, NORMAL_QUANTILE**2
    counted = trials if effective is None else effective
    # The formula as Newcombe 1998 (Statistics in Medicine 17) writes it, in scipy's order of operations.
    width = 2 * (counted + squared)
    center = (2 * counted * share + squared) / width
    reach = NORMAL_QUANTILE / width * sqrt(4 * counted * share * (1 - share) + squared)
    low = 0.0 if hits == 0 else center - reach
    high = 1.0 if hits == trials else center + reach
    # Rounding can put a bound a few 1e-17 on the wrong side of a share of 0 or 1.
    return {"value": share, "low": min(low, share), "high": max(high, share), "reason": None}


def class_proportions(case: Case, place: int, absent: str, unpredicted: str) -> tuple[ScoreValue, ...]:
    """Return precision, recall, and the share of hits among rows that have the class or were predicted as it.

    Args:
        case: What is scored.
        place: The class.
        absent: Why there is no recall.
        unpredicted: Why there is no precision.
    """
    reasons = (unpredicted, absent, f"{absent} and {unpredicted}")
    hits, support, claimed = (int(counts[place]) for counts in (case.hits, case.support, case.claimed))
    if case.groups is None:  # the counts of all classes are known: no pass over the rows for each class
        totals = (claimed, support, support + claimed - hits)
        return tuple(proportion_score(hits, total, reason) for total, reason in zip(totals, reasons, strict=True))
    held, predicted = (case.problem.has_label(labels, place) for labels in (case.labels, case.predicted))
    trials = (predicted, held, held | predicted)
    return tuple(case.proportion(held & predicted, own, reason) for own, reason in zip(trials, reasons, strict=True))


def f1_from_jaccard(jaccard: ScoreValue) -> ScoreValue:
    """Return F1 and its interval from J = TP / (TP + FP + FN).

    J is a share of rows and F1 = 2J / (1 + J), so Wilson's bounds for J give bounds for F1 ("Wilson indirect", Lam,
    Gopal and Qian 2023, arXiv 2309.14621).
    """

    def converted(share: float | str | None) -> float | None:
        return 2 * share / (1 + share) if isinstance(share, float) else None

    bounds: ScoreValue = {key: converted(jaccard[key]) for key in ("value", "low", "high")}
    return {**bounds, "reason": jaccard["reason"]}


# Parts of metrics


def f1_per_class(case: Case) -> Floats:
    """Return each class's F1, (classes,); NaN where no row has the class and none was predicted as it."""
    both = (case.support + case.claimed).astype(np.float64)
    scores: Floats = np.divide(2 * case.hits, both, out=np.full(len(both), np.nan), where=both > 0)
    return scores


def negative_log(probabilities: Floats) -> Floats:
    """Return -log of each probability, in nats. A probability of 0 counts as float64's epsilon, as in scikit-learn."""
    losses: Floats = -np.log(np.clip(probabilities, np.finfo(np.float64).eps, 1))
    return losses


def area_under_roc(positive: NDArray[np.bool_], scores: Floats) -> float:
    """Return the area under the ROC curve of one class, by trapezoids.

    Args:
        positive: Whether each row is of the class, (rows,). Both answers must occur.
        scores: (rows,), higher for rows that are more likely of the class.
    """
    hits, alarms = _cumulative_counts(positive, scores)
    if len(hits) > 2:
        # Points on a straight line do not change the area, but they change its last bits: drop them as scikit-learn.
        corner = (np.diff(alarms, 2) != 0) | (np.diff(hits, 2) != 0)
        kept = np.concatenate(([True], corner, [True]))
        hits, alarms = hits[kept], alarms[kept]
    recall = np.concatenate(([0.0], hits)) / hits[-1]
    fallout = np.concatenate(([0.0], alarms)) / alarms[-1]
    return float((np.diff(fallout) * (recall[1:] + recall[:-1]) / 2.0).sum())


def average_precision_of(positive: NDArray[np.bool_], scores: Floats) -> float:
    """Return the area under the precision-recall curve of one class, by steps. Arguments as for `area_under_roc`."""
    hits, alarms = _cumulative_counts(positive, scores)
    precision = np.flip(hits / (hits + alarms))
    recall = np.concatenate((np.flip(hits / hits[-1]), [0.0]))
    return float(max(0.0, -np.sum(np.diff(recall) * precision)))


def _cumulative_counts(positive: NDArray[np.bool_], scores: Floats) -> tuple[Floats, Floats]:
    """Rows of the class and other rows that reach each distinct score, the highest first: both (distinct scores,)."""
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)  # of each run of equal scores
    hits = np.cumsum(positive[order], dtype=np.float64)[last]
    return hits, 1 + last.astype(np.float64) - hits
