"""The columns that predictions add to rows: their names, their types and their values.

`predict_file`, `predict_frame` and the bridges to Spark and Ray add the same columns, because all of them ask here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fullbake.classifier.model import Classifier
from fullbake.config.problems import Problem
from fullbake.config.sections import Columns
from fullbake.core.arguments import as_plain_value
from fullbake.core.errors import DataError
from fullbake.evaluation.top_labels import Threshold, top_labels, with_threshold
from fullbake.evaluation.written_scores import round_to_sum


@dataclass(frozen=True)
class PredictionOptions:
    """Which columns are added, and how the labels are decided."""

    prefix: str = ""
    """Text before the names of the added columns."""

    top_k: int | None = None
    """So many of the likeliest labels in place of the scores of all; None adds the scores of all."""

    threshold: Threshold | None = None
    """Decide by this score in place of the classifier's own decision (`top_labels.with_threshold`)."""

    labels_only: bool = False
    """Leave out every column of scores."""

    def __post_init__(self) -> None:
        """Make plain values of numpy's numbers and of mappings, so that they can be pickled and written as JSON."""
        given = dict(self.threshold) if isinstance(self.threshold, Mapping) else self.threshold
        object.__setattr__(self, "threshold", as_plain_value(given))
        object.__setattr__(self, "top_k", as_plain_value(self.top_k))


def added_kinds(
    problem: Problem, label_names: Sequence[str], options: PredictionOptions, *, cascade: bool
) -> dict[str, type]:
    """Return the names and types of the added columns, in order: `str`, or a numpy type of numbers.

    Args:
        problem: The kind of problem.
        label_names: The labels, in the order of the scores.
        options: Which columns are added.
        cascade: Add `answered_by`, which says who answered.

    Raises:
        RecipeError: `top_k` is wrong.
    """
    every = _every_kind(problem, label_names, options, cascade=cascade)
    return {name: kind for name, kind in every.items() if _is_wanted(kind, options)}


def _is_wanted(kind: type, options: PredictionOptions) -> bool:
    return not (options.labels_only and kind is np.float32)


def _every_kind(
    problem: Problem, label_names: Sequence[str], options: PredictionOptions, *, cascade: bool
) -> dict[str, type]:
    """Return what `added_kinds` returns, with the columns of scores in any case."""
    predicted = problem.prediction_columns(label_names)
    scores: dict[str, type] = {f"score:{name}": np.float32 for name in label_names}
    if options.top_k is not None:
        places = range(1, 1 + top_labels(np.zeros((1, len(label_names))), options.top_k).shape[1])
        scores = {
            name: kind for place in places for name, kind in ((f"label:{place}", str), (f"score:{place}", np.float32))
        }
    added = predicted | scores | ({"answered_by": str} if cascade else {})
    return {options.prefix + name: kind for name, kind in added.items()}


def choose_text_columns(trained: Columns, text: str | None, text_pair: str | None) -> list[str]:
    """Return the text columns to read: the given names, or else the names in training.

    Args:
        trained: The columns of the training.
        text: Column of the texts. None: its name in training.
        text_pair: Column of the second texts, for a classifier of pairs. None: its name in training.

    Raises:
        DataError: A second column is given, and the classifier reads single texts.
    """
    if text_pair is not None and trained.text_pair is None:
        raise DataError(
            "this classifier was trained on single texts",
            got=f"a second column {text_pair!r}",
            remedy="Leave --text-pair (text_pair) out.",
        )
    return [text or trained.text, *([] if trained.text_pair is None else [text_pair or trained.text_pair])]


def kinds_of(classifier: Classifier, options: PredictionOptions) -> dict[str, type]:
    """Return what `added_kinds` returns for a classifier.

    Raises:
        RecipeError: `top_k` or `threshold` is wrong.
    """
    if options.threshold is not None:
        with_threshold(classifier.decision, options.threshold)
    return added_kinds(classifier.problem, classifier.label_names, options, cascade=classifier.first is not None)


def predict_columns(
    classifier: Classifier, texts: Sequence[Sequence[str]], options: PredictionOptions
) -> dict[str, Any]:
    """Score some rows, and return the values of the added columns by name, (rows,) each.

    Args:
        classifier: It scores the rows.
        texts: One list for each text column.
        options: Which columns are added.
    """
    answers = classifier.answers(*texts)
    probabilities = classifier.problem.probabilities(answers.logits)
    decision = classifier.decision
    if options.threshold is not None:
        decision = with_threshold(decision, options.threshold)
    scores = round_to_sum(probabilities) if classifier.problem.exclusive else probabilities.astype(np.float32)
    values = classifier.problem.prediction_values(decision.decide(probabilities), scores, classifier.classes_)
    values += list(scores.T) if options.top_k is None else _likeliest(classifier, scores, options.top_k)
    cascade = answers.answered_by is not None
    if answers.answered_by is not None:
        values.append(list(answers.answered_by))
    every = _every_kind(classifier.problem, classifier.label_names, options, cascade=cascade)
    named = zip(every.items(), values, strict=True)
    return {name: own for (name, kind), own in named if _is_wanted(kind, options)}


def _likeliest(classifier: Classifier, scores: np.ndarray, top_k: int) -> list[Any]:
    """Return the columns of the likeliest labels: names and scores in turn."""
    ids = top_labels(scores, top_k)
    return [
        column for place in ids.T for column in (list(classifier.classes_[place]), scores[np.arange(len(place)), place])
    ]
