"""What every reader and writer of tables shares: `Table`, `Chunk`, `Format`, compressed files, checks of columns.

A table is read chunk by chunk and is never whole in memory. A chunk ends at a number of rows or of characters,
whichever comes first, so a table of long documents costs no more memory than one of short texts.

A file's format and compression follow from the ending of its name, never from its content: nothing is guessed, and a
wrong name is an error. This module loads neither numpy nor pyarrow until they are needed.
"""

import contextlib
import gzip
import io
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol, TypeVar, cast

from fullbake.config.sections import Dialect
from fullbake.core.errors import DataError, Fault, did_you_mean

CHUNK_CHARACTERS: Final = 4_000_000
"""A chunk ends when its rows hold this many characters."""

MAX_FIELD_CHARACTERS: Final = 2**24
"""A longer value is refused: it is no text that a classifier reads. The csv module's own limit, 131,072, is less than
long documents have; with no limit at all, an unclosed quote would read the rest of the file into memory."""

MAX_ROW_CHARACTERS: Final = 2**25
"""A longer row is refused while it is read, so a small compressed file cannot fill the memory with one endless line."""

TableRow = TypeVar("TableRow")

RowBlock = tuple[list[int], list[TableRow]]
"""The positions of some consecutive rows, and the rows."""


@dataclass(frozen=True)
class Chunk:
    """Some consecutive rows of a table."""

    source: str
    """The file that the rows come from."""

    unit: str
    """What `positions` count: "line" or "row"."""

    columns: dict[str, list[Any]]
    """Column name to its values, (rows,): strings, or lists of strings where lists are allowed."""

    positions: list[int]
    """(rows,) the number of the line where each row starts (text files), or the row's number from 1 (Parquet)."""

    originals: Any
    """The rows as the file holds them, for writing them again: lists of fields (CSV, TSV), `JsonRow` objects (JSON
    Lines), strings (plain lines), or one pyarrow.RecordBatch (Parquet, only on request; else None)."""

    def __len__(self) -> int:
        return len(self.positions)

    def where(self, index: int) -> str:
        """Return the place of the row at `index` in words: "train.csv, line 812"."""
        return f"{self.source}, {self.unit} {self.positions[index]}"


@dataclass(frozen=True)
class Table:
    """A table that can be read again and again, chunk by chunk."""

    source: str
    """The file, folder or hub data set."""

    format: str
    """Name of the format, as its `Format` says; "lines" for plain lines."""

    names: tuple[str, ...]
    """All columns of the file (of JSON Lines: the fields of the first row)."""

    columns: tuple[str, ...]
    """The columns that chunks hold."""

    unit: str
    """What positions count: "line" or "row"."""

    read: Callable[[int, bool], Iterator[Chunk]]
    """Called with the most rows a chunk may have and whether to fill `Chunk.originals`; returns the chunks."""

    string_rows: Callable[[Chunk], Iterator[list[str]]]
    """Called with a chunk read with `keep=True`; returns each row's fields as strings, in the order of `names`. Every
    writer can write any table through it, so no format has to know another one."""

    schema: Callable[[], Any] | None = None
    """Returns pyarrow's schema of the file; None where the format has none."""

    @property
    def named_places(self) -> tuple[int, ...]:
        """The places, in `names`, of the columns that a format with unique names can hold.

        Left out are spare columns whose empty name stands more than once in the header of a CSV (`v1,v2,,,`).

        Raises:
            DataError: another name stands more than once. Only reading and writing CSV and TSV can leave that as it is.
        """
        places = tuple(place for place, name in enumerate(self.names) if name.strip() or self.names.count(name) == 1)
        check_unique((self.names[place] for place in places), self.source)
        return places

    def chunks(self, rows: int = 4096, *, keep: bool = False) -> Iterator[Chunk]:
        """Read the table from its start.

        Args:
            rows: the most rows of a chunk.
            keep: also fill `Chunk.originals` where that costs extra (Parquet), as `open_writer` needs it.

        Returns:
            The chunks, in the file's order.

        Raises:
            DataError: at the first row that cannot be read, with its position.
        """
        return self.read(rows, keep)


@dataclass(frozen=True)
class ReadOptions:
    """The arguments of `files.open_table` that a format's reader needs; described there."""

    columns: tuple[str, ...] | None = None
    nullable: tuple[str, ...] = ()
    lists: tuple[str, ...] = ()
    dialect: Dialect = field(default_factory=Dialect)


AddedColumns = Mapping[str, type]
"""Name to kind of the columns that a writer adds: `str`, or a numpy type of numbers (np.float32, np.uint8)."""


class Writer(Protocol):
    """Writes rows of a table with added columns, chunk after chunk."""

    def write(self, chunk: Chunk, added: Mapping[str, Any]) -> None:
        """Append the rows of one chunk.

        Args:
            chunk: the next chunk of the source, read with `keep=True`.
            added: (rows,) values of each added column, in the order given to `open_writer`.
        """


@dataclass(frozen=True)
class Format:
    """A file format: how to open and write its files, and what it supports."""

    name: str
    """What `Table.format` says."""

    open_table: Callable[[Path, ReadOptions], Table]
    """Opens one file."""

    open_writer: Callable[[BinaryIO, Table, AddedColumns], AbstractContextManager[Writer]]
    """Called with a binary stream, the source of the rows and the added columns."""

    is_text: bool = True
    """Whether files have an encoding and may be compressed as a whole (.gz, .zst)."""

    flags: frozenset[str] = frozenset({"encoding"})
    """The fields of `Dialect` that its reader obeys. `files.open_table` refuses the others where they are given."""

    fixed_columns: bool = True
    """Whether all rows have the same columns in the same order, so the files of a folder must agree in them."""


def check_flags(where: str, dialect: Dialect, obeyed: frozenset[str], remedy: str) -> None:
    """Raise DataError if a field of the dialect is given that a reader does not obey.

    Args:
        where: what is read.
        dialect: how it is written.
        obeyed: the fields that its reader obeys.
        remedy: what to do.
    """
    usual = vars(Dialect())
    for name, value in vars(dialect).items():
        if name not in obeyed and value != usual[name]:
            flag = name.replace("_", "-")
            raise DataError(f"--{flag} does not apply here", where=where, got=f"--{flag} {value!r}", remedy=remedy)


def select_columns(where: str, names: tuple[str, ...], wanted: Sequence[str] | None, hint: str = "") -> tuple[str, ...]:
    """Choose the columns to read.

    Args:
        where: the place of the header, for errors.
        names: all columns of the file.
        wanted: the columns asked for; None takes all.
        hint: a sentence to add to the error.

    Returns:
        The wanted columns, each once.

    Raises:
        DataError: the file does not have a wanted column.
    """
    if wanted is None:
        return names
    for name in wanted:
        if name not in names:
            known = did_you_mean(name, names) if names else "There is no column at all."
            raise DataError(f"no column {name!r}", where=where, remedy=f"{known}{hint}")
    return tuple(dict.fromkeys(wanted))


def check_unique(names: Iterable[str], where: str) -> None:
    """Raise DataError if a name occurs twice among the columns of a table or the fields of a JSON object."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise DataError(
                f"the name {name!r} occurs twice",
                where=where,
                expected="each name once",
                remedy="Rename one of the two.",
            )
        seen.add(name)


def split_chunks(
    rows: Iterator[tuple[int, TableRow]], size: int, count_characters: Callable[[TableRow], int]
) -> Iterator[tuple[list[int], list[TableRow]]]:
    """Cut (position, row) pairs into chunks of `size` rows or CHUNK_CHARACTERS characters, whichever comes first.

    Yields:
        (positions, rows) of each chunk.
    """
    positions: list[int] = []
    held: list[TableRow] = []
    characters = 0
    for position, row in rows:
        positions.append(position)
        held.append(row)
        characters += count_characters(row)
        if len(held) >= size or characters >= CHUNK_CHARACTERS:
            yield positions, held
            positions, held, characters = [], [], 0
    if held:
        yield positions, held


def split_blocks(
    blocks: Iterable[RowBlock[TableRow]], size: int, count_characters: Callable[[list[TableRow]], int]
) -> Iterator[RowBlock[TableRow]]:
    """Cut blocks of rows into the chunks that `split_chunks` makes, without a step in Python for each row.

    Args:
        blocks: (positions, rows) of some rows at a time.
        size: the most rows of a chunk.
        count_characters: called with rows; returns their characters.
    """
    positions: list[int] = []
    held: list[TableRow] = []
    characters = 0
    for own_positions, rows in blocks:
        more = count_characters(rows)
        if len(held) + len(rows) < size and characters + more < CHUNK_CHARACTERS:
            positions += own_positions
            held += rows
            characters += more
            continue
        for position, row in zip(own_positions, rows, strict=True):
            positions.append(position)
            held.append(row)
            characters += count_characters([row])
            if len(held) >= size or characters >= CHUNK_CHARACTERS:
                yield positions, held
                positions, held, characters = [], [], 0
    if held:
        yield positions, held


def format_values(values: Any) -> list[str]:
    """Write the values of an added column as strings.

    Args:
        values: (rows,) strings or numbers.

    Returns:
        Strings as they are; floats in the fewest digits that read back as the same float of their width.

    Raises:
        Fault: a float is NaN or infinite.
    """
    import numpy as np

    array = np.asarray(values)
    if array.dtype.kind != "f":
        return [str(value) for value in values]
    if not np.isfinite(array).all():
        raise Fault("a score is not a finite number", expected="finite scores", got="NaN or infinity")
    # numpy writes a float32 as "0.1"; as a Python float it would be "0.10000000149011612".
    return [str(value) for value in array.astype(str).tolist()]


def null_value_error(name: str, where: str, got: str) -> DataError:
    """Return the error for a missing value in a column that needs one."""
    return DataError(
        f"column {name!r} has no value",
        where=where,
        expected="a string",
        got=got,
        remedy='Fill it in, leave the row out, or write "" for an empty text.',
    )


def taken_name_error(name: str, where: str) -> DataError:
    """Return the error for an added column whose name the source already uses."""
    return DataError(
        f"there is a column {name!r} already",
        where=where,
        remedy="Pass --prefix to put something before the added names, such as --prefix fullbake_.",
    )


def empty_file_error(path: Path) -> DataError:
    """Return the error for a file without a row or a header."""
    return DataError("the file is empty", where=str(path), remedy="Check that it was written completely.")


# Compressed files

COMPRESSED_ENDINGS: Final = (".gz", ".zst")


def data_suffix(path: Path) -> str:
    """Return the ending that names a file's format, in lower case: `.csv` for both `x.csv` and `x.CSV.gz`."""
    suffix = path.suffix.lower()
    return Path(path.stem).suffix.lower() if suffix in COMPRESSED_ENDINGS else suffix


@contextlib.contextmanager
def open_binary(path: Path) -> Iterator[BinaryIO]:
    """Open a file for reading, decompressed as a stream where its name ends with .gz or .zst.

    Yields:
        The stream of (decompressed) bytes.

    Raises:
        DataError: the compressed data is damaged or incomplete; found now or while the block reads.
    """
    kind = path.suffix.lower()
    if kind not in COMPRESSED_ENDINGS:
        with path.open("rb") as plain:
            yield plain
        return
    # Damage shows while the caller reads, so the caller's block is inside the try.
    try:
        with gzip.open(path) if kind == ".gz" else _open_zstd(path) as decompressed:
            yield cast(BinaryIO, decompressed)
    except (gzip.BadGzipFile, zlib.error, EOFError, _DamagedZstdError) as error:
        raise DataError(
            f"this cannot be decompressed as {'gzip' if kind == '.gz' else 'zstd'}",
            where=str(path),
            got=str(error).splitlines()[0] or "the end of the file within a block",
            remedy="Check that the file was written completely, and that its ending (.gz or .zst) names its "
            "compression.",
        ) from None


class _DamagedZstdError(Exception):
    """A broken zstd frame. pyarrow raises OSError for it, as for every other fault of reading."""


class _ZstdFrames(io.RawIOBase):
    """The decompressed bytes of a zstd file, frame after frame."""

    def __init__(self, path: Path) -> None:
        import pyarrow as pa

        self._file = pa.OSFile(str(path))
        self._stream = pa.CompressedInputStream(self._file, "zstd")

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer and return the number of bytes, 0 at the end."""
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
