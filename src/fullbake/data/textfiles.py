"""Text files as rows: CSV and TSV, JSON Lines, plain lines; each row with the number of its first line.

Python's own csv module in strict mode and json a line at a time: slower than the readers written in C (about
0.3 million rows a second), but at an unclosed quote, `"a"x`, a row too wide or a name twice in one JSON
object these stop, and the fast ones go on with other values. Nothing is guessed: encoding and delimiter
are what the caller says. A NUL byte is refused, since it means a damaged file or UTF-16 read as UTF-8.
"""

import codecs
import contextlib
import csv
import io
import json
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, TextIO

from fullbake.core.errors import DataError
from fullbake.data.tables import open_binary

LARGEST_FIELD: Final = 2**28
"""Characters. The csv module's own limit, 131,072, is less than long documents have; with no limit at all an
unclosed quote would pull the rest of the file into memory."""


class Missing:
    """Stands for what JSON cannot hold and Python writes all the same: `NaN`, `Infinity` and `-Infinity`."""


class Nested(list[tuple[str, object]]):
    """A JSON object inside a row, as pairs."""


@dataclass(frozen=True)
class JsonRow:
    """raw: the line as it stands. values: by name; numbers as literals, objects as Nested, NaN as Missing."""

    raw: str
    values: dict[str, object]


def read_delimited(path: Path, delimiter: str, encoding: str) -> Generator[tuple[int, list[str]], None, None]:
    """(line, fields) of every row of a CSV or TSV file, the header first; all rows are as wide as the header.

    Quotes are doubled inside quotes. Lines end with LF or CRLF; a CR alone is refused outside quotes. Blank
    lines are refused, except after the last row of a table of several columns.
    """
    with open_text(path, encoding) as handle:
        rows = _parse(path, handle, delimiter)
        first = next(rows, None)
        if first is None:
            raise empty_file_error(path)
        _check_header(path, first[1])
        yield first
        yield from _check_widths(path, rows, first[1], delimiter)


def read_json_lines(path: Path, encoding: str) -> Generator[tuple[int, JsonRow], None, None]:
    """(line, row) of every line of a JSON Lines file. Blank lines are refused, except at the end."""
    blank = 0
    with open_text(path, encoding) as handle:
        for number, line in enumerate(handle, start=1):
            if not line.strip():
                blank = blank or number
                continue
            if blank:
                raise _blank_line_error(path, blank)
            yield number, _parse_json(line, f"{path}, line {number}")


def read_plain_lines(stream: BinaryIO, name: str) -> Iterator[tuple[int, str]]:
    """(line, text) of every line of a UTF-8 stream, blank ones too, without the LF or CRLF that ends it."""
    for number, raw in enumerate(stream, start=1):
        where = f"{name}, line {number}"
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise _undecodable_error(where, raw[error.start : error.start + 1], "utf-8") from None
        if "\0" in line:
            raise _nul_error(where)
        yield number, line.removesuffix("\n").removesuffix("\r")


def read_text_lines(path: Path, encoding: str, longest: int) -> Generator[tuple[int, str], None, None]:
    """(line, text) of every line of a text file, blank ones too, without its line end. A line of more than `longest`
    characters is refused before it is read to its end."""
    with open_text(path, encoding) as handle:
        number = 0
        while line := handle.readline(longest + 1):
            number += 1
            where = f"{path}, line {number}"
            if "\0" in line:
                raise _nul_error(f"{where}{_byte_of_nul(path, encoding)}")
            if len(line) > longest and not line.endswith("\n"):
                raise too_long_error(where, longest)
            yield number, line.removesuffix("\n").removesuffix("\r")


def too_long_error(where: str, longest: int) -> DataError:
    """The error for a stretch of text that no author wrote as one."""
    return DataError(
        "a paragraph that is too long",
        where=where,
        expected=f"at most {longest:,} characters",
        remedy="Is it text? Break it into lines; a blank line parts documents.",
    )


@contextlib.contextmanager
def open_text(path: Path, encoding: str) -> Iterator[TextIO]:
    """Open for reading, split at LF alone; a byte that is not `encoding` raises DataError with its offset.

    A byte order mark is dropped from UTF-8; UTF-16 and UTF-32 need one unless they name a byte order.
    """
    codec = _codec(path, encoding)
    try:
        with open_binary(path) as raw, io.TextIOWrapper(raw, encoding=codec, newline="\n") as handle:
            yield handle
    except UnicodeError:
        raise _find_undecodable(path, encoding, codec) from None


def empty_file_error(path: Path) -> DataError:
    """The error for a file without a single row or name."""
    return DataError("the file is empty", where=str(path), remedy="Check that it was written whole.")


def _codec(path: Path, encoding: str) -> str:
    try:
        codec = codecs.lookup(encoding)
        b"".decode(codec.name)
    except (LookupError, UnicodeError):
        raise DataError(
            f"there is no encoding {encoding!r}",
            where=str(path),
            remedy="Pass --encoding with one that Python knows: utf-8, utf-16, latin-1, cp1252, gb18030.",
        ) from None
    return "utf-8-sig" if codec.name == "utf-8" else codec.name


def _find_undecodable(path: Path, encoding: str, codec: str) -> DataError:
    """Read again, block by block, to say where; the reader above decodes ahead of its rows."""
    decoder = codecs.getincrementaldecoder(codec)()
    line, end = 1, 0
    with open_binary(path) as handle:
        while True:
            block = handle.read(1 << 16)
            end += len(block)
            try:
                line += decoder.decode(block, final=not block).count("\n")
            except UnicodeDecodeError as error:
                line += error.object[: error.start].decode(error.encoding, "ignore").count("\n")
                byte = end - len(error.object) + error.start
                where = f"{path}, line {line}, byte {byte}"
                return _undecodable_error(where, error.object[error.start : error.start + 1], encoding)
            except UnicodeError as error:
                return _no_byte_order(path, encoding, error)
            if not block:
                raise AssertionError(f"{path} changed while it was read")


def _no_byte_order(path: Path, encoding: str, error: UnicodeError) -> DataError:
    return DataError(
        f"the file is not {encoding}",
        where=str(path),
        got=str(error),
        remedy="Name the file's encoding by --encoding; utf-16-le and utf-16-be need no byte order mark.",
    )


def _undecodable_error(where: str, byte: bytes, encoding: str) -> DataError:
    return DataError(
        f"this is not {encoding}",
        where=where,
        expected=f"text in {encoding}",
        got=f"the byte 0x{byte.hex()}",
        remedy="Name its encoding by --encoding (utf-16, latin-1, cp1252, gb18030), or save it as UTF-8.",
    )


def _nul_error(where: str) -> DataError:
    return DataError(
        "a NUL character",
        where=where,
        expected="text",
        got="U+0000",
        remedy="The file is damaged, or it is UTF-16: then pass --encoding utf-16 (or utf-16-le, utf-16-be).",
    )


def _byte_of_nul(path: Path, encoding: str) -> str:
    """ ", byte 812": where the first one stands, in encodings that write it as one zero byte."""
    if len("\0\0".encode(encoding)) - len("\0".encode(encoding)) != 1:
        return ""
    before = 0
    with open_binary(path) as handle:
        while block := handle.read(1 << 16):
            if b"\0" in block:
                return f", byte {before + block.index(0)}"
            before += len(block)
    return ""


def _parse(path: Path, handle: TextIO, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    _raise_field_limit()
    reader = csv.reader(_without_nul(path, handle), delimiter=delimiter, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise _malformed_error(path, line, reader.line_num, str(error)) from None
        yield line, row


def _raise_field_limit() -> None:
    """The limit is one for the whole process: only ever raise it."""
    if csv.field_size_limit() < LARGEST_FIELD:
        csv.field_size_limit(LARGEST_FIELD)


def _without_nul(path: Path, lines: Iterable[str]) -> Iterator[str]:
    for number, line in enumerate(lines, start=1):
        if "\0" in line:
            raise _nul_error(f"{path}, line {number}")
        yield line


def _malformed_error(path: Path, line: int, last: int, message: str) -> DataError:
    """The csv module's message in our words; `line` is the row's first, `last` where reading stopped."""
    where = f"{path}, line {line}"
    if message.startswith("unexpected end of data"):
        return DataError(
            "a quote that is never closed",
            where=where,
            expected='a closing " in the row that starts here',
            got=f"the end of the file, at line {last}",
            remedy='Close the quote; a quote that belongs to the text is doubled ("") inside quotes.',
        )
    if "expected after" in message:
        return DataError(
            "text after a closing quote",
            where=where,
            expected="the delimiter or the end of the row",
            got=f"other text, at line {last}",
            remedy='A quote that belongs to the text is doubled inside quotes: "say ""hi"" to her".',
        )
    if message.startswith("new-line character"):
        return DataError(
            "a carriage return alone, outside quotes",
            where=where,
            expected="lines that end with LF or CRLF",
            got="CR",
            remedy="Save the file with Unix or Windows line ends, or quote the field the CR belongs to.",
        )
    if message.startswith("field larger"):
        return DataError(
            "a field that is too long",
            where=where,
            expected=f"at most {LARGEST_FIELD:,} characters",
            remedy="Look for a quote that is never closed, or split the document.",
        )
    return DataError(f"the row cannot be read ({message})", where=where, remedy="Mend this row.")


def _check_header(path: Path, names: list[str]) -> None:
    where = f"{path}, line 1"
    if not names:
        raise DataError(
            "the first line is blank", where=where, expected="the columns' names", remedy="Delete the line."
        )
    if names[0].startswith("\ufeff"):
        raise DataError(
            "a byte order mark that is left over after decoding",
            where=where,
            remedy="The file has two, or --encoding is not right: utf-16-le keeps the mark, utf-16 drops it.",
        )
    check_unique(names, where)


def check_unique(names: Iterable[str], where: str) -> None:
    """Refuse a table, or a JSON object, in which one name stands twice."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise DataError(
                f"the name {name!r} stands twice",
                where=where,
                expected="each name once",
                remedy="Rename one of the two.",
            )
        seen.add(name)


def _check_widths(
    path: Path, rows: Iterator[tuple[int, list[str]]], names: list[str], delimiter: str
) -> Iterator[tuple[int, list[str]]]:
    width, blank = len(names), 0
    for line, row in rows:
        if not row and width > 1:
            blank = blank or line
            continue
        if blank or not row:
            raise _blank_line_error(path, blank or line)
        if len(row) != width:
            raise _wrong_width_error(f"{path}, line {line}", row, width, delimiter)
        yield line, row


def _blank_line_error(path: Path, line: int) -> DataError:
    return DataError(
        "a blank line",
        where=f"{path}, line {line}",
        expected="a row",
        remedy='Delete the line; an empty text in a table of one column is written "".',
    )


def _wrong_width_error(where: str, row: list[str], width: int, delimiter: str) -> DataError:
    start = delimiter.join(row)[:60]
    return DataError(
        "the row is too long" if len(row) > width else "the row is too short",
        where=where,
        expected=f"{width} {'field' if width == 1 else 'fields'}, as the header has",
        got=f"{len(row)}: {start!r}",
        remedy=f"Quote a text that holds {delimiter!r} or a line end; name another delimiter by --delimiter.",
    )


def _parse_json(line: str, where: str) -> JsonRow:
    try:
        pairs = _decoder.decode(line.rstrip("\r\n"))
    except json.JSONDecodeError as error:
        raise _bad_json_error(where, error, cut=not line.endswith("\n")) from None
    except RecursionError:
        raise DataError("the JSON is nested too deeply", where=where, remedy="Flatten this row.") from None
    if not isinstance(pairs, Nested):
        raise DataError(
            "the line is JSON, but not an object",
            where=where,
            expected='an object: {"text": ..., "label": ...}',
            got=line[:60].strip(),
            remedy="Write one object a line.",
        )
    return JsonRow(line.strip(), _unique_values(pairs, line, where))


def _unique_values(pairs: Nested, line: str, where: str) -> dict[str, object]:
    values: dict[str, object] = dict(pairs)
    if len(values) != len(pairs):
        check_unique((name for name, _ in pairs), where)
    if "\\u" in line:
        _check_surrogates(values, where)
    return values


def _check_surrogates(values: dict[str, object], where: str) -> None:
    for name, value in values.items():
        for text in (name, value):
            if isinstance(text, str) and not _is_unicode(text):
                raise DataError(
                    f"field {name!r} holds half of a surrogate pair",
                    where=where,
                    expected="whole characters",
                    got=ascii(text)[:60],
                    remedy="The text was cut within a character when it was written; mend this row.",
                )


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _bad_json_error(where: str, error: json.JSONDecodeError, *, cut: bool) -> DataError:
    remedy = "The file ends within this line; was it written whole?" if cut else "One whole object a line."
    return DataError(
        "the line is not JSON",
        where=f"{where}, character {error.pos + 1}",
        expected="an object",
        got=f"{error.msg}: {error.doc[max(0, error.pos - 20) : error.pos + 40]!r}",
        remedy=remedy,
    )


def _missing(_: str) -> Missing:
    return Missing()


_decoder = json.JSONDecoder(object_pairs_hook=Nested, parse_int=str, parse_float=str, parse_constant=_missing)
