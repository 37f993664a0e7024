"""JSON documents (.json): the rows are a list, the document itself or a member of it that `--json-path` names.

    [{"text": "book a flight", "label": "travel"}, ...]
    {"train": [["book a flight", "travel"], ...], "val": ...}

A document is held in memory as text, and its rows are decoded one by one, so a row that is no row is an error with its
number, and members keep their spelling when rows are written again. Rows that are lists get their names from
`--no-header`. What comes after the rows is read too: a cut-off document, or a name that occurs twice, is an error.
"""

import contextlib
import json
import re
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final

from fullbake.config.sections import Dialect
from fullbake.core.errors import DataError, did_you_mean
from fullbake.data.jsonl import DECODER, JsonLinesWriter, JsonRow, NestedObject, make_row, rows_table
from fullbake.data.plain_text import nul_error, open_text, utf8_writer
from fullbake.data.tables import AddedColumns, Chunk, Format, ReadOptions, Table, empty_file_error

MAX_DOCUMENT_CHARACTERS: Final = 2**27
"""A longer document is refused, because it is held in memory; JSON Lines are read line by line."""

_WHITE_SPACE: Final = re.compile(r"[ \t\r\n]*")
_MOST_NAMES_SHOWN: Final = 8


def open_json_document(path: Path, options: ReadOptions) -> Table:
    """Open a JSON document; its first row is read now for the names, all rows when the table is read.

    Raises:
        DataError: the document is no JSON or has no list of rows where it should be, or its first row cannot be read or
            lacks a wanted column.
    """

    def rows() -> Generator[tuple[int, JsonRow], None, None]:
        return read_json_document(path, options.dialect)

    return rows_table(path, JSON_DOCUMENT.name, "row", rows, options)


def read_json_document(path: Path, dialect: Dialect) -> Generator[tuple[int, JsonRow], None, None]:
    """Read the rows of a JSON document.

    Yields:
        (number of the row from 1, row).

    Raises:
        DataError: see `open_json_document`.
    """
    with open_text(path, dialect.encoding) as handle:
        text = handle.read(MAX_DOCUMENT_CHARACTERS + 1)
    if len(text) > MAX_DOCUMENT_CHARACTERS:
        raise DataError(
            "the document is too long",
            where=str(path),
            expected=f"at most {MAX_DOCUMENT_CHARACTERS:,} characters",
            remedy=f"Write JSON Lines, an object a line, which are read line by line. {_conversion(path, 'document')}",
        )
    if "\0" in text:
        raise nul_error(f"{path}, line {text.count(chr(10), 0, text.index(chr(0))) + 1}", path, dialect.encoding)
    if not text.strip():
        raise empty_file_error(path)
    document = _Document(path, text, dialect)
    end = yield from document.rows(document.skip(0), names_of_path(dialect.json_path), "")
    if end != len(text):
        document.refuse_more(end)


def names_of_path(json_path: str | None) -> list[str]:
    """Return the names that lead to the rows: those between dots, or between slashes where it begins with one.

    The latter is a JSON pointer (RFC 6901), for names that hold a dot: `/data.v1/train`.
    """
    if not json_path:
        return []
    if json_path.startswith("/"):
        return [name.replace("~1", "/").replace("~0", "~") for name in json_path[1:].split("/")]
    return json_path.split(".")


class _Document:
    """The text of a document, and how far it is read.

    Args:
        path: the file, for errors.
        text: all of it.
        dialect: how it is written.
    """

    def __init__(self, path: Path, text: str, dialect: Dialect) -> None:
        self._path, self._text, self._dialect = path, text, dialect

    def skip(self, place: int) -> int:
        """Return the place of the next character that is no white space."""
        found = _WHITE_SPACE.match(self._text, place)
        assert found is not None
        return found.end()

    def rows(self, place: int, names: list[str], reached: str) -> Generator[tuple[int, JsonRow], None, int]:
        """Yield the rows of the value at a place, and return the place after the value and white space.

        Args:
            place: where the value begins.
            names: the members that lead from it to the rows.
            reached: the members that led to it, for errors.
        """
        if not names:
            return (yield from self._items(place, reached))
        if self._text[place : place + 1] != "{":
            raise self._path_error(f"{reached or 'the document'} is no object", names[0], None)
        seen: dict[str, None] = {}
        place = self.skip(place + 1)
        while seen or self._text[place : place + 1] != "}":
            name, value = self._name_at(place)
            if name in seen:
                raise self._error(place, f"the name {name!r} occurs twice", "Rename one of the two.")
            seen[name] = None
            if name == names[0]:
                place = yield from self.rows(value, names[1:], f"{reached}.{name}".strip("."))
            else:
                _, place = self._decode(value)
            if self._text[place : place + 1] == "}":
                break
            self._expect(place, ",")
            place = self.skip(place + 1)
        if names[0] not in seen:
            raise self._path_error(f"{reached or 'the document'} has no member {names[0]!r}", names[0], list(seen))
        return self.skip(place + 1)

    def refuse_more(self, end: int) -> None:
        """Raise DataError for what follows the document."""
        is_lines = self._text[end] in "{[" and "\n" in self._text[:end]
        if is_lines:
            raise self._lines_error()
        raise self._error(end, "there is more after the end of the document", "Delete it.")

    def _name_at(self, place: int) -> tuple[str, int]:
        """Return the name of the member at a place, and the place of its value."""
        name, colon = self._decode(place)
        # A number is a string too, because its spelling is kept.
        if not isinstance(name, str) or self._text[place] != '"':
            raise self._error(place, "the file is not JSON: a member has no name", _SYNTAX)
        self._expect(colon, ":")
        return name, self.skip(colon + 1)

    def _items(self, place: int, reached: str) -> Generator[tuple[int, JsonRow], None, int]:
        if self._text[place : place + 1] != "[":
            raise self._no_list_error(place, reached)
        number, place = 0, self.skip(place + 1)
        if self._text[place : place + 1] == "]":
            return self.skip(place + 1)
        while True:
            number += 1
            value, end = self._decode(place)
            # A line end is no part of a string, so a space in its place changes nothing.
            raw = self._text[place:end].rstrip().replace("\n", " ").replace("\r", " ")
            yield number, make_row(value, raw, f"{self._path}, row {number}", self._dialect.no_header)
            if self._text[end : end + 1] == "]":
                return self.skip(end + 1)
            self._expect(end, ",")
            place = self.skip(end + 1)

    def _decode(self, place: int) -> tuple[object, int]:
        """Return the value at a place, and the place after it and white space."""
        try:
            value, end = DECODER.raw_decode(self._text, place)
        except json.JSONDecodeError as error:
            # A text that is not closed reaches to the end, because it cannot hold a line end.
            place = len(self._text) if error.msg.startswith("Unterminated") else error.pos
            raise self._error(place, f"the file is not JSON: {error.msg}", _SYNTAX) from None
        except RecursionError:
            raise DataError("the JSON is nested too deeply", where=str(self._path), remedy="Flatten it.") from None
        return value, self.skip(end)

    def _expect(self, place: int, character: str) -> None:
        if self._text[place : place + 1] != character:
            raise self._error(place, f"the file is not JSON: {character!r} is missing", _SYNTAX)

    def _error(self, place: int, what: str, remedy: str) -> DataError:
        line = self._text.count("\n", 0, place) + 1
        column = place - self._text.rfind("\n", 0, place)
        is_end = place >= len(self._text)
        return DataError(
            what,
            where=f"{self._path}, line {line}, character {column}",
            got="the end of the file" if is_end else repr(self._text[max(0, place - 20) : place + 40]),
            remedy="Check that the file was written completely." if is_end else remedy,
        )

    def _lines_error(self) -> DataError:
        return DataError(
            "this is not one JSON document, but one on each line",
            where=str(self._path),
            remedy=f"These are JSON Lines: give the file the ending .jsonl (mv {self._path.name} "
            f"{self._path.with_suffix('.jsonl').name}).",
        )

    def _path_error(self, what: str, name: str, names: list[str] | None) -> DataError:
        return DataError(
            f"--json-path {self._dialect.json_path}: {what}",
            where=str(self._path),
            remedy="Name the member that holds the list of rows." if names is None else did_you_mean(name, names),
        )

    def _no_list_error(self, place: int, reached: str) -> DataError:
        """Return the error for a value that is no list of rows: it names the lists within, or how to convert it."""
        value, end = self._decode(place)
        if not reached and end < len(self._text):
            return self._lines_error()
        prefix = f"{reached}." if reached else ""
        lists = [f"{prefix}{name}" for name in _paths_to_lists(value)]
        expected = 'a list of rows: [{"text": ..., "label": ...}, ...]'
        got = "an object" if isinstance(value, NestedObject) else "one value"
        if lists:
            shown = ", ".join(lists[:_MOST_NAMES_SHOWN])
            remedy = f"Name the member that holds the rows: --json-path {lists[0]} (lists of rows are: {shown})."
        else:
            remedy = f"Write the rows as a list. {_conversion(self._path, _meant(value))}"
        what = f"the rows are not in {reached}" if reached else "the document is not a list of rows"
        return DataError(what, where=str(self._path), expected=expected, got=got, remedy=remedy)


_SYNTAX: Final = "Write valid JSON: names and texts in double quotes, no comma after the last item, no comments."


def _paths_to_lists(value: object, depth: int = 3) -> list[str]:
    """Return the paths of the members that are lists of objects or of lists."""
    if not isinstance(value, NestedObject) or not depth:
        return []
    found = []
    for name, member in value:
        if type(member) is list and member and isinstance(member[0], list):
            found.append(name)
        found += [f"{name}.{below}" for below in _paths_to_lists(member, depth - 1)]
    return found


def _meant(value: object) -> str:
    """Return the Python expression that makes rows of a document, by the shape of the document."""
    members = list(value) if isinstance(value, NestedObject) else []
    if members and all(type(member) is list for _, member in members):
        return "[dict(zip(document, values)) for values in zip(*document.values())]"
    if members and all(isinstance(member, NestedObject) for _, member in members):
        keys = {tuple(name for name, _ in member) for _, member in members if isinstance(member, NestedObject)}
        # pandas writes a column an object, {"text": {"0": ...}, "label": {"0": ...}}; others write an object a row.
        if len(members) <= _MOST_NAMES_SHOWN and len(keys) == 1 and all(name.isdigit() for name in keys.pop()):
            return "[dict(zip(document, row)) for row in zip(*(column.values() for column in document.values()))]"
        return "document.values()"
    return "document[...]"


def _conversion(path: Path, rows: str) -> str:
    """Return the lines of Python that write a document as JSON Lines. rows: the expression of its rows."""
    return (
        f"In Python: import json; document = json.load(open({path.name!r})); rows = {rows}; "
        f"open({path.with_suffix('.jsonl').name!r}, 'w').writelines(json.dumps(row) + '\\n' for row in rows)"
    )


@contextlib.contextmanager
def open_json_document_writer(stream: BinaryIO, source: Table, _: AddedColumns) -> Iterator["JsonDocumentWriter"]:
    """Write a list of objects to a binary stream: the rows given to the yielded writer, one a line."""
    with utf8_writer(stream) as text:
        writer = JsonDocumentWriter(JsonLinesWriter(text, source))
        yield writer
        text.write("\n]\n" if writer.has_rows else "[]\n")


class JsonDocumentWriter:
    """Writes a list of objects.

    Args:
        lines: writes the objects.
    """

    def __init__(self, lines: JsonLinesWriter) -> None:
        self._lines, self.has_rows = lines, False

    def write(self, chunk: Chunk, added: Mapping[str, Any]) -> None:
        """Append the rows of one chunk; see `Writer.write`."""
        for row in self._lines.objects(chunk, added):
            self._lines.text.write(f"{',' if self.has_rows else '['}\n{row}")
            self.has_rows = True


JSON_DOCUMENT: Final = Format(
    "json",
    open_json_document,
    open_json_document_writer,
    flags=frozenset({"encoding", "no_header", "json_path"}),
    fixed_columns=False,
)
