"""Classify the rows of a file of any size or of a table in memory, or a few texts."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from fullbake.classifier.model import Answers, Classifier
from fullbake.classifier.prediction_columns import (
    PredictionOptions,
    choose_text_columns,
    kinds_of,
    predict_columns,
)
from fullbake.config.fields import Engine
from fullbake.config.recipe import dialect_of
from fullbake.core.arguments import PATH, describe_value, require_type
from fullbake.core.console import bar
from fullbake.core.errors import BundleError, DataError, OutputError
from fullbake.core.runtime import release_memory
from fullbake.data.added_columns import with_columns
from fullbake.data.arrow import ArrowSource
from fullbake.data.files import open_table, open_writer
from fullbake.data.sources import as_frame, open_columns, remedy_for
from fullbake.data.tables import ReadOptions, Table, taken_name_error
from fullbake.evaluation.top_labels import Threshold


def predict_file(
    classifier: Classifier | str | Path,
    source: Any,
    target: str | Path | BinaryIO,
    *,
    text: str | None = None,
    text_pair: str | None = None,
    prefix: str = "",
    top_k: int | None = None,
    threshold: Threshold | None = None,
    labels_only: bool = False,
    overwrite: bool = False,
    **dialect: Any,
) -> int:
    """Classify the rows of a file, and write them in the same order with the results in added columns.

    The added columns are `predicted`, `score` and `score:<class>`; for a multi-label classifier `predicted:<label>`
    (0 or 1) and `score:<label>`; for a cascade also `answered_by`. With `top_k` the likeliest labels take the place of
    the scores of all: `label:1`, `score:1`, `label:2`, ... Scores of classes have seven decimals and sum to 1 in them,
    so that a probability below 5e-8 may be written as 0. The rows are streamed, so memory does not grow with
    their number.

    Args:
        classifier: The classifier, or the folder of its bundle.
        source: A CSV, TSV, JSON or Parquet file, a folder of such files, a table in memory (as for `predict_frame`), or
            an open Table.
        target: A file, whose ending says the format, or a binary stream, which gets the format of the source.
        text: Column of the texts. None: its name in training.
        text_pair: Column of the second texts, for a classifier of pairs. None: its name in training.
        prefix: Text before the names of the added columns.
        top_k: Write so many of the likeliest labels of each row. None: the scores of all labels.
        threshold: Decide by this score in place of the classifier's own decision: a number, or a mapping from labels
            to numbers, as for `Classifier.predict`.
        labels_only: Leave out the columns of scores.
        overwrite: Replace the target if it exists.
        **dialect: How the file is written, as for `read_dataset`: delimiter, encoding, quoting, no_header, json_path.

    Returns:
        The number of rows.

    Raises:
        DataError: A row cannot be read, or a column has the name of an added one.
        OutputError: The target exists.
        RecipeError: `top_k` or `threshold` is wrong.
    """
    classifier = as_classifier(classifier)
    _check_target(target)
    columns = text_columns(classifier, text, text_pair)
    table = (
        source
        if isinstance(source, Table)
        else _open(source, ReadOptions(tuple(columns), dialect=dialect_of(**dialect)))
    )
    options = PredictionOptions(prefix, top_k, threshold, labels_only)
    extra = kinds_of(classifier, options)
    done = 0
    with open_writer(target, table, extra, overwrite=overwrite) as writer, bar("predicting", None, "rows") as advance:
        for chunk in table.chunks(keep=True):
            writer.write(chunk, predict_columns(classifier, [chunk.columns[name] for name in columns], options))
            release_memory()
            advance(len(chunk))
            done += len(chunk)
    return done


def _open(source: Any, options: ReadOptions) -> Table:
    if isinstance(source, PATH):
        return open_table(Path(source), columns=options.columns, dialect=options.dialect)
    return open_columns(_require_frame(source, "source"), options)


def predict_frame(
    classifier: Classifier | str | Path,
    frame: Any,
    *,
    text: str | None = None,
    text_pair: str | None = None,
    prefix: str = "",
    top_k: int | None = None,
    threshold: Threshold | None = None,
    labels_only: bool = False,
) -> Any:
    """Classify the rows of a table in memory, and return them with the columns that `predict_file` adds.

    Args:
        classifier: The classifier, or the folder of its bundle.
        frame: A DataFrame of pandas or polars, a table or record batch of Arrow, a Hugging Face Dataset, a dict of
            columns, or a list of dicts.
        text: Column of the texts. None: its name in training.
        text_pair: Column of the second texts, for a classifier of pairs. None: its name in training.
        prefix: Text before the names of the added columns.
        top_k: Add so many of the likeliest labels of each row. None: the scores of all labels.
        threshold: Decide by this score in place of the classifier's own decision: a number, or a mapping from labels
            to numbers, as for `Classifier.predict`.
        labels_only: Leave out the columns of scores.

    Returns:
        A new table of the same kind, with the same rows (of pandas: with the same index). Of another object that hands
        out a table of Arrow a pyarrow.Table.

    Raises:
        DataError: The value is no such table, a text is missing, or a column has the name of an added one.
    """
    classifier = as_classifier(classifier)
    source = _require_frame(frame, "frame")
    columns = text_columns(classifier, text, text_pair)
    options = PredictionOptions(prefix, top_k, threshold, labels_only)
    extra = kinds_of(classifier, options)
    taken = next((name for name in extra if name in source.names), None)
    if taken is not None:
        raise taken_name_error(taken, source.description)
    parts: dict[str, list[Any]] = {
        name: [np.empty(0, kind if kind is not str else object)] for name, kind in extra.items()
    }
    with bar("predicting", None, "rows") as advance:
        for chunk in open_columns(source, ReadOptions(tuple(columns))).chunks():
            texts = [chunk.columns[name] for name in columns]
            for name, values in predict_columns(classifier, texts, options).items():
                parts[name].append(np.asarray(values, parts[name][0].dtype))
            advance(len(chunk))
    return with_columns(frame, source, {name: np.concatenate(values) for name, values in parts.items()})


def _require_frame(value: Any, name: str) -> ArrowSource:
    """Return a table in memory; raise DataError if the value is none."""
    frame = as_frame(value, name)
    if frame is not None:
        return frame
    remedy = "For texts alone there is classifier.predict(texts)."
    if isinstance(value, PATH):
        remedy = "For a file there is predict_file(classifier, path, target)."
    raise DataError(
        f"the argument {name} is no table",
        expected="a data frame (pandas, polars), an Arrow table, a Hugging Face Dataset or a dict of columns"
        + (", or the path of a file" if name == "source" else ""),
        got=describe_value(value),
        remedy=remedy_for(value) or remedy,
    )


def as_classifier(classifier: Classifier | str | Path, *, engine: Engine = "auto") -> Classifier:
    """Return the classifier, or load the bundle of this name. engine: what a bundle is loaded with."""
    if isinstance(classifier, PATH):
        return Classifier.load(classifier, engine=engine)
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
    return choose_text_columns(classifier.columns, text, text_pair)


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


def predict_texts(classifier: Classifier, texts: Sequence[str]) -> Answers:
    """Return the scores of texts given as arguments.

    A classifier of pairs takes exactly two texts, and gives one row.
    """
    if classifier.columns.text_pair is None:
        return classifier.answers(texts)
    if len(texts) != 2:
        raise DataError(
            "this classifier needs pairs of texts",
            expected="two texts, or a file with two text columns",
            got=f"{len(texts)} text{'' if len(texts) == 1 else 's'}",
            remedy="Give both texts of one pair.",
        )
    return classifier.answers(texts[:1], texts[1:])
