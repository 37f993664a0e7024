"""The terminal while a comparison runs: a table that fills in as cells finish, with the time that is left.

Drawn on stderr where that is a terminal; elsewhere each finished cell is a line. What the trainings themselves say is
held back meanwhile: with dozens of cells it would bury the table. Test scores are not shown before the verdict.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from fullbake.core.console import console, format_duration, say, silenced


@dataclass
class LiveRow:
    """A recipe on the board. total, done: cells. best: mean metric on validation of the rate in the lead. note: chosen
    rate, or what went wrong."""

    name: str
    total: int
    done: int = 0
    best: float | None = None
    note: str = ""


@dataclass
class LiveTable:
    """What is shown. metric: what to call it. left: seconds that the rest is expected to take, None where unknown."""

    metric: str
    rows: dict[str, LiveRow]
    left: float | None = None
    working: str = ""
    since: float = field(default_factory=time.monotonic)
    told: float = field(default_factory=time.monotonic)

    def begin(self, working: str, left: float | None) -> None:
        """What is being done now, and how long all of the rest may take."""
        self.working, self.left, self.told = working, left, time.monotonic()

    def finish(self, name: str, line: str) -> None:
        """A cell is done."""
        self.rows[name].done += 1
        if not console.is_terminal:
            say(f"{line}{self._time_left()}", aloud=True)

    def _time_left(self) -> str:
        if self.left is None:
            return ""
        rest = max(self.left - (time.monotonic() - self.told), 0.0)
        return f"  about {format_duration(rest)} left" if rest >= 1 else ""

    def __rich__(self) -> RenderableType:
        """The table as it now is."""
        table = Table()
        table.add_column("recipe", overflow="fold")
        for name in ("cells", f"validation {self.metric}"):
            table.add_column(name, justify="right")
        table.add_column("", overflow="fold")
        for row in self.rows.values():
            best = "" if row.best is None else f"{row.best:.4f}"
            table.add_row(Text(row.name), f"{row.done} of {row.total}", best, Text(row.note))
        spent = format_duration(time.monotonic() - self.since)
        return Group(table, Text(f"{self.working}  {spent} so far{self._time_left()}"))


@contextmanager
def show_live_table(metric: str, rows: Sequence[LiveRow]) -> Iterator[LiveTable]:
    """The board, live while the block runs."""
    board = LiveTable(metric, {row.name: row for row in rows})
    with silenced():
        if not console.is_terminal:
            yield board
            return
        with Live(board, console=console, refresh_per_second=2, transient=True):
            yield board
