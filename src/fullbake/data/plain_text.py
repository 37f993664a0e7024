"""Text files as lines: encodings, bytes that do not fit them, NUL characters; plain lines as a table of one column.

The encoding is what the caller says, never guessed. A byte that does not fit it is an error with its line and its
offset. A NUL character is refused, because it means a damaged file, or UTF-16 that is read as UTF-8.
"""

import codecs
import contextlib
import io
from collections.abc import Callable, Generator, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO, Final, TextIO, cast

from fullbake.core.errors import DataError
from fullbake.core.heartbeat import waiting
from fullbake.data.line_ends import ReturnWarning, ends_at_carriage_return, read_raw_lines
from fullbake.data.signatures import HEAD_BYTES, encoding_of_mark, encoding_of_zeros
from fullbake.data.tables import MAX_ROW_CHARACTERS, Chunk, Table, open_binary, split_chunks

_BLOCK_BYTES: Final = 1 << 16
"""Bytes that are shown to a guard at a time."""

_NOT_OF_FILES: Final = ("unicode-escape", "raw-unicode-escape", "punycode", "idna", "undefined", "utf-7")
"""Codecs of Python that no data file is written in. Some of them make half characters, which no text can hold."""


@contextlib.contextmanager
def open_text(
    path: Path, encoding: str, newline: str | None = "\n", guard: Callable[[bytes], None] | None = None
) -> Iterator[TextIO]:
    """Open a text file, compressed or not, for reading; its lines end at LF alone and keep their line ends.

    A byte order mark is removed from UTF-8. UTF-16 and UTF-32 need one, unless the encoding names a byte order.

    Args:
        path: the file.
        encoding: a name that Python's codecs know.
        newline: where lines end, as in `open`; None for LF, CRLF and CR, which all become LF.
        guard: called with each block of bytes before it is decoded.

    Yields:
        The open file.

    Raises:
        DataError: Python does not know the encoding; or, while the block reads, a byte does not fit it.
    """
    codec = _codec_name(path, encoding)
    try:
        with open_binary(path) as raw:
            blocks = raw if guard is None else cast(BinaryIO, _GuardedBytes(raw, guard))
            with io.TextIOWrapper(blocks, encoding=codec, newline=newline) as handle:
                yield handle
    except UnicodeError:
        raise _find_undecodable(path, encoding, codec) from None


class _GuardedBytes(io.BufferedIOBase):
    """A stream whose blocks are shown to a function before anybody reads them."""

    def __init__(self, raw: BinaryIO, guard: Callable[[bytes], None]) -> None:
        self._raw, self._guard = raw, guard

    def readable(self) -> bool:
        """Return True."""
        return True

    def read1(self, size: int = -1) -> bytes:
        """Return as many bytes as one read gives. Larger blocks than asked for spare the caller time."""
        block: bytes = self._raw.read1(max(size, _BLOCK_BYTES))  # type: ignore[attr-defined]
        self._guard(block)
        return block


@contextlib.contextmanager
def utf8_writer(stream: BinaryIO) -> Iterator[TextIO]:
    """Wrap a binary stream for writing UTF-8 text without changing line ends; the stream stays open afterwards."""
    text = io.TextIOWrapper(stream, encoding="utf-8", newline="")
    try:
        yield text
        text.flush()
    finally:
        text.detach()


def open_lines(stream: BinaryIO, *, name: str = "stdin", column: str = "text") -> Table:
    """Open the lines of a UTF-8 stream as a table of one column. It can be read only once.

    Args:
        stream: the bytes.
        name: what errors call the stream.
        column: the name of the column.

    Returns:
        The table; a blank line is a row with an empty text.
    """
    rows = read_stream_lines(stream, name)

    def read(size: int, _: bool) -> Iterator[Chunk]:
        with waiting():  # whoever writes the lines may take its time
            first = list(islice(rows, 1))
        for positions, texts in split_chunks(chain(first, rows), size, len):
            yield Chunk(name, "line", {column: texts}, positions, texts)

    return Table(name, "lines", (column,), (column,), "line", read, _one_field_rows)


def read_stream_lines(stream: BinaryIO, name: str) -> Iterator[tuple[int, str]]:
    """Read a UTF-8 stream line by line.

    Args:
        stream: the bytes.
        name: what errors call the stream.

    Yields:
        (line number, text) of every line, blank ones too, without its end: LF, CRLF, or CR in a stream without LF.

    Raises:
        DataError: a byte is not UTF-8, or NUL; a line is too long.
    """
    returns = ReturnWarning()
    for number, raw in enumerate(read_raw_lines(stream, MAX_ROW_CHARACTERS), start=1):
        where = f"{name}, line {number}"
        if len(raw) > MAX_ROW_CHARACTERS:
            raise too_long_error(where, MAX_ROW_CHARACTERS)
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise _undecodable_error(where, raw[error.start : error.start + 1], "utf-8") from None
        if "\0" in line:
            raise nul_error(where)
        text = line.removesuffix("\n").removesuffix("\r")
        returns.check(where, text)
        yield number, text


def read_file_lines(path: Path, encoding: str, max_characters: int) -> Generator[tuple[int, str], None, None]:
    """Read a text file line by line.

    Args:
        path: the file.
        encoding: a name that Python's codecs know.
        max_characters: a longer line is refused before it is read to its end.

    Yields:
        (line number, text) of every line, blank ones too, without its end: LF, CRLF, or CR in a file without LF.

    Raises:
        DataError: what `open_text` raises; a NUL character; a line that is too long.
    """
    with open_text(path, encoding) as handle:
        newline = None if ends_at_carriage_return(handle.readline(max_characters + 1)) else "\n"
    returns = ReturnWarning()
    with open_text(path, encoding, newline) as handle:
        number = 0
        while line := handle.readline(max_characters + 1):
            number += 1
            where = f"{path}, line {number}"
            if "\0" in line:
                raise nul_error(f"{where}{_byte_of_nul(path, encoding)}", path, encoding)
            if len(line) > max_characters and not line.endswith("\n"):
                raise too_long_error(where, max_characters)
            text = line.removesuffix("\n").removesuffix("\r")
            returns.check(where, text)
            yield number, text


def too_long_error(where: str, max_characters: int) -> DataError:
    """Return the error for a paragraph so long that it is hardly text."""
    return DataError(
        "a paragraph that is too long",
        where=where,
        expected=f"at most {max_characters:,} characters",
        remedy="Check that this is text. If it is, break the paragraph into lines; a blank line separates documents.",
    )


def blank_line_error(path: Path, line: int) -> DataError:
    """Return the error for a blank line between the rows of a table."""
    return DataError(
        "a blank line",
        where=f"{path}, line {line}",
        expected="a row",
        remedy='Delete the line; in a table of one column write an empty text as "".',
    )


def nul_error(where: str, path: Path | None = None, encoding: str = "utf-8") -> DataError:
    """Return the error for a NUL character.

    Args:
        where: its place.
        path: the file; its first bytes say whether it is UTF-16.
        encoding: that it was read in.
    """
    head = b"" if path is None else first_bytes(path)
    is_wide = encoding.lower().startswith(("utf-16", "utf_16", "utf16", "utf-32", "utf_32", "utf32"))
    if not is_wide and encoding_of_mark(head) is not None:
        return _undecodable_error(f"{path}, line 1, byte 0", head[:1], encoding, encoding_of_mark(head))
    found = None if is_wide else encoding_of_zeros(head)
    return DataError(
        "a NUL character" if found is None else f"a NUL character: the file is {found} without a byte order mark",
        where=where,
        expected="text",
        got="U+0000",
        remedy="The file is damaged, or it is UTF-16: then pass --encoding utf-16 (or utf-16-le, utf-16-be)."
        if found is None
        else f"Pass --encoding {found}.",
    )


def first_bytes(path: Path) -> bytes:
    """Return the first bytes of a file, decompressed."""
    with open_binary(path) as handle:
        return handle.read(HEAD_BYTES)


def _one_field_rows(chunk: Chunk) -> Iterator[list[str]]:
    return ([text] for text in chunk.originals)


def _codec_name(path: Path, encoding: str) -> str:
    try:
        codec = codecs.lookup(encoding)
        io.TextIOWrapper(io.BytesIO(), codec.name)  # raises for codecs that are not for text, such as "hex"
        if codec.name in _NOT_OF_FILES:
            raise LookupError(encoding)
    except (LookupError, UnicodeError, ValueError):  # ValueError: a NUL within the name
        raise DataError(
            f"there is no encoding {encoding!r} for files",
            where=str(path),
            remedy="Pass --encoding with one that Python knows, such as utf-8, utf-16, latin-1, cp1252 or gb18030.",
        ) from None
    return "utf-8-sig" if codec.name == "utf-8" else codec.name


def _find_undecodable(path: Path, encoding: str, codec: str) -> DataError:
    """Read the file again, block by block, to find the bad byte: `open_text` decodes ahead of the lines it returns."""
    decoder = codecs.getincrementaldecoder(codec)()
    line, end = 1, 0
    with open_binary(path) as handle:
        while True:
            block = handle.read(1 << 16)
            end += len(block)
            try:
                line += decoder.decode(block, final=not block).count("\n")
            except UnicodeDecodeError as error:
                # error.object also holds bytes that the decoder kept from the block before
                line += error.object[: error.start].decode(error.encoding, "ignore").count("\n")
                byte = end - len(error.object) + error.start
                where = f"{path}, line {line}, byte {byte}"
                found = encoding_of_mark(first_bytes(path))
                found = None if found is not None and codec.startswith(found) else found
                return _undecodable_error(where, error.object[error.start : error.start + 1], encoding, found)
            except UnicodeError as error:
                return _no_byte_order_error(path, encoding, error)
            if not block:
                raise AssertionError(f"{path} changed while it was read")


def _no_byte_order_error(path: Path, encoding: str, error: UnicodeError) -> DataError:
    return DataError(
        f"the file is not {encoding}",
        where=str(path),
        got=str(error),
        remedy="Name the file's encoding by --encoding; utf-16-le and utf-16-be need no byte order mark.",
    )


def _undecodable_error(where: str, byte: bytes, encoding: str, found: str | None = None) -> DataError:
    """Return the error for a byte that does not fit. found: the encoding whose byte order mark the file begins with."""
    return DataError(
        f"this is not {encoding}" if found is None else f"this is not {encoding}: it begins with the mark of {found}",
        where=where,
        expected=f"text in {encoding}",
        got=f"the byte 0x{byte.hex()}",
        remedy=f"Pass --encoding {found}."
        if found is not None
        else "Name its encoding by --encoding (such as utf-16, latin-1, cp1252 or gb18030), or save it as UTF-8.",
    )


def _byte_of_nul(path: Path, encoding: str) -> str:
    """Return ", byte 812", the offset of the file's first NUL; "" for encodings that do not write NUL as one byte."""
    if len("\0\0".encode(encoding)) - len("\0".encode(encoding)) != 1:
        return ""
    before = 0
    with open_binary(path) as handle:
        while block := handle.read(1 << 16):
            if b"\0" in block:
                return f", byte {before + block.index(0)}"
            before += len(block)
    return ""
