"""Scores where a row may have many labels, or none: each label is a yes or no of its own.

Macro averages run over the labels that occur (`f1_macro`: among labels or predictions; `recall_macro`, `roc_auc`,
`average_precision`: those that some rows have), as those of exclusive classes do; scikit-learn counts the others as 0.
Accuracy is the share of rows whose labels are all right ("subset accuracy").
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullbake.core.errors import DataError
from fullbake.evaluation.scores import ScoreValue, UndefinedScoreError, compute_score, f1_from_jaccard, proportion_score

Matrix = NDArray[np.bool_]


def _per_label(held: Matrix) -> NDArray[np.int64]:
    counts: NDArray[np.int64] = held.sum(axis=0)
    return counts


@dataclass(frozen=True)
class LabelMatrices:
    """labels, predicted: (rows, labels) of yes and no. probabilities: (rows, labels) float64."""

    labels: Matrix
    probabilities: NDArray[np.float64]
    predicted: Matrix
    names: Sequence[str]

    @property
    def hits(self) -> NDArray[np.int64]:
        """Rows rightly predicted, (labels,)."""
        return _per_label(self.labels & self.predicted)

    @property
    def support(self) -> NDArray[np.int64]:
        """Rows that have each label, (labels,)."""
        return _per_label(self.labels)

    @property
    def claimed(self) -> NDArray[np.int64]:
        """Rows predicted to have each label, (labels,)."""
        return _per_label(self.predicted)


MultilabelMeasure = Callable[[LabelMatrices], float]


def make_label_matrices(
    labels: NDArray[Any], probabilities: NDArray[np.float64], names: Sequence[str], predicted: NDArray[Any] | None
) -> LabelMatrices:
    """The arrays as one value; a label is predicted from 0.5 on where `predicted` is not given. Raises DataError where
    they do not fit together."""
    decided = probabilities >= 0.5 if predicted is None else np.asarray(predicted)
    for what, values in (("labels", np.asarray(labels)), ("predictions", decided)):
        if values.shape != probabilities.shape or not np.isin(values, (0, 1)).all():
            raise DataError(
                "labels and probabilities cannot be scored",
                expected=f"{what} of 0 and 1 of shape {probabilities.shape}",
                got=f"{values.dtype} of shape {values.shape}",
            )
    return LabelMatrices(np.asarray(labels) == 1, probabilities, decided == 1, names)


def score_multilabel(case: LabelMatrices) -> dict[str, Any]:
    """`metrics.score` for many labels a row; per_class has roc_auc, average_precision and the four counts besides."""
    return {
        "rows": len(case.labels),
        "positive": None,
        "overall": _overall(case),
        "per_class": [_label_figures(case, place, name) for place, name in enumerate(case.names)],
        "confusion_matrix": None,
    }


def multilabel_measure(name: str) -> MultilabelMeasure:
    """The measure that validation chooses by under this name (of `figures.MULTI_LABEL_SELECTION`)."""
    return (lambda case: -_log_loss(case)) if name == "neg_log_loss" else MEASURES[name]


def _overall(case: LabelMatrices) -> dict[str, ScoreValue]:
    figures = {name: compute_score(measure, case) for name, measure in MEASURES.items()}
    right = int((case.labels == case.predicted).all(axis=1).sum())
    hits, support, claimed = (int(counts.sum()) for counts in (case.hits, case.support, case.claimed))
    shares = {
        "accuracy": proportion_score(right, len(case.labels), ""),
        "precision_micro": proportion_score(hits, claimed, "no label was predicted"),
        "recall_micro": proportion_score(hits, support, "no row has a label"),
        "f1_micro": f1_from_jaccard(
            proportion_score(hits, support + claimed - hits, "no row has a label and none was predicted")
        ),
    }
    return figures | shares


def _label_figures(case: LabelMatrices, place: int, name: str) -> dict[str, Any]:
    hits, support, claimed = (int(counts[place]) for counts in (case.hits, case.support, case.claimed))
    absent, unpredicted = f"no row has the label {name!r}", f"no row was predicted to have {name!r}"
    own = [place]
    alone = LabelMatrices(case.labels[:, own], case.probabilities[:, own], case.predicted[:, own], [name])
    return {
        "label": name,
        "support": support,
        "predicted": claimed,
        "precision": proportion_score(hits, claimed, unpredicted),
        "recall": proportion_score(hits, support, absent),
        "f1": f1_from_jaccard(proportion_score(hits, support + claimed - hits, f"{absent} and {unpredicted}")),
        "roc_auc": compute_score(_roc_auc, alone),
        "average_precision": compute_score(_average_precision, alone),
        "tp": hits,
        "fp": claimed - hits,
        "fn": support - hits,
        "tn": len(case.labels) - support - claimed + hits,
    }


def _accuracy(case: LabelMatrices) -> float:
    return float((case.labels == case.predicted).all(axis=1).mean())


def _hamming_loss(case: LabelMatrices) -> float:
    return float((case.labels != case.predicted).mean())


def _f1(case: LabelMatrices) -> NDArray[np.float64]:
    """F1 of each label, NaN where it is neither held nor predicted."""
    both = (case.support + case.claimed).astype(np.float64)
    scores: NDArray[np.float64] = np.divide(2 * case.hits, both, out=np.full(len(both), np.nan), where=both > 0)
    return scores


def _f1_macro(case: LabelMatrices) -> float:
    return _mean(_f1(case), "no row has a label and none was predicted")


def _f1_micro(case: LabelMatrices) -> float:
    both = int((case.support + case.claimed).sum())
    if not both:
        raise UndefinedScoreError("no row has a label and none was predicted")
    return float(2 * case.hits.sum() / both)


def _f1_weighted(case: LabelMatrices) -> float:
    if not case.support.sum():
        raise UndefinedScoreError("no row has a label")
    return float(np.average(np.nan_to_num(_f1(case)), weights=case.support))


def _f1_samples(case: LabelMatrices) -> float:
    """Mean over rows; a row without labels of which none is predicted is right."""
    hits = (case.labels & case.predicted).sum(axis=1)
    both = case.labels.sum(axis=1) + case.predicted.sum(axis=1)
    return float(np.where(both > 0, 2 * hits / np.maximum(both, 1), 1.0).mean())


def _recall_macro(case: LabelMatrices) -> float:
    held = case.support > 0
    return _mean(case.hits[held] / case.support[held], "no row has a label")


def _mean(values: NDArray[np.float64], reason: str) -> float:
    defined = values[~np.isnan(values)]
    if not len(defined):
        raise UndefinedScoreError(reason)
    return float(defined.mean())


def _log_loss(case: LabelMatrices) -> float:
    """Mean over rows and labels, in nats; 0 counts as float64's epsilon."""
    own = np.where(case.labels, case.probabilities, 1 - case.probabilities)
    return float(-np.log(np.clip(own, np.finfo(np.float64).eps, 1)).mean())


def _roc_auc(case: LabelMatrices) -> float:
    from sklearn.metrics import roc_auc_score

    return _over_mixed(case, roc_auc_score)


def _average_precision(case: LabelMatrices) -> float:
    from sklearn.metrics import average_precision_score

    return _over_mixed(case, average_precision_score)


def _over_mixed(case: LabelMatrices, curve: Callable[[Matrix, NDArray[np.float64]], float]) -> float:
    """The mean over the labels that some rows have and some have not."""
    mixed = np.flatnonzero((case.support > 0) & (case.support < len(case.labels))).tolist()
    if not mixed:
        raise UndefinedScoreError(f"there is no label that some rows have and some have not, as {case.names[0]!r}")
    return float(np.mean([curve(case.labels[:, place], case.probabilities[:, place]) for place in mixed]))


MEASURES: Mapping[str, MultilabelMeasure] = {
    "accuracy": _accuracy,
    "hamming_loss": _hamming_loss,
    "f1_macro": _f1_macro,
    "f1_micro": _f1_micro,
    "f1_weighted": _f1_weighted,
    "f1_samples": _f1_samples,
    "recall_macro": _recall_macro,
    "roc_auc": _roc_auc,
    "average_precision": _average_precision,
    "log_loss": _log_loss,
}
