"""Metrics where every row has exactly one label. Each function takes a `Case` and returns a number.

`multilabel_metrics` has the same functions, in the same order, for rows with any number of labels. Where scikit-learn
answers an undefined metric with 0 and a warning, these functions raise UndefinedScoreError. They keep two conventions
of scikit-learn, because those are limits and not guesses: Matthews' coefficient is 0 when every row got the same
prediction, and a mean over classes takes those that occur (F1: among labels or predictions; recall: among labels).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullbake.evaluation.scores import (
    Case,
    Counts,
    Floats,
    ScoreValue,
    UndefinedScoreError,
    area_under_roc,
    average_precision_of,
    class_proportions,
    f1_from_jaccard,
    f1_per_class,
    negative_log,
)


def accuracy(case: Case) -> float:
    """Return the share of rows predicted right. Micro F1 is the same number where a row has one label."""
    return float((case.labels == case.predicted).mean())


def accuracy_score(case: Case) -> ScoreValue:
    """Return accuracy with its interval."""
    right = case.labels == case.predicted
    return case.proportion(right, np.ones_like(right), "")


def f1_macro(case: Case) -> float:
    """Return the mean F1 over the classes that occur."""
    scores = f1_per_class(case)
    return float(scores[~np.isnan(scores)].mean())


def f1_weighted(case: Case) -> float:
    """Return the mean F1 weighted by the classes' rows."""
    scores = f1_per_class(case)
    occurring = ~np.isnan(scores)
    return float(np.average(scores[occurring], weights=case.support[occurring]))


def recall_macro(case: Case) -> float:
    """Return the mean recall over the classes that have rows (balanced accuracy)."""
    occurring = case.support + case.claimed > 0
    hits, support = case.hits[occurring], case.support[occurring]
    # Classes without rows stay in the sum as 0 (nanmean): scikit-learn's order of addition, and so its last bit.
    return float(np.nanmean(np.divide(hits, support, out=np.full(len(hits), np.nan), where=support > 0)))


def matthews_corrcoef(case: Case) -> float:
    """Return Matthews' correlation coefficient (Gorodkin 2004 for more than two classes)."""
    _require_two_classes(case)
    hits, support, claimed = (counts.astype(np.float64) for counts in (case.hits, case.support, case.claimed))
    rows = float(len(case.labels))
    covariance = hits.sum() * rows - np.dot(support, claimed)
    spread = (rows**2 - np.dot(claimed, claimed)) * (rows**2 - np.dot(support, support))
    return 0.0 if spread == 0 else float(covariance / np.sqrt(spread))


def roc_auc(case: Case) -> float:
    """Return the area under the ROC curve: of the last of two classes, or the mean of each class against the rest."""
    return _one_vs_rest(case, area_under_roc)


def average_precision(case: Case) -> float:
    """Return the area under the precision-recall curve, over classes as in `roc_auc`."""
    return _one_vs_rest(case, average_precision_of)


def log_loss(case: Case) -> float:
    """Return the mean negative log-likelihood of the rows' labels, in nats."""
    return float(negative_log(case.probabilities[np.arange(len(case.labels)), case.labels]).mean())


def class_score(case: Case, place: int) -> dict[str, Any]:
    """Return the entry of `metrics.score`'s "per_class" for the class at this place."""
    name = case.names[place]
    support, claimed = int(case.support[place]), int(case.claimed[place])
    absent, unpredicted = f"no row is labeled {name!r}", f"no row was predicted as {name!r}"
    precision, recall, jaccard = class_proportions(case, place, absent, unpredicted)
    return {
        "label": name,
        "support": support,
        "predicted": claimed,
        "precision": precision,
        "recall": recall,
        "f1": f1_from_jaccard(jaccard),
    }


def confusion_matrix(case: Case) -> Counts:
    """Return how many rows of class i were predicted as class j, (classes, classes)."""
    classes = len(case.names)
    return np.bincount(case.labels * classes + case.predicted, minlength=classes**2).reshape(classes, classes)


def _one_vs_rest(case: Case, area: Callable[[NDArray[np.bool_], Floats], float]) -> float:
    _require_two_classes(case)
    scored = [1] if len(case.names) == 2 else range(len(case.names))
    absent = [case.names[place] for place in scored if not case.support[place]]
    if absent:
        more = f" (nor {len(absent) - 1} other classes)" if len(absent) > 1 else ""
        raise UndefinedScoreError(f"no row is labeled {absent[0]!r}{more}")
    return float(np.mean([area(case.labels == place, case.probabilities[:, place]) for place in scored]))


def _require_two_classes(case: Case) -> None:
    if (case.labels == case.labels[0]).all():
        raise UndefinedScoreError(f"every row is labeled {case.names[case.labels[0]]!r}")
