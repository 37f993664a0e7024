"""Lines end at LF, CRLF, or CR alone; no text is lost, whichever blocks the stream comes in."""

import io
import logging
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fullbake.data import line_ends
from fullbake.data.line_ends import ReturnWarning, read_raw_lines

TEXTS = st.lists(st.text("ab \u00e9", max_size=6), min_size=2, max_size=8).filter(lambda texts: texts[-1] != "")


class Trickle(io.BytesIO):
    """A stream that gives a few bytes at a time, as a pipe may."""

    def read(self, size: int | None = -1) -> bytes:
        return super().read(3)


def bare(lines: Iterable[bytes]) -> list[str]:
    return [line.decode().rstrip("\r\n") for line in lines]


@given(TEXTS, st.sampled_from(["\n", "\r\n", "\r"]), st.booleans())
def test_lines_are_found_whatever_ends_them(texts: list[str], end: str, closed: bool) -> None:
    content = end.join(texts) + (end if closed else "")
    assert bare(read_raw_lines(Trickle(content.encode()), 100)) == texts


def test_a_return_within_lines_that_end_at_lf_stays() -> None:
    assert list(read_raw_lines(io.BytesIO(b"a\rb\nc\n"), 100)) == [b"a\rb\n", b"c\n"]


@pytest.mark.parametrize("content", [b"x" * 50, b"a\r" + b"x" * 50])
def test_a_long_line_comes_as_its_beginning(content: bytes) -> None:
    assert max(map(len, read_raw_lines(io.BytesIO(content), 10))) > 10


def test_pairs_at_the_edge_of_a_block_are_one_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_ends, "_BLOCK", 1)
    assert bare(read_raw_lines(io.BytesIO(b"a\rb\r\r\nc"), 2)) == ["a", "b", "", "c"]


def test_a_return_within_a_line_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    returns = ReturnWarning()
    with caplog.at_level(logging.WARNING, "fullbake"):
        for number, text in enumerate(("plain", "a\rb", "c\rd"), 1):
            returns.check(f"stdin, line {number}", text)
    assert [record.getMessage().split(":")[0] for record in caplog.records] == ["stdin, line 2"]
