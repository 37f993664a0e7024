"""Add columns to a table in memory, and return a table of the same kind. The table that was given stays as it is."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import numpy as np

from fullbake.core.arguments import is_instance_of
from fullbake.data.arrow import ArrowSource


def with_columns(frame: Any, source: ArrowSource, added: Mapping[str, Any]) -> Any:
    """Return a table with further columns on its right.

    Args:
        frame: What `frames.frame_source` takes.
        source: What that returned for it.
        added: Name to values, an array (rows,) of numbers or of strings (dtype object).

    Returns:
        A DataFrame of pandas (with the same index) or polars, a Dataset of the datasets library, a dict of columns, a
        list of dicts, or a record batch, as was given; for all others a pyarrow.Table.
    """
    if is_instance_of(frame, "pandas", "DataFrame"):
        pd: Any = import_module("pandas")
        return pd.concat([frame, pd.DataFrame(dict(added), index=frame.index)], axis=1)
    if is_instance_of(frame, "polars", "DataFrame"):
        pl: Any = import_module("polars")
        return frame.with_columns([pl.Series(name, _listed(values)) for name, values in added.items()])
    if is_instance_of(frame, "datasets", "Dataset"):
        datasets: Any = import_module("datasets")
        more = datasets.Dataset(_arrow_table(added))
        joined = datasets.concatenate_datasets([frame.with_format(None), more], axis=1)
        return joined.with_format(**frame.format) if frame.format["type"] else joined
    if isinstance(frame, Mapping):
        return dict(frame) | {name: values.tolist() for name, values in added.items()}
    if isinstance(frame, list | tuple):
        rows = zip(*(values.tolist() for values in added.values()), strict=True)
        return [dict(row) | dict(zip(added, more, strict=True)) for row, more in zip(frame, rows, strict=True)]
    return _with_arrow_columns(frame, source, added)


def _with_arrow_columns(frame: Any, source: ArrowSource, added: Mapping[str, Any]) -> Any:
    import pyarrow as pa

    whole = frame
    if not isinstance(frame, pa.Table | pa.RecordBatch):
        whole = pa.Table.from_batches(source.batches(65_536, None), source.schema(None))
    columns = _arrow_table(added).combine_chunks()
    for name in columns.column_names:
        column = columns.column(name)
        whole = whole.append_column(name, column.chunk(0) if isinstance(whole, pa.RecordBatch) else column)
    return whole


def _arrow_table(added: Mapping[str, Any]) -> Any:
    import pyarrow as pa

    columns = {
        name: pa.array(values, pa.large_string()) if values.dtype == object else pa.array(values)
        for name, values in added.items()
    }
    return pa.table(columns)


def _listed(values: np.ndarray) -> Any:
    """Return strings as a list: polars would keep an array of objects as objects."""
    return values.tolist() if values.dtype == object else values
