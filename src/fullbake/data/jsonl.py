"""JSON Lines: one JSON object a line, read with Python's json module and written with every member as it was.

This is slower than readers written in C. But a name that occurs twice in one object, or a cut-off last line, is an
error with its line. Numbers keep their spelling (`1.0`, `1E5`, more digits than a float holds): they are read as
strings. A line may also be a list, if `--no-header` names its items.
"""

import contextlib
import json
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, TextIO

from fullbake.core.errors import DataError, did_you_mean
from fullbake.data.plain_text import blank_line_error, open_text, utf8_writer
from fullbake.data.row_guard import RowGuard
from fullbake.data.tables import (
    MAX_ROW_CHARACTERS,
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

_ABSENT: Final = object()
"""Stands for the value of a field that a row does not have."""

JSON_FORMATS: Final = ("jsonl", "json")
"""Names of the formats whose rows are `JsonRow` objects."""


class NotANumber:
    """`NaN`, `Infinity` or `-Infinity`: JSON does not have them, but Python writes them all the same."""


class NestedObject(list[tuple[str, object]]):
    """A JSON object as (name, value) pairs, so that a name that occurs twice is not lost."""


@dataclass(slots=True)  # a frozen one takes twice as long to make, and there is one for each row
class JsonRow:
    """One line of a JSON Lines file."""

    raw: str
    """The line as the file holds it, without white space around it."""

    values: dict[str, object]
    """The object's members: numbers as the strings in the file, objects as NestedObject, NaN as NotANumber."""


DECODER: Final = json.JSONDecoder(
    object_pairs_hook=NestedObject, parse_int=str, parse_float=str, parse_constant=lambda _: NotANumber()
)
"""Keeps the spelling of numbers, and members whose name occurs twice."""


def open_json_lines(path: Path, options: ReadOptions) -> Table:
    """Open a JSON Lines file; its first row is read now for the names, all rows when the table is read.

    Raises:
        DataError: the file is empty, or its first row cannot be read or lacks a wanted column.
    """

    def rows() -> Generator[tuple[int, JsonRow], None, None]:
        return read_json_lines(path, options.dialect.encoding, options.dialect.no_header)

    return rows_table(path, JSON_LINES.name, "line", rows, options)


def rows_table(
    path: Path,
    name: str,
    unit: str,
    rows: Callable[[], Generator[tuple[int, JsonRow], None, None]],
    options: ReadOptions,
) -> Table:
    """Make a table of JSON rows.

    Args:
        path: the file.
        name: name of its format.
        unit: what positions count.
        rows: reads (position, row) from the start.
        options: the caller's options.
    """
    with contextlib.closing(rows()) as opened:
        first = next(opened, None)
    if first is None:
        raise empty_file_error(path)
    names = tuple(first[1].values)
    columns = select_columns(f"{path}, {unit} {first[0]}", names, options.columns)

    def read(size: int, _: bool) -> Iterator[Chunk]:
        for positions, held in split_chunks(rows(), size, lambda row: len(row.raw)):
            chunk = Chunk(str(path), unit, {}, positions, held)
            chunk.columns.update((name, _column_values(chunk, name, options)) for name in columns)
            yield chunk

    def string_rows(chunk: Chunk) -> Iterator[list[str]]:
        return (_row_fields(names, row, chunk.where(index)) for index, row in enumerate(chunk.originals))

    return Table(str(path), name, names, columns, unit, read, string_rows)


def read_json_lines(
    path: Path, encoding: str, names: tuple[str, ...] | None = None
) -> Generator[tuple[int, JsonRow], None, None]:
    """Read the rows of a JSON Lines file. Blank lines are refused, except at the end.

    Args:
        path: the file.
        encoding: of the file.
        names: the names of the items where a row is a list.

    Yields:
        (line number, row) of every line.

    Raises:
        DataError: a line is not one JSON object (or one list, if there are names), or uses a name twice.
    """
    blank = 0
    guard = RowGuard(path, encoding, remedy="Check that this is text. If it is, split the document.")
    with open_text(path, encoding, guard=guard) as handle:
        for number, line in enumerate(guard.lines(handle), start=1):
            raw = line.strip(" \t\r\n")
            if not raw or raw.isspace():
                blank = blank or number  # an error only if a row follows
            else:
                if blank:
                    raise blank_line_error(path, blank)
                if len(line) > MAX_ROW_CHARACTERS:
                    raise guard.too_long_error("row", f"{MAX_ROW_CHARACTERS:,} characters")
                yield number, _parse_row(line, raw, path, number, names)
            guard.row_start = number + 1


def make_row(value: object, raw: str, where: str, names: tuple[str, ...] | None) -> JsonRow:
    """Return a decoded row.

    Args:
        value: an object; or a list, if there are names for its items.
        raw: its spelling, on one line.
        where: its place, for errors.
        names: the names of the items of a list; None where rows are objects.

    Raises:
        DataError: the value is something else, a name occurs twice, or a text is no text.
    """
    if names is not None:
        value, raw = _named_items(value, raw, where, names)
    if not isinstance(value, NestedObject):
        raise _no_object_error(value, raw, where)
    values: dict[str, object] = dict(value)
    if len(values) != len(value):
        check_unique((name for name, _ in value), where)
    if "\\u" in raw:  # only an escape can spell half of a surrogate pair
        for name, item in values.items():
            _check_surrogates(name, [name, item], where)
    return JsonRow(raw, values)


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
    if isinstance(value, str):  # numbers too: `DECODER` keeps them as strings
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
        self.text, self._source = text, source

    def write(self, chunk: Chunk, added: Mapping[str, Any]) -> None:
        """Append the rows of one chunk; see `Writer.write`."""
        for row in self.objects(chunk, added):
            self.text.write(f"{row}\n")

    def objects(self, chunk: Chunk, added: Mapping[str, Any]) -> Iterator[str]:
        """Yield each row with its added members as an object on one line."""
        members = [_members(name, values) for name, values in added.items()]
        for row, *new_members in zip(self._open_objects(chunk, added), *members, strict=True):
            yield f"{', '.join([row, *new_members])}}}"

    def _open_objects(self, chunk: Chunk, added: Iterable[str]) -> Iterator[str]:
        """Yield each row's object without its closing brace."""
        if self._source.format not in JSON_FORMATS:
            places = self._source.named_places
            for row in self._source.string_rows(chunk):
                values = {self._source.names[place]: row[place] for place in places}
                yield json.dumps(values, ensure_ascii=False)[:-1]
            return
        # The row itself is written again, so members keep their spelling and nesting.
        for index, row in enumerate(chunk.originals):
            for name in added:
                if name in row.values:
                    raise taken_name_error(name, chunk.where(index))
            yield row.raw[:-1].rstrip()


JSON_LINES: Final = Format(
    "jsonl", open_json_lines, open_json_writer, flags=frozenset({"encoding", "no_header"}), fixed_columns=False
)


def _column_values(chunk: Chunk, name: str, options: ReadOptions) -> list[Any]:
    """Return a column's values: strings, or lists of strings where lists are allowed."""
    values: list[Any] = [row.values.get(name, _ABSENT) for row in chunk.originals]
    if set(map(type, values)) == {str}:  # nearly always
        return values
    for index, value in enumerate(values):
        if isinstance(value, str):
            continue
        where = chunk.where(index)
        if value is _ABSENT:
            raise DataError(f"no field {name!r}", where=where, remedy=did_you_mean(name, chunk.originals[index].values))
        if name in options.lists and type(value) is list:
            values[index] = [json_text(item, name, f"{where}, item {place}") for place, item in enumerate(value, 1)]
        else:
            values[index] = json_text(value, name, where, nullable=name in options.nullable)
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


def _parse_row(line: str, raw: str, path: Path, number: int, names: tuple[str, ...] | None) -> JsonRow:
    """Return the row in a line. raw: the line without the white space around it."""
    try:
        value = DECODER.decode(raw)
    except json.JSONDecodeError:
        raise _bad_json_error(f"{path}, line {number}", line) from None
    except RecursionError:
        where = f"{path}, line {number}"
        raise DataError("the JSON is nested too deeply", where=where, remedy="Flatten this row.") from None
    if type(value) is NestedObject and names is None and "\\u" not in raw:
        values: dict[str, object] = dict(value)
        if len(values) == len(value):
            return JsonRow(raw, values)
    return make_row(value, raw, f"{path}, line {number}", names)


def _no_object_error(value: object, raw: str, where: str) -> DataError:
    if type(value) is not list:
        remedy = "Write every row as an object, with names for its values."
    elif value and isinstance(value[0], list):
        remedy = "If the whole file is one list of rows, give it the ending .json."
    else:
        names = ["text", "label", *(f"column{number}" for number in range(3, len(value) + 1))]
        remedy = f"If rows are lists, name their items, such as --no-header {','.join(names[: max(1, len(value))])}."
    return DataError(
        "the row is JSON, but not an object",
        where=where,
        expected='an object: {"text": ..., "label": ...}',
        got=raw[:60],
        remedy=remedy,
    )


def _named_items(value: object, raw: str, where: str, names: tuple[str, ...]) -> tuple[NestedObject, str]:
    """Return a list as an object, decoded and spelled."""
    if type(value) is not list:
        raise DataError(
            "--no-header names the items of lists, but this row is no list",
            where=where,
            expected=f"a list of {len(names)} items",
            got=raw[:60],
            remedy="Rows that are objects have names already: leave --no-header out."
            if isinstance(value, NestedObject)
            else "Write every row as a list.",
        )
    if len(value) != len(names):
        raise DataError(
            "the row is too long" if len(value) > len(names) else "the row is too short",
            where=where,
            expected=f"{len(names)} items, as --no-header names",
            got=f"{len(value)}: {raw[:60]}",
            remedy="Name all items of the rows by --no-header, in their order.",
        )
    spelled, place = [], 1  # after the bracket
    for name in names:
        place += len(raw[place:]) - len(raw[place:].lstrip(" \t\r\n,"))
        _, end = DECODER.raw_decode(raw, place)
        spelled.append(f"{json.dumps(name, ensure_ascii=False)}: {raw[place:end]}")
        place = end
    return NestedObject(zip(names, value, strict=True)), f"{{{', '.join(spelled)}}}"


def _check_surrogates(name: str, value: object, where: str) -> None:
    """Raise DataError for half of a surrogate pair: JSON can spell one by \\u, but no text can hold it.

    Args:
        name: the field.
        value: its value; lists are looked into, at any depth.
        where: the row.
    """
    found = [value]
    while found:
        value = found.pop()
        if type(value) is list:
            found += value
        if not isinstance(value, str) or _is_unicode(value):
            continue
        raise DataError(
            f"field {name!a} holds half of a surrogate pair",
            where=where,
            expected="whole characters",
            got=ascii(value)[:60],
            remedy="The text was cut in the middle of a character when it was written; correct this row.",
        )


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _bad_json_error(where: str, line: str) -> DataError:
    remedy = (
        "Write one complete object a line."
        if line.endswith("\n")
        else "The file ends within this line: check that it was written completely."
    )
    try:
        DECODER.decode(line.rstrip("\r\n"))
        raise AssertionError(f"{where} was no JSON when it was first read")
    except json.JSONDecodeError as error:  # once more, to count characters from the beginning of the line
        return DataError(
            "the line is not JSON",
            where=f"{where}, character {error.pos + 1}",
            expected='an object: {"text": ..., "label": ...}',
            got=f"{error.msg}: {error.doc[max(0, error.pos - 20) : error.pos + 40]!r}",
            remedy=remedy,
        )
