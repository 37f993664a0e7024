"""Stop long work early: on SIGINT or SIGTERM, and when its time is up.

Training asks after every step whether it must stop, and saves first. Work between two steps (validation, feature
extraction) may take minutes, so it asks too: it calls `check` after each batch, which raises. `check` does nothing
outside a block of `interruptible`, because only its caller knows whether the work may be abandoned.

Signals and the deadline are looked up in context variables instead of being passed as arguments: they concern the
process or the whole call, and would have to pass through every function down to the batches of `models.inference`.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from fullbake.core import ranks, runtime
from fullbake.core.errors import DeadlinePassed, Interrupted

_noted_signal: ContextVar[Callable[[], int]] = ContextVar("noted_signal", default=lambda: 0)
_deadline: ContextVar[Callable[[], bool]] = ContextVar("deadline", default=lambda: False)
_progress: ContextVar[Callable[[float], None]] = ContextVar("progress", default=lambda _: None)
_interruptible: ContextVar[bool] = ContextVar("interruptible", default=False)


@contextmanager
def deferred_signals() -> Iterator[None]:
    """Within the block, note SIGINT and SIGTERM in place of acting on them; `must_stop` and `check` see them.

    A second SIGINT raises KeyboardInterrupt at once, for a user who does not want to wait. Outside the main thread
    Python allows no signal handlers, so nothing is noted there. A block within another one changes nothing.
    """
    noted = [0]

    def note(number: int, _: object) -> None:
        if noted[0] and number == signal.SIGINT:
            raise KeyboardInterrupt
        noted[0] = number

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    token = _noted_signal.set(lambda: noted[0])
    try:
        yield
    finally:
        _noted_signal.reset(token)
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def noted_elsewhere(signal_number: Callable[[], int]) -> Iterator[None]:
    """Within the block, take signals from a function. It is for work outside the main thread, which gets no signals.

    Args:
        signal_number: returns the number of the signal to stop for, 0 while there is none.
    """
    token = _noted_signal.set(signal_number)
    try:
        yield
    finally:
        _noted_signal.reset(token)


@contextmanager
def deadline(passed: Callable[[], bool], progress: Callable[[float], None] = lambda _: None) -> Iterator[None]:
    """Within the block, stop training and feature extraction soon after `passed` returns True.

    `loop.fit` then returns with the best weights that were validated so far. Where there are none, and in feature
    extraction, DeadlinePassed is raised. Other work is stopped only within a block of `interruptible`.

    Args:
        passed: returns True once the time is up. It is called after every step and every batch.
        progress: called after every step of a training, before `passed`, with the share of its steps that are done.
    """
    tokens = _deadline.set(passed), _progress.set(progress)
    try:
        yield
    finally:
        _deadline.reset(tokens[0])
        _progress.reset(tokens[1])


def note_progress(share: float) -> None:
    """Tell whoever set the deadline which share of a training's steps is done."""
    _progress.get()(share)


@contextmanager
def interruptible() -> Iterator[None]:
    """Within the block, let `check` raise if a signal was noted or the deadline has passed."""
    token = _interruptible.set(True)
    try:
        yield
    finally:
        _interruptible.reset(token)


def must_stop(*, together: bool = True) -> tuple[int, bool]:
    """Return (number of the noted signal or 0, whether the deadline has passed).

    Args:
        together: processes that train together agree: one of them is enough to stop all. All have to call.
    """
    number, late = _noted_signal.get()(), _deadline.get()()
    if not together or runtime.world_size() == 1:
        return number, late
    import torch

    anywhere = ranks.sum_over_ranks(torch.tensor([float(number), float(late)])).tolist()
    return number or (signal.SIGTERM if anywhere[0] else 0), bool(anywhere[1])


def check(*, together: bool = False) -> None:
    """Stop here if a signal was noted or the deadline has passed. Call it after each batch of work without steps.

    Args:
        together: the processes that train together share this work and all make this call. If they do not share it,
            nothing is checked where there are several: one of them alone must not leave the work.

    Raises:
        Interrupted: a signal was noted within a block of `deferred_signals`.
        DeadlinePassed: the deadline of the innermost block of `deadline` has passed.
    """
    if not _interruptible.get() or (runtime.world_size() > 1 and not together):
        return
    number, late = must_stop(together=together)
    if number:
        raise Interrupted(number, 0, None)
    if late:
        raise DeadlinePassed("the time was up before this was done")
