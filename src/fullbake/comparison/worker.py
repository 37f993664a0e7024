"""What runs trials in another process, here or on another machine: bytes in, bytes out.

`python -m fullbake.comparison.worker` reads a package and then tasks from stdin, and writes progress and outcomes to
stdout. A worker ends when its stdin does, so none outlives the command that started it. On a Ray cluster `run_task` is
called instead.
"""

import contextlib
import math
import os
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any, BinaryIO, Final

from fullbake.comparison.cache_entries import install_entries, pack_entries
from fullbake.comparison.functions import ComparisonFunctions
from fullbake.comparison.packing import Assignment, Outcome, WorkPackage, divide_message, join_message
from fullbake.comparison.schedule import Watch
from fullbake.comparison.sizes import SizedJobs
from fullbake.comparison.trial import TrialPredictions, TrialResult, TrialWeights
from fullbake.comparison.trial_work import TrialWork
from fullbake.core import runtime, stopping
from fullbake.core.cache import noted_entries
from fullbake.core.console import silenced
from fullbake.core.errors import BaseModelError, DeadlinePassed, Error, Fault, SpaceFault
from fullbake.core.ray_cluster import installed_versions
from fullbake.models import network
from fullbake.training.job import Job, feature_cache, recipe_tokenizer

REPORT_SECONDS: Final = 1.0
"""Progress is reported at most this often."""

Report = Callable[[float], None]
"""Takes the share of the current training's steps that is done."""


class PackageWork:
    """A package that is opened: the work of its trials can be done here."""

    def __init__(self, package: WorkPackage, functions: ComparisonFunctions | None = None) -> None:
        """Open it. Bases and tokenizers are read when a trial needs them.

        Args:
            package: The rows and recipes.
            functions: What trains and scores; None for the real functions.
        """
        self.package, self.cache_dir = package, package.facts["cache_dir"]
        self.functions = functions or ComparisonFunctions()
        self._work: dict[str, TrialWork] = {}

    def work(self, name: str) -> TrialWork:
        """Return what does the work of a candidate's trials.

        Raises:
            BaseModelError: The base is missing here, or is another one.
        """
        if name not in self._work:
            package, candidate = self.package, self.package.candidates[name]
            jobs = {} if candidate.recipe is None else {name: self._jobs(name)}
            sized = SizedJobs(jobs, package.folds)
            self._work[name] = TrialWork(sized, package.candidates, package.metric, package.decision, self.functions)
        return self._work[name]

    def _jobs(self, name: str) -> list[Job]:
        recipe, key = self.package.candidates[name].recipe, self.package.base_keys[name]
        assert recipe is not None
        if network.base_fingerprint(recipe.base) != key:
            raise BaseModelError(
                "the base has other weights here",
                where=str(recipe.base),
                remedy="Put the same files under the same path on all machines.",
            )
        tokenizer, cache = recipe_tokenizer(recipe), feature_cache(self.cache_dir)
        return [Job(recipe, parts, tokenizer, key, cache, cache_dir=self.cache_dir) for parts in self.package.folds]


def perform(opened: PackageWork, assignment: Assignment, report: Report) -> Outcome:
    """Do the work of an assignment. What goes wrong is in the outcome; nothing but an interrupt is raised.

    Args:
        opened: The package.
        assignment: What to do.
        report: Takes the progress.
    """
    left = math.inf if assignment.left is None else assignment.left
    watch = Watch(assignment.step, left, assignment.scoring, time.monotonic)
    learned: list[tuple[list[str], float]] = []
    facts: dict[str, Any] = {"machine": machine_name(), "versions": installed_versions()}
    try:
        with silenced(), noted_entries() as entries:
            facts |= _work(opened, assignment, watch, lambda keys, seconds: learned.append((keys, seconds)), report)
        if assignment.sends_entries:
            facts["entries"] = pack_entries(entries)
    except DeadlinePassed as stop:
        facts["gave_up"] = str(stop)
    except (Error, OSError, RuntimeError, MemoryError, ValueError) as error:
        facts["error"] = _describe(error)
    facts |= {"elapsed": watch.elapsed, "shared_seconds": watch.shared_seconds, "slower": watch.slower}
    return Outcome(**facts, part=watch.part, learned=learned)


def _work(
    opened: PackageWork,
    assignment: Assignment,
    watch: Watch,
    learn: Callable[[list[str], float], None],
    report: Report,
) -> dict[str, Any]:
    """Return the fields of the outcome that hold what was made."""
    if runtime.device().type != opened.package.facts["device"]:
        wanted = opened.package.facts["device"]
        raise Fault("this machine computes on another device", expected=wanted, got=runtime.device().type)
    runtime.set_threads(assignment.threads)
    task, work = assignment.task, opened.work(assignment.task.trial.candidate)

    def note(share: float) -> None:
        watch.note(share)
        report(share)

    with stopping.deadline(watch.time_is_up, note):
        if assignment.prepares:
            with stopping.interruptible():
                work.prepare(task, watch, learn)
            return {}
        result, weights = work.train(task, watch, learn)
    recipe = work.candidates[task.trial.candidate].recipe
    result = replace(result, threads=None if recipe is None else assignment.threads)
    predictions: TrialPredictions | None = None
    if result.value is not None:
        with stopping.deadline(lambda: watch.elapsed >= watch.left + assignment.closing), stopping.interruptible():
            predictions = work.score(task, result, lambda: weights)
    return {"result": result, "predictions": predictions, "weights": _wanted(result, weights, assignment)}


def _wanted(result: TrialResult, weights: TrialWeights, assignment: Assignment) -> TrialWeights:
    above = assignment.keep_from
    return weights if above is None or (result.value is not None and result.value >= above) else {}


def _describe(error: Exception) -> dict[str, str]:
    kind = "space" if isinstance(error, SpaceFault) else "error"
    if isinstance(error, Error):
        where = f" ({error.where})" if error.where else ""
        got = "".join(
            f"; {word} {value}" for word, value in (("expected", error.expected), ("got", error.got)) if value
        )
        return {"kind": kind, "what": f"{error.what}{where}{got}", "remedy": error.remedy or ""}
    return {"kind": kind, "what": f"{type(error).__name__}: {str(error).partition(chr(10))[0]}", "remedy": ""}


def machine_name() -> str:
    """Return the name of this machine."""
    return socket.gethostname()


# On a Ray cluster

_opened: dict[str, PackageWork] = {}
"""The package that this process has opened, by its hash."""

_installed: set[str] = set()
"""References of outcomes whose cache entries are there."""


def run_task(package: list[Any], digest: str, data: bytes, entries: list[Any], board: Any) -> bytes:
    """Run a task of a Ray cluster and return the bytes of its outcome.

    Args:
        package: The reference of the package's bytes, as the only item, so that it is fetched only once a process.
        digest: Hash of the package.
        data: The assignment's bytes.
        entries: References of outcomes whose cache entries this trial may need.
        board: The actor that shows the progress.
    """
    import ray

    if digest not in _opened:
        opened = WorkPackage.from_bytes(ray.get(package[0]))
        with contextlib.suppress(OSError, TypeError):  # relative paths of recipes begin where the command was started
            os.chdir(opened.facts["folder"])
        _opened.clear()
        _opened[digest] = PackageWork(opened)
    work, assignment = _opened[digest], Assignment.from_bytes(data)
    node = ray.get_runtime_context().get_node_id()
    report = _seldom(lambda share: board.note.remote(assignment.id, share, machine_name(), node))
    report(0.0)
    for reference in entries:
        if reference.hex() not in _installed:
            _install(ray.get(reference), work.cache_dir)
            _installed.add(reference.hex())
    return perform(work, assignment, report).to_bytes()


def _install(outcome: bytes, cache_dir: str | Path | None) -> None:
    _, blobs = divide_message(outcome)
    entries = {name.removeprefix("entry "): blob for name, blob in blobs.items() if name.startswith("entry ")}
    install_entries(entries, cache_dir)


def _seldom(report: Report) -> Report:
    """Return a function that calls `report` at most once in REPORT_SECONDS."""
    last = [-math.inf]

    def limited(share: float) -> None:
        if time.monotonic() - last[0] >= REPORT_SECONDS:
            last[0] = time.monotonic()
            report(share)

    return limited


class ProgressBoard:
    """Where the tasks of a Ray cluster say how far they are; an actor."""

    def __init__(self) -> None:
        """Start empty."""
        self._notes: dict[str, tuple[float, str, str]] = {}

    def note(self, task: str, share: float, machine: str, node: str) -> None:
        """Note how far a task is, and where."""
        self._notes[task] = (share, machine, node)

    def read(self) -> dict[str, tuple[float, str, str]]:
        """Return (share, machine, node) of each task."""
        return self._notes


# As a process of its own

_LENGTH: Final = struct.Struct("<Q")


def write_frame(stream: BinaryIO, data: bytes) -> None:
    """Write bytes and their length."""
    stream.write(_LENGTH.pack(len(data)))
    stream.write(data)
    stream.flush()


def read_frames(stream: BinaryIO) -> Iterator[bytes]:
    """Yield the byte strings of a stream until its end."""
    while len(start := stream.read(_LENGTH.size)) == _LENGTH.size:
        (length,) = _LENGTH.unpack(start)
        data = stream.read(length)
        if len(data) < length:
            return
        yield data


def run_assignments(frames: Iterator[bytes], send: Callable[[bytes], None]) -> None:
    """Run tasks until there are no more.

    Args:
        frames: The package, then assignments.
        send: Takes messages: {"share": ...} is progress, {"outcome": true} comes with the bytes of an outcome.
    """
    opened = PackageWork(WorkPackage.from_bytes(next(frames)))
    send(join_message({"ready": True}, {}))
    for data in frames:
        assignment = Assignment.from_bytes(data)
        report = _seldom(lambda share: send(join_message({"share": share}, {})))
        outcome = perform(opened, assignment, report)
        send(join_message({"outcome": True}, {"data": outcome.to_bytes()}))


def run_worker() -> None:
    """Run as a worker process."""
    stdin, stdout = sys.stdin.buffer, os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever prints must not break the frames
    frames: SimpleQueue[bytes] = SimpleQueue()

    def read() -> None:
        for data in read_frames(stdin):
            frames.put(data)
        os._exit(0)  # the command is gone: nobody waits for what runs here

    threading.Thread(target=read, daemon=True).start()
    with contextlib.suppress(BrokenPipeError, KeyboardInterrupt):
        run_assignments(iter(frames.get, None), lambda data: write_frame(stdout, data))


if __name__ == "__main__":
    run_worker()
