"""Folders of shards for tests, and a worker process that dies while it scores one."""

import csv
import os
import signal
import threading
import time
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
    """Within the block, kill so many workers of a run, each while it scores a shard.

    Yields:
        The shards at which a worker was killed.
    """
    killed: list[str] = []
    stop = threading.Event()

    def watch() -> None:
        seen: set[tuple[str, str]] = set()
        while not stop.is_set() and len(killed) < deaths:
            for path in (out / "_attempts").rglob("*.txt"):
                with suppress(OSError, ValueError):
                    text = path.read_text()
                    if (path.name, text) not in seen and text:
                        seen.add((path.name, text))
                        os.kill(int(text.split()[1]), signal.SIGKILL)
                        killed.append(path.name)
                if len(killed) >= deaths:
                    break
            time.sleep(0.002)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield killed
    finally:
        stop.set()
        thread.join()
