"""Scored rows: the source's rows in order and unaltered, with columns added, whole or not there."""

import io
import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from fullbake.core.errors import DataError, Fault, OutputError
from fullbake.data.files import open_lines, open_table, open_writer, output_form
from fullbake.data.tables import Table

EXTRA = {"predicted": str, "score": np.float32}


def score(source: Table, target: Any, size: int = 4096, **options: Any) -> None:
    """Predict the text's last character, with its length's tenth as the score."""
    with open_writer(target, source, EXTRA, **options) as writer:
        for chunk in source.chunks(size, keep=True):
            texts = chunk.columns["text"]
            scores = np.array([len(text) / 10 for text in texts], dtype=np.float32)
            writer.write(chunk, {"predicted": [text[-1:] for text in texts], "score": scores})


def rows(path: Path) -> list[tuple[str, ...]]:
    table = open_table(path)
    return [row for chunk in table.chunks() for row in zip(*chunk.columns.values(), strict=True)]


SOURCES = {
    "csv": 'id,text\n01,"a ""b"", c"\nNA,"x\r\ny"\n,\n',
    "tsv": 'id\ttext\n01\t"a ""b"", c"\nNA\t"x\r\ny"\n\t\n',
    "jsonl": "".join(
        json.dumps({"id": key, "text": text}) + "\n" for key, text in (("01", 'a "b", c'), ("NA", "x\r\ny"), ("", ""))
    ),
}
ROWS = [("01", 'a "b", c', "c", "0.8"), ("NA", "x\r\ny", "y", "0.4"), ("", "", "", "0.0")]


@pytest.fixture(params=["csv", "tsv", "jsonl", "parquet"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Table:
    path = tmp_path / f"source.{request.param}"
    if request.param == "parquet":
        columns = list(zip(*ROWS, strict=True))
        parquet.write_table(pa.table({"id": columns[0], "text": columns[1]}), path)
    else:
        path.write_text(SOURCES[request.param], "utf-8", newline="")
    return open_table(path, columns=["text"])


@pytest.mark.parametrize("form", ["csv", "tsv", "jsonl", "parquet"])
def test_any_form_into_any_other(source: Table, form: str, tmp_path: Path) -> None:
    score(source, tmp_path / f"scored.{form}", size=2)
    assert rows(tmp_path / f"scored.{form}") == ROWS
    assert open_table(tmp_path / f"scored.{form}").names == ("id", "text", "predicted", "score")


def test_json_members_keep_their_spelling(tmp_path: Path) -> None:
    lines = [
        '{"n": 1.0, "text": "\\u00e9", "deep": {"a": [1, null]}}',
        ' {"text" :"b","new":true , "n":1e5 } ',
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    score(open_table(tmp_path / "a.jsonl", columns=["text"]), tmp_path / "b.jsonl")
    assert (tmp_path / "b.jsonl").read_text().splitlines() == [
        '{"n": 1.0, "text": "\\u00e9", "deep": {"a": [1, null]}, "predicted": "é", "score": 0.1}',
        '{"text" :"b","new":true , "n":1e5, "predicted": "b", "score": 0.1}',
    ]


def test_parquet_keeps_its_types(tmp_path: Path) -> None:
    table = pa.table(
        {
            "n": pa.array([1, None, 3]),
            "tags": pa.array([["a"], [], None]),
            "text": pa.array(["a", "b", "a"]).dictionary_encode(),
        }
    )
    parquet.write_table(table, tmp_path / "a.parquet")
    score(open_table(tmp_path / "a.parquet", columns=["text"]), tmp_path / "b.parquet", size=2)
    scored = parquet.read_table(tmp_path / "b.parquet")
    assert scored.select(["n", "tags", "text"]).equals(table)
    assert scored.schema.field("score").type == pa.float32()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"text": "a", "n": null}', "'n' has no value"),
        ('{"text": "a", "n": [1]}', "'n' holds a list"),
        ('{"text": "a", "n": 1}\n{"text": "b"}', "line 2: this row has other fields"),
        ('{"text": "a\\u0000"}', "NUL"),
    ],
)
def test_what_csv_cannot_hold_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.jsonl").write_text(content)
    with pytest.raises((DataError, OutputError), match=message):
        score(open_table(tmp_path / "a.jsonl", columns=["text"]), tmp_path / "b.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


def test_parquet_that_csv_cannot_hold_is_refused(tmp_path: Path) -> None:
    for column, message in ((pa.array([[1]]), "list<"), (pa.array([None], pa.int64()), "row 1")):
        parquet.write_table(pa.table({"text": ["a"], "n": column}), tmp_path / "a.parquet")
        with pytest.raises(DataError, match=message):
            score(open_table(tmp_path / "a.parquet", columns=["text"]), tmp_path / "b.csv")


def test_a_taken_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,score\na,1\n")
    with pytest.raises(DataError, match="column 'score' already") as caught:
        score(open_table(tmp_path / "a.csv", columns=["text"]), tmp_path / "b.csv")
    assert "--prefix" in str(caught.value)
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n{"text": "b", "score": 1}\n')
    with pytest.raises(DataError, match=r"line 2: there is a column 'score' already"):
        score(open_table(tmp_path / "a.jsonl", columns=["text"]), tmp_path / "b.jsonl")


def test_targets(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text\na\n")
    source = open_table(tmp_path / "a.csv", columns=["text"])
    with pytest.raises(OutputError, match=r"\.csv, \.tsv"):
        score(source, tmp_path / "b.txt")
    (tmp_path / "b.csv").write_text("mine")
    with pytest.raises(OutputError, match="--overwrite"):
        score(source, tmp_path / "b.csv")
    assert (tmp_path / "b.csv").read_text() == "mine"
    score(source, tmp_path / "b.csv", overwrite=True)
    assert (tmp_path / "b.csv").read_text() == "text,predicted,score\na,a,0.1\n"
    assert output_form("x.ndjson") == "jsonl"


def test_a_source_that_breaks_off_leaves_the_target_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,n\na,1\nb\n")
    (tmp_path / "b.csv").write_text("mine")
    with pytest.raises(DataError, match="line 3"):
        score(open_table(tmp_path / "a.csv", columns=["text"]), tmp_path / "b.csv", size=1, overwrite=True)
    assert (tmp_path / "b.csv").read_text() == "mine"


@pytest.mark.parametrize(
    ("form", "written"),
    [
        (None, 'text,predicted,score\n"a, b",b,0.4\n,,0.0\n'),
        ("tsv", "text\tpredicted\tscore\na, b\tb\t0.4\n\t\t0.0\n"),
        ("jsonl", '{"text": "a, b", "predicted": "b", "score": 0.4}\n'
                  '{"text": "", "predicted": "", "score": 0.0}\n'),
    ],
)  # fmt: skip
def test_lines_to_a_stream(form: str | None, written: str) -> None:
    stream = io.BytesIO()
    score(open_lines(io.BytesIO(b"a, b\n\n")), stream, form=form)
    assert stream.getvalue().decode() == written


def test_a_header_alone_gives_a_header_alone(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text\n")
    for form in ("csv", "parquet"):
        score(open_table(tmp_path / "a.csv", columns=["text"]), tmp_path / f"b.{form}")
        assert open_table(tmp_path / f"b.{form}").names == ("text", "predicted", "score")
        assert rows(tmp_path / f"b.{form}") == []


def test_a_score_that_is_no_number_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text\na\n")
    source = open_table(tmp_path / "a.csv")
    (chunk,) = source.chunks(keep=True)
    with open_writer(io.BytesIO(), source, EXTRA) as writer, pytest.raises(Fault, match="finite"):
        writer.write(chunk, {"predicted": ["a"], "score": np.array([np.nan])})


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, form: str) -> None:
    row = "x" * 1000
    line = {"csv": f"{row}\n", "jsonl": f'{{"text": "{row}"}}\n'}[form]
    path = tmp_path / f"a.{form}"
    peaks = []
    for count in (2_000, 20_000):
        path.write_text(("text\n" if form == "csv" else "") + line * count)
        tracemalloc.start()
        score(open_table(path, columns=["text"]), tmp_path / f"b.{form}", size=500, overwrite=True)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0] + 1_000_000


FIELD = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=6) | st.sampled_from(
    ['"', ",", "\n", "\r", "\t", "a\rb", "a\u2028b"]
)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), form=st.sampled_from(["csv", "tsv", "jsonl", "parquet"]))
def test_what_is_written_is_read_back_equal(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, form: str
) -> None:
    names = data.draw(st.lists(FIELD.filter(lambda name: name[:1] != "\ufeff"), min_size=1, max_size=3, unique=True))
    names = ["text", *(name for name in names if name not in ("text", "predicted", "score"))]
    given_rows = data.draw(st.lists(st.tuples(*[FIELD] * len(names)), max_size=5))
    folder = tmp_path_factory.getbasetemp()
    columns = {name: pa.array([row[at] for row in given_rows], pa.string()) for at, name in enumerate(names)}
    parquet.write_table(pa.table(columns), folder / "any.parquet")
    source = open_table(folder / "any.parquet", columns=["text"])
    score(source, folder / f"any.scored.{form}", overwrite=True)
    if form == "jsonl" and not given_rows:
        return
    assert [row[: len(names)] for row in rows(folder / f"any.scored.{form}")] == given_rows
