"""What every reader of rows gives: a table that can be read again and again, in chunks of columns.

Whole files are never held: a chunk ends at so many rows or so many characters, whichever comes first, so that a table
of long documents costs no more memory than one of short ones.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

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


def null_value(name: str, where: str, got: str) -> DataError:
    """The error for a missing value where a text is needed."""
    return DataError(
        f"column {name!r} has no value",
        where=where,
        expected="a string",
        got=got,
        remedy='Fill it in, leave the row out, or write "" for an empty text.',
    )
