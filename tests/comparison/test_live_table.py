"""The table is drawn on consoles that record, at times that a test sets."""

import io
import logging
from collections.abc import Callable

import pytest
from rich.console import Console

from fullbake.comparison.live_table import LiveRow, LiveTable, show_live_table


def draw(table: LiveTable) -> str:
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(table)
    return console.export_text()


def table_of(*names: str, clock: Callable[[], float] = lambda: 1000.0) -> LiveTable:
    return LiveTable("macro F1", {name: LiveRow(name, total=3) for name in names}, clock)


def test_table_fills_as_trials_finish() -> None:
    table = table_of("finetune", "frozen-[mlp]")
    assert "0 of 3" in draw(table)
    table.rows["finetune"].best = 0.61234
    table.rows["finetune"].note = "rate 5e-05"
    table.rows["finetune"].done = 1
    text = draw(table)
    assert "macro F1" in text
    assert "1 of 3" in text
    assert "0.6123" in text
    assert "rate 5e-05" in text
    assert "frozen-[mlp]" in text, "a name is not markup"


def test_time_left_counts_down_and_never_jumps_up() -> None:
    """A trial that takes longer than expected uses up nothing of the time of the others."""
    now = [1000.0]
    table = table_of("finetune", clock=lambda: now[0])
    assert "left" not in draw(table)
    table.begin("first sweep: finetune/0", 60, 30)
    assert "about 1 min 30 s left" in draw(table)
    now[0] += 50
    assert "50 s so far  about 40 s left" in draw(table)
    now[0] += 50
    assert "about 30 s left" in draw(table)
    table.begin("seed 2: finetune/1", 30, 0)
    assert "about 30 s left" in draw(table)
    now[0] += 30
    assert "left" not in draw(table)


def test_without_a_terminal_each_finished_trial_is_a_line(caplog: pytest.LogCaptureFixture) -> None:
    rows, clock = [LiveRow("tfidf", 1)], lambda: 1000.0
    with caplog.at_level(logging.INFO, "fullbake"), show_live_table("accuracy", rows, clock=clock) as table:
        table.begin("first sweep: tfidf/0", 4, 1)
        table.finish("tfidf/0  accuracy 0.5")
    assert caplog.messages == ["tfidf/0  accuracy 0.5  about 5.0 s left"]


def test_on_a_terminal_the_table_is_live_and_removed_at_the_end() -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=100, legacy_windows=False)
    with show_live_table("accuracy", [LiveRow("tfidf", 1)], console=console) as table:
        table.rows["tfidf"].done = 1
        table.finish("never printed")
    text = file.getvalue()
    assert "tfidf" in text
    assert "1 of 1" in text
    assert "never printed" not in text
    assert "\x1b[1A\x1b[2K" in text, "the lines are erased"
