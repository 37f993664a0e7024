"""What the terminal shows while a comparison runs: a table that fills as trials finish, and the time left.

On a terminal the table is drawn live on stderr; elsewhere each finished trial is one line. Messages of the trainings
themselves are held back, because those of dozens of trials would bury the table. Test scores are not shown before the
verdict.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from fullbake.core.console import console as stderr
from fullbake.core.console import format_duration, say, silenced


@dataclass
class LiveRow:
    """A candidate in the table."""

    name: str
    total: int
    """Trials in all."""
    done: int = 0
    """Trials that are finished."""
    best: float | None = None
    """Mean validation metric of the leading rate."""
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
    seconds_left: float | None = None
    """Expected seconds until the end, as estimated at `estimated_at`; None if unknown."""
    started: float = field(init=False)
    """When the table was made, on `clock`."""
    estimated_at: float = field(init=False)
    """When `seconds_left` was set, on `clock`."""

    def __post_init__(self) -> None:
        """Start the clock."""
        self.started = self.estimated_at = self.clock()

    def begin(self, task: str, seconds_left: float | None) -> None:
        """Show what is being done now and how many seconds everything that is left may take."""
        self.task, self.seconds_left, self.estimated_at = task, seconds_left, self.clock()

    def finish(self, name: str, line: str) -> None:
        """Count a finished trial of candidate `name`; without a terminal, print `line`."""
        self.rows[name].done += 1
        if not self.console.is_terminal:  # a table cannot be redrawn in a log file
            say(f"{line}{self._time_left()}", aloud=True)

    def _time_left(self) -> str:
        if self.seconds_left is None:
            return ""
        left = max(self.seconds_left - (self.clock() - self.estimated_at), 0.0)
        return f"  about {format_duration(left)} left" if left >= 1 else ""

    def __rich__(self) -> RenderableType:
        """Draw the table as it is now."""
        table = Table()
        table.add_column("recipe", overflow="fold")
        for name in ("trials", f"validation {self.metric}"):
            table.add_column(name, justify="right")
        table.add_column("", overflow="fold")
        # Text, not str: rich would read brackets in a recipe's name as markup.
        for row in self.rows.values():
            best = "" if row.best is None else f"{row.best:.4f}"
            table.add_row(Text(row.name), f"{row.done} of {row.total}", best, Text(row.note))
        elapsed = format_duration(self.clock() - self.started)
        return Group(table, Text(f"{self.task}  {elapsed} so far{self._time_left()}"))


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
        if not console.is_terminal:
            yield table
            return
        with Live(table, console=console, refresh_per_second=2, transient=True):
            yield table
