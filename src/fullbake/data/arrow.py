"""Columns of Arrow as tables of strings: Parquet files, and hub data sets.

Every value becomes the string that Python writes for it (`1.0`, not `1`, for a float); lists are let in where they are
asked for. pyarrow is imported when the first such table is opened.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

from fullbake.core.errors import DataError
from fullbake.data.tables import CHUNK_CHARACTERS, Chunk, Table, null_value_error, select_columns
from fullbake.data.textfiles import check_unique

Batches = Callable[[int, bool], Iterator[Any]]
"""(rows at most, whether to read all columns) -> pyarrow.RecordBatch after RecordBatch."""


def arrow_table(
    source: str,
    schema: Any,
    batches: Batches,
    columns: Sequence[str] | None,
    *,
    nullable: Sequence[str] = (),
    lists: Sequence[str] = (),
) -> Table:
    """A table over record batches of pyarrow, wherever they come from (Parquet files, hub data sets)."""
    names = tuple(schema.names)
    check_unique(names, source)
    wanted = select_columns(source, names, columns)
    for name in wanted:
        if not (name in lists and _is_list(schema.field(name))):
            _check_type(source, schema.field(name))

    def read(size: int, keep: bool) -> Iterator[Chunk]:
        start = 1
        for batch in batches(size, keep):
            positions = list(range(start, start + batch.num_rows))
            values = {name: _arrow_column(source, batch, name, start, name in nullable) for name in wanted}
            yield Chunk(source, "row", values, positions, batch if keep else None)
            start += batch.num_rows

    return Table(source, "parquet", names, wanted, "row", read, schema)


def _is_list(field: Any) -> bool:
    from pyarrow import types

    kinds = (types.is_list, types.is_large_list, types.is_fixed_size_list, types.is_list_view, types.is_large_list_view)
    return any(is_kind(field.type) for is_kind in kinds)


def _arrow_column(source: str, batch: Any, name: str, start: int, nullable: bool) -> list[Any]:
    """A column's values: strings, or lists of strings; of these a null is the empty string where it may be."""
    if not _is_list(batch.schema.field(name)):
        return arrow_strings(source, batch, name, start, nullable)
    import pyarrow as pa

    column = batch.column(name)
    values: list[Any] = []
    for index, items in enumerate(column):
        if not items.is_valid:
            if not nullable:
                raise null_value_error(name, f"{source}, row {start + index}", "null")
            values.append("")
            continue
        row = pa.RecordBatch.from_arrays([items.values], [name])
        values.append(arrow_strings(f"{source}, row {start + index}, item of the list", row, name, 1))
    return values


def parquet_table(
    path: Path, columns: Sequence[str] | None, *, nullable: Sequence[str] = (), lists: Sequence[str] = ()
) -> Table:
    """A Parquet file; its schema is read now, its rows when asked for."""
    with _parquet_file(path) as file:
        schema = file.schema_arrow
    wanted = None if columns is None else list(columns)
    batches = partial(_parquet_batches, path, wanted)
    return arrow_table(str(path), schema, batches, columns, nullable=nullable, lists=lists)


def _parquet_batches(path: Path, columns: list[str] | None, size: int, keep: bool) -> Iterator[Any]:
    with _parquet_file(path) as file:
        metadata = file.metadata
        groups = [metadata.row_group(index).total_byte_size for index in range(metadata.num_row_groups)]
        width = max(1, sum(groups) // max(1, metadata.num_rows))
        rows = max(1, min(size, CHUNK_CHARACTERS // width))
        yield from file.iter_batches(batch_size=rows, columns=None if keep else columns)


@contextlib.contextmanager
def _parquet_file(path: Path) -> Iterator[Any]:
    """Open; what pyarrow makes of a damaged file, now or while its rows are read, becomes a DataError."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        opened = parquet.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20)  # type: ignore[no-untyped-call]
        with opened as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            "this cannot be read as Parquet",
            where=str(path),
            got=str(error).splitlines()[0],
            remedy="Check that the file was written whole, and that it is Parquet.",
        ) from None


def _check_type(source: str, field: Any) -> None:
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
            remedy="Give each value a column of its own, as a string.",
        )


def arrow_strings(source: str, batch: Any, name: str, start: int, nullable: bool = False) -> list[str]:
    """A batch's column as strings; floats as Python writes them (`1.0`, not `1`). start: its first row's
    number.

    Raises DataError for a null (unless nullable: then the empty string), and for lists, structs, times and
    bytes.
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
    if None in values and not nullable:
        raise null_value_error(name, f"{source}, row {start + values.index(None)}", "null")
    return [value or "" for value in values]


def _as_strings(column: Any) -> list[str | None]:
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if not pa.types.is_floating(column.type):
        return cast(list[str | None], column.cast(pa.large_string()).to_pylist())
    literals = column.to_numpy(zero_copy_only=False).astype(str).tolist()
    absent = column.is_null(nan_is_null=True).to_pylist()
    return [None if gone else text for gone, text in zip(absent, literals, strict=True)]
