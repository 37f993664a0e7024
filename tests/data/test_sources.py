"""Whatever a person calls data becomes one source or parts by name; what cannot be read is refused in one paragraph."""

from pathlib import Path
from typing import Any

import datasets
import narwhals as nw
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from helpers.rows import make_rows, write_csv

from fullbake.config.sections import Columns, DataConfig, Dialect
from fullbake.core.errors import DataError, RecipeError
from fullbake.data.arrow import ArrowSource
from fullbake.data.dataset import read_dataset
from fullbake.data.labeled_files import read_part
from fullbake.data.sources import (
    GivenParts,
    NamelessTexts,
    as_frame,
    as_parts,
    as_source,
    open_columns,
    open_source,
    remedy_for,
)
from fullbake.data.splits import divide
from fullbake.data.tables import ReadOptions

TEXTS, LABELS = ["a", "b", "c"], ["x", "y", "x"]
FRAME = pd.DataFrame({"text": TEXTS, "label": LABELS})
BOTH = Columns("text", "label")


def texts_of(value: Any, columns: Columns = BOTH) -> list[str]:
    return [text for chunk in open_source(value, columns).chunks() for text in chunk.columns[columns.text]]


def test_one_source_is_taken_as_it_is_meant(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "x.csv", list(zip(TEXTS, LABELS, strict=True)))
    for value in (path, str(path), FRAME, as_source(FRAME), (TEXTS, LABELS), as_source((TEXTS, LABELS))):
        assert texts_of(value) == TEXTS
    for texts in (TEXTS, tuple(TEXTS), FRAME["text"], pl.Series(TEXTS), pa.array(TEXTS), iter(TEXTS), np.array(TEXTS)):
        assert texts_of(texts, Columns("text")) == TEXTS
    assert texts_of((FRAME["text"], pa.array(LABELS)), Columns("review", "stars")) == TEXTS
    assert isinstance(as_source(path), Path)
    assert as_source("owner/name:test") == "owner/name:test"
    assert texts_of(nw.from_native(FRAME)) == TEXTS


def test_texts_without_names_stand_only_for_texts_and_labels() -> None:
    assert str(NamelessTexts(TEXTS)) == "3 texts"
    assert str(NamelessTexts(TEXTS, LABELS)) == "3 texts with labels"
    with pytest.raises(DataError, match=r'pair \(texts, labels\), or \{"text"'):
        open_source(TEXTS, BOTH)
    with pytest.raises(DataError, match="pass its path"):
        open_source(["a.csv", "b.csv"], BOTH)
    with pytest.raises(DataError, match="3 texts with labels: the columns differ in length"):
        open_source((TEXTS, LABELS[:2]), BOTH)
    with pytest.raises(DataError, match="'user'"):
        open_source((TEXTS, LABELS), Columns("text", "label", group="user"))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (pl.LazyFrame({"text": TEXTS}), ["a LazyFrame", "collect()"]),
        (datasets.Dataset.from_dict({"text": TEXTS}).to_iterable_dataset(), ["an IterableDataset", "streaming=True"]),
        (datasets.DatasetDict(train=datasets.Dataset.from_dict({"text": TEXTS})), ["'train'", "source['train']"]),
        ({"train": FRAME, "test": FRAME}, ["'train', 'test'", "several parts"]),
        (read_dataset(FRAME), ["a Dataset", "has been read already"]),
        ((TEXTS, np.eye(3)), ["a tuple", "need names"]),
        ((TEXTS, LABELS, LABELS), ["a tuple"]),
        (np.zeros((2, 2)), ["a ndarray"]),
        ({"a", "b"}, ["a set"]),
        (None, ["got None"]),
        (3, ["an int: 3"]),
        (b"rows.csv", ["a bytes"]),
        ([1, 2], ["a list"]),
        ([("a", "x"), ("b", "y")], ["a list", "tuple(zip(*rows))"]),
        (FRAME.to_dict(), ["'text', 'label'", "pass the frame itself"]),
        (FRAME.to_records(index=False), ["a recarray"]),
        (nw.from_native(pl.LazyFrame({"text": TEXTS})), ["a LazyFrame", "collect()"]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_source_is_refused(value: Any, words: list[str]) -> None:
    with pytest.raises(DataError) as caught:
        as_source(value)
    for word in ["the argument source", "a pair (texts, labels)", *words]:
        assert word in str(caught.value)
    assert caught.value.remedy


def test_a_frame_is_none_for_other_values_and_an_error_for_parts() -> None:
    assert as_frame(TEXTS) is None
    assert as_frame("rows.csv") is None
    assert isinstance(as_frame(FRAME), ArrowSource)
    with pytest.raises(DataError, match=r"texts\['test'\]"):
        as_frame({"test": FRAME}, "texts")
    assert remedy_for(FRAME) is None
    assert remedy_for(pl.LazyFrame({})) == "Pass frame.collect()."


def test_flags_of_files_do_not_apply_to_frames() -> None:
    with pytest.raises(DataError, match="--delimiter does not apply"):
        open_source(FRAME, BOTH, Dialect(delimiter=";"))
    found = open_columns(as_frame(FRAME), ReadOptions(("label",)))  # type: ignore[arg-type]
    assert found.columns == ("label",)
    assert found.names == ("text", "label")


def test_a_missing_text_is_refused_unless_it_is_allowed() -> None:
    (chunk,) = open_source(["a", None], Columns("text"), nullable=["text"]).chunks()
    assert chunk.columns["text"] == ["a", ""]
    with pytest.raises(DataError, match="2 texts, row 2: column 'text' has no value"):
        texts_of(["a", None], Columns("text"))


# Parts


def test_parts_are_known_by_their_names(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_csv(tmp_path / "x.csv", list(zip(TEXTS, LABELS, strict=True)))
    hub = datasets.Dataset.from_pandas(FRAME)
    cases: list[Any] = [
        datasets.DatasetDict(train=hub, validation=hub, test=hub),
        {"test": FRAME, "train": FRAME, "validation": FRAME},
        {"train": path, "validation": str(path), "test": pl.DataFrame(FRAME)},
        {"train": (TEXTS, LABELS), "validation": {"text": TEXTS, "label": LABELS}, "test": read_dataset(FRAME)},
    ]
    for value in cases:
        found = as_parts(value)
        assert list(found.others) == ["validation", "test"]
    with caplog.at_level("INFO", "fullbake"):
        assert as_parts({"train": FRAME, "unsupervised": FRAME}).others == {}
    assert "not used of the data: 'unsupervised'" in caplog.text


def test_one_table_is_no_part() -> None:
    for value in (FRAME, {"train": [1, 2], "test": ["a", "b"]}, {"text": TEXTS, "label": LABELS}, (TEXTS, LABELS)):
        assert as_parts(value).others == {}
    read = read_dataset(FRAME)
    assert as_parts(read).train is read


def test_parts_need_training_rows_and_are_given_once() -> None:
    with pytest.raises(DataError, match=r"no part 'train'[\s\S]*'test'"):
        as_parts({"test": FRAME})
    given = GivenParts(FRAME, {"validation": as_source(FRAME), "test": read_dataset(FRAME)})
    named = "a pandas DataFrame of 3 rows"
    assert given.fields(DataConfig()) == {"validation": named, "test": named}
    assert given.fields(DataConfig(validation=named)) == {"validation": named, "test": named}
    with pytest.raises(RecipeError, match="the test rows are given twice"):
        given.fields(DataConfig(test="test.csv"))


def test_given_parts_take_the_place_of_shares() -> None:
    rows = pd.DataFrame(make_rows(60), columns=["text", "label"])
    train, validation = rows.iloc[:40], rows.iloc[40:50]
    test = read_dataset(rows.iloc[50:].assign(label="food"), label="label")
    given = as_parts({"train": train, "validation": validation, "test": test})
    config = DataConfig.model_validate(given.fields(DataConfig()))
    whole = read_dataset(given.train, label="label")
    parts = divide(whole, config, given.others)
    assert {name: len(part) for name, part in parts.by_name().items()} == {"train": 40, "validation": 10, "test": 10}
    assert parts.test is not None
    assert parts.test.source.label_names == whole.label_names
    assert parts.validation is not None
    assert parts.validation.source.source == "a pandas DataFrame of 10 rows"
    stranger = read_dataset(rows.assign(label="weather"), label="label")
    with pytest.raises(DataError, match="labels that training did not have"):
        read_part(stranger, config, whole)
    assert len(read_part(test, config, whole)) == 10
