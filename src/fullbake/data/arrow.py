"""Columns of Arrow read as strings, wherever they come from: Parquet files, hub data sets, frames in memory.

Every value becomes the string that Python writes for it (`1.0`, not `1`, for a float). Lists of plain values are
read where the caller allows them. Parquet is written with its types kept. pyarrow is imported when the first such
table is opened.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

from fullbake.core.errors import DataError
from fullbake.data.tables import (
    CHUNK_CHARACTERS,
    MAX_FIELD_CHARACTERS,
    AddedColumns,
    Chunk,
    Format,
    ReadOptions,
    Table,
    check_unique,
    null_value_error,
    select_columns,
)

_BATCH_BYTES: Final = 4 * CHUNK_CHARACTERS
"""A batch ends when its rows take so much memory, even if it has fewer rows than it may have."""

_FEW_ROWS: Final = 64
"""So many rows are decoded at a time where one value may be very long."""

_DECODED_BYTES: Final = 2**26
"""About the most that is decoded at a time."""

_SUSPECT_BYTES, _SUSPECT_RATIO = 2**28, 200
"""Texts shrink to a twentieth of their size. A part of a column that is larger than this many bytes and shrinks more
than so many times is refused, because it has to be unpacked whole."""


@dataclass(frozen=True, eq=False)
class ArrowSource:
    """Columns that can be read as Arrow, again and again."""

    description: str
    """What errors and reports call it: "train.parquet", "a pandas DataFrame of 1,000 rows"."""

    names: tuple[str, ...]
    """All columns, in their order."""

    schema: Callable[[Sequence[str] | None], Any]
    """Called with names of columns; returns pyarrow's schema with these columns in it. None asks for all columns."""

    batches: Callable[[int, Sequence[str] | None], Iterator[Any]]
    """Called with the most rows of a batch and the names of the columns to read, None for all; returns
    pyarrow.RecordBatch objects, from the first row on."""

    format: str = "parquet"
    """Name of the format that a stream of written rows gets."""

    hint: str = ""
    """A sentence for the error that a column is missing."""

    def __str__(self) -> str:
        return self.description


def open_parquet(path: Path, options: ReadOptions) -> Table:
    """Open a Parquet file; its schema is read now, its rows when the table is read.

    Raises:
        DataError: the file is not Parquet, lacks a wanted column, or that column holds no plain values.
    """
    with _parquet_file(path) as file:
        schema = file.schema_arrow
    source = ArrowSource(str(path), tuple(schema.names), lambda _: schema, partial(_parquet_batches, path))
    return arrow_table(source, options)


def arrow_table(source: ArrowSource, options: ReadOptions) -> Table:
    """Make a table of columns of Arrow.

    Args:
        source: the columns.
        options: which of them to read; in `nullable` ones null and NaN become "", in those of `lists` lists of plain
            values are allowed. How files are written is not asked.

    Raises:
        DataError: a wanted column is missing, occurs twice, or holds no plain values.
    """
    names = source.names
    wanted = select_columns(source.description, names, options.columns, source.hint and f" {source.hint}")
    check_unique([name for name in names if name in wanted], source.description)
    schema = source.schema(wanted)
    for name in wanted:
        if not (name in options.lists and _is_list(schema.field(name))):
            _check_type(source.description, schema.field(name))

    def read(size: int, keep: bool) -> Iterator[Chunk]:
        start = 1
        for batch in source.batches(size, None if keep else wanted):
            positions = list(range(start, start + batch.num_rows))
            values = {
                name: _column_values(source.description, batch, name, start, name in options.nullable)
                for name in wanted
            }
            yield Chunk(source.description, "row", values, positions, batch if keep else None)
            start += batch.num_rows

    def string_rows(chunk: Chunk) -> Iterator[list[str]]:
        check_unique(names, source.description)
        fields = [arrow_strings(chunk.source, chunk.originals, name, chunk.positions[0]) for name in names]
        return (list(row) for row in zip(*fields, strict=True))

    def whole_schema() -> Any:
        return source.schema(None)

    return Table(source.description, source.format, names, wanted, "row", read, string_rows, whole_schema)


def arrow_strings(source: str, batch: Any, name: str, start: int, nullable: bool = False) -> list[str]:
    """Return a column of a record batch as strings.

    Args:
        source: what errors call the table.
        batch: a pyarrow.RecordBatch.
        name: the column.
        start: the number of the batch's first row, for errors.
        nullable: return "" for null and NaN instead of raising.

    Returns:
        (rows,) strings; floats as Python writes them (`1.0`, not `1`).

    Raises:
        DataError: a null that is not allowed, bytes that are not UTF-8, or a type that is not plain (lists, structs,
            times, bytes).
    """
    _check_type(source, batch.schema.field(name))
    try:
        values = _as_strings(batch.column(name))
    except UnicodeDecodeError as error:
        raise DataError(
            f"column {name!r} holds bytes that are not UTF-8",
            where=f"{source}, rows {start} to {start + batch.num_rows - 1}",
            got=f"the byte 0x{error.object[error.start : error.start + 1].hex()}",
            remedy="Write the column again from its source.",
        ) from None
    longest = max((len(value or "") for value in values), default=0) if batch.nbytes > MAX_FIELD_CHARACTERS else 0
    if longest > MAX_FIELD_CHARACTERS:
        raise DataError(
            f"a text in column {name!r} is too long",
            where=f"{source}, rows {start} to {start + batch.num_rows - 1}",
            expected=f"at most {MAX_FIELD_CHARACTERS:,} characters",
            remedy="Split the document.",
        )
    if None in values and not nullable:
        raise null_value_error(name, f"{source}, row {start + values.index(None)}", "null")
    return [value or "" for value in values]


@contextlib.contextmanager
def open_parquet_writer(stream: BinaryIO, source: Table, added: AddedColumns) -> Iterator["ParquetWriter"]:
    """Write a Parquet file to a binary stream: the rows given to the yielded writer.

    Columns of a Parquet source keep their types; those of other sources become strings.
    """
    import pyarrow as pa
    from pyarrow import parquet

    if source.schema is None:
        schema = pa.schema([(source.names[place], pa.large_string()) for place in source.named_places])
    else:
        schema = source.schema()
    for name, kind in added.items():
        schema = schema.append(pa.field(name, pa.large_string() if kind is str else pa.from_numpy_dtype(kind)))
    with parquet.ParquetWriter(stream, schema) as opened:  # type: ignore[no-untyped-call]
        yield ParquetWriter(opened, source, schema)


class ParquetWriter:
    """Writes record batches.

    Args:
        opened: pyarrow's own writer.
        source: the table whose rows are written.
        schema: of the file: the source's columns, then the added ones.
    """

    def __init__(self, opened: Any, source: Table, schema: Any) -> None:
        self._opened, self._source, self._schema = opened, source, schema

    def write(self, chunk: Chunk, added: Mapping[str, Any]) -> None:
        """Append the rows of one chunk; see `Writer.write`."""
        import pyarrow as pa

        columns: list[Any]
        if self._source.schema is not None:
            columns = chunk.originals.columns
        else:
            held = list(zip(*self._source.string_rows(chunk), strict=True))
            columns = [pa.array(held[place], pa.large_string()) for place in self._source.named_places]
        kinds = self._schema.types[len(columns) :]
        new_columns = [pa.array(values, kind) for values, kind in zip(added.values(), kinds, strict=True)]
        self._opened.write_batch(pa.record_batch([*columns, *new_columns], schema=self._schema))


PARQUET: Final = Format("parquet", open_parquet, open_parquet_writer, is_text=False, flags=frozenset())


def _parquet_batches(path: Path, size: int, columns: Sequence[str] | None) -> Iterator[Any]:
    """Read a Parquet file in batches whose size in memory is known, whatever the file's own account of sizes says.

    A value that occurs again and again is stored once, so a file of a kilobyte may hold gigabytes. So only few rows are
    decoded at a time, and as many of them as fit become one batch.
    """
    with _parquet_file(path) as file:
        rows = _rows_of_a_batch(file.metadata, size)
        held, count, size_held = [], 0, 0
        for few in _decode_few(path, file, None if columns is None else list(columns), rows):
            few_bytes = few.nbytes
            most = max(1, len(few) * _BATCH_BYTES // (4 * max(1, few_bytes)))
            start = 0
            while start < len(few):
                part = few.slice(start, min(most, rows - count))
                start += len(part)
                held.append(part)
                count += len(part)
                size_held += few_bytes * len(part) // len(few)
                if count == rows or size_held >= _BATCH_BYTES:
                    yield _joined(held)
                    held, count, size_held = [], 0, 0
        if held:
            yield _joined(held)


def _joined(batches: list[Any]) -> Any:
    """Return record batches as one."""
    import pyarrow as pa

    if len(batches) == 1:
        return batches[0]
    (joined,) = pa.Table.from_batches(batches).combine_chunks().to_batches()
    return joined


def _rows_of_a_batch(metadata: Any, size: int) -> int:
    """Return how many rows a batch has at most. metadata: pyarrow's metadata of the file. size: what was asked for."""
    stored: int = sum(metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups))
    row_bytes = max(1, stored // max(1, int(metadata.num_rows)))
    return max(1, min(size, CHUNK_CHARACTERS // row_bytes))


def _decode_few(path: Path, file: Any, names: list[str] | None, rows: int) -> Iterator[Any]:
    """Read a Parquet file, few rows at a time.

    Args:
        path: the file.
        file: the opened pyarrow.ParquetFile.
        names: the columns that are read; None reads all.
        rows: the most rows of a batch.

    Yields:
        pyarrow.RecordBatch objects.

    Raises:
        DataError: a column is compressed so strongly that reading it would fill the memory.
    """
    stored = path.stat().st_size
    for number in range(file.num_row_groups):
        _check_ratio(path, file.metadata.row_group(number).total_byte_size, stored)
        # Handing so few rows to threads costs more than reading them.
        batches = file.iter_batches(batch_size=1, row_groups=[number], columns=names, use_threads=False)
        first = next(batches, None)
        if first is None:
            continue
        # pyarrow ends the process if somebody asks for damaged facts of a column. Reading a row of it raises an error
        # instead, so these facts are asked for only now, and the rest of the rows is read in larger batches.
        file.reader.set_batch_size(_rows_at_once(path, file.metadata, number, names, rows))
        yield first
        yield from batches


def _rows_at_once(path: Path, metadata: Any, number: int, names: list[str] | None, rows: int) -> int:
    """Return how many rows of a row group may be decoded at a time.

    Args:
        path: the file, for errors.
        metadata: pyarrow's metadata of it.
        number: of the row group. A row of it has been read without an error.
        names: the columns that are read; None reads all.
        rows: the most rows.

    Raises:
        DataError: a column is compressed so strongly that reading it would fill the memory.
    """
    schema, group = metadata.schema, metadata.row_group(number)
    parts = [
        group.column(place)
        for place in range(metadata.num_columns)
        if names is None or any(f"{schema.column(place).path}.".startswith(f"{name}.") for name in names)
    ]
    for part in parts:
        _check_ratio(path, part.total_uncompressed_size, part.total_compressed_size)
    # A value of a column is at most as long as the column's part; of lists the items count too.
    longest = max((part.total_uncompressed_size for part in parts), default=1)
    items = max((part.num_values // max(1, group.num_rows) for part in parts), default=1)
    few = min(max(_FEW_ROWS, _DECODED_BYTES // max(1, longest)), _DECODED_BYTES // (16 * max(1, items)))
    return max(1, min(rows, few))


def _check_ratio(path: Path, unpacked: int, packed: int) -> None:
    """Raise DataError if something is larger than _SUSPECT_BYTES and compressed as no text is."""
    if unpacked <= max(_SUSPECT_BYTES, _SUSPECT_RATIO * packed):
        return
    raise DataError(
        "a column is compressed so strongly that the file is hardly text",
        where=str(path),
        expected=f"at most {_SUSPECT_RATIO} bytes for one",
        got=f"{packed:,} bytes for {unpacked:,}",
        remedy="Write it again in smaller row groups: to_parquet(..., row_group_size=10000).",
    )


@contextlib.contextmanager
def _parquet_file(path: Path) -> Iterator[Any]:
    """Open a Parquet file; pyarrow's errors about damage, now or while the block reads rows, become DataError.

    A name of a column that is not UTF-8 is a UnicodeDecodeError when the file is opened.
    """
    import pyarrow as pa
    from pyarrow import parquet

    try:
        opened = parquet.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20)  # type: ignore[no-untyped-call]
        with opened as file:
            yield file
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(
            "this cannot be read as Parquet",
            where=str(path),
            got=str(error).splitlines()[0],
            remedy="Check that the file was written completely, and that it is Parquet.",
        ) from None


def _check_type(source: str, field: Any) -> None:
    """Raise DataError unless a pyarrow field has plain values, or is a dictionary of them."""
    from pyarrow import types

    kind = field.type.value_type if types.is_dictionary(field.type) else field.type
    plain = (
        types.is_string,
        types.is_large_string,
        types.is_string_view,
        types.is_integer,
        types.is_floating,
        types.is_boolean,
        types.is_decimal,
        types.is_null,
    )
    if not any(is_kind(kind) for is_kind in plain):
        raise DataError(
            f"column {field.name!r} does not hold plain values",
            where=source,
            expected="strings, numbers or booleans",
            got=str(field.type),
            remedy="Decode the bytes: value.decode('utf-8')."
            if types.is_binary(kind) or types.is_large_binary(kind)
            else "Give each value a column of its own, as a string.",
        )


def _is_list(field: Any) -> bool:
    from pyarrow import types

    kinds = (types.is_list, types.is_large_list, types.is_fixed_size_list, types.is_list_view, types.is_large_list_view)
    return any(is_kind(field.type) for is_kind in kinds)


def _column_values(source: str, batch: Any, name: str, start: int, nullable: bool) -> list[Any]:
    """Return a column's values: strings, or lists of strings, in which a null row becomes "" where that is allowed."""
    if not _is_list(batch.schema.field(name)):
        return arrow_strings(source, batch, name, start, nullable)
    import pyarrow as pa

    values: list[Any] = []
    for index, items in enumerate(batch.column(name)):
        if not items.is_valid:
            if not nullable:
                raise null_value_error(name, f"{source}, row {start + index}", "null")
            values.append("")
            continue
        row = pa.RecordBatch.from_arrays([items.values], [name])
        values.append(arrow_strings(f"{source}, row {start + index}, item of the list", row, name, 1))
    return values


def _as_strings(column: Any) -> list[str | None]:
    """Return the values of a plain column as strings, None for null and NaN."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        # Arrow cannot decode a dictionary of string views, as polars has them.
        values = column.dictionary
        if pa.types.is_string_view(values.type):
            values = values.cast(pa.large_string())
        column = values.take(column.indices)
    if not pa.types.is_floating(column.type):
        return cast(list[str | None], column.cast(pa.large_string()).to_pylist())
    # pyarrow would write 1.0 as "1"; numpy writes floats as Python does
    strings = column.to_numpy(zero_copy_only=False).astype(str).tolist()
    absent = column.is_null(nan_is_null=True).to_pylist()
    return [None if is_null else string for is_null, string in zip(absent, strings, strict=True)]
