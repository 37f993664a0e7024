"""CSV and TSV: read with Python's csv module in strict mode, written so that they read back without any flag.

This is slower than readers written in C (about 0.3 million rows a second). But at an unclosed quote, at `"a"x` and at
a row with too many fields it stops and names the line, where fast readers continue with wrong values. The delimiter is
what the caller says, never guessed.

Written files are UTF-8 without a byte order mark, with comma (CSV) or tab (TSV), LF, and quotes where needed, whatever
the source looked like.
"""

import contextlib
import csv
from collections.abc import Generator, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final, TextIO

from fullbake.core.errors import DataError, OutputError
from fullbake.data.plain_text import blank_line_error, open_text, utf8_writer, without_nul
from fullbake.data.tables import (
    AddedColumns,
    Chunk,
    Format,
    ReadOptions,
    Table,
    check_unique,
    empty_file_error,
    format_values,
    select_columns,
    split_chunks,
)

MAX_FIELD_CHARACTERS: Final = 2**28
"""The csv module's own limit, 131,072, is less than long documents have. With no limit at all, an unclosed quote would
read the rest of the file into memory."""


def open_delimited(path: Path, options: ReadOptions, *, name: str, delimiter: str) -> Table:
    """Open a CSV or TSV file; its header is read now, its rows when the table is read.

    Args:
        path: the file.
        options: the caller's options; their delimiter, if any, replaces `delimiter`.
        name: name of the format.
        delimiter: the format's usual delimiter.

    Raises:
        DataError: the delimiter is not one plain character, the file is empty or a column is missing.
    """
    delimiter = delimiter if options.delimiter is None else options.delimiter
    _check_delimiter(path, delimiter)
    with contextlib.closing(read_delimited(path, delimiter, options.encoding)) as rows:
        names = tuple(next(rows)[1])
    hint = " The first line has to hold the column names, separated by the delimiter (see --delimiter)."
    columns = select_columns(f"{path}, line 1", names, options.columns, hint)
    places = [(name, names.index(name)) for name in columns]

    def read(size: int, _: bool) -> Iterator[Chunk]:
        rows = read_delimited(path, delimiter, options.encoding)
        next(rows)  # the header
        for positions, held in split_chunks(rows, size, lambda row: sum(map(len, row))):
            values = {name: [row[place] for row in held] for name, place in places}
            yield Chunk(str(path), "line", values, positions, held)

    return Table(str(path), name, names, columns, "line", read, lambda chunk: iter(chunk.originals))


def read_delimited(path: Path, delimiter: str, encoding: str) -> Generator[tuple[int, list[str]], None, None]:
    """Read the rows of a CSV or TSV file, the header first.

    A quote inside a quoted field is doubled. Lines end with LF or CRLF; a CR alone is refused outside quotes. Blank
    lines are refused, except after the last row of a table of several columns.

    Yields:
        (line number where the row starts, fields) of every row.

    Raises:
        DataError: the file is empty, or a row cannot be read, or has another number of fields than the header.
    """
    with open_text(path, encoding) as handle:
        rows = _parse(path, handle, delimiter)
        first = next(rows, None)
        if first is None:
            raise empty_file_error(path)
        _check_header(path, first[1])
        yield first
        yield from _check_widths(path, rows, len(first[1]), delimiter)


@contextlib.contextmanager
def open_delimited_writer(
    stream: BinaryIO, source: Table, added: AddedColumns, *, delimiter: str
) -> Iterator["DelimitedWriter"]:
    """Write a CSV or TSV file to a binary stream: a header, then the rows given to the yielded writer."""
    with utf8_writer(stream) as text:
        yield DelimitedWriter(text, source, added, delimiter)


class DelimitedWriter:
    """Writes CSV or TSV rows.

    Args:
        text: where to write; nothing may change its line ends.
        source: the table whose rows are written.
        added: the columns that come after those of the source.
        delimiter: between fields.
    """

    def __init__(self, text: TextIO, source: Table, added: AddedColumns, delimiter: str) -> None:
        self._source = source
        self._plain = csv.writer(text, delimiter=delimiter, lineterminator="\n")
        self._quoted = csv.writer(text, delimiter=delimiter, lineterminator="\n", quoting=csv.QUOTE_ALL)
        self._write_row([*source.names, *added])

    def write(self, chunk: Chunk, added: Mapping[str, Any]) -> None:
        """Append the rows of one chunk; see `Writer.write`."""
        columns = [format_values(values) for values in added.values()]
        for row, *new_fields in zip(self._source.string_rows(chunk), *columns, strict=True):
            self._write_row([*row, *new_fields])

    def _write_row(self, row: list[str]) -> None:
        if any("\0" in field for field in row):
            raise OutputError(
                "CSV and TSV cannot hold a NUL character",
                where=self._source.source,
                remedy="Write .jsonl or .parquet instead.",
            )
        # Python 3.11 writes a CR alone without quotes, and no strict reader accepts that: quote the whole row.
        (self._quoted if any("\r" in field for field in row) else self._plain).writerow(row)


CSV: Final = Format(
    "csv",
    partial(open_delimited, name="csv", delimiter=","),
    partial(open_delimited_writer, delimiter=","),
    has_delimiter=True,
)
TSV: Final = Format(
    "tsv",
    partial(open_delimited, name="tsv", delimiter="\t"),
    partial(open_delimited_writer, delimiter="\t"),
    has_delimiter=True,
)


def _check_delimiter(path: Path, delimiter: str) -> None:
    if len(delimiter) != 1 or delimiter in '"\r\n\0\ufeff':
        raise DataError(
            "this cannot be a delimiter",
            where=str(path),
            expected="one character that is neither a quote nor a line end",
            got=repr(delimiter),
            remedy="Pass --delimiter ';' for a semicolon, --delimiter $'\\t' for a tab.",
        )


def _parse(path: Path, handle: TextIO, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    # The limit holds for the whole process, so it is only ever raised.
    csv.field_size_limit(max(csv.field_size_limit(), MAX_FIELD_CHARACTERS))
    reader = csv.reader(without_nul(path, handle), delimiter=delimiter, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise _malformed_error(path, line, reader.line_num, str(error)) from None
        yield line, row


def _check_header(path: Path, names: list[str]) -> None:
    where = f"{path}, line 1"
    if not names:
        raise DataError("the first line is blank", where=where, expected="the column names", remedy="Delete the line.")
    if names[0].startswith("\ufeff"):
        raise DataError(
            "a byte order mark remains after decoding",
            where=where,
            remedy="The file has two of them, or --encoding is wrong: utf-16-le keeps the mark, utf-16 removes it.",
        )
    check_unique(names, where)


def _check_widths(
    path: Path, rows: Iterator[tuple[int, list[str]]], width: int, delimiter: str
) -> Iterator[tuple[int, list[str]]]:
    """Pass on the rows that have `width` fields; raise DataError at the first that has not."""
    blank = 0
    for line, row in rows:
        if not row and width > 1:
            blank = blank or line  # an error only if a row follows
            continue
        if blank or not row:
            raise blank_line_error(path, blank or line)
        if len(row) != width:
            raise _wrong_width_error(f"{path}, line {line}", row, width, delimiter)
        yield line, row


def _wrong_width_error(where: str, row: list[str], width: int, delimiter: str) -> DataError:
    return DataError(
        "the row is too long" if len(row) > width else "the row is too short",
        where=where,
        expected=f"{width} {'field' if width == 1 else 'fields'}, as the header has",
        got=f"{len(row)}: {delimiter.join(row)[:60]!r}",
        remedy=f"Quote a text that holds {delimiter!r} or a line end; name another delimiter by --delimiter.",
    )


def _malformed_error(path: Path, line: int, last_line: int, message: str) -> DataError:
    """Put an error of the csv module into our words.

    Args:
        path: the file.
        line: where the row starts.
        last_line: where reading stopped.
        message: what the csv module says.
    """
    where = f"{path}, line {line}"
    if message.startswith("unexpected end of data"):
        return DataError(
            "a quote is never closed",
            where=where,
            expected='a closing " in the row that starts here',
            got=f"the end of the file, at line {last_line}",
            remedy='Close the quote; a quote that belongs to the text is doubled ("") inside quotes.',
        )
    if "expected after" in message:
        return DataError(
            "text after a closing quote",
            where=where,
            expected="the delimiter or the end of the row",
            got=f"other text, at line {last_line}",
            remedy='A quote that belongs to the text is doubled inside quotes: "say ""hi"" to her".',
        )
    if message.startswith("new-line character"):
        return DataError(
            "a carriage return alone, outside quotes",
            where=where,
            expected="lines that end with LF or CRLF",
            got="CR",
            remedy="Save the file with Unix or Windows line ends, or quote the field that holds the CR.",
        )
    if message.startswith("field larger"):
        return DataError(
            "a field that is too long",
            where=where,
            expected=f"at most {MAX_FIELD_CHARACTERS:,} characters",
            remedy="Look for a quote that is never closed, or split the document.",
        )
    return DataError(f"the row cannot be read ({message})", where=where, remedy="Correct this row.")
