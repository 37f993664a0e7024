"""Where the trials of a comparison run: in this process, in several processes here, or on a Ray cluster.

An executor takes assignments and gives back bytes, in any order; `packing` reads and checks them. It decides nothing:
what runs next is the schedule's. Without an executor, `runner` does the work itself.
"""

import contextlib
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, Queue
from typing import IO, Any, Final, Protocol

from fullbake.comparison.packing import Assignment, divide_message
from fullbake.comparison.worker import ProgressBoard, read_frames, run_task, write_frame
from fullbake.core import runtime
from fullbake.core.console import say
from fullbake.core.hashing import fingerprint
from fullbake.core.ray_cluster import content_digest, live_nodes, on_every_node

ATTEMPTS: Final = 2
"""A trial whose process dies runs once more."""

SAVE_SECONDS: Final = 15.0
"""Workers that are stopped have so many seconds to save their checkpoints."""

RAY_RETRIES: Final = 3
"""How often Ray runs a task again whose node or process died."""


@dataclass(frozen=True)
class Returned:
    """What came back of an assignment."""

    id: str
    data: bytes | None
    """The bytes of an outcome; None if the worker died."""
    machine: str
    reason: str = ""
    """Why there are no bytes."""


@dataclass(frozen=True)
class WorkerProgress:
    """How far a running assignment is."""

    share: float
    """Share of the steps of its current training."""
    machine: str


class Executor(Protocol):
    """Where trials run."""

    @property
    def workers(self) -> int:
        """Return how many assignments can run at once, now."""

    def submit(self, assignment: Assignment) -> None:
        """Begin an assignment. The caller keeps their number within `workers`."""

    def wait(self, seconds: float) -> list[Returned]:
        """Return what came back; wait at most so many seconds for it."""

    def progress(self) -> dict[str, WorkerProgress]:
        """Return how far the running assignments are, by id."""

    def cancel(self, assignment_id: str) -> None:
        """End an assignment whose time is up. Nothing of it comes back."""

    def close(self) -> None:
        """Stop everything that runs."""


# Processes on this machine


@dataclass
class _Worker:
    """A process and what it does."""

    name: str
    process: "subprocess.Popen[bytes]"
    errors: IO[bytes]
    assignment: Assignment | None = None
    share: float = 0.0
    reader: threading.Thread | None = None

    def is_free(self) -> bool:
        """Return True if it lives and has nothing to do. One that died with another may not be noticed yet."""
        return self.assignment is None and self.process.poll() is None


class ProcessExecutor:
    """Runs trials in several processes of this machine."""

    def __init__(self, package: bytes, workers: int) -> None:
        """Prepare; a process starts when there is work for it.

        Args:
            package: The bytes of the `WorkPackage`.
            workers: How many processes.
        """
        self.workers = workers
        self._package = package
        self._crew: list[_Worker] = []
        self._arrived: Queue[tuple[_Worker, bytes | None]] = Queue()
        self._attempts: dict[str, int] = {}
        self._started = 0

    def submit(self, assignment: Assignment) -> None:
        """Give an assignment to a free process."""
        worker = next((one for one in self._crew if one.is_free()), None) or self._start()
        worker.assignment, worker.share = assignment, 0.0
        self._attempts[assignment.id] = self._attempts.get(assignment.id, 0) + 1
        assert worker.process.stdin is not None
        with contextlib.suppress(OSError):  # a process that has just died is noticed by its reader
            write_frame(worker.process.stdin, assignment.to_bytes())  # type: ignore[arg-type]

    def wait(self, seconds: float) -> list[Returned]:
        """Return what came back; wait at most so many seconds for it."""
        end, found = time.monotonic() + seconds, list[Returned]()
        while not found:
            try:
                worker, data = self._arrived.get(timeout=max(end - time.monotonic(), 0))
            except Empty:
                break
            found += self._take(worker, data)
        return found

    def _take(self, worker: _Worker, data: bytes | None) -> list[Returned]:
        if worker not in self._crew:  # it was stopped
            return []
        assignment = worker.assignment
        if data is None:
            self._crew.remove(worker)
            return [] if assignment is None else self._again(worker, assignment)
        head, blobs = divide_message(data)
        worker.share = float(head.get("share", worker.share))
        if "outcome" not in head or assignment is None:
            return []
        worker.assignment = None
        self._attempts.pop(assignment.id, None)
        return [Returned(assignment.id, blobs["data"], worker.name)]

    def _again(self, worker: _Worker, assignment: Assignment) -> list[Returned]:
        """Run an assignment once more whose process died, or say that it failed."""
        reason = _why(worker)
        if self._attempts[assignment.id] < ATTEMPTS:
            say(f"{assignment.id}: {worker.name} died ({reason}); it runs once more", aloud=True)
            self.submit(assignment)
            return []
        return [Returned(assignment.id, None, worker.name, reason)]

    def progress(self) -> dict[str, WorkerProgress]:
        """Return how far the running assignments are, by id."""
        return {one.assignment.id: WorkerProgress(one.share, one.name) for one in self._crew if one.assignment}

    def cancel(self, assignment_id: str) -> None:
        """End the process that runs an assignment."""
        for worker in [one for one in self._crew if one.assignment and one.assignment.id == assignment_id]:
            self._crew.remove(worker)
            _end([worker], SAVE_SECONDS)

    def close(self) -> None:
        """Stop all processes. What writes checkpoints saves one first."""
        crew, self._crew = self._crew, []
        _end(crew, SAVE_SECONDS)

    def _start(self) -> _Worker:
        self._started += 1
        errors = tempfile.TemporaryFile()  # noqa: SIM115  (closed with the process)
        process = subprocess.Popen(
            [sys.executable, "-m", "fullbake.comparison.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,  # Ctrl-C is for this process, which then stops the workers
        )
        worker = _Worker(f"process {self._started}", process, errors)
        self._crew.append(worker)
        worker.reader = threading.Thread(target=self._read, args=(worker,), daemon=True)
        worker.reader.start()
        assert process.stdin is not None
        with contextlib.suppress(OSError):
            write_frame(process.stdin, self._package)  # type: ignore[arg-type]
        return worker

    def _read(self, worker: _Worker) -> None:
        assert worker.process.stdout is not None
        with contextlib.suppress(OSError, ValueError), worker.process.stdout as stream:
            for data in read_frames(stream):  # type: ignore[arg-type]
                self._arrived.put((worker, data))
        self._arrived.put((worker, None))


def _why(worker: _Worker) -> str:
    """Return why a process ended, in words."""
    code = worker.process.wait()
    worker.errors.seek(0)
    lines = worker.errors.read().decode(errors="replace").strip().splitlines()
    _close(worker)
    if code < 0:
        return f"signal {-code}{', probably for lack of memory' if code == -9 else ''}"
    return lines[-1] if lines else f"exit code {code}"


def _end(crew: Sequence[_Worker], seconds: float) -> None:
    """End processes: those that work are asked to save first."""
    for worker in crew:
        with contextlib.suppress(OSError):
            worker.process.terminate()
    end = time.monotonic() + seconds
    for worker in crew:
        try:
            worker.process.wait(max(end - time.monotonic(), 0.1))
        except subprocess.TimeoutExpired:
            worker.process.kill()
            worker.process.wait()
        _close(worker)


def _close(worker: _Worker) -> None:
    """Close the files of a process that has ended; its reader closes its stdout."""
    worker.errors.close()
    if worker.process.stdin is not None:
        with contextlib.suppress(OSError):  # what was not written any more
            worker.process.stdin.close()
    if worker.reader is not None:
        worker.reader.join()


# A Ray cluster


@dataclass(frozen=True)
class TaskNeeds:
    """What a trial asks of a node."""

    cpus: int
    gpus: float = 0.0
    memory: Callable[[Assignment], int | None] = lambda _: None
    """Bytes of main memory that an assignment needs; None if unknown."""


@dataclass
class _Sent:
    """An assignment that Ray has."""

    assignment: Assignment
    reference: Any
    node: str | None = None
    """Where it was seen last."""


@dataclass
class RayExecutor:
    """Runs trials as tasks of a Ray cluster."""

    ray: Any
    package: bytes
    """The bytes of the `WorkPackage`."""
    needs: TaskNeeds
    most: int | None = None
    """At most so many at once; None for as many as there is room for."""
    _sent: dict[str, _Sent] = field(default_factory=dict)
    _entries: dict[str, Any] = field(default_factory=dict)
    """Key of shared work -> reference of the outcome with its entries of caches."""

    def __post_init__(self) -> None:
        """Put the rows into the object store, once."""
        self._digest = fingerprint(self.package)
        self._stored = self.ray.put(self.package)
        self._board = self.ray.remote(ProgressBoard).options(num_cpus=0, max_restarts=-1).remote()
        self._task = self.ray.remote(run_task)
        self._seen: dict[str, tuple[float, str, str]] = {}
        self._room = (0.0, 0)

    @property
    def workers(self) -> int:
        """Return how many trials the nodes that are alive have room for; at least one, as nodes may come back."""
        asked_at, room = self._room
        if time.monotonic() - asked_at > 2.0:
            room = sum(self._room_on(node["Resources"]) for node in live_nodes(self.ray))
            self._room = time.monotonic(), room
        return max(min(room, self.most or room), 1)

    def _room_on(self, resources: dict[str, float]) -> int:
        room = int(resources.get("CPU", 0) // self.needs.cpus)
        return min(room, int(resources.get("GPU", 0) // self.needs.gpus)) if self.needs.gpus else room

    def submit(self, assignment: Assignment) -> None:
        """Submit an assignment as a task."""
        largest = max((node["Resources"].get("memory", 0) for node in live_nodes(self.ray)), default=0)
        memory = self.needs.memory(assignment)
        task = self._task.options(
            num_cpus=self.needs.cpus,
            num_gpus=self.needs.gpus,
            memory=None if memory is None or not largest else int(min(memory, largest)),
            max_retries=RAY_RETRIES,
            scheduling_strategy="SPREAD",
            name=assignment.id,
        )
        needed = {id(one): one for key, one in self._entries.items() if key in assignment.needs}
        data = assignment.to_bytes()
        reference = task.remote([self._stored], self._digest, data, list(needed.values()), self._board)
        self._sent[assignment.id] = _Sent(assignment, reference)

    def wait(self, seconds: float) -> list[Returned]:
        """Return what came back; wait at most so many seconds for it."""
        self._look()
        waiting = {sent.reference: name for name, sent in self._sent.items()}
        if not waiting:
            time.sleep(min(seconds, 0.1))
            return []
        ready, _ = self.ray.wait(list(waiting), num_returns=1, timeout=seconds)
        return [self._take(waiting[reference]) for reference in ready]

    def _take(self, name: str) -> Returned:
        sent, machine = self._sent.pop(name), self._machine(name)
        try:
            data = self.ray.get(sent.reference)
        except self.ray.exceptions.RayError as error:
            return Returned(name, None, machine, self._reason(error))
        if not isinstance(data, bytes):
            return Returned(name, None, machine, f"it sent {type(data).__name__} in place of bytes")
        if sent.assignment.sends_entries and sent.assignment.prepares:
            self._entries |= dict.fromkeys(sent.assignment.task.shared, sent.reference)
        return Returned(name, data, machine)

    def _reason(self, error: Exception) -> str:
        """Return the line of an error that says what happened: the last one of a traceback, else the first."""
        lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
        is_traceback = isinstance(error, self.ray.exceptions.RayTaskError)
        return lines[-1 if is_traceback else 0] if lines else type(error).__name__

    def _machine(self, name: str) -> str:
        return self._seen[name][1] if name in self._seen else "a node of the cluster"

    def _look(self) -> None:
        """Read how far the tasks are, and say which of them moved to another node."""
        with contextlib.suppress(self.ray.exceptions.RayError):
            self._seen = self.ray.get(self._board.read.remote(), timeout=2.0)
        for name, sent in self._sent.items():
            node = self._seen[name][2] if name in self._seen else None
            if node is not None and sent.node not in (None, node):
                say(f"{name}: its node died; it runs again on {self._machine(name)}", aloud=True)
            sent.node = node or sent.node

    def progress(self) -> dict[str, WorkerProgress]:
        """Return how far the running assignments are, by id."""
        return {
            name: WorkerProgress(self._seen[name][0], self._seen[name][1]) for name in self._sent if name in self._seen
        }

    def cancel(self, assignment_id: str) -> None:
        """Cancel a task."""
        sent = self._sent.pop(assignment_id, None)
        if sent is not None:
            self.ray.cancel(sent.reference, force=True)

    def close(self) -> None:
        """Cancel all tasks. What writes checkpoints saves one first."""
        references = [sent.reference for sent in self._sent.values()]
        self._sent.clear()
        with contextlib.suppress(self.ray.exceptions.RayError):
            for reference in references:
                self.ray.cancel(reference, force=False)
            if references:
                _, late = self.ray.wait(references, num_returns=len(references), timeout=SAVE_SECONDS)
                for reference in late:
                    self.ray.cancel(reference, force=True)
            self.ray.kill(self._board)


@contextlib.contextmanager
def closing(executor: Executor) -> Iterator[Executor]:
    """Within the block, use an executor; stop all that runs at its end."""
    try:
        yield executor
    finally:
        executor.close()


def divide_threads(jobs: int, threads: int | None) -> int:
    """Return the threads of each of several processes.

    Args:
        jobs: The processes.
        threads: What the user asks for, for each; None divides the processors among them.
    """
    return threads if threads is not None else max(runtime.count_processors() // jobs, 1)


def shares_folder(ray: Any, folder: Path) -> bool:
    """Return True if every node of a cluster sees what this process writes into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".seen-", suffix=".tmp") as probe:
        probe.write(fingerprint(time.time()).encode())
        probe.flush()
        expected = content_digest(probe.name)
        return all(answer == expected for answer in on_every_node(ray, content_digest, probe.name).values())
