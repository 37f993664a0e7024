"""Labels as they stand in tables: one a row, many in one cell, lists, or columns of 0 and 1.

One label a row becomes a class id, many become a row of 0 and 1. Which form a table has is what the caller says,
except for lists: a JSON or Parquet list is one by its type, so nothing is guessed there either. Labels keep their
spelling; only what the separator leaves around them is stripped.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from fullbake.config.problems import problem_of
from fullbake.config.sections import Columns
from fullbake.core.errors import DataError, did_you_mean

LabelForm = Literal["single", "lists", "separated", "indicators"]
PlaceOf = Callable[[int], str]
"""Position within a chunk -> its place in words."""

_YES_OR_NO: Final = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1, "False": 0, "True": 1}
"""What a column of 0 and 1 may hold: as people, pandas (1.0) and JSON (true) write it."""


@dataclass
class LabelReader:
    """Collects labels chunk by chunk.

    known: the labels there may be, None where those that occur are taken. unlabelled: rows without a label so far, and
    the first one's place.
    """

    columns: Columns
    known: tuple[str, ...] | None = None
    form: LabelForm | None = None
    unlabelled: int = 0
    first_unlabelled: str | None = None
    _vocabulary: dict[str, int] = field(default_factory=dict)
    _codes: list[npt.NDArray[np.int64]] = field(default_factory=list)
    _counts: list[npt.NDArray[np.int64]] = field(default_factory=list)

    def __post_init__(self) -> None:
        names = self.columns.labels or self.known or ()
        self._vocabulary = {name: code for code, name in enumerate(names)}
        if self.columns.labels is not None:
            self.form = "indicators"
            self._check_indicators()
        elif self.columns.label_separator is not None:
            self.form = "separated"

    def add(self, values: Mapping[str, Sequence[Any]], where: PlaceOf) -> None:
        """Take a chunk's cells. Raises DataError for a cell that is none of the form, or a label that is not known."""
        cells = self._cells(values, where)
        codes, counts = [], np.empty(len(cells), dtype=np.int64)
        for index, labels in enumerate(cells):
            if labels is None:
                self.unlabelled += 1
                self.first_unlabelled = self.first_unlabelled or where(index)
                counts[index] = -1
                continue
            codes += [self._code(label, index, where) for label in labels]
            counts[index] = len(labels)
        self._codes.append(np.array(codes, dtype=np.int64))
        self._counts.append(counts)

    def finish(self) -> tuple[tuple[str, ...], npt.NDArray[Any], npt.NDArray[np.int64]]:
        """(names, labels, rows): the labels of the rows that have some, and those rows' positions from 0.

        labels: class ids int64 (rows,), or 0 and 1 as uint8 (rows, names) where a row may have many.
        """
        codes, counts = np.concatenate(self._codes), np.concatenate(self._counts)
        names, codes = self._sorted(codes)
        rows = np.flatnonzero(counts >= 0)
        if self.form == "single":
            return names, codes, rows
        matrix = np.zeros((len(rows), len(names)), dtype=np.uint8)
        matrix[np.repeat(np.arange(len(rows)), counts[rows]), codes] = 1
        return names, matrix, rows

    def _sorted(self, codes: npt.NDArray[np.int64]) -> tuple[tuple[str, ...], npt.NDArray[np.int64]]:
        """Names in an order that does not hang on the rows': as known, as the columns, or sorted."""
        if self.known is not None:
            return self.known, codes
        if self.form == "indicators":
            return tuple(self._vocabulary), codes
        names = tuple(sorted(self._vocabulary))
        rank = np.empty(len(names), dtype=np.int64)
        rank[[self._vocabulary[name] for name in names]] = np.arange(len(names))
        return names, rank[codes]

    def _check_indicators(self) -> None:
        """Columns given for training and for scoring name the same labels; the known order counts."""
        given = set(self.columns.labels or ())
        if self.known is None:
            return
        if given != set(self.known):
            raise DataError(
                "the label columns are not the labels of training",
                expected=", ".join(map(repr, self.known)),
                got=", ".join(map(repr, self.columns.labels or ())),
                remedy="Name a column of 0 and 1 for each label of training, by --labels.",
            )
        self._vocabulary = {name: code for code, name in enumerate(self.known)}

    def _cells(self, values: Mapping[str, Sequence[Any]], where: PlaceOf) -> list[Sequence[str] | None]:
        """The labels of each row, None for a row without any mark of one."""
        if self.form == "indicators":
            return _indicators({name: values[name] for name in self.columns.of_labels}, where)
        column = self.columns.of_labels[0]
        cells = values[column]
        if self.form is None:
            self.form = "lists" if any(isinstance(cell, list) for cell in cells) else "single"
        if self.form == "separated":
            assert self.columns.label_separator is not None
            return [_parted(cell, self.columns.label_separator, column, where(i)) for i, cell in enumerate(cells)]
        if self.form == "lists":
            return [_listed(cell, column, where(index)) for index, cell in enumerate(cells)]
        return [_lone(cell, column, where(index)) for index, cell in enumerate(cells)]

    def _code(self, label: str, index: int, where: PlaceOf) -> int:
        if label not in self._vocabulary:
            if self.known is not None:
                raise _unknown(label, self.columns.of_labels[0], where(index), self.known)
            self._vocabulary[label] = len(self._vocabulary)
        return self._vocabulary[label]


def count_labels(labels: npt.NDArray[Any], classes: int) -> npt.NDArray[np.int64]:
    """Rows of each label, (classes,). labels: class ids (rows,), or 0 and 1 (rows, classes)."""
    return problem_of(labels).count_rows(labels, classes)


def _lone(cell: Any, column: str, where: str) -> Sequence[str] | None:
    if isinstance(cell, list):
        raise _mixed(column, where, "one label, as the rows before have", f"a list of {len(cell)}")
    return (cell,) if cell.strip() else None


def _listed(cell: Any, column: str, where: str) -> Sequence[str] | None:
    if not isinstance(cell, list):
        if not cell:
            return None
        raise _mixed(column, where, "a list of labels, as other rows have", repr(cell[:60]))
    return _unique(cell, column, where)


def _parted(cell: Any, separator: str, column: str, where: str) -> Sequence[str]:
    """A cell's labels; an empty cell says that no label holds."""
    if isinstance(cell, list):
        raise _mixed(column, where, f"text with labels parted by {separator!r}", "a list")
    return _unique([part.strip() for part in cell.split(separator)], column, where) if cell.strip() else ()


def _unique(labels: list[str], column: str, where: str) -> list[str]:
    faults = [label for label in labels if not label.strip()] or [
        label for number, label in enumerate(labels) if label in labels[:number]
    ]
    if faults:
        raise DataError(
            f"column {column!r} holds {'an empty label' if not faults[0].strip() else 'a label twice'}",
            where=where,
            expected="each label once",
            got=repr(labels)[:80],
            remedy="Mend this row.",
        )
    return labels


def _indicators(columns: Mapping[str, Sequence[Any]], where: PlaceOf) -> list[Sequence[str] | None]:
    """Rows of columns of 0 and 1; a row with an empty cell is one without its labels."""
    names = list(columns)
    rows: list[Sequence[str] | None] = []
    for index, cells in enumerate(zip(*columns.values(), strict=True)):
        marks = [_yes_or_no(cell, name, index, where) for name, cell in zip(names, cells, strict=True)]
        rows.append(None if None in marks else [name for name, mark in zip(names, marks, strict=True) if mark])
    return rows


def _yes_or_no(cell: Any, column: str, index: int, where: PlaceOf) -> int | None:
    if isinstance(cell, str) and cell in _YES_OR_NO:
        return _YES_OR_NO[cell]
    if isinstance(cell, str) and not cell.strip():
        return None
    raise DataError(
        f"column {column!r} is no column of 0 and 1",
        where=where(index),
        expected="0 or 1 (0.0, 1.0, true and false are taken too)",
        got=repr(cell)[:80],
        remedy="--labels names columns of 0 and 1; a column of class names goes by --label.",
    )


def _mixed(column: str, where: str, expected: str, got: str) -> DataError:
    return DataError(
        f"column {column!r} changes its form",
        where=where,
        expected=expected,
        got=got,
        remedy="Write the labels of all rows in one form.",
    )


def _unknown(name: str, column: str, where: str, known: Iterable[str]) -> DataError:
    return DataError(
        f"column {column!r} holds a label that training did not have",
        where=where,
        expected="one of the labels of training",
        got=repr(name[:80]),
        remedy=did_you_mean(name, tuple(known)),
    )
