"""What a person sees while long work runs: progress bars, lines, and figures in words.

Bars are drawn on stderr if it is a terminal, and below the cell in a notebook; elsewhere a line says every 30 seconds
how far the work is. Lines go to the logger `fullbake`, which the command line shows and a library user may redirect or
silence; a notebook prints them unless its author decided otherwise. No other module draws or prints while work runs.
"""

import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TextIO, cast

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from fullbake.core.errors import RecipeError
from fullbake.core.escaping import escape_hidden
from fullbake.core.heartbeat import heartbeat, note_line
from fullbake.core.markup import Html, tag
from fullbake.core.notebook import in_notebook, live
from fullbake.core.screen import PlainConsole, StandardStream

console = PlainConsole(file=cast("TextIO", StandardStream("stderr")))
log = logging.getLogger("fullbake")


def is_notebook_console(screen: Console) -> bool:
    """Return True if what is drawn on this console is shown in a notebook: it is stderr, and a notebook runs."""
    return screen is console and in_notebook()


class _Rate(ProgressColumn):
    """The column that shows the units done per second."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f} {self.unit}/s", style="progress.data.speed")


@contextmanager
def bar(
    description: str, total: int | None, unit: str, screen: Console | None = None
) -> Iterator[Callable[[int], None]]:
    """Draw a progress bar for one piece of work while the block runs; without a terminal, say a line every 30 seconds.

    Args:
        description: what the bar is labeled with.
        total: units of the whole work, None if unknown.
        unit: what a unit is called, such as `rows`.
        screen: where the bar is drawn, stderr by default.

    Yields:
        A function to call with the number of units done since its last call.
    """
    screen = console if screen is None else screen
    columns = (
        SpinnerColumn("dots" if screen.encoding.startswith("utf") else "line"),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(unit),
        TimeRemainingColumn(),
    )
    if is_notebook_console(screen) and not _silenced[0]:
        shown = _Counter(description, total, unit)
        with live(shown.draw) as refresh:
            shown.on_advance = refresh
            yield shown.advance
        return
    hidden = _silenced[0] or not screen.is_terminal
    with Progress(*columns, console=screen, transient=True, disable=hidden) as progress:
        task = progress.add_task(escape_hidden(description), total=total)
        if screen.is_terminal:
            yield lambda done: progress.update(task, advance=done)
            return
        counter = _Counter(description, total, unit)
        with heartbeat(counter.describe, _say_aloud):
            yield counter.advance


@contextmanager
def activity(description: str) -> Iterator[None]:
    """Where no terminal shows bars, say every 30 seconds that this work is still running.

    Args:
        description: What is done.
    """
    if console.is_terminal or in_notebook():
        yield
        return
    started = time.monotonic()
    with heartbeat(lambda: f"{description}, {format_duration(time.monotonic() - started)} so far", _say_aloud):
        yield


class _Counter:
    """Counts the units of one piece of work that are done, and says how many in words."""

    def __init__(self, description: str, total: int | None, unit: str) -> None:
        self.description, self.total, self.unit = description, total, unit
        self.done, self.started = 0, time.monotonic()
        self.on_advance: Callable[[], None] = lambda: None

    def advance(self, done: int) -> None:
        self.done += done
        self.on_advance()

    def draw(self) -> Html:
        """Return a bar and what is beside it, for a notebook."""
        style = "width:14em;vertical-align:middle;margin-right:.8em"
        bar_of_page = tag("progress", max=self.total or None, value=self.done if self.total else None, style=style)
        return tag("div", bar_of_page, escape_hidden(self.describe()))

    def describe(self) -> str:
        if not self.total:
            return f"{self.description}, {self.done:,} {self.unit}"
        seconds = time.monotonic() - self.started
        left = seconds * (self.total - self.done) / self.done if self.done else None
        time_left = "" if left is None else f", about {format_duration(left)} left"
        return f"{self.description}, {self.done:,} of {self.total:,} {self.unit}{time_left}"


def _say_aloud(line: str) -> None:
    say(line, aloud=True)


_silenced = [False]
"""True, as the only item, within a block of `silenced`."""


@contextmanager
def silenced() -> Iterator[None]:
    """Within the block, draw no bars and log no lines except warnings and those said with `aloud=True`."""
    before, _silenced[0] = _silenced[0], True
    try:
        yield
    finally:
        _silenced[0] = before


def say(line: str, *, aloud: bool = False) -> None:
    """Log one line of news about the run.

    Args:
        line: the text.
        aloud: log it also within a block of `silenced`.
    """
    if aloud or not _silenced[0]:
        note_line()
        log.info(line)
        if in_notebook() and not _is_log_configured():
            print(escape_hidden(line))


def _is_log_configured() -> bool:
    """Return True if the caller decided which lines are shown: by a level, a handler, or by disabling them.

    A notebook shows what its author did not decide about; elsewhere Python shows warnings alone.
    """
    decided = log.level != logging.NOTSET or log.handlers or log.disabled or log.manager.disable >= logging.INFO
    return bool(decided) or log.isEnabledFor(logging.INFO)


def warn(line: str) -> None:
    """Log one line that the user should not miss."""
    note_line()
    log.warning(line)


UNKNOWN = "–"
"""The text for a number that is not known."""


def format_size(size: float | None) -> str:
    """Return a number of bytes in words: `999 bytes`, `1.0 KB`, `2.5 GB`.

    The units are powers of 1,000, as disks are sold.
    """
    if size is None:
        return UNKNOWN
    value, units = float(int(size)), ["bytes", "KB", "MB", "GB", "TB"]
    while value >= 999.95 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:.0f} bytes" if units[0] == "bytes" else f"{value:,.1f} {units[0]}"


def format_score(value: float | None) -> str:
    """Return a score with three decimals, or a dash if it is unknown."""
    return UNKNOWN if value is None else f"{value:.3f}"


def format_interval(low: float | None, high: float | None) -> str:
    """Return an interval such as `0.561 to 0.681`, or an empty string if it is unknown."""
    return "" if low is None or high is None else f"{low:.3f} to {high:.3f}"


def format_duration(seconds: float | None) -> str:
    """Return a duration in at most two units: `0.8 s`, `12 s`, `6 min 52 s`, `1 h 10 min`."""
    if seconds is None:
        return UNKNOWN
    if seconds < 9.95:
        return "under 0.1 s" if seconds < 0.1 else f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole % 60 else f"{whole // 60} min"
    return f"{whole // 3600:,} h {whole % 3600 // 60} min"


_UNITS = {"h": ("h", "hr", "hrs", "hour", "hours"), "m": ("m", "min", "mins", "minute", "minutes")}
_UNITS |= {"s": ("s", "sec", "secs", "second", "seconds")}
_UNIT_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0}
_DURATION = re.compile(
    r"\s*".join(rf"(?:(?P<{unit}>\d+(?:\.\d+)?)\s*(?:{'|'.join(words)}))?" for unit, words in _UNITS.items())
)


def parse_duration(text: str, where: str) -> float:
    """Return the seconds in a duration as users type it: `90s`, `10m`, `3 min`, `1.5h`, `1h30m`.

    Args:
        text: numbers with units, the largest unit first.
        where: the flag, for the error.

    Raises:
        RecipeError: it is not a duration above 0.
    """
    text = text.strip().lower()
    found = _DURATION.fullmatch(text)
    parts = {} if found is None else found.groupdict(default="0")
    seconds = sum(float(number) * _UNIT_SECONDS[unit] for unit, number in parts.items())
    if seconds:
        return seconds
    raise RecipeError(
        "this is a number without a unit" if re.fullmatch(r"\d+(\.\d+)?", text) else "this is not a duration",
        where=where,
        expected="a duration above 0, such as 90s, 10m, 1.5h or 1h30m",
        got=repr(text),
        remedy=_ask_for_unit(text),
    )


def _ask_for_unit(text: str) -> str | None:
    """Return the question which unit is meant, for a number without one."""
    if not re.fullmatch(r"\d+(\.\d+)?", text) or not float(text):
        return None
    return f"Are seconds, minutes or hours meant? Write {text}s, {text}m or {text}h."


def format_difference(value: float | None) -> str:
    """Return a difference with three decimals, and with its sign unless it rounds to 0."""
    if value is None:
        return UNKNOWN
    return f"{value:+.3f}".replace("-", "−") if abs(value) >= 0.0005 else "0.000"


def format_p_value(p: float | None) -> str:
    """Return a p-value with three decimals; smaller ones are `under 0.001`."""
    if p is None:
        return UNKNOWN
    return "under 0.001" if p < 0.001 else f"{p:.3f}"


def format_count(number: float | None) -> str:
    """Return a number without decimals and with separators of thousands, such as `22,713,216`."""
    return UNKNOWN if number is None else f"{number:,.0f}"


def format_estimate(number: int) -> str:
    """Return an estimate, rounded up to two significant digits, such as `46,000`."""
    unit = 10 ** max(len(str(number)) - 2, 0)
    return f"{-(-number // unit) * unit:,}"


def format_time(iso: str) -> str:
    """Return a date and time, given in ISO 8601, to the minute."""
    return f"{datetime.fromisoformat(iso):%Y-%m-%d %H:%M %Z}".strip()


def format_rate(learning_rate: float) -> str:
    """Return a learning rate in its short form, such as `5e-5`."""
    return f"{learning_rate:.1e}".replace(".0e", "e").replace("e-0", "e-").replace("e+00", "")
