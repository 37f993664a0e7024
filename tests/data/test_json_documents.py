"""JSON documents: lists of rows, also within objects, are read as they are or refused with their place."""

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.table_files import FIELDS, assert_refused, read_rows, write_file, write_scored
from hypothesis import given, settings
from hypothesis import strategies as st

from fullbake.config.sections import Dialect
from fullbake.data.files import open_table
from fullbake.data.json_documents import names_of_path

CLINC = {"train": [["book a flight", "travel"], ["what time is it", "clock"]], "val": [["hi", "hello"]], "n": 1}
NAMES = ("text", "label")


def write_json(folder: Path, document: Any, **options: Any) -> Path:
    return write_file(folder, "x.json", json.dumps(document, **options))


def test_a_list_of_objects_is_a_table(tmp_path: Path) -> None:
    rows = [{"text": "a\n\u2028b", "label": 1}, {"label": 2.0, "text": "c", "more": {"x": [1]}}]
    for indent in (None, 2):
        path = write_json(tmp_path, rows, indent=indent, ensure_ascii=False)
        assert read_rows(path, columns=["text", "label"]) == [["a\n\u2028b", "1"], ["c", "2.0"]]
    (chunk,) = open_table(path).chunks()
    assert chunk.where(1).endswith("x.json, row 2")


def test_a_path_leads_to_lists_within_objects(tmp_path: Path) -> None:
    path = write_json(tmp_path, CLINC)
    assert read_rows(path, json_path="train", no_header=NAMES) == CLINC["train"]
    assert read_rows(path, json_path="val", no_header=NAMES) == CLINC["val"]
    path = write_json(tmp_path, {"a.b": {"c": [{"t": "x"}], "d": []}, "z": {}})
    assert read_rows(path, json_path="/a.b/c") == [["x"]]
    assert names_of_path("/a~1b/c~0d") == ["a/b", "c~d"]
    assert names_of_path("a.b") == ["a", "b"]


@pytest.mark.parametrize(
    ("document", "path", "parts"),
    [
        (CLINC, None, ["not a list of rows", "--json-path train", "val"]),
        ({"data": {"rows": [{"text": "a"}]}}, None, ["--json-path data.rows"]),
        ({"data": {"rows": [{"text": "a"}]}}, "data", ["the rows are not in data", "--json-path data.rows"]),
        (CLINC, "trian", ["no member 'trian'", "Did you mean 'train'"]),
        (CLINC, "train.text", ["train is no object"]),
        (CLINC, "n", ["the rows are not in n"]),
        (CLINC, "train", ["row 1", "--no-header text,label"]),
        ({"text": ["a", "b"], "label": ["1", "2"]}, None, ["zip(*document.values())", "x.jsonl"]),
        ({"text": {"0": "a"}, "label": {"0": "1"}}, None, ["column.values()"]),
        ({"q1": {"text": "a", "label": "1"}}, None, ["rows = document.values()"]),
        ("text", None, ["one value"]),
        (["a", "b"], None, ["row 1", "not an object"]),
        ([], None, ["empty"]),
        ([{"text": None}], None, ["row 1", "no value", "null"]),
        ([{"text": "a"}, {"label": "b"}], None, ["row 2", "no field 'text'"]),
    ],
)  # fmt: skip
def test_documents_that_are_no_table_are_answered(
    tmp_path: Path, document: Any, path: str | None, parts: list[str]
) -> None:
    assert_refused(write_json(tmp_path, document), *parts, json_path=path)


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ('{"text": "a"}\n{"text": "b"}\n', ["one on each line", ".jsonl"]),
        ('[{"text": "a"}]\n[{"text": "b"}]\n', ["one on each line", ".jsonl"]),
        ('[{"text": "a"}] x', ["line 1, character 17", "more after the end"]),
        ('[{"text": "a"},\n]', ["line 2, character 1", "not JSON"]),
        ('[{"text": "a"}\n{"text": "b"}]', ["line 2, character 1", "',' is missing"]),
        ('[{"text": "a"}, {"te', ["not JSON", "written completely"]),
        ('[{"text": "a", "text": "b"}]', ["row 1", "'text' occurs twice"]),
        ('[{"text": "a\\ud83d"}]', ["row 1", "surrogate"]),
        ("[" * 100_000, ["deep"]),
        ("", ["empty"]),
        (" \n", ["empty"]),
        ("[{'text': 'a'}]", ["line 1", "not JSON", "double quotes"]),
        (b'[{"text": "a\0"}]', ["line 1", "NUL"]),
        (b'[{"text": "\xe9"}]', ["0xe9", "--encoding"]),
    ],
)
def test_broken_documents_are_refused_with_their_place(tmp_path: Path, content: str | bytes, parts: list[str]) -> None:
    assert_refused(write_file(tmp_path, "x.json", content), *parts)


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ('{"a": [{"t": "x"}], "a": []}', ["'a' occurs twice"]),
        ('{"a": [{"t": "x"}], "b": ', ["written completely"]),
        ('{"a": [{"t": "x"}], 1: 2}', ["not JSON"]),
        ('{"a": [{"t": "x"}]', ["',' is missing", "written completely"]),
        ('{"a" [{"t": "x"}]}', ["':' is missing"]),
    ],
)
def test_what_stands_around_the_rows_is_read_too(tmp_path: Path, content: str, parts: list[str]) -> None:
    assert_refused(write_file(tmp_path, "x.json", content), *parts, json_path="a")


def test_rows_that_are_lists_need_as_many_names(tmp_path: Path) -> None:
    path = write_json(tmp_path, [["a", "1"], ["b"]])
    assert_refused(path, "row 2", "too short", "2 items", no_header=NAMES)
    assert_refused(write_json(tmp_path, [{"text": "a"}]), "row 1", "leave --no-header out", no_header=NAMES)


def test_a_document_that_is_too_long_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fullbake.data.json_documents.MAX_DOCUMENT_CHARACTERS", 20)
    assert_refused(write_json(tmp_path, [{"text": "a" * 20}]), "too long", "JSON Lines")


@pytest.mark.parametrize("ending", [".json", ".jsonl", ".csv"])
def test_rows_are_written_with_their_spelling(tmp_path: Path, ending: str) -> None:
    path = write_file(tmp_path, "x.json", '{"r": [["a, ]", 1.0],\n  [ "b" , 2e1 ]]}')
    source = open_table(path, columns=["text"], dialect=Dialect(json_path="r", no_header=("text", "n")))
    write_scored(source, tmp_path / f"y{ending}")
    written = (tmp_path / f"y{ending}").read_text()
    assert [row[:2] for row in read_rows(tmp_path / f"y{ending}")] == [["a, ]", "1.0"], ["b", "2e1"]]
    if ending == ".json":
        assert written.startswith('[\n{"text": "a, ]", "n": 1.0, ')
    write_scored(open_table(write_file(tmp_path, "z.csv", "text\n")), tmp_path / "none.json")
    assert json.loads((tmp_path / "none.json").read_text()) == []


@settings(max_examples=60, deadline=None)
@given(data=st.data(), indent=st.sampled_from([None, 1]), as_lists=st.booleans(), ascii_only=st.booleans())
def test_any_rows_are_read_back_equal(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, indent: int | None, as_lists: bool, ascii_only: bool
) -> None:
    names = tuple(data.draw(st.lists(FIELDS, min_size=1, max_size=3, unique=True)))
    rows = data.draw(st.lists(st.lists(FIELDS, min_size=len(names), max_size=len(names)), min_size=1, max_size=4))
    held = rows if as_lists else [dict(zip(names, row, strict=True)) for row in rows]
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_text(json.dumps({"x": 1, "rows": held, "y": [{}]}, indent=indent, ensure_ascii=ascii_only), "utf-8")
    assert read_rows(path, json_path="rows", no_header=names if as_lists else None) == rows
