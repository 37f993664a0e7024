"""What a person sees while long work runs: bars with rate and time left, and lines.

Bars are drawn on stderr and only when it is a terminal; lines go to the logger `fullbake`, which the command line shows
and a library user may route or leave. Nothing else in the house draws or prints during work.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

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
    with Progress(*columns, console=console, transient=True, disable=_quiet[0] or not console.is_terminal) as progress:
        task = progress.add_task(description, total=total)
        yield lambda done: progress.update(task, advance=done)


_quiet = [False]


@contextmanager
def hush() -> Iterator[None]:
    """Within the block only this module's caller speaks: `bar` draws nothing, and `say` is heard through `aloud`
    alone; warnings are heard as ever."""
    before, _quiet[0] = _quiet[0], True
    try:
        yield
    finally:
        _quiet[0] = before


def say(line: str, *, aloud: bool = False) -> None:
    """One line of news about the run. aloud: also while others are hushed."""
    if aloud or not _quiet[0]:
        log.info(line)


def warn(line: str) -> None:
    """One line that the user should not miss."""
    log.warning(line)
