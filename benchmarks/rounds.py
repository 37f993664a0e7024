"""Measure the sides of a comparison alternately, round by round, each in its own process.

Each side has its own process, because a setting of one side for a whole process (an allocator, an attention, a thread
pool) must not affect the other. One parent starts them with the same number of threads, and they run one at a time. The
processor time that other processes use meanwhile is read from /proc: all busy time less that of this tree of processes.
A disturbed measurement is repeated. The least disturbed one is kept, and how disturbed it was is recorded.
"""

import importlib
import multiprocessing
import os
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

DISTURBED = 0.1
"""A measurement is disturbed if other processes use more than this many processors on average."""

ATTEMPTS = 3
"""A disturbed measurement is taken at most this many times."""

SHORTEST_CHECKED = 0.5
"""Seconds; in a shorter measurement, clock ticks of 10 ms are too coarse to tell which process was busy."""


@dataclass(frozen=True)
class Side:
    """One side of a comparison.

    Attributes:
        name: The name on the page of results.
        make: `module:function`. It prepares the work and returns the function to time, which returns a Run.
        options: Keyword arguments of `make`.
    """

    name: str
    make: str
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """The result of one timed call.

    Attributes:
        answer: An array that must be the same on all sides.
        seconds: The time to count; None counts the whole call.
        scale: The factor from the work that was done to the whole work.
        fixed: Seconds to add that are not scaled.
        facts: More values to store.
    """

    answer: np.ndarray | None = None
    seconds: float | None = None
    scale: float = 1.0
    fixed: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass
class Measured:
    """All rounds of one side.

    Attributes:
        name: The name of the side.
        seconds: One entry a round, scaled to the whole work.
        others: The processors that other processes used, one entry a round.
        repeats: The measurements that were discarded.
        scale: The scale of the last run.
        facts: The facts of each round.
        answer: The answer of the last run.
    """

    name: str
    seconds: list[float] = field(default_factory=list)
    others: list[float] = field(default_factory=list)
    repeats: int = 0
    scale: float = 1.0
    facts: list[dict[str, Any]] = field(default_factory=list)
    answer: np.ndarray | None = None


def measure(
    sides: Sequence[Side], *, rounds: int, threads: int, warm_up: bool = True, attempts: int = ATTEMPTS
) -> list[Measured]:
    """Run every side once in each round; every second round runs them in reverse order.

    Args:
        sides: The sides.
        rounds: The number of rounds.
        threads: The threads of each side.
        warm_up: Call every side once before the first round.
        attempts: A disturbed measurement is taken at most this many times.
    """
    with ExitStack() as stack:
        workers = [stack.enter_context(_Worker(side, threads)) for side in sides]
        found = [Measured(side.name) for side in sides]
        if warm_up:
            for worker in workers:
                worker.ask("run")
        for number in range(rounds):
            order = range(len(sides)) if number % 2 == 0 else reversed(range(len(sides)))
            for place in order:
                run = partial(workers[place].ask, "run")
                _add_round(found[place], *least_disturbed(run, attempts, others=lambda: _used_by_others(workers)))
        for worker, measured in zip(workers, found, strict=True):
            measured.answer = worker.ask("answer")
        return found


def least_disturbed(
    measurement: Callable[[], Run],
    attempts: int,
    *,
    others: Callable[[], float],
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[Run, float, int]:
    """Repeat a measurement until it is not disturbed.

    Args:
        measurement: Takes the measurement.
        attempts: It is taken at most this many times.
        others: Returns the processor seconds that other processes have used until now.
        clock: Returns the time in seconds.

    Returns:
        The least disturbed measurement, the processors that other processes used during it on average, and how many
        measurements were discarded.
    """
    tried: list[tuple[Run, float]] = []
    while len(tried) < attempts and (not tried or tried[-1][1] > DISTURBED):
        before, started = others(), clock()
        run = measurement()
        elapsed, after = clock() - started, others()
        tried.append((run, max(0.0, after - before) / elapsed if elapsed > SHORTEST_CHECKED else 0.0))
    return *min(tried, key=lambda attempt: attempt[1]), len(tried) - 1


def _used_by_others(workers: Sequence["_Worker"]) -> float:
    """Return the processor seconds that processes other than this one and its workers have used."""
    own = (os.getpid(), *(worker.process.pid or 0 for worker in workers))
    return busy_seconds() - sum(process_seconds(pid) for pid in own)


def _add_round(measured: Measured, run: Run, others: float, repeats: int) -> None:
    assert run.seconds is not None
    measured.seconds.append(run.fixed + run.seconds * run.scale)
    measured.others.append(others)
    measured.repeats += repeats
    measured.scale = run.scale
    measured.facts.append(run.facts)


# Processor time, from Linux


def busy_seconds() -> float:
    """Return the seconds that all processors together were busy since the start; 0 without /proc/stat."""
    try:
        ticks = list(map(int, Path("/proc/stat").read_text().splitlines()[0].split()[1:]))
    except FileNotFoundError:
        return 0.0
    idle = ticks[3] + ticks[4]
    return (sum(ticks[:8]) - idle) / os.sysconf("SC_CLK_TCK")  # entries from the ninth on are part of earlier ones


def process_seconds(pid: int) -> float:
    """Return the processor seconds that a process and the children that it waited for have used."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return 0.0
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


# A process for each side


class _Worker:
    """A side in a process that runs during all rounds."""

    def __init__(self, side: Side, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, side, threads), daemon=False)
        self.name = side.name

    def __enter__(self) -> "_Worker":
        self.process.start()
        self._receive()
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.is_alive():
            self.pipe.send("end")
        self.process.join(30)
        if self.process.is_alive():
            self.process.terminate()

    def ask(self, what: str) -> Any:
        self.pipe.send(what)
        return self._receive()

    def _receive(self) -> Any:
        try:
            kind, content = self.pipe.recv()
        except EOFError as error:
            raise RuntimeError(f"{self.name}: its process died") from error
        if kind == "fault":
            raise RuntimeError(f"{self.name}:\n{content}")
        return content


def _serve(pipe: Connection, side: Side, threads: int) -> None:
    import torch

    torch.set_num_threads(threads)
    answer: np.ndarray | None = None
    try:
        module, _, name = side.make.partition(":")
        run = getattr(importlib.import_module(module), name)(**side.options)
        pipe.send(("done", None))
        while (asked := pipe.recv()) != "end":
            if asked == "answer":
                pipe.send(("done", answer))
                continue
            started = time.perf_counter()
            given: Run = run()
            seconds = time.perf_counter() - started if given.seconds is None else given.seconds
            answer = given.answer
            pipe.send(("done", Run(None, seconds, given.scale, given.fixed, given.facts)))
    except Exception:
        pipe.send(("fault", traceback.format_exc()))
