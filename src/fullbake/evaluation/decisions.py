"""From logits to labels: probabilities, and the rule that makes a label of them.

A rule is fitted on validation: a threshold for each label, a threshold for one class, or the cheapest label under what
mistakes cost. Thresholds lie midway between two scores, so that rounding cannot turn a row over. The plain rule (the
likeliest class; for many labels a row 0.5) needs no fitting.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from fullbake.config.problems import LabelArray, Probabilities, Problem, problem_of
from fullbake.core.errors import RecipeError, did_you_mean

_OUTCOMES: Final = ("miss", "false_alarm")
"""The two mistakes that one threshold can make."""


@dataclass(frozen=True)
class Decision:
    """How probabilities become labels.

    thresholds: one a label where a row may have many; else one alone, that of the class `positive`. costs: (true,
    predicted), of single labels. Neither: the likeliest class, or every label of 0.5 and more.
    """

    problem: Problem
    label_names: tuple[str, ...]
    thresholds: tuple[float, ...] | None = None
    positive: int | None = None
    costs: tuple[tuple[float, ...], ...] | None = None

    def decide(self, probabilities: Probabilities) -> NDArray[Any]:
        """(rows, classes) -> ids int64 (rows,), or 0 and 1 as uint8 (rows, classes)."""
        if self.costs is not None:
            cheapest: NDArray[np.int64] = (probabilities @ np.array(self.costs)).argmin(axis=1)
            return cheapest
        if self.thresholds is None:
            return self.problem.decide(probabilities)
        if self.positive is None:
            return (probabilities >= np.array(self.thresholds)).astype(np.uint8)
        others = probabilities.copy()
        others[:, self.positive] = -1
        held = probabilities[:, self.positive] >= self.thresholds[0]
        return np.where(held, self.positive, others.argmax(axis=1))

    def to_json(self) -> dict[str, Any] | None:
        """JSON values, label names for ids; None for the plain rule."""
        names = self.label_names
        if self.costs is not None:
            return {"costs": {f"{a}>{b}": self.costs[i][j] for i, a in enumerate(names) for j, b in enumerate(names)}}
        if self.thresholds is None:
            return None
        own = names if self.positive is None else (names[self.positive],)
        return {"thresholds": dict(zip(own, self.thresholds, strict=True))}

    @classmethod
    def from_json(
        cls, values: Mapping[str, Any] | None, problem: Problem, label_names: Sequence[str]
    ) -> "Decision":
        """What `to_json` gave."""
        names = tuple(label_names)
        if values is None:
            return cls(problem, names)
        if "costs" in values:
            return cls(problem, names, costs=_cost_matrix(values["costs"], names))
        thresholds = values["thresholds"]
        if not problem.exclusive:
            return cls(problem, names, tuple(thresholds[name] for name in names))
        (name,) = thresholds
        return cls(problem, names, (thresholds[name],), names.index(name))


@dataclass(frozen=True)
class ThresholdAim:
    """What a threshold is for: best F1, the least that keeps a recall or a precision, or the least cost.

    thresholds: `f1` or `default` (the plain rule). costs: by "true>predicted", or miss and false_alarm where a row may
    have many labels. positive: the class that is meant, of single labels; None for the last of two.
    """

    thresholds: Literal["f1", "default"] = "default"
    at_recall: float | None = None
    at_precision: float | None = None
    costs: Mapping[str, float] | None = None
    positive: str | None = None

    @property
    def plain(self) -> bool:
        """Whether there is nothing to fit."""
        asked = (self.at_recall, self.at_precision, self.costs)
        return self.thresholds == "default" and all(value is None for value in asked)


def check_threshold_aim(aim: ThresholdAim, problem: Problem, label_names: Sequence[str]) -> None:
    """Raise RecipeError for an aim that these labels have no meaning for, or that names what there is not."""
    if aim.positive is not None and not problem.exclusive:
        raise RecipeError(
            "positive is for exclusive classes; here every label has a threshold of its own", remedy="Leave it out."
        )
    if aim.positive is not None and aim.positive not in label_names:
        raise RecipeError(
            f"positive: there is no class {aim.positive!r}", remedy=did_you_mean(aim.positive, tuple(label_names))
        )
    if aim.costs is not None:
        _check_costs(aim.costs, problem, label_names)
    elif not aim.plain and problem.exclusive and problem.positive_class(label_names, aim.positive) is None:
        raise RecipeError(
            "a threshold is one class's against the rest",
            expected="the name of that class",
            got=f"{len(label_names)} classes",
            remedy=f"Pass --positive {label_names[-1]!r}, say.",
        )


def _check_costs(costs: Mapping[str, float], problem: Problem, label_names: Sequence[str]) -> None:
    known = problem.cost_names(label_names)
    for name in costs:
        if name not in known:
            raise RecipeError(
                f"costs: {name!r} is no mistake that can be made here",
                expected=problem.cost_names_hint,
                remedy=did_you_mean(name, known),
            )


def _cost_matrix(costs: Mapping[str, float], names: Sequence[str]) -> tuple[tuple[float, ...], ...]:
    """(true, predicted); mistakes that are not named cost 1, what is right nothing."""
    return tuple(tuple(float(costs.get(f"{a}>{b}", a != b)) for b in names) for a in names)


def fit_decision(
    probabilities: Probabilities, labels: LabelArray, label_names: Sequence[str], *, aim: ThresholdAim
) -> tuple[Decision, list[dict[str, Any]]]:
    """The rule that serves `aim` best on these rows, and an entry for each threshold that was fitted.

    probabilities: (rows, classes). labels: ids (rows,), or 0 and 1 (rows, classes). An entry: label, threshold,
    support, precision, recall, f1 (on these rows; null where undefined), reached, and the reason where it is not.
    """
    problem, names = problem_of(labels), tuple(label_names)
    if aim.plain:
        return Decision(problem, names), []
    if not problem.exclusive:
        fitted = [
            _fit(probabilities[:, place], labels[:, place] == 1, _goal(aim), name) for place, name in enumerate(names)
        ]
        return Decision(problem, names, tuple(entry["threshold"] for entry in fitted)), fitted
    if aim.costs is not None and len(names) > 2:
        # the expected cost of each label (Elkan 2001): no threshold to fit, as long as the scores are honest
        return Decision(problem, names, costs=_cost_matrix(aim.costs, names)), []
    positive = len(names) - 1 if aim.positive is None else names.index(aim.positive)
    entry = _fit(probabilities[:, positive], labels == positive, _goal(_binary(aim, names, positive)), names[positive])
    return Decision(problem, names, (entry["threshold"],), positive), [entry]


def predict_by_default(probabilities: Probabilities, labels: LabelArray) -> LabelArray:
    """Return the predictions of the problem's default decision on these rows: the likeliest class, or every label from
    the threshold of its best F1 on these rows.

    Args:
        probabilities: (rows, classes).
        labels: true labels, class ids (rows,) or 0 and 1 (rows, classes).
    """
    names = [str(label) for label in range(probabilities.shape[1])]
    aim = ThresholdAim(problem_of(labels).default_thresholds)
    return fit_decision(probabilities, labels, names, aim=aim)[0].decide(probabilities)


def _binary(aim: ThresholdAim, names: Sequence[str], positive: int) -> ThresholdAim:
    """The aim with the costs of two classes as those of one that is missed or falsely raised."""
    if aim.costs is None:
        return aim
    matrix = _cost_matrix(aim.costs, names)
    other = 1 - positive
    return ThresholdAim(costs=dict(zip(_OUTCOMES, (matrix[positive][other], matrix[other][positive]), strict=True)))


@dataclass(frozen=True)
class _Curve:
    """What each threshold gives, from none predicted to all. hits, predicted: (thresholds,) rows. support: positives in
    all."""

    hits: Probabilities
    predicted: Probabilities
    support: int

    @property
    def recall(self) -> Probabilities:
        """Share of the positives that are found."""
        return self.hits / self.support

    @property
    def precision(self) -> Probabilities:
        """Share of the predicted that are positive; 0 where none is predicted."""
        return self.hits / np.maximum(self.predicted, 1)

    @property
    def f1(self) -> Probabilities:
        """Harmonic mean of the two."""
        return 2 * self.hits / (self.predicted + self.support)


@dataclass(frozen=True)
class _Goal:
    """value: curve -> how good each threshold is, the best one is taken, of equals the highest. floor: the value from
    which on what was asked is reached, None where nothing has to be."""

    value: Callable[[_Curve], Probabilities]
    floor: float | None = None


def _goal(aim: ThresholdAim) -> _Goal:
    if aim.costs is not None:
        miss, alarm = (float(aim.costs.get(name, 1)) for name in _OUTCOMES)
        return _Goal(lambda curve: -(miss * (curve.support - curve.hits) + alarm * (curve.predicted - curve.hits)))
    if aim.at_recall is not None:
        recall = aim.at_recall
        return _Goal(lambda curve: np.minimum(curve.recall, recall), recall)
    if aim.at_precision is not None:
        precision = aim.at_precision
        # of those that keep it the one that finds most; where none does, the most precise
        return _Goal(lambda curve: np.where(curve.precision >= precision, 1 + curve.recall, curve.precision), 1)
    return _Goal(lambda curve: curve.f1)


def _fit(scores: Probabilities, truth: NDArray[np.bool_], goal: _Goal, name: str) -> dict[str, Any]:
    """A threshold for one label. scores, truth: (rows,)."""
    support = int(truth.sum())
    if support in (0, len(truth)):
        reason = f"{'no' if not support else 'every'} row that chooses has it; it keeps 0.5"
        return _entry(name, 0.5, support, None, reason)
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)  # of each run of equal scores
    hits = np.append(0, np.cumsum(truth[order])[last]).astype(np.float64)
    curve = _Curve(hits, np.append(0, last + 1).astype(np.float64), support)
    values = goal.value(curve)
    best = int(values.argmax())
    figures = curve.precision[best], curve.recall[best], curve.f1[best]
    unreached = goal.floor is not None and values[best] < goal.floor
    reason = f"the best there is on {len(truth):,} rows is precision {figures[0]:.3f}, recall {figures[1]:.3f}"
    return _entry(name, _between(ranked[last], best), support, figures, reason if unreached else None)


def _between(distinct: Probabilities, taken: int) -> float:
    """A threshold that takes the highest `taken` of the distinct scores (descending): midway to the next one."""
    above = float(distinct[taken - 1]) if taken else 1.0
    below = float(distinct[taken]) if taken < len(distinct) else 0.0
    middle = (above + below) / 2
    if middle > below:
        return middle
    return above if taken else float(np.nextafter(1, 2))  # no number between them; above 1 no row is taken


def _entry(
    name: str, threshold: float, support: int, figures: tuple[float, float, float] | None, reason: str | None
) -> dict[str, Any]:
    keys = ("precision", "recall", "f1")
    told = dict.fromkeys(keys) if figures is None else dict(zip(keys, map(float, figures), strict=True))
    entry = {"label": name, "threshold": threshold, "support": support, **told}
    return entry | {"reached": reason is None, "reason": reason}
