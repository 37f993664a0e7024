"""A line every 30 seconds while long work runs where no terminal shows progress: in a log file, a notebook, a job.

Work that takes minutes must not look as if it hung. Pieces of work lie within each other (a command, an epoch of it);
one line names all that run. It comes only when nothing else was said for the interval. One thread watches, from the
first piece of work to its end, so that also a single long call is reported. What waits for a person or for another
program is no work, and is not reported.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

INTERVAL: Final = 30.0
"""Seconds of silence after which a line is said."""

_running: list[Callable[[], str]] = []
"""What describes each piece of work that runs now, the outermost first."""

_last_line = [0.0]
"""When a line was said last, on `time.monotonic`."""


_waits = [0]
"""How many blocks of `waiting` run, as the only item."""


def note_line() -> None:
    """Start the interval anew, because a line was said just now."""
    _last_line[0] = time.monotonic()


@contextmanager
def heartbeat(describe: Callable[[], str], say: Callable[[str], None], *, interval: float = INTERVAL) -> Iterator[None]:
    """Within the block, say a line whenever nothing was said for the interval.

    Args:
        describe: Returns what is being done and how far it is; called in another thread.
        say: Says a line; called in another thread. Within another block, that block's is called instead.
        interval: Seconds.
    """
    outermost = not _running
    _running.append(describe)
    try:
        if not outermost:
            yield
            return
        note_line()
        stop = threading.Event()
        watcher = threading.Thread(target=_watch, args=(stop, say, interval), name="heartbeat", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            stop.set()
            watcher.join()
    finally:
        _running.remove(describe)


@contextmanager
def waiting() -> Iterator[None]:
    """Within the block, say nothing: it waits for something that is no work of this process, such as input.

    Yields:
        Nothing; afterwards the interval starts anew.
    """
    _waits[0] += 1
    try:
        yield
    finally:
        _waits[0] -= 1
        note_line()


def _watch(stop: threading.Event, say: Callable[[str], None], interval: float) -> None:
    while not stop.wait(max(0.001, _last_line[0] + interval - time.monotonic())):
        if _waits[0]:
            note_line()
        elif time.monotonic() - _last_line[0] >= interval:
            say(f"still working: {'; '.join(describe() for describe in tuple(_running))}")
            note_line()
