"""A first line that does not hold the names that were asked for is answered with the flag that reads the file."""

from pathlib import Path

import pytest
from helpers.table_files import assert_refused, read_rows, write_file

from fullbake.data.headers import delimiter_flag, looks_like_a_row, separator_of_mark

WANTED = ["text", "label"]


@pytest.mark.parametrize(
    ("content", "flag"),
    [
        ("text;label\na, b;1\n", "--delimiter ';'"),
        ('"text";"label"\n"a";1\n', "--delimiter ';'"),
        ("text\tlabel\na\t1\n", r"--delimiter '\t'"),
        ("text|label\na|1\n", "--delimiter '|'"),
        ("body;category\na;1\n", "--delimiter ';'"),
    ],
)
def test_another_delimiter_is_named(tmp_path: Path, content: str, flag: str) -> None:
    assert_refused(write_file(tmp_path, "x.csv", content), "line 1", f"ass {flag}.", columns=WANTED)


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ("a film that one has to see twice,1\nno,0\n", "text,label"),
        ("0,a film\n1,no\n", "label,text"),
        ("0.5,7,I would not go there again\n", "label,column2,text"),
    ],
)
def test_a_first_line_that_looks_like_a_row_is_answered_with_names(tmp_path: Path, content: str, names: str) -> None:
    path = write_file(tmp_path, "x.csv", content)
    assert_refused(path, "line 1", "looks like a row, not like names", f"--no-header {names}.", columns=WANTED)
    assert len(read_rows(path, no_header=tuple(names.split(",")))) == content.count("\n")


def test_a_row_whose_fields_are_equal_is_no_header(tmp_path: Path) -> None:
    assert_refused(
        write_file(tmp_path, "x.csv", "1,1\n"), "looks like a row", "--no-header column1,column2", columns=None
    )


def test_short_words_may_be_names_or_a_row(tmp_path: Path) -> None:
    path = write_file(tmp_path, "x.csv", "good,pos\nbad,neg\n")
    assert_refused(path, "no column 'text'", "If it is a row already", "--no-header text,label", columns=WANTED)


def test_a_header_with_one_of_the_names_is_no_row(tmp_path: Path) -> None:
    path = write_file(tmp_path, "x.csv", "txt,label,7\na,1,2\n")
    assert_refused(path, "Did you mean 'txt'", columns=WANTED)
    with pytest.raises(AssertionError):
        assert_refused(path, "--no-header", columns=WANTED)


def test_marks_of_excel() -> None:
    assert separator_of_mark("sep=;\r\n") == ";"
    assert separator_of_mark('"sep=\t"\n') == "\t"
    assert separator_of_mark("sep=;;\n") is None
    assert separator_of_mark("sepal,label\n") is None


def test_what_looks_like_a_row() -> None:
    assert looks_like_a_row(["x" * 61, "a"])
    assert looks_like_a_row(["1e3"])
    assert not looks_like_a_row(["text", "the label of it", ""])
    assert delimiter_flag("\t") == r"--delimiter '\t'"
