"""Sides of a comparison in turn, round by round, each in a process of its own.

A process of its own, because what one side sets for a whole process (an allocator, an attention, a thread pool) must
not help or hinder the other; started by one parent, given the same threads, and run one at a time. What other processes
took of the processor meanwhile is read off /proc: all that was busy, less what this tree of processes used. A
measurement that was disturbed is repeated, and the least disturbed one is kept, with how disturbed it was.
"""

import importlib
import multiprocessing
import os
import time
import traceback
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

DISTURBED = 0.1
"""Processors that others may take on average before a measurement counts as disturbed."""

ATTEMPTS = 3
"""Of a measurement that is disturbed every time."""

_SHORT = 0.5
"""Seconds below which clock ticks of 10 ms say nothing of who was busy."""


@dataclass(frozen=True)
class Side:
    """One side of a comparison.

    name: as the page shows it. make: `module:function` that prepares and returns what is timed, which in turn returns a
    Run. options: keyword arguments of `make`.
    """

    name: str
    make: str
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """What one timed call gave.

    answer: an array that the sides should agree on. seconds: where only a part of the call is to be counted. scale: by
    which that has to be multiplied where only a share of the work was done; fixed: seconds that are not.
    """

    answer: np.ndarray | None = None
    seconds: float | None = None
    scale: float = 1.0
    fixed: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass
class Measured:
    """All rounds of one side. seconds: a round, scaled to the whole work. others: processors that other processes took,
    a round. repeats: measurements thrown away. facts: of each round."""

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
    """Run every side once a round, the order turned about in every other round.

    warm_up: a first call of each that is not counted. attempts: at most, of a measurement that is disturbed.
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
                _note(found[place], *_undisturbed(workers, place, attempts))
        for worker, measured in zip(workers, found, strict=True):
            measured.answer = worker.ask("answer")
        return found


def _undisturbed(workers: Sequence["_Worker"], place: int, attempts: int) -> tuple[Run, float, int]:
    """(the least disturbed of some attempts, processors that others took, attempts thrown away)."""
    tried: list[tuple[Run, float]] = []
    while len(tried) < attempts and (not tried or tried[-1][1] > DISTURBED):
        before, started = busy_seconds() - _used_by(workers), time.perf_counter()
        run = workers[place].ask("run")
        elapsed, after = time.perf_counter() - started, busy_seconds() - _used_by(workers)
        tried.append((run, max(0.0, after - before) / elapsed if elapsed > _SHORT else 0.0))
    return *min(tried, key=lambda attempt: attempt[1]), len(tried) - 1


def _used_by(workers: Sequence["_Worker"]) -> float:
    """Seconds of processor that this process and its workers have used."""
    return sum(process_seconds(pid) for pid in (os.getpid(), *(worker.process.pid or 0 for worker in workers)))


def _note(measured: Measured, run: Run, others: float, repeats: int) -> None:
    assert run.seconds is not None
    measured.seconds.append(run.fixed + run.seconds * run.scale)
    measured.others.append(others)
    measured.repeats += repeats
    measured.scale = run.scale
    measured.facts.append(run.facts)


# The machine, as Linux tells it


def busy_seconds() -> float:
    """Seconds that all processors together were busy since the start, 0 where /proc/stat is missing."""
    try:
        ticks = list(map(int, Path("/proc/stat").read_text().splitlines()[0].split()[1:]))
    except FileNotFoundError:
        return 0.0
    idle = ticks[3] + ticks[4]
    return (sum(ticks[:8]) - idle) / os.sysconf("SC_CLK_TCK")  # from the ninth on: counted before already


def process_seconds(pid: int) -> float:
    """Seconds of processor that a process and the children it waited for have used."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return 0.0
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


# A process for each side


class _Worker:
    """A side in a process that lives through all rounds."""

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
