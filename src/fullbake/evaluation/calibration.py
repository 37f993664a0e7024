"""Calibration: whether probabilities match the shares that come true, and one number that improves them.

A temperature (Guo et al. 2017, arXiv 1706.04599) divides all logits. It does not change the order of the classes within
a row, and it can be folded into an output layer. A weak prior keeps it near 1 where there are few rows, or where no row
is wrong: the likelihood alone would drive it to 0. scipy's optimizer fits it, and is loaded only then.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fullbake.config.problems import Problem, problem_of
from fullbake.config.sections import DecisionConfig
from fullbake.core.console import say, warn
from fullbake.core.errors import DataError
from fullbake.evaluation import metrics
from fullbake.evaluation.bootstrap import resample
from fullbake.evaluation.decisions import Decision, ThresholdAim, fit_decision
from fullbake.evaluation.few_positives import FEW_POSITIVES
from fullbake.evaluation.scores import NORMAL_QUANTILE

PRIOR: Final = 0.7
"""Standard deviation of the temperature's logarithm under the prior: two thirds of it lie between 0.5 and 2."""

_LIMITS: Final = (np.log(0.05), np.log(20.0))
"""Limits of the temperature's logarithm."""


def fit_temperature(logits: NDArray[np.floating[Any]], labels: NDArray[Any]) -> float:
    """Return the temperature under which the labels are most likely; above 1 where probabilities were too extreme.

    Args:
        logits: (rows, classes).
        labels: Class ids (rows,), or a label matrix (rows, labels), whose labels share one temperature.
    """
    from scipy.optimize import minimize_scalar

    problem = problem_of(labels)

    def cost(log_temperature: float) -> float:
        # The labels of one row are far from independent, so a row counts once, however many labels it has.
        losses = problem.row_losses(logits / np.exp(log_temperature), labels)
        return float(losses.sum()) + 0.5 * (log_temperature / PRIOR) ** 2

    found = minimize_scalar(cost, bounds=_LIMITS, method="bounded", options={"xatol": 1e-4})
    return float(np.exp(found.x))


def match_temperature(logits: NDArray[np.floating[Any]], probabilities: NDArray[np.float64], problem: Problem) -> float:
    """Return the temperature under which logits come nearest to given probabilities.

    It is fitted to probabilities of another scoring of the same texts and not to labels, because the two scorings have
    most of their errors in common: a temperature fitted to labels of as many rows varies far more.

    Args:
        logits: (rows, classes).
        probabilities: What they should give, (rows, classes).
        problem: The kind of problem.
    """
    from scipy.optimize import minimize_scalar

    exact = logits.astype(np.float64)

    def cost(log_temperature: float) -> float:  # the mean cross entropy, in nats
        scaled = exact / np.exp(log_temperature)
        totals = np.logaddexp.reduce(scaled, axis=1) if problem.exclusive else np.logaddexp(0, scaled).sum(axis=1)
        return float((totals - (probabilities * scaled).sum(axis=1)).mean())

    found = minimize_scalar(cost, bounds=_LIMITS, method="bounded", options={"xatol": 1e-5})
    return float(np.exp(found.x))


def reliability(probabilities: NDArray[np.float64], labels: NDArray[Any], bins: int = 15) -> dict[str, Any]:
    """Return how far probabilities are from the shares that come true, as JSON values.

    Args:
        probabilities: (rows, classes).
        labels: Class ids (rows,): then the likeliest class of each row is checked. Or a label matrix (rows, labels):
            then every label of every row is checked.
        bins: Number of bins of equal width; the first and the last are closed.

    Returns:
        {"ece", "brier", "bins"}: the expected calibration error (Guo et al. 2017), the Brier score (1950), and for each
        bin that has probabilities {"low", "high", "count", "confidence", "accuracy"}.
    """
    problem = problem_of(labels)
    confidence, correct = problem.confidences(probabilities, labels)
    numbers = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    counts = np.bincount(numbers, minlength=bins)
    expected, observed = (np.bincount(numbers, weights=values, minlength=bins) for values in (confidence, correct))
    shares = [
        {
            "low": number / bins,
            "high": (number + 1) / bins,
            "count": int(counts[number]),
            "confidence": float(expected[number] / counts[number]),
            "accuracy": float(observed[number] / counts[number]),
        }
        for number in np.flatnonzero(counts).tolist()
    ]
    error = float(np.abs(expected - observed).sum() / counts.sum())
    return {"ece": error, "brier": problem.brier(probabilities, labels), "bins": shares}


INTERVAL_DRAWS = 1_000
"""Draws of the rows for the interval of macro-F1."""


@dataclass(frozen=True)
class CalibratedDecision:
    """A temperature and a decision, both fitted on validation."""

    decision: Decision
    """How probabilities become labels."""

    logits: np.ndarray
    """Calibrated logits of the validation rows, float32 (rows, classes)."""

    calibration: dict[str, Any]
    """{"temperature", "before", "after"}, the last two as `reliability` gives them."""

    thresholds: list[dict[str, Any]]
    """An entry for each fitted threshold, as `decisions.fit_decision` gives them."""


def threshold_aim(config: DecisionConfig, problem: Problem) -> ThresholdAim:
    """Return what the thresholds are fitted for; `auto` is the default of the problem, unless another aim is set."""
    thresholds = config.thresholds
    if thresholds == "auto":
        others = config.at_recall, config.at_precision, config.costs
        thresholds = problem.default_thresholds if others == (None, None, None) else "default"
    return ThresholdAim(thresholds, config.at_recall, config.at_precision, config.costs, config.positive)


def fit_calibration(
    logits: np.ndarray, labels: np.ndarray, label_names: tuple[str, ...], config: DecisionConfig
) -> CalibratedDecision:
    """Fit a temperature and a decision on validation. Warn of each threshold that does not reach its floor.

    Args:
        logits: float32 (rows, classes).
        labels: Class ids (rows,), or a label matrix (rows, labels).
        label_names: (classes,).
        config: Whether to calibrate, and what the thresholds are for.
    """
    problem = problem_of(labels)
    before = reliability(problem.probabilities(logits), labels)
    temperature = fit_temperature(logits, labels) if config.calibrate else 1.0
    logits = logits / np.float32(temperature)
    calibrated = problem.probabilities(logits)
    aim = threshold_aim(config, problem)
    decision, thresholds = fit_decision(calibrated, labels, label_names, aim=aim)
    for entry in thresholds:
        if not entry["reached"]:
            warn(f"the threshold of {entry['label']!r} does not reach its aim: {entry['reason']}")
    few = [entry for entry in thresholds if entry["own_threshold"] is not None and entry["support"] < FEW_POSITIVES]
    _say_leaning([entry["label"] for entry in few])
    calibration = {"temperature": temperature, "before": before, "after": reliability(calibrated, labels)}
    return CalibratedDecision(decision, logits, calibration, thresholds)


def _say_leaning(labels: list[str]) -> None:
    """Say which labels' thresholds rest on few rows and lean on the other labels."""
    if labels:
        named = ", ".join(map(repr, labels[:5])) + (", ..." if len(labels) > 5 else "")
        say(
            f"{len(labels)} label{' has' if len(labels) == 1 else 's have'} under {FEW_POSITIVES} validation rows "
            f"({named}): their thresholds lean on those of all labels"
        )


def score_decision(
    labels: np.ndarray, logits: np.ndarray, decision: Decision, groups: np.ndarray | None = None
) -> dict[str, Any]:
    """Return `metrics.score` of the labels that the decision gives these logits, and their calibration.

    Macro-F1 has no interval in closed form; here it gets one from draws of the rows.

    Args:
        labels: True labels, (rows,) or (rows, labels).
        logits: (rows, classes).
        decision: How probabilities become labels.
        groups: The group of each row, (rows,), where rows belong together; None for independent rows.
    """
    probabilities = decision.problem.probabilities(logits)
    decided = decision.decide(probabilities)
    scores = metrics.score(labels, probabilities, decision.label_names, decided, groups)
    figure = scores["overall"]["f1_macro"]
    if figure["value"] is not None:
        figure["low"], figure["high"] = _interval_by_draws(labels, decided, "f1_macro", groups)
    return scores | {"calibration": reliability(probabilities, labels)}


def _interval_by_draws(
    labels: np.ndarray, predicted: np.ndarray, metric: str, groups: np.ndarray | None
) -> tuple[float, float] | tuple[None, None]:
    """Return the 95% interval of a metric, by the spread over draws of the rows; Nones where nothing varies.

    It is the interval of `significance.estimate` for one seed, which needs no scipy: a light install evaluates too.
    """
    try:
        found = resample(predicted[None], labels, metric, groups=groups, draws=INTERVAL_DRAWS)
    except DataError:  # undefined on most draws
        return None, None
    value, spread = float(found.points[0]), float(np.nanstd(found.draws[:, 0], ddof=1) * np.sqrt(found.shortfall))
    if spread < 1e-9:
        return None, None
    return max(value - NORMAL_QUANTILE * spread, 0.0), min(value + NORMAL_QUANTILE * spread, 1.0)
