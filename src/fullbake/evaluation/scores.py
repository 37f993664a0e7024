"""What a score is: a value with its interval, or the reason why there is none; and the names scores go by.

Names are scikit-learn's, and higher is better for every one that validation may choose by (so `neg_log_loss`, as its
scorers spell it). scipy comes with the first interval.
"""

from collections.abc import Callable
from typing import TypeVar

Case = TypeVar("Case")

CONFIDENCE = 0.95
"""Coverage of every interval."""

ScoreValue = dict[str, float | str | None]
"""{"value", "low", "high", "reason"}: all four keys always; numbers are finite or null.

`value` is null where the figure is undefined, and `reason` says why; `low` and `high` bound its 95% interval
and are null where none is stated.
"""


class UndefinedScoreError(Exception):
    """The figure has no value on these rows; the message says why."""


def compute_score(measure: Callable[[Case], float], case: Case) -> ScoreValue:
    """What a measure says of a case, without an interval; null where it raises UndefinedError."""
    try:
        return {"value": measure(case), "low": None, "high": None, "reason": None}
    except UndefinedScoreError as undefined:
        return missing_score(str(undefined))


def missing_score(reason: str) -> ScoreValue:
    """No value, and why."""
    return {"value": None, "low": None, "high": None, "reason": reason}


def proportion_score(hits: int, trials: int, reason: str) -> ScoreValue:
    """hits / trials with Wilson's interval; null with `reason` when there was no trial."""
    if not trials:
        return missing_score(reason)
    from scipy.stats import binomtest  # type: ignore[attr-defined]  # its untyped __init__ re-exports

    interval = binomtest(hits, trials).proportion_ci(CONFIDENCE, method="wilson")
    # Rounding puts the bound of a perfect share a few 1e-17 beside it.
    low, high = min(interval.low, hits / trials), max(interval.high, hits / trials)
    return {"value": hits / trials, "low": float(low), "high": float(high), "reason": None}


def f1_from_jaccard(jaccard: ScoreValue) -> ScoreValue:
    """F1 with its interval out of J = TP / (TP + FP + FN), a share of rows: F1 = 2J / (1 + J), so the bounds carry over
    ("Wilson indirect", Lam, Gopal and Qian 2023, arXiv 2309.14621)."""

    def carried(share: float | str | None) -> float | None:
        return 2 * share / (1 + share) if isinstance(share, float) else None

    bounds: ScoreValue = {key: carried(jaccard[key]) for key in ("value", "low", "high")}
    return {**bounds, "reason": jaccard["reason"]}
