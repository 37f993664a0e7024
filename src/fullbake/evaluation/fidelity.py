"""Compare a second scoring of rows with the first one, and say whether it keeps a promise: int8 beside fp32.

The promise has two parts: no more than so much of the metric is lost, and at least such a share of the rows gets the
same labels. Each part is kept only where the whole 95% interval lies within it. The values alone are no proof: where
a second scoring truly loses 0.010 of accuracy, the loss on 400 rows is at most 0.005 in one case of four. The price is
that few rows are refused although nothing is wrong with them; then the number of rows that would do is given.
"""

from dataclasses import asdict, dataclass, replace
from math import ceil, floor, log10
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fullbake.config.problems import LabelArray, Probabilities, problem_of
from fullbake.evaluation.bootstrap import BootstrapScores, resample
from fullbake.evaluation.metrics import METRICS, metric_phrase
from fullbake.evaluation.scores import NORMAL_QUANTILE, effective_trials, proportion_score
from fullbake.evaluation.significance import contrast

_FAR_POINT: Final = 0.999
"""The quantile of the differences of probabilities that is given: one in a thousand is larger."""


@dataclass(frozen=True)
class FidelityPromise:
    """What a second scoring may lose."""

    tolerance: float = 0.005
    """Most that the metric may lose."""

    agreement: float = 0.98
    """Least share of rows with the same label or labels."""


@dataclass(frozen=True)
class ScoredRows:
    """One scoring of labeled rows."""

    probabilities: Probabilities
    """(rows, classes)."""

    decided: LabelArray
    """What was decided for each row, in the form of labels."""


@dataclass(frozen=True)
class Fidelity:
    """How a second scoring of rows differs from the first."""

    rows: int
    groups: int | None
    """Number of groups of rows, where rows belong together."""

    equal_labels: dict[str, float]
    """{"value", "low", "high"}: the share of rows with the same label or labels, with its 95% interval."""

    probabilities_apart: dict[str, float]
    """{"median", "far", "largest"}: differences of single probabilities; one in a thousand is above "far"."""

    metric: dict[str, Any]
    """{"name", "original", "other", "difference", "low", "high"}: the metric of both scorings, and other - original
    with its paired 95% interval; below 0 the second is worse."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Shortfall:
    """A part of a promise that is not kept, or not shown to be kept."""

    sentence: str
    """What was found and what was promised."""

    rows_needed: int | None
    """Where only the interval is too wide: about how many rows would show that the promise is kept. None where the
    value itself breaks the promise."""


def compare_scorings(
    original: ScoredRows,
    other: ScoredRows,
    labels: LabelArray,
    metric: str,
    groups: NDArray[Any] | None = None,
) -> Fidelity:
    """Compare two scorings of the same rows.

    Args:
        original: The first scoring.
        other: The second one.
        labels: True labels, (rows,) or (rows, labels).
        metric: A name of `METRICS` that validation may choose by, so that more is better.
        groups: The group of each row, (rows,), where rows belong together; None for independent rows.

    Raises:
        DataError: The metric is undefined on these rows, or on most draws of them.
    """
    equal = problem_of(labels).equal_rows(original.decided, other.decided)
    hits, trials = equal.astype(np.int64), np.ones(len(equal), dtype=np.int64)
    effective = None if groups is None else effective_trials(hits, trials, groups)
    share = proportion_score(int(equal.sum()), len(equal), "there is no row", effective)
    apart = np.abs(original.probabilities - other.probabilities)
    return Fidelity(
        rows=len(equal),
        groups=None if groups is None else len(np.unique(groups)),
        equal_labels={name: float(share[name] or 0.0) for name in ("value", "low", "high")},
        probabilities_apart={
            "median": float(np.median(apart)),
            "far": float(np.quantile(apart, _FAR_POINT)),
            "largest": float(apart.max()),
        },
        metric=_compare_metric(original, other, labels, metric, groups),
    )


def _compare_metric(
    original: ScoredRows, other: ScoredRows, labels: LabelArray, name: str, groups: NDArray[Any] | None
) -> dict[str, Any]:
    of_labels = METRICS[name].reads == "predictions"

    def drawn(scored: ScoredRows) -> BootstrapScores:
        own = scored.decided if of_labels else scored.probabilities
        # A saved classifier is scored, not a recipe: another seed is not in question.
        return replace(resample(own[None], labels, name, groups=groups), depends_on_seed=False)

    one, two = drawn(original), drawn(other)
    # Where no label differs, the interval is that of a share of rows of which none was seen to differ.
    found = contrast(two, one, share=of_labels)
    low, high = (found.difference if bound is None else bound for bound in (found.low, found.high))
    return {
        "name": name,
        "original": one.mean,
        "other": two.mean,
        "difference": found.difference,
        "low": low,
        "high": high,
    }


def find_shortfalls(found: Fidelity, promise: FidelityPromise) -> list[Shortfall]:
    """Return the parts of a promise that these rows do not show to be kept; [] if all are kept."""
    return [*_metric_shortfall(found, promise.tolerance), *_label_shortfall(found, promise.agreement)]


def _metric_shortfall(found: Fidelity, tolerance: float) -> list[Shortfall]:
    own = found.metric
    difference, low = own["difference"], own["low"]
    if low >= -tolerance:
        return []
    sentence = (
        f"{metric_phrase(own['name'])} changes by {difference:+.4f} "
        f"({low:+.4f} to {own['high']:+.4f}), and at most {-tolerance:g} is allowed"
    )
    if difference < -tolerance:
        return [Shortfall(sentence, None)]
    # The width of an interval goes down with the root of the number of rows.
    ratio = (difference - low) / max(difference + tolerance, 1e-4)
    # Where no label differs, the bound is that of a share that was never seen, which goes down with the number itself.
    power = 1 if found.equal_labels["value"] == 1 else 2
    return [Shortfall(sentence, _round_up(found.rows * ratio**power))]


def _label_shortfall(found: Fidelity, agreement: float) -> list[Shortfall]:
    value, low = found.equal_labels["value"], found.equal_labels["low"]
    if low >= agreement:
        return []
    sentence = (
        f"{value:.2%} of the labels are equal ({low:.2%} to {found.equal_labels['high']:.2%}), and at least "
        f"{agreement:.2%} is asked for"
    )
    if value <= agreement:
        return [Shortfall(sentence, None)]
    # Wilson's lower bound reaches p on n effective rows where n (value - p)^2 = z^2 p (1 - p).
    needed = NORMAL_QUANTILE**2 * agreement * (1 - agreement) / (value - agreement) ** 2
    width = value - low
    counted = NORMAL_QUANTILE**2 * low * (1 - low) / width**2 if width else found.rows
    return [Shortfall(sentence, _round_up(found.rows * max(needed / counted, 1)))]


def _round_up(rows: float) -> int:
    """Return the number with two digits, rounded up, since it is an estimate."""
    step = int(10.0 ** max(floor(log10(max(rows, 1))) - 1, 0))
    return ceil(rows / step) * step
