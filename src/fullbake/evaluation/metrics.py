"""Labels and probabilities in, scores out: the figures of `evaluate`, and the one that chooses an epoch.

Names and values are scikit-learn's, and higher is better for every name in `SELECTION` (so `neg_log_loss`, as
its scorers spell it). The trade-off: where scikit-learn answers an undefined figure with 0 and a warning, a
score here is null with its reason, and selecting by it is an error. Two conventions are kept from it, because
they are limits and not guesses: Matthews' coefficient is 0 when every row got the same prediction, and a
macro average runs over the classes that occur (`f1_macro`: among labels or predictions; `recall_macro`: among
labels).

Importing this module loads numpy only; scikit-learn and scipy come with the first figure.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullbake.config.problems import MULTI_LABEL, MULTI_LABEL_SELECTION, SELECTION, ProblemType, problem_of
from fullbake.core.errors import DataError, DivergenceFault, RecipeError, did_you_mean
from fullbake.evaluation.decisions import predict_at_best_f1, probabilities, row_losses
from fullbake.evaluation.multilabel_metrics import make_label_matrices, multilabel_measure, score_multilabel
from fullbake.evaluation.scores import ScoreValue, UndefinedScoreError, compute_score, f1_from_jaccard, proportion_score


@dataclass(frozen=True)
class _Case:
    """What a measure sees. labels, predicted: (rows,) int64. probabilities: (rows, classes) float64."""

    labels: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    predicted: NDArray[np.int64]
    names: Sequence[str]


def score(
    labels: NDArray[np.integer[Any]],
    probabilities: NDArray[np.floating[Any]],
    label_names: Sequence[str],
    predicted: NDArray[np.integer[Any]] | None = None,
) -> dict[str, Any]:
    """Every figure of `evaluate`, ready for JSON.

    labels: (rows,) class ids. probabilities: (rows, classes), each row summing to 1. label_names: (classes,).
    predicted: (rows,) class ids; the most probable class when not given (the lower id on a tie). Where a row may have
    many labels: 0 and 1 (rows, classes), and probabilities of each label by itself (see `multilabel`).

    Returns {"problem_type", "rows", "positive", "overall", "per_class", "confusion_matrix"}: `overall` maps a name to
    its `Figure`: those of `SELECTION`, with `log_loss` in place of `neg_log_loss`. With two classes ROC-AUC and average
    precision are those of the last class, named in `positive` (null otherwise); with more they are the unweighted mean
    of one class against the rest. `per_class` lists, in the order of the ids, {"label", "support", "predicted",
    "precision", "recall", "f1"}, the last three as `Figure`. `confusion_matrix[i][j]` counts rows of class i predicted
    as j.

    Intervals, 95%: Wilson's score interval (1927) for accuracy, precision and recall; for F1 the "Wilson
    indirect" interval of Lam, Gopal and Qian (2023, arXiv 2309.14621): F1 = 2J / (1 + J) where J = TP / (TP +
    FP + FN) is a share of rows, so Wilson's bounds for J carry over.

    Raises DataError where the arrays do not fit together, DivergenceFault where a probability is not finite.
    """
    problem_type = problem_of(labels)
    if problem_type == MULTI_LABEL:
        chances = _checked(probabilities, len(labels), len(label_names))
        return {
            "problem_type": problem_type,
            **score_multilabel(make_label_matrices(labels, chances, label_names, predicted)),
        }
    case = _case(labels, probabilities, label_names, predicted)
    matrix = _confusion(case)
    return {
        "problem_type": problem_type,
        "rows": len(case.labels),
        "positive": label_names[-1] if len(label_names) == 2 else None,
        "overall": _overall(case),
        "per_class": [_class_figures(matrix, index, name) for index, name in enumerate(label_names)],
        "confusion_matrix": matrix.tolist(),
    }


def selection_metrics(problem_type: ProblemType) -> tuple[str, ...]:
    """The metrics that validation may choose by."""
    return tuple(MULTI_LABEL_SELECTION if problem_type == MULTI_LABEL else SELECTION)


def check_metric(name: str, problem_type: ProblemType) -> None:
    """Raise RecipeError for a metric that there is not, or not for this problem."""
    known = selection_metrics(problem_type)
    if name in known:
        return
    if name in SELECTION or name in MULTI_LABEL_SELECTION:
        raise RecipeError(
            f"the metric {name} has no meaning for {problem_type}",
            where="metric",
            expected=f"one of {', '.join(known)}",
            remedy="Pass --metric with one of these.",
        )
    raise RecipeError("there is no such metric", where="metric", got=repr(name), remedy=did_you_mean(name, known))


def selection_score(
    name: str,
    labels: NDArray[np.integer[Any]],
    probabilities: NDArray[np.floating[Any]],
    label_names: Sequence[str] | None = None,
    *,
    predicted: NDArray[np.integer[Any]] | None = None,
) -> float:
    """The metric `name` of `SELECTION`, for choosing an epoch or a rate; higher is better.

    labels: (rows,) class ids, or 0 and 1 (rows, classes), of which those from 0.5 on are predicted. probabilities:
    (rows, classes). label_names only serve the error's text. predicted: as for `score`. Raises RecipeError for a name
    that does not fit, DataError where the metric is undefined on these rows, and what `score` raises for arrays that do
    not fit together.
    """
    check_metric(name, problem_of(labels))
    names = label_names or [str(index) for index in range(np.asarray(probabilities).shape[-1])]
    try:
        if problem_of(labels) == MULTI_LABEL:
            return multilabel_measure(name)(
                make_label_matrices(labels, _checked(probabilities, len(labels), len(names)), names, predicted)
            )
        case = _case(labels, probabilities, names, predicted)
        return -_log_loss(case) if name == "neg_log_loss" else _MEASURES[name](case)
    except UndefinedScoreError as undefined:
        raise DataError(
            f"{name} is undefined on the validation rows: {undefined}",
            where="validation",
            remedy="Choose another metric (f1_macro is always defined), or give more validation rows.",
        ) from None


def _case(
    labels: NDArray[np.integer[Any]],
    probabilities: NDArray[np.floating[Any]],
    names: Sequence[str],
    predicted: NDArray[np.integer[Any]] | None,
) -> _Case:
    chances = _checked(probabilities, len(labels), len(names))
    _check_sums(chances)
    choice = chances.argmax(axis=1) if predicted is None else np.asarray(predicted)
    for what, ids in (("labels", np.asarray(labels)), ("predictions", choice)):
        _check_ids(what, ids, chances)
    return _Case(np.asarray(labels, dtype=np.int64), chances, choice.astype(np.int64), names)


def _misfit(expected: str, got: str) -> DataError:
    return DataError("labels and probabilities cannot be scored", expected=expected, got=got)


def _checked(probabilities: NDArray[np.floating[Any]], rows: int, classes: int) -> NDArray[np.float64]:
    chances = np.asarray(probabilities, dtype=np.float64)
    if not rows:
        raise _misfit("at least one row", "none")
    if chances.shape != (rows, classes):
        raise _misfit(f"probabilities of shape ({rows}, {classes})", f"shape {chances.shape}")
    bad = np.flatnonzero(~np.isfinite(chances).all(axis=1))
    if len(bad):
        raise DivergenceFault(
            "a probability is not a number",
            where=f"row {bad[0]} of the scores",
            got=f"{chances[bad[0]].tolist()}, and the like in {len(bad)} of {rows} rows",
            remedy="The model has diverged: train again with a lower learning rate.",
        )
    if chances.min() < 0 or chances.max() > 1 + 1e-2:
        raise _misfit("probabilities", f"values from {chances.min():g} to {chances.max():g}")
    return chances


def _check_sums(chances: NDArray[np.float64]) -> None:
    # Half precision rounds to 1e-3; anything farther off holds logits, or sigmoids of another problem type.
    off = float(np.abs(chances.sum(axis=1) - 1).max())
    if off > 1e-2:
        raise _misfit("rows of probabilities that sum to 1", f"sums off by {off:g}")


def _check_ids(what: str, ids: NDArray[Any], chances: NDArray[np.float64]) -> None:
    rows, classes = chances.shape
    if ids.shape != (rows,) or ids.dtype.kind not in "iu":
        raise _misfit(f"{what} as {rows} whole numbers", f"{ids.dtype} of shape {ids.shape}")
    if ids.min() < 0 or ids.max() >= classes:
        raise _misfit(f"{what} from 0 to {classes - 1}", f"{ids.min()} to {ids.max()}")


def _overall(case: _Case) -> dict[str, ScoreValue]:
    figures = {name: compute_score(measure, case) for name, measure in _MEASURES.items()}
    right = int((case.labels == case.predicted).sum())
    for name in ("accuracy", "f1_micro"):  # a row has one label, so both are the share of right rows
        figures[name] |= proportion_score(right, len(case.labels), "")
    return figures


def _class_figures(matrix: NDArray[np.int64], index: int, name: str) -> dict[str, Any]:
    hits, support = int(matrix[index, index]), int(matrix[index].sum())
    predicted = int(matrix[:, index].sum())
    absent, unpredicted = f"no row is labelled {name!r}", f"no row was predicted as {name!r}"
    return {
        "label": name,
        "support": support,
        "predicted": predicted,
        "precision": proportion_score(hits, predicted, unpredicted),
        "recall": proportion_score(hits, support, absent),
        "f1": f1_from_jaccard(proportion_score(hits, support + predicted - hits, f"{absent} and {unpredicted}")),
    }


def _confusion(case: _Case) -> NDArray[np.int64]:
    from sklearn.metrics import confusion_matrix

    matrix: NDArray[np.int64] = confusion_matrix(case.labels, case.predicted, labels=np.arange(len(case.names)))
    return matrix


def _accuracy(case: _Case) -> float:
    return float((case.labels == case.predicted).mean())


def _f1_average(average: str) -> Callable[[_Case], float]:
    def measure(case: _Case) -> float:
        from sklearn.metrics import f1_score

        return float(f1_score(case.labels, case.predicted, average=average))

    return measure


def _recall_macro(case: _Case) -> float:
    from sklearn.metrics import recall_score

    return float(recall_score(case.labels, case.predicted, average="macro", zero_division=np.nan))


def _matthews(case: _Case) -> float:
    from sklearn.metrics import matthews_corrcoef

    _require_two_classes(case)
    return float(matthews_corrcoef(case.labels, case.predicted))


def _log_loss(case: _Case) -> float:
    """Mean negative log-likelihood in nats; as in scikit-learn, 0 counts as float64's epsilon."""
    own = case.probabilities[np.arange(len(case.labels)), case.labels]
    return float(-np.log(np.clip(own, np.finfo(np.float64).eps, 1)).mean())


def _roc_auc(case: _Case) -> float:
    from sklearn.metrics import roc_auc_score

    return _one_vs_rest(case, roc_auc_score)


def _average_precision(case: _Case) -> float:
    from sklearn.metrics import average_precision_score

    return _one_vs_rest(case, average_precision_score)


def _one_vs_rest(case: _Case, curve: Callable[[NDArray[np.bool_], NDArray[np.float64]], float]) -> float:
    """The last of two classes, or the mean over more of each class against the rest."""
    _require_two_classes(case)
    scored = [1] if len(case.names) == 2 else range(len(case.names))
    absent = [case.names[index] for index in scored if index not in case.labels]
    if absent:
        more = f" (nor {len(absent) - 1} other classes)" if len(absent) > 1 else ""
        raise UndefinedScoreError(f"no row is labelled {absent[0]!r}{more}")
    values = [curve(case.labels == index, case.probabilities[:, index]) for index in scored]
    return float(np.mean(values))


def _require_two_classes(case: _Case) -> None:
    if (case.labels == case.labels[0]).all():
        raise UndefinedScoreError(f"every row is labelled {case.names[case.labels[0]]!r}")


_MEASURES: dict[str, Callable[[_Case], float]] = {
    "accuracy": _accuracy,
    "f1_macro": _f1_average("macro"),
    "f1_micro": _f1_average("micro"),
    "f1_weighted": _f1_average("weighted"),
    "recall_macro": _recall_macro,
    "matthews_corrcoef": _matthews,
    "roc_auc": _roc_auc,
    "average_precision": _average_precision,
    "log_loss": _log_loss,
}


def validation_scores(logits: np.ndarray, labels: np.ndarray, metric: str) -> dict[str, float]:
    """What validation says of an epoch: validation_loss (mean cross entropy, over rows or over rows and labels; plain,
    whatever loss trains) and the selecting metric.

    logits: (rows, classes). labels: ids (rows,), or 0 and 1 (rows, classes): then labels are predicted from their best
    thresholds on, since at 0.5 a rare label would be found by no epoch and every one look alike.
    """
    chances = probabilities(logits, problem_of(labels))
    predicted = None if labels.ndim == 1 else predict_at_best_f1(chances, labels)
    return {
        "validation_loss": float(row_losses(logits, labels).mean()),
        metric: selection_score(metric, labels, chances, predicted=predicted),
    }
