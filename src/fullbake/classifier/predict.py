"""Use a finished classifier: `evaluate` scores it on labeled rows, `predict_file` classifies a file of any size."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from fullbake.classifier.model import Classifier
from fullbake.config.recipe import Recipe, dialect_of
from fullbake.core.arguments import PATH, describe_value, require_type
from fullbake.core.console import bar, warn
from fullbake.core.errors import BundleError, DataError, OutputError
from fullbake.core.runtime import release_memory
from fullbake.data.dataset import Dataset
from fullbake.data.files import open_table, open_writer
from fullbake.data.label_checks import leave_out_labels, with_labels_of
from fullbake.data.labeled_files import read_labeled, without_missing_group
from fullbake.data.normalization import text_hashes
from fullbake.data.tables import Table
from fullbake.evaluation.calibration import score_decision


def predict_file(
    classifier: Classifier | str | Path,
    source: str | Path | Table,
    target: str | Path | BinaryIO,
    *,
    text: str | None = None,
    text_pair: str | None = None,
    prefix: str = "",
    overwrite: bool = False,
    **dialect: Any,
) -> int:
    """Classify the rows of a file, and write them in the same order with the results in added columns.

    The added columns are `predicted`, `score` and `score:<class>`; for a multi-label classifier `predicted:<label>`
    (0 or 1) and `score:<label>`. The rows are streamed, so memory does not grow with their number.

    Args:
        classifier: The classifier, or the folder of its bundle.
        source: A CSV, TSV, JSON or Parquet file, a folder of such files, or an open Table.
        target: A file, whose ending says the format, or a binary stream, which gets the format of the source.
        text: Column of the texts. None: its name in training.
        text_pair: Column of the second texts, for a classifier of pairs. None: its name in training.
        prefix: Text before the names of the added columns.
        overwrite: Replace the target if it exists.
        **dialect: How the file is written, as for `read_dataset`: delimiter, encoding, quoting, no_header, json_path.

    Returns:
        The number of rows.

    Raises:
        DataError: A row cannot be read, or a column has the name of an added one.
        OutputError: The target exists.
    """
    classifier = as_classifier(classifier)
    _check_target(target)
    columns = text_columns(classifier, text, text_pair)
    table = source if isinstance(source, Table) else open_table(source, columns=columns, dialect=dialect_of(**dialect))
    extra = _added_columns(classifier, prefix)
    done = 0
    with open_writer(target, table, extra, overwrite=overwrite) as writer, bar("predicting", None, "rows") as advance:
        for chunk in table.chunks(keep=True):
            writer.write(chunk, _added(classifier, [chunk.columns[name] for name in columns], list(extra)))
            release_memory()
            advance(len(chunk))
            done += len(chunk)
    return done


def as_classifier(classifier: Classifier | str | Path) -> Classifier:
    """Return the classifier, or load the bundle of this name."""
    if isinstance(classifier, PATH):
        return Classifier.load(classifier)
    remedy = "Load it by Classifier.load(FOLDER)."
    kinds = "a Classifier, or the folder of a bundle"
    require_type(classifier, (Classifier,), "classifier", error=BundleError, expected=kinds, remedy=remedy)
    return classifier


def _check_target(target: object) -> None:
    """Raise OutputError if the target is neither a path nor a stream of bytes."""
    if isinstance(target, io.TextIOBase) or not (isinstance(target, PATH) or hasattr(target, "write")):
        raise OutputError(
            "the argument target cannot be used",
            expected="the path of a file, or a stream of bytes",
            got=describe_value(target),
            remedy="Pass open(path, 'wb'), io.BytesIO() or sys.stdout.buffer in place of a stream of text.",
        )


def text_columns(classifier: Classifier, text: str | None, text_pair: str | None) -> list[str]:
    """Return the text columns to read: the given names, or else the names in training."""
    trained = classifier.columns
    if text_pair is not None and trained.text_pair is None:
        raise DataError(
            "this classifier was trained on single texts",
            got=f"a second column {text_pair!r}",
            remedy="Leave --text-pair (text_pair) out.",
        )
    return [text or trained.text, *([] if trained.text_pair is None else [text_pair or trained.text_pair])]


def open_table_as_trained(
    classifier: Classifier,
    source: str | Path,
    *,
    text: str | None = None,
    text_pair: str | None = None,
    **dialect: Any,
) -> Table:
    """Open a file with the text columns that the classifier needs, for `predict_file`."""
    return open_table(source, columns=text_columns(classifier, text, text_pair), dialect=dialect_of(**dialect))


def read_as_trained(classifier: Classifier, source: str | Path, **given: Any) -> Dataset:
    """Read labeled rows for `evaluate`.

    Args:
        classifier: The classifier; its columns in training are the default.
        source: A file, or the id of a hub data set.
        given: Fields of the recipe's `data` section that replace those of training.

    Raises:
        DataError: The rows cannot be read, or their labels have another form than those of training.
    """
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


def predict_texts(classifier: Classifier, texts: Sequence[str]) -> np.ndarray:
    """Return the probabilities (texts, classes) of texts given as arguments.

    A classifier of pairs takes exactly two texts, and gives one row.
    """
    if classifier.columns.text_pair is None:
        return classifier.predict_proba(texts)
    if len(texts) != 2:
        raise DataError(
            "this classifier needs pairs of texts",
            expected="two texts, or a file with two text columns",
            got=f"{len(texts)} text{'' if len(texts) == 1 else 's'}",
            remedy="Give both texts of one pair.",
        )
    return classifier.predict_proba(texts[:1], texts[1:])


def _added_columns(classifier: Classifier, prefix: str) -> dict[str, type]:
    """Return the names and types of the added columns, in order."""
    names = classifier.label_names
    predicted = classifier.problem.prediction_columns(names)
    return {prefix + name: kind for name, kind in (predicted | {f"score:{n}": np.float32 for n in names}).items()}


def _added(classifier: Classifier, texts: list[list[str]], names: list[str]) -> dict[str, Any]:
    """Return the added columns of one chunk, by name. texts: one list a text column."""
    probabilities = classifier.predict_proba(*texts)
    decided = classifier.decision.decide(probabilities)
    scores = probabilities.astype(np.float32)
    predicted = classifier.problem.prediction_values(decided, scores, classifier.classes_)
    return dict(zip(names, [*predicted, *scores.T], strict=True))


def evaluate(classifier: Classifier | str | Path, dataset: Dataset | str | Path) -> dict[str, Any]:
    """Score a classifier on labeled rows, with its own decision.

    Args:
        classifier: The classifier, or the folder of its bundle.
        dataset: Labeled rows. Their labels are numbered as in training, whatever label names they were read with. Or a
            file or hub id, which is read by the columns of training.

    Returns:
        The scores of `evaluation.metrics.score`; `calibration`; `trained_on`, the number of rows whose text was in the
        training rows; and `stamps`, sentences that must accompany the scores. The latter two are logged as warnings.

    Raises:
        DataError: The rows have no labels, labels of another form than those of training, or unknown ones.
    """
    classifier = as_classifier(classifier)
    if not isinstance(dataset, Dataset):
        dataset = read_as_trained(classifier, dataset)
    own = with_labels_of(dataset, classifier.label_names, classifier.problem, classifier.dropped_labels)
    own = _without_dropped(own, len(dataset))
    return evaluate_logits(classifier, own, classifier.logits(own.texts, own.text_pair))


def evaluate_logits(classifier: Classifier, dataset: Dataset, logits: np.ndarray) -> dict[str, Any]:
    """Return what `evaluate` returns, for logits that are known already.

    Args:
        classifier: The classifier.
        dataset: Labeled rows.
        logits: The classifier's logits for them, float32 (rows, classes).
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
    return scores | {"trained_on": trained_on, "stamps": classifier.stamps}


def count_training_texts(classifier: Classifier, dataset: Dataset) -> int:
    """Return how many of the rows have a text that is in the training rows."""
    seen = {bytes(row) for row in classifier.record.seen["hashes"]}
    return sum(bytes(row) in seen for row in text_hashes(dataset.joined_texts))
