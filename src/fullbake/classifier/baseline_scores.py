"""What baselines without an encoder reach on the rows of a run, beside which the classifier's scores can be read.

A macro-F1 of 0.03 looks like any other number; beside that of the majority class and of TF-IDF it does not. Baselines
are trained on the run's own training rows, choose on its validation rows and decide by its recipe, apart from the
training itself: they change no weight.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
from threadpoolctl import threadpool_limits

from fullbake.config.problems import problem_of
from fullbake.config.sections import DecisionConfig
from fullbake.core.console import activity, silenced
from fullbake.data.partition import split
from fullbake.data.splits import Part, Parts
from fullbake.evaluation.calibration import fit_calibration
from fullbake.evaluation.decisions import Decision
from fullbake.evaluation.metrics import selection_score
from fullbake.training.baselines import BASELINE_NAMES, Baseline, BaselineChoice, BaselineRows, fit_baseline

MOST_ROWS: Final = 20_000
"""Most training rows of a baseline."""

MOST_TARGETS: Final = 400_000
"""Most training rows times classes; a regression has weights for each class."""

METRICS_SHOWN: Final = ("accuracy", "f1_macro")


def score_baselines(parts: Parts, config: DecisionConfig) -> dict[str, Any]:
    """Train the baselines on the training rows of a run, and score them on the rows that its classifier is scored on.

    Args:
        parts: The rows of the run.
        config: How the classifier decides; the baselines decide so too.

    Returns:
        `train_rows`, the rows they were trained on, `rows`, all training rows, and for each baseline by name an entry
        for each part: `{"accuracy", "f1_macro"}`, with the choices of TF-IDF under `chosen`.
    """
    train = bounded(parts.train)
    found: dict[str, Any] = {"train_rows": len(train), "rows": len(parts.train)}
    # Warnings on thresholds are about the classifier, not about what stands beside it.
    with activity("baselines"), silenced(), threadpool_limits(1):
        for name in BASELINE_NAMES:
            found[name] = _score_baseline(name, parts, train, config)
    return found


def bounded(part: Part) -> Part:
    """Return the part, or so many of its rows as a baseline is trained on; each class keeps its share."""
    most = min(MOST_ROWS, MOST_TARGETS // max(len(part.source.label_names), 1))
    if len(part) <= most:
        return part
    chosen = split(np.arange(len(part)), part.labels, most / len(part), 0)[1]
    return replace(part, indices=part.indices[chosen])


def _score_baseline(name: str, parts: Parts, train: Part, config: DecisionConfig) -> dict[str, Any]:
    fitted, logits = _fit(name, parts, train)
    held, names = parts.selection_part, parts.train.source.label_names
    calibrated = fit_calibration(logits, held.labels, names, config)
    scores = {"validation": _scores(held.labels, calibrated.logits, calibrated.decision)}
    if parts.test is not None:
        logits = fitted.logits(_texts(parts.test)) / np.float32(calibrated.calibration["temperature"])
        scores["test"] = _scores(parts.test.labels, logits, calibrated.decision)
    chosen = {} if fitted.choice is None else {"chosen": vars(fitted.choice)}
    return scores | chosen


def _fit(name: str, parts: Parts, train: Part) -> tuple[Baseline, np.ndarray]:
    """Return the baseline of all training rows, and its logits of the rows that select (rows, classes)."""
    classes = len(parts.train.source.label_names)
    if parts.validation is not None:
        fitted = fit_baseline(name, _rows(train), classes, validation=_rows(parts.validation))
        return fitted, fitted.logits(_texts(parts.validation))
    # Under folds each row is scored by a baseline that was not trained on it; the first fold chooses for all.
    logits = np.empty((len(parts.train), classes), dtype=np.float32)
    choice: BaselineChoice | None = None
    for positions in parts.folds:
        held = replace(parts.train, indices=parts.train.indices[positions])
        rest = bounded(parts.train.without(positions))
        of_fold = fit_baseline(name, _rows(rest), classes, validation=_rows(held), choice=choice)
        choice = of_fold.choice
        logits[positions] = of_fold.logits(_texts(held))
    return fit_baseline(name, _rows(train), classes, validation=_rows(train), choice=choice), logits


def _texts(part: Part) -> Sequence[str]:
    texts: list[str] = part.joined_texts.to_pylist()
    return texts


def _rows(part: Part) -> BaselineRows:
    return BaselineRows(_texts(part), part.labels)


def _scores(labels: np.ndarray, logits: np.ndarray, decision: Decision) -> dict[str, float]:
    probabilities = problem_of(labels).probabilities(logits)
    predicted = decision.decide(probabilities)
    return {
        metric: selection_score(metric, labels, probabilities, decision.label_names, predicted=predicted)
        for metric in METRICS_SHOWN
    }


def compare_with_baselines(facts: dict[str, Any]) -> str | None:
    """Return a sentence where a classifier's macro-F1 is not above that of a baseline; None where it is, or is unknown.

    Args:
        facts: Entries of fullbake.json, among them `metrics` and `baselines`.
    """
    baselines = facts.get("baselines")
    if baselines is None:
        return None
    part = "test" if "test" in facts["metrics"] else "validation"
    own = facts["metrics"][part]["overall"]["f1_macro"]["value"]
    if own is None:
        return None
    best = max(BASELINE_NAMES, key=lambda name: baselines[name][part]["f1_macro"])
    value = baselines[best][part]["f1_macro"]
    if own > value:
        return None
    return (
        f"The classifier is not above the baseline {BASELINE_NAMES[best]} on the {part} rows: macro-F1 {own:.4f} "
        f"against {value:.4f}. More epochs, another rate, way or base may help; or the rows do not need an encoder."
    )
