"""What the terminal shows while a comparison runs: a table that fills as trials finish, and the time left.

On a terminal the table is drawn live on stderr, in a notebook below the cell; elsewhere each finished trial is one
line, and so is every half minute without one. Messages of the trainings themselves are held back, because those of
dozens of trials would bury the table. Test scores are not shown before the verdict.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from rich.console import Console, Group, RenderableType
from rich.live import Live

from fullbake.core.console import console as stderr
from fullbake.core.console import format_duration, is_notebook_console, say, silenced
from fullbake.core.heartbeat import heartbeat
from fullbake.core.notebook import draw_as_html, live
from fullbake.core.screen import Line, PlainTable


@dataclass
class LiveRow:
    """A candidate in the table."""

    name: str
    total: int
    """Trials that were asked for."""
    done: int = 0
    """Trials that the verdict is about."""
    best: float | None = None
    """Their mean validation metric."""
    note: str = ""
    """The chosen rate, or what went wrong."""


@dataclass
class LiveTable:
    """The table and the line below it."""

    metric: str
    """Name of the metric in the table's header."""
    rows: dict[str, LiveRow]
    """By candidate."""
    clock: Callable[[], float] = time.monotonic
    """Seconds from any fixed moment."""
    console: Console = stderr
    """Where the table is drawn."""
    task: str = ""
    """What is being done now."""
    expected: float = 0.0
    """Expected seconds of what is being done now."""
    rest: float = 0.0
    """Expected seconds of everything after it."""
    refresh: Callable[[], None] = lambda: None
    """Draws the table anew, where nothing else does."""
    started: float = field(init=False)
    """When the table was made, on `clock`."""
    begun_at: float = field(init=False)
    """When what is being done now began, on `clock`."""

    def __post_init__(self) -> None:
        """Start the clock."""
        self.started = self.begun_at = self.clock()

    def begin(self, task: str, expected: float, rest: float) -> None:
        """Show what is being done now, and count down the time left.

        Args:
            task: What is being done.
            expected: Seconds that it is expected to take.
            rest: Expected seconds of everything after it. Work that takes longer than expected uses up none of them, so
                that the time left never jumps up when it ends.
        """
        self.task, self.expected, self.rest, self.begun_at = task, expected, rest, self.clock()
        self.refresh()

    def finish(self, line: str) -> None:
        """Without a terminal, print the line of a finished trial."""
        self.refresh()
        # A table cannot be redrawn in a log file.
        if not self.console.is_terminal and not is_notebook_console(self.console):
            say(f"{line}{self._words_for_time_left()}", aloud=True)

    def describe(self) -> str:
        """Return how far the comparison is, in one line."""
        done, total = sum(row.done for row in self.rows.values()), sum(row.total for row in self.rows.values())
        return f"{done} of {total} trials are done, now {self.task}{self._words_for_time_left()}"

    @property
    def seconds_left(self) -> float:
        """Return the expected seconds until the end."""
        return self.rest + max(self.expected - (self.clock() - self.begun_at), 0.0)

    def _words_for_time_left(self) -> str:
        left = self.seconds_left
        return f"  about {format_duration(left)} left" if left >= 1 else ""

    def __rich__(self) -> RenderableType:
        """Draw the table as it is now."""
        table = PlainTable()
        table.add_column("recipe", overflow="fold")
        for name in ("trials", f"validation {self.metric}"):
            table.add_column(name, justify="right")
        table.add_column("", overflow="fold")
        for row in self.rows.values():
            best = "" if row.best is None else f"{row.best:.4f}"
            table.add_row(row.name, f"{row.done} of {row.total}", best, row.note)
        elapsed = format_duration(self.clock() - self.started)
        return Group(table, Line(f"{self.task}  {elapsed} so far{self._words_for_time_left()}"))


@contextmanager
def show_live_table(
    metric: str,
    rows: Sequence[LiveRow],
    *,
    clock: Callable[[], float] = time.monotonic,
    console: Console = stderr,
) -> Iterator[LiveTable]:
    """Show the table while the block runs, and hold back other messages.

    Args:
        metric: Name of the metric in the header.
        rows: A row for each candidate.
        clock: Seconds from any fixed moment.
        console: Where to draw.

    Yields:
        The table, to be updated.
    """
    table = LiveTable(metric, {row.name: row for row in rows}, clock, console)
    with silenced():
        if is_notebook_console(console):
            with live(lambda: draw_as_html(table), every=2.0) as table.refresh:
                yield table
            return
        if not console.is_terminal:
            with heartbeat(table.describe, partial(say, aloud=True)):
                yield table
            return
        with Live(table, console=console, refresh_per_second=2, transient=True):
            yield table
