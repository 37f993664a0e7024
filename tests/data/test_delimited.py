"""CSV and TSV: every field is read as it is in the file, or the file is refused with its line and a remedy."""

import csv
import gzip
import io
import tracemalloc
from pathlib import Path

import pytest
from helpers.table_files import FIELDS, assert_refused, read_rows, write_file, write_scored
from hypothesis import given, settings
from hypothesis import strategies as st

from fullbake.config.sections import Dialect
from fullbake.core.errors import DataError, OutputError
from fullbake.data.files import open_table
from fullbake.data.tables import MAX_FIELD_CHARACTERS

READ = {
    "plain": (b"t,l\na,1\nb,2\n", [["a", "1"], ["b", "2"]]),
    "no line end at the end": (b"t,l\na,1", [["a", "1"]]),
    "spelling kept": (b"t,l\nNA,01\nnull,true\n,1.0\nNone,1\n x ,X\n", None),
    "UTF-8 mark": (b"\xef\xbb\xbft,l\na,1\n", [["a", "1"]]),
    "CRLF": (b"t,l\r\na,1\r\n", [["a", "1"]]),
    "LF and CRLF mixed": (b"t,l\na,1\r\nb,2\n", [["a", "1"], ["b", "2"]]),
    "line end inside quotes": (b't,l\n"a\nb",1\n', [["a\nb", "1"]]),
    "CR inside quotes": (b't,l\n"a\rb\r\nc",1\n', [["a\rb\r\nc", "1"]]),
    "quotes and delimiters": (b't,l\n"say ""hi"", you",1\n', [['say "hi", you', "1"]]),
    "a quote in an unquoted field": (b't,l\n5" disk,1\n', [['5" disk', "1"]]),
    "empty lines at the end": (b"t,l\na,1\n\n\n", [["a", "1"]]),
    "an empty text in one column": (b't\n""\nb\n', [[""], ["b"]]),
    "one empty name": (b",t\n0,a\n", [["0", "a"]]),
    "backslash": (b't,l\n"a\\",1\n', [["a\\", "1"]]),
    "line separators of Unicode": ("t,l\na\u2028b\x85c\x0bd,1\n".encode(), [["a\u2028b\x85c\x0bd", "1"]]),
    "Chinese": ("t,l\n这间酒店,好\n".encode(), [["这间酒店", "好"]]),
    "header only": (b"t,l\n", []),
}


@pytest.mark.parametrize("name", READ)
def test_csv_fields_are_read_unchanged(tmp_path: Path, name: str) -> None:
    content, rows = READ[name]
    expected = [line.split(",") for line in content.decode().splitlines()[1:]] if rows is None else rows
    assert read_rows(write_file(tmp_path, "x.csv", content)) == expected


REFUSED: dict[str, tuple[bytes, list[str]]] = {
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
    "a name twice": (b"t,l,t\na,1,b\n", ["line 1", "'t' occurs twice"]),
    "NUL": (b"t,l\na,1\n\0\0\0\0", ["line 3", "NUL", "--encoding utf-16"]),
    "UTF-16 with a mark": ("t,l\na,1\n".encode("utf-16"), ["line 1", "byte 0", "0xff", "--encoding"]),
    "UTF-16 without": ("t,l\na,1\n".encode("utf-16-le"), ["line 1", "NUL", "--encoding utf-16"]),
    "Latin-1": ("t,l\na,1\ncafé,2\n".encode("latin-1"), ["line 3", "byte 11", "0xe9", "--encoding"]),
    "Latin-1 after a mark": (b"\xef\xbb\xbft,l\n\xe9,2\n", ["line 2", "byte 7", "0xe9"]),
    "half a character at the end": ("t,l\na,é".encode()[:-1], ["line 2", "byte 6", "0xc3"]),
    "two marks": (b"\xef\xbb\xbf\xef\xbb\xbft,l\na,1\n", ["line 1", "byte order mark"]),
    "gzip": (b"\x1f\x8b\x08\x00abc", ["compressed by gzip", ".csv.gz"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_broken_csv_is_refused_with_its_line_and_a_remedy(tmp_path: Path, name: str) -> None:
    content, parts = REFUSED[name]
    assert_refused(write_file(tmp_path, "x.csv", content), *parts)


def test_fields_longer_than_the_limit_of_the_csv_module_are_read(tmp_path: Path) -> None:
    long = "x" * 131_073
    document = "word " * 200_000
    path = write_file(tmp_path, "x.csv", f't,l\n{long},1\n"{document}",2\n')
    assert read_rows(path) == [[long, "1"], [document, "2"]]
    assert csv.field_size_limit() == MAX_FIELD_CHARACTERS


def test_position_of_a_row_is_its_first_line(tmp_path: Path) -> None:
    table = open_table(write_file(tmp_path, "x.csv", 't,l\n"a\n\nb",1\nc,2\n"d\ne",3\nf,4\n'))
    (chunk,) = table.chunks()
    assert chunk.positions == [2, 5, 6, 8]
    assert chunk.where(1).endswith("x.csv, line 5")


def test_a_delimiter_is_one_character_and_named_in_the_error(tmp_path: Path) -> None:
    path = write_file(tmp_path, "x.csv", "t;l\na;1\n")
    assert read_rows(path, delimiter=";") == [["a", "1"]]
    assert_refused(path, "delimiter", "'::'", delimiter="::")
    assert_refused(path, "no column 't'", "'t;l'", "--delimiter", columns=["t"])


@settings(max_examples=150, deadline=None)
@given(data=st.data(), delimiter=st.sampled_from([",", "\t", ";", "|"]), end=st.sampled_from(["\n", "\r\n"]),
       encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"]))  # fmt: skip
def test_any_table_in_any_dialect_is_read_back_equal(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, delimiter: str, end: str, encoding: str
) -> None:
    width = data.draw(st.integers(1, 4))
    rows = data.draw(st.lists(st.lists(FIELDS, min_size=width, max_size=width), max_size=6))
    names = [f"column {number}" for number in range(width)]
    buffer = io.StringIO()
    csv.writer(buffer, delimiter=delimiter, lineterminator=end, quoting=csv.QUOTE_ALL).writerows([names, *rows])
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(buffer.getvalue().encode(encoding))
    assert read_rows(path, delimiter=delimiter, encoding=encoding) == rows


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"text": "a", "n": null}', "'n' has no value"),
        ('{"text": "a", "n": [1]}', "'n' holds a list"),
        ('{"text": "a", "n": 1}\n{"text": "b"}', "line 2: this row has other fields"),
        ('{"text": "a\\u0000"}', "NUL"),
    ],
)
def test_values_that_csv_cannot_hold_are_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.jsonl").write_text(content)
    with pytest.raises((DataError, OutputError), match=message):
        write_scored(open_table(tmp_path / "a.jsonl", columns=["text"]), tmp_path / "b.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


def test_written_dialect_does_not_depend_on_the_source(tmp_path: Path) -> None:
    path = write_file(tmp_path, "a.csv", 'id;text\r\n1;"a ""b"""\r\n'.encode("utf-16"))
    write_scored(open_table(path, columns=["text"], dialect=Dialect(";", "utf-16")), tmp_path / "b.csv")
    assert (tmp_path / "b.csv").read_bytes() == b'id,text,predicted,score\n1,"a ""b""","""",0.5\n'


def test_rows_without_a_header_get_names(tmp_path: Path) -> None:
    path = write_file(tmp_path, "x.csv", '"a, b",1\nc,2\n')
    table = open_table(path, columns=["label"], dialect=Dialect(no_header=("text", "label")))
    (chunk,) = table.chunks()
    assert (table.names, chunk.columns, chunk.positions) == (("text", "label"), {"label": ["1", "2"]}, [1, 2])
    assert_refused(path, "line 1", "2: ", "as --no-header names", no_header=("a", "b", "c"))
    assert_refused(path, "columns of --no-header", "no column 'x'", no_header=("a", "b"), columns=["x"])
    header = write_file(tmp_path, "y.csv", "Text,label\na,1\n")
    assert_refused(header, "line 1", "Leave --no-header out", no_header=("text", "label"))
    assert read_rows(write_file(tmp_path, "z.csv", ""), no_header=("a",)) == []


def test_quotes_are_text_where_the_flag_says_so(tmp_path: Path) -> None:
    content = 'a\t"b\n"c""\t"d" e\r\n'
    path = write_file(tmp_path, "x.tsv", f"t\tl\n{content}")
    assert read_rows(path, quoting="none") == [["a", '"b'], ['"c""', '"d" e']]
    assert_refused(write_file(tmp_path, "y.tsv", "t\tl\na\tb\tc\n"), "line 2", "--quoting none", quoting="none")
    assert_refused(write_file(tmp_path, "y.tsv", "t\tl\na\rb\tc\n"), "line 2", "carriage return", quoting="none")
    assert_refused(write_file(tmp_path, "y.tsv", "t\tl\n\nb\tc\n"), "line 2", "blank line", quoting="none")


def test_several_characters_separate_fields_without_quotes(tmp_path: Path) -> None:
    path = write_file(tmp_path, "x.txt", 'l_!_t\n101_!_a "b\n')
    assert read_rows(path, delimiter="_!_", quoting="none") == [["101", 'a "b']]
    assert_refused(path, "cannot be the delimiter", "--quoting none", delimiter="_!_")


def test_a_txt_file_is_a_table_only_with_a_delimiter(tmp_path: Path) -> None:
    path = write_file(tmp_path, "x.txt", "t\tl\na\t1\n")
    assert read_rows(path, delimiter="\t") == [["a", "1"]]
    assert_refused(path, "only if its delimiter is known", "--delimiter", "--no-header")
    with pytest.raises(OutputError, match="format to write"):
        write_scored(open_table(path, columns=["t"], dialect=Dialect("\t")), tmp_path / "y.txt")


def test_the_mark_of_excel_names_the_delimiter(tmp_path: Path) -> None:
    path = write_file(tmp_path, "x.csv", "\ufeffsep=;\r\nt;l\r\na, b;1\r\n")
    assert read_rows(path) == read_rows(path, delimiter=";") == [["a, b", "1"]]
    (chunk,) = open_table(path).chunks()
    assert chunk.positions == [3]
    assert_refused(path, "line 1", "sep=;", "--delimiter ';'", delimiter="\t")
    assert_refused(write_file(tmp_path, "y.csv", "sep=;\nt;l\na;1;2\n"), "line 3", "too long")


def test_spare_columns_without_a_name_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_file(tmp_path, "x.csv", "v1,v2,, ,\nham,hi,,,\nspam,win,now,,\n")
    assert read_rows(path, columns=["v2", "v1"]) == [["hi", "ham"], ["win", "spam"]]
    assert "line 3" in caplog.text
    path = write_file(tmp_path, "y.csv", "text,v2,,,\nham,hi,,,\nspam,win,now,,\n")
    write_scored(open_table(path, columns=["text"]), tmp_path / "z.csv")
    assert (tmp_path / "z.csv").read_text().startswith("text,v2,,,,predicted,score\nham,hi,,,,")
    for ending in (".jsonl", ".parquet"):
        write_scored(open_table(path, columns=["text"]), tmp_path / f"z{ending}")
        assert read_rows(tmp_path / f"z{ending}", columns=["text", "v2"]) == [["ham", "hi"], ["spam", "win"]]


@pytest.mark.parametrize("row", [b"x" * 100, b'"' + b"x\n" * 50, b'"' + b"x" * 49 + b"\n"])
def test_a_row_is_refused_before_it_is_read_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: bytes
) -> None:
    monkeypatch.setattr("fullbake.data.row_guard.MAX_ROW_BYTES", 400_000)
    monkeypatch.setattr("fullbake.data.row_guard._MAX_ROW_LINES", 70_000)
    path = write_file(tmp_path, "x.csv.gz", gzip.compress(b"text,label\n" + row[:1] + row[1:] * 200_000))
    tracemalloc.start()
    assert_refused(path, "line 2", "too long", "--quoting none")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8_000_000


def test_quotes_escaped_by_backslashes_are_named(tmp_path: Path) -> None:
    path = write_file(tmp_path, "x.csv", 'text,label\n"he said \\"good\\" again",pos\n')
    assert_refused(path, "line 2", "text after a closing quote", "escapechar='\\\\'")


def test_a_name_that_occurs_twice_is_refused_only_if_it_is_asked_for(tmp_path: Path) -> None:
    path = write_file(tmp_path, "x.csv", "text,n,l,n\na,1,x,2\n")
    assert read_rows(path, columns=["text", "l"]) == [["a", "x"]]
    for columns in (["text", "n"], None):
        assert_refused(path, "line 1", "'n' occurs twice", columns=columns)
    table = open_table(path, columns=["text"])
    write_scored(table, tmp_path / "y.csv")
    assert (tmp_path / "y.csv").read_text().startswith("text,n,l,n,predicted,score\na,1,x,2,")
    for ending in ("jsonl", "parquet"):
        target = tmp_path / f"y.{ending}"
        with pytest.raises(DataError, match="'n' occurs twice"):
            write_scored(table, target)
        assert not target.exists()
