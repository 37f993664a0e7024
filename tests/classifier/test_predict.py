"""`predict_file` and `predict_frame` add labels and scores to the rows of a file or a table in memory."""

import csv
import io
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.rows import make_rows, recipe, train, write_csv

from fullbake import Classifier, adapt, predict_file, predict_frame
from fullbake.core.errors import DataError, OutputError, RecipeError
from fullbake.data.files import open_table
from fullbake.data.plain_text import open_lines

Bases = Callable[..., Path]
ROWS = [(text, str(number)) for number, (text, _) in enumerate(make_rows(9, seed=7))] + [("", "9"), ('a, "b"\nc', "10")]


@pytest.fixture(scope="module")
def classifier(bases: Bases, tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    return train(bases("bert"), tmp_path_factory.mktemp("run"), "frozen-mlp")


def write_rows(path: Path) -> Path:
    """Write ROWS in the format that the ending of `path` names."""
    names = ("text", "id")
    if path.suffix == ".parquet":
        pq.write_table(
            pa.table({name: list(values) for name, values in zip(names, zip(*ROWS, strict=True), strict=True)}), path
        )
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in ROWS))
    else:
        with path.open("w", newline="") as file:
            csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",").writerows([names, *ROWS])
    return path


def read_columns(path: Path) -> dict[str, list[str]]:
    table = open_table(path)
    columns: dict[str, list[str]] = {name: [] for name in table.names}
    for chunk in table.chunks():
        for name, values in chunk.columns.items():
            columns[name] += list(values)
    return columns


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
def test_rows_keep_their_order_and_get_scores(classifier: Classifier, tmp_path: Path, ending: str) -> None:
    target = tmp_path / f"scored.{ending}"
    assert predict_file(classifier, write_rows(tmp_path / f"rows.{ending}"), target) == len(ROWS)
    got = read_columns(target)
    assert list(got) == ["text", "id", "predicted", "score", "score:food", "score:game", "score:money"]
    assert list(zip(got["text"], got["id"], strict=True)) == ROWS
    probabilities = classifier.predict_proba([text for text, _ in ROWS])
    np.testing.assert_allclose(np.array(got["score"], dtype=float), probabilities.max(axis=1), atol=1e-5)
    for number, name in enumerate(classifier.label_names):
        np.testing.assert_allclose(np.array(got[f"score:{name}"], dtype=float), probabilities[:, number], atol=1e-5)
    assert got["predicted"] == classifier.classes_[probabilities.argmax(axis=1)].tolist()


def test_rows_of_many_chunks_keep_their_order(classifier: Classifier, tmp_path: Path) -> None:
    rows = [("good game", str(number)) for number in range(9000)]
    source = write_csv(tmp_path / "many.csv", rows, ("text", "id"))
    assert predict_file(classifier, source, tmp_path / "scored.csv") == 9000
    assert read_columns(tmp_path / "scored.csv")["id"] == [row[1] for row in rows]


def test_lines_of_text_are_scored_to_a_stream(classifier: Classifier) -> None:
    stream = io.BytesIO()
    assert predict_file(classifier, open_lines(io.BytesIO(b"a game\n\nthe bank\n"), column="text"), stream) == 3
    read = list(csv.DictReader(io.StringIO(stream.getvalue().decode())))
    assert [row["text"] for row in read] == ["a game", "", "the bank"]
    assert all(row["predicted"] in classifier.label_names for row in read)


def test_file_with_only_a_header_gives_only_a_header(classifier: Classifier, tmp_path: Path) -> None:
    source = write_csv(tmp_path / "none.csv", [])
    assert predict_file(classifier, source, tmp_path / "scored.csv") == 0
    assert list(read_columns(tmp_path / "scored.csv"))[-4:] == ["score", "score:food", "score:game", "score:money"]


def test_column_name_that_exists_is_refused_and_a_prefix_solves_it(classifier: Classifier, tmp_path: Path) -> None:
    source = write_csv(tmp_path / "rows.csv", ROWS, ("text", "score"))
    with pytest.raises(DataError, match=r"'score' already(?s:.*)--prefix"):
        predict_file(classifier, source, tmp_path / "scored.csv")
    assert not (tmp_path / "scored.csv").exists()
    predict_file(classifier, source, tmp_path / "scored.csv", prefix="m_")
    assert list(read_columns(tmp_path / "scored.csv"))[:4] == ["text", "score", "m_predicted", "m_score"]


def test_text_column_may_have_another_name(classifier: Classifier, tmp_path: Path) -> None:
    source = write_csv(tmp_path / "rows.csv", ROWS, ("body", "id"))
    with pytest.raises(DataError, match="no column 'text'"):
        predict_file(classifier, source, tmp_path / "scored.csv")
    assert predict_file(classifier, source, tmp_path / "scored.csv", text="body") == len(ROWS)


def test_existing_target_is_replaced_only_with_overwrite(classifier: Classifier, tmp_path: Path) -> None:
    source, target = write_rows(tmp_path / "rows.csv"), tmp_path / "scored.csv"
    target.write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        predict_file(classifier, source, target)
    assert target.read_text() == "mine"
    predict_file(classifier, source, target, overwrite=True)
    assert len(read_columns(target)["id"]) == len(ROWS)


def test_wrong_row_leaves_no_file(classifier: Classifier, tmp_path: Path) -> None:
    source = tmp_path / "rows.csv"
    source.write_text("text,id\na,1\nb,2,3\n")
    with pytest.raises(DataError, match="line 3"):
        predict_file(classifier, source, tmp_path / "scored.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["rows.csv"]


# Tables in memory

FRAME = pd.DataFrame(ROWS, columns=["text", "id"], index=[f"row {number}" for number in range(len(ROWS))])


@pytest.mark.parametrize(
    "frame",
    [FRAME, pl.DataFrame(FRAME), pa.Table.from_pandas(FRAME, preserve_index=False), FRAME.to_dict("list")],
    ids=lambda frame: type(frame).__name__,
)
def test_frames_get_the_columns_of_files(classifier: Classifier, tmp_path: Path, frame: Any) -> None:
    predict_file(classifier, FRAME, tmp_path / "scored.parquet")
    expected = pd.read_parquet(tmp_path / "scored.parquet")
    result = predict_frame(classifier, frame)
    assert type(result) is type(frame)
    if isinstance(result, pd.DataFrame):
        assert result.index.tolist() == FRAME.index.tolist()
    assert list(FRAME.columns) == ["text", "id"], "the frame that was given stays as it was"
    found = pd.DataFrame(result if isinstance(result, dict) else pa.table(result).to_pandas())
    pd.testing.assert_frame_equal(found.reset_index(drop=True), expected, check_dtype=False)
    assert found["predicted"].tolist() == classifier.predict(frame).tolist()


def test_frames_name_their_columns_as_they_like(classifier: Classifier) -> None:
    frame = FRAME.rename(columns={"text": "review", "id": "score"})
    result = predict_frame(classifier, frame, text="review", prefix="topic_")
    assert list(result.columns)[:4] == ["review", "score", "topic_predicted", "topic_score"]
    with pytest.raises(DataError, match="there is a column 'score' already"):
        predict_frame(classifier, frame, text="review")
    assert list(predict_frame(classifier, FRAME[:0]).columns)[2:4] == ["predicted", "score"]


def test_labels_of_many_are_numbers(bases: Bases, tmp_path: Path) -> None:
    rows = [(text, label, int(number % 2)) for number, (text, label) in enumerate(make_rows(40))]
    frame = pl.DataFrame({"text": [r[0] for r in rows], "label": [[r[1]] * r[2] for r in rows]})
    many = adapt(recipe(bases("bert")), frame, cache_dir=tmp_path)
    result = predict_frame(many, frame)
    names = [f"predicted:{name}" for name in many.label_names]
    assert result.columns[2 : 2 + len(names)] == names
    np.testing.assert_array_equal(result.select(names).to_numpy(), many.predict(frame))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (["a", "b"], ["a list", "classifier.predict(texts)"]),
        ("rows.csv", ["a str: 'rows.csv'", "predict_file"]),
        (pl.LazyFrame({"text": ["a"]}), ["a LazyFrame", "collect()"]),
        ({"test": FRAME}, ["several parts", "frame['test']"]),
        (pd.DataFrame({"review": ["a"]}), ["no column 'text'", "'review'"]),
        (pd.DataFrame({"text": [None]}), ["row 1", "'text' has no value"]),
    ],
)
def test_what_is_no_frame_is_refused(classifier: Classifier, tmp_path: Path, value: Any, words: list[str]) -> None:
    with pytest.raises(DataError) as caught:
        predict_frame(classifier, value)
    for word in words:
        assert word in str(caught.value)
    if not isinstance(value, str | dict | pd.DataFrame):
        with pytest.raises(DataError, match="the argument source is no table"):
            predict_file(classifier, value, tmp_path / "scored.csv")


def test_the_likeliest_labels_take_the_place_of_all_scores(classifier: Classifier, tmp_path: Path) -> None:
    source = write_rows(tmp_path / "rows.csv")
    predict_file(classifier, source, tmp_path / "scored.csv", top_k=2, prefix="p ")
    got = read_columns(tmp_path / "scored.csv")
    assert list(got)[2:] == ["p predicted", "p score", "p label:1", "p score:1", "p label:2", "p score:2"]
    expected = classifier.predict([text for text, _ in ROWS], top_k=2)
    for number, entries in enumerate(expected, start=0):
        for place, entry in enumerate(entries, start=1):
            assert got[f"p label:{place}"][number] == entry["label"]
            assert float(got[f"p score:{place}"][number]) == pytest.approx(entry["score"], abs=2e-7)
    predict_file(classifier, source, tmp_path / "all.csv", top_k=99)
    assert "label:3" in read_columns(tmp_path / "all.csv")
    assert "label:4" not in read_columns(tmp_path / "all.csv")
    assert list(predict_frame(classifier, FRAME, top_k=1).columns)[2:] == ["predicted", "score", "label:1", "score:1"]
    with pytest.raises(RecipeError, match="--top-k"):
        predict_file(classifier, source, tmp_path / "none.csv", top_k=0)
    assert not (tmp_path / "none.csv").exists()


def test_written_scores_of_classes_sum_to_1(classifier: Classifier, tmp_path: Path) -> None:
    predict_file(classifier, write_rows(tmp_path / "rows.csv"), tmp_path / "scored.csv")
    got = read_columns(tmp_path / "scored.csv")
    for row in zip(*(got[f"score:{name}"] for name in classifier.label_names), strict=True):
        assert sum(map(Decimal, row)) == 1
