"""Tables: files of rows, or folders of such files, read as chunks of strings by column name.

Every value is the string that stands in the file (`01`, `true`, `NA`, an empty text); JSON numbers keep their
literal. The form goes by the file's extension, never by its content.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar

from fullbake.arrowtables import parquet_table
from fullbake.chunks import CHUNK_CHARACTERS, Chunk, Table, null_value, select_columns
from fullbake.compressed import ENDINGS, bare_suffix
from fullbake.core.errors import DataError, did_you_mean
from fullbake.textfiles import JsonRow, Missing, empty_file, read_delimited, read_json_lines, read_plain_lines

FORMS: Final = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
"""A file's form by its extension; .gz or .zst may follow that of a text file."""

_ENDINGS = f"{', '.join(FORMS)}, the text forms also with .gz or .zst after it"

DELIMITERS: Final = {"csv": ",", "tsv": "\t"}
Row = TypeVar("Row")


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
        return parquet_table(path, asked.columns, nullable=asked.nullable, lists=asked.lists)
    if form == "jsonl":
        return _open_json_lines(path, asked)
    return _open_delimited(path, form, asked)


def _open_folder(folder: Path, asked: _Asked) -> Table:
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
        for positions, values in _cut(rows, size, lambda row: len(row[0])):
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
        raise null_value(name, where, "null" if value is None else "NaN or Infinity")
    raise DataError(
        f"column {name!r} holds a {'list' if type(value) is list else 'nested object'}",
        where=where,
        expected="a string, a number, true or false",
        remedy="Give each value a field of its own.",
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
    wanted = select_columns(f"{path}, line 1", names, asked.columns, hint)
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
    wanted = select_columns(f"{path}, line {first[0]}", names, asked.columns)

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
