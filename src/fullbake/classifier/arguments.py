"""Turn what a Python caller calls texts into texts: lists, columns, tables with the columns of training, generators."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullbake.config.sections import Columns
from fullbake.core.arguments import describe_value, is_instance_of
from fullbake.core.errors import DataError
from fullbake.data.arrow import ArrowSource, arrow_table
from fullbake.data.sources import as_frame, remedy_for
from fullbake.data.tables import ReadOptions
from fullbake.models.prediction import TextsOrPairs

_EXPECTED = "a list of strings"


def check_pair_lengths(texts: TextsOrPairs, text_pair: TextsOrPairs | None) -> None:
    """Raise DataError if there are more first texts than second ones, or fewer."""
    if text_pair is not None and len(texts) != len(text_pair):
        raise DataError(
            "texts and text_pair differ in length",
            expected="a second text for each text",
            got=f"{len(texts):,} texts and {len(text_pair):,} second texts",
        )


def as_texts(value: Any, text_pair: Any, columns: Columns) -> tuple[TextsOrPairs, TextsOrPairs | None]:
    """Return the texts, and the second texts of pairs, that a caller of `predict` means.

    Args:
        value: A list, a column (pandas, numpy, Arrow, polars), a generator, a `Dataset`, or a table in memory
            (`frames.frame_source`) that has the text columns of training.
        text_pair: The second texts in one of these forms but a table; None where there are none, or the table has them.
        columns: The columns of training.

    Raises:
        DataError: The value is none of these, or a table without the columns.
    """
    if is_instance_of(value, "fullbake.data.dataset", "Dataset"):
        return value.texts, value.text_pair if text_pair is None else _as_column(text_pair, "text_pair")
    table = as_frame(value, "texts")
    if table is not None:
        _check_text_columns(table, value, columns)
        first, *second = _read_texts(table, columns.of_texts)
        return first, second[0] if second and text_pair is None else _optional(text_pair)
    texts = _as_column(value, "texts")
    if text_pair is None and columns.text_pair is not None and _are_pairs(texts):
        pairs: Any = texts
        return [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    return texts, _optional(text_pair)


def _read_texts(table: ArrowSource, names: tuple[str, ...]) -> list[TextsOrPairs]:
    """Return the columns of these names, in the form in which a Dataset holds its texts."""
    import pyarrow as pa

    parts: list[list[Any]] = [[] for _ in names]
    for chunk in arrow_table(table, ReadOptions(names)).chunks():
        for column, name in zip(parts, names, strict=True):
            column.append(pa.array(chunk.columns[name], pa.large_string()))
    return [pa.chunked_array(column, pa.large_string()) for column in parts]


def take_texts(texts: TextsOrPairs, rows: NDArray[np.int64]) -> TextsOrPairs:
    """Return the texts at these positions, in their order."""
    column: Any = texts
    taken: TextsOrPairs = column.take(rows) if hasattr(column, "combine_chunks") else [column[row] for row in rows]
    return taken


def _optional(text_pair: Any) -> TextsOrPairs | None:
    return None if text_pair is None else _as_column(text_pair, "text_pair")


def _check_text_columns(table: ArrowSource, value: Any, columns: Columns) -> None:
    """Raise DataError unless a table has the text columns of training. value: what the caller passed."""
    missing = [name for name in columns.of_texts if name not in table.names]
    if missing:
        shown = ", ".join(table.names[:8]) + (", ..." if len(table.names) > 8 else "")
        raise DataError(
            f"a table without the column {missing[0]!r} cannot be classified",
            expected=f"{_EXPECTED}, or a table with the text columns of training: {', '.join(columns.of_texts)}",
            got=f"{describe_value(value)} with the columns {shown}",
            remedy="Pass the column itself, such as predict(table['text'])." + (table.hint and f" {table.hint}"),
        )


def _as_column(value: Any, name: str) -> TextsOrPairs:
    """Return the values of a column or a list in their order."""
    if is_instance_of(value, "pyarrow", "ChunkedArray"):
        column: TextsOrPairs = value
        return column
    if isinstance(value, str):
        known = Path(value).is_file() if len(value) < 256 and "\0" not in value else False
        raise DataError(
            "a list of texts is expected, not one text",
            expected=_EXPECTED,
            got=repr(value[:40]),
            remedy=f"For the rows of a file there is predict_file(classifier, {value!r}, target)."
            if known
            else "Pass a list: predict([text]).",
        )
    if len(getattr(value, "shape", (0,))) != 1:
        raise _refused(value, name, f"it has the shape {tuple(value.shape)}: pass one column")
    if isinstance(value, set | frozenset):
        raise _refused(value, name, "a set has no order: pass a list, so that each result belongs to one text")
    if isinstance(value, bytes | bytearray | memoryview) or not isinstance(value, Iterable):
        raise _refused(value, name, "pass a list of strings")
    for method in ("to_pylist", "tolist", "to_list"):
        if hasattr(value, method):
            return list(getattr(value, method)())
    return value if isinstance(value, list | tuple) else list(value)


def _refused(value: Any, name: str, why: str) -> DataError:
    return DataError(
        f"{name} cannot be classified",
        expected=_EXPECTED,
        got=f"{describe_value(value)}; {why}",
        remedy=remedy_for(value),
    )


def _are_pairs(values: Any) -> bool:
    """Return True if each value is a pair of texts."""
    return (
        isinstance(values, list | tuple)
        and len(values) > 0
        and all(isinstance(value, list | tuple) and len(value) == 2 for value in values)
    )
