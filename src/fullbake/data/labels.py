"""Labels as tables hold them: one in each row, several in one field, lists, or columns of 0 and 1.

One label a row becomes a class id; several become a row of 0 and 1. The caller says which form a table has, except for
lists: a list of JSON or Parquet is recognized by its type, so nothing is guessed there either. Labels keep their
spelling; only white space around separated labels is removed.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from fullbake.config.problems import MULTI_LABEL, SINGLE_LABEL, Problem, problem_named, problem_of
from fullbake.config.sections import Columns
from fullbake.core.errors import DataError, did_you_mean

LabelForm = Literal["single", "lists", "separated", "indicators"]
PlaceOf = Callable[[int], str]
"""Called with a position in a chunk; returns its place in words, as `Chunk.where` does."""

_INDICATORS: Final = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1, "False": 0, "True": 1}
"""What a column of 0 and 1 may hold: as people, pandas (1.0), JSON (true) and Python (True) write it."""


@dataclass
class LabelReader:
    """Collects the labels of a table, chunk by chunk.

    Raises:
        DataError: `columns` names label columns, and they are not the `known` labels.
    """

    columns: Columns
    """Which columns hold the labels."""

    known: tuple[str, ...] | None = None
    """The labels that are allowed; None allows all."""

    known_problem: Problem | None = None
    """The problem that the labels of training pose; labels of the other form are an error. None allows both."""

    form: LabelForm | None = None
    """How the labels are written; None until the first chunk shows whether they are lists."""

    unlabeled: int = 0
    """The number of rows without a label so far."""

    first_unlabeled: str | None = None
    """The place of the first such row."""

    _ids: dict[str, int] = field(default_factory=dict)
    """Label to its id, numbered by first occurrence until `finish` sorts them."""

    _row_ids: list[npt.NDArray[np.int64]] = field(default_factory=list)
    """For each chunk the ids of all its rows' labels, row after row."""

    _counts: list[npt.NDArray[np.int64]] = field(default_factory=list)
    """For each chunk (rows,) the number of labels of each row, -1 for a row without a label."""

    def __post_init__(self) -> None:
        names = self.columns.labels or self.known or ()
        self._ids = {name: label for label, name in enumerate(names)}
        if self.columns.labels is not None:
            self.form = "indicators"
            self._check_label_columns()
        elif self.columns.label_separator is not None:
            self.form = "separated"

    @property
    def problem(self) -> Problem:
        """The problem that the labels pose. `form` is set before this is read."""
        return problem_named(SINGLE_LABEL if self.form == "single" or self.columns.exclusive else MULTI_LABEL)

    def add(self, values: Mapping[str, Sequence[Any]], where: PlaceOf) -> None:
        """Read the labels of one chunk.

        Args:
            values: the chunk's columns; those of labels are read.
            where: gives the place of a row, for errors.

        Raises:
            DataError: a value does not have the form of the others, or a label is not known.
        """
        rows = self._labels_of_rows(values, where)
        self._check_problem(rows, where)
        if self.columns.exclusive and self.form != "single":
            column = self.columns.of_labels[0]
            rows = [_read_exclusive(labels, column, where(index)) for index, labels in enumerate(rows)]
        ids, counts = [], np.empty(len(rows), dtype=np.int64)
        for index, labels in enumerate(rows):
            if labels is None:
                self.unlabeled += 1
                self.first_unlabeled = self.first_unlabeled or where(index)
                counts[index] = -1
                continue
            ids += [self._id(label, index, where) for label in labels]
            counts[index] = len(labels)
        self._row_ids.append(np.array(ids, dtype=np.int64))
        self._counts.append(counts)

    def finish(self) -> tuple[tuple[str, ...], npt.NDArray[Any], npt.NDArray[np.int64]]:
        """Return what was read.

        Returns:
            The label names; the labels of the labeled rows: class ids int64 (rows,), or a label matrix of 0 and 1,
            uint8 (rows, names); and the positions of these rows, from 0.
        """
        ids, counts = np.concatenate(self._row_ids), np.concatenate(self._counts)
        names, ids = self._sort_names(ids)
        rows = np.flatnonzero(counts >= 0)
        if self.problem.exclusive:
            return names, ids, rows
        # `ids` holds the labels of all rows one after another: repeat each row's position by its number of labels.
        matrix = np.zeros((len(rows), len(names)), dtype=np.uint8)
        matrix[np.repeat(np.arange(len(rows)), counts[rows]), ids] = 1
        return names, matrix, rows

    def _sort_names(self, ids: npt.NDArray[np.int64]) -> tuple[tuple[str, ...], npt.NDArray[np.int64]]:
        """Return the names in an order that does not depend on the order of the rows, and the ids renumbered to it.

        The order is that of `known`, of the label columns, or the sorted one.
        """
        if self.known is not None:
            return self.known, ids
        if self.form == "indicators":
            return tuple(self._ids), ids
        names = tuple(sorted(self._ids))
        rank = np.empty(len(names), dtype=np.int64)
        rank[[self._ids[name] for name in names]] = np.arange(len(names))
        return names, rank[ids]

    def _check_label_columns(self) -> None:
        """Raise DataError unless the label columns are the known labels; then take the known order."""
        if self.known is None:
            return
        if set(self.columns.labels or ()) != set(self.known):
            raise DataError(
                "the label columns are not the labels of training",
                expected=", ".join(map(repr, self.known)),
                got=", ".join(map(repr, self.columns.labels or ())),
                remedy="Name a column of 0 and 1 for each label of training, by --labels.",
            )
        self._ids = {name: label for label, name in enumerate(self.known)}

    def _check_problem(self, rows: Sequence[Sequence[str] | None], where: PlaceOf) -> None:
        """Raise DataError if the labels do not have the form of those of training."""
        if self.known_problem is None or self.problem.name == self.known_problem.name:
            return
        index = next((index for index, labels in enumerate(rows) if labels is not None), None)
        if index is not None:
            raise _other_form_error(self.columns, self.form, rows[index] or (), where(index))

    def _labels_of_rows(self, values: Mapping[str, Sequence[Any]], where: PlaceOf) -> list[Sequence[str] | None]:
        """Return the labels of each row of a chunk, None for a row whose label is missing."""
        if self.form == "indicators":
            return _read_indicators({name: values[name] for name in self.columns.of_labels}, where)
        column = self.columns.of_labels[0]
        fields = values[column]
        # The first chunk decides; a list among single labels, or the reverse, is an error from then on.
        if self.form is None:
            self.form = "lists" if any(isinstance(value, list) for value in fields) else "single"
        if self.form == "separated":
            separator = self.columns.label_separator
            assert separator is not None
            return [_read_separated(value, separator, column, where(index)) for index, value in enumerate(fields)]
        read = _read_list if self.form == "lists" else _read_single
        return [read(value, column, where(index)) for index, value in enumerate(fields)]

    def _id(self, label: str, index: int, where: PlaceOf) -> int:
        if label not in self._ids:
            if self.known is not None:
                raise _unknown_label_error(label, self.columns.of_labels[0], where(index), self.known)
            self._ids[label] = len(self._ids)
        return self._ids[label]


def count_labels(labels: npt.NDArray[Any], classes: int) -> npt.NDArray[np.int64]:
    """Count the rows of each label.

    Args:
        labels: class ids (rows,), or a label matrix of 0 and 1 (rows, classes).
        classes: the number of label names.

    Returns:
        (classes,) numbers of rows.
    """
    return problem_of(labels).count_rows(labels, classes)


def _read_single(value: Any, column: str, where: str) -> Sequence[str] | None:
    if isinstance(value, list):
        raise _mixed_forms_error(column, where, "one label, as in the rows before", f"a list of {len(value)}")
    return (value,) if value.strip() else None


def _read_list(value: Any, column: str, where: str) -> Sequence[str] | None:
    if not isinstance(value, list):
        if not value:  # a null in place of a list is read as ""
            return None
        raise _mixed_forms_error(column, where, "a list of labels, as in other rows", repr(value[:60]))
    return _check_labels(value, column, where)


def _read_separated(value: Any, separator: str, column: str, where: str) -> Sequence[str]:
    """Split a field into its labels. An empty field means that the row has none of the labels."""
    if isinstance(value, list):
        raise _mixed_forms_error(column, where, f"text with labels separated by {separator!r}", "a list")
    return _check_labels([part.strip() for part in value.split(separator)], column, where) if value.strip() else ()


def _check_labels(labels: list[str], column: str, where: str) -> list[str]:
    """Return the labels of a row; raise DataError if one is empty or occurs twice."""
    empty = any(not label.strip() for label in labels)
    if empty or len(set(labels)) < len(labels):
        if all(label in _INDICATORS for label in labels):
            raise _vector_error(labels, column, where)
        raise DataError(
            f"column {column!r} holds {'an empty label' if empty else 'a label twice'}",
            where=where,
            expected="each label once",
            got=repr(labels)[:80],
            remedy="Correct this row.",
        )
    return labels


def _vector_error(labels: list[str], column: str, where: str) -> DataError:
    return DataError(
        f"column {column!r} holds a vector of 0 and 1 in place of a list of labels",
        where=where,
        expected='the names of the labels that the row has, such as ["joy", "fear"]',
        got=repr(labels)[:80],
        remedy="Write the names, or give each label a column of 0 and 1 and name the columns by --labels.",
    )


def _read_exclusive(labels: Sequence[str] | None, column: str, where: str) -> Sequence[str] | None:
    """Return the one label of a row; None for a row without any, which counts as unlabeled."""
    if labels is None or len(labels) == 1:
        return labels
    if not labels:
        return None
    raise DataError(
        f"column {column!r} holds several labels in one row",
        where=where,
        expected="one label in each row (--exclusive)",
        got=repr(list(labels))[:80],
        remedy="Correct this row, or leave --exclusive out: then a row may have many labels.",
    )


def _read_indicators(columns: Mapping[str, Sequence[Any]], where: PlaceOf) -> list[Sequence[str] | None]:
    """Return the labels of each row of columns of 0 and 1, None for a row with an empty field."""
    names = list(columns)
    rows: list[Sequence[str] | None] = []
    for index, fields in enumerate(zip(*columns.values(), strict=True)):
        bits = [_read_indicator(value, name, index, where) for name, value in zip(names, fields, strict=True)]
        # One empty field makes the row unlabeled: nobody knows whether it has that label.
        rows.append(None if None in bits else [name for name, bit in zip(names, bits, strict=True) if bit])
    return rows


def _read_indicator(value: Any, column: str, index: int, where: PlaceOf) -> int | None:
    if isinstance(value, str) and value in _INDICATORS:
        return _INDICATORS[value]
    if isinstance(value, str) and not value.strip():
        return None
    raise DataError(
        f"column {column!r} is not a column of 0 and 1",
        where=where(index),
        expected="0 or 1 (0.0, 1.0, true and false are read too)",
        got=repr(value)[:80],
        remedy="Name columns of 0 and 1 by --labels; name one column of class names by --label.",
    )


def _other_form_error(columns: Columns, form: LabelForm | None, labels: Sequence[str], where: str) -> DataError:
    """Return the error for labels that are words where those of training are lists, or the other way round."""
    if form == "single":
        expected, got = "a list of labels in each row, as in training (a row may have many)", "one label, a word"
        remedy = (
            "Write the labels of all files in one form. If no row has several, train with --exclusive, which makes "
            "classes of lists of one label. Or pass --label-separator: then a word is read as a list of one label."
        )
    else:
        expected, got = "one label in each row, a word, as in training", f"a list of labels: {list(labels)!r}"[:80]
        remedy = (
            "Write the labels of all files in one form. If each list holds exactly one label, pass --exclusive: it "
            "makes classes of them."
        )
    named = ", ".join(map(repr, columns.of_labels[:3]))
    return DataError(
        f"the labels in column {named} have another form than those of training",
        where=where,
        expected=expected,
        got=got,
        remedy=remedy,
    )


def _mixed_forms_error(column: str, where: str, expected: str, got: str) -> DataError:
    return DataError(
        f"column {column!r} holds labels in different forms",
        where=where,
        expected=expected,
        got=got,
        remedy="Write the labels of all rows in one form.",
    )


def _unknown_label_error(name: str, column: str, where: str, known: Iterable[str]) -> DataError:
    return DataError(
        f"column {column!r} holds a label that training did not have",
        where=where,
        expected="one of the labels of training",
        got=repr(name[:80]),
        remedy=did_you_mean(name, tuple(known)),
    )
