"""The likeliest labels of each row with their scores, and thresholds that a caller gives for one prediction."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, TypedDict

import numpy as np
from numpy.typing import NDArray

from fullbake.config.problems import Probabilities
from fullbake.core.arguments import as_plain_value, describe_value
from fullbake.core.errors import RecipeError, did_you_mean
from fullbake.evaluation.decisions import Decision

Threshold = float | Mapping[str, float]
"""One score from 0 to 1, or a score by label name."""

_SCORE: Final = "a score from 0 to 1"


class LabelScore(TypedDict):
    """A label and its score, as transformers' pipelines return them."""

    label: str
    score: float


def top_labels(probabilities: Probabilities, top_k: int) -> NDArray[np.int64]:
    """Return the ids of the likeliest labels of each row, the likeliest first; of equal scores the lower id first.

    Args:
        probabilities: (rows, classes).
        top_k: How many of each row; more than there are classes means all.

    Returns:
        (rows, min(top_k, classes)).

    Raises:
        RecipeError: `top_k` is not a whole number of 1 or more.
    """
    number = as_plain_value(top_k)
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise RecipeError(
            "top_k says how many labels of each text are returned",
            where="--top-k (top_k)",
            expected="a whole number of 1 or more",
            got=describe_value(top_k),
            remedy="For all labels pass their number: top_k=len(classifier.classes_).",
        )
    order: NDArray[np.int64] = np.argsort(-probabilities, axis=1, kind="stable")[:, :number]
    return order


def list_top_labels(
    probabilities: Probabilities, label_names: Sequence[str], top_k: int, threshold: Threshold | None = None
) -> list[list[LabelScore]]:
    """Return the likeliest labels of each row as transformers' pipelines do.

    Args:
        probabilities: (rows, classes).
        label_names: (classes,).
        top_k: As for `top_labels`.
        threshold: Leave out labels whose score is below it. Of a mapping, only the labels in it are held to a score.

    Returns:
        A list for each row, the likeliest label first; with a threshold it may be shorter than `top_k`, or empty.
    """
    ids = top_labels(probabilities, top_k)
    least = dict.fromkeys(label_names, 0.0) | _by_label(threshold, label_names)
    scores = np.take_along_axis(probabilities, ids, axis=1)
    return [
        [
            LabelScore(label=name, score=score)
            for name, score in zip((label_names[place] for place in row), values, strict=True)
            if score >= least[name]
        ]
        for row, values in zip(ids.tolist(), scores.tolist(), strict=True)
    ]


def with_threshold(decision: Decision, threshold: Threshold) -> Decision:
    """Return the decision with other thresholds.

    Args:
        decision: The decision of the classifier.
        threshold: Where a row may have many labels: a score for all labels, or scores of some of them by name; the
            others keep theirs. Where a row has one label: the score from which on one class is predicted. Of two
            classes a number belongs to the class of the decision's own threshold, or else to the last one; of more
            classes a mapping names the class.

    Raises:
        RecipeError: A score is not from 0 to 1, a label is unknown, or it is not clear which class is meant.
    """
    names, problem = decision.label_names, decision.problem
    given = _by_label(threshold, names)
    if not problem.exclusive:
        own = dict(zip(names, decision.thresholds or [0.5] * len(names), strict=True))
        return Decision(problem, names, thresholds=tuple((own | given)[name] for name in names))
    if not isinstance(threshold, Mapping):
        positive = decision.positive if decision.positive is not None else problem.positive_class(names, None)
        if positive is None:
            raise _unclear_class(names, f"{len(names)} classes and the number {threshold}")
        given = {names[positive]: given[names[positive]]}
    if len(given) != 1:
        raise _unclear_class(names, f"thresholds of {len(given)} classes")
    (name,) = given
    return replace(Decision(problem, names), thresholds=(given[name],), positive=names.index(name))


def _by_label(threshold: Threshold | None, names: Sequence[str]) -> dict[str, float]:
    """Return a checked score by label name; {} for None."""
    if threshold is None:
        return {}
    scores: dict[Any, Any] = dict(threshold) if isinstance(threshold, Mapping) else dict.fromkeys(names, threshold)
    for name, score in scores.items():
        if name not in names:
            raise RecipeError(
                f"there is no label {name!r}",
                where="--threshold (threshold)",
                remedy=did_you_mean(str(name), tuple(names)),
            )
        value = as_plain_value(score)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1 or math.isnan(value):
            raise RecipeError(
                "a threshold is a score", where="--threshold (threshold)", expected=_SCORE, got=describe_value(score)
            )
        scores[name] = float(value)
    return scores


def _unclear_class(names: Sequence[str], got: str) -> RecipeError:
    return RecipeError(
        "a threshold decides for one class against the rest",
        where="--threshold (threshold)",
        expected=f"the score of one class, for example {{{names[-1]!r}: 0.8}}, or --threshold {names[-1]}=0.8",
        got=got,
        remedy="To leave out labels with a low score, give Classifier.predict top_k=1 too: texts without a sure label "
        "get an empty list.",
    )
