"""Scored rows: the rows of a table again, in their order, with columns added.

Within one form nothing else changes: fields of a CSV, JSON members down to their spelling and nesting, and
Parquet's types. Across forms the values go over as strings, and what is no plain value (null, list, object)
is refused, since a CSV cell could not hold it and be told from a text. Rows are written as they come, so
memory is constant; a file appears under its name only when it is complete. CSV and TSV come out as UTF-8
without a mark, comma and tab, LF, quoted where needed, whatever the source's dialect was, so that they are
read back with no flag.
"""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np

from fullbake.arrowtables import arrow_strings
from fullbake.chunks import Chunk, Table
from fullbake.core.errors import DataError, Fault, OutputError
from fullbake.core.storage import staged_file
from fullbake.tables import DELIMITERS, FORMS, json_text
from fullbake.textfiles import JsonRow

Extra = Mapping[str, type]
"""Added columns by name: str, or a numpy type of numbers (np.float32, np.uint8)."""


class Writer(Protocol):
    """What `open_writer` gives: call `write` with each chunk and its added values, in order."""

    def write(self, chunk: Chunk, added: Mapping[str, Any]) -> None:
        """Append the chunk's rows. added: (rows,) strings or floats for each name given to `open_writer`."""


@contextmanager
def open_writer(
    target: str | Path | BinaryIO,
    source: Table,
    extra: Extra,
    *,
    form: str | None = None,
    overwrite: bool = False,
) -> Iterator[Writer]:
    """Write the rows of `source` with the columns `extra` after its own; use with `source.chunks(keep=True)`.

    target: a path, whose extension says the form, or a binary stream, written in `form` (None: the source's;
    CSV for plain lines). A path is staged, synced and renamed when the block ends well; otherwise it is as
    before.

    Raises DataError where a column of the source has an added name, OutputError where the target is there
    already or its extension is not known.
    """
    check_free(source, extra)
    if not isinstance(target, str | Path):
        with _start(target, form or _form_of(source), source, extra) as writer:
            yield writer
        return
    chosen = output_form(target)
    with (
        staged_file(target, overwrite=overwrite) as fresh,
        fresh.open("wb") as stream,
        _start(stream, chosen, source, extra) as writer,
    ):
        yield writer


def output_form(target: str | Path) -> str:
    """The form that a path's extension asks for. Raises OutputError."""
    form = FORMS.get(Path(target).suffix.lower())
    if form is None:
        raise OutputError(
            "the form to write is not known",
            where=str(target),
            expected=f"a name that ends with {', '.join(FORMS)}",
            remedy="Give the file one of these extensions.",
        )
    return form


def check_free(source: Table, names: Iterable[str]) -> None:
    """Raise DataError where a column of the source has one of these names already."""
    for name in names:
        if name in source.names:
            raise _taken(name, source.source)


def _taken(name: str, where: str) -> DataError:
    return DataError(
        f"there is a column {name!r} already",
        where=where,
        remedy="Pass --prefix to put something before the added names, such as --prefix fullbake_.",
    )


def _form_of(source: Table) -> str:
    return "csv" if source.form == "lines" else source.form


@contextmanager
def _start(stream: BinaryIO, form: str, source: Table, extra: Extra) -> Iterator[Writer]:
    if form == "parquet":
        with _parquet_writer(stream, source, extra) as writer:
            yield writer
        return
    text = io.TextIOWrapper(stream, encoding="utf-8", newline="")
    try:
        yield _JsonWriter(text, source) if form == "jsonl" else _DelimitedWriter(text, form, source, extra)
        text.flush()
    finally:
        text.detach()


class _DelimitedWriter:
    def __init__(self, text: io.TextIOWrapper, form: str, source: Table, extra: Extra) -> None:
        self._source = source
        delimiter = DELIMITERS[form]
        self._plain = csv.writer(text, delimiter=delimiter, lineterminator="\n")
        self._quoted = csv.writer(text, delimiter=delimiter, lineterminator="\n", quoting=csv.QUOTE_ALL)
        self._write([*source.names, *extra])

    def write(self, chunk: Chunk, added: Mapping[str, Any]) -> None:
        columns = [_literals(values) for values in added.values()]
        for own, *others in zip(_string_rows(self._source, chunk), *columns, strict=True):
            self._write([*own, *others])

    def _write(self, row: list[str]) -> None:
        """One row. Python 3.11's csv leaves a CR alone unquoted, which no strict reader takes."""
        if any("\0" in field for field in row):
            raise OutputError(
                "a NUL character cannot stand in CSV or TSV",
                where=self._source.source,
                remedy="Write .jsonl or .parquet instead.",
            )
        (self._quoted if any("\r" in field for field in row) else self._plain).writerow(row)


class _JsonWriter:
    def __init__(self, text: io.TextIOWrapper, source: Table) -> None:
        self._text, self._source = text, source

    def write(self, chunk: Chunk, added: Mapping[str, Any]) -> None:
        members = [_members(name, values) for name, values in added.items()]
        for own, *others in zip(self._objects(chunk, added), *members, strict=True):
            self._text.write(f"{own}, {', '.join(others)}}}\n")

    def _objects(self, chunk: Chunk, added: Iterable[str]) -> Iterator[str]:
        """Each row's object without its closing brace."""
        if self._source.form != "jsonl":
            for row in _string_rows(self._source, chunk):
                values = dict(zip(self._source.names, row, strict=True))
                yield json.dumps(values, ensure_ascii=False)[:-1]
            return
        for index, row in enumerate(chunk.originals):
            for name in added:
                if name in row.values:
                    raise _taken(name, chunk.where(index))
            yield row.raw[:-1].rstrip()


@contextmanager
def _parquet_writer(stream: BinaryIO, source: Table, extra: Extra) -> Iterator[Writer]:
    import pyarrow as pa
    from pyarrow import parquet

    own = source.schema if source.form == "parquet" else None
    if own is None:
        own = pa.schema([(name, pa.large_string()) for name in source.names])
    schema = own
    for name, kind in extra.items():
        schema = schema.append(pa.field(name, pa.large_string() if kind is str else pa.from_numpy_dtype(kind)))
    with parquet.ParquetWriter(stream, schema) as opened:  # type: ignore[no-untyped-call]
        yield _ParquetWriter(opened, source, schema)


class _ParquetWriter:
    def __init__(self, opened: Any, source: Table, schema: Any) -> None:
        self._opened, self._source, self._schema = opened, source, schema

    def write(self, chunk: Chunk, added: Mapping[str, Any]) -> None:
        import pyarrow as pa

        own: list[Any]
        if self._source.form == "parquet":
            own = chunk.originals.columns
        else:
            rows = list(_string_rows(self._source, chunk))
            own = [pa.array(column, pa.large_string()) for column in zip(*rows, strict=True)]
        kinds = self._schema.types[len(own) :]
        others = [pa.array(values, kind) for values, kind in zip(added.values(), kinds, strict=True)]
        self._opened.write_batch(pa.record_batch([*own, *others], schema=self._schema))


def _string_rows(source: Table, chunk: Chunk) -> Iterator[list[str]]:
    """Every row's fields as strings, in the order of the table's names."""
    if source.form in DELIMITERS:
        yield from chunk.originals
    elif source.form == "lines":
        yield from ([text] for text in chunk.originals)
    elif source.form == "jsonl":
        for index, row in enumerate(chunk.originals):
            yield _json_fields(source, row, chunk.where(index))
    else:
        yield from _arrow_rows(source, chunk)


def _json_fields(source: Table, row: JsonRow, where: str) -> list[str]:
    if tuple(sorted(row.values)) != tuple(sorted(source.names)):
        raise DataError(
            "this row has other fields than the first",
            where=where,
            expected=", ".join(map(repr, source.names)),
            got=", ".join(map(repr, row.values)),
            remedy="Write .jsonl, which keeps every row as it is.",
        )
    return [json_text(row.values[name], name, where) for name in source.names]


def _arrow_rows(source: Table, chunk: Chunk) -> Iterator[list[str]]:
    first = chunk.positions[0]
    columns = [arrow_strings(source.source, chunk.originals, name, first) for name in source.names]
    return (list(row) for row in zip(*columns, strict=True))


def _literals(values: Any) -> list[str]:
    """Strings as they are; floats in the fewest digits that give the same float of their width."""
    array = np.asarray(values)
    if array.dtype.kind != "f":
        return [str(value) for value in values]
    if not np.isfinite(array).all():
        raise Fault("a score is not a finite number", expected="finite scores", got="NaN or infinity")
    return [str(value) for value in array.astype(str).tolist()]


def _members(name: str, values: Any) -> list[str]:
    """`"name": value` for each row."""
    key = json.dumps(name, ensure_ascii=False)
    literals = _literals(values)
    if np.asarray(values).dtype.kind not in "fiu":
        literals = [json.dumps(value, ensure_ascii=False) for value in literals]
    return [f"{key}: {literal}" for literal in literals]
