"""What every reader of rows gives: a table that can be read again and again, in chunks of columns.

Whole files are never held: a chunk ends at so many rows or so many characters, whichever comes first, so that a table
of long documents costs no more memory than one of short ones.

Files that may be compressed: gzip by the standard library, zstd by pyarrow's codec; streamed, never whole in memory.

What is compressed goes by the name's end, as every form does, never by the content.
"""

import contextlib
import gzip
import io
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

from fullbake.core.errors import DataError, did_you_mean

CHUNK_CHARACTERS: Final = 4_000_000
"""A chunk ends when its rows hold this many characters."""


@dataclass(frozen=True)
class Chunk:
    """Some consecutive rows.

    source: the file they are of. unit: what positions count, "line" or "row". columns: (rows,) strings by name;
    lists of strings where lists are let in. positions: the line where each row starts (text files), or its row
    number from 1 (Parquet). originals: the rows as they stand, to be written again: lists of fields (CSV,
    TSV), JsonRow (JSON Lines), strings (plain lines), or one pyarrow.RecordBatch; None from Parquet unless
    asked for.
    """

    source: str
    unit: str
    columns: dict[str, list[Any]]
    positions: list[int]
    originals: Any

    def __len__(self) -> int:
        return len(self.positions)

    def where(self, index: int) -> str:
        """The place in words of a row of this chunk: "train.csv, line 812"."""
        return f"{self.source}, {self.unit} {self.positions[index]}"


@dataclass(frozen=True)
class Table:
    """A file that can be read again and again, chunk by chunk.

    form: csv, tsv, jsonl, parquet or lines. names: all columns of the file (JSON Lines: of the first row). columns:
    those that chunks bring. unit: what positions count, "line" or "row". schema: Parquet's own.
    """

    source: str
    form: str
    names: tuple[str, ...]
    columns: tuple[str, ...]
    unit: str
    read: Callable[[int, bool], Iterator[Chunk]]
    schema: Any = None

    def chunks(self, rows: int = 4096, *, keep: bool = False) -> Iterator[Chunk]:
        """Chunks of at most `rows` rows, in the file's order. keep: fill `originals` from Parquet too.

        Raises DataError at the first row that cannot be read, with its position.
        """
        return self.read(rows, keep)


def select_columns(where: str, names: tuple[str, ...], wanted: Sequence[str] | None, hint: str = "") -> tuple[str, ...]:
    """The wanted columns, each once; DataError for one that there is not."""
    if wanted is None:
        return names
    for name in wanted:
        if name not in names:
            raise DataError(f"no column {name!r}", where=where, remedy=f"{did_you_mean(name, names)}{hint}")
    return tuple(dict.fromkeys(wanted))


def null_value_error(name: str, where: str, got: str) -> DataError:
    """The error for a missing value where a text is needed."""
    return DataError(
        f"column {name!r} has no value",
        where=where,
        expected="a string",
        got=got,
        remedy='Fill it in, leave the row out, or write "" for an empty text.',
    )


ENDINGS: Final = (".gz", ".zst")


def data_suffix(path: Path) -> str:
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
    except (gzip.BadGzipFile, zlib.error, EOFError, _DamagedZstdError) as error:
        raise DataError(
            f"this cannot be unpacked as {'gzip' if kind == '.gz' else 'zstd'}",
            where=str(path),
            got=str(error).splitlines()[0] or "the end of the file within a block",
            remedy="Check that it was written whole, and that its name tells how it is packed.",
        ) from None


class _DamagedZstdError(Exception):
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
            raise _DamagedZstdError(str(error)) from None
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
