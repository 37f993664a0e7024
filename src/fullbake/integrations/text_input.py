"""Read X and y as scikit-learn's callers pass them: columns of texts or pairs of texts, and labels of any kind.

The errors are ValueErrors too, because that is what scikit-learn and its callers expect of a wrong X or y.
"""

import warnings
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from sklearn.exceptions import DataConversionWarning

from fullbake.config.sections import Columns
from fullbake.core.arguments import describe_value
from fullbake.core.errors import DataError, Error, RecipeError
from fullbake.data.dataset import Dataset


class EstimatorInputError(DataError, ValueError):
    """X, y or a parameter of an estimator is wrong: a DataError that scikit-learn's callers catch as ValueError."""


@contextmanager
def as_value_errors() -> Iterator[None]:
    """Within the block, turn errors of the rows and of the recipe into EstimatorInputErrors with the same words."""
    try:
        yield
    except EstimatorInputError:
        raise
    except (DataError, RecipeError) as error:
        raise EstimatorInputError(**_parts(error)) from error


def _parts(error: Error) -> dict[str, Any]:
    return {name: getattr(error, name) for name in ("what", "where", "expected", "got", "remedy")}


@dataclass(frozen=True)
class TextColumns:
    """The texts of X."""

    texts: list[str]
    """(rows,)."""

    text_pair: list[str] | None
    """(rows,) the second text of each row, None for single texts."""

    table: Any
    """X in two dimensions, for scikit-learn's checks of the number and the names of columns: the data frame itself, or
    an object array (rows, 1 or 2)."""


@dataclass(frozen=True)
class Target:
    """What y says."""

    labels: npt.NDArray[Any]
    """Class ids int64 (rows,), or 0 and 1, uint8 (rows, labels)."""

    classes: npt.NDArray[Any]
    """(classes,) the labels as the caller wrote them, in the order of the ids."""

    names: tuple[str, ...]
    """(classes,) the same as strings, as a bundle holds them."""

    indicator_type: npt.DTypeLike = np.uint8
    """The type of the numbers of an indicator matrix y, in which predictions are returned."""


_EXPECTED = "a list, array or column of strings; for pairs of texts two columns, or a list of pairs"


def read_text_columns(X: Any) -> TextColumns:  # noqa: N803  (scikit-learn's name)
    """Return the texts of X.

    Args:
        X: A list of strings, an array or a column of them, or a table with one column of texts; for pairs, a table or
            an array with two columns, or a list of pairs.

    Raises:
        EstimatorInputError: X is none of these, or holds something else than texts.
    """
    if isinstance(X, str | bytes) or X is None or isinstance(X, Mapping | set | frozenset):
        raise _refused_texts(describe_value(X), "Pass a list of texts: [text].")
    values = _frame_values(X) if hasattr(X, "get_column") or hasattr(X, "column_names") else _as_objects(X)
    if values.ndim not in (1, 2) or (values.ndim == 2 and values.shape[1] not in (1, 2)):
        names = list(map(str, getattr(X, "columns", ())))[:8]
        shown = f" with the columns {', '.join(names)}" if names else ""
        remedy = f"Choose the column of texts: X[[{names[0]!r}]]." if names else "Pass the column of texts alone."
        raise _refused_texts(f"{describe_value(X)} of shape {values.shape}{shown}", remedy)
    if not len(values):
        raise EstimatorInputError(
            "Found array with 0 sample(s)", where="X", expected="a minimum of 1 is required", got="no text"
        )
    rows = values.reshape(len(values), -1)
    columns = [_checked_texts(column) for column in rows.T]
    # Only pandas' names are known to scikit-learn's check.
    table = X if hasattr(X, "iloc") and values.ndim == 2 else rows
    return TextColumns(columns[0], columns[1] if len(columns) == 2 else None, table)


def _frame_values(frame: Any) -> npt.NDArray[Any]:
    """Return the cells of a frame of polars or a table of Arrow, an object array (rows, columns)."""
    if hasattr(frame, "get_column"):
        columns = [_as_objects(frame.get_column(name).to_list()) for name in frame.columns]
    else:
        columns = [_as_objects(_values_of(frame[name])) for name in frame.column_names]
    return np.stack(columns, axis=1) if columns else np.empty((len(frame), 0), object)


def _values_of(column: Any) -> list[Any]:
    """Return the values of a column of Arrow or of the datasets library."""
    return list(column.to_pylist() if hasattr(column, "to_pylist") else column)


def _as_objects(X: Any) -> npt.NDArray[Any]:  # noqa: N803
    try:
        return np.asarray(X, dtype=object)
    except ValueError as error:  # rows of different lengths
        raise _refused_texts("rows of different lengths", "Give every row one text, or every row two.") from error


def _checked_texts(column: npt.NDArray[Any]) -> list[str]:
    for row, value in enumerate(column):
        if not isinstance(value, str):
            missing = value is None or value != value
            raise _refused_texts(
                f"{describe_value(value)} in row {row} (counted from 0)",
                "Fill it in, or leave the row out." if missing else "Convert numbers yourself: X.astype(str).",
            )
    return [str(value) for value in column]


def _refused_texts(got: str, remedy: str) -> EstimatorInputError:
    return EstimatorInputError("X holds no texts", where="X", expected=_EXPECTED, got=got, remedy=remedy)


def read_target(y: Any) -> Target:
    """Return the labels of y.

    Args:
        y: One label in each row: strings, numbers, booleans or other values that can be hashed. Or an indicator matrix
            of 0 and 1, dense or sparse, where a row may have many labels; a data frame names them.

    Raises:
        EstimatorInputError: y is missing, measured values or no labels, or a label is missing.
    """
    if y is None:
        raise EstimatorInputError(
            "a classifier requires y to be passed, but the target y is None", where="y", remedy="Pass fit(X, y)."
        )
    if hasattr(y, "toarray"):  # sparse
        y = y.toarray()
    values = _target_values(y)
    if values.ndim == 2 and values.shape[1] > 1:
        names = getattr(y, "columns", range(values.shape[1]))
        return _indicators(values, np.array([*names], dtype=object if hasattr(y, "columns") else None))
    if values.ndim == 2:
        warnings.warn(
            "A column-vector y was passed when a 1d array was expected. Change the shape of y to (n_samples,).",
            DataConversionWarning,
            stacklevel=3,
        )
        values = values[:, 0]
    if values.ndim != 1:
        raise _refused_target(f"an array of shape {values.shape}", "Pass one label a row.")
    return _classes(values)


def _target_values(y: Any) -> npt.NDArray[Any]:
    if isinstance(y, list | tuple) and y and not isinstance(y[0], list | np.ndarray):
        # numpy would make a second dimension of tuples, and strings of a list that also holds numbers.
        values = np.fromiter(y, dtype=object, count=len(y))
        kinds = {type(value) for value in y}
        return np.asarray(y) if len(kinds) == 1 and kinds <= {str, bool, int, float} else values
    return np.asarray(y)


def _classes(values: npt.NDArray[Any]) -> Target:
    if values.dtype.kind in "fc" and not (np.isfinite(values).all() and (values == np.round(values)).all()):
        missing = bool(np.isnan(values).any())
        raise _refused_target(
            "a missing label (NaN)" if missing else "Unknown label type: continuous or infinite values",
            "Fill it in, or leave the row out." if missing else "A classifier takes classes, not measured values.",
        )
    if values.dtype.kind != "O":
        classes, labels = np.unique(values, return_inverse=True)
    else:
        classes, labels = _sorted_objects(values)
    names = tuple(str(value) for value in classes.tolist())
    empty = next((name for name in names if not name.strip()), None)
    if empty is not None or len(set(names)) < len(names):
        what = (
            f"the empty label {empty!r}" if empty is not None else "labels that differ in type alone, such as 1 and '1'"
        )
        raise _refused_target(what, "Write each label in one form, and leave out rows without one.")
    return Target(labels.astype(np.int64), classes, names)


def _sorted_objects(values: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    """Return (sorted different values, index of each value in them) of values of any type."""
    for row, value in enumerate(values):
        if value is None or not isinstance(value, Hashable) or value != value:
            raise _refused_target(f"{describe_value(value)} in row {row} (counted from 0)", "Every row needs a label.")
    found = set(values)
    try:
        ordered = sorted(found)
    except TypeError:  # values of several types have no order of their own
        ordered = sorted(found, key=lambda value: (type(value).__name__, str(value)))
    ids = {value: number for number, value in enumerate(ordered)}
    classes = np.fromiter(ordered, dtype=object, count=len(ordered))
    return classes, np.array([ids[value] for value in values], dtype=np.int64)


def _indicators(values: npt.NDArray[Any], classes: npt.NDArray[Any]) -> Target:
    if not np.isin(values, (0, 1)).all():
        raise _refused_target("several columns with other values than 0 and 1", "Give each label a column of 0 and 1.")
    kind = np.uint8 if values.dtype == object else values.dtype
    return Target(values.astype(np.uint8), classes, tuple(map(str, classes.tolist())), kind)


def _refused_target(got: str, remedy: str) -> EstimatorInputError:
    expected = "one class in each row, or a matrix of 0 and 1 with a column for each label"
    return EstimatorInputError("y holds no labels to train on", where="y", expected=expected, got=got, remedy=remedy)


def as_dataset(read: TextColumns, target: Target | None, groups: Any = None) -> Dataset:
    """Return texts, labels and groups as the data set that fullbake trains on.

    Args:
        read: What `read_text_columns` returned.
        target: What `read_target` returned. None gives every text the first of two classes, for work without labels.
        groups: (rows,) values that mark rows which belong together; None for no groups.
    """
    rows = len(read.texts)
    if target is None:
        target = Target(np.zeros(rows, np.int64), np.arange(2), ("0", "1"))
    pair = None if read.text_pair is None else "text_pair"
    columns = Columns("text", "label", pair, group=None if groups is None else "group")
    return Dataset(
        texts=_arrow(read.texts),
        labels=target.labels,
        label_names=target.names,
        rows=np.arange(1, rows + 1),
        source="X, y",
        columns=columns,
        text_pair=None if read.text_pair is None else _arrow(read.text_pair),
        group=None if groups is None else _arrow([str(value) for value in groups]),
    )


def _arrow(values: list[str]) -> pa.ChunkedArray:
    try:
        return pa.chunked_array([pa.array(values, pa.large_string())])
    except UnicodeEncodeError as error:
        row = next(number for number, value in enumerate(values) if not _is_unicode(value))
        raise _refused_texts(
            f"half of a surrogate pair in row {row} (counted from 0)", "Read the texts as UTF-8, or replace it."
        ) from error


def _is_unicode(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
