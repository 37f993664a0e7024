import logging

import pytest
from rich.console import Console

from fullbake.core import console
from fullbake.core import console as console_module
from fullbake.core.console import bar


def test_lines_go_to_the_logger(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "fullbake"):
        console.say("epoch 1")
        console.warn("look here")
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("INFO", "epoch 1"),
        ("WARNING", "look here"),
    ]


def test_bar_is_silent_where_there_is_no_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    with console.bar("work", 2, "rows") as advance:
        advance(1)
        advance(1)
    assert capfd.readouterr() == ("", "")


def test_bar_shows_rate_and_time_left_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(force_terminal=True, width=120, record=True)
    monkeypatch.setattr(console_module, "console", console)
    with bar("features", 100, "texts") as advance:
        for _ in range(3):
            advance(25)
    shown = console.export_text()
    assert "features" in shown
    assert "texts/s" in shown
    assert "75/100" in shown
