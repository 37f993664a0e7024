"""Labeled texts: files, hub data sets or tables in memory become a `Dataset`, whose texts are columns of Arrow.

Labels keep their spelling as names. Their ids follow the sorted order of the names, so they do not depend on the order
of the rows. A row without a label is an error unless the caller asks to leave such rows out; the error counts all of
them. Texts are held in Arrow's large_string chunks: one allocation for a chunk, not one for a text.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fullbake.config.fields import Quoting
from fullbake.config.problems import Problem, problem_of
from fullbake.config.recipe import dialect_of
from fullbake.config.sections import Columns
from fullbake.core.errors import DataError
from fullbake.data.dataset_view import DatasetFacts, dataset_html, describe_dataset
from fullbake.data.labels import LabelReader, count_labels
from fullbake.data.sources import as_source, open_source
from fullbake.data.tables import Table

Ids = npt.NDArray[np.int64]

PAIR_SEPARATOR = "\u241e"
"""Between the two texts of a pair, where they are compared as one (the symbol for a record separator)."""


@dataclass(frozen=True)
class Dataset:
    """Texts, or pairs of texts, with or without labels."""

    texts: pa.ChunkedArray
    """(rows,) large_string."""

    labels: npt.NDArray[Any] | None
    """Class ids int64 (rows,); or a label matrix of 0 and 1, uint8 (rows, labels), where a row may have several; or
    None."""

    label_names: tuple[str, ...]
    """The name of each label id."""

    rows: Ids
    """(rows,) the number of each row in the source, from 1; a header is not counted."""

    source: str
    """The file or hub id that the rows come from, or what they are: "a pandas DataFrame of 1,000 rows"."""

    columns: Columns
    """The columns they come from."""

    text_pair: pa.ChunkedArray | None = None
    """(rows,) the second text of each row; None where rows are single texts."""

    group: pa.ChunkedArray | None = None
    """(rows,) the value of the group column of each row, "" where it has none; None without such a column."""

    dropped_labels: Mapping[str, int] | None = None
    """The labels that were left out because they are rare, and their rows; None where this was not asked for."""

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        """Return one line: rows, source and the most frequent labels."""
        return describe_dataset(self._facts())

    def _repr_html_(self) -> str:
        """Return rows, labels, lengths and warnings, for a notebook. No text of a row is shown."""
        return dataset_html(self._facts())

    def _facts(self) -> DatasetFacts:
        counts = [] if self.labels is None else self.counts().tolist()
        return DatasetFacts(
            self.source,
            self.texts,
            self.text_pair,
            dict(zip(self.label_names, counts, strict=False)),
            "labels" if self.labels is None else self.problem.noun,
            [*self.columns.of_texts, *self.columns.of_labels, *self.columns.of_groups],
            self.dropped_labels or {},
        )

    @property
    def problem(self) -> Problem:
        """The kind of problem that the labels pose; ask only where there are labels."""
        assert self.labels is not None
        return problem_of(self.labels)

    @property
    def joined_texts(self) -> pa.ChunkedArray:
        """(rows,) what rows are compared by: the texts, or the two texts of each pair joined into one."""
        if self.text_pair is None:
            return self.texts
        joined = join_pairs(self.texts.to_pylist(), self.text_pair.to_pylist())
        return pa.chunked_array([pa.array(joined, pa.large_string())])

    @property
    def group_ids(self) -> Ids | None:
        """(rows,) the number of each row's group, from 0. A row without a value is a group of its own. None without a
        group column."""
        if self.group is None:
            return None
        numbers: dict[str | int, int] = {}
        # A row without a value is known by its position, which no other row has.
        keys = (value or row for row, value in enumerate(self.group.to_pylist()))
        return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)

    def counts(self) -> Ids:
        """Return (labels,), the number of rows of each label."""
        assert self.labels is not None
        return count_labels(self.labels, len(self.label_names))

    def take(self, indices: npt.ArrayLike) -> "Dataset":
        """Return the rows at these positions.

        Args:
            indices: (n,) positions from 0, in the order wanted.
        """
        chosen = np.asarray(indices, dtype=np.int64)
        return replace(
            self,
            texts=self.texts.take(pa.array(chosen)),
            text_pair=None if self.text_pair is None else self.text_pair.take(pa.array(chosen)),
            group=None if self.group is None else self.group.take(pa.array(chosen)),
            labels=None if self.labels is None else self.labels[chosen],
            rows=self.rows[chosen],
        )

    def texts_fingerprint(self) -> str:
        """Return a sha256, in hex, of the texts in their order. It does not depend on Arrow's chunks."""
        return texts_fingerprint(*(column for column in (self.texts, self.text_pair) if column is not None))

    def fingerprint(self) -> str:
        """Return a sha256, in hex, of the texts, their labels, the label names and the groups, all in their order."""
        total = hashlib.sha256(self.texts_fingerprint().encode())
        if self.labels is not None:
            total.update(self.labels.astype("<i8").tobytes())
        for name in self.label_names:
            total.update(f"{len(name)}:{name}".encode())
        if self.group is not None:
            total.update(json.dumps(self.group.to_pylist()).encode())
        return total.hexdigest()


def read_dataset(
    source: Any,
    *,
    text: str = "text",
    label: str | None = None,
    text_pair: str | None = None,
    labels: Sequence[str] | None = None,
    label_separator: str | None = None,
    exclusive: bool = False,
    group: str | None = None,
    label_names: Sequence[str] | None = None,
    problem: Problem | None = None,
    drop_unlabelled: bool = False,
    delimiter: str | None = None,
    encoding: str = "utf-8",
    quoting: Quoting = "standard",
    no_header: Sequence[str] | None = None,
    json_path: str | None = None,
) -> Dataset:
    """Read labeled texts from a file, a folder of files, a hub data set or a table in memory.

    Args:
        source: a CSV, TSV, JSON or Parquet file, a folder (see `open_table`), or a hub id: `imdb`, `owner/name`,
            `owner/name:split` (the split is `train` unless you name one). Or rows in memory: a DataFrame of pandas or
            polars, an Arrow table, a Hugging Face Dataset, a dict of columns, a list of dicts, or a pair
            (texts, labels).
        text: column of the texts.
        label: column of the labels; None, with no `labels` either, reads texts alone. If it holds lists, a row may have
            several labels.
        text_pair: column of a second text, for pairs of texts.
        labels: columns of 0 and 1, one for each label, in place of `label`.
        label_separator: the text between labels, where one field of `label` holds several.
        exclusive: each row has one label, however the labels are written.
        group: column whose equal values mark rows that belong together.
        label_names: the labels that are allowed (those of training, for a validation or test file); None allows all.
        problem: the problem that the labels of training pose; labels of the other form are an error.
        drop_unlabelled: leave out rows without a label instead of raising.
        delimiter: of CSV, TSV and .txt files; None takes the format's own.
        encoding: of text files.
        quoting: `none` if quotes are part of the text in CSV, TSV and .txt files.
        no_header: the names of the columns of a file whose first line is a row already.
        json_path: the member of a .json file that holds the rows, with dots between the names.

    Returns:
        The rows, in the order of the source.

    Raises:
        DataError: the source cannot be read or has no rows, a label is missing or not in `label_names`, or a column is
            named twice.
    """
    label_columns = None if labels is None else tuple(labels)
    columns = Columns(text, label, text_pair, label_columns, label_separator, exclusive, group)
    source = as_source(source)
    _check_columns(columns, str(source))
    dialect = dialect_of(
        delimiter=delimiter, encoding=encoding, quoting=quoting, no_header=no_header, json_path=json_path
    )
    table = open_source(source, columns, dialect)
    reader = LabelReader(columns, None if label_names is None else tuple(label_names), problem)
    # All rows are read before a missing label is an error, so that the error can count such rows.
    texts = _read_columns(table, columns, reader)
    _check_rows(table, len(texts[0]), reader, drop_unlabelled)
    return _assemble(table, columns, texts, reader)


def texts_fingerprint(*columns: pa.ChunkedArray) -> str:
    """Return a sha256, in hex, of columns of texts. It does not depend on Arrow's chunks."""
    # The lengths as well: without them ["ab", "c"] and ["a", "bc"] would have one fingerprint.
    lengths, content = hashlib.sha256(), hashlib.sha256()
    for column in columns:
        for batch in _slices(column):
            lengths.update(pc.call_function("binary_length", [batch]).to_numpy().astype("<i8").tobytes())
            content.update("".join(batch.to_pylist()).encode())
    return hashlib.sha256(lengths.digest() + content.digest()).hexdigest()


def join_pairs(texts: Sequence[str], text_pair: Sequence[str]) -> list[str]:
    """Join the two texts of each pair into one text, for comparing rows."""
    return [f"{one} {PAIR_SEPARATOR} {two}" for one, two in zip(texts, text_pair, strict=True)]


def _check_columns(columns: Columns, source: str) -> None:
    named = [*columns.of_texts, *columns.of_labels, *columns.of_groups]
    twice = next((name for number, name in enumerate(named) if name in named[:number]), None)
    if twice is not None:
        raise DataError(
            "text and label are the same column" if twice in columns.of_texts else "a column is named twice",
            where=source,
            got=repr(twice),
            remedy="Name different columns by --text, --text-pair, --label, --labels and --group.",
        )


def _read_columns(table: Table, columns: Columns, reader: LabelReader) -> list[pa.ChunkedArray]:
    """Read the table: return the columns of texts and that of groups, and give the labels to the reader."""
    names = [*columns.of_texts, *columns.of_groups]
    chunks: list[list[pa.Array]] = [[] for _ in names]
    for chunk in table.chunks():
        for column, name in zip(chunks, names, strict=True):
            column.append(pa.array(chunk.columns[name], pa.large_string()))
        if columns.of_labels:
            reader.add(chunk.columns, chunk.where)
    return [pa.chunked_array(column, pa.large_string()) for column in chunks]


def _check_rows(table: Table, rows: int, reader: LabelReader, drop_unlabelled: bool) -> None:
    """Raise DataError if there are no rows, or no labels, or if rows without a label are not to be left out."""
    if not rows:
        raise DataError(
            "there is a header but no row" if table.unit == "line" else "there is no row",
            where=table.source,
            remedy="Check that the file was written completely."
            if table.unit == "line"
            else "Check that the rows were written, or chosen, as they should be.",
        )
    named = " or ".join(repr(name) for name in reader.columns.of_labels)
    if reader.unlabeled == rows:
        raise DataError(
            f"column {named} is empty in all {rows:,} rows",
            where=table.source,
            remedy="Check that this is the label column, or name another one by --label.",
        )
    if reader.unlabeled and not drop_unlabelled:
        share = f"{reader.unlabeled:,} of {rows:,}"
        raise DataError(
            f"column {named} is empty",
            where=reader.first_unlabeled,
            remedy=f"Every row needs a label. Fill it in, or pass --drop-unlabelled to leave such rows out ({share}).",
        )


def _assemble(table: Table, columns: Columns, texts: list[pa.ChunkedArray], reader: LabelReader) -> Dataset:
    pair = texts[1] if columns.text_pair is not None else None
    rows = np.arange(1, len(texts[0]) + 1)
    group = None if columns.group is None else texts[-1]
    unlabeled = Dataset(texts[0], None, reader.known or (), rows, table.source, columns, pair, group)
    if not columns.of_labels:
        return unlabeled
    names, labels, labeled_rows = reader.finish()
    kept = unlabeled if len(labeled_rows) == len(unlabeled) else unlabeled.take(labeled_rows)
    return replace(kept, labels=labels, label_names=names)


def _slices(texts: pa.ChunkedArray, rows: int = 4096) -> Iterator[pa.Array]:
    for chunk in texts.chunks:
        for start in range(0, len(chunk), rows):
            yield chunk.slice(start, rows)
