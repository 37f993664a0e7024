"""Signals and deadlines: noted, agreed on, and raised only where work may be abandoned."""

import os
import signal
import threading

import pytest

from fullbake.core import stopping
from fullbake.core.errors import DeadlinePassed, Interrupted


def send(number: int) -> None:
    os.kill(os.getpid(), number)


def test_nothing_is_raised_outside_a_block() -> None:
    stopping.check()
    with stopping.interruptible():
        stopping.check()
    with stopping.deadline(lambda: True):
        stopping.check()
    assert stopping.must_stop() == (0, False)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_noted_and_raised_where_work_may_be_abandoned(number: int) -> None:
    handler = signal.getsignal(number)
    with stopping.deferred_signals():
        send(number)
        stopping.check()
        assert stopping.must_stop() == (number, False)
        with stopping.interruptible(), pytest.raises(Interrupted) as caught:
            stopping.check()
    assert caught.value.signal == number
    assert signal.getsignal(number) is handler
    assert stopping.must_stop() == (0, False)


def test_a_second_ctrl_c_ends_at_once() -> None:
    with stopping.deferred_signals():
        send(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)


def test_another_thread_cannot_note_signals_and_runs_all_the_same() -> None:
    seen: list[tuple[int, bool]] = []

    def work() -> None:
        with stopping.deferred_signals():
            seen.append(stopping.must_stop())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(0, False)]


def test_a_deadline_is_raised_where_work_may_be_abandoned() -> None:
    answers = [False, False, True]
    with stopping.deadline(lambda: answers.pop(0)), stopping.interruptible():
        stopping.check()
        stopping.check()
        with pytest.raises(DeadlinePassed):
            stopping.check()
    with stopping.interruptible():
        stopping.check()


def test_the_innermost_deadline_counts() -> None:
    with stopping.deadline(lambda: True), stopping.deadline(lambda: False):
        assert stopping.must_stop() == (0, False)
