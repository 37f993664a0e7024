"""Accuracy of predictions against labels as a Python caller writes them: what scikit-learn calls `score`."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullbake.config.problems import LabelArray, Problem
from fullbake.core.arguments import describe_value
from fullbake.core.errors import DataError, did_you_mean

_EXPECTED = {True: "one class name for each text", False: "0 and 1 for each text and label, or the names of its labels"}


def accuracy_of(
    decided: LabelArray, y: Any, problem: Problem, label_names: Sequence[str], sample_weight: Any = None
) -> float:
    """Return the share of rows whose label, or whole set of labels, is right.

    Args:
        decided: The predictions, in the problem's own form.
        y: The true labels: names (rows,); of many labels a matrix of 0 and 1 (rows, labels), or the names of each row.
        problem: The problem.
        label_names: (labels,).
        sample_weight: How much each row counts, (rows,); None counts all alike.

    Raises:
        DataError: There are other numbers of labels or weights than rows, or a label is unknown.
    """
    labels = _read_labels(y, problem, label_names)
    if len(labels) != len(decided):
        raise DataError("X and y differ in length", got=f"{len(decided):,} texts and {len(labels):,} labels")
    if not len(labels):
        raise DataError("no rows give no score", where="y", expected="1 row or more", got="0 rows")
    right = problem.equal_rows(decided, labels)
    weights = None if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
    if weights is not None and (weights.shape != right.shape or not weights.sum() > 0 or weights.min() < 0):
        raise DataError(
            "sample_weight is one weight for each row, 0 or more",
            where="sample_weight",
            expected=f"the shape {right.shape} and a sum above 0",
            got=f"the shape {weights.shape} and the sum {weights.sum():g}",
        )
    return float(np.average(right, weights=weights))


def _read_labels(y: Any, problem: Problem, label_names: Sequence[str]) -> LabelArray:
    values = y.toarray() if hasattr(y, "toarray") else y  # sparse
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise _wrong_labels(problem, describe_value(values))
    if not problem.exclusive and len(getattr(values, "shape", ())) == 2:
        return _read_matrix(values, problem, label_names)
    rows = list(values.to_pylist() if hasattr(values, "to_pylist") else values)
    if problem.exclusive:
        return problem.encode([[_name(row, problem, label_names)] for row in rows], label_names)
    if rows and all(isinstance(row, list | tuple | np.ndarray) and len(row) == len(label_names) for row in rows):
        matrix = np.asarray(rows)
        if matrix.dtype.kind in "biuf":
            return _read_matrix(matrix, problem, label_names)
    if not all(isinstance(row, list | tuple | set | frozenset | np.ndarray) for row in rows):
        raise _wrong_labels(problem, describe_value(next(iter(rows), None)))
    return problem.encode([[_name(name, problem, label_names) for name in row] for row in rows], label_names)


def _read_matrix(values: Any, problem: Problem, label_names: Sequence[str]) -> NDArray[np.uint8]:
    columns = list(map(str, getattr(values, "columns", ())))
    if columns and sorted(columns) == sorted(label_names):
        values = values[list(label_names)]
    matrix = np.asarray(values)
    if matrix.shape[1] != len(label_names) or not np.isin(matrix, (0, 1)).all():
        raise _wrong_labels(problem, f"an array of shape {matrix.shape}")
    return matrix.astype(np.uint8)


def _name(value: Any, problem: Problem, label_names: Sequence[str]) -> str:
    """Return the name of one label. Numbers are written as a file of rows would have them."""
    plain = value.item() if isinstance(value, np.generic) else value
    name = str(int(plain)) if isinstance(plain, float) and plain.is_integer() else str(plain)
    if name in label_names:
        return name
    if isinstance(plain, int) and not isinstance(plain, bool) and 0 <= plain < len(label_names):
        remedy = "Are these ids? Pass names: classifier.classes_[y]."
    else:
        remedy = did_you_mean(name, tuple(label_names))
    raise DataError(
        "a label in y is none of the classifier's",
        where="y",
        expected=_EXPECTED[problem.exclusive],
        got=describe_value(plain),
        remedy=remedy,
    )


def _wrong_labels(problem: Problem, got: str) -> DataError:
    return DataError("y holds no labels of this classifier", where="y", expected=_EXPECTED[problem.exclusive], got=got)
