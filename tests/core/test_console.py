"""Lines and bars for a person to watch, and figures as people write them."""

import logging
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from fullbake.core import console
from fullbake.core.errors import RecipeError
from fullbake.core.heartbeat import heartbeat


def test_lines_go_to_the_logger(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "fullbake"):
        console.say("epoch 1")
        console.warn("look here")
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("INFO", "epoch 1"),
        ("WARNING", "look here"),
    ]


def test_bar_is_silent_without_a_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    with console.bar("work", 2, "rows") as advance:
        advance(1)
        advance(1)
    assert capfd.readouterr() == ("", "")


def test_bar_and_activity_describe_themselves_to_the_heartbeat(caplog: pytest.LogCaptureFixture) -> None:
    said = threading.Event()
    lines: list[str] = []

    def hear(line: str) -> None:
        lines.append(line)
        said.set()

    with (
        heartbeat(lambda: "outer", hear, interval=0.01),
        console.activity("train"),
        console.bar("reading", None, "rows") as read,
        console.bar("epoch 1", 100, "rows") as advance,
    ):
        read(2_000)
        advance(50)
        said.clear()
        assert said.wait(60)
    assert "still working: outer; train, " in lines[-1]
    assert "; reading, 2,000 rows; epoch 1, 50 of 100 rows, about " in lines[-1]
    assert not caplog.records


def test_bar_shows_rate_and_count_on_a_terminal() -> None:
    screen = Console(force_terminal=True, width=120, record=True)
    with console.bar("features", 100, "texts", screen) as advance:
        for _ in range(3):
            advance(25)
    shown = screen.export_text()
    assert "features" in shown
    assert "texts/s" in shown
    assert "75/100" in shown


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, "–"),
        (0.002, "under 0.1 s"),
        (0.8, "0.8 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.6, "1 min"),
        (412, "6 min 52 s"),
        (3599.7, "1 h 0 min"),
        (4200, "1 h 10 min"),
        (400_000, "111 h 6 min"),
    ],
)
def test_durations(seconds: float | None, words: str) -> None:
    assert console.format_duration(seconds) == words


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        (" 10m ", 600),
        ("1.5h", 5400),
        ("3min", 180),
        ("3 min", 180),
        ("3 Minutes", 180),
        ("1h30m", 5400),
        ("1 h 30 min", 5400),
        ("2 hours 5 secs", 7205),
        ("1hr", 3600),
        ("0m30s", 30),
    ],
)
def test_duration_is_parsed_into_seconds(text: str, seconds: float) -> None:
    assert console.parse_duration(text, "--budget") == seconds


@given(st.integers(10, 10**6))
def test_a_duration_in_words_is_read_again(seconds: int) -> None:
    """Words leave out seconds from an hour on."""
    read = console.parse_duration(console.format_duration(seconds).replace(",", ""), "--budget")
    assert read == (seconds if seconds < 3600 else seconds // 60 * 60)


@pytest.mark.parametrize(
    "text", ["", "0m", "0h0m", "-3m", "ten minutes", "1d", "3m3m", "30m1h", "1h30", "1,5h", "nan", "1e3s", "m", "5 m x"]
)
def test_duration_without_a_number_above_0_and_a_known_unit_is_refused(text: str) -> None:
    with pytest.raises(RecipeError, match=r"--budget: this is not a duration.\nExpected.*90s") as caught:
        console.parse_duration(text, "--budget")
    assert caught.value.remedy is None


@pytest.mark.parametrize("text", ["90", "1.5"])
def test_for_a_number_without_a_unit_the_unit_is_asked_for(text: str) -> None:
    with pytest.raises(RecipeError, match=rf"without a unit[\s\S]*Write {text}s, {text}m or {text}h"):
        console.parse_duration(text, "--budget")


def test_scores_and_intervals() -> None:
    assert console.format_score(0.70449) == "0.704"
    assert console.format_score(None) == console.UNKNOWN
    assert console.format_interval(0.5, 0.75) == "0.500 to 0.750"
    assert console.format_interval(None, 0.75) == ""


def test_differences_have_a_sign_unless_they_round_to_zero() -> None:
    assert [console.format_difference(value) for value in (0.02, -0.02, -0.0004, None)] == [
        "+0.020",
        "−0.020",
        "0.000",
        "–",
    ]


def test_p_values() -> None:
    assert [console.format_p_value(value) for value in (0.0009, 0.001, 1.0, None)] == [
        "under 0.001",
        "0.001",
        "1.000",
        "–",
    ]


def test_counts_sizes_and_estimates() -> None:
    assert [console.format_count(value) for value in (22_713_216, 211.6, None)] == ["22,713,216", "212", "–"]
    assert [console.format_size(value) for value in (91_000_000, None)] == ["91.0 MB", "–"]
    assert [console.format_estimate(value) for value in (45_166, 90_000, 7)] == ["46,000", "90,000", "7"]


def test_times_and_rates() -> None:
    assert console.format_time("2026-11-24T18:02:11+00:00") == "2026-11-24 18:02 UTC"
    assert console.format_time("2026-11-24T18:02:11") == "2026-11-24 18:02"
    assert [console.format_rate(rate) for rate in (5e-5, 2.5e-4, 1e-2, 1.0)] == ["5e-5", "2.5e-4", "1e-2", "1"]
