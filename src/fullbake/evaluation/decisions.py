"""The rule that turns probabilities into labels, and how it is fitted on validation.

A rule is the plain decision of the problem (the likeliest class; or each label of 0.5 and more), a threshold for each
label, a threshold for one class, or the cheapest class under the costs of mistakes. Thresholds lie midway between two
scores of the rows they are fitted on, so that rounding moves no row to the other side.

Where a row may have many labels, thresholds with the best F1 lean on what all labels have in common, the more so the
fewer rows have the label (`few_positives`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from fullbake.config.problems import LabelArray, Probabilities, Problem, problem_of
from fullbake.core.errors import RecipeError, did_you_mean
from fullbake.evaluation.few_positives import lean_on_all_labels

_OUTCOMES: Final = ("miss", "false_alarm")
"""The two mistakes that one threshold can make."""


@dataclass(frozen=True)
class Decision:
    """How probabilities become labels. Without thresholds and costs it is the plain decision of the problem."""

    problem: Problem
    label_names: tuple[str, ...]

    thresholds: tuple[float, ...] | None = None
    """One for each label, or a single one for the class `positive`."""

    positive: int | None = None
    """Id of the class that the single threshold belongs to."""

    costs: tuple[tuple[float, ...], ...] | None = None
    """Cost of predicting class j for a row of class i, (classes, classes); only where a row has one label."""

    def decide(self, probabilities: Probabilities) -> LabelArray:
        """Return the labels that this rule gives to rows of probabilities, (rows, classes)."""
        if self.costs is not None:
            cheapest: NDArray[np.int64] = (probabilities @ np.array(self.costs)).argmin(axis=1)
            return cheapest
        if self.thresholds is None:
            return self.problem.decide(probabilities)
        if self.positive is None:
            return (probabilities >= np.array(self.thresholds)).astype(np.uint8)
        others = probabilities.copy()
        others[:, self.positive] = -1
        reached = probabilities[:, self.positive] >= self.thresholds[0]
        return np.where(reached, self.positive, others.argmax(axis=1))

    def to_json(self) -> dict[str, Any] | None:
        """Return JSON values with label names in place of ids; None for the plain decision."""
        names = self.label_names
        if self.costs is not None:
            return {"costs": {f"{a}>{b}": self.costs[i][j] for i, a in enumerate(names) for j, b in enumerate(names)}}
        if self.thresholds is None:
            return None
        own = names if self.positive is None else (names[self.positive],)
        return {"thresholds": dict(zip(own, self.thresholds, strict=True))}

    @classmethod
    def from_json(cls, values: Mapping[str, Any] | None, problem: Problem, label_names: Sequence[str]) -> "Decision":
        """Return the decision that `to_json` gave these values for."""
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
    """What a threshold is fitted for: best F1, a floor of recall or of precision, or the lowest cost."""

    thresholds: Literal["f1", "default"] = "default"
    """`f1`, or `default` for the plain decision."""

    at_recall: float | None = None
    """Take the highest threshold that keeps this recall."""

    at_precision: float | None = None
    """Take the lowest threshold that keeps this precision."""

    costs: Mapping[str, float] | None = None
    """Cost of each mistake, by the names in `Problem.cost_names`."""

    positive: str | None = None
    """Name of the class that the threshold belongs to, where a row has one label; None for the last of two."""

    @property
    def plain(self) -> bool:
        """Return True if there is nothing to fit."""
        aims = (self.at_recall, self.at_precision, self.costs)
        return self.thresholds == "default" and all(aim is None for aim in aims)


def check_threshold_aim(aim: ThresholdAim, problem: Problem, label_names: Sequence[str]) -> None:
    """Raise RecipeError for an aim that has no meaning for these labels, or that names an unknown label."""
    if aim.positive is not None and not problem.exclusive:
        raise RecipeError(
            "positive is for data where a row has one label; here every label has its own threshold",
            remedy="Leave out --positive.",
        )
    if aim.positive is not None and aim.positive not in label_names:
        raise RecipeError(
            f"positive: there is no class {aim.positive!r}", remedy=did_you_mean(aim.positive, tuple(label_names))
        )
    if aim.costs is not None:
        _check_costs(aim.costs, problem, label_names)
    elif not aim.plain and problem.exclusive and problem.positive_class(label_names, aim.positive) is None:
        raise RecipeError(
            "a threshold decides for one class against the rest",
            expected="the name of that class",
            got=f"{len(label_names)} classes and no --positive",
            remedy=f"Name the class, for example --positive {label_names[-1]!r}.",
        )


def _check_costs(costs: Mapping[str, float], problem: Problem, label_names: Sequence[str]) -> None:
    known = problem.cost_names(label_names)
    for name in costs:
        if name not in known:
            raise RecipeError(
                f"costs: {name!r} is not the name of a mistake on these labels",
                expected=problem.cost_names_hint,
                remedy=did_you_mean(name, known),
            )


def _cost_matrix(costs: Mapping[str, float], names: Sequence[str]) -> tuple[tuple[float, ...], ...]:
    """Return costs by (true, predicted). A mistake without a name costs 1, a right prediction 0."""
    return tuple(tuple(float(costs.get(f"{a}>{b}", a != b)) for b in names) for a in names)


def fit_decision(
    probabilities: Probabilities,
    labels: LabelArray,
    label_names: Sequence[str],
    *,
    aim: ThresholdAim,
    lean: bool = True,
) -> tuple[Decision, list[dict[str, Any]]]:
    """Fit the rule that serves the aim best on these rows.

    Args:
        probabilities: (rows, classes).
        labels: True labels of the rows, (rows,) or (rows, labels).
        label_names: (classes,).
        aim: What the rule is for.
        lean: Whether best-F1 thresholds of several labels lean on what the labels have in common.

    Returns:
        The rule, and an entry for each threshold that was fitted: {"label", "threshold", "support", "precision",
        "recall", "f1", "reached", "reason", "own_threshold"}. The metrics are those on these rows, null where
        undefined. `reason` says why the floor of the aim is not reached, else it is null. `own_threshold` is the best
        of the label's own rows where the threshold leans on the other labels, else it is null.
    """
    problem, names = problem_of(labels), tuple(label_names)
    if aim.plain:
        return Decision(problem, names), []
    if not problem.exclusive:
        fitted = [
            _fit(probabilities[:, label], labels[:, label] == 1, _goal(aim), name) for label, name in enumerate(names)
        ]
        if lean and aim.thresholds == "f1":
            fitted = _lean(fitted, probabilities, labels == 1)
        return Decision(problem, names, tuple(entry["threshold"] for entry in fitted)), fitted
    if aim.costs is not None and len(names) > 2:
        # The expected cost of each class decides (Elkan 2001). No threshold is fitted; the probabilities must be right.
        return Decision(problem, names, costs=_cost_matrix(aim.costs, names)), []
    positive = len(names) - 1 if aim.positive is None else names.index(aim.positive)
    entry = _fit(probabilities[:, positive], labels == positive, _goal(_binary(aim, names, positive)), names[positive])
    return Decision(problem, names, (entry["threshold"],), positive), [entry]


def match_decision(decision: Decision, probabilities: Probabilities, wanted: LabelArray) -> Decision:
    """Move thresholds so that another scoring of the same rows gives the labels of the first one as far as it can.

    A threshold moves only where that makes fewer labels differ; of equally good places the nearest one is taken.

    Args:
        decision: The rule of the first scoring.
        probabilities: The second scoring, (rows, classes).
        wanted: The labels that the rule gave to the first scoring, (rows,) or (rows, labels).
    """
    if decision.thresholds is None:
        return decision
    labels = range(len(decision.label_names)) if decision.positive is None else (decision.positive,)
    moved = [
        _match_threshold(threshold, probabilities[:, label], decision.problem.has_label(wanted, label))
        for threshold, label in zip(decision.thresholds, labels, strict=True)
    ]
    return replace(decision, thresholds=tuple(moved))


def _match_threshold(threshold: float, scores: Probabilities, wanted: NDArray[np.bool_]) -> float:
    """Return the threshold that claims the wanted rows with the fewest mistakes. scores, wanted: (rows,)."""
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)  # of each run of equal scores
    hits = np.append(0, np.cumsum(wanted[order])[last])
    mistakes = np.append(0, last + 1) - 2 * hits + wanted.sum()  # claimed and not wanted, and wanted and not claimed
    if mistakes.min() == ((scores >= threshold) != wanted).sum():
        return threshold
    places = [_midway(ranked[last], taken) for taken in np.flatnonzero(mistakes == mistakes.min()).tolist()]
    return min(places, key=lambda place: abs(place - threshold))


def predict_by_default(probabilities: Probabilities, labels: LabelArray) -> LabelArray:
    """Return the predictions of the problem's default decision on these rows: the likeliest class, or every label from
    the threshold of its best F1 on these rows.

    Args:
        probabilities: (rows, classes).
        labels: true labels, class ids (rows,) or 0 and 1 (rows, classes).
    """
    names = [str(label) for label in range(probabilities.shape[1])]
    aim = ThresholdAim(problem_of(labels).default_thresholds)
    # Epochs are compared by each label's own best threshold: leaning changes the decision, not what is trained.
    return fit_decision(probabilities, labels, names, aim=aim, lean=False)[0].decide(probabilities)


def _binary(aim: ThresholdAim, names: Sequence[str], positive: int) -> ThresholdAim:
    """Return the aim with the costs of two classes as the costs of a miss and of a false alarm of one of them."""
    if aim.costs is None:
        return aim
    matrix = _cost_matrix(aim.costs, names)
    other = 1 - positive
    return ThresholdAim(costs=dict(zip(_OUTCOMES, (matrix[positive][other], matrix[other][positive]), strict=True)))


@dataclass(frozen=True)
class _Curve:
    """What each possible threshold gives, from the highest (no row predicted) to the lowest (all rows)."""

    hits: Probabilities
    """Positive rows that are predicted, (thresholds,)."""

    predicted: Probabilities
    """Rows that are predicted, (thresholds,)."""

    support: int
    """Number of positive rows."""

    @property
    def recall(self) -> Probabilities:
        return self.hits / self.support

    @property
    def precision(self) -> Probabilities:
        """Return the precision, 0 where no row is predicted."""
        return self.hits / np.maximum(self.predicted, 1)

    @property
    def f1(self) -> Probabilities:
        return 2 * self.hits / (self.predicted + self.support)


@dataclass(frozen=True)
class _Goal:
    value: Callable[[_Curve], Probabilities]
    """How good each threshold is. The best is taken; of equals the highest threshold."""

    floor: float | None = None
    """The value from which the aim is reached; None where every threshold reaches it."""


def _goal(aim: ThresholdAim) -> _Goal:
    if aim.costs is not None:
        miss, alarm = (float(aim.costs.get(name, 1)) for name in _OUTCOMES)
        return _Goal(lambda curve: -(miss * (curve.support - curve.hits) + alarm * (curve.predicted - curve.hits)))
    if aim.at_recall is not None:
        recall = aim.at_recall
        return _Goal(lambda curve: np.minimum(curve.recall, recall), recall)
    if aim.at_precision is not None:
        precision = aim.at_precision
        # Of the thresholds that keep the precision, the one with the highest recall; if none does, the most precise.
        return _Goal(lambda curve: np.where(curve.precision >= precision, 1 + curve.recall, curve.precision), 1)
    return _Goal(lambda curve: curve.f1)


def _fit(scores: Probabilities, positive: NDArray[np.bool_], goal: _Goal, name: str) -> dict[str, Any]:
    """Fit one threshold and return its entry. scores, positive: (rows,)."""
    support = int(positive.sum())
    if support in (0, len(positive)):
        reason = f"{'no' if not support else 'every'} validation row has this label, so the threshold stays 0.5"
        return _entry(name, 0.5, support, None, reason)
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)  # of each run of equal scores
    hits = np.append(0, np.cumsum(positive[order])[last]).astype(np.float64)
    curve = _Curve(hits, np.append(0, last + 1).astype(np.float64), support)
    values = goal.value(curve)
    best = int(values.argmax())
    scored = curve.precision[best], curve.recall[best], curve.f1[best]
    unreached = goal.floor is not None and values[best] < goal.floor
    reason = f"the best threshold on {len(positive):,} rows has precision {scored[0]:.3f} and recall {scored[1]:.3f}"
    return _entry(name, _midway(ranked[last], best), support, scored, reason if unreached else None)


def _lean(fitted: list[dict[str, Any]], probabilities: Probabilities, held: NDArray[np.bool_]) -> list[dict[str, Any]]:
    """Return the entries with their thresholds drawn toward what all labels have in common."""
    leaning = lean_on_all_labels([entry["threshold"] for entry in fitted], probabilities, held)
    return [
        entry if new == entry["threshold"] else _leaning_entry(entry, new, scores, positive)
        for entry, new, scores, positive in zip(fitted, leaning, probabilities.T, held.T, strict=True)
    ]


def _leaning_entry(
    entry: dict[str, Any], threshold: float, scores: Probabilities, positive: NDArray[np.bool_]
) -> dict[str, Any]:
    support, claimed = int(entry["support"]), int((scores >= threshold).sum())
    if not support:
        reason = f"no validation row has this label, so it takes the labels' common threshold {threshold:.3f}"
        return entry | {"threshold": threshold, "reason": reason, "own_threshold": None}
    hits = int((positive & (scores >= threshold)).sum())
    scored = hits / claimed if claimed else 0.0, hits / support, 2 * hits / (claimed + support)
    own = entry["threshold"]
    return _entry(entry["label"], threshold, support, scored, entry["reason"]) | {"own_threshold": own}


def _midway(distinct: Probabilities, taken: int) -> float:
    """Return a threshold between the `taken` highest of the distinct scores (descending) and the next one."""
    above = float(distinct[taken - 1]) if taken else 1.0
    below = float(distinct[taken]) if taken < len(distinct) else 0.0
    middle = (above + below) / 2
    if middle > below:
        return middle
    # No float lies between the two. Without a row to take, the next number above 1 excludes all.
    return above if taken else float(np.nextafter(1, 2))


def _entry(
    name: str, threshold: float, support: int, scored: tuple[float, float, float] | None, reason: str | None
) -> dict[str, Any]:
    keys = ("precision", "recall", "f1")
    values = dict.fromkeys(keys) if scored is None else dict(zip(keys, map(float, scored), strict=True))
    entry = {"label": name, "threshold": threshold, "support": support, **values}
    return entry | {"reached": reason is None, "reason": reason, "own_threshold": None}
