"""After training: honest scores and good decisions, both fitted on the rows that chose, never on test.

The temperature goes into the output layer's weights, so that plain transformers gives calibrated scores too; the
decision (thresholds or costs) is kept beside them.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from fullbake import metrics
from fullbake.calibration import fit_temperature, reliability
from fullbake.choosing import Trained
from fullbake.config.problems import problem_of
from fullbake.config.sections import DecisionConfig
from fullbake.core.console import warn
from fullbake.decisions import Aim, Decision, fit_decision, probabilities
from fullbake.models.heads import divide_logits


@dataclass(frozen=True)
class Finished:
    """decision: how scores become labels. logits: of the rows that chose, float32 (rows, classes), calibrated.

    calibration: {"temperature", "before", "after"}, the latter two as `calibration.reliability` gives them. thresholds:
    an entry a label that has a threshold, with what it reaches on the rows it was fitted on.
    """

    decision: Decision
    logits: np.ndarray
    calibration: dict[str, Any]
    thresholds: list[dict[str, Any]]


def aim_of(config: DecisionConfig, *, multi_label: bool) -> Aim:
    """What the thresholds are for; `auto` is best F1 where a row may have many labels, else none."""
    thresholds = config.thresholds
    if thresholds == "auto":
        other = config.at_recall, config.at_precision, config.costs
        thresholds = "f1" if multi_label and other == (None, None, None) else "default"
    return Aim(thresholds, config.at_recall, config.at_precision, config.costs, config.positive)


def finish(trained: Trained, labels: np.ndarray, label_names: tuple[str, ...], config: DecisionConfig) -> Finished:
    """Fold a temperature into the network's output layer and fit its decision.

    labels: of the rows that trained.logits are of. Warns of a floor that no threshold reaches.
    """
    finished = settle(trained.logits, labels, label_names, config)
    divide_logits(trained.network, finished.calibration["temperature"])
    return finished


def settle(logits: np.ndarray, labels: np.ndarray, label_names: tuple[str, ...], config: DecisionConfig) -> Finished:
    """The temperature and the decision that suit logits (rows, classes), whatever they come from."""
    problem_type = problem_of(labels)
    before = reliability(probabilities(logits, problem_type), labels)
    temperature = fit_temperature(logits, labels) if config.calibrate else 1.0
    logits = logits / np.float32(temperature)
    chances = probabilities(logits, problem_type)
    aim = aim_of(config, multi_label=labels.ndim == 2)
    decision, thresholds = fit_decision(chances, labels, label_names, aim=aim)
    _warn_of_unreached(thresholds)
    calibration = {"temperature": temperature, "before": before, "after": reliability(chances, labels)}
    return Finished(decision, logits, calibration, thresholds)


def judged(labels: np.ndarray, logits: np.ndarray, decision: Decision) -> dict[str, Any]:
    """Every figure of logits (rows, classes): of the labels that the decision makes of them, and of the scores."""
    chances = probabilities(logits, problem_of(labels))
    scores = metrics.score(labels, chances, decision.label_names, decision.decide(chances))
    return scores | {"calibration": reliability(chances, labels)}


def _warn_of_unreached(thresholds: list[dict[str, Any]]) -> None:
    for entry in thresholds:
        if not entry["reached"]:
            warn(f"the threshold of {entry['label']!r} does not reach what was asked: {entry['reason']}")
