"""Score a finished classifier on labeled rows, by its own decision."""

from pathlib import Path
from typing import Any

import numpy as np

from fullbake.classifier.model import Classifier
from fullbake.classifier.predict import as_classifier
from fullbake.config.recipe import Recipe
from fullbake.core.console import say, warn
from fullbake.core.errors import DataError
from fullbake.data.dataset import Dataset
from fullbake.data.label_checks import leave_out_labels, with_labels_of
from fullbake.data.labeled_files import read_labeled, without_missing_group
from fullbake.data.normalization import text_hashes
from fullbake.data.sources import as_source
from fullbake.evaluation.calibration import score_decision


def read_as_trained(classifier: Classifier, source: Any, **given: Any) -> Dataset:
    """Read labeled rows for `evaluate`.

    Args:
        classifier: The classifier; its columns in training are the default.
        source: A file, a hub id or rows in memory, as `sources.as_source` takes them.
        given: Fields of the recipe's `data` section that replace those of training.

    Raises:
        DataError: The rows cannot be read, or their labels have another form than those of training.
    """
    source = as_source(source, "dataset")
    trained = {name: value for name, value in classifier.columns.to_json().items() if value is not None}
    if "label" in given:
        trained.pop("labels", None)
    if "labels" in given:
        trained.pop("label_separator", None)
    config = Recipe.load(**({"base": "as trained"} | trained | given)).data
    if "group" not in given:
        config = without_missing_group(source, config)
    names = (*classifier.label_names, *classifier.dropped_labels)
    data = read_labeled(source, config, label_names=names, problem=classifier.problem)
    return _without_dropped(leave_out_labels(data, len(classifier.label_names)), len(data))


def _without_dropped(dataset: Dataset, rows: int) -> Dataset:
    """Return the data set, and warn if rows were left out because training left their labels out.

    Args:
        dataset: The rows that are left.
        rows: How many there were.
    """
    if not len(dataset):
        raise DataError("training left out the labels of all rows (--drop-rare)", where=dataset.source)
    if len(dataset) < rows:
        warn(
            f"{rows - len(dataset):,} of {rows:,} rows are not scored: training left their labels out (--drop-rare), "
            "so the classifier never predicts them"
        )
    return dataset


def evaluate(classifier: Classifier | str | Path, dataset: Any) -> dict[str, Any]:
    """Score a classifier on labeled rows, with its own decision.

    Args:
        classifier: The classifier, or the folder of its bundle.
        dataset: Labeled rows: a file or hub id, a table in memory or a pair (texts, labels), as for `read_dataset`;
            they are read by the columns of training. Or a Dataset, whatever label names it was read with.

    Returns:
        The scores of `evaluation.metrics.score`; `calibration`; `trained_on`, the number of rows whose text was in the
        training rows; `stamps`, sentences that must accompany the scores; and of a cascade `answered_by`, how many rows
        the student and the teacher answered. The warnings among them are logged.

    Raises:
        DataError: The rows have no labels, labels of another form than those of training, or unknown ones.
    """
    classifier = as_classifier(classifier)
    if not isinstance(dataset, Dataset):
        dataset = read_as_trained(classifier, dataset)
    own = with_labels_of(dataset, classifier.label_names, classifier.problem, classifier.dropped_labels)
    own = _without_dropped(own, len(dataset))
    answers = classifier.answers(own.texts, own.text_pair)
    return evaluate_logits(classifier, own, answers.logits, answers.answered_by)


def evaluate_logits(
    classifier: Classifier, dataset: Dataset, logits: np.ndarray, answered_by: np.ndarray | None = None
) -> dict[str, Any]:
    """Return what `evaluate` returns, for logits that are known already.

    Args:
        classifier: The classifier.
        dataset: Labeled rows.
        logits: The classifier's logits for them, float32 (rows, classes).
        answered_by: Who gave them, in a cascade: as `model.Answers` has it.
    """
    assert dataset.labels is not None
    scores = score_decision(dataset.labels, logits, classifier.decision, dataset.group_ids)
    trained_on = count_training_texts(classifier, dataset)
    if trained_on:
        warn(
            f"{trained_on:,} of these {len(dataset):,} rows were in the training rows, so these scores are too high "
            "(texts are compared after NFKC, case folding and collapsing of white space)"
        )
    for stamp in classifier.stamps:
        warn(stamp)
    found = scores | {"trained_on": trained_on, "stamps": classifier.stamps}
    if answered_by is None:
        return found
    names, counts = np.unique(answered_by.astype(str), return_counts=True)
    return found | {"answered_by": dict(zip(names.tolist(), counts.tolist(), strict=True))}


def count_training_texts(classifier: Classifier, dataset: Dataset) -> int:
    """Return how many of the rows have a text that is in the training rows."""
    return int(find_training_texts(classifier, dataset).sum())


def find_training_texts(classifier: Classifier, dataset: Dataset) -> np.ndarray:
    """Return whether each row has a text that is in the training rows, bool (rows,)."""
    if "hashes" not in classifier.record.seen:
        say(
            "whether rows were trained on is not known: this bundle was shared without the hashes of its training texts"
        )
        return np.zeros(len(dataset), dtype=bool)
    seen = {bytes(row) for row in classifier.record.seen["hashes"]}
    return np.array([bytes(row) in seen for row in text_hashes(dataset.joined_texts)], dtype=bool)
