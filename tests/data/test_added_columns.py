"""Columns are added to a table of any kind, which stays as it was."""

from typing import Any

import datasets
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from fullbake.data.added_columns import with_columns
from fullbake.data.frames import frame_source

COLUMNS = {"n": [1, 2], "text": ["a", "b"]}
ADDED = {"predicted": np.array(["x", "y"], object), "score": np.array([0.5, 0.25], np.float32)}
NAMES = ["n", "text", "predicted", "score"]


def added_to(frame: Any) -> Any:
    source = frame_source(frame)
    assert source is not None
    return with_columns(frame, source, ADDED)


@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame(COLUMNS),
        pl.DataFrame(COLUMNS),
        pa.table(COLUMNS),
        pa.record_batch(COLUMNS),
        datasets.Dataset.from_dict(COLUMNS),
        datasets.Dataset.from_dict({"n": [9, 1, 2], "text": ["z", "a", "b"]}).select([1, 2]),
    ],
    ids=lambda frame: type(frame).__name__,
)
def test_the_result_is_of_the_kind_that_was_given(frame: Any) -> None:
    before = frame_source(frame)
    result = added_to(frame)
    assert type(result) is type(frame)
    assert frame_source(frame).names == before.names == ("n", "text")  # type: ignore[union-attr]
    source = frame_source(result)
    assert source is not None
    assert list(source.names) == NAMES
    (batch,) = source.batches(10, None)
    assert batch.to_pydict() == COLUMNS | {"predicted": ["x", "y"], "score": [0.5, 0.25]}
    assert source.schema(None).field("score").type == pa.float32()


def test_dicts_and_lists_of_dicts() -> None:
    assert added_to(COLUMNS) == COLUMNS | {"predicted": ["x", "y"], "score": [0.5, 0.25]}
    records = [{"n": 1, "text": "a"}, {"n": 2, "text": "b"}]
    assert added_to(records)[1] == {"n": 2, "text": "b", "predicted": "y", "score": 0.25}


def test_an_index_stays_also_where_it_is_not_unique() -> None:
    frame = pd.DataFrame(COLUMNS, index=["r", "r"])
    result = added_to(frame)
    assert result.index.tolist() == ["r", "r"]
    assert result["score"].dtype == np.float32


def test_other_objects_become_tables_of_arrow() -> None:
    assert type(added_to(pa.table(COLUMNS).to_reader())) is pa.Table


def test_a_format_of_a_data_set_stays() -> None:
    formatted = datasets.Dataset.from_dict(COLUMNS).with_format("numpy", columns=["n"])
    result = added_to(formatted)
    assert result.format["type"] == "numpy"
    assert result.column_names == NAMES
