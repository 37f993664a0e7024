"""How often one classifier gives the labels of another, and from which margin on it may answer in the other's place.

The promise of a cascade: of new texts like these, at most a share of 1 - agreement gets another label than from the
teacher alone. A student answers where its margin reaches a threshold, so a lower threshold never means fewer
disagreements. Thresholds are tested from the highest down (a fixed sequence of tests, as in Angelopoulos et al. 2021,
arXiv 2110.01052), each by the exact binomial bound of Clopper and Pearson (1934), and the last one that passes is
taken. All rows serve to choose and to bound, and the promise still holds in 95 of 100 cascades, because the first
threshold that is too low must pass a test that it fails in 95 of 100.
"""

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fullbake.config.problems import Probabilities
from fullbake.evaluation.decisions import Decision

CERTAINTY: Final = 0.95
"""Certainty of the bound on disagreements."""


@dataclass(frozen=True)
class CascadeThreshold:
    """From which margin on a student answers, and what is known of it."""

    margin: float | None
    """The least margin with which the student answers; None: it answers nothing."""

    rows: int
    """Rows that the threshold was tested on."""

    answered: int
    """Rows among them that the student answers."""

    disagreements: int
    """Rows among these with another label than the teacher's."""

    bound: float
    """Upper bound of the share of all rows with another label, at a certainty of CERTAINTY."""

    agreement: float
    """The agreement that was asked for."""

    @property
    def share(self) -> float:
        """The share of the rows that the student answers."""
        return self.answered / self.rows if self.rows else 0.0


def upper_bound(hits: int, rows: int, certainty: float = CERTAINTY) -> float:
    """Return the exact upper bound of a share (Clopper and Pearson 1934), one-sided.

    Args:
        hits: Rows that count.
        rows: All rows.
        certainty: Probability that the share lies below the bound.
    """
    from scipy.stats import beta  # type: ignore[attr-defined]

    return 1.0 if hits >= rows else float(beta.ppf(certainty, hits + 1, rows - hits))


def rows_for_agreement(agreement: float, certainty: float = CERTAINTY) -> int:
    """Return how many rows an agreement needs at least: so many, and none of those that the student answers differs.

    Args:
        agreement: Above 0 and below 1.
        certainty: As in `upper_bound`.
    """
    return math.ceil(math.log(1 - certainty) / math.log(agreement))


def decision_margins(decision: Decision, probabilities: Probabilities) -> NDArray[np.float64]:
    """Return how far each row's label is from being another one: (rows, classes) -> (rows,), 0 and more.

    Under the plain decision it is the difference of the logarithms of the two likeliest classes; with thresholds, that
    of the odds to the nearest threshold that would change a label; with costs, that of the two cheapest classes.

    Args:
        decision: The rule that makes labels of probabilities.
        probabilities: (rows, classes).
    """
    if decision.costs is not None:
        return _gap_of_highest(-(probabilities @ np.array(decision.costs)))
    if not decision.problem.exclusive:
        thresholds = np.full(len(decision.label_names), 0.5)
        if decision.thresholds is not None:
            thresholds = np.array(decision.thresholds)
        nearest: NDArray[np.float64] = np.abs(_log_odds(probabilities) - _log_odds(thresholds)).min(axis=1)
        return nearest
    if decision.positive is None or decision.thresholds is None:
        return _gap_of_highest(np.log(np.maximum(probabilities, _LEAST)))
    own = _log_odds(probabilities[:, decision.positive]) - _log_odds(np.array(decision.thresholds[0]))
    others = np.log(np.maximum(np.delete(probabilities, decision.positive, axis=1), _LEAST))
    among_others = _gap_of_highest(others)
    return np.where(own >= 0, own, np.minimum(-own, among_others))


_LEAST: Final = 1e-300


def _log_odds(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    odds: NDArray[np.float64] = np.log(np.maximum(probabilities, _LEAST)) - np.log(
        np.maximum(1 - probabilities, _LEAST)
    )
    return odds


def _gap_of_highest(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the difference of the two highest values of each row; infinite where there is only one."""
    if values.shape[1] < 2:
        return np.full(len(values), np.inf)
    ordered = np.sort(values, axis=1)
    gap: NDArray[np.float64] = ordered[:, -1] - ordered[:, -2]
    return gap


def choose_threshold(margins: NDArray[np.float64], agrees: NDArray[np.bool_], agreement: float) -> CascadeThreshold:
    """Return the lowest threshold that keeps an agreement, of all thresholds from the highest down until one fails.

    Args:
        margins: The student's, (rows,), of rows that neither classifier was trained on.
        agrees: Whether the student gives the teacher's label, (rows,).
        agreement: The share of all rows that must get the teacher's label, such as 0.99.
    """
    rows, allowed = len(margins), most_disagreements(len(margins), agreement)
    order = np.argsort(-margins, kind="stable")
    differing = np.cumsum(~agrees[order])
    # rows of equal margins are answered together: a threshold lies after the last of them
    ends = np.flatnonzero(np.append(np.diff(margins[order]) != 0, True)) + 1 if rows else np.empty(0, np.int64)
    passing = [int(end) for end in ends if differing[end - 1] <= allowed]
    if allowed < 0 or not passing:
        return CascadeThreshold(None, rows, 0, 0, 0.0, agreement)
    answered = passing[-1]
    disagreements = int(differing[answered - 1])
    least = float(margins[order[answered - 1]])
    # midway to the next row, so that rounding moves no row to the other side
    margin = least if answered == rows else (least + float(margins[order[answered]])) / 2
    return CascadeThreshold(margin, rows, answered, disagreements, upper_bound(disagreements, rows), agreement)


def most_disagreements(rows: int, agreement: float) -> int:
    """Return how many of so many rows may disagree with the bound still within 1 - agreement; -1 if none may."""
    allowed = -1
    while allowed + 1 < rows and upper_bound(allowed + 1, rows) <= 1 - agreement:
        allowed += 1
    return allowed


def describe_threshold(found: CascadeThreshold) -> str:
    """Say in one sentence what share the student answers, or how many rows are missing."""
    needed = rows_for_agreement(found.agreement)
    if found.margin is not None:
        return (
            f"the student answers {found.share:.1%} of {found.rows:,} rows; {found.disagreements:,} of all rows get "
            f"another label than from the teacher, at most {found.bound:.2%} of new ones (95% certain)"
        )
    if found.rows < needed:
        return (
            f"the teacher answers all: {found.rows:,} rows cannot show an agreement of {found.agreement:g}; that takes "
            f"at least {needed:,} rows that neither was trained on"
        )
    return (
        f"the teacher answers all: even where the student is surest it disagrees too often for an agreement of "
        f"{found.agreement:g} on {found.rows:,} rows"
    )


def agreement_facts(agrees: NDArray[np.bool_]) -> dict[str, Any]:
    """Return the share of equal labels with its exact two-sided 95% interval, as JSON values."""
    rows, hits = len(agrees), int(agrees.sum())
    side = (1 + CERTAINTY) / 2
    return {
        "rows": rows,
        "value": hits / rows,
        "low": 1 - upper_bound(rows - hits, rows, side),
        "high": upper_bound(hits, rows, side),
    }
