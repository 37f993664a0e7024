"""Limits of rows are checked on bytes, block by block."""

from pathlib import Path

import pytest

from fullbake.core.errors import DataError
from fullbake.data.row_guard import RowGuard


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "x.csv").write_bytes(b"a,b\n")
    return tmp_path / "x.csv"


def test_a_row_that_grows_block_by_block_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fullbake.data.row_guard.MAX_ROW_BYTES", 10)
    guard = RowGuard(path, "utf-8")
    for number in range(1, 9):
        guard.row_start = number
        guard(b"12345678\n")
    guard(b"1")
    with pytest.raises(DataError, match=r"x\.csv, line 8: a row that is too long"):
        guard(b"1")


def test_a_row_of_many_lines_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fullbake.data.row_guard._MAX_ROW_LINES", 3)
    guard = RowGuard(path, "utf-8")
    guard(b"\n\n\n")
    guard.row_start = 4
    guard(b"\n\n\n")  # a row of so few bytes has not too many lines: they are counted in the blocks after these
    guard(b"\n\n\n")
    with pytest.raises(DataError, match=r"line 4: a row that is too long[\s\S]*3 lines"):
        guard(b"\n")


def test_nul_is_found_in_bytes_or_in_lines_by_the_encoding(path: Path) -> None:
    path.write_bytes(b"a\nb\nc\n\0")  # the line is counted in the file itself
    guard = RowGuard(path, "utf-8")
    guard(b"a\nb\n")
    with pytest.raises(DataError, match="line 4: a NUL"):
        guard(b"c\n\0")
    wide = RowGuard(path, "utf-16-le")
    wide("a\nb".encode("utf-16-le"))
    wide.row_start = 2
    with pytest.raises(DataError, match="line 3: a NUL"):
        list(wide.lines(["a\n", "b\0\n"]))
