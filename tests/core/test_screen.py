"""What comes from outside is plain text on every console, and no stream stops the work."""

import io
import sys
from typing import TextIO

import pytest
from rich.console import Console
from rich.text import Text

from fullbake.core.screen import Line, PlainConsole, PlainTable, StandardStream

EVIL = "\x1b[2J[red]good\rbad\nerror: \u202egnp\u200b"
SHOWN = r"\x1b[2J[red]good\rbad\nerror: \u202egnp\u200b"


def drawn(thing: object, encoding: str = "utf-8", kind: type[Console] = PlainConsole, width: int = 120) -> str:
    raw = io.BytesIO()
    console = kind(file=io.TextIOWrapper(raw, encoding), width=width)
    console.print(thing)
    return raw.getvalue().decode(encoding)


def table_of(cell: object) -> PlainTable:
    table = PlainTable(title=EVIL)
    table.add_column(EVIL)
    table.add_row(cell)
    return table


@pytest.mark.parametrize("kind", [Console, PlainConsole])
@pytest.mark.parametrize("thing", [Line(EVIL), Line("a ", (EVIL, "bold")), table_of(EVIL), table_of((EVIL, "dim"))])
def test_a_line_and_a_cell_are_plain_text_on_any_console(kind: type[Console], thing: object) -> None:
    shown = drawn(thing, kind=kind)
    assert SHOWN in shown
    assert "\x1b" not in shown


def test_a_plain_console_escapes_what_no_line_has_escaped() -> None:
    shown = drawn(Text("\x1b]0;title\x07\u202eabc\n second line"))
    assert "\x1b" not in shown
    assert r"\x1b]0;title" in shown
    assert r"\u202eabc" in shown
    assert "\n second line" in shown


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_what_the_terminal_lacks_is_escaped_before_the_table_is_laid_out(encoding: str) -> None:
    table = table_of("\U0001f600 caf\u00e9")
    table.add_row("plain")
    lines = drawn(table, encoding).splitlines()
    assert r"\U0001f600 caf" in "".join(lines)
    assert len({len(line) for line in lines[1:]}) == 1, "all lines of the table are equally wide"
    assert r"\U0001f600" in drawn(Text("\U0001f600"), encoding)


def test_a_style_covers_its_own_part_alone() -> None:
    console = PlainConsole(file=io.StringIO(), force_terminal=True, color_system="standard")
    assert Line(("\x1b", "bold"), "b").text_for(console).spans[0].end == len(r"\x1b")


class Full(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")


def test_a_stream_that_is_full_or_closed_never_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = io.StringIO()
    closed.close()
    broken: list[TextIO | None] = [Full(), closed, None]
    for stream in broken:
        monkeypatch.setattr(sys, "stderr", stream)
        guarded = StandardStream("stderr")
        assert (guarded.write("abc"), guarded.encoding, guarded.isatty()) == (3, "utf-8", False)
        guarded.flush()
        assert guarded.error is not None


def test_a_stream_is_looked_up_at_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    guarded, now = StandardStream("stdout"), io.StringIO()
    monkeypatch.setattr(sys, "stdout", now)
    guarded.write("abc")
    assert (now.getvalue(), guarded.error) == ("abc", None)
