"""Progress and lines in a notebook: shown below the cell, redrawn in place, and silenced by the logger."""

import logging
import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from fullbake.comparison.live_table import LiveRow, show_live_table
from fullbake.core import notebook
from fullbake.core.console import bar, say, silenced
from fullbake.core.markup import tag
from fullbake.core.notebook import draw_as_html, in_notebook, live
from fullbake.core.screen import Line, PlainTable


class Shown(list[tuple[str, str, bool]]):
    """What was displayed: (content, display id, whether it replaced what was there)."""

    shell = SimpleNamespace(kernel=object(), execution_count=1)


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Iterator[Shown]:
    """A notebook that notes what is displayed, without delays."""
    found = Shown()
    found.shell.execution_count = 1
    ipython: Any = ModuleType("IPython")
    ipython.get_ipython = lambda: found.shell
    display: Any = ModuleType("IPython.display")
    display.HTML = str
    display.display = lambda content, *, display_id, update: found.append((content, display_id, update))
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    monkeypatch.setattr(notebook, "DELAY", 0)
    monkeypatch.setattr(notebook, "PAUSE", 0)
    monkeypatch.setattr(notebook, "_place", notebook._Place())
    return found


def test_a_terminal_with_ipython_is_no_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not in_notebook()
    ipython: Any = ModuleType("IPython")
    ipython.get_ipython = lambda: SimpleNamespace()
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    assert not in_notebook()
    ipython.get_ipython = lambda: None
    assert not in_notebook()


def test_a_bar_is_drawn_in_one_place_and_removed(shown: Shown) -> None:
    with bar("reading <b>", 4, "rows") as advance:
        advance(1)
        advance(3)
    contents, places, updates = zip(*shown, strict=True)
    assert len(set(places)) == 1
    assert updates == (False, True, True)
    assert '<progress max="4" value="1"' in contents[0]
    assert "reading &lt;b&gt;, 1 of 4 rows" in contents[0]
    assert contents[-1] == ""


def test_bars_within_each_other_are_shown_together(shown: Shown) -> None:
    with bar("outer", 2, "rows"), bar("inner", None, "texts") as advance:
        advance(5)
    assert shown[0][0].index("outer, 0 of 2 rows") < shown[0][0].index("inner, 5 texts")
    assert "<progress style" in shown[0][0], "a total that is unknown has no value"


def test_another_cell_has_another_place(shown: Shown) -> None:
    for number in (1, 2):
        shown.shell.execution_count = number
        with bar("reading", 2, "rows") as advance:
            advance(2)
    assert len({place for _, place, _ in shown}) == 2


def test_short_work_and_silenced_work_leave_no_trace(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    with silenced(), bar("reading", 2, "rows") as advance:
        advance(2)
    monkeypatch.setattr(notebook, "DELAY", 60)
    with bar("reading", 2, "rows") as advance:
        advance(2)
    assert shown == []


def test_drawing_follows_work_that_asks_for_nothing(shown: Shown) -> None:
    with live(lambda: tag("p", "working"), every=0.01):
        while len(shown) < 3:
            pass
    assert shown[1] == ("<p>working</p>", shown[0][1], True)


def test_the_table_of_a_comparison_is_live(shown: Shown, capsys: pytest.CaptureFixture[str]) -> None:
    with show_live_table("accuracy", [LiveRow("<tfidf>", 1)]) as table:
        table.begin("first sweep: tfidf/0", 4, 1)
        table.finish("never printed")
    assert "&lt;tfidf&gt;" in shown[0][0]
    assert "first sweep" in shown[0][0]
    assert shown[-1][0] == ""
    assert capsys.readouterr().out == ""


def test_lines_are_printed_until_the_author_decides(
    shown: Shown, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    log = logging.getLogger("fullbake")
    monkeypatch.setattr(log, "handlers", [])
    monkeypatch.setattr(log, "disabled", False)
    before = log.level
    try:
        logging.getLogger().setLevel(logging.WARNING)
        logging.disable(logging.NOTSET)
        log.setLevel(logging.NOTSET)
        say("one \x1b line")
        assert capsys.readouterr().out == "one \\x1b line\n"
        log.setLevel(logging.WARNING)
        say("silenced")
        log.setLevel(logging.NOTSET)
        logging.disable(logging.INFO)
        say("silenced")
        logging.disable(logging.NOTSET)
        with silenced():
            say("silenced")
        assert capsys.readouterr().out == ""
    finally:
        logging.disable(logging.NOTSET)
        log.setLevel(before)


def test_lines_of_a_logger_that_is_set_up_are_not_printed_twice(
    shown: Shown, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "fullbake"):
        say("a line")
    assert caplog.messages == ["a line"]
    assert capsys.readouterr().out == ""


def test_what_rich_draws_becomes_html() -> None:
    table = PlainTable()
    table.add_column("<recipe>")
    table.add_row(("[b]\u202e", "bold"))
    page = draw_as_html(table)
    assert page.startswith("<pre style=")
    assert "&lt;recipe&gt;" in page
    assert "[b]\\u202e" in page
    assert "<b>" not in draw_as_html(Line("<b>"))
