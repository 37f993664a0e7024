"""Every metric as one record, and what the records serve: scoring, selection on validation, bootstrap, tables.

Names and values are scikit-learn's. Higher is better for every metric that validation may choose by, so its name for
log loss is `neg_log_loss`. Where a metric is undefined, a score is null with its reason and selecting by it is an
error; scikit-learn answers 0 and a warning.

To add a metric, add a record to `METRICS`. Nothing else has to know its name. Its function goes into
`single_label_metrics` or `multilabel_metrics`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from fullbake.config.problems import MULTI_LABEL, SINGLE_LABEL, ProblemType, problem_of
from fullbake.core.errors import DataError, RecipeError, did_you_mean
from fullbake.core.synonyms import VALUE_SYNONYMS
from fullbake.evaluation import multilabel_metrics as multi
from fullbake.evaluation import resamplers as fast
from fullbake.evaluation import single_label_metrics as single
from fullbake.evaluation.decisions import predict_by_default
from fullbake.evaluation.resamplers import Resampler, by_calling, by_counts, by_ranks, by_row_means
from fullbake.evaluation.scores import Case, ScoreValue, UndefinedScoreError, as_held, compute_score, make_case


@dataclass(frozen=True)
class Definition:
    """What a metric is for one kind of problem."""

    meaning: str
    """One phrase, for the docs."""

    compute: Callable[[Case], float]
    """The value on these rows. Raises UndefinedScoreError where there is none."""

    resample: Resampler | None = None
    """A fast way to compute all bootstrap draws. None calls `compute` for each draw: right, but slow."""

    interval: Callable[[Case], ScoreValue] | None = None
    """The value with a 95% interval in closed form; None where there is no such form."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """All that fullbake knows of a metric."""

    name: str
    """scikit-learn's name."""

    title: str
    """Its name in tables: "F1, macro"."""

    phrase: str
    """Its name within a sentence: "macro F1"."""

    definitions: Mapping[ProblemType, Definition]
    """Its definition for each kind of problem that it has a meaning for."""

    range: tuple[float, float] = (0.0, 1.0)
    """The lowest and the highest value it can take."""

    reads: Literal["predictions", "probabilities"] = "predictions"
    """The arrays of a `Case` that it reads beside the labels."""

    selects: bool = True
    """Whether validation may choose by it. Only for metrics of which a higher value is better."""

    reported: bool = True
    """Whether `score` lists it; False where another metric says the same."""

    higher_is_better: bool = True
    """False for losses."""

    one_vs_rest: bool = False
    """Whether it scores one class against the rest. Of two classes only the last is scored, and tables name it."""

    slow_bootstrap: bool = False
    """Whether resampling takes long; then a leaderboard gives its interval only where it is the deciding metric."""

    def __post_init__(self) -> None:
        if self.selects and not self.higher_is_better:
            raise ValueError(f"{self.name}: validation takes the highest value, so a loss cannot select")

    def resampler(self, problem_type: ProblemType) -> Resampler:
        """Return the fast resampler, or one that calls the plain function on each draw's rows."""
        definition = self.definitions[problem_type]
        return definition.resample or by_calling(partial(_value_or_nan, self, definition))


def _value_or_nan(metric: Metric, definition: Definition, labels: NDArray[Any], own: NDArray[Any]) -> float:
    """The plain function on a draw's rows. own: what the metric reads, (rows, ...); the rest of the case stays NaN."""
    problem = problem_of(labels)
    if metric.reads == "probabilities":
        case = make_case(labels, own, [str(place) for place in range(own.shape[1])])
    else:
        classes = problem.count_classes(labels, own)
        unknown = np.broadcast_to(np.nan, (len(labels), classes))
        names = [str(place) for place in range(classes)]
        case = Case(problem, as_held(labels, problem), unknown, as_held(own, problem), names)
    try:
        return definition.compute(case)
    except UndefinedScoreError:
        return float("nan")


def _minus(measure: Callable[[Case], float]) -> Callable[[Case], float]:
    return lambda case: -measure(case)


_RECORDS: Final = (
    Metric(
        name="accuracy",
        title="accuracy",
        phrase="accuracy",
        definitions={
            SINGLE_LABEL: Definition(
                "share of rows predicted right", single.accuracy, by_counts(fast.f1_micro), single.accuracy_score
            ),
            MULTI_LABEL: Definition(
                "share of rows whose labels are all right",
                multi.accuracy,
                by_row_means(fast.all_right),
                multi.accuracy_score,
            ),
        },
    ),
    Metric(
        name="hamming_loss",
        title="Hamming loss",
        phrase="Hamming loss",
        definitions={MULTI_LABEL: Definition("share of pairs of row and label predicted wrong", multi.hamming_loss)},
        selects=False,
        higher_is_better=False,
    ),
    Metric(
        name="f1_macro",
        title="F1, macro",
        phrase="macro F1",
        definitions={
            SINGLE_LABEL: Definition("mean F1 over the classes", single.f1_macro, by_counts(fast.f1_macro)),
            MULTI_LABEL: Definition("mean F1 over the labels", multi.f1_macro, by_counts(fast.f1_macro)),
        },
    ),
    Metric(
        name="f1_micro",
        title="F1, micro",
        phrase="micro F1",
        definitions={
            SINGLE_LABEL: Definition(
                "F1 over all rows (equals accuracy)", single.accuracy, by_counts(fast.f1_micro), single.accuracy_score
            ),
            MULTI_LABEL: Definition(
                "F1 over all pairs of row and label", multi.f1_micro, by_counts(fast.f1_micro), multi.f1_micro_score
            ),
        },
    ),
    Metric(
        name="f1_weighted",
        title="F1, weighted",
        phrase="weighted F1",
        definitions={
            SINGLE_LABEL: Definition(
                "mean F1 weighted by the classes' rows", single.f1_weighted, by_counts(fast.f1_weighted)
            ),
            MULTI_LABEL: Definition(
                "mean F1 weighted by the labels' rows", multi.f1_weighted, by_counts(fast.f1_weighted)
            ),
        },
    ),
    Metric(
        name="f1_samples",
        title="F1, mean over rows",
        phrase="mean F1 over rows",
        definitions={MULTI_LABEL: Definition("mean F1 over the rows", multi.f1_samples, by_row_means(fast.f1_of_rows))},
    ),
    Metric(
        name="recall_macro",
        title="recall, macro",
        phrase="macro recall",
        definitions={
            SINGLE_LABEL: Definition(
                "mean recall over the classes (balanced accuracy)", single.recall_macro, by_counts(fast.recall_macro)
            ),
            MULTI_LABEL: Definition("mean recall over the labels", multi.recall_macro, by_counts(fast.recall_macro)),
        },
    ),
    Metric(
        name="matthews_corrcoef",
        title="MCC",
        phrase="MCC",
        definitions={
            SINGLE_LABEL: Definition(
                "Matthews' correlation coefficient", single.matthews_corrcoef, by_counts(fast.matthews_corrcoef)
            )
        },
        range=(-1.0, 1.0),
    ),
    Metric(
        name="roc_auc",
        title="ROC-AUC",
        phrase="ROC-AUC",
        definitions={
            SINGLE_LABEL: Definition(
                "area under the ROC curve; of more than two classes the mean of each against the rest",
                single.roc_auc,
                by_ranks(fast.area_under_roc),
            ),
            MULTI_LABEL: Definition(
                "mean area under the ROC curve over the labels", multi.roc_auc, by_ranks(fast.area_under_roc)
            ),
        },
        reads="probabilities",
        one_vs_rest=True,
        slow_bootstrap=True,
    ),
    Metric(
        name="average_precision",
        title="PR-AUC",
        phrase="PR-AUC",
        definitions={
            SINGLE_LABEL: Definition(
                "area under the precision-recall curve; of more than two classes the mean of each against the rest",
                single.average_precision,
                by_ranks(fast.average_precision),
            ),
            MULTI_LABEL: Definition(
                "mean area under the precision-recall curve over the labels",
                multi.average_precision,
                by_ranks(fast.average_precision),
            ),
        },
        reads="probabilities",
        one_vs_rest=True,
        slow_bootstrap=True,
    ),
    Metric(
        name="log_loss",
        title="log loss",
        phrase="log loss",
        definitions={
            SINGLE_LABEL: Definition(
                "mean negative log-likelihood of a row, in nats", single.log_loss, by_row_means(fast.log_losses)
            ),
            MULTI_LABEL: Definition(
                "mean binary negative log-likelihood of a label, in nats",
                multi.log_loss,
                by_row_means(fast.log_losses),
            ),
        },
        range=(0.0, np.inf),
        reads="probabilities",
        selects=False,
        higher_is_better=False,
    ),
    Metric(
        name="neg_log_loss",
        title="log loss, minus",
        phrase="minus log loss",
        definitions={
            SINGLE_LABEL: Definition(
                "minus the mean negative log-likelihood of a row, in nats",
                _minus(single.log_loss),
                by_row_means(fast.log_likelihoods),
            ),
            MULTI_LABEL: Definition(
                "minus the mean binary negative log-likelihood of a label, in nats",
                _minus(multi.log_loss),
                by_row_means(fast.log_likelihoods),
            ),
        },
        range=(-np.inf, 0.0),
        reads="probabilities",
        reported=False,
    ),
    Metric(
        name="precision_micro",
        title="precision, micro",
        phrase="micro precision",
        definitions={
            MULTI_LABEL: Definition(
                "share of the predicted labels that are right",
                multi.precision_micro,
                interval=multi.precision_micro_score,
            )
        },
        selects=False,
    ),
    Metric(
        name="recall_micro",
        title="recall, micro",
        phrase="micro recall",
        definitions={
            MULTI_LABEL: Definition(
                "share of the rows' labels that were predicted", multi.recall_micro, interval=multi.recall_micro_score
            )
        },
        selects=False,
    ),
)

METRICS: Final[dict[str, Metric]] = {metric.name: metric for metric in _RECORDS}
"""The registry: every metric by its name, in the order in which tables list them."""


def metric_title(name: str) -> str:
    """Return what tables call a metric; the name itself where it is not of `METRICS`."""
    return METRICS[name].title if name in METRICS else name


def metric_phrase(name: str) -> str:
    """Return a metric's name within a sentence; the name itself where it is not of `METRICS`."""
    return METRICS[name].phrase if name in METRICS else name


def selection_metrics(problem_type: ProblemType | None = None) -> tuple[str, ...]:
    """Return the names that validation may choose by, for one kind of problem or for any."""
    return tuple(
        name
        for name, metric in METRICS.items()
        if metric.selects and (problem_type is None or problem_type in metric.definitions)
    )


def check_metric(name: str, problem_type: ProblemType | None = None) -> None:
    """Raise RecipeError where validation cannot choose by this metric.

    Args:
        name: The recipe's `metric`.
        problem_type: The kind of problem; None while the labels have not been read.
    """
    known = selection_metrics(problem_type)
    if name in known:
        return
    remedy = "Pass --metric with one of these."
    if name not in METRICS:
        raise RecipeError(
            "there is no such metric",
            where="metric",
            got=repr(name),
            remedy=f"{did_you_mean(name, known, VALUE_SYNONYMS)} {remedy}",
        )
    unfit, unused = f"{name} has no meaning for {problem_type}", f"validation cannot choose by {name}"
    fault = unfit if METRICS[name].selects else unused
    raise RecipeError(fault, where="metric", expected=f"one of {', '.join(known)}", remedy=remedy)


def score(
    labels: NDArray[np.integer[Any]],
    probabilities: NDArray[np.floating[Any]],
    label_names: Sequence[str],
    predicted: NDArray[np.integer[Any]] | None = None,
    groups: NDArray[Any] | None = None,
) -> dict[str, Any]:
    """Return all that `evaluate` reports of these rows, as JSON values.

    Intervals, 95%: Wilson's score interval (1927) for accuracy, precision and recall; for F1 of a class "Wilson
    indirect" (see `scores.f1_from_jaccard`). Where rows belong together, they count as fewer effective rows
    (`scores.effective_trials`).

    Args:
        labels: Class ids (rows,), or a label matrix of 0 and 1 (rows, labels).
        probabilities: (rows, classes). Each row sums to 1 where a row has one label.
        label_names: (classes,).
        predicted: What was decided, in the form of `labels`. None takes the most probable class (the lower id on a
            tie), or every label with a probability of 0.5 or more.
        groups: The group of each row, (rows,), where rows belong together; None for independent rows.

    Returns:
        {"problem_type", "rows", "groups" (their number, or null), "positive", "overall", "per_class",
        "confusion_matrix"}. `overall` maps each reported metric of `METRICS` to its `ScoreValue`. With two classes
        ROC-AUC and average precision are those of the last class, named in `positive` (null otherwise). `per_class`
        lists, in the order of the ids, {"label", "support", "predicted", "precision", "recall", "f1"}, the last three
        as `ScoreValue`; where a row may have many labels also "roc_auc", "average_precision" and the counts "tp", "fp",
        "fn", "tn". `confusion_matrix[i][j]` counts rows of class i predicted as class j; null where a row may have many
        labels.

    Raises:
        DataError: The arrays do not fit together.
        DivergenceFault: A probability is not finite.
    """
    case = make_case(labels, probabilities, label_names, predicted, groups)
    one_label = case.problem.exclusive
    class_score = single.class_score if one_label else multi.class_score
    return {
        "problem_type": case.problem.name,
        "rows": len(case.labels),
        "groups": None if groups is None else len(np.unique(groups)),
        "positive": label_names[-1] if one_label and len(label_names) == 2 else None,
        "overall": _overall(case),
        "per_class": [class_score(case, place) for place in range(len(label_names))],
        "confusion_matrix": single.confusion_matrix(case).tolist() if one_label else None,
    }


def _overall(case: Case) -> dict[str, ScoreValue]:
    scores = {}
    for name, metric in METRICS.items():
        definition = metric.definitions.get(case.problem.name)
        if metric.reported and definition is not None:
            scores[name] = definition.interval(case) if definition.interval else compute_score(definition.compute, case)
    return scores


def selection_score(
    name: str,
    labels: NDArray[np.integer[Any]],
    probabilities: NDArray[np.floating[Any]],
    label_names: Sequence[str] | None = None,
    *,
    predicted: NDArray[np.integer[Any]] | None = None,
) -> float:
    """Return the metric that chooses an epoch or a learning rate; higher is better.

    Args:
        name: One of `selection_metrics`.
        labels: As for `score`.
        probabilities: As for `score`.
        label_names: (classes,), for the text of an error; None takes the ids.
        predicted: As for `score`.

    Raises:
        RecipeError: Validation cannot choose by this metric.
        DataError: The metric is undefined on these rows, or the arrays do not fit together.
        DivergenceFault: A probability is not finite.
    """
    check_metric(name, problem_of(labels).name)
    names = label_names or [str(place) for place in range(np.asarray(probabilities).shape[-1])]
    case = make_case(labels, probabilities, names, predicted)
    try:
        return METRICS[name].definitions[case.problem.name].compute(case)
    except UndefinedScoreError as undefined:
        raise DataError(
            f"{name} is undefined on the validation rows: {undefined}",
            where="validation",
            remedy="Choose another --metric (f1_macro is always defined), or give more validation rows.",
        ) from None


def validation_scores(logits: NDArray[np.floating[Any]], labels: NDArray[Any], *metrics: str) -> dict[str, float]:
    """Return "validation_loss" and each metric by name: what validation says of one epoch.

    `validation_loss` is the mean cross entropy in nats, over rows, or over rows and labels; it does not depend on the
    loss that trains. Where a row may have many labels, each label is predicted from its best threshold on these rows:
    at 0.5 no epoch would find a rare label, and all epochs would look alike.

    Args:
        logits: (rows, classes).
        labels: Class ids (rows,), or a label matrix of 0 and 1 (rows, labels).
        *metrics: Of `selection_metrics`.
    """
    problem = problem_of(labels)
    probabilities = problem.probabilities(logits)
    predicted = predict_by_default(probabilities, labels)
    scores = {metric: selection_score(metric, labels, probabilities, predicted=predicted) for metric in metrics}
    return {"validation_loss": float(problem.row_losses(logits, labels).mean())} | scores
