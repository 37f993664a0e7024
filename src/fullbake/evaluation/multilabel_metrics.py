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
from fullbake.evaluation.scores import Figure, UndefinedError, f1_of, figure, share

Matrix = NDArray[np.bool_]


def _per_label(held: Matrix) -> NDArray[np.int64]:
    counts: NDArray[np.int64] = held.sum(axis=0)
    return counts


@dataclass(frozen=True)
class Marks:
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


Measure = Callable[[Marks], float]


def marks(
    labels: NDArray[Any], probabilities: NDArray[np.float64], names: Sequence[str], predicted: NDArray[Any] | None
) -> Marks:
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
    return Marks(np.asarray(labels) == 1, probabilities, decided == 1, names)


def score_marks(case: Marks) -> dict[str, Any]:
    """`metrics.score` for many labels a row; per_class has roc_auc, average_precision and the four counts besides."""
    return {
        "rows": len(case.labels),
        "positive": None,
        "overall": _overall(case),
        "per_class": [_label_figures(case, place, name) for place, name in enumerate(case.names)],
        "confusion_matrix": None,
    }


def measure_of(name: str) -> Measure:
    """The measure that validation chooses by under this name (of `figures.MULTI_LABEL_SELECTION`)."""
    return (lambda case: -_log_loss(case)) if name == "neg_log_loss" else MEASURES[name]


def _overall(case: Marks) -> dict[str, Figure]:
    figures = {name: figure(measure, case) for name, measure in MEASURES.items()}
    right = int((case.labels == case.predicted).all(axis=1).sum())
    hits, support, claimed = (int(counts.sum()) for counts in (case.hits, case.support, case.claimed))
    shares = {
        "accuracy": share(right, len(case.labels), ""),
        "precision_micro": share(hits, claimed, "no label was predicted"),
        "recall_micro": share(hits, support, "no row has a label"),
        "f1_micro": f1_of(share(hits, support + claimed - hits, "no row has a label and none was predicted")),
    }
    return figures | shares


def _label_figures(case: Marks, place: int, name: str) -> dict[str, Any]:
    hits, support, claimed = (int(counts[place]) for counts in (case.hits, case.support, case.claimed))
    absent, unpredicted = f"no row has the label {name!r}", f"no row was predicted to have {name!r}"
    own = [place]
    alone = Marks(case.labels[:, own], case.probabilities[:, own], case.predicted[:, own], [name])
    return {
        "label": name,
        "support": support,
        "predicted": claimed,
        "precision": share(hits, claimed, unpredicted),
        "recall": share(hits, support, absent),
        "f1": f1_of(share(hits, support + claimed - hits, f"{absent} and {unpredicted}")),
        "roc_auc": figure(_roc_auc, alone),
        "average_precision": figure(_average_precision, alone),
        "tp": hits,
        "fp": claimed - hits,
        "fn": support - hits,
        "tn": len(case.labels) - support - claimed + hits,
    }


def _accuracy(case: Marks) -> float:
    return float((case.labels == case.predicted).all(axis=1).mean())


def _hamming_loss(case: Marks) -> float:
    return float((case.labels != case.predicted).mean())


def _f1(case: Marks) -> NDArray[np.float64]:
    """F1 of each label, NaN where it is neither held nor predicted."""
    both = (case.support + case.claimed).astype(np.float64)
    scores: NDArray[np.float64] = np.divide(2 * case.hits, both, out=np.full(len(both), np.nan), where=both > 0)
    return scores


def _f1_macro(case: Marks) -> float:
    return _mean(_f1(case), "no row has a label and none was predicted")


def _f1_micro(case: Marks) -> float:
    both = int((case.support + case.claimed).sum())
    if not both:
        raise UndefinedError("no row has a label and none was predicted")
    return float(2 * case.hits.sum() / both)


def _f1_weighted(case: Marks) -> float:
    if not case.support.sum():
        raise UndefinedError("no row has a label")
    return float(np.average(np.nan_to_num(_f1(case)), weights=case.support))


def _f1_samples(case: Marks) -> float:
    """Mean over rows; a row without labels of which none is predicted is right."""
    hits = (case.labels & case.predicted).sum(axis=1)
    both = case.labels.sum(axis=1) + case.predicted.sum(axis=1)
    return float(np.where(both > 0, 2 * hits / np.maximum(both, 1), 1.0).mean())


def _recall_macro(case: Marks) -> float:
    held = case.support > 0
    return _mean(case.hits[held] / case.support[held], "no row has a label")


def _mean(values: NDArray[np.float64], reason: str) -> float:
    defined = values[~np.isnan(values)]
    if not len(defined):
        raise UndefinedError(reason)
    return float(defined.mean())


def _log_loss(case: Marks) -> float:
    """Mean over rows and labels, in nats; 0 counts as float64's epsilon."""
    own = np.where(case.labels, case.probabilities, 1 - case.probabilities)
    return float(-np.log(np.clip(own, np.finfo(np.float64).eps, 1)).mean())


def _roc_auc(case: Marks) -> float:
    from sklearn.metrics import roc_auc_score

    return _over_mixed(case, roc_auc_score)


def _average_precision(case: Marks) -> float:
    from sklearn.metrics import average_precision_score

    return _over_mixed(case, average_precision_score)


def _over_mixed(case: Marks, curve: Callable[[Matrix, NDArray[np.float64]], float]) -> float:
    """The mean over the labels that some rows have and some have not."""
    mixed = np.flatnonzero((case.support > 0) & (case.support < len(case.labels))).tolist()
    if not mixed:
        raise UndefinedError(f"there is no label that some rows have and some have not, as {case.names[0]!r}")
    return float(np.mean([curve(case.labels[:, place], case.probabilities[:, place]) for place in mixed]))


MEASURES: Mapping[str, Measure] = {
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
