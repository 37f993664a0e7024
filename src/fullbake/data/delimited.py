"""CSV, TSV and tables named .txt: read with Python's csv module in strict mode, and written again.

This is slower than readers written in C (about 0.3 million rows a second). But at an unclosed quote, at `"a"x` and at
a row with too many fields it stops and names the line, where fast readers continue with wrong values. The delimiter,
the names of a file without a header, and whether quotes are text are what the caller says, never guessed.

Written files read back without any flag: UTF-8 without a byte order mark, with comma (CSV) or tab (TSV), LF, and quotes
where needed, whatever the source looked like.
"""

import contextlib
import csv
from collections.abc import Generator, Iterable, Iterator, Mapping
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, Final, TextIO

from fullbake.config.sections import Dialect
from fullbake.core.console import warn
from fullbake.core.errors import DataError, OutputError
from fullbake.data.headers import (
    delimiter_flag,
    looks_like_a_row,
    missing_column_error,
    row_for_header_error,
    separator_of_mark,
)
from fullbake.data.plain_text import blank_line_error, open_text, utf8_writer
from fullbake.data.quotes import QuoteWatch, lines_between, warn_of_kept_quotes
from fullbake.data.row_guard import QUOTES_ARE_TEXT, RowGuard
from fullbake.data.tables import (
    MAX_FIELD_CHARACTERS,
    AddedColumns,
    Chunk,
    Format,
    ReadOptions,
    RowBlock,
    Table,
    check_unique,
    empty_file_error,
    format_values,
    select_columns,
    split_blocks,
)

NumberedRows = Iterator[tuple[int, list[str]]]
Blocks = Generator[RowBlock[list[str]], None, None]

_BLOCK_ROWS: Final = 256
"""Rows that are checked at a time."""

_BLOCK_BYTES: Final = 2**20
"""A block ends when so many bytes were read, even if it has fewer rows."""


def open_delimited(path: Path, options: ReadOptions, *, name: str, delimiter: str | None) -> Table:
    """Open a CSV, TSV or .txt file; its header is read now, its rows when the table is read.

    Args:
        path: the file.
        options: the caller's options; their delimiter, if any, replaces `delimiter`.
        name: name of the format.
        delimiter: the format's usual delimiter; None where it has none.

    Raises:
        DataError: the delimiter is missing or not plain characters, the file is empty or a column is missing.
    """
    dialect = options.dialect
    if dialect.delimiter is None and delimiter is None:
        raise _plain_text_error(path)
    with contextlib.closing(read_delimited(path, dialect, delimiter or ",")) as rows:
        ((line,), (header,)) = next(rows)
    names = tuple(header)
    _check_wanted(path, line, names, options, delimiter or ",")
    # Spare columns without a name (`v1,v2,,,`) cannot be asked for, so they are read only to be written again.
    spare = {blank for blank in names if not blank.strip() and names.count(blank) > 1}
    columns = tuple(dict.fromkeys(column for column in options.columns or names if column not in spare))
    places = [(column, names.index(column)) for column in columns]
    spare_places = [place for place, column in enumerate(names) if column in spare]
    warnings = _Warnings()

    def read(size: int, _: bool) -> Iterator[Chunk]:
        rows = read_delimited(path, dialect, delimiter or ",", warnings)
        next(rows)  # the header
        for positions, held in split_blocks(rows, size, lambda block: sum(map(len, chain.from_iterable(block)))):
            if dialect.quoting == "none" and warnings.is_first("quotes"):
                warn_of_kept_quotes(path, held)
            if spare_places and options.columns is not None:
                _warn_of_spare_columns(path, warnings, spare_places, positions, held)
            values = {column: [row[place] for row in held] for column, place in places}
            yield Chunk(str(path), "line", values, positions, held)

    return Table(str(path), name, names, columns, "line", read, lambda chunk: iter(chunk.originals))


class _Warnings:
    """Remembers what a table was warned of; it may be read again and again."""

    def __init__(self) -> None:
        self._given: set[str] = set()

    def is_first(self, kind: str) -> bool:
        """Return True at the first call for a kind of warning."""
        is_new = kind not in self._given
        self._given.add(kind)
        return is_new


def _warn_of_spare_columns(
    path: Path, warnings: _Warnings, places: list[int], positions: list[int], rows: list[list[str]]
) -> None:
    """Warn once if a column without a name holds something, such as the rest of a text."""
    line = next((line for line, row in zip(positions, rows, strict=True) if any(row[p] for p in places)), None)
    if line is not None and warnings.is_first("spare columns"):
        warn(
            f"{path}: the {len(places)} columns without a name are left out, but hold something (the first in line "
            f"{line}). If that is the rest of a text, put the text into quotes."
        )


def read_delimited(path: Path, dialect: Dialect, usual: str, warnings: _Warnings | None = None) -> Blocks:
    """Read the rows of a CSV, TSV or .txt file, the header first, as a block of its own.

    A quote inside a quoted field is doubled. Lines end with LF or CRLF; a CR alone is refused outside quotes. Blank
    lines are refused, except after the last row of a table of several columns.

    Args:
        path: the file.
        dialect: how it is written. Its `no_header`, if any, is yielded as the header.
        usual: the delimiter where neither the dialect nor a first line `sep=;` names one.
        warnings: says whether to warn of quotes at the end; None warns of nothing.

    Yields:
        (line numbers where the rows start, fields of each row) of some rows at a time.

    Raises:
        DataError: the file is empty, or a row cannot be read, or has another number of fields than the header.
    """
    guard = RowGuard(path, dialect.encoding)
    with open_text(path, dialect.encoding, guard=guard) as handle:
        first_line = handle.readline()
        mark = separator_of_mark(first_line)
        delimiter = _delimiter_of(path, dialect, usual, mark)
        start = guard.row_start = 1 if mark is None else 2
        lines = guard.lines(handle if mark is not None or not first_line else chain([first_line], handle))
        watch = QuoteWatch(path, delimiter, dialect.encoding)
        blocks = (
            _split_rows(lines, delimiter, guard)
            if dialect.quoting == "none"
            else _check_quotes(_parse(lines, delimiter, guard), guard, watch)
        )
        header, blocks = _header(path, start, blocks, dialect.no_header)
        yield [header[0]], [header[1]]
        by = "the header has" if dialect.no_header is None else "--no-header names"
        yield from _check_widths(path, blocks, len(header[1]), (delimiter, by, dialect.quoting))
    if warnings is not None and dialect.quoting == "standard" and warnings.is_first("quotes"):
        watch.report()


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


_FLAGS: Final = frozenset({"delimiter", "encoding", "quoting", "no_header"})
CSV: Final = Format(
    "csv",
    partial(open_delimited, name="csv", delimiter=","),
    partial(open_delimited_writer, delimiter=","),
    flags=_FLAGS,
)
TSV: Final = Format(
    "tsv",
    partial(open_delimited, name="tsv", delimiter="\t"),
    partial(open_delimited_writer, delimiter="\t"),
    flags=_FLAGS,
)
TXT: Final = Format(
    "txt",
    partial(open_delimited, name="txt", delimiter=None),
    partial(open_delimited_writer, delimiter="\t"),
    flags=_FLAGS,
)


def _delimiter_of(path: Path, dialect: Dialect, usual: str, mark: str | None) -> str:
    """Return the delimiter of a file; raise DataError if it is no delimiter, or not that of the file's `sep=;`."""
    delimiter = dialect.delimiter or mark or usual
    if mark is not None and delimiter != mark:
        raise DataError(
            f"the first line is Excel's mark sep={mark}, so the fields are separated by {mark!r}",
            where=f"{path}, line 1",
            got=delimiter_flag(delimiter),
            remedy=f"Pass {delimiter_flag(mark)}, or leave --delimiter out.",
        )
    if (len(delimiter) != 1 and dialect.quoting == "standard") or set(delimiter) & set('"\r\n\0'):
        raise DataError(
            "this cannot be the delimiter",
            where=str(path),
            expected="one character that is neither a quote nor a line end (several ones only with --quoting none)",
            got=repr(delimiter),
            remedy=f"Pass {delimiter_flag(';')} for a semicolon, {delimiter_flag(chr(9))} for a tab.",
        )
    return delimiter


def _header(path: Path, line: int, blocks: Blocks, given: tuple[str, ...] | None) -> tuple[tuple[int, list[str]], Any]:
    """Return (line, names), where the names are the given ones or those of the first row, and the blocks after them.

    Args:
        path: the file.
        line: the number of its first line of rows.
        blocks: of its rows; the first one holds one row.
        given: the names that the caller gives, if any.
    """
    positions, rows = next(blocks, ([], []))
    if given is not None:
        if rows and [name.strip().lower() for name in rows[0]] == [name.lower() for name in given]:
            raise DataError(
                "the first line holds the names that --no-header gives",
                where=f"{path}, line {line}",
                got=", ".join(map(repr, rows[0])),
                remedy="Leave --no-header out.",
            )
        return (line - 1, list(given)), chain([(positions, rows)] if rows else [], blocks)
    if not rows:
        raise empty_file_error(path)
    _check_header(path, positions[0], rows[0])
    return (positions[0], rows[0]), blocks


def _check_quotes(blocks: Blocks, guard: RowGuard, watch: QuoteWatch) -> Blocks:
    """Pass on the rows; raise DataError at a quote after a space that may have meant to enclose a field."""
    for positions, rows in blocks:
        watch.check(positions, rows, guard.row_start)
        yield positions, rows
    watch.check_rest()


def _parse(lines: Iterable[str], delimiter: str, guard: RowGuard) -> Blocks:
    """Read rows whose fields may be quoted. The first block has one row; an error comes after the rows before it."""
    # The limit holds for the whole process, so it is only ever raised.
    csv.field_size_limit(max(csv.field_size_limit(), MAX_FIELD_CHARACTERS))
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    line, before = guard.row_start, guard.row_start - 1
    positions: list[int] = []
    rows: list[list[str]] = []
    size, limit = 1, 0
    try:
        for row in reader:
            positions.append(line)
            rows.append(row)
            guard.row_start = line = before + reader.line_num + 1
            if len(rows) == size or guard.bytes_read > limit:
                yield positions, rows
                positions, rows = [], []
                size, limit = _BLOCK_ROWS, guard.bytes_read + _BLOCK_BYTES
    except (csv.Error, DataError, UnicodeError) as error:
        if rows:
            yield positions, rows
        if not isinstance(error, csv.Error):
            raise
        held = lines_between(guard.path, guard.encoding, line, before + reader.line_num)
        raise _malformed_error(guard, held, str(error)) from None
    if rows:
        yield positions, rows


def _split_rows(lines: Iterable[str], delimiter: str, guard: RowGuard) -> Blocks:
    """Read rows in which a quote is a character like any other, as `_parse` does."""
    positions: list[int] = []
    rows: list[list[str]] = []
    size, limit = 1, 0
    try:
        for number, line in enumerate(lines, guard.row_start):
            text = line.removesuffix("\n").removesuffix("\r")
            if "\r" in text:
                raise _malformed_error(guard, [line], "new-line character")
            positions.append(number)
            rows.append(text.split(delimiter) if text else [])
            guard.row_start = number + 1
            if len(rows) == size or guard.bytes_read > limit:
                yield positions, rows
                positions, rows = [], []
                size, limit = _BLOCK_ROWS, guard.bytes_read + _BLOCK_BYTES
    except (DataError, UnicodeError):
        if rows:
            yield positions, rows
        raise
    if rows:
        yield positions, rows


def _check_wanted(path: Path, line: int, names: tuple[str, ...], options: ReadOptions, usual: str) -> None:
    """Raise DataError unless the header names each wanted column once; without wanted ones all that have a name are."""
    wanted = tuple(name for name in names if name.strip()) if options.columns is None else options.columns
    if all(name in names for name in wanted):
        check_unique([name for name in names if name in wanted], f"{path}, line {line}")
        return
    if options.dialect.no_header is not None:
        select_columns(f"{path}, columns of --no-header", names, wanted)
    raise missing_column_error(f"{path}, line {line}", names, options.dialect.delimiter or usual, wanted)


def _check_header(path: Path, line: int, names: list[str]) -> None:
    where = f"{path}, line {line}"
    if not names:
        raise DataError("the first line is blank", where=where, expected="the column names", remedy="Delete the line.")
    if names[0].startswith("\ufeff"):
        raise DataError(
            "a byte order mark remains after decoding",
            where=where,
            remedy="The file has two of them, or --encoding is wrong: utf-16-le keeps the mark, utf-16 removes it.",
        )
    named = [name for name in names if name.strip()]
    if len(set(named)) < len(named) and looks_like_a_row(named):
        raise row_for_header_error(where, names, (), "a name occurs twice")


def _check_widths(path: Path, blocks: Blocks, width: int, written: tuple[str, str, str]) -> Blocks:
    """Pass on the rows that have `width` fields; raise DataError at the first that has not.

    Args:
        path: the file.
        blocks: (lines, rows) of some rows at a time.
        width: the number of fields.
        written: the delimiter, what says the width, and the quoting, for errors.
    """
    blank = 0
    for positions, rows in blocks:
        if not blank and set(map(len, rows)) == {width}:
            yield positions, rows
            continue
        kept: RowBlock[list[str]] = [], []
        for line, row in zip(positions, rows, strict=True):
            if not row and width > 1:
                blank = blank or line  # an error only if a row follows
                continue
            if blank or not row:
                raise blank_line_error(path, blank or line)
            if len(row) != width:
                raise _wrong_width_error(f"{path}, line {line}", row, width, written)
            kept[0].append(line)
            kept[1].append(row)
        yield kept


def _wrong_width_error(where: str, row: list[str], width: int, written: tuple[str, str, str]) -> DataError:
    delimiter, by, quoting = written
    remedy = f"Quote a text that holds {delimiter!r} or a line end; name another delimiter by --delimiter."
    if quoting == "none":
        remedy = f"With --quoting none no text may hold {delimiter!r}. If texts are between quotes, leave the flag out."
    elif any("\n" in field or '"' in field for field in row):
        remedy += f" {QUOTES_ARE_TEXT}"
    return DataError(
        "the row is too long" if len(row) > width else "the row is too short",
        where=where,
        expected=f"{width} {'field' if width == 1 else 'fields'}, as {by}",
        got=f"{len(row)}: {delimiter.join(row)[:60]!r}",
        remedy=remedy,
    )


def _plain_text_error(path: Path) -> DataError:
    return DataError(
        "a .txt file is a table only if its delimiter is known",
        where=str(path),
        expected=f"the character between its columns, such as {delimiter_flag(chr(9))}",
        remedy="Pass --delimiter, and --no-header with the names of the columns if its first line is a row. A file "
        "with one text a line goes to stdin: fullbake predict BUNDLE < FILE.",
    )


def _malformed_error(guard: RowGuard, held: list[str], message: str) -> DataError:
    """Put an error of the csv module into our words.

    Args:
        guard: of the file; the current row is the one at fault.
        held: the lines of the row as far as it was read.
        message: what the csv module says.
    """
    where, last_line = f"{guard.path}, line {guard.row_start}", guard.row_start + max(0, len(held) - 1)
    if message.startswith("unexpected end of data"):
        return DataError(
            "a quote is never closed",
            where=where,
            expected='a closing " in the row that starts here',
            got=f"the end of the file, at line {last_line}",
            remedy=f'Close the quote; a quote of the text is doubled ("") inside quotes. {QUOTES_ARE_TEXT}',
        )
    if "expected after" in message:
        other = next((char for char in ";\t|" if guard.row_start == 1 and f'"{char}' in held[-1]), None)
        hint = "" if other is None else f" If the fields are separated by {other!r}, pass {delimiter_flag(other)}."
        if '\\"' in "".join(held):
            hint += (
                " Here quotes seem to be escaped by backslashes: in Python, pandas.read_csv(FILE, escapechar='\\\\')"
                ".to_csv(NEW_FILE, index=False) writes them doubled."
            )
        return DataError(
            "text after a closing quote",
            where=where,
            expected="the delimiter or the end of the row",
            got=f"other text, at line {last_line}",
            remedy='A quote that belongs to the text is doubled inside quotes: "say ""hi"" to her".'
            f"{hint} {QUOTES_ARE_TEXT}",
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
        return guard.too_long_error("field", f"{MAX_FIELD_CHARACTERS:,} characters")
    return DataError(f"the row cannot be read ({message})", where=where, remedy="Correct this row.")
