"""fullbake.data.files: Reading: every awkward file comes out as it stands, or is refused with its place and a remedy; Scored rows: the source's rows in order and unaltered, with columns added, whole or not there."""

import csv
import io
import json
import subprocess
import sys
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
from fullbake.data.tables import CHUNK_CHARACTERS, Table
from fullbake.data.textfiles import LARGEST_FIELD


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read(path: Path, **options: Any) -> list[list[str]]:
    """All rows, in the order of the columns."""
    table = open_table(path, **options)
    return [
        list(row)
        for chunk in table.chunks()
        for row in zip(*(chunk.columns[name] for name in table.columns), strict=True)
    ]


def refused(path: Path, *parts: str, **options: Any) -> None:
    with pytest.raises(DataError) as caught:
        read(path, **options)
    for part in (path.name, *parts):
        assert part in str(caught.value), f"{part!r} is not in: {caught.value}"
    assert caught.value.remedy


RIGHT = {
    "plain": (b"t,l\na,1\nb,2\n", [["a", "1"], ["b", "2"]]),
    "no last line end": (b"t,l\na,1", [["a", "1"]]),
    "spelling kept": (b"t,l\nNA,01\nnull,true\n,1.0\nNone,1\n x ,X\n", None),
    "UTF-8 mark": (b"\xef\xbb\xbft,l\na,1\n", [["a", "1"]]),
    "CRLF": (b"t,l\r\na,1\r\n", [["a", "1"]]),
    "LF and CRLF mixed": (b"t,l\na,1\r\nb,2\n", [["a", "1"], ["b", "2"]]),
    "line end inside quotes": (b't,l\n"a\nb",1\n', [["a\nb", "1"]]),
    "CR inside quotes": (b't,l\n"a\rb\r\nc",1\n', [["a\rb\r\nc", "1"]]),
    "quotes and delimiters": (b't,l\n"say ""hi"", you",1\n', [['say "hi", you', "1"]]),
    "a quote within bare text": (b't,l\n5" disk,1\n', [['5" disk', "1"]]),
    "empty lines at the end": (b"t,l\na,1\n\n\n", [["a", "1"]]),
    "an empty text in one column": (b't\n""\nb\n', [[""], ["b"]]),
    "one empty name": (b",t\n0,a\n", [["0", "a"]]),
    "backslash": (b't,l\n"a\\",1\n', [["a\\", "1"]]),
    "line separators of Unicode": ("t,l\na\u2028b\x85c\x0bd,1\n".encode(), [["a\u2028b\x85c\x0bd", "1"]]),
    "Chinese": ("t,l\n这间酒店,好\n".encode(), [["这间酒店", "好"]]),
    "header only": (b"t,l\n", []),
}


@pytest.mark.parametrize("name", RIGHT)
def test_csv_is_read_as_it_stands(tmp_path: Path, name: str) -> None:
    content, rows = RIGHT[name]
    expected = [line.split(",") for line in content.decode().splitlines()[1:]] if rows is None else rows
    assert read(write(tmp_path, "x.csv", content)) == expected


WRONG: dict[str, tuple[bytes, list[str]]] = {
    "empty": (b"", ["empty"]),
    "a blank first line": (b"\nt,l\n", ["line 1", "blank"]),
    "short row": (b't,l\n"a\nb",1\nc\n', ["line 4", "too short", "2 fields", "1: 'c'", "--delimiter"]),
    "long row": (b"t,l\na,1\nb, c,2\n", ["line 3", "too long", "2 fields", "3:"]),
    "blank line inside": (b"t,l\na,1\n\nb,2\n", ["line 3", "blank"]),
    "blank line in one column": (b"t\na\n\nb\n", ["line 3", "blank"]),
    "unclosed quote": (b't,l\na,1\nb,"2\nc,3\n', ["line 3", "never closed"]),
    "text after a quote": (b't,l\n"a"x,1\n', ["line 2", "after a closing quote"]),
    "CR alone": (b"t,l\na\rb,1\n", ["line 2", "carriage return"]),
    "CR alone in one column": (b"t\na\rb\nc\n", ["line 2", "carriage return"]),
    "CR alone throughout": (b"t,l\ra,1\r", ["line 1", "carriage return"]),
    "a name twice": (b"t,l,t\na,1,b\n", ["line 1", "'t' stands twice"]),
    "NUL": (b"t,l\na,1\n\0\0\0\0", ["line 3", "NUL", "--encoding utf-16"]),
    "UTF-16 with a mark": ("t,l\na,1\n".encode("utf-16"), ["line 1", "byte 0", "0xff", "--encoding"]),
    "UTF-16 without": ("t,l\na,1\n".encode("utf-16-le"), ["line 1", "NUL", "--encoding utf-16"]),
    "Latin-1": ("t,l\na,1\ncafé,2\n".encode("latin-1"), ["line 3", "byte 11", "0xe9", "--encoding"]),
    "Latin-1 after a mark": (b"\xef\xbb\xbft,l\n\xe9,2\n", ["line 2", "byte 7", "0xe9"]),
    "half a character at the end": ("t,l\na,é".encode()[:-1], ["line 2", "byte 6", "0xc3"]),
    "two marks": (b"\xef\xbb\xbf\xef\xbb\xbft,l\na,1\n", ["line 1", "byte order mark"]),
    "gzip": (b"\x1f\x8b\x08\x00abc", ["byte 1", "0x8b"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_csv_is_refused_with_place_and_remedy(tmp_path: Path, name: str) -> None:
    content, parts = WRONG[name]
    refused(write(tmp_path, "x.csv", content), *parts)


def test_an_undecodable_byte_far_into_the_file(tmp_path: Path) -> None:
    lines = b"t,l\n" + b"abcdefg,1\n" * 20_000
    refused(write(tmp_path, "x.csv", lines + b"\xff,1\n"), "line 20002", f"byte {len(lines)}", "0xff")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "latin-1", "cp1252"])
def test_other_encodings_by_flag(tmp_path: Path, encoding: str) -> None:
    path = write(tmp_path, "x.csv", "t,l\ncafé,ü\n".encode(encoding))
    assert read(path, encoding=encoding) == [["café", "ü"]]


def test_flags_that_cannot_be(tmp_path: Path) -> None:
    path = write(tmp_path, "x.csv", "t;l\na;1\n")
    refused(path, "utf-99", "--encoding", encoding="utf-99")
    refused(path, "delimiter", "'::'", delimiter="::")
    refused(path, "no column 't'", "'t;l'", "--delimiter", columns=["t"])
    refused(write(tmp_path, "x.jsonl", '{"t": "a"}\n'), "--delimiter is for CSV", delimiter=";")
    refused(write(tmp_path, "y.csv", b"t\n\xd8\n"), "utf-16", encoding="utf-16")
    assert read(path, delimiter=";") == [["a", "1"]]


def test_long_fields_and_documents(tmp_path: Path) -> None:
    long = "x" * 131_073
    document = "word " * 200_000
    path = write(tmp_path, "x.csv", f't,l\n{long},1\n"{document}",2\n')
    assert read(path) == [[long, "1"], [document, "2"]]
    assert csv.field_size_limit() == LARGEST_FIELD


def test_chunks_end_at_rows_and_at_characters(tmp_path: Path) -> None:
    path = write(tmp_path, "x.tsv", "t\tl\n" + "a\t1\n" * 10)
    assert [len(chunk) for chunk in open_table(path).chunks(4)] == [4, 4, 2]
    big = write(tmp_path, "y.tsv", "t\tl\n" + f"{'a' * (CHUNK_CHARACTERS // 2)}\t1\n" * 3)
    assert [len(chunk) for chunk in open_table(big).chunks()] == [2, 1]


def test_positions_are_the_rows_first_lines(tmp_path: Path) -> None:
    table = open_table(write(tmp_path, "x.csv", 't,l\n"a\n\nb",1\nc,2\n"d\ne",3\nf,4\n'))
    (chunk,) = table.chunks()
    assert chunk.positions == [2, 5, 6, 8]
    assert chunk.where(1).endswith("x.csv, line 5")


def test_a_table_can_be_read_again_and_columns_chosen(tmp_path: Path) -> None:
    table = open_table(write(tmp_path, "x.csv", "t,l,m\na,1,u\n"), columns=["m", "t"])
    assert table.names == ("t", "l", "m")
    assert [chunk.columns for chunk in table.chunks()] == [{"m": ["u"], "t": ["a"]}]
    assert [chunk.originals for chunk in table.chunks()] == [[["a", "1", "u"]]]


def test_files_that_are_not_there_or_not_ours(tmp_path: Path) -> None:
    write(tmp_path, "train.csv", "t\na\n")
    refused(tmp_path / "trian.csv", "no such file", "Did you mean 'train.csv'?")
    refused(tmp_path / "no" / "x.csv", "no such file", "no folder")
    refused(write(tmp_path, "x.xlsx", "a"), ".csv, .tsv, .jsonl, .ndjson, .parquet", "'.xlsx'")
    refused(write(tmp_path, "x.csv.zip", "a"), "'.csv.zip'", ".gz or .zst")
    (tmp_path / "f.csv").mkdir()
    refused(tmp_path / "f.csv", "no file")
    refused(tmp_path / "train.csv", "no column 'test'", "There is: 't'", columns=["test"])
    refused(write(tmp_path, "y.csv", "text,label\n"), "Did you mean 'text'?", columns=["txt"])


@pytest.mark.skipif(not hasattr(__import__("os"), "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_refused(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "p.csv")
    refused(tmp_path / "p.csv", "regular file")


JSON_RIGHT = {
    "literals kept": ('{"t": 1.0, "l": true}\n{"t": 1, "l": 12345678901234567890}\n',
                      [["1.0", "true"], ["1", "12345678901234567890"]]),
    "exponents and zeros": ('{"t": 1E5, "l": -0}\n{"t": 1.10, "l": 00e}\n'.replace("00e", "0.0"),
                            [["1E5", "-0"], ["1.10", "0.0"]]),
    "a number of 5,000 digits": (f'{{"t": {"7" * 5000}, "l": "a"}}\n', [["7" * 5000, "a"]]),
    "escapes": ('{"t": "a\\nb\\u00e9\\ud83d\\ude00", "l": ""}\n', [["a\nbé😀", ""]]),
    "ragged, other order": ('{"t": "a", "l": "1"}\n{"x": [1], "l": "2", "t": "b"}', [["a", "1"], ["b", "2"]]),
    "mark, CRLF, blank end": ('\ufeff{"t": "a", "l": "1"}\r\n\r\n', [["a", "1"]]),
    "line separator": ('{"t": "a\u2028b", "l": "1"}\n', [["a\u2028b", "1"]]),
    "nested and NaN elsewhere": ('{"t": "a", "l": "1", "o": {"p": [NaN]}, "q": null}\n', [["a", "1"]]),
}  # fmt: skip


@pytest.mark.parametrize("name", JSON_RIGHT)
def test_json_lines_are_read_as_they_stand(tmp_path: Path, name: str) -> None:
    content, rows = JSON_RIGHT[name]
    assert read(write(tmp_path, "x.jsonl", content), columns=["t", "l"]) == rows


FIRST = '{"t": "a", "l": "1"}\n'
JSON_WRONG = {
    "empty": ("", ["empty"]),
    "half a last line": (FIRST + '{"t": "b", "l"', ["line 2, character", "not JSON", "written whole"]),
    "half a line inside": ('{"t": "b"\n' + FIRST, ["line 1", "not JSON", "One whole object"]),
    "blank line inside": (FIRST + "\n" + FIRST, ["line 2", "blank"]),
    "an array": ("[1, 2]\n", ["line 1", "object", "[1, 2]"]),
    "a JSON file over lines": ('{\n"t": 1\n}\n', ["line 1", "not JSON"]),
    "a key twice": (FIRST + '{"t": "a", "l": "1", "t": "b"}\n', ["line 2", "'t' stands twice"]),
    "null": (FIRST + '{"t": null, "l": "1"}\n', ["line 2", "'t' has no value", "null"]),
    "NaN": (FIRST + '{"t": "a", "l": NaN}\n', ["line 2", "'l' has no value", "NaN"]),
    "list": (FIRST + '{"t": ["a"], "l": "1"}\n', ["line 2", "'t' holds a list"]),
    "object": (FIRST + '{"t": {"u": "a"}, "l": "1"}\n', ["line 2", "'t' holds a nested object"]),
    "a field missing": (FIRST + '{"t": "a", "label": "1"}\n', ["line 2", "no field 'l'", "'label'"]),
    "half a surrogate pair": (FIRST + '{"t": "\\ud83d", "l": "1"}\n', ["line 2", "surrogate", "'t'"]),
    "nesting without end": ('{"t": ' + "[" * 100_000 + "\n", ["line 1", "deeply"]),
    "first row without the column": ('{"u": "a"}\n' + FIRST, ["line 1", "no column 't'"]),
}


@pytest.mark.parametrize("name", JSON_WRONG)
def test_json_lines_are_refused_with_place_and_remedy(tmp_path: Path, name: str) -> None:
    content, parts = JSON_WRONG[name]
    refused(write(tmp_path, "x.jsonl", content), *parts, columns=["t", "l"])


def test_nulls_are_empty_strings_where_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path, "x.jsonl", '{"t": "a", "l": null}\n{"t": "b", "l": NaN}\n')
    assert read(path, columns=["t", "l"], nullable=["l"]) == [["a", ""], ["b", ""]]


def write_parquet(folder: Path, **columns: pa.Array) -> Path:
    parquet.write_table(pa.table(columns), folder / "x.parquet")
    return folder / "x.parquet"


PLAIN = {
    "string": (pa.array(["NA", "", "01"]), ["NA", "", "01"]),
    "large string": (pa.array(["a", "b", "c"], pa.large_string()), ["a", "b", "c"]),
    "dictionary": (pa.array(["a", "b", "a"]).dictionary_encode(), ["a", "b", "a"]),
    "int": (pa.array([1, -2, 2**62]), ["1", "-2", str(2**62)]),
    "unsigned": (pa.array([1, 2, 2**64 - 1], pa.uint64()), ["1", "2", str(2**64 - 1)]),
    "bool": (pa.array([True, False, True]), ["true", "false", "true"]),
    "double": (pa.array([1.0, 0.1, 1e20]), ["1.0", "0.1", "1e+20"]),
    "float": (pa.array([1.0, 0.1, 2.5], pa.float32()), ["1.0", "0.1", "2.5"]),
}


@pytest.mark.parametrize("name", PLAIN)
def test_parquet_columns_become_strings(tmp_path: Path, name: str) -> None:
    array, strings = PLAIN[name]
    path = write_parquet(tmp_path, t=array, other=pa.array([[1], None, []]))
    assert read(path, columns=["t"]) == [[text] for text in strings]
    nulled = write_parquet(tmp_path, t=pa.concat_arrays([array, pa.nulls(1, array.type)]))
    refused(nulled, "row 4", "'t' has no value")
    assert read(nulled, nullable=["t"]) == [*([text] for text in strings), [""]]


def test_parquet_is_refused_with_place_and_remedy(tmp_path: Path) -> None:
    refused(write_parquet(tmp_path, t=pa.array([["a"]])), "'t'", "list<")
    refused(write_parquet(tmp_path, t=pa.array([{"a": "b"}])), "'t'", "struct<")
    refused(write_parquet(tmp_path, t=pa.array([b"a"])), "'t'", "binary")
    refused(write_parquet(tmp_path, t=pa.nulls(2)), "row 1", "no value")
    refused(write_parquet(tmp_path, t=pa.array([1.0, float("nan")])), "row 2", "no value")
    broken = pa.Array.from_buffers(pa.string(), 1, [*pa.array(["ab"]).buffers()[:2], pa.py_buffer(b"a\xff")])
    refused(write_parquet(tmp_path, t=broken), "UTF-8", "0xff")
    refused(write_parquet(tmp_path, text=pa.array(["a"])), "Did you mean 'text'?", columns=["txt"])
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    parquet.write_table(twice, tmp_path / "x.parquet")
    refused(tmp_path / "x.parquet", "'a' stands twice")
    refused(write(tmp_path, "y.parquet", "text,label"), "Parquet")
    refused(write(tmp_path, "z.parquet", b""), "Parquet")


def test_a_parquet_file_damaged_within(tmp_path: Path) -> None:
    path = write_parquet(tmp_path, t=pa.array([f"text {number}" for number in range(5000)]))
    content = bytearray(path.read_bytes())
    content[40:2000] = b"\xff" * 1960
    refused(write(tmp_path, "y.parquet", bytes(content)), "Parquet")


def test_parquet_chunks_count_rows_from_one(tmp_path: Path) -> None:
    chunks = list(open_table(write_parquet(tmp_path, t=pa.array(list("abcde")))).chunks(2))
    assert [chunk.positions for chunk in chunks] == [[1, 2], [3, 4], [5]]
    assert chunks[1].where(0).endswith("row 3")


def test_lines_of_a_stream() -> None:
    table = open_lines(io.BytesIO("\ufeffa, b\r\n\n é \nlast".encode()))
    (chunk,) = table.chunks()
    assert (chunk.columns, chunk.positions) == ({"text": ["a, b", "", " é ", "last"]}, [1, 2, 3, 4])
    for content, part in ((b"a\n\xff\n", "stdin, line 2"), (b"a\nb\0\n", "NUL")):
        with pytest.raises(DataError, match=part):
            list(open_lines(io.BytesIO(content)).chunks())


FIELD = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8) | st.sampled_from(
    ['"', ",", "\n", "\r", "\r\n", "\t", '""', "NA", "a\u2028b", "\ufeff"]
)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), delimiter=st.sampled_from([",", "\t", ";", "|"]), end=st.sampled_from(["\n", "\r\n"]),
       encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"]))  # fmt: skip
def test_any_table_in_any_dialect_comes_back(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, delimiter: str, end: str, encoding: str
) -> None:
    width = data.draw(st.integers(1, 4))
    rows = data.draw(st.lists(st.lists(FIELD, min_size=width, max_size=width), max_size=6))
    names = [f"column {number}" for number in range(width)]
    buffer = io.StringIO()
    csv.writer(buffer, delimiter=delimiter, lineterminator=end, quoting=csv.QUOTE_ALL).writerows([names, *rows])
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(buffer.getvalue().encode(encoding))
    assert read(path, delimiter=delimiter, encoding=encoding) == rows


@settings(max_examples=100, deadline=None)
@given(rows=st.lists(st.fixed_dictionaries({"t": FIELD, "l": FIELD}), min_size=1), escape=st.booleans())
def test_any_json_lines_come_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, str]], escape: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=escape) + "\n" for row in rows), "utf-8", newline="")
    assert read(path, columns=["t", "l"]) == [[row["t"], row["l"]] for row in rows]


def test_reading_text_files_loads_no_pyarrow() -> None:
    code = "import sys, fullbake.data.files; sys.exit(any(name in sys.modules for name in ('pyarrow', 'numpy')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


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


CSV_FIELD = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=6) | st.sampled_from(
    ['"', ",", "\n", "\r", "\t", "a\rb", "a\u2028b"]
)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), form=st.sampled_from(["csv", "tsv", "jsonl", "parquet"]))
def test_what_is_written_is_read_back_equal(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, form: str
) -> None:
    names = data.draw(
        st.lists(CSV_FIELD.filter(lambda name: name[:1] != "\ufeff"), min_size=1, max_size=3, unique=True)
    )
    names = ["text", *(name for name in names if name not in ("text", "predicted", "score"))]
    given_rows = data.draw(st.lists(st.tuples(*[CSV_FIELD] * len(names)), max_size=5))
    folder = tmp_path_factory.getbasetemp()
    columns = {name: pa.array([row[at] for row in given_rows], pa.string()) for at, name in enumerate(names)}
    parquet.write_table(pa.table(columns), folder / "any.parquet")
    source = open_table(folder / "any.parquet", columns=["text"])
    score(source, folder / f"any.scored.{form}", overwrite=True)
    if form == "jsonl" and not given_rows:
        return
    assert [row[: len(names)] for row in rows(folder / f"any.scored.{form}")] == given_rows
