"""Tables: files of rows, read as chunks of strings by column name.

Every value is the string that stands in the file (`01`, `true`, `NA`, an empty text); JSON numbers keep their
literal. The form goes by the file's extension, never by its content. Whole files are never held: a chunk
ends at so many rows or so many characters, whichever comes first, so that a table of long documents costs no
more memory than one of short ones. pyarrow is imported when the first Parquet file is opened.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar, cast

from fullbake.compressed import ENDINGS, bare_suffix
from fullbake.errors import DataError, did_you_mean
from fullbake.textfiles import (
    JsonRow,
    Missing,
    check_unique,
    empty_file,
    read_delimited,
    read_json_lines,
    read_plain_lines,
)

FORMS: Final = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
"""A file's form by its extension; .gz or .zst may follow that of a text file."""

_ENDINGS = f"{', '.join(FORMS)}, the text forms also with .gz or .zst after it"

DELIMITERS: Final = {"csv": ",", "tsv": "\t"}
CHUNK_CHARACTERS: Final = 4_000_000
"""A chunk ends when its rows hold this many characters."""

Row = TypeVar("Row")
Batches = Callable[[int, bool], Iterator[Any]]
"""(rows at most, whether to read all columns) -> pyarrow.RecordBatch after RecordBatch."""


@dataclass(frozen=True)
class Chunk:
    """Some consecutive rows.

    source: the file they are of. unit: what positions count, "line" or "row". columns: (rows,) strings by name;
    lists of strings where lists are let in. positions: the line where each row starts (text files), or its row
    number from 1 (Parquet). originals: the rows as they stand, to be written again: lists of fields (CSV,
    TSV), JsonRow (JSON Lines), strings (plain lines), or one pyarrow.RecordBatch; None from Parquet unless
    asked for.
    """

    source: str
    unit: str
    columns: dict[str, list[Any]]
    positions: list[int]
    originals: Any

    def __len__(self) -> int:
        return len(self.positions)

    def where(self, index: int) -> str:
        """The place in words of a row of this chunk: "train.csv, line 812"."""
        return f"{self.source}, {self.unit} {self.positions[index]}"


@dataclass(frozen=True)
class Table:
    """A file that can be read again and again, chunk by chunk.

    form: csv, tsv, jsonl, parquet or lines. names: all columns of the file (JSON Lines: of the first row). columns:
    those that chunks bring. unit: what positions count, "line" or "row". schema: Parquet's own. shards: files of a
    folder.
    """

    source: str
    form: str
    names: tuple[str, ...]
    columns: tuple[str, ...]
    unit: str
    read: Callable[[int, bool], Iterator[Chunk]]
    schema: Any = None
    shards: int = 1

    def chunks(self, rows: int = 4096, *, keep: bool = False) -> Iterator[Chunk]:
        """Chunks of at most `rows` rows, in the file's order. keep: fill `originals` from Parquet too.

        Raises DataError at the first row that cannot be read, with its position.
        """
        return self.read(rows, keep)


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
    asked = _Asked(None if columns is None else tuple(columns), tuple(nullable), tuple(lists), delimiter, encoding)
    return _open_folder(path, asked) if path.is_dir() else _open_file(path, asked)


@dataclass(frozen=True)
class _Asked:
    """What `open_table` was asked for."""

    columns: tuple[str, ...] | None
    nullable: tuple[str, ...]
    lists: tuple[str, ...]
    delimiter: str | None
    encoding: str


def _open_file(path: Path, asked: _Asked) -> Table:
    form = _form(path)
    _check_flags(path, form, asked.delimiter, asked.encoding)
    if form == "parquet":
        return _open_parquet(path, asked)
    if form == "jsonl":
        return _open_json_lines(path, asked)
    return _open_delimited(path, form, asked)


def _open_folder(folder: Path, asked: _Asked) -> Table:
    """The files of a folder as one table."""
    files = sorted(path for path in folder.iterdir() if path.name[0] not in "._")
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

    return replace(first, source=str(folder), read=read, shards=len(shards))


def open_lines(stream: BinaryIO, *, name: str = "stdin", column: str = "text") -> Table:
    """The lines of a UTF-8 stream as a table of one column, blank ones as empty texts; read only once."""
    rows = ((line, [text]) for line, text in read_plain_lines(stream, name))

    def read(size: int, _: bool) -> Iterator[Chunk]:
        for positions, values in _cut(rows, size, lambda row: len(row[0])):
            texts = [row[0] for row in values]
            yield Chunk(name, "line", {column: texts}, positions, texts)

    return Table(name, "lines", (column,), (column,), "line", read)


def arrow_table(
    source: str,
    schema: Any,
    batches: Batches,
    columns: Sequence[str] | None,
    *,
    nullable: Sequence[str] = (),
    lists: Sequence[str] = (),
) -> Table:
    """A table over record batches of pyarrow, wherever they come from (Parquet files, hub data sets)."""
    names = tuple(schema.names)
    check_unique(names, source)
    wanted = _select(source, names, columns)
    for name in wanted:
        if not (name in lists and _is_list(schema.field(name))):
            _check_type(source, schema.field(name))

    def read(size: int, keep: bool) -> Iterator[Chunk]:
        start = 1
        for batch in batches(size, keep):
            positions = list(range(start, start + batch.num_rows))
            values = {name: _arrow_column(source, batch, name, start, name in nullable) for name in wanted}
            yield Chunk(source, "row", values, positions, batch if keep else None)
            start += batch.num_rows

    return Table(source, "parquet", names, wanted, "row", read, schema)


def _is_list(field: Any) -> bool:
    from pyarrow import types

    kinds = (types.is_list, types.is_large_list, types.is_fixed_size_list, types.is_list_view, types.is_large_list_view)
    return any(is_kind(field.type) for is_kind in kinds)


def _arrow_column(source: str, batch: Any, name: str, start: int, nullable: bool) -> list[Any]:
    """A column's values: strings, or lists of strings; of these a null is the empty string where it may be."""
    if not _is_list(batch.schema.field(name)):
        return arrow_strings(source, batch, name, start, nullable)
    import pyarrow as pa

    column = batch.column(name)
    values: list[Any] = []
    for index, items in enumerate(column):
        if not items.is_valid:
            if not nullable:
                raise null_value(name, f"{source}, row {start + index}", "null")
            values.append("")
            continue
        row = pa.RecordBatch.from_arrays([items.values], [name])
        values.append(arrow_strings(f"{source}, row {start + index}, item of the list", row, name, 1))
    return values


def json_text(value: object, name: str, where: str, *, nullable: bool = False) -> str:
    """A JsonRow's value as the string that stands in the file; DataError for null, NaN, list and object."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None or isinstance(value, Missing):
        if nullable:
            return ""
        raise null_value(name, where, "null" if value is None else "NaN or Infinity")
    raise DataError(
        f"column {name!r} holds a {'list' if type(value) is list else 'nested object'}",
        where=where,
        expected="a string, a number, true or false",
        remedy="Give each value a field of its own.",
    )


def null_value(name: str, where: str, got: str) -> DataError:
    """The error for a missing value where a text is needed."""
    return DataError(
        f"column {name!r} has no value",
        where=where,
        expected="a string",
        got=got,
        remedy='Fill it in, leave the row out, or write "" for an empty text.',
    )


def _form(path: Path) -> str:
    form = FORMS.get(bare_suffix(path))
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
    files = sorted(other.name for other in path.parent.iterdir() if bare_suffix(other) in FORMS)
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


def _select(where: str, names: tuple[str, ...], wanted: Sequence[str] | None, hint: str = "") -> tuple[str, ...]:
    if wanted is None:
        return names
    for name in wanted:
        if name not in names:
            raise DataError(f"no column {name!r}", where=where, remedy=f"{did_you_mean(name, names)}{hint}")
    return tuple(dict.fromkeys(wanted))


def _cut(
    rows: Iterator[tuple[int, Row]], size: int, measure: Callable[[Row], int]
) -> Iterator[tuple[list[int], list[Row]]]:
    """(positions, rows) of `size` rows or CHUNK_CHARACTERS characters, whichever is reached first."""
    positions: list[int] = []
    held: list[Row] = []
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


def _open_delimited(path: Path, form: str, asked: _Asked) -> Table:
    delimiter, encoding = asked.delimiter or DELIMITERS[form], asked.encoding
    with contextlib.closing(read_delimited(path, delimiter, encoding)) as rows:
        names = tuple(next(rows)[1])
    hint = " The first line has to hold the names, parted by the delimiter that --delimiter says."
    wanted = _select(f"{path}, line 1", names, asked.columns, hint)
    at = [(name, names.index(name)) for name in wanted]

    def read(size: int, _: bool) -> Iterator[Chunk]:
        rows = read_delimited(path, delimiter, encoding)
        next(rows)
        for positions, held in _cut(rows, size, lambda row: sum(map(len, row))):
            values = {name: [row[index] for row in held] for name, index in at}
            yield Chunk(str(path), "line", values, positions, held)

    return Table(str(path), form, names, wanted, "line", read)


def _open_json_lines(path: Path, asked: _Asked) -> Table:
    with contextlib.closing(read_json_lines(path, asked.encoding)) as rows:
        first = next(rows, None)
    if first is None:
        raise empty_file(path)
    names = tuple(first[1].values)
    wanted = _select(f"{path}, line {first[0]}", names, asked.columns)

    def read(size: int, _: bool) -> Iterator[Chunk]:
        rows = read_json_lines(path, asked.encoding)
        for positions, held in _cut(rows, size, lambda row: len(row.raw)):
            places = [f"{path}, line {position}" for position in positions]
            values = {name: _json_column(held, name, places, asked) for name in wanted}
            yield Chunk(str(path), "line", values, positions, held)

    return Table(str(path), "jsonl", names, wanted, "line", read)


def _json_column(rows: list[JsonRow], name: str, places: list[str], asked: _Asked) -> list[Any]:
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


def _open_parquet(path: Path, asked: _Asked) -> Table:
    with _parquet_file(path) as file:
        schema = file.schema_arrow
    wanted = None if asked.columns is None else list(asked.columns)
    batches = partial(_parquet_batches, path, wanted)
    return arrow_table(str(path), schema, batches, asked.columns, nullable=asked.nullable, lists=asked.lists)


def _parquet_batches(path: Path, columns: list[str] | None, size: int, keep: bool) -> Iterator[Any]:
    with _parquet_file(path) as file:
        metadata = file.metadata
        groups = [metadata.row_group(index).total_byte_size for index in range(metadata.num_row_groups)]
        width = max(1, sum(groups) // max(1, metadata.num_rows))
        rows = max(1, min(size, CHUNK_CHARACTERS // width))
        yield from file.iter_batches(batch_size=rows, columns=None if keep else columns)


@contextlib.contextmanager
def _parquet_file(path: Path) -> Iterator[Any]:
    """Open; what pyarrow makes of a damaged file, now or while its rows are read, becomes a DataError."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        opened = parquet.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20)  # type: ignore[no-untyped-call]
        with opened as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            "this cannot be read as Parquet",
            where=str(path),
            got=str(error).splitlines()[0],
            remedy="Check that the file was written whole, and that it is Parquet.",
        ) from None


def _check_type(source: str, field: Any) -> None:
    from pyarrow import types

    kind = field.type.value_type if types.is_dictionary(field.type) else field.type
    plain = (
        types.is_string,
        types.is_large_string,
        types.is_string_view,
        types.is_integer,
        types.is_floating,
        types.is_boolean,
        types.is_decimal,
        types.is_null,
    )
    if not any(is_kind(kind) for is_kind in plain):
        raise DataError(
            f"column {field.name!r} does not hold plain values",
            where=source,
            expected="strings, numbers or booleans",
            got=str(field.type),
            remedy="Give each value a column of its own, as a string.",
        )


def arrow_strings(source: str, batch: Any, name: str, start: int, nullable: bool = False) -> list[str]:
    """A batch's column as strings; floats as Python writes them (`1.0`, not `1`). start: its first row's
    number.

    Raises DataError for a null (unless nullable: then the empty string), and for lists, structs, times and
    bytes.
    """
    _check_type(source, batch.schema.field(name))
    try:
        values = _as_strings(batch.column(name))
    except UnicodeDecodeError as error:
        raise DataError(
            f"column {name!r} holds bytes that are not UTF-8",
            where=f"{source}, rows {start} to {start + batch.num_rows - 1}",
            got=f"the byte 0x{error.object[error.start : error.start + 1].hex()}",
            remedy="Write the column again from its source.",
        ) from None
    if None in values and not nullable:
        raise null_value(name, f"{source}, row {start + values.index(None)}", "null")
    return [value or "" for value in values]


def _as_strings(column: Any) -> list[str | None]:
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if not pa.types.is_floating(column.type):
        return cast(list[str | None], column.cast(pa.large_string()).to_pylist())
    literals = column.to_numpy(zero_copy_only=False).astype(str).tolist()
    absent = column.is_null(nan_is_null=True).to_pylist()
    return [None if gone else text for gone, text in zip(absent, literals, strict=True)]
