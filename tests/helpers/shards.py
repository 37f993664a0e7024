"""Folders of shards for tests, and a worker process that dies while it scores one."""

import csv
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from helpers.rows import make_rows


def write_shards(folder: Path, shards: int = 3, rows: int = 6) -> Path:
    """Write CSV files of `rows` rows each, with the columns id and text, and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = [text for text, _ in make_rows(shards * rows, seed=5)]
    for number in range(shards):
        with (folder / f"part-{number}.csv").open("w", newline="", encoding="utf-8") as file:
            own = range(number * rows, (number + 1) * rows)
            csv.writer(file).writerows([("id", "text"), *((f"0{row}", texts[row]) for row in own)])
    return folder


def read_rows(folder: Path) -> list[str]:
    """Return the lines of all scored files, sorted, without their headers."""
    files = [path for path in folder.rglob("*.csv") if path.name[0] != "_"]
    return sorted(line for path in files for line in path.read_text("utf-8").splitlines()[1:])


@contextmanager
def killer(out: Path, deaths: int) -> Iterator[list[str]]:
    """Within the block, kill so many workers of a run, each when it begins one of the first shards of `write_shards`.

    A worker reads how often its shard was begun. A named pipe in that place holds it there until it is killed, so no
    clock decides. Enter the block when the folder of the run is open.

    Yields:
        The shards at which a worker was killed.
    """
    killed: list[str] = []
    pipes = [out / "_attempts" / f"part-{number}.csv.txt" for number in range(deaths)]
    (out / "_attempts").mkdir(exist_ok=True)
    for pipe in pipes:
        os.mkfifo(pipe)

    def kill_at(pipe: Path) -> None:
        with pipe.open("wb"):  # waits for the worker
            while not (pids := _readers(pipe)):
                pass
            pipe.unlink()
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
            killed.append(pipe.name)

    threads = [threading.Thread(target=kill_at, args=(pipe,), daemon=True) for pipe in pipes]
    for thread in threads:
        thread.start()
    yield killed
    for thread in threads:
        thread.join()


def _readers(pipe: Path) -> list[int]:
    """Return the other processes that have a file open."""
    found = []
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        with suppress(OSError):
            if os.readlink(link) == str(pipe) and int(link.parts[2]) != os.getpid():
                found.append(int(link.parts[2]))
    return found
