"""What a notebook shows while work runs: one place below the cell, redrawn in place.

A notebook is a program whose IPython talks to a front end (Jupyter, VS Code, Colab); IPython in a terminal is none. The
place is a display of IPython's, so it needs no widgets. It appears only for work that takes a while, holds all pieces
of work that run, and is empty when they are done. A caller's own output stays below it.
"""

import contextvars
import io
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Final, cast

from rich.console import Console, RenderableType

from fullbake.core.markup import Html, join

DELAY: Final = 0.7
"""Seconds that work takes before anything is shown, so that short calls leave no trace in a notebook."""

PAUSE: Final = 0.2
"""Seconds between two drawings."""

Render = Callable[[], Html]


def notebook_shell() -> Any:
    """Return IPython's shell if this program is a notebook's; else None. IPython is not imported for it."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else cast("Any", ipython).get_ipython()
    return shell if hasattr(shell, "kernel") else None


def in_notebook() -> bool:
    """Return True if this program is a notebook's."""
    return notebook_shell() is not None


class _Place:
    """The place below the cell that runs."""

    def __init__(self) -> None:
        self._pieces: dict[object, Render] = {}
        self._cell: tuple[int, str] | None = None
        self._drawn = 0.0
        self._lock = threading.RLock()

    def add(self, key: object, render: Render) -> None:
        with self._lock:
            self._pieces[key] = render

    def remove(self, key: object) -> None:
        with self._lock:
            del self._pieces[key]
            if self._cell is not None and not self._pieces:
                self._draw()

    def draw(self) -> None:
        """Draw all pieces, unless they were drawn just now."""
        with self._lock:
            if time.monotonic() - self._drawn >= PAUSE:
                self._draw()

    def _draw(self) -> None:
        shell = notebook_shell()
        if shell is None:
            return
        display = cast("Any", import_module("IPython.display"))
        number = int(shell.execution_count)
        known = self._cell is not None and self._cell[0] == number
        if not known and not self._pieces:
            return
        if not known or self._cell is None:
            self._cell = number, uuid.uuid4().hex
        content = display.HTML(join(*(render() for render in self._pieces.values())))
        display.display(content, display_id=self._cell[1], update=known)
        self._drawn = time.monotonic()


_place = _Place()


@contextmanager
def live(render: Render, *, every: float | None = None) -> Iterator[Callable[[], None]]:
    """Show a piece of work below the running cell of a notebook while the block runs.

    Args:
        render: Returns what is shown of it now.
        every: Draw it anew after so many seconds, in another thread; None draws it only when asked.

    Yields:
        A function that draws it anew. Calls that follow each other quickly draw once.
    """
    key, started = object(), time.monotonic()

    def refresh() -> None:
        if time.monotonic() - started >= DELAY:
            _place.draw()

    _place.add(key, render)
    stop = threading.Event()
    watcher = None
    if every is not None:
        context = contextvars.copy_context()  # it says which cell the output belongs to
        watcher = threading.Thread(target=context.run, args=(_keep_drawing, stop, every, refresh), daemon=True)
        watcher.start()
    try:
        yield refresh
    finally:
        stop.set()
        if watcher is not None:
            watcher.join()
        _place.remove(key)


def _keep_drawing(stop: threading.Event, every: float, refresh: Callable[[], None]) -> None:
    while not stop.wait(every):
        refresh()


def draw_as_html(renderable: RenderableType, width: int = 100) -> Html:
    """Return what rich draws on a terminal as HTML.

    Args:
        renderable: Made of plain tables and lines (`core.screen`).
        width: In characters.
    """
    screen = Console(record=True, file=io.StringIO(), width=width, force_jupyter=False, force_terminal=True)
    screen.print(renderable)
    style = "font-family:ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace;line-height:1.25;overflow-x:auto"
    return Html(screen.export_html(inline_styles=True, code_format=f'<pre style="{style}">{{code}}</pre>'))
