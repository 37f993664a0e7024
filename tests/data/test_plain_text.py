"""Encodings, NUL characters and plain lines."""

import io
from pathlib import Path

import pytest
from helpers.table_files import assert_refused, read_rows, write_file

from fullbake.core import heartbeat
from fullbake.core.errors import DataError
from fullbake.data.plain_text import open_lines, read_file_lines


def test_undecodable_byte_deep_in_the_file_is_found_by_line_and_offset(tmp_path: Path) -> None:
    lines = b"t,l\n" + b"abcdefg,1\n" * 20_000
    assert_refused(write_file(tmp_path, "x.csv", lines + b"\xff,1\n"), "line 20002", f"byte {len(lines)}", "0xff")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "latin-1", "cp1252"])
def test_files_are_read_in_the_encoding_that_is_named(tmp_path: Path, encoding: str) -> None:
    path = write_file(tmp_path, "x.csv", "t,l\ncafé,ü\n".encode(encoding))
    assert read_rows(path, encoding=encoding) == [["café", "ü"]]


def test_wrong_encodings_are_refused(tmp_path: Path) -> None:
    assert_refused(write_file(tmp_path, "x.csv", "t,l\na,1\n"), "utf-99", "--encoding", encoding="utf-99")
    assert_refused(write_file(tmp_path, "x.csv", "t,l\na,1\n"), "'hex'", "--encoding", encoding="hex")
    assert_refused(write_file(tmp_path, "y.csv", b"t\n\xd8\n"), "utf-16", encoding="utf-16")


@pytest.mark.parametrize("encoding", ["rot13", "unicode_escape", "raw_unicode_escape", "utf-7", "punycode", "a\0b"])
def test_codecs_that_no_file_is_written_in_are_refused(tmp_path: Path, encoding: str) -> None:
    path = write_file(tmp_path, "x.csv", "t,l\na\\ud800,1\n")
    assert_refused(path, "there is no encoding", "--encoding", encoding=encoding)


def test_a_line_of_a_stream_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fullbake.data.plain_text.MAX_ROW_CHARACTERS", 10)
    with pytest.raises(DataError, match="stdin, line 2: a paragraph that is too long"):
        list(open_lines(io.BytesIO(b"short\n" + b"x" * 11)).chunks())


def test_lines_of_a_stream_are_rows_blank_ones_too() -> None:
    table = open_lines(io.BytesIO("\ufeffa, b\r\n\n é \nlast".encode()))
    (chunk,) = table.chunks()
    assert (chunk.columns, chunk.positions) == ({"text": ["a, b", "", " é ", "last"]}, [1, 2, 3, 4])
    for content, part in ((b"a\n\xff\n", "stdin, line 2"), (b"a\nb\0\n", "NUL")):
        with pytest.raises(DataError, match=part):
            list(open_lines(io.BytesIO(content)).chunks())


def test_waiting_for_the_first_line_is_no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[int] = []

    class Slow(io.BytesIO):
        def readline(self, size: int | None = -1) -> bytes:
            waits.append(heartbeat._waits[0])
            return super().readline(size)

    (chunk,) = open_lines(Slow(b"one\ntwo\n")).chunks()
    assert (chunk.columns["text"], waits) == (["one", "two"], [1, 0, 0])


def test_lines_of_a_file_are_read_without_their_ends(tmp_path: Path) -> None:
    path = write_file(tmp_path, "x.txt", "\ufeffone\r\n\n two \nlast")
    assert list(read_file_lines(path, "utf-8", 10)) == [(1, "one"), (2, ""), (3, " two "), (4, "last")]
    for content, part in (
        (b"ab\n" + b"x" * 11, "line 2: a paragraph that is too long"),
        (b"a\nb\0\n", "line 2, byte 3: a NUL"),
    ):
        with pytest.raises(DataError, match=part):
            list(read_file_lines(write_file(tmp_path, "y.txt", content), "utf-8", 10))
