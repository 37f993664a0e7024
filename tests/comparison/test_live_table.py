import io
import logging

import pytest
from rich.console import Console

from fullbake.comparison import live_table
from fullbake.comparison.live_table import LiveRow, LiveTable, show_live_table


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that the board goes by, to be moved."""
    now = [1000.0]
    monkeypatch.setattr(live_table.time, "monotonic", lambda: now[0])
    return now


def drawn(board: LiveTable) -> str:
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(board)
    return console.export_text()


def board_of(*names: str) -> LiveTable:
    return LiveTable("macro F1", {name: LiveRow(name, total=3) for name in names}, since=1000.0, told=1000.0)


@pytest.mark.usefixtures("clock")
def test_the_table_fills_in() -> None:
    board = board_of("finetune", "frozen-[mlp]")
    assert "0 of 3" in drawn(board)
    board.rows["finetune"].best = 0.61234
    board.rows["finetune"].note = "rate 5e-05"
    board.finish("finetune", "")
    text = drawn(board)
    assert "macro F1" in text
    assert "1 of 3" in text
    assert "0.6123" in text
    assert "rate 5e-05" in text
    assert "frozen-[mlp]" in text, "a name is no markup"


def test_the_time_left_counts_down_and_never_below_nothing(clock: list[float]) -> None:
    board = board_of("finetune")
    assert "left" not in drawn(board)
    board.begin("training finetune/5e-05/0", 90)
    assert "about 1 min 30 s left" in drawn(board)
    clock[0] += 60
    assert "1 min so far  about 30 s left" in drawn(board)
    clock[0] += 60
    assert "left" not in drawn(board)


def test_without_a_terminal_each_cell_is_a_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "fullbake"), show_live_table("accuracy", [LiveRow("tfidf", 1)]) as board:
        board.begin("training", 5)
        board.finish("tfidf", "tfidf/only/0  accuracy 0.5")
    assert caplog.messages == ["tfidf/only/0  accuracy 0.5  about 5.0 s left"]


def test_in_a_terminal_the_table_is_live_and_gone_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=100, legacy_windows=False)
    monkeypatch.setattr(live_table, "console", console)
    with show_live_table("accuracy", [LiveRow("tfidf", 1)]) as board:
        board.finish("tfidf", "never printed")
    text = file.getvalue()
    assert "tfidf" in text
    assert "1 of 1" in text
    assert "never printed" not in text
    assert "\x1b[1A\x1b[2K" in text, "the lines are taken back"
