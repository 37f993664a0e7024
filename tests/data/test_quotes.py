"""Quotes that are likely not what a reader takes them for are warned of or refused."""

import logging
from pathlib import Path

import pytest
from helpers.table_files import assert_refused, read_rows, write_file

JOINED = {
    "x.tsv": 'text\tlabel\n"so he said\tpos\nand went"\tneg\nfine\tpos\nbad\tneg\n',
    "other.tsv": 'id\ttext\n1\t"a\n2\tc"\n3\td\n',
    "x.csv": 'label,text\npos,"he said\nneg,bye"\npos,a\nneg,b\n',
}


@pytest.mark.parametrize("name", JOINED)
def test_rows_joined_by_quotes_are_warned_of_once(tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    content = JOINED[name]
    path = write_file(tmp_path, name, content)
    rows = read_rows(path)
    assert len(rows) == content.count("\n") - 2
    (message,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    for part in ("line 2", "2 lines of the file became 1 row.", "--quoting none"):
        assert part in message
    caplog.clear()
    assert len(read_rows(path, quoting="none")) == content.count("\n") - 1
    assert caplog.records == []


@pytest.mark.parametrize(
    "content",
    [
        'text,label\n"one\ntwo, three",pos\nfine,neg\nbad,pos\n',
        'text,label\n"said ""hi""\n\n, and left",pos\nfine,neg\n',
        'text\tlabel\n"a tab\tin a line"\tpos\n',
        'text\n"one\ntwo"\n',
    ],
)
def test_ordinary_quoted_fields_are_not_warned_of(
    tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    read_rows(write_file(tmp_path, "x.tsv" if "\t" in content else "x.csv", content))
    assert caplog.records == []


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.csv", 'label,text\ngood, "one line\n'),
        ("x.csv", 'label,text\ngood, "one line"\n'),
        ("x.csv", 'id,label,text\n7, "one, line"\n'),
        ("x.csv", 'label,text\n"good", "one"\n'),
        ("x.csv", 'label,text\n "good",one\n'),
        ("x.tsv", 'label\ttext\ngood\t "one line\n'),
    ],
)
def test_a_quote_after_a_space_is_refused(tmp_path: Path, name: str, content: str) -> None:
    assert_refused(write_file(tmp_path, name, content), "line 2", "quote after a space", "--quoting none")


@pytest.mark.parametrize(
    ("name", "content", "rows"),
    [
        ("x.csv", 'label,text\ngood, "one" he said\n', [["good", ' "one" he said']]),
        ("x.csv", 'label,text\ngood,"a, ""b"""\n', [["good", 'a, "b"']]),
        ("x.csv", 'label,text\ngood,5 "x"\n', [["good", '5 "x"']]),
        ("x.tsv", 'label\ttext\ngood\t "one"\n', [["good", ' "one"']]),
    ],
)
def test_quotes_that_belong_to_a_text_are_read(tmp_path: Path, name: str, content: str, rows: list[list[str]]) -> None:
    assert read_rows(write_file(tmp_path, name, content)) == rows


def test_quotes_that_enclose_fields_are_warned_of_where_they_are_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_file(tmp_path, "x.csv", 'text,label\n"a",1\n"b",2\n')
    assert read_rows(path, quoting="none") == [['"a"', "1"], ['"b"', "2"]]
    assert "2 of the first 2 rows" in caplog.text
    assert "leave --quoting none out" in caplog.text


@pytest.mark.parametrize("content", ['text,label\n"a" b,1\n', 'text,label\n"a,1\n', 'text,label\n"a\nb",1,2\n'])
def test_errors_of_stray_quotes_name_the_flag(tmp_path: Path, content: str) -> None:
    assert_refused(write_file(tmp_path, "x.csv", content), "--quoting none")


def test_suspected_rows_are_checked_at_the_end_where_there_are_many(tmp_path: Path) -> None:
    quoted = 'a,"\n ""b"" c"\n1," ""b"""\n' * 10
    assert len(read_rows(write_file(tmp_path, "x.csv", f"t,l\n{quoted}"))) == 20
    path = write_file(tmp_path, "y.csv", f't,l\n{quoted}{quoted}c, "d\n{quoted}')
    assert_refused(path, f"line {2 + 2 * quoted.count(chr(10))}", "quote after a space", "'c, \"d'")
