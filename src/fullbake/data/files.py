"""Tables: files of rows, or folders of such files, read as chunks of strings by column name.

Every value is the string that stands in the file (`01`, `true`, `NA`, an empty text); JSON numbers keep their
literal. The form goes by the file's extension, never by its content.

Scored rows: the rows of a table again, in their order, with columns added.

Within one form nothing else changes: fields of a CSV, JSON members down to their spelling and nesting, and
Parquet's types. Across forms the values go over as strings, and what is no plain value (null, list, object)
is refused, since a CSV cell could not hold it and be told from a text. Rows are written as they come, so
memory is constant; a file appears under its name only when it is complete. CSV and TSV come out as UTF-8
without a mark, comma and tab, LF, quoted where needed, whatever the source's dialect was, so that they are
read back with no flag.
"""

import contextlib
import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol, TypeVar

import numpy as np

from fullbake.core.errors import DataError, Fault, OutputError, did_you_mean
from fullbake.core.storage import staged_file
from fullbake.data.arrow import arrow_strings, parquet_table
from fullbake.data.tables import CHUNK_CHARACTERS, ENDINGS, Chunk, Table, data_suffix, null_value_error, select_columns
from fullbake.data.textfiles import (
    JsonRow,
    Missing,
    empty_file_error,
    read_delimited,
    read_json_lines,
    read_plain_lines,
)

FORMATS: Final = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
"""A file's form by its extension; .gz or .zst may follow that of a text file."""

_ENDINGS = f"{', '.join(FORMATS)}, the text forms also with .gz or .zst after it"

DELIMITERS: Final = {"csv": ",", "tsv": "\t"}
TableRow = TypeVar("TableRow")


def open_table(
    path: str | Path,
    *,
    columns: Sequence[str] | None = None,
    nullable: Sequence[str] = (),
    lists: Sequence[str] = (),
    delimiter: str | None = None,
    encoding: str = "utf-8",
) -> Table:
    """A CSV, TSV, JSON Lines or Parquet file, by extension, or a folder of such files; its header is read now, its rows
    when asked for.

    columns: those wanted (None: all). nullable: columns in which a null (JSON's, Parquet's, or NaN) is handed
    on as the empty string; in every other wanted column it is refused. lists: columns in which a list of plain
    values (JSON's, Parquet's) is let in, and handed on as a list of strings. delimiter: one character, for CSV
    and TSV. Text files may be packed with gzip or zstd. The files of a folder are one table in the order of
    their names; those that start with `.` or `_` are left out.

    Raises DataError: no such file, a pipe, another extension, an empty file, a column that is missing, a folder
    of files that do not fit together.
    """
    path = Path(path)
    asked = _OpenOptions(
        None if columns is None else tuple(columns), tuple(nullable), tuple(lists), delimiter, encoding
    )
    return _open_folder(path, asked) if path.is_dir() else _open_file(path, asked)


@dataclass(frozen=True)
class _OpenOptions:
    """What `open_table` was asked for."""

    columns: tuple[str, ...] | None
    nullable: tuple[str, ...]
    lists: tuple[str, ...]
    delimiter: str | None
    encoding: str


def _open_file(path: Path, asked: _OpenOptions) -> Table:
    form = _form(path)
    _check_flags(path, form, asked.delimiter, asked.encoding)
    if form == "parquet":
        return parquet_table(path, asked.columns, nullable=asked.nullable, lists=asked.lists)
    if form == "jsonl":
        return _open_json_lines(path, asked)
    return _open_delimited(path, form, asked)


def _open_folder(folder: Path, asked: _OpenOptions) -> Table:
    """The files of a folder as one table."""
    files = files_of(folder)
    if not files:
        raise DataError(
            "the folder holds no file",
            where=str(folder),
            expected=f"files that end with {_ENDINGS}",
            remedy="Those that start with . or _ are left out; rename them if they are the data.",
        )
    shards = [_open_file(path, asked) for path in files]
    first = shards[0]
    for shard in shards[1:]:
        if shard.form != first.form:
            raise DataError(
                "the folder holds files of several forms",
                where=str(folder),
                got=f"{first.source} and {shard.source}",
                remedy="Put those that are one table into a folder of their own.",
            )
        if shard.names != first.names and first.form != "jsonl":
            raise DataError(
                "the files of the folder have other columns",
                where=shard.source,
                expected=f"{', '.join(map(repr, first.names))}, as {first.source} has",
                got=", ".join(map(repr, shard.names)),
                remedy="Write all files with the same columns, in the same order.",
            )

    def read(size: int, keep: bool) -> Iterator[Chunk]:
        for shard in shards:
            yield from shard.read(size, keep)

    return replace(first, source=str(folder), read=read)


def files_of(folder: Path) -> list[Path]:
    """The files that are one table, in the order of their names."""
    return sorted(path for path in folder.iterdir() if path.name[0] not in "._")


def open_lines(stream: BinaryIO, *, name: str = "stdin", column: str = "text") -> Table:
    """The lines of a UTF-8 stream as a table of one column, blank ones as empty texts; read only once."""
    rows = ((line, [text]) for line, text in read_plain_lines(stream, name))

    def read(size: int, _: bool) -> Iterator[Chunk]:
        for positions, values in _split_flags(rows, size, lambda row: len(row[0])):
            texts = [row[0] for row in values]
            yield Chunk(name, "line", {column: texts}, positions, texts)

    return Table(name, "lines", (column,), (column,), "line", read)


def json_text(value: object, name: str, where: str, *, nullable: bool = False) -> str:
    """A JsonRow's value as the string that stands in the file; DataError for null, NaN, list and object."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None or isinstance(value, Missing):
        if nullable:
            return ""
        raise null_value_error(name, where, "null" if value is None else "NaN or Infinity")
    raise DataError(
        f"column {name!r} holds a {'list' if type(value) is list else 'nested object'}",
        where=where,
        expected="a string, a number, true or false",
        remedy="Give each value a field of its own.",
    )


def _form(path: Path) -> str:
    form = FORMATS.get(data_suffix(path))
    if not path.exists():
        raise DataError("there is no such file", where=str(path), remedy=_nearby(path))
    if path.is_dir():
        raise DataError("this is a folder within a folder", where=str(path), remedy="Name it, or move its files up.")
    if form is None or (form == "parquet" and path.suffix.lower() in ENDINGS):
        raise DataError(
            "the form of the file is not known",
            where=str(path),
            expected=f"a name that ends with {_ENDINGS}",
            got=repr("".join(path.suffixes[-2:])) if path.suffix else "no extension",
            remedy="Rename or convert the file: unpack a compressed Parquet file, cut a JSON array into lines.",
        )
    if not path.is_file():
        raise DataError(
            "this is no regular file",
            where=str(path),
            remedy="It can be read only once, and fullbake reads its header first: save it to a file.",
        )
    return form


def _nearby(path: Path) -> str:
    if not path.parent.is_dir():
        return f"There is no folder {str(path.parent)!r} either."
    files = sorted(other.name for other in path.parent.iterdir() if data_suffix(other) in FORMATS)
    return did_you_mean(path.name, files[:20]) if files else "There is no data file in that folder."


def _check_flags(path: Path, form: str, delimiter: str | None, encoding: str) -> None:
    if delimiter is not None and form not in DELIMITERS:
        raise DataError("--delimiter is for CSV and TSV", where=str(path), remedy="Leave it out.")
    if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n\0\ufeff'):
        raise DataError(
            "this cannot be a delimiter",
            where=str(path),
            expected="one character, not a quote nor a line end",
            got=repr(delimiter),
            remedy="Pass --delimiter ';' for a semicolon, --delimiter $'\\t' for a tab.",
        )
    if form == "parquet" and encoding != "utf-8":
        raise DataError("--encoding is for text files", where=str(path), remedy="Leave it out.")


def _split_flags(
    rows: Iterator[tuple[int, TableRow]], size: int, measure: Callable[[TableRow], int]
) -> Iterator[tuple[list[int], list[TableRow]]]:
    """(positions, rows) of `size` rows or CHUNK_CHARACTERS characters, whichever is reached first."""
    positions: list[int] = []
    held: list[TableRow] = []
    characters = 0
    for position, row in rows:
        positions.append(position)
        held.append(row)
        characters += measure(row)
        if len(held) >= size or characters >= CHUNK_CHARACTERS:
            yield positions, held
            positions, held, characters = [], [], 0
    if held:
        yield positions, held


def _open_delimited(path: Path, form: str, asked: _OpenOptions) -> Table:
    delimiter, encoding = asked.delimiter or DELIMITERS[form], asked.encoding
    with contextlib.closing(read_delimited(path, delimiter, encoding)) as rows:
        names = tuple(next(rows)[1])
    hint = " The first line has to hold the names, parted by the delimiter that --delimiter says."
    wanted = select_columns(f"{path}, line 1", names, asked.columns, hint)
    at = [(name, names.index(name)) for name in wanted]

    def read(size: int, _: bool) -> Iterator[Chunk]:
        rows = read_delimited(path, delimiter, encoding)
        next(rows)
        for positions, held in _split_flags(rows, size, lambda row: sum(map(len, row))):
            values = {name: [row[index] for row in held] for name, index in at}
            yield Chunk(str(path), "line", values, positions, held)

    return Table(str(path), form, names, wanted, "line", read)


def _open_json_lines(path: Path, asked: _OpenOptions) -> Table:
    with contextlib.closing(read_json_lines(path, asked.encoding)) as rows:
        first = next(rows, None)
    if first is None:
        raise empty_file_error(path)
    names = tuple(first[1].values)
    wanted = select_columns(f"{path}, line {first[0]}", names, asked.columns)

    def read(size: int, _: bool) -> Iterator[Chunk]:
        rows = read_json_lines(path, asked.encoding)
        for positions, held in _split_flags(rows, size, lambda row: len(row.raw)):
            places = [f"{path}, line {position}" for position in positions]
            values = {name: _json_column(held, name, places, asked) for name in wanted}
            yield Chunk(str(path), "line", values, positions, held)

    return Table(str(path), "jsonl", names, wanted, "line", read)


def _json_column(rows: list[JsonRow], name: str, places: list[str], asked: _OpenOptions) -> list[Any]:
    values: list[Any] = []
    for row, where in zip(rows, places, strict=True):
        if name not in row.values:
            raise DataError(f"no field {name!r}", where=where, remedy=did_you_mean(name, row.values))
        value = row.values[name]
        if name in asked.lists and type(value) is list:
            values.append([json_text(item, name, f"{where}, item {place}") for place, item in enumerate(value, 1)])
        else:
            values.append(json_text(value, name, where, nullable=name in asked.nullable))
    return values


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
    form = FORMATS.get(Path(target).suffix.lower())
    if form is None:
        raise OutputError(
            "the form to write is not known",
            where=str(target),
            expected=f"a name that ends with {', '.join(FORMATS)}",
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
