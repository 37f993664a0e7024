"""JSON Lines: one JSON object a line, read with Python's json module and written with every member as it was.

This is slower than readers written in C. But a name that occurs twice in one object, or a cut-off last line, is an
error with its line. Numbers keep their spelling (`1.0`, `1E5`, more digits than a float holds): they are read as
strings.
"""

import contextlib
import json
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, TextIO

from fullbake.core.errors import DataError, did_you_mean
from fullbake.data.plain_text import blank_line_error, open_text, utf8_writer
from fullbake.data.tables import (
    AddedColumns,
    Chunk,
    Format,
    ReadOptions,
    Table,
    check_unique,
    empty_file_error,
    format_values,
    null_value_error,
    select_columns,
    split_chunks,
    taken_name_error,
)


class NotANumber:
    """`NaN`, `Infinity` or `-Infinity`: JSON does not have them, but Python writes them all the same."""


class NestedObject(list[tuple[str, object]]):
    """A JSON object as (name, value) pairs, so that a name that occurs twice is not lost."""


@dataclass(frozen=True)
class JsonRow:
    """One line of a JSON Lines file."""

    raw: str
    """The line as the file holds it, without white space around it."""

    values: dict[str, object]
    """The object's members: numbers as the strings in the file, objects as NestedObject, NaN as NotANumber."""


def open_json_lines(path: Path, options: ReadOptions) -> Table:
    """Open a JSON Lines file; its first row is read now for the names, all rows when the table is read.

    Raises:
        DataError: the file is empty, or its first row cannot be read or lacks a wanted column.
    """
    with contextlib.closing(read_json_lines(path, options.encoding)) as rows:
        first = next(rows, None)
    if first is None:
        raise empty_file_error(path)
    names = tuple(first[1].values)
    columns = select_columns(f"{path}, line {first[0]}", names, options.columns)

    def read(size: int, _: bool) -> Iterator[Chunk]:
        rows = read_json_lines(path, options.encoding)
        for positions, held in split_chunks(rows, size, lambda row: len(row.raw)):
            places = [f"{path}, line {position}" for position in positions]
            values = {name: _column_values(held, name, places, options) for name in columns}
            yield Chunk(str(path), "line", values, positions, held)

    def string_rows(chunk: Chunk) -> Iterator[list[str]]:
        return (_row_fields(names, row, chunk.where(index)) for index, row in enumerate(chunk.originals))

    return Table(str(path), "jsonl", names, columns, "line", read, string_rows)


def read_json_lines(path: Path, encoding: str) -> Generator[tuple[int, JsonRow], None, None]:
    """Read the rows of a JSON Lines file. Blank lines are refused, except at the end.

    Yields:
        (line number, row) of every line.

    Raises:
        DataError: a line is not one JSON object, or uses a name twice.
    """
    blank = 0
    with open_text(path, encoding) as handle:
        for number, line in enumerate(handle, start=1):
            if not line.strip():
                blank = blank or number  # an error only if a row follows
                continue
            if blank:
                raise blank_line_error(path, blank)
            yield number, _parse_row(line, f"{path}, line {number}")


def json_text(value: object, name: str, where: str, *, nullable: bool = False) -> str:
    """Return a value of a JsonRow as the string in the file.

    Args:
        value: the value.
        name: its column, for errors.
        where: its place, for errors.
        nullable: return "" for null and NaN instead of raising.

    Raises:
        DataError: the value is null, NaN, a list or an object.
    """
    if isinstance(value, str):  # numbers too: `_decoder` keeps them as strings
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None or isinstance(value, NotANumber):
        if nullable:
            return ""
        raise null_value_error(name, where, "null" if value is None else "NaN or Infinity")
    raise DataError(
        f"column {name!r} holds a {'list' if type(value) is list else 'nested object'}",
        where=where,
        expected="a string, a number, true or false",
        remedy="Give each value a field of its own.",
    )


@contextlib.contextmanager
def open_json_writer(stream: BinaryIO, source: Table, _: AddedColumns) -> Iterator["JsonLinesWriter"]:
    """Write JSON Lines to a binary stream: the rows given to the yielded writer."""
    with utf8_writer(stream) as text:
        yield JsonLinesWriter(text, source)


class JsonLinesWriter:
    """Writes an object a line.

    Args:
        text: where to write.
        source: the table whose rows are written.
    """

    def __init__(self, text: TextIO, source: Table) -> None:
        self._text, self._source = text, source

    def write(self, chunk: Chunk, added: Mapping[str, Any]) -> None:
        """Append the rows of one chunk; see `Writer.write`."""
        members = [_members(name, values) for name, values in added.items()]
        for row, *new_members in zip(self._open_objects(chunk, added), *members, strict=True):
            self._text.write(f"{', '.join([row, *new_members])}}}\n")

    def _open_objects(self, chunk: Chunk, added: Iterable[str]) -> Iterator[str]:
        """Yield each row's object without its closing brace."""
        if self._source.format != JSON_LINES.name:
            for row in self._source.string_rows(chunk):
                values = dict(zip(self._source.names, row, strict=True))
                yield json.dumps(values, ensure_ascii=False)[:-1]
            return
        # The line itself is written again, so members keep their spelling and nesting.
        for index, row in enumerate(chunk.originals):
            for name in added:
                if name in row.values:
                    raise taken_name_error(name, chunk.where(index))
            yield row.raw[:-1].rstrip()


JSON_LINES: Final = Format("jsonl", open_json_lines, open_json_writer, fixed_columns=False)


def _column_values(rows: list[JsonRow], name: str, places: list[str], options: ReadOptions) -> list[Any]:
    """Return a column's values: strings, or lists of strings where lists are allowed."""
    values: list[Any] = []
    for row, where in zip(rows, places, strict=True):
        if name not in row.values:
            raise DataError(f"no field {name!r}", where=where, remedy=did_you_mean(name, row.values))
        value = row.values[name]
        if name in options.lists and type(value) is list:
            values.append([json_text(item, name, f"{where}, item {place}") for place, item in enumerate(value, 1)])
        else:
            values.append(json_text(value, name, where, nullable=name in options.nullable))
    return values


def _row_fields(names: tuple[str, ...], row: JsonRow, where: str) -> list[str]:
    """Return a row's values as strings in the order of `names`, for formats with the same columns in each row."""
    if tuple(sorted(row.values)) != tuple(sorted(names)):
        raise DataError(
            "this row has other fields than the first",
            where=where,
            expected=", ".join(map(repr, names)),
            got=", ".join(map(repr, row.values)),
            remedy="Write .jsonl, which keeps every row as it is.",
        )
    return [json_text(row.values[name], name, where) for name in names]


def _members(name: str, values: Any) -> list[str]:
    """Return `"name": value` for each row."""
    import numpy as np

    key = json.dumps(name, ensure_ascii=False)
    literals = format_values(values)
    # Numbers are JSON already, strings need quotes.
    if np.asarray(values).dtype.kind not in "fiu":
        literals = [json.dumps(value, ensure_ascii=False) for value in literals]
    return [f"{key}: {literal}" for literal in literals]


def _parse_row(line: str, where: str) -> JsonRow:
    try:
        pairs = _decoder.decode(line.rstrip("\r\n"))
    except json.JSONDecodeError as error:
        raise _bad_json_error(where, error, cut_off=not line.endswith("\n")) from None
    except RecursionError:
        raise DataError("the JSON is nested too deeply", where=where, remedy="Flatten this row.") from None
    if not isinstance(pairs, NestedObject):
        raise DataError(
            "the line is JSON, but not an object",
            where=where,
            expected='an object: {"text": ..., "label": ...}',
            got=line[:60].strip(),
            remedy="Write one object a line.",
        )
    values: dict[str, object] = dict(pairs)
    if len(values) != len(pairs):
        check_unique((name for name, _ in pairs), where)
    if "\\u" in line:  # only an escape can spell half of a surrogate pair
        _check_surrogates(values, where)
    return JsonRow(line.strip(), values)


def _check_surrogates(values: dict[str, object], where: str) -> None:
    """Raise DataError for half of a surrogate pair: JSON can spell one by \\u, but no text can hold it.

    Lists are searched too, because they may be lists of labels. Nested objects are not: no column is read from them.
    """
    for name, value in values.items():
        items = value if type(value) is list else [value]
        broken = next((text for text in (name, *items) if isinstance(text, str) and not _is_unicode(text)), None)
        if broken is not None:
            raise DataError(
                f"field {name!r} holds half of a surrogate pair",
                where=where,
                expected="whole characters",
                got=ascii(broken)[:60],
                remedy="The text was cut in the middle of a character when it was written; correct this row.",
            )


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _bad_json_error(where: str, error: json.JSONDecodeError, *, cut_off: bool) -> DataError:
    remedy = (
        "The file ends within this line: check that it was written completely."
        if cut_off
        else "Write one complete object a line."
    )
    return DataError(
        "the line is not JSON",
        where=f"{where}, character {error.pos + 1}",
        expected='an object: {"text": ..., "label": ...}',
        got=f"{error.msg}: {error.doc[max(0, error.pos - 20) : error.pos + 40]!r}",
        remedy=remedy,
    )


_decoder = json.JSONDecoder(
    object_pairs_hook=NestedObject, parse_int=str, parse_float=str, parse_constant=lambda _: NotANumber()
)
