"""Whether scores are honest chances, and the one number that makes them more so.

A temperature (Guo et al. 2017, arXiv 1706.04599) divides all logits: it changes no order of scores within a row, and it
can be folded into an output layer. A weak prior keeps it near 1 where there are few rows or none is wrong, when the
likelihood alone would drive it to 0.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fullbake.config.problems import Problem, problem_of
from fullbake.config.sections import DecisionConfig
from fullbake.core.console import warn
from fullbake.evaluation import metrics
from fullbake.evaluation.decisions import Decision, ThresholdAim, fit_decision

PRIOR: Final = 0.7
"""Standard deviation of the temperature's logarithm before any row is seen: two thirds lie between 0.5 and 2."""

_LIMITS: Final = (np.log(0.05), np.log(20.0))


def fit_temperature(logits: NDArray[np.floating[Any]], labels: NDArray[Any]) -> float:
    """The temperature under which the rows are likeliest; above 1 where the scores were too sure.

    logits: (rows, classes). labels: ids (rows,), or 0 and 1 (rows, classes), whose labels share one temperature.
    """
    from scipy.optimize import minimize_scalar

    problem = problem_of(labels)

    def cost(log_temperature: float) -> float:
        # the labels of one row are far from independent: a row counts once, however many it has
        losses = problem.row_losses(logits / np.exp(log_temperature), labels)
        return float(losses.sum()) + 0.5 * (log_temperature / PRIOR) ** 2

    found = minimize_scalar(cost, bounds=_LIMITS, method="bounded", options={"xatol": 1e-4})
    return float(np.exp(found.x))


def reliability(probabilities: NDArray[np.float64], labels: NDArray[Any], bins: int = 15) -> dict[str, Any]:
    """How far scores are from the shares of what came true, JSON values.

    probabilities: (rows, classes). labels: ids (rows,): then it is the score of the likeliest class, and how often it
    is right; or 0 and 1 (rows, classes): then every label of every row, and how often it holds.

    Returns {"ece", "brier", "bins"}: the expected calibration error over `bins` bins of equal width (Guo et al. 2017,
    with the first and last bins closed), the mean squared difference (Brier 1950; over all classes of a row), and of
    each bin that has scores {"low", "high", "count", "confidence", "accuracy"}.
    """
    problem = problem_of(labels)
    confidence, right = problem.confidences(probabilities, labels)
    place = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    counts = np.bincount(place, minlength=bins)
    claimed, held = (np.bincount(place, weights=values, minlength=bins) for values in (confidence, right))
    shares = [
        {
            "low": number / bins,
            "high": (number + 1) / bins,
            "count": int(counts[number]),
            "confidence": float(claimed[number] / counts[number]),
            "accuracy": float(held[number] / counts[number]),
        }
        for number in np.flatnonzero(counts).tolist()
    ]
    return {"ece": float(np.abs(claimed - held).sum() / counts.sum()), "brier": problem.brier(probabilities, labels), "bins": shares}


@dataclass(frozen=True)
class CalibratedDecision:
    """decision: how scores become labels. logits: of the rows that chose, float32 (rows, classes), calibrated.

    calibration: {"temperature", "before", "after"}, the latter two as `calibration.reliability` gives them. thresholds:
    an entry a label that has a threshold, with what it reaches on the rows it was fitted on.
    """

    decision: Decision
    logits: np.ndarray
    calibration: dict[str, Any]
    thresholds: list[dict[str, Any]]


def threshold_aim(config: DecisionConfig, problem: Problem) -> ThresholdAim:
    """What the thresholds are for; `auto` is best F1 where a row may have many labels, else none."""
    thresholds = config.thresholds
    if thresholds == "auto":
        other = config.at_recall, config.at_precision, config.costs
        thresholds = problem.default_thresholds if other == (None, None, None) else "default"
    return ThresholdAim(thresholds, config.at_recall, config.at_precision, config.costs, config.positive)


def fit_calibration(
    logits: np.ndarray, labels: np.ndarray, label_names: tuple[str, ...], config: DecisionConfig
) -> CalibratedDecision:
    """The temperature and the decision that suit logits (rows, classes), whatever they come from."""
    problem = problem_of(labels)
    before = reliability(problem.probabilities(logits), labels)
    temperature = fit_temperature(logits, labels) if config.calibrate else 1.0
    logits = logits / np.float32(temperature)
    chances = problem.probabilities(logits)
    aim = threshold_aim(config, problem)
    decision, thresholds = fit_decision(chances, labels, label_names, aim=aim)
    _warn_of_unreached(thresholds)
    calibration = {"temperature": temperature, "before": before, "after": reliability(chances, labels)}
    return CalibratedDecision(decision, logits, calibration, thresholds)


def score_decision(labels: np.ndarray, logits: np.ndarray, decision: Decision) -> dict[str, Any]:
    """Every figure of logits (rows, classes): of the labels that the decision makes of them, and of the scores."""
    chances = decision.problem.probabilities(logits)
    scores = metrics.score(labels, chances, decision.label_names, decision.decide(chances))
    return scores | {"calibration": reliability(chances, labels)}


def _warn_of_unreached(thresholds: list[dict[str, Any]]) -> None:
    for entry in thresholds:
        if not entry["reached"]:
            warn(f"the threshold of {entry['label']!r} does not reach what was asked: {entry['reason']}")
