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

from fullbake.errors import DataError, did_you_mean
from fullbake.tables import FORMS, Chunk, Table, arrow_table, open_table

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Dataset:
    """Texts with or without labels.

    texts: (rows,) large_string. labels: (rows,) ids into label_names, or None. rows: (rows,) numbers of the
    data rows in the source, from 1 (a header is not counted). source: the file or hub id they came from.
    """

    texts: pa.ChunkedArray
    labels: Ids | None
    label_names: tuple[str, ...]
    rows: Ids
    source: str
    text_column: str
    label_column: str | None

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, indices: npt.ArrayLike) -> "Dataset":
        """The rows at these positions, in this order. indices: (n,) integers from 0."""
        chosen = np.asarray(indices, dtype=np.int64)
        return replace(
            self,
            texts=self.texts.take(pa.array(chosen)),
            labels=None if self.labels is None else self.labels[chosen],
            rows=self.rows[chosen],
        )

    def texts_fingerprint(self) -> str:
        """sha256, in hex, over the texts in their order; the same however they are cut into Arrow chunks."""
        lengths, content = hashlib.sha256(), hashlib.sha256()
        for batch in _slices(self.texts):
            lengths.update(pc.call_function("binary_length", [batch]).to_numpy().astype("<i8").tobytes())
            content.update("".join(batch.to_pylist()).encode())
        return hashlib.sha256(lengths.digest() + content.digest()).hexdigest()

    def fingerprint(self) -> str:
        """sha256, in hex, over the texts, each one's label and the label names, all in their order."""
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
    label_names: Sequence[str] | None = None,
    drop_unlabelled: bool = False,
    delimiter: str | None = None,
    encoding: str = "utf-8",
) -> Dataset:
    """Read a file (.csv .tsv .jsonl .ndjson .parquet), or a hub data set where no such file is.

    source: a path, or a hub id: `imdb`, `owner/name`, `owner/name:split` (the split `train` unless named).
    text, label: column names; no label: texts alone. label_names: the labels there are (validation, test,
    evaluation); None: those that occur. drop_unlabelled: leave rows with an empty label out instead of
    refusing them. delimiter, encoding: of text files, as `open_table` takes them.

    Raises DataError: what `open_table` raises; no rows; an empty label; a label that is not in label_names.
    """
    if label is not None and label == text:
        raise DataError(
            "text and label are the same column",
            where=str(source),
            got=repr(text),
            remedy="Name two columns.",
        )
    columns = [text] if label is None else [text, label]
    table = _open(source, columns, delimiter, encoding)
    known = None if label_names is None else tuple(label_names)
    gathered = _gather(table, text, label, known)
    _check_rows(table, gathered, label, drop_unlabelled)
    return _assemble(table, gathered, text, label, known)


def check_trainable(dataset: Dataset) -> None:
    """Raise DataError where neither a split nor a classifier can come of these labels.

    That is: no labels; one class alone; fewer than two rows a class on average (a column of texts or ids was
    named as the label); a class with a single row.
    """
    if dataset.labels is None:
        raise DataError("there are no labels", where=dataset.source, remedy="Name the label column by --label.")
    names = dataset.label_names
    counts = np.bincount(dataset.labels, minlength=len(names))
    where = f"{dataset.source}, column {dataset.label_column!r}"
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
    _check_singles(dataset, counts, where)


def _check_singles(dataset: Dataset, counts: Ids, where: str) -> None:
    names = dataset.label_names
    rare = np.flatnonzero(counts == 1)
    if not len(rare):
        return
    first = dataset.rows[dataset.labels == rare[0]][0]
    classes = "a class has" if len(rare) == 1 else f"{len(rare):,} classes have"
    raise DataError(
        f"{classes} a single row, which cannot stand both in training and in validation",
        where=where,
        expected="at least two rows for each label",
        got=f"one of {', '.join(repr(names[index]) for index in rare[:5])}{', ...' if len(rare) > 5 else ''} "
        f"(data row {first})",
        remedy="Add rows, merge the class into another one, or leave its row out.",
    )


@dataclass
class _Gathered:
    """What reading brings together. codes: ids by first occurrence, -1 where the label is empty."""

    texts: list[pa.Array]
    codes: list[Ids]
    vocabulary: dict[str, int]
    rows: int = 0
    unlabelled: int = 0
    first_unlabelled: str | None = None


def _open(source: str | Path, columns: list[str], delimiter: str | None, encoding: str) -> Table:
    path = Path(source)
    if path.exists() or path.suffix.lower() in FORMS:
        return open_table(path, columns=columns, nullable=columns[1:], delimiter=delimiter, encoding=encoding)
    return _open_hub(str(source), columns)


def _gather(table: Table, text: str, label: str | None, known: tuple[str, ...] | None) -> _Gathered:
    gathered = _Gathered([], [], {name: index for index, name in enumerate(known or ())})
    for chunk in table.chunks():
        gathered.texts.append(pa.array(chunk.columns[text], pa.large_string()))
        if label is not None:
            gathered.codes.append(_encode(table, chunk, label, gathered, known))
        gathered.rows += len(chunk)
    return gathered


def _encode(table: Table, chunk: Chunk, label: str, gathered: _Gathered, known: tuple[str, ...] | None) -> Ids:
    """The chunk's labels as ids; empty ones are counted, unknown ones refused."""
    codes = np.empty(len(chunk), dtype=np.int64)
    for index, name in enumerate(chunk.columns[label]):
        if not name.strip():
            codes[index] = -1
            gathered.unlabelled += 1
            gathered.first_unlabelled = gathered.first_unlabelled or table.where(chunk.positions[index])
        elif known is not None and name not in gathered.vocabulary:
            raise _unknown_label(table.where(chunk.positions[index]), label, name, known)
        else:
            codes[index] = gathered.vocabulary.setdefault(name, len(gathered.vocabulary))
    return codes


def _unknown_label(where: str, column: str, name: str, known: tuple[str, ...]) -> DataError:
    return DataError(
        f"column {column!r} holds a label that training did not have",
        where=where,
        expected="one of the labels of training",
        got=repr(name[:80]),
        remedy=did_you_mean(name, known),
    )


def _check_rows(table: Table, gathered: _Gathered, label: str | None, drop_unlabelled: bool) -> None:
    if not gathered.rows:
        raise DataError(
            "there is a header but no row" if table.unit == "line" else "there is no row",
            where=table.source,
            remedy="Check that it was written whole.",
        )
    if gathered.unlabelled == gathered.rows:
        raise DataError(
            f"column {label!r} is empty in all {gathered.rows:,} rows",
            where=table.source,
            remedy="Is it the label column? Name another one by --label.",
        )
    if gathered.unlabelled and not drop_unlabelled:
        share = f"{gathered.unlabelled:,} of {gathered.rows:,}"
        raise DataError(
            f"column {label!r} is empty",
            where=gathered.first_unlabelled,
            remedy=f"Every row needs a label. Fill it in, or pass --drop-unlabelled to leave such rows out ({share}).",
        )


def _assemble(
    table: Table, gathered: _Gathered, text: str, label: str | None, known: tuple[str, ...] | None
) -> Dataset:
    texts = pa.chunked_array(gathered.texts, pa.large_string())
    rows = np.arange(1, gathered.rows + 1)
    if label is None:
        return Dataset(texts, None, known or (), rows, table.source, text, None)
    names, ids = _sort_names(gathered.vocabulary, np.concatenate(gathered.codes), known)
    dataset = Dataset(texts, ids, names, rows, table.source, text, label)
    return dataset if (ids >= 0).all() else dataset.take(np.flatnonzero(ids >= 0))


def _sort_names(vocabulary: dict[str, int], codes: Ids, known: tuple[str, ...] | None) -> tuple[tuple[str, ...], Ids]:
    if known is not None:
        return known, codes
    names = tuple(sorted(vocabulary))
    rank = np.empty(len(names) + 1, dtype=np.int64)
    rank[[vocabulary[name] for name in names]] = np.arange(len(names))
    rank[-1] = -1
    return names, rank[codes]


def _slices(texts: pa.ChunkedArray, rows: int = 4096) -> Iterator[pa.Array]:
    for chunk in texts.chunks:
        for start in range(0, len(chunk), rows):
            yield chunk.slice(start, rows)


def _open_hub(source: str, columns: list[str]) -> Table:
    name, _, split = source.partition(":")
    loaded = _load_hub(source, name, split or "train")
    schema = loaded.features.arrow_schema
    named = {name: kind.names for name, kind in loaded.features.items() if hasattr(kind, "names")}
    for column in named:
        schema = schema.set(schema.get_field_index(column), pa.field(column, pa.string()))

    def batches(size: int, _: bool) -> Iterator[Any]:
        for part in loaded.with_format("arrow").iter(batch_size=size):
            yield _with_label_names(part, named, schema).combine_chunks().to_batches()[0]

    return arrow_table(source, schema, batches, columns, columns[1:])


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
            expected=f"a file ({', '.join(FORMS)}), or a hub id: owner/name or owner/name:split",
            got=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
            remedy="Check the path; for a hub id check the spelling and the connection (and HF_HUB_OFFLINE).",
        ) from None


def _with_label_names(part: Any, named: dict[str, list[str]], schema: Any) -> Any:
    """Class numbers become the names that the data set gives them; -1, its "no label", becomes null."""
    for column, names in named.items():
        numbers = part[column].to_pylist()
        values = [None if number is None or number < 0 else names[number] for number in numbers]
        part = part.set_column(part.schema.get_field_index(column), schema.field(column), pa.array(values))
    return part
