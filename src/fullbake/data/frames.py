"""Tables in memory as columns of Arrow: data frames, Arrow tables, data sets of Hugging Face, dicts of columns.

No library is imported to recognize its objects: one that nobody has imported yet has made none. A frame is read as the
Parquet file that it would be written to: the index of pandas is no column, and values become the same strings. Only the
columns that are asked for are converted, those of Python objects a batch at a time. Columns that Arrow can share are
not copied.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fullbake.core.arguments import describe_value, is_instance_of
from fullbake.core.errors import DataError
from fullbake.data.arrow import ArrowSource

if TYPE_CHECKING:
    import pyarrow as pa

_PLAIN: Final = "strings, numbers or booleans, of one type in a column"


@dataclass(frozen=True)
class _Column:
    """A column of a frame."""

    length: int
    type: "pa.DataType"
    slice: Callable[[int, int], "pa.Array"]
    """Called with a first row, from 0, and a number of rows; returns these rows."""


LoadColumn = Callable[[int], Any]
"""Called with the place of a column; returns its values in whatever form the library has them."""


def frame_source(value: Any) -> ArrowSource | None:
    """Return a table in memory as columns of Arrow; None if the value is no table.

    Args:
        value: A DataFrame of pandas or polars, a table or record batch of pyarrow, any other object that hands out a
            table by Arrow's PyCapsule protocol (DuckDB, ibis, narwhals), a Dataset of the datasets library, a mapping
            of names to columns, or a list of mappings, one a row. A stream that can be read once is read now.

    Raises:
        DataError: The columns of a mapping differ in length, or a value in them is no column.
    """
    if isinstance(value, ArrowSource):
        return value
    if is_instance_of(value, "pandas", "DataFrame"):
        return _pandas_source(value)
    if is_instance_of(value, "polars", "DataFrame"):
        names, rows = list(value.columns), len(value)
        return _source(_describe("polars DataFrame", rows), names, rows, lambda place: value[names[place]])
    if is_instance_of(value, "datasets", "Dataset"):
        return dataset_source(value, _describe("Hugging Face Dataset", len(value)))
    if isinstance(value, Mapping):
        return _mapping_source(value)
    if _are_mappings(value):
        names = list(dict.fromkeys(name for row in value for name in row))
        columns = [[row.get(name) for row in value] for name in names]
        return _source(f"a list of {len(value):,} dicts", names, len(value), columns.__getitem__)
    return _capsule_source(value)


def is_column(value: Any) -> bool:
    """Return True if a value is a column of a library: of pandas, polars, numpy, Arrow or datasets."""
    return (
        is_instance_of(value, "pandas", "Series")
        or is_instance_of(value, "pandas", "Index")
        or is_instance_of(value, "datasets.arrow_dataset", "Column")
        or (is_instance_of(value, "numpy", "ndarray") and value.ndim == 1 and value.dtype.names is None)
        or is_instance_of(value, "polars", "Series")
        or is_instance_of(value, "pyarrow", "Array")
        or is_instance_of(value, "pyarrow", "ChunkedArray")
    )


def columns_source(description: str, columns: Mapping[str, Any]) -> ArrowSource:
    """Return columns of equal length as a source.

    Args:
        description: What errors call it.
        columns: Name to column: a list or a column of a library.

    Raises:
        DataError: Columns differ in length.
    """
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(
            "the columns differ in length",
            where=description,
            expected="a value in each row of each column",
            got=", ".join(f"{length:,} in {name!r}" for name, length in list(lengths.items())[:6]),
            remedy="Pass as many texts as labels.",
        )
    rows = next(iter(lengths.values()), 0)
    values = list(columns.values())
    return _source(description, list(columns), rows, values.__getitem__)


def dataset_source(dataset: Any, description: str) -> ArrowSource:
    """Return a Dataset of the datasets library as a source, with the names of classes in place of their numbers.

    Its rows are read batch by batch, so one that lies on the disk is never whole in memory. A set transform is not
    applied.

    Args:
        dataset: The Dataset.
        description: What errors call it.
    """
    import pyarrow as pa

    # A feature is a class (it has names), a list of classes (the feature of its items has names), or something else.
    single = {name: kind.names for name, kind in dataset.features.items() if hasattr(kind, "names")}
    listed = {
        name: kind.feature.names
        for name, kind in dataset.features.items()
        if hasattr(getattr(kind, "feature", None), "names")
    }
    whole = dataset.features.arrow_schema
    for name in single | listed:
        kind = pa.string() if name in single else pa.list_(pa.string())
        whole = whole.set(whole.get_field_index(name), pa.field(name, kind))

    def batches(size: int, wanted: Sequence[str] | None) -> Iterator[Any]:
        chosen = dataset if wanted is None else dataset.select_columns(list(wanted))
        for table in chosen.with_format("arrow").iter(batch_size=size):
            yield from _with_class_names(table, single | listed, whole).combine_chunks().to_batches()

    return ArrowSource(description, tuple(whole.names), lambda _: whole, batches)


def _with_class_names(table: "pa.Table", names_of: Mapping[str, list[str]], schema: "pa.Schema") -> "pa.Table":
    """Replace class numbers, alone or in lists, by their names; -1, which means "no label", becomes null."""
    import pyarrow as pa

    for column, names in names_of.items():
        if column not in table.column_names:
            continue
        values = [_class_name(number, names) for number in table[column].to_pylist()]
        field = schema.field(column)
        table = table.set_column(table.schema.get_field_index(column), field, pa.array(values, field.type))
    return table


def _class_name(number: Any, names: list[str]) -> Any:
    if isinstance(number, list):
        return [_class_name(one, names) for one in number]
    return None if number is None or number < 0 else names[number]


# One kind of table each


def _pandas_source(frame: Any) -> ArrowSource:
    names = [str(name) for name in frame.columns]
    description = _describe("pandas DataFrame", len(frame))
    source = _source(description, names, len(frame), lambda place: frame.iloc[:, place])
    index = [str(name) for name in frame.index.names if name is not None]
    named = f"The index {', '.join(map(repr, index))} is no column; reset_index() makes one of it." if index else ""
    return replace(source, hint=named)


def _mapping_source(columns: Mapping[Any, Any]) -> ArrowSource:
    if not columns:
        raise DataError("the dict is empty", expected="a name and a column of each", got="{}")
    values: dict[str, Any] = {}
    for name, column in columns.items():
        if not (is_column(column) or isinstance(column, list | tuple)):
            if isinstance(column, str | bytes | Mapping) or not hasattr(column, "__iter__"):
                raise DataError(
                    f"the value of {str(name)!r} in the dict is no column",
                    expected="a list, an array or a column of a data frame",
                    got=describe_value(column),
                    remedy='Pass {"text": [...], "label": [...]}, with a value for each row.',
                )
            column = column.tolist() if hasattr(column, "tolist") else list(column)
        values[str(name)] = column
    return columns_source(_describe("dict", len(next(iter(values.values())))), values)


def _capsule_source(value: Any) -> ArrowSource | None:
    """Return what a table of Arrow holds, or an object that hands one out; None if it is no table."""
    if not hasattr(value, "__arrow_c_stream__") or isinstance(value, type) or is_column(value):
        return None
    import pyarrow as pa

    try:
        table = value if isinstance(value, pa.Table) else pa.RecordBatchReader.from_stream(value).read_all()
    except pa.ArrowInvalid:  # a column
        return None
    kind, package = type(value).__name__, type(value).__module__.partition(".")[0]
    description = _describe(f"{package} {kind}", table.num_rows)
    return _source(description, table.column_names, table.num_rows, table.column)


def _are_mappings(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(one, Mapping) for one in value)


def _describe(kind: str, rows: int) -> str:
    return f"{'an' if kind[0].lower() in 'aeiou' else 'a'} {kind} of {_rows(rows)}"


def _rows(rows: int) -> str:
    return f"{rows:,} row{'' if rows == 1 else 's'}"


# Columns


def _source(description: str, names: Sequence[str], rows: int, load: LoadColumn) -> ArrowSource:
    """Return columns that are loaded when they are asked for, each once."""
    import pyarrow as pa

    loaded: dict[int, _Column] = {}

    def column(place: int) -> _Column:
        if place not in loaded:
            loaded[place] = _as_column(load(place), names[place], description)
        return loaded[place]

    def places(wanted: Sequence[str] | None) -> Sequence[int]:
        return range(len(names)) if wanted is None else [names.index(name) for name in wanted]

    def schema(wanted: Sequence[str] | None) -> Any:
        return pa.schema([pa.field(names[place], column(place).type) for place in places(wanted)])

    def batches(size: int, wanted: Sequence[str] | None) -> Iterator[Any]:
        own = schema(wanted)
        for start in range(0, rows, size):
            arrays = [column(place).slice(start, size) for place in places(wanted)]
            yield pa.RecordBatch.from_arrays(arrays, schema=own)

    return ArrowSource(description, tuple(names), schema, batches)


def _as_column(values: Any, name: str, where: str) -> _Column:
    """Return values as a column of Arrow; objects of Python are converted a batch at a time.

    Raises:
        DataError: Arrow has no type that holds all of them.
    """
    import pyarrow as pa

    if getattr(getattr(values, "dtype", None), "kind", "") == "O" or isinstance(values, list | tuple):
        return _objects_column(values, name, where)
    try:
        if isinstance(values, pa.ChunkedArray | pa.Array):
            arrow = values
        elif hasattr(values, "__arrow_c_stream__") and not is_instance_of(values, "pandas", "Series"):
            arrow = pa.chunked_array(values)
        else:
            arrow = pa.array(values, from_pandas=True)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return _objects_column(list(values), name, where)

    def part(start: int, rows: int) -> Any:
        few = arrow.slice(start, rows)
        if not isinstance(few, pa.ChunkedArray):
            return few
        return few.chunk(0) if few.num_chunks == 1 else few.combine_chunks()  # joining copies, even a single chunk

    return _Column(len(arrow), arrow.type, part)


def _objects_column(values: Any, name: str, where: str) -> _Column:
    import pyarrow as pa

    held = values if isinstance(values, list | tuple) else values.to_numpy() if hasattr(values, "to_numpy") else values
    try:
        kind = pa.infer_type(held, from_pandas=True)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise _mixed_error(held, name, where, error) from None
    # Arrow finds out only when it converts the values.
    if _is_mixed(held):
        raise _mixed_error(held, name, where)

    def part(start: int, rows: int) -> Any:
        try:
            return pa.array(held[start : start + rows], kind, from_pandas=True)
        except UnicodeEncodeError:
            raise _surrogate_error(held[start : start + rows], start, name, where) from None
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            raise _mixed_error(held, name, where, error) from None

    return _Column(len(held), kind, part)


def _is_mixed(values: Sequence[Any]) -> bool:
    """Return True if there are values of several kinds, such as a number among texts."""
    if len({_kind_of(kind) for kind in set(map(type, values))} - {None}) < 2:
        return False
    # NaN stands for a missing value, also among texts.
    return len({_kind_of(type(value)) for value in values if not _is_missing(value)}) > 1


def _kind_of(kind: type) -> str | None:
    """Return what values of a type are; None for values that are missing."""
    if kind is type(None) or kind.__name__ == "NAType":
        return None
    known = {"text": str, "boolean": bool | np.bool_, "number": int | float | np.number}
    known["list"] = list | tuple | np.ndarray
    return next((name for name, types in known.items() if issubclass(kind, types)), kind.__name__)


def _is_missing(value: Any) -> bool:
    """Return True for None, NaN and the NA of pandas."""
    is_nan = isinstance(value, float) and value != value
    return value is None or is_nan or is_instance_of(value, "pandas._libs.missing", "NAType")


def _mixed_error(values: Sequence[Any], name: str, where: str, error: Exception | None = None) -> DataError:
    """Return the error for a column of which Arrow makes no type: its first values of two types are named."""
    first: dict[str, int] = {}
    for row, value in enumerate(values, 1):
        if not _is_missing(value):
            first.setdefault(type(value).__name__, row)
    found = [f"{kind} in row {row}" for kind, row in list(first.items())[:3]]
    return DataError(
        f"column {name!r} holds {'values of several types' if len(first) > 1 else 'no plain values'}",
        where=where,
        expected=_PLAIN,
        got=", ".join(found) if error is None or len(first) > 1 else f"{', '.join(found)} ({_first_line(error)})",
        remedy=f"Make strings of them: {name} = [str(value) for value in {name}].",
    )


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:100]


def _surrogate_error(values: Sequence[Any], start: int, name: str, where: str) -> DataError:
    row = next(number for number, value in enumerate(values, start + 1) if not _is_unicode(value))
    return DataError(
        f"a text in column {name!r} holds half of a surrogate pair, which is no character",
        where=f"{where}, row {row}",
        remedy="Read the texts as UTF-8, or replace it: text.encode(errors='replace').decode().",
    )


def _is_unicode(value: Any) -> bool:
    try:
        str(value).encode()
    except UnicodeEncodeError:
        return False
    return True
