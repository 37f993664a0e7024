"""JSON Lines: values are read with their spelling, lines written again unchanged, broken lines refused by number."""

import json
from pathlib import Path

import pytest
from helpers.table_files import FIELDS, assert_refused, read_rows, write_file, write_scored
from hypothesis import given, settings
from hypothesis import strategies as st

from fullbake.config.sections import Dialect
from fullbake.core.errors import DataError
from fullbake.data.files import open_table

READ = {
    "spelling of numbers kept": ('{"t": 1.0, "l": true}\n{"t": 1, "l": 12345678901234567890}\n',
                      [["1.0", "true"], ["1", "12345678901234567890"]]),
    "exponents and zeros": ('{"t": 1E5, "l": -0}\n{"t": 1.10, "l": 00e}\n'.replace("00e", "0.0"),
                            [["1E5", "-0"], ["1.10", "0.0"]]),
    "a number of 5,000 digits": (f'{{"t": {"7" * 5000}, "l": "a"}}\n', [["7" * 5000, "a"]]),
    "escapes": ('{"t": "a\\nb\\u00e9\\ud83d\\ude00", "l": ""}\n', [["a\nbé😀", ""]]),
    "more fields, in another order": ('{"t": "a", "l": "1"}\n{"x": [1], "l": "2", "t": "b"}', [["a", "1"], ["b", "2"]]),
    "byte order mark, CRLF, blank lines at the end": ('\ufeff{"t": "a", "l": "1"}\r\n\r\n', [["a", "1"]]),
    "line separator": ('{"t": "a\u2028b", "l": "1"}\n', [["a\u2028b", "1"]]),
    "nested and NaN elsewhere": ('{"t": "a", "l": "1", "o": {"p": [NaN]}, "q": null}\n', [["a", "1"]]),
}  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_values_are_read_with_their_spelling(tmp_path: Path, name: str) -> None:
    content, rows = READ[name]
    assert read_rows(write_file(tmp_path, "x.jsonl", content), columns=["t", "l"]) == rows


FIRST = '{"t": "a", "l": "1"}\n'


REFUSED = {
    "empty": ("", ["empty"]),
    "a last line cut off": (FIRST + '{"t": "b", "l"', ["line 2, character", "not JSON", "written completely"]),
    "half a line inside": ('{"t": "b"\n' + FIRST, ["line 1", "not JSON", "one complete object"]),
    "blank line inside": (FIRST + "\n" + FIRST, ["line 2", "blank"]),
    "an array": ("[1, 2]\n", ["line 1", "object", "[1, 2]"]),
    "one object over several lines": ('{\n"t": 1\n}\n', ["line 1", "not JSON"]),
    "a key twice": (FIRST + '{"t": "a", "l": "1", "t": "b"}\n', ["line 2", "'t' occurs twice"]),
    "null": (FIRST + '{"t": null, "l": "1"}\n', ["line 2", "'t' has no value", "null"]),
    "NaN": (FIRST + '{"t": "a", "l": NaN}\n', ["line 2", "'l' has no value", "NaN"]),
    "list": (FIRST + '{"t": ["a"], "l": "1"}\n', ["line 2", "'t' holds a list"]),
    "object": (FIRST + '{"t": {"u": "a"}, "l": "1"}\n', ["line 2", "'t' holds a nested object"]),
    "a field missing": (FIRST + '{"t": "a", "label": "1"}\n', ["line 2", "no field 'l'", "'label'"]),
    "half a surrogate pair": (FIRST + '{"t": "\\ud83d", "l": "1"}\n', ["line 2", "surrogate", "'t'"]),
    "nesting without end": ('{"t": ' + "[" * 100_000 + "\n", ["line 1", "deeply"]),
    "first row without the column": ('{"u": "a"}\n' + FIRST, ["line 1", "no column 't'"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_broken_lines_are_refused_with_their_number_and_a_remedy(tmp_path: Path, name: str) -> None:
    content, parts = REFUSED[name]
    assert_refused(write_file(tmp_path, "x.jsonl", content), *parts, columns=["t", "l"])


def test_null_becomes_an_empty_string_in_nullable_columns(tmp_path: Path) -> None:
    path = write_file(tmp_path, "x.jsonl", '{"t": "a", "l": null}\n{"t": "b", "l": NaN}\n')
    assert read_rows(path, columns=["t", "l"], nullable=["l"]) == [["a", ""], ["b", ""]]


@settings(max_examples=100, deadline=None)
@given(rows=st.lists(st.fixed_dictionaries({"t": FIELDS, "l": FIELDS}), min_size=1), escape=st.booleans())
def test_any_rows_are_read_back_equal(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, str]], escape: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=escape) + "\n" for row in rows), "utf-8", newline="")
    assert read_rows(path, columns=["t", "l"]) == [[row["t"], row["l"]] for row in rows]


def test_written_lines_keep_the_spelling_of_their_members(tmp_path: Path) -> None:
    lines = [
        '{"n": 1.0, "text": "\\u00e9", "deep": {"a": [1, null]}}',
        ' {"text" :"b","new":true , "n":1e5 } ',
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    write_scored(open_table(tmp_path / "a.jsonl", columns=["text"]), tmp_path / "b.jsonl")
    assert (tmp_path / "b.jsonl").read_text().splitlines() == [
        '{"n": 1.0, "text": "\\u00e9", "deep": {"a": [1, null]}, "predicted": "é", "score": 0.1}',
        '{"text" :"b","new":true , "n":1e5, "predicted": "b", "score": 0.1}',
    ]


def test_added_name_in_a_later_row_is_refused(tmp_path: Path) -> None:
    path = write_file(tmp_path, "a.jsonl", '{"text": "a"}\n{"text": "b", "score": 1}\n')
    with pytest.raises(DataError, match=r"line 2: there is a column 'score' already"):
        write_scored(open_table(path, columns=["text"]), tmp_path / "b.jsonl")


def test_half_a_surrogate_in_a_list_is_refused_with_its_line(tmp_path: Path) -> None:
    good = '{"text": "a", "label": ["\\ud83d\\ude00"]}\n'
    for value in ('["x", "\\ud83d"]', '[["\\ude00"]]'):
        path = write_file(tmp_path, "x.jsonl", f'{good}{{"text": "a", "label": {value}}}\n')
        assert_refused(path, "line 2", "field 'label' holds half of a surrogate pair", lists=["label"])
    path = write_file(tmp_path, "x.jsonl", '{"text": "a", "\\ud83d": 1}\n')
    assert_refused(path, "line 1", "half of a surrogate pair")


def test_lines_may_be_lists_whose_items_have_names(tmp_path: Path) -> None:
    path = write_file(tmp_path, "x.jsonl", '["a, b", 1.0]\n[ "c" , true ]\n')
    assert read_rows(path, no_header=("text", "label")) == [["a, b", "1.0"], ["c", "true"]]
    assert_refused(path, "line 1", "--no-header text,label")
    assert_refused(path, "line 1", "too short", "3 items", no_header=("a", "b", "c"))
    array = write_file(tmp_path, "y.jsonl", '[{"text": "a"}]\n')
    assert_refused(array, "line 1", "ending .json")
    source = open_table(path, columns=["text"], dialect=Dialect(no_header=("text", "n")))
    write_scored(source, tmp_path / "z.jsonl")
    assert (tmp_path / "z.jsonl").read_text().startswith('{"text": "a, b", "n": 1.0, ')


def test_a_line_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fullbake.data.jsonl.MAX_ROW_CHARACTERS", 40)
    path = write_file(tmp_path, "x.jsonl", '{"text": "a"}\n{"text": "' + "b" * 40 + '"}\n')
    assert_refused(path, "line 2", "too long", "40 characters")
