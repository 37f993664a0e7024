"""Metrics where a row may have many labels, or none: each label is a yes or no of its own.

`single_label_metrics` has the same functions, in the same order, for rows with exactly one label. Means over labels
take the labels that occur (F1: among labels or predictions; the others: those that some rows have), where scikit-learn
counts the rest as 0. An undefined metric raises UndefinedScoreError.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullbake.evaluation.scores import (
    Case,
    Floats,
    ScoreValue,
    UndefinedScoreError,
    area_under_roc,
    average_precision_of,
    class_proportions,
    compute_score,
    f1_from_jaccard,
    f1_per_class,
    negative_log,
)

_NO_LABEL = "no row has a label"
_NONE_PREDICTED = "no label was predicted"
_NEITHER = "no row has a label and none was predicted"


def accuracy(case: Case) -> float:
    """Return the share of rows whose labels are all right ("subset accuracy")."""
    return float((case.labels == case.predicted).all(axis=1).mean())


def accuracy_score(case: Case) -> ScoreValue:
    """Return accuracy with its interval."""
    right = (case.labels == case.predicted).all(axis=1)
    return case.proportion(right, np.ones_like(right), "")


def hamming_loss(case: Case) -> float:
    """Return the share of pairs of row and label that were predicted wrong."""
    return float((case.labels != case.predicted).mean())


def f1_macro(case: Case) -> float:
    """Return the mean F1 over the labels that occur."""
    scores = f1_per_class(case)
    defined = scores[~np.isnan(scores)]
    if not len(defined):
        raise UndefinedScoreError(_NEITHER)
    return float(defined.mean())


def f1_micro(case: Case) -> float:
    """Return F1 over all pairs of row and label."""
    return _ratio(2 * int(case.hits.sum()), int((case.support + case.claimed).sum()), _NEITHER)


def f1_micro_score(case: Case) -> ScoreValue:
    """Return micro F1 with its interval."""
    return f1_from_jaccard(case.proportion(case.labels & case.predicted, case.labels | case.predicted, _NEITHER))


def f1_weighted(case: Case) -> float:
    """Return the mean F1 weighted by the labels' rows."""
    if not case.support.sum():
        raise UndefinedScoreError(_NO_LABEL)
    return float(np.average(np.nan_to_num(f1_per_class(case)), weights=case.support))


def f1_samples(case: Case) -> float:
    """Return the mean F1 over the rows. A row without labels for which none was predicted counts as right."""
    hits = (case.labels & case.predicted).sum(axis=1)
    both = case.labels.sum(axis=1) + case.predicted.sum(axis=1)
    return float(np.where(both > 0, 2 * hits / np.maximum(both, 1), 1.0).mean())


def precision_micro(case: Case) -> float:
    """Return the share of predicted labels that are right."""
    return _ratio(int(case.hits.sum()), int(case.claimed.sum()), _NONE_PREDICTED)


def precision_micro_score(case: Case) -> ScoreValue:
    """Return micro precision with its interval."""
    return case.proportion(case.labels & case.predicted, case.predicted, _NONE_PREDICTED)


def recall_micro(case: Case) -> float:
    """Return the share of the rows' labels that were predicted."""
    return _ratio(int(case.hits.sum()), int(case.support.sum()), _NO_LABEL)


def recall_micro_score(case: Case) -> ScoreValue:
    """Return micro recall with its interval."""
    return case.proportion(case.labels & case.predicted, case.labels, _NO_LABEL)


def recall_macro(case: Case) -> float:
    """Return the mean recall over the labels that some rows have."""
    held = case.support > 0
    if not held.any():
        raise UndefinedScoreError(_NO_LABEL)
    return float((case.hits[held] / case.support[held]).mean())


def roc_auc(case: Case) -> float:
    """Return the mean area under the ROC curve over the labels that some rows have and some have not."""
    return _mean_over_mixed(case, area_under_roc)


def average_precision(case: Case) -> float:
    """Return the mean area under the precision-recall curve, over labels as in `roc_auc`."""
    return _mean_over_mixed(case, average_precision_of)


def log_loss(case: Case) -> float:
    """Return the mean binary negative log-likelihood over rows and labels, in nats."""
    return float(negative_log(np.where(case.labels, case.probabilities, 1 - case.probabilities)).mean())


def class_score(case: Case, place: int) -> dict[str, Any]:
    """Return the entry of `metrics.score`'s "per_class" for the label at this place."""
    name, column = case.names[place], [place]
    hits, support, claimed = (int(counts[place]) for counts in (case.hits, case.support, case.claimed))
    absent, unpredicted = f"no row has the label {name!r}", f"no row was predicted to have {name!r}"
    precision, recall, jaccard = class_proportions(case, place, absent, unpredicted)
    arrays = (case.labels[:, column], case.probabilities[:, column], case.predicted[:, column])
    alone = Case(case.problem, *arrays, [name])
    return {
        "label": name,
        "support": support,
        "predicted": claimed,
        "precision": precision,
        "recall": recall,
        "f1": f1_from_jaccard(jaccard),
        "roc_auc": compute_score(roc_auc, alone),
        "average_precision": compute_score(average_precision, alone),
        "tp": hits,
        "fp": claimed - hits,
        "fn": support - hits,
        "tn": len(case.labels) - support - claimed + hits,
    }


def _mean_over_mixed(case: Case, area: Callable[[NDArray[np.bool_], Floats], float]) -> float:
    mixed = np.flatnonzero((case.support > 0) & (case.support < len(case.labels))).tolist()
    if not mixed:
        raise UndefinedScoreError(f"there is no label that some rows have and some have not, as {case.names[0]!r}")
    return float(np.mean([area(case.labels[:, place], case.probabilities[:, place]) for place in mixed]))


def _ratio(above: int, below: int, reason: str) -> float:
    if not below:
        raise UndefinedScoreError(reason)
    return above / below
