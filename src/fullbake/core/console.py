"""What a person sees while long work runs: bars with rate and time left, and lines.

Bars are drawn on stderr and only when it is a terminal; lines go to the logger `fullbake`, which the command line shows
and a library user may route or leave. Nothing else in the house draws or prints during work.

Numbers in words: scores, intervals, p-values, times, sizes. What is unknown is a dash.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime

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

console = Console(stderr=True)
log = logging.getLogger("fullbake")


class _Rate(ProgressColumn):
    """Units done a second."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f} {self.unit}/s", style="progress.data.speed")


@contextmanager
def bar(description: str, total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
    """A bar for one piece of work.

    total: units in all, None if unknown. Yields a function that takes the number of units done since its last call.
    """
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(unit),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns, console=console, transient=True, disable=_silenced[0] or not console.is_terminal
    ) as progress:
        task = progress.add_task(description, total=total)
        yield lambda done: progress.update(task, advance=done)


_silenced = [False]


@contextmanager
def silenced() -> Iterator[None]:
    """Within the block only this module's caller speaks: `bar` draws nothing, and `say` is heard through `aloud`
    alone; warnings are heard as ever."""
    before, _silenced[0] = _silenced[0], True
    try:
        yield
    finally:
        _silenced[0] = before


def say(line: str, *, aloud: bool = False) -> None:
    """One line of news about the run. aloud: also while others are hushed."""
    if aloud or not _silenced[0]:
        log.info(line)


def warn(line: str) -> None:
    """One line that the user should not miss."""
    log.warning(line)


UNKNOWN = "–"
"""What stands in place of a figure that is not known."""


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
    """Three digits, or a dash."""
    return UNKNOWN if value is None else f"{value:.3f}"


def format_interval(low: float | None, high: float | None) -> str:
    """An interval in words, or nothing."""
    return "" if low is None or high is None else f"{low:.3f} to {high:.3f}"


def format_duration(seconds: float | None) -> str:
    """Two units at most: 0.8 s, 9 s, 6 min 52 s, 1 h 10 min."""
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


def format_difference(value: float | None) -> str:
    """A difference: three digits, and its sign unless it rounds to nothing."""
    if value is None:
        return UNKNOWN
    return f"{value:+.3f}".replace("-", "−") if abs(value) >= 0.0005 else "0.000"


def format_p_value(p: float | None) -> str:
    """A p-value; nobody reads one below a thousandth."""
    if p is None:
        return UNKNOWN
    return "under 0.001" if p < 0.001 else f"{p:.3f}"


def format_count(number: float | None) -> str:
    """With thousands apart, without fractions."""
    return UNKNOWN if number is None else f"{number:,.0f}"


def format_estimate(number: int) -> str:
    """Up to two digits and zeros, for estimates that carry no more."""
    unit = 10 ** max(len(str(number)) - 2, 0)
    return f"{-(-number // unit) * unit:,}"


def format_time(iso: str) -> str:
    """A date and time in ISO 8601, to the minute."""
    return f"{datetime.fromisoformat(iso):%Y-%m-%d %H:%M %Z}".strip()


def format_rate(learning_rate: float) -> str:
    """The short form people write: 5e-5."""
    return f"{learning_rate:.1e}".replace(".0e", "e").replace("e-0", "e-").replace("e+00", "")
