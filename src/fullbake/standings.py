"""Test scores of recipes on the same rows -> what `leaderboard.json` says of each, of each pair, and of all.

Everything here happens after validation has chosen; nothing from here goes back.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fullbake import verdicts
from fullbake.config.problems import problem_of, spoken
from fullbake.core.errors import DataError
from fullbake.data.splits import Part
from fullbake.evaluation.bootstrap import BY_CHANCES, Resampled, resample
from fullbake.evaluation.calibration import reliability
from fullbake.evaluation.decisions import probabilities
from fullbake.evaluation.significance import class_recalls, estimate, median_seed, rank_disagreements, threshold_curve
from fullbake.verdicts import Contestant, Verdict

MOST_DISAGREEMENTS: Final = 100

SHOWN: Final = ("f1_macro", "accuracy", "log_loss", "roc_auc")
"""Figures that every recipe is told by, beside the metric."""

_LEAST: Final = {"matthews_corrcoef": -1.0, "neg_log_loss": -np.inf}
_MOST: Final = {"neg_log_loss": 0.0}


@dataclass(frozen=True)
class Truth:
    """The test rows of a comparison. parts: where they stand, one a fold. positive: the class whose curve is drawn, its
    place among the names."""

    parts: Sequence[Part]
    metric: str
    positive: int | None

    @cached_property
    def labels(self) -> NDArray[Any]:
        """Of all test rows: ids (rows,), or 0 and 1 (rows, labels)."""
        return np.concatenate([part.labels for part in self.parts])

    @property
    def names(self) -> tuple[str, ...]:
        """The labels' names."""
        return self.parts[0].source.label_names

    def told(self, decided: NDArray[Any]) -> str:
        """A row's label or labels in words."""
        if decided.ndim == 0:
            return self.names[int(decided)]
        return ", ".join(name for name, held in zip(self.names, decided, strict=True) if held) or "none"


@dataclass(frozen=True, eq=False)
class Scored:
    """A recipe's test scores. logits: (seeds, rows, classes). decided: (seeds, rows) or (seeds, rows, labels), by each
    seed's own decision. seconds: of training one. copies: seeds that it stands for where luck plays no part."""

    name: str
    title: str
    baseline: bool
    logits: NDArray[np.float32]
    decided: NDArray[Any]
    seconds: float
    copies: int = 1

    def resampled(self, truth: Truth) -> Resampled:
        """The metric over the seeds, each again and again on resampled rows."""
        return _resampled(self, truth.metric, truth.labels, self.copies)

    def nearest(self, truth: Truth) -> int:
        """The seed nearest the median."""
        return median_seed(_resampled(self, truth.metric, truth.labels, 1, draws=2).points)


def _resampled(scored: Scored, metric: str, labels: NDArray[Any], copies: int, draws: int = 2000) -> Resampled:
    if metric == "log_loss":
        found = _resampled(scored, "neg_log_loss", labels, copies, draws)
        return Resampled(-found.points, -found.draws, found.rows)
    if metric in BY_CHANCES:
        problem_type = problem_of(labels)
        chances = np.stack([probabilities(logits, problem_type) for logits in scored.logits])
        one = resample(chances, labels, metric, draws=draws)
    else:
        one = resample(scored.decided, labels, metric, draws=draws)
    return Resampled(np.repeat(one.points, copies), np.repeat(one.draws, copies, axis=1), one.rows)


def describe(scored: Scored, truth: Truth) -> dict[str, Any]:
    """test, recall, confusion, calibration and threshold_curve of a recipe, JSON values."""
    labels, nearest = truth.labels, scored.nearest(truth)
    problem_type = problem_of(labels)
    chances = np.stack([probabilities(logits, problem_type) for logits in scored.logits])
    curve = None
    if truth.positive is not None:
        place = truth.positive
        curve = threshold_curve(chances[:, :, place], labels == place, truth.names[place])
    return {
        "test": {name: _figure(scored, name, truth) for name in dict.fromkeys((truth.metric, *SHOWN))},
        "recall": class_recalls(scored.decided, labels, truth.names),
        "confusion": None if labels.ndim == 2 else _confusion(labels, scored.decided[nearest], len(truth.names)),
        "calibration": reliability(chances[nearest], labels),
        "threshold_curve": curve,
    }


def _figure(scored: Scored, name: str, truth: Truth) -> dict[str, Any]:
    """Mean over seeds with its interval, and each seed's own; null with a reason where it is undefined."""
    costly = name in ("roc_auc", "average_precision") and name != truth.metric
    try:
        found = _resampled(scored, name, truth.labels, 1, draws=2 if costly else 2000)
    except DataError as error:
        return {"mean": None, "low": None, "high": None, "seeds": [], "reason": error.what}
    seeds = [float(point) for point in found.points]
    if costly:
        reason = "intervals are made for the metric that decides"
        return {"mean": found.mean, "low": None, "high": None, "seeds": seeds, "reason": reason}
    least, most = (0.0, np.inf) if name == "log_loss" else (_LEAST.get(name, 0.0), _MOST.get(name, 1.0))
    told = estimate(found, least=least, most=most)
    return {"mean": told.mean, "low": told.low, "high": told.high, "seeds": seeds}


def _confusion(labels: NDArray[Any], decided: NDArray[Any], classes: int) -> list[list[int]]:
    counts: list[list[int]] = (
        np.bincount(labels * classes + decided, minlength=classes**2).reshape(-1, classes).tolist()
    )
    return counts


def compare_all(everyone: Sequence[Scored], truth: Truth) -> Verdict:
    """Every pair, and what follows."""
    return verdicts.judge([_contestant(scored, truth) for scored in everyone], spoken(truth.metric))


def _contestant(scored: Scored, truth: Truth) -> Contestant:
    decided = scored.decided[scored.nearest(truth)]
    right = decided == truth.labels if decided.ndim == 1 else (decided == truth.labels).all(axis=1)
    return Contestant(
        scored.name, scored.title, scored.resampled(truth), right, scored.seconds, baseline=scored.baseline
    )


def disputed(everyone: Sequence[Scored], truth: Truth) -> list[dict[str, Any]]:
    """The test rows that recipes judge differently, those most disputed first; baselines have no say."""
    answers = {scored.name: scored.decided[scored.nearest(truth)] for scored in everyone if not scored.baseline}
    ranked = rank_disagreements(answers, truth.labels, MOST_DISAGREEMENTS)
    texts = [text for part in truth.parts for text in part.whole_texts.to_pylist()]
    rows = np.concatenate([part.rows for part in truth.parts])
    return [
        {
            "row": int(rows[place]),
            "text": texts[place],
            "label": truth.told(truth.labels[place]),
            "predictions": {name: truth.told(own[place]) for name, own in answers.items()},
        }
        for place in ranked.tolist()
    ]
