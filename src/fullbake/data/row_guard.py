"""Limits of the rows of a text file, checked on its bytes block by block, so that ordinary lines cost nothing.

A small compressed file may hold gigabytes in one row: the row is refused while it is read.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from fullbake.core.errors import DataError
from fullbake.data.plain_text import nul_error
from fullbake.data.tables import open_binary

MAX_ROW_BYTES: Final = 2**26
"""More than the longest field in four bytes for each character."""

_MAX_ROW_LINES: Final = 2**18
"""A text of 16 million characters has about so many lines."""

QUOTES_ARE_TEXT: Final = "If quotes are part of the text here, as in the TSV files of GLUE, pass --quoting none."
"""The remedy that every error and warning about stray quotes names."""

_UNCLOSED: Final = f"Look for a quote that is never closed, or split the document. {QUOTES_ARE_TEXT}"


class RowGuard:
    """Is called with each block of bytes before it is decoded.

    Args:
        path: the file, for errors.
        encoding: that it is read in.
        remedy: what to do about a row that is too long.
    """

    def __init__(self, path: Path, encoding: str, remedy: str = _UNCLOSED) -> None:
        self.path, self.encoding, self._remedy = path, encoding, remedy
        self.row_start = 1
        """The number of the first line of the current row; whoever reads rows sets it."""
        self.bytes_read = 0
        """How many bytes were checked."""
        self._seen, self._before_row, self._row_lines = 0, 0, 0
        # In UTF-16 and UTF-32 a zero byte is a part of nearly every character.
        self._nul_is_a_byte = not encoding.lower().replace("_", "-").startswith(("utf-16", "utf16", "utf-32", "utf32"))

    def __call__(self, block: bytes) -> None:
        """Check a block.

        Raises:
            DataError: a NUL character, or a row that is too long.
        """
        if self.row_start != self._seen:
            self._seen, self._before_row, self._row_lines = self.row_start, self.bytes_read, 0
        self.bytes_read += len(block)
        row_bytes = self.bytes_read - self._before_row
        if row_bytes > MAX_ROW_BYTES:
            raise self.too_long_error("row", f"{MAX_ROW_BYTES:,} bytes")
        if row_bytes > _MAX_ROW_LINES:  # a shorter row has fewer lines
            self._row_lines += block.count(b"\n")
            if self._row_lines > _MAX_ROW_LINES:
                raise self.too_long_error("row", f"{_MAX_ROW_LINES:,} lines")
        if self._nul_is_a_byte and b"\0" in block:
            raise self._nul_error(1 + self._lines_before(self.bytes_read - len(block) + block.index(b"\0")))

    def _lines_before(self, place: int) -> int:
        """Return how many lines end before a byte of the file."""
        lines = 0
        with open_binary(self.path) as handle:
            while place > 0 and (block := handle.read(min(place, 1 << 16))):
                lines += block.count(b"\n")
                place -= len(block)
        return lines

    def lines(self, lines: Iterable[str]) -> Iterable[str]:
        """Return decoded lines, from `row_start` on, such that a NUL character among them raises DataError."""
        return lines if self._nul_is_a_byte else self._without_nul(lines, self.row_start)

    def _without_nul(self, lines: Iterable[str], start: int) -> Iterator[str]:
        for number, line in enumerate(lines, start):
            if "\0" in line:
                raise self._nul_error(number)
            yield line

    def _nul_error(self, line: int) -> DataError:
        return nul_error(f"{self.path}, line {line}", self.path, self.encoding)

    def too_long_error(self, what: str, limit: str) -> DataError:
        """Return the error for a row, or a field of the current row, that is too long."""
        return DataError(
            f"a {what} that is too long",
            where=f"{self.path}, line {self.row_start}",
            expected=f"at most {limit}",
            remedy=self._remedy,
        )
