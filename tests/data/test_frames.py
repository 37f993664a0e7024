"""Tables in memory are read as the file that they would be written to; what holds no plain values is refused."""

import csv
import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from fullbake.core.errors import DataError
from fullbake.data.arrow import arrow_table
from fullbake.data.dataset import Dataset, read_dataset
from fullbake.data.frames import columns_source, dataset_source, frame_source, is_column
from fullbake.data.tables import ReadOptions

TEXTS, LABELS = ["a good game", 'the "bank", x', "a\nline", "", " pad "], ["s", "b", "s", "b", "01"]
COLUMNS = {"text": TEXTS, "label": LABELS}


class Handed:
    """An object of a library that nobody knows, which hands out its rows by the PyCapsule protocol."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self._table.__arrow_c_stream__(requested_schema)


def hub_set(texts: list[str], labels: list[str | None]) -> datasets.Dataset:
    """A data set whose labels are numbers of classes, -1 for none, with rows chosen by indices."""
    names = sorted({label for label in labels if label is not None}) or ["none"]
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=names)})
    ids = [-1 if label is None else names.index(label) for label in labels]
    whole = datasets.Dataset.from_dict({"text": ["x", *texts], "label": [0, *ids]}, features=features)
    return whole.select(range(1, len(texts) + 1))


def forms(texts: list[str], labels: list[str | None]) -> dict[str, Any]:
    """The same rows in every form that is read from memory."""
    columns: dict[str, Any] = {"text": texts, "label": labels}
    table = pa.table({"text": pa.array(texts, pa.string()), "label": pa.array(labels, pa.string())})
    half = len(texts) // 2
    return {
        "dict": columns | {"spare": [[], {}, 1, "a", None][: len(texts)] + [0] * max(0, len(texts) - 5)},
        "dict of arrays": {"text": pd.Series(texts, index=range(9, 9 + len(texts))), "label": pa.array(labels)},
        "object arrays": {"text": np.array(texts, object), "label": pl.Series(labels, dtype=pl.String)},
        "records": [dict(zip(columns, row, strict=True)) for row in zip(texts, labels, strict=True)],
        "pandas": pd.DataFrame(columns, index=[f"row {number}" for number in range(len(texts))]),
        "pandas objects": pd.DataFrame(columns, dtype=object).replace({np.nan: None}),
        "pandas categories": pd.DataFrame(columns).astype({"label": "category"}),
        "polars": pl.DataFrame(columns, schema={"text": pl.String, "label": pl.String}),
        "polars categories": pl.DataFrame(columns, schema={"text": pl.String, "label": pl.Categorical}),
        "arrow": table,
        "arrow chunks": pa.concat_tables([table.slice(0, half), table.slice(half)]),
        "arrow slice": pa.concat_tables([table, table]).slice(len(texts), len(texts)),
        "arrow dictionary": table.set_column(1, "label", table["label"].dictionary_encode()),
        "reader": table.to_reader(),
        "capsule": Handed(table),
        "datasets": hub_set(texts, labels),
        "pair": (texts, labels),
    }


def write_files(folder: Path, texts: list[str], labels: list[str | None]) -> list[Path]:
    rows = list(zip(texts, labels, strict=True))
    with (folder / "x.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows([("text", "label"), *((t, label or "") for t, label in rows)])
    lines = [json.dumps({"text": text, "label": label}) for text, label in rows]
    (folder / "x.jsonl").write_text("\n".join(lines), "utf-8")
    parquet.write_table(pa.table({"text": texts, "label": pa.array(labels, pa.string())}), folder / "x.parquet")
    return [folder / f"x.{ending}" for ending in ("csv", "jsonl", "parquet")]


def read(source: Any, **options: Any) -> Dataset:
    return read_dataset(source, label="label", **options)


CHARACTERS = st.characters(exclude_characters="\0\r\ufeff", exclude_categories=["Cs"])
ROWS = st.lists(
    st.tuples(st.text(CHARACTERS, max_size=12), st.none() | st.sampled_from(["a", "01", "ä b", "NA"])), min_size=1
)


@settings(max_examples=15)
@given(ROWS)
def test_the_same_rows_are_the_same_data_set_in_every_form(tmp_path_factory: Any, rows: Any) -> None:
    texts, labels = [text for text, _ in rows], [label for _, label in rows]
    folder = tmp_path_factory.mktemp("forms")
    sources = {path.suffix: path for path in write_files(folder, texts, labels)} | forms(texts, labels)
    if not any(labels):
        for source in sources.values():
            with pytest.raises(DataError, match="is empty in all"):
                read(source, drop_unlabelled=True)
        return
    expected = read(sources.pop(".csv"), drop_unlabelled=True)
    for name, source in sources.items():
        found = read(source, drop_unlabelled=True)
        assert found.fingerprint() == expected.fingerprint(), name
        assert found.rows.tolist() == expected.rows.tolist(), name
        assert found.texts.to_pylist() == expected.texts.to_pylist(), name


def test_a_frame_says_what_it_is() -> None:
    read_forms = {name: read(source).source for name, source in forms(TEXTS, list(LABELS)).items()}
    assert read_forms == {
        **dict.fromkeys(("dict", "dict of arrays", "object arrays"), "a dict of 5 rows"),
        "records": "a list of 5 dicts",
        **dict.fromkeys(("pandas", "pandas objects", "pandas categories"), "a pandas DataFrame of 5 rows"),
        **dict.fromkeys(("polars", "polars categories"), "a polars DataFrame of 5 rows"),
        **dict.fromkeys(("arrow", "arrow chunks", "arrow slice", "arrow dictionary"), "a pyarrow Table of 5 rows"),
        "reader": "a pyarrow RecordBatchReader of 5 rows",
        "capsule": f"a {__name__.partition('.')[0]} Handed of 5 rows",
        "datasets": "a Hugging Face Dataset of 5 rows",
        "pair": "5 texts with labels",
    }
    assert str(frame_source(pd.DataFrame({"text": range(1000)}))) == "a pandas DataFrame of 1,000 rows"


def test_a_changed_frame_has_another_fingerprint() -> None:
    frame = pd.DataFrame(COLUMNS)
    before = read(frame).fingerprint()
    frame.loc[1, "text"] = "another text"
    assert read(frame).fingerprint() != before


@pytest.mark.parametrize(
    ("column", "names"),
    [
        ([1, 0], ("0", "1")),
        ([1.0, 2.5], ("1.0", "2.5")),
        ([True, False], ("false", "true")),
        (pd.Series([1, 0], dtype="Int64"), ("0", "1")),
        (pd.Series([True, False], dtype="boolean"), ("false", "true")),
        (pd.Series([3, 1], dtype="category"), ("1", "3")),
        (pd.Series(["b", "a"], dtype="string"), ("a", "b")),
        (np.array([2, 1], np.int8), ("1", "2")),
        (np.array(["b", "a"]), ("a", "b")),
        (pl.Series(["b", "a"], dtype=pl.Enum(["b", "a"])), ("a", "b")),
        (pl.Series([True, False]), ("false", "true")),
    ],
)
def test_labels_of_other_types_are_spelled_as_in_parquet(tmp_path: Path, column: Any, names: tuple[str, ...]) -> None:
    found = read({"text": ["x", "y"], "label": column})
    assert found.label_names == names
    pd.DataFrame({"text": ["x", "y"], "label": list(column)}).to_parquet(tmp_path / "x.parquet")
    assert read(tmp_path / "x.parquet").label_names == names


@pytest.mark.parametrize(
    "column",
    [
        [["joy", "fear"], []],
        pd.Series([["joy", "fear"], []]),
        pd.Series([np.array(["joy", "fear"]), np.array([], object)]),
        pl.Series([["joy", "fear"], []]),
        pa.array([["joy", "fear"], []]),
        [("joy", "fear"), ()],
    ],
)
def test_lists_of_labels_are_many_labels(column: Any) -> None:
    found = read({"text": ["x", "y"], "label": column})
    assert found.label_names == ("fear", "joy")
    assert found.labels is not None
    assert found.labels.tolist() == [[1, 1], [0, 0]]


def test_lists_of_classes_of_a_data_set_are_read_by_name() -> None:
    kinds = datasets.List(datasets.ClassLabel(names=["joy", "anger"]))
    features = datasets.Features({"text": datasets.Value("string"), "label": kinds})
    held = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [[1, 0], []]}, features=features)
    found = read(held.with_format("numpy"))
    assert found.label_names == ("anger", "joy")
    assert found.labels is not None
    assert found.labels.tolist() == [[1, 1], [0, 0]]
    assert dataset_source(held, "x").description == "x"


def test_only_the_columns_that_are_asked_for_are_looked_at() -> None:
    odd = pd.DataFrame([["t", "l", object(), "x", "y"]], columns=["text", "label", "odd", "twice", "twice"])
    assert read(odd).label_names == ("l",)
    with pytest.raises(DataError, match="the name 'twice' occurs twice"):
        read(odd, group="twice")
    many = pl.DataFrame({"text": ["t"], "label": ["l"], "odd": pl.Series([object()], dtype=pl.Object)})
    assert read(many).label_names == ("l",)
    numbered = pd.DataFrame([["t", "l"]])
    assert read_dataset(numbered, text="0", label="1").label_names == ("l",)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (pd.DataFrame({"text": ["a", None], "label": ["x", "y"]}), ["row 2", "'text' has no value"]),
        (pd.DataFrame({"text": ["a", "b"], "label": ["x", float("nan")]}), ["row 2", "'label' is empty", "1 of 2"]),
        (pl.DataFrame({"txt": ["a"], "label": ["x"]}), ["no column 'text'", "Did you mean 'txt'?", "'label'"]),
        (pd.DataFrame(COLUMNS).set_index("text"), ["no column 'text'", "reset_index()"]),
        (pd.DataFrame(), ["no column 'text'", "no column at all"]),
        (pd.DataFrame({"text": [], "label": []}), ["there is no row", "0 rows"]),
        ({"text": ["a", "b"], "label": [1, "x"]}, ["several types", "int in row 1, str in row 2", "str(value)"]),
        ({"text": ["a", "b"], "label": ["x", 1]}, ["several types", "str in row 1, int in row 2"]),
        ({"text": ["a", "b"], "label": ["x", 1.5]}, ["several types", "float in row 2"]),
        ({"text": [object()], "label": ["x"]}, ["no plain values", "object in row 1"]),
        ({"text": ["a"], "label": [2**70]}, ["no plain values", "int in row 1"]),
        ({"text": [b"a"], "label": ["x"]}, ["binary", "decode('utf-8')"]),
        ({"text": ["\ud800"], "label": ["x"]}, ["half of a surrogate pair", "row 1"]),
        ({"text": [{"a": 1}], "label": ["x"]}, ["struct<", "'text'"]),
        (pd.DataFrame({"text": pd.to_datetime(["2020"]), "label": ["x"]}), ["timestamp", "'text'"]),
        ({"text": ["a"], "label": ["x", "y"]}, ["differ in length", "1 in 'text', 2 in 'label'"]),
        ({"text": "abc", "label": ["x"]}, ["'text' in the dict is no column", "a str: 'abc'"]),
        ({"text": 3, "label": ["x"]}, ["no column", "an int: 3"]),
        ({}, ["the dict is empty"]),
    ],
)
def test_what_is_no_table_of_texts_is_refused(value: Any, words: list[str]) -> None:
    with pytest.raises(DataError) as caught:
        read(value)
    for word in words:
        assert word in str(caught.value), f"{word!r} is not in: {caught.value}"


def test_columns_are_told_from_tables() -> None:
    frame, more, table = pd.DataFrame(COLUMNS), pl.DataFrame(COLUMNS), pa.table(COLUMNS)
    columns = [frame["text"], frame.index, more["text"], table["text"], table["text"].chunk(0), np.array(TEXTS)]
    for column in [*columns, hub_set(TEXTS, list(LABELS))["text"]]:
        assert is_column(column), type(column)
        assert frame_source(column) is None, type(column)
    for value in (frame, more, table, np.zeros((2, 2)), TEXTS, "text", None):
        assert not is_column(value), type(value)
    for value in (TEXTS, "rows.csv", None, 3, Handed, object()):
        assert frame_source(value) is None


def test_a_stream_is_read_once_and_kept() -> None:
    source = frame_source(pa.table(COLUMNS).to_reader())
    assert source is not None
    assert frame_source(source) is source
    for _ in range(2):
        chunks = list(arrow_table(source, ReadOptions(("text",))).chunks(2))
        assert [len(chunk) for chunk in chunks] == [2, 2, 1]
        assert [text for chunk in chunks for text in chunk.columns["text"]] == TEXTS


def test_columns_of_arrow_are_not_copied() -> None:
    table = pa.table({"text": pa.array(TEXTS, pa.large_string())})
    source = frame_source(table)
    assert source is not None
    (batch,) = source.batches(10, ["text"])
    assert batch.column(0).buffers()[2].address == table["text"].chunk(0).buffers()[2].address
    assert source.schema(None).names == ["text"]
    assert columns_source("x", {"n": [1, 2]}).schema(["n"]).field("n").type == pa.int64()
