"""A metric on resampled test rows: the base of the intervals and tests of `significance`.

Rows that belong together, such as those of one user, are drawn as a group: rows of one user tell less than as many rows
of many users.

The draws depend only on the number of rows, their groups, the number of draws and the seed. So all recipes that were
scored on the same rows get the same draws, and two of them can be compared draw by draw although each was resampled by
itself: the work grows with the number of recipes, not of pairs.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fullbake.config.problems import problem_of
from fullbake.core.errors import DataError, did_you_mean
from fullbake.evaluation.metrics import METRICS
from fullbake.evaluation.resamplers import Resampler, by_calling
from fullbake.evaluation.scores import Floats

DRAWS: Final = 2000
"""Draws of the rows. A standard error is then known to 1 in 60 (its relative error is 1 / sqrt(2 draws))."""

BLOCK_WEIGHTS: Final = 4_000_000
"""Weights (draws times rows) held in memory at a time."""

Statistic = str | Callable[[NDArray[Any], NDArray[Any]], float]
"""A name of `METRICS`, or a function (labels, predictions) -> number, NaN where it is undefined."""


@dataclass(frozen=True)
class BootstrapScores:
    """A metric of one recipe on the test rows and on draws of them."""

    points: Floats
    """Each seed's score on the test rows, (seeds,)."""

    draws: Floats
    """Each seed's score on resampled rows, (draws, seeds); NaN where it is undefined."""

    rows: int
    """Number of test rows."""

    depends_on_seed: bool = True
    """False if another seed would give the same scores; then one seed stands for all."""

    groups: int | None = None
    """Number of groups of rows, where whole groups were drawn; None where single rows were."""

    @property
    def units(self) -> int:
        """Number of what was drawn: groups, or rows."""
        return self.rows if self.groups is None else self.groups

    @property
    def shortfall(self) -> float:
        """By what the variance over the draws has to be multiplied: draws from few groups vary too little."""
        return 1.0 if self.groups is None else self.groups / max(self.groups - 1, 1)

    @property
    def mean(self) -> float:
        """Mean over the seeds."""
        return float(self.points.mean())


def resample(
    predictions: NDArray[Any],
    labels: NDArray[Any],
    statistic: Statistic,
    *,
    groups: NDArray[Any] | None = None,
    draws: int = DRAWS,
    seed: int = 0,
    block_weights: int = BLOCK_WEIGHTS,
) -> BootstrapScores:
    """Score every seed on the rows as they are, and on draws of as many rows (or groups of rows) with replacement.

    Averages run over the classes that occur in a draw, as in `metrics`. Where a metric needs both rows of a class and
    other rows, they run over the classes that have both.

    Args:
        predictions: Class ids (seeds, rows), or label matrices (seeds, rows, labels); probabilities (seeds, rows,
            classes) for a metric that reads probabilities; any array (seeds, rows, ...) for a function.
        labels: Class ids (rows,), or a label matrix (rows, labels).
        statistic: The metric's name, or a function of (labels, predictions of one seed).
        groups: The group of each row, (rows,), where whole groups are drawn; None draws single rows.
        draws: How many times the rows are drawn.
        seed: Seed of the draws.
        block_weights: Weights (draws times rows) to hold in memory at a time.

    Raises:
        DataError: The arrays do not fit together, the metric is unknown, or it is undefined on the rows or on most
            draws of them.
    """
    score = _resampler(predictions, labels, statistic)(predictions, labels)
    rows = len(labels)
    points = score(np.ones((1, rows)))[0]
    blocks = draw_weights(rows, draws, seed, block_weights, groups=groups)
    drawn = np.concatenate([score(weights) for weights in blocks])
    undefined = np.isnan(drawn).any(axis=1).mean()
    if np.isnan(points).any() or undefined > 0.5:
        raise DataError(
            "the metric is undefined on these rows, or on most draws of them",
            where="test",
            got=f"{undefined:.0%} of {draws:,} draws without a value",
            remedy="Give more test rows, or choose a --metric that is always defined, such as f1_macro.",
        )
    return BootstrapScores(points, drawn, rows, groups=None if groups is None else len(np.unique(groups)))


def draw_weights(
    rows: int, draws: int, seed: int, block_weights: int = BLOCK_WEIGHTS, *, groups: NDArray[Any] | None = None
) -> Iterator[NDArray[np.float32]]:
    """Yield how often each draw holds each row: float32 (some draws, rows) at a time.

    With `groups`, (rows,), a draw holds as many groups as there are, each with all its rows. The draws do not depend on
    `block_weights`.
    """
    if groups is not None:
        names, group_of = np.unique(groups, return_inverse=True)
        # Fewer groups than rows are drawn, but the weights that are yielded are those of the rows.
        smaller = max(1, block_weights * len(names) // rows)
        for weights in draw_weights(len(names), draws, seed, smaller):
            yield weights[:, group_of]
        return
    random, block = np.random.default_rng(seed), max(1, block_weights // rows)
    for start in range(0, draws, block):
        size = min(block, draws - start)
        # Each draw counts in a range of its own, so that one bincount serves the whole block.
        taken = random.integers(0, rows, (size, rows)) + rows * np.arange(size)[:, None]
        yield np.bincount(taken.ravel(), minlength=size * rows).reshape(size, rows).astype(np.float32)


def _resampler(predictions: NDArray[Any], labels: NDArray[Any], statistic: Statistic) -> Resampler:
    if callable(statistic):
        _check_shape(predictions, labels, "...")
        return by_calling(statistic)
    problem = problem_of(labels)
    known = [name for name, metric in METRICS.items() if problem.name in metric.definitions]
    if statistic not in known:
        raise DataError(
            "the metric cannot be resampled",
            where="statistic",
            got=repr(statistic),
            remedy=f"{did_you_mean(statistic, known)} Pass any other metric as a function.",
        )
    metric = METRICS[statistic]
    further = ["classes"] if metric.reads == "probabilities" and problem.exclusive else []
    _check_shape(predictions, labels, *further)
    return metric.resampler(problem.name)


def _check_shape(predictions: NDArray[Any], labels: NDArray[Any], *further: str) -> None:
    """Raise DataError unless predictions are (seeds, *shape of labels, *further)."""
    shape, wanted = np.shape(predictions), np.shape(labels)
    if further == ("...",):
        fits, wanted = shape[1:2] == wanted[:1], wanted[:1]
    else:
        fits = len(shape) == 1 + len(wanted) + len(further) and shape[1 : 1 + len(wanted)] == wanted
    if not fits or not wanted[0]:
        axes = ", ".join(["seeds", *map(str, wanted), *further])
        expected = f"predictions of shape ({axes})" if wanted[0] else "at least one row"
        raise DataError("predictions and labels cannot be compared", expected=expected, got=f"shape {shape}")
