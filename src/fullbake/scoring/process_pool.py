"""Score shards in several processes of this machine.

Each process has a pipe of its own, so that one that dies (out of memory, killed by hand) costs the shard that it had
and nothing else: a new process takes its place. Results come back as JSON.
"""

import signal
from collections import deque
from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import connection, get_context
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path

from fullbake.classifier.worker_bundle import WorkerBundle
from fullbake.core.console import warn
from fullbake.scoring.shard_worker import ShardOptions, score_as_json
from fullbake.scoring.shards import InputShard


@dataclass
class _Worker:
    process: SpawnProcess
    pipe: Connection
    shard: InputShard | None = None


def score_in_processes(
    bundle: WorkerBundle, folder: Path, shards: Sequence[InputShard], options: ShardOptions, *, jobs: int
) -> Generator[str, None, None]:
    """Score shards, and yield what `score_as_json` returned of each, as they end.

    Args:
        bundle: What scores them.
        folder: The folder of the bundle.
        shards: The shards.
        options: How they are read and written.
        jobs: The number of processes.
    """
    waiting = deque(shards)
    workers = [_start(bundle, folder, options) for _ in range(min(jobs, len(shards)))]
    try:
        for worker in workers:
            _hand_out(worker, waiting)
        while any(worker.shard is not None for worker in workers):
            ready = connection.wait([worker.pipe for worker in workers if worker.shard is not None])
            for place, worker in enumerate(workers):
                if worker.pipe not in ready:
                    continue
                try:
                    result: str = worker.pipe.recv_bytes().decode()
                except (EOFError, OSError):
                    workers[place] = _replace(worker, waiting, bundle, folder, options)
                    continue
                worker.shard = None
                yield result
                _hand_out(worker, waiting)
    finally:
        for worker in workers:
            worker.process.terminate()
            worker.pipe.close()
        for worker in workers:
            worker.process.join()


def _start(bundle: WorkerBundle, folder: Path, options: ShardOptions) -> _Worker:
    context = get_context("spawn")
    pipe, other = context.Pipe()
    process = context.Process(target=_serve, args=(other, bundle, folder, options), daemon=True)
    process.start()
    other.close()  # so that the end of the process is the end of the pipe
    return _Worker(process, pipe)


def _hand_out(worker: _Worker, waiting: deque[InputShard]) -> None:
    """Send the next shard to a worker; a worker that died before is noticed when its answer is read."""
    if not waiting:
        return
    worker.shard = waiting.popleft()
    with suppress(OSError):
        worker.pipe.send(worker.shard)


def _replace(
    worker: _Worker, waiting: deque[InputShard], bundle: WorkerBundle, folder: Path, options: ShardOptions
) -> _Worker:
    """Start a process in place of one that died, and give it the same shard."""
    worker.process.join()
    worker.pipe.close()
    assert worker.shard is not None
    waiting.appendleft(worker.shard)
    warn(f"a worker process ended with code {worker.process.exitcode} at {worker.shard.name}: starting another one")
    fresh = _start(bundle, folder, options)
    _hand_out(fresh, waiting)
    return fresh


def _serve(pipe: Connection, bundle: WorkerBundle, folder: Path, options: ShardOptions) -> None:
    """Answer the driver's shards until it closes the pipe. Ctrl-C is for the driver, which ends this process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(EOFError, OSError):  # the driver is gone
        while True:
            shard = pipe.recv()
            pipe.send_bytes(score_as_json(bundle, folder, shard, options).encode())
