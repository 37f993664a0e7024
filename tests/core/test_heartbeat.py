"""A line every 30 seconds where no terminal shows progress."""

import threading
import time
from contextlib import ExitStack

import pytest

from fullbake.core.heartbeat import INTERVAL, heartbeat, note_line, waiting


def test_one_line_names_all_work_that_runs_and_the_outermost_block_says_it() -> None:
    said = threading.Event()
    lines: list[str] = []

    def hear(line: str) -> None:
        lines.append(line)
        said.set()

    with heartbeat(lambda: "train", hear, interval=0.01), heartbeat(lambda: "epoch 2", pytest.fail):
        said.clear()
        assert said.wait(60)
    assert lines[-1] == "still working: train; epoch 2"
    assert threading.active_count() == len([one for one in threading.enumerate() if one.name != "heartbeat"])


def test_nothing_is_said_while_other_lines_come() -> None:
    lines: list[str] = []
    with heartbeat(lambda: "train", lines.append, interval=INTERVAL):
        for _ in range(3):
            note_line()
            time.sleep(0.01)
    assert lines == []


def test_work_that_fails_leaves_no_heartbeat_behind() -> None:
    with pytest.raises(ValueError, match="broken"), heartbeat(lambda: "train", pytest.fail):
        raise ValueError("broken")
    lines: list[str] = []
    said = threading.Event()
    with heartbeat(lambda: "next", lambda line: (lines.append(line), said.set()), interval=0.01):  # type: ignore[arg-type,return-value]
        assert said.wait(60)
    assert lines[0] == "still working: next"


def test_nothing_is_said_while_somebody_is_waited_for() -> None:
    lines: list[str] = []
    said = threading.Event()

    def hear(line: str) -> None:
        lines.append(line)
        said.set()

    with ExitStack() as ends:
        with waiting():
            ends.enter_context(heartbeat(lambda: "predict", hear, interval=0.005))
            assert not said.wait(0.1)
        assert said.wait(60)
    assert lines[0] == "still working: predict"
