"""Lines that end at LF, CRLF, or CR alone, as files of the classic Mac have it.

A stream without any LF in its first line ends its lines at CR. Elsewhere a CR within a line is part of the text, of
which a warning says so: it may be a file that two systems have written to.
"""

import re
from collections.abc import Iterator
from typing import BinaryIO, Final

from fullbake.core.console import warn

_BLOCK: Final = 1 << 16
_LINE_END: Final = re.compile(rb"\r\n?|\n")


def ends_at_carriage_return(first: str | bytes) -> bool:
    """Return True if the lines of a file end at CR alone. first: the file's text up to its first LF, or to its end."""
    if isinstance(first, bytes):
        return b"\r" in first and not first.endswith(b"\n")
    return "\r" in first and not first.endswith("\n")


def read_raw_lines(stream: BinaryIO, longest: int) -> Iterator[bytes]:
    """Yield the lines of a stream, with or without their ends.

    Args:
        stream: the bytes.
        longest: of a longer line only so many bytes and one more are read at once.
    """
    first = stream.readline(longest + 1)
    if ends_at_carriage_return(first):
        yield from _split_at_returns(first, stream, longest)
        return
    while first:
        yield first
        first = stream.readline(longest + 1)


def _split_at_returns(rest: bytes, stream: BinaryIO, longest: int) -> Iterator[bytes]:
    while True:
        block = stream.read(_BLOCK)
        rest += block
        if block and rest.endswith(b"\r"):  # an LF may follow in the next block
            continue
        *lines, rest = _LINE_END.split(rest)
        yield from lines
        if not block or len(rest) > longest:
            break
    if rest:
        yield rest


class ReturnWarning:
    """Warns once of a line that holds a CR."""

    def __init__(self) -> None:
        self.given = False

    def check(self, where: str, text: str) -> None:
        """Warn if the text, a line without its end, is the first one that holds a CR. where: the place of the line."""
        if "\r" in text and not self.given:
            self.given = True
            warn(
                f"{where}: a carriage return (CR) within the line is kept as part of its text; where lines should end "
                "there, convert the file to LF"
            )
