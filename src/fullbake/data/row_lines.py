"""The lines of a text file whose rows may have several lines, read in blocks, with those of the current row at hand.

Errors and warnings about quotes need a row as the file holds it. To keep the lines of each row would cost as much as
reading them, so they are looked up when they are needed. Limits, NUL characters and quotes after spaces are looked for
block by block.
"""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TextIO

from fullbake.core.errors import DataError
from fullbake.data.plain_text import nul_error
from fullbake.data.tables import MAX_ROW_CHARACTERS

_BLOCK: Final = 1 << 18
"""Characters that are read at once."""

_MAX_ROW_LINES: Final = 2**18
"""A text of 16 million characters has about so many lines."""

QUOTES_ARE_TEXT: Final = "If quotes are part of the text here, as in the TSV files of GLUE, pass --quoting none."
"""The remedy that every error and warning about stray quotes names."""


class RowLines:
    """Iterates over the lines of a file.

    Args:
        handle: the open file, whose lines end at LF.
        path: the file, for errors.
        encoding: that it is read in, for errors.
        delimiter: between fields.
        start: the number of the first line that is left to read.
        head: what was read of that line already.
    """

    def __init__(
        self, handle: TextIO, path: Path, encoding: str, delimiter: str, *, start: int = 1, head: str = ""
    ) -> None:
        self.path, self.delimiter = path, delimiter
        self.row_start = start
        """The number of the first line of the current row; whoever iterates sets it. Earlier lines are forgotten."""
        self._handle, self._encoding, self._head = handle, encoding, head
        self._suspects: set[int] = set()  # numbers of lines with a quote after a delimiter and white space
        self._first = start  # the number of the first of the lines that are held
        self._lines: list[str] = []

    def __iter__(self) -> Iterator[str]:
        """Yield the lines with their ends.

        Raises:
            DataError: a NUL character, or a row that is too long.
        """
        rest = self._head
        while block := self._handle.read(_BLOCK):
            cut = block.rfind("\n") + 1
            text, rest = (rest + block[:cut], block[cut:]) if cut else ("", rest + block)
            yield from self._add(text, len(rest))
        yield from self._add(rest, 0)

    def of_row(self, last: int) -> list[str]:
        """Return the lines of the current row. last: the number of its last line."""
        return self._lines[self.row_start - self._first : last + 1 - self._first]

    def has_suspects(self, last: int) -> bool:
        """Return True if a line of the current row is one of the suspects. last: the number of its last line."""
        return bool(self._suspects) and not self._suspects.isdisjoint(range(self.row_start, last + 1))

    def _add(self, text: str, rest: int) -> list[str]:
        """Add whole lines, and return them. rest: the length of the line that has no end yet."""
        del self._lines[: self.row_start - self._first]
        self._first = self.row_start
        if sum(map(len, self._lines)) + rest > MAX_ROW_CHARACTERS:
            raise self.too_long_error("row", f"{MAX_ROW_CHARACTERS:,} characters")
        if len(self._lines) > _MAX_ROW_LINES:
            raise self.too_long_error("row", f"{_MAX_ROW_LINES:,} lines")
        number = self._first + len(self._lines)
        if "\0" in text:
            line = number + text.count("\n", 0, text.index("\0"))
            raise nul_error(f"{self.path}, line {line}", self.path, self._encoding)
        self._find_suspects(text, number)
        lines = io.StringIO(text, newline="\n").readlines()
        self._lines += lines
        return lines

    def too_long_error(self, what: str, limit: str) -> DataError:
        """Return the error for a row, or a field of the current row, that is too long."""
        return DataError(
            f"a {what} that is too long",
            where=f"{self.path}, line {self.row_start}",
            expected=f"at most {limit}",
            remedy=f"Look for a quote that is never closed, or split the document. {QUOTES_ARE_TEXT}",
        )

    def _find_suspects(self, text: str, number: int) -> None:
        """Add the suspects of some lines. number: that of the first line."""
        self._suspects = {line for line in self._suspects if line >= self.row_start}
        counted, place = 0, text.find(' "')
        while place >= 0:
            start = place
            while start and text[start - 1] in " \t" and text[start - 1] != self.delimiter:
                start -= 1
            if not start or text[start - 1] in ("\n", self.delimiter):
                number += text.count("\n", counted, place)
                counted = place
                self._suspects.add(number)
            place = text.find(' "', place + 1)
