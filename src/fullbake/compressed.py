"""Files that may be compressed: gzip by the standard library, zstd by pyarrow's codec; streamed, never whole in memory.

What is compressed goes by the name's end, as every form does, never by the content.
"""

import contextlib
import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

from fullbake.core.errors import DataError

ENDINGS: Final = (".gz", ".zst")


def bare_suffix(path: Path) -> str:
    """The ending that tells a file's form, in lower case: `.csv` of both `x.csv` and `x.CSV.gz`."""
    suffix = path.suffix.lower()
    return Path(path.stem).suffix.lower() if suffix in ENDINGS else suffix


@contextlib.contextmanager
def open_binary(path: Path) -> Iterator[BinaryIO]:
    """The bytes of a file, unpacked where its name ends with .gz or .zst.

    Raises DataError where what is packed is damaged or cut off, now or while it is read.
    """
    kind = path.suffix.lower()
    if kind not in ENDINGS:
        with path.open("rb") as plain:
            yield plain
        return
    try:
        with gzip.open(path) if kind == ".gz" else _open_zstd(path) as packed:
            yield cast(BinaryIO, packed)
    except (gzip.BadGzipFile, zlib.error, EOFError, _DamagedError) as error:
        raise DataError(
            f"this cannot be unpacked as {'gzip' if kind == '.gz' else 'zstd'}",
            where=str(path),
            got=str(error).splitlines()[0] or "the end of the file within a block",
            remedy="Check that it was written whole, and that its name tells how it is packed.",
        ) from None


class _DamagedError(Exception):
    """What pyarrow makes of a broken zstd frame, told apart from other faults of reading."""


class _ZstdFrames(io.RawIOBase):
    """The unpacked bytes of a zstd file, frame after frame."""

    def __init__(self, path: Path) -> None:
        import pyarrow as pa

        self._file = pa.OSFile(str(path))
        self._stream = pa.CompressedInputStream(self._file, "zstd")

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer; the number of bytes, 0 at the end."""
        try:
            data = self._stream.read(len(buffer))
        except OSError as error:
            raise _DamagedError(str(error)) from None
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Close both streams."""
        if not self.closed:
            self._stream.close()
            self._file.close()
        super().close()


def _open_zstd(path: Path) -> io.BufferedReader:
    return io.BufferedReader(_ZstdFrames(path), buffer_size=1 << 20)
