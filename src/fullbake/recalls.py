"""Who finds the rows of a class, and what is let through: recall per class over rows and seeds, and its curve.

The interval is Wilson's (1927) on as many rows as the mean over seeds is worth, p (1 - p) / variance, never more than
the class has (effective rows, as Korn and Graubard 1998, Survey Methodology 24, have it for clustered samples): so a
class of five rows that is found whole by every seed does not get an interval without width. The variance over rows and
seeds is that of `contests`.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fullbake.contests import LEVEL, Variance, partition

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
    if labels.ndim == 2:
        found = predictions[:, labels[:, place] == 1, place] == 1
    else:
        found = predictions[:, labels == place] == place
    shares: NDArray[np.float64] = found.astype(np.float64)
    return shares


def _recall(found: NDArray[np.float64], name: str) -> dict[str, float | int | str | None]:
    support = found.shape[1]
    if not support:
        reason = f"no test row is labelled {name!r}"
        return {"label": name, "support": 0, "mean": None, "low": None, "high": None, "reason": reason}
    mean = float(found.mean())
    low, high = _bounds(mean, support, _variance(found))
    return {"label": name, "support": support, "mean": mean, "low": low, "high": high, "reason": None}


def _variance(found: NDArray[np.float64]) -> Variance:
    seeds, support = found.shape
    covariances = np.cov(found, bias=True).reshape(seeds, seeds) / support
    return partition([found.mean(axis=1)], covariances)


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
