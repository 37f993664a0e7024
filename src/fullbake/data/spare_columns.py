"""The columns of a file that are neither text nor label, read for the sampled rows only.

Training does not read them. `inspect` looks whether one of them gives the label away. CSV, TSV and JSON Lines hold all
fields of a row in memory anyway; of Parquet and tables in memory the plain columns are read once more. What cannot be
read as a plain value is left out rather than refused, because nobody asked for it.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from fullbake.core.errors import DataError
from fullbake.data.arrow import ArrowSource
from fullbake.data.sources import open_columns
from fullbake.data.tables import Chunk, ReadOptions, Table

MAX_COLUMNS: Final = 32
"""Columns that are looked at, from the left: sampled rows are held in memory."""

MAX_VALUE_CHARACTERS: Final = 100
"""Characters of a value that are kept."""

FieldsOf = Callable[[int], tuple[str, ...]]
"""Called with a position in a chunk; returns the values of the spare columns in that row."""


def spare_columns(table: Table, used: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the columns to look at.

    Args:
        table: The opened table.
        used: The columns of texts and labels.
    """
    if table.unit == "file":  # the file of each text names its class
        return ()
    names = (name for name in table.names if name.strip() and name not in used)
    return tuple(dict.fromkeys(names))[:MAX_COLUMNS]


def fields_of_rows(table: Table, chunk: Chunk, spare: Sequence[str]) -> FieldsOf | None:
    """Return a function that gives the spare values of a row in a chunk, "" for what is not plain.

    Returns:
        None where the chunk does not hold them (Parquet).
    """
    if not spare or not isinstance(chunk.originals, list) or not chunk.originals:
        return None
    places = [table.names.index(name) for name in spare]

    def fields(position: int) -> tuple[str, ...]:
        row = chunk.originals[position]
        if isinstance(row, list | tuple):
            return tuple(_shorten(row[place]) if place < len(row) else "" for place in places)
        members = getattr(row, "values", {})
        return tuple(_shorten(members.get(name)) for name in spare)

    return fields


def read_fields(source: str | Path | ArrowSource, spare: Sequence[str], rows: Sequence[int]) -> list[tuple[str, ...]]:
    """Read the spare values of some rows from a Parquet file, a folder of them, or a table in memory.

    Args:
        source: The path or the table.
        spare: The columns; those of lists, structs or bytes give "".
        rows: The numbers of the rows, from 1, sorted.

    Returns:
        The values of each row; [] where no column is plain or the source is a hub data set.
    """
    at_hand = isinstance(source, ArrowSource) or Path(source).exists()
    plain = [name for name in spare if _is_plain(source, name)] if at_hand else []
    if not plain:
        return []
    values: list[tuple[str, ...]] = []
    places = [plain.index(name) if name in plain else None for name in spare]
    start, wanted = 1, iter([*rows, None])
    row = next(wanted)
    for chunk in open_columns(source, ReadOptions(tuple(plain), tuple(plain))).chunks():
        columns = [chunk.columns[name] for name in plain]
        while row is not None and row < start + len(chunk):
            fields = [column[row - start] for column in columns]
            values.append(tuple("" if place is None else _shorten(fields[place]) for place in places))
            row = next(wanted)
        start += len(chunk)
    return values


def _is_plain(source: str | Path | ArrowSource, name: str) -> bool:
    try:
        open_columns(source, ReadOptions((name,)))
    except DataError:
        return False
    return True


def _shorten(value: Any) -> str:
    return str(value)[:MAX_VALUE_CHARACTERS] if isinstance(value, str | bool) else ""
