"""Labelled texts: files or hub data sets become a `Dataset`, whose texts are an Arrow column.

Labels keep their spelling as names; ids follow the sorted order of the names, so they do not depend on the
order of the rows. A row that cannot be used is an error, never left out unless asked: all rows without a
label are counted before the first one is reported. Texts lie in Arrow's large_string chunks: one allocation a
chunk, not one a text.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fullbake.config.problems import MULTI_LABEL, SINGLE_LABEL, Problem, problem_of
from fullbake.config.sections import Columns
from fullbake.core.errors import DataError
from fullbake.data.arrow import arrow_table
from fullbake.data.files import FORMATS, open_table
from fullbake.data.labels import LabelReader, count_labels
from fullbake.data.tables import Table, data_suffix

Ids = npt.NDArray[np.int64]

PAIR_MARK = "\u241e"
"""Between the two texts of a pair, where they are compared as one (the symbol for a record separator)."""


@dataclass(frozen=True)
class Dataset:
    """Texts, or pairs of texts, with or without labels.

    texts: (rows,) large_string; text_pair: the second text of each row, None where there is one. labels: class ids
    int64 (rows,), or 0 and 1 as uint8 (rows, labels) where a row may have many, or None. rows: (rows,) numbers of the
    data rows in the source, from 1 (a header is not counted). source: the file or hub id they came from.
    """

    texts: pa.ChunkedArray
    labels: npt.NDArray[Any] | None
    label_names: tuple[str, ...]
    rows: Ids
    source: str
    columns: Columns
    text_pair: pa.ChunkedArray | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def problem(self) -> Problem:
        """The kind of problem that the labels pose; ask only where there are labels."""
        assert self.labels is not None
        return problem_of(self.labels)

    @property
    def joined_texts(self) -> pa.ChunkedArray:
        """What rows are compared by: the texts, or both texts of a pair in one."""
        if self.text_pair is None:
            return self.texts
        joined = join_pairs(self.texts.to_pylist(), self.text_pair.to_pylist())
        return pa.chunked_array([pa.array(joined, pa.large_string())])

    def counts(self) -> Ids:
        """Rows of each label, int64 (labels,)."""
        assert self.labels is not None
        return count_labels(self.labels, len(self.label_names))

    def take(self, indices: npt.ArrayLike) -> "Dataset":
        """The rows at these positions, in this order. indices: (n,) integers from 0."""
        chosen = np.asarray(indices, dtype=np.int64)
        return replace(
            self,
            texts=self.texts.take(pa.array(chosen)),
            text_pair=None if self.text_pair is None else self.text_pair.take(pa.array(chosen)),
            labels=None if self.labels is None else self.labels[chosen],
            rows=self.rows[chosen],
        )

    def texts_fingerprint(self) -> str:
        """sha256, in hex, over the texts in their order; the same however they are cut into Arrow chunks."""
        lengths, content = hashlib.sha256(), hashlib.sha256()
        for column in (self.texts, self.text_pair):
            for batch in () if column is None else _slices(column):
                lengths.update(pc.call_function("binary_length", [batch]).to_numpy().astype("<i8").tobytes())
                content.update("".join(batch.to_pylist()).encode())
        return hashlib.sha256(lengths.digest() + content.digest()).hexdigest()

    def fingerprint(self) -> str:
        """sha256, in hex, over the texts, each one's labels and the label names, all in their order."""
        total = hashlib.sha256(self.texts_fingerprint().encode())
        if self.labels is not None:
            total.update(self.labels.astype("<i8").tobytes())
        for name in self.label_names:
            total.update(f"{len(name)}:{name}".encode())
        return total.hexdigest()


def read_dataset(
    source: str | Path,
    *,
    text: str,
    label: str | None = None,
    text_pair: str | None = None,
    labels: Sequence[str] | None = None,
    label_separator: str | None = None,
    label_names: Sequence[str] | None = None,
    drop_unlabelled: bool = False,
    delimiter: str | None = None,
    encoding: str = "utf-8",
) -> Dataset:
    """Read a file (.csv .tsv .jsonl .ndjson .parquet), or a hub data set where no such file is.

    source: a path, or a hub id: `imdb`, `owner/name`, `owner/name:split` (the split `train` unless named). text, label,
    text_pair: column names; no label: texts alone. A label column of lists makes many labels a row, as do labels
    (columns of 0 and 1, in place of `label`) and label_separator (what parts the labels in the label column).
    label_names: the labels there may be (validation, test, evaluation); None: those that occur. drop_unlabelled: leave
    rows with an empty label out instead of refusing them. delimiter, encoding: of text files, as `open_table` takes
    them.

    Raises DataError: what `open_table` raises; no rows; an empty label; a label that is not in label_names; a column
    named twice.
    """
    columns = Columns(text, label, text_pair, None if labels is None else tuple(labels), label_separator)
    _check_columns(columns, str(source))
    table = open_source(source, columns, delimiter, encoding)
    reader = LabelReader(columns, None if label_names is None else tuple(label_names))
    texts = _gather(table, columns, reader)
    _check_rows(table, len(texts[0]), reader, drop_unlabelled)
    return _assemble(table, columns, texts, reader)


def join_pairs(texts: Sequence[str], text_pair: Sequence[str]) -> list[str]:
    """Pairs of texts as one text each, to be compared by."""
    return [f"{one} {PAIR_MARK} {two}" for one, two in zip(texts, text_pair, strict=True)]


def check_trainable(dataset: Dataset) -> None:
    """Raise DataError where neither a split nor a classifier can come of these labels.

    That is: no labels; one class alone; fewer than two rows a class on average (a column of texts or ids was named as
    the label); a class with a single row; of many labels a row, one that no row or every row has.
    """
    if dataset.labels is None:
        raise DataError("there are no labels", where=dataset.source, remedy="Name the label column by --label.")
    where = f"{dataset.source}, column {', '.join(map(repr, dataset.columns.of_labels))}"
    checks = {SINGLE_LABEL: _check_classes, MULTI_LABEL: _check_labels}
    checks[dataset.problem.name](dataset, where)
    _check_singles(dataset, where)


def _check_classes(dataset: Dataset, where: str) -> None:
    names = dataset.label_names
    if len(names) < 2:
        raise DataError(
            "there is only one class",
            where=where,
            expected="two or more labels",
            got=f"{names[0]!r} in all {len(dataset):,} rows",
            remedy="Is it the right column? A classifier needs examples of what the label is not.",
        )
    if 2 * len(names) > len(dataset):
        raise DataError(
            "there are more labels than the rows could support",
            where=where,
            expected="at least two rows for each label",
            got=f"{len(names):,} labels in {len(dataset):,} rows, such as {names[0][:40]!r}",
            remedy="Is it the label column? Texts, ids and measured values make no classes.",
        )


def _check_labels(dataset: Dataset, where: str) -> None:
    if not dataset.label_names:
        raise DataError("no row has a label", where=where, remedy="Is it the right column?")
    for name, count in zip(dataset.label_names, dataset.counts().tolist(), strict=True):
        if count in (0, len(dataset)):
            raise DataError(
                f"the label {name!r} holds for {'no row' if not count else 'every row'}",
                where=where,
                expected="rows with it and rows without",
                got=f"{count:,} of {len(dataset):,} rows have it",
                remedy="Nothing can be learned of it from these rows: leave it out, or add rows.",
            )


def _check_singles(dataset: Dataset, where: str) -> None:
    names, counts = dataset.label_names, dataset.counts()
    rare = np.flatnonzero(counts == 1)
    if not len(rare):
        return
    assert dataset.labels is not None
    has_it = dataset.problem.has_label(dataset.labels, int(rare[0]))
    classes = "a class has" if len(rare) == 1 else f"{len(rare):,} classes have"
    raise DataError(
        f"{classes} a single row, which cannot stand both in training and in validation",
        where=where,
        expected="at least two rows for each label",
        got=f"one of {', '.join(repr(names[index]) for index in rare[:5])}{', ...' if len(rare) > 5 else ''} "
        f"(data row {dataset.rows[has_it][0]})",
        remedy="Add rows, merge the class into another one, or leave its row out.",
    )


def _check_columns(columns: Columns, source: str) -> None:
    named = [*columns.of_texts, *columns.of_labels]
    twice = next((name for number, name in enumerate(named) if name in named[:number]), None)
    if twice is not None:
        raise DataError(
            "text and label are the same column" if twice in columns.of_texts else "a column is named twice",
            where=source,
            got=repr(twice),
            remedy="Name different columns.",
        )


def open_source(source: str | Path, columns: Columns, delimiter: str | None = None, encoding: str = "utf-8") -> Table:
    """The table of a file or a hub data set with these columns, null labels let in as empty ones."""
    path = Path(source)
    wanted = [*columns.of_texts, *columns.of_labels]
    lists = () if columns.label is None else (columns.label,)
    if path.exists() or data_suffix(path) in FORMATS:
        return open_table(
            path, columns=wanted, nullable=columns.of_labels, lists=lists, delimiter=delimiter, encoding=encoding
        )
    return _open_hub(str(source), wanted, columns)


def _gather(table: Table, columns: Columns, reader: LabelReader) -> list[pa.ChunkedArray]:
    """The columns of texts; the labels go to the reader."""
    chunks: list[list[pa.Array]] = [[] for _ in columns.of_texts]
    for chunk in table.chunks():
        for column, name in zip(chunks, columns.of_texts, strict=True):
            column.append(pa.array(chunk.columns[name], pa.large_string()))
        if columns.of_labels:
            reader.add(chunk.columns, chunk.where)
    return [pa.chunked_array(column, pa.large_string()) for column in chunks]


def _check_rows(table: Table, rows: int, reader: LabelReader, drop_unlabelled: bool) -> None:
    if not rows:
        raise DataError(
            "there is a header but no row" if table.unit == "line" else "there is no row",
            where=table.source,
            remedy="Check that it was written whole.",
        )
    named = " or ".join(repr(name) for name in reader.columns.of_labels)
    if reader.unlabelled == rows:
        raise DataError(
            f"column {named} is empty in all {rows:,} rows",
            where=table.source,
            remedy="Is it the label column? Name another one by --label.",
        )
    if reader.unlabelled and not drop_unlabelled:
        share = f"{reader.unlabelled:,} of {rows:,}"
        raise DataError(
            f"column {named} is empty",
            where=reader.first_unlabelled,
            remedy=f"Every row needs a label. Fill it in, or pass --drop-unlabelled to leave such rows out ({share}).",
        )


def _assemble(table: Table, columns: Columns, texts: list[pa.ChunkedArray], reader: LabelReader) -> Dataset:
    pair = texts[1] if columns.text_pair is not None else None
    rows = np.arange(1, len(texts[0]) + 1)
    whole = Dataset(texts[0], None, reader.known or (), rows, table.source, columns, pair)
    if not columns.of_labels:
        return whole
    names, labels, labelled = reader.finish()
    kept = whole if len(labelled) == len(whole) else whole.take(labelled)
    return replace(kept, labels=labels, label_names=names)


def _slices(texts: pa.ChunkedArray, rows: int = 4096) -> Iterator[pa.Array]:
    for chunk in texts.chunks:
        for start in range(0, len(chunk), rows):
            yield chunk.slice(start, rows)


def _open_hub(source: str, wanted: list[str], columns: Columns) -> Table:
    name, _, split = source.partition(":")
    loaded = _load_hub(source, name, split or "train")
    schema = loaded.features.arrow_schema
    named = {name: kind.names for name, kind in loaded.features.items() if hasattr(kind, "names")}
    listed = {
        name: kind.feature.names
        for name, kind in loaded.features.items()
        if hasattr(getattr(kind, "feature", None), "names")
    }
    for column in named | listed:
        kind = pa.string() if column in named else pa.list_(pa.string())
        schema = schema.set(schema.get_field_index(column), pa.field(column, kind))

    def batches(size: int, _: bool) -> Iterator[Any]:
        for part in loaded.with_format("arrow").iter(batch_size=size):
            yield _with_label_names(part, named | listed, schema).combine_chunks().to_batches()[0]

    return arrow_table(
        source,
        schema,
        batches,
        wanted,
        nullable=columns.of_labels,
        lists=() if columns.label is None else (columns.label,),
    )


def _load_hub(source: str, name: str, split: str) -> Any:
    """A hub data set's split, from the cache where the hub cannot be reached."""
    import datasets

    try:
        return datasets.load_dataset(name, split=split)  # type: ignore[attr-defined]
    except ValueError as error:
        raise DataError(
            "the hub data set cannot be opened so",
            where=source,
            got=str(error).splitlines()[0],
            remedy="Name a split that it has: owner/name:split. If it has several configurations, save the "
            "one you want as a file.",
        ) from None
    except Exception as error:
        raise DataError(
            "there is no such file, and no hub data set of this name can be reached",
            where=source,
            expected=f"a file ({', '.join(FORMATS)}), or a hub id: owner/name or owner/name:split",
            got=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
            remedy="Check the path; for a hub id check the spelling and the connection (and HF_HUB_OFFLINE).",
        ) from None


def _with_label_names(part: Any, named: dict[str, list[str]], schema: Any) -> Any:
    """Class numbers, alone or in lists, become the names that the data set gives them; -1, its "no label", becomes
    null."""
    for column, names in named.items():
        values = [_named(number, names) for number in part[column].to_pylist()]
        field = schema.field(column)
        part = part.set_column(part.schema.get_field_index(column), field, pa.array(values, field.type))
    return part


def _named(number: Any, names: list[str]) -> Any:
    if isinstance(number, list):
        return [_named(one, names) for one in number]
    return None if number is None or number < 0 else names[number]
