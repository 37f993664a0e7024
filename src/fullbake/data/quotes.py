"""Quotes in CSV and TSV that are likely not what a reader takes them for.

A quotation that begins a field of a GLUE-like TSV and ends in another row joins these rows to one, without any error.
And a quote after a delimiter and a space does not begin a quoted field, so a line end within it splits the row. Both
are looked for in the few rows that can hold them, so that ordinary rows cost next to nothing.
"""

import re
from collections import Counter, deque
from collections.abc import Sequence
from functools import partial
from itertools import compress, islice, zip_longest
from operator import itemgetter
from pathlib import Path
from typing import Final

from fullbake.core.console import warn
from fullbake.core.errors import DataError
from fullbake.data.plain_text import open_text
from fullbake.data.row_guard import QUOTES_ARE_TEXT
from fullbake.data.tables import MAX_ROW_CHARACTERS

SPACE_BEFORE_QUOTE: Final = frozenset({' "', '\t"', "  ", "\t\t", " \t", "\t "})
"""Beginnings of fields that may be followed by a quote. They are looked for first, because most fields have none."""

_CHECKED_AT_ONCE: Final = 8
"""Rows that are looked up in the file as soon as they are suspected; later ones wait for the end of the file."""

_SAMPLE_LINES: Final = 1000
"""First lines of the file that show which values, such as labels, occur again and again."""

_first_two: Final = itemgetter(slice(2))
_begins_with_spaces: Final = SPACE_BEFORE_QUOTE.__contains__

_QUOTED: Final = re.compile(r'"[^"]*(?:""[^"]*)*"')


class QuoteWatch:
    """Looks at the rows whose quotes may be text.

    Args:
        path: the file.
        delimiter: between its fields.
        encoding: of the file.
    """

    def __init__(self, path: Path, delimiter: str, encoding: str) -> None:
        self._path, self._delimiter, self._encoding = path, delimiter, encoding
        self._suspected: list[tuple[int, int]] = []
        self._common_values: list[set[str]] | None = None
        self._joined_rows, self._joined_lines, self._first = 0, 0, 0

    def check(self, positions: Sequence[int], rows: Sequence[Sequence[str]], end: int) -> None:
        """Look at rows as they were read: for several rows in one, and for quotes after spaces.

        Args:
            positions: the number of each row's first line.
            rows: their fields.
            end: the number of the line after the last row.

        Raises:
            DataError: a field begins with white space and a quote that may have meant to enclose it.
        """
        ends = [*positions[1:], end]
        if end - positions[0] > len(rows):
            for row, line, after in zip(rows, positions, ends, strict=True):
                if after > line + 1:
                    # Most rows of several lines do not begin like a row of one line, which their first field shows.
                    first_end = row[0].find("\n")
                    if first_end < 0 or row[0].count(self._delimiter, 0, first_end) == len(row) - 1:
                        self._check_lines(line, after - line, row)
        suspected: set[int] = set()
        for column in zip_longest(*rows, fillvalue=""):
            suspected.update(compress(range(len(rows)), map(_begins_with_spaces, map(_first_two, column))))
        for place in sorted(suspected):
            self._check_spaces(positions[place], ends[place] - 1, rows[place])

    def _check_spaces(self, line: int, last: int, row: Sequence[str]) -> None:
        """Look at a row with fields that begin with white space. line, last: the numbers of its lines."""
        # A field that holds a delimiter or a line end was within quotes.
        if any(
            _may_mean_to_enclose(field, self._delimiter) and self._delimiter not in field and "\n" not in field
            for field in row
            if field[:2] in SPACE_BEFORE_QUOTE
        ):
            self._suspected.append((line, last))
            if len(self._suspected) <= _CHECKED_AT_ONCE:
                self._check_spelling(line, lines_between(self._path, self._encoding, line, last))

    def check_rest(self) -> None:
        """Look at the suspected rows that were not looked at yet; call it at the end of the file.

        Raises:
            DataError: see `check`.
        """
        waiting = self._suspected[_CHECKED_AT_ONCE:]
        if not waiting:
            return
        with open_text(self._path, self._encoding) as handle:
            read = 0
            for line, last in dict.fromkeys(waiting):
                deque(islice(handle, line - 1 - read), maxlen=0)  # skips lines without a step in Python for each
                self._check_spelling(line, list(islice(handle, last + 1 - line)))
                read = last

    def _check_lines(self, line: int, lines: int, row: Sequence[str]) -> None:
        """Look at a row of several lines. line: the number of the first one."""
        # Between the fields of the row are all its delimiters, whatever stood within quotes.
        joined = self._delimiter.join(row)
        # In several rows each line has as many delimiters. Few texts have so, which two counts show.
        if joined.count(self._delimiter) == (len(row) - 1) * (joined.count("\n") + 1) and self._is_joined(row, joined):
            self._first = self._first or line
            self._joined_rows += 1
            self._joined_lines += lines

    def report(self) -> None:
        """Warn of the rows that look like several ones joined by quotes; call it at the end of the file."""
        if not self._joined_rows:
            return
        rows = "1 row holds" if self._joined_rows == 1 else f"{self._joined_rows:,} rows hold"
        warn(
            f"{self._path}: {rows} a quoted field with line ends that look like those between rows (the first in line "
            f"{self._first}): {self._joined_lines:,} lines of the file became "
            f"{self._joined_rows:,} row{'' if self._joined_rows == 1 else 's'}. {QUOTES_ARE_TEXT}"
        )

    def _check_spelling(self, line: int, lines: Sequence[str]) -> None:
        raw = "".join(lines)
        if _has_quote_after_space(raw, self._delimiter):
            raise DataError(
                "a quote after a space does not begin a quoted field",
                where=f"{self._path}, line {line}",
                expected="a quote right after the delimiter",
                got=repr(raw.strip()[:60]),
                remedy=f"Delete the space before the quote, or put the whole field into quotes. {QUOTES_ARE_TEXT}",
            )

    def _is_joined(self, row: Sequence[str], joined: str) -> bool:
        """Return True if a row of several lines looks like several rows between two quotes that are text."""
        lines, width = joined.split("\n"), len(row)
        if width < 2 or any(line.count(self._delimiter) != width - 1 for line in lines):
            return False
        if self._delimiter == "\t":
            return True
        fields = [line.split(self._delimiter) for line in lines]
        # Line ends and commas are common in a quoted text. A label in its place at the end of each line is not.
        return any(
            all(value.strip('"\r') in common for value in column)
            for column, common in zip(zip(*fields, strict=True), self._values_by_column(width), strict=True)
        )

    def _values_by_column(self, width: int) -> list[set[str]]:
        """Return the values of each column that occur several times in the first lines, where no quote is read."""
        if self._common_values is None:
            counts: list[Counter[str]] = [Counter() for _ in range(width)]
            with open_text(self._path, self._encoding) as handle:
                lines = iter(partial(handle.readline, MAX_ROW_CHARACTERS), "")
                for line, _ in zip(lines, range(_SAMPLE_LINES), strict=False):
                    fields = line.rstrip("\r\n").split(self._delimiter)
                    for count, value in zip(counts, fields if len(fields) == width else (), strict=False):
                        count[value.strip('"')] += 1
            self._common_values = [
                {value for value, times in count.items() if times > 1 and value.strip()} for count in counts
            ]
        return self._common_values


def lines_between(path: Path, encoding: str, first: int, last: int) -> list[str]:
    """Return some lines of a file with their ends. first, last: their numbers from 1."""
    with open_text(path, encoding) as handle:
        return list(islice(handle, first - 1, last))


def warn_of_kept_quotes(path: Path, rows: Sequence[Sequence[str]]) -> None:
    """Warn if quotes were kept as text although most rows have a field between quotes."""
    quoted = sum(any(len(field) > 1 and field[0] == field[-1] == '"' for field in row) for row in rows)
    if quoted > len(rows) / 2:
        warn(
            f"{path}: {quoted:,} of the first {len(rows):,} rows have a field between quotes, and --quoting none keeps "
            "these quotes. If they only enclose the field, leave --quoting none out."
        )


def _has_quote_after_space(raw: str, delimiter: str) -> bool:
    """Return True if an unquoted field of a row begins with white space and a quote that may have meant to enclose it.

    Where the quotes within the field are even, they are part of a text (` "Hello" he said`), unless they enclose it.
    """
    place = 0
    while place < len(raw):
        if raw[place] == '"':
            found = _QUOTED.match(raw, place)
            place = len(raw) if found is None else found.end()
        end = raw.find(delimiter, place)
        end = len(raw) if end < 0 else end
        field = raw[place:end].rstrip("\r\n")
        if field[:1] in (" ", "\t") and _may_mean_to_enclose(field, delimiter):
            return True
        place = end + 1
    return False


def _may_mean_to_enclose(field: str, delimiter: str) -> bool:
    """Return True if a quote at the beginning of a field, after white space, encloses the field or is never closed."""
    if not field.lstrip(" \t").startswith('"'):
        return False
    encloses = delimiter != "\t" and field.rstrip(" \t").endswith('"')
    return encloses or field.count('"') % 2 == 1
