"""Whether comparisons with a budget hold all ways and keep the budget, alone and beside busy processes.

    python benchmarks/budget_kept.py FOLDER_OF_DATA [demo:0 demo:1 demo:2 banking77:0 jigsaw:0]

The words are a comparison and the number of processes beside it that never wait, each in a session of its own. `demo`
is `fullbake demo` (5 min), `banking77` has 77 classes (3 min), `jigsaw` 3,000 comments (10 min). Runs start from an
empty cache. Rows of earlier runs of the same words are replaced in the stored result, the others stay.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from machine import busy_processes, store_result, stored_rows

NAME = "budget_kept"
BUSY = [sys.executable, "-c", "while True: pass"]


def command_of(name: str, folder: Path) -> list[str]:
    """Return the command of a comparison. folder: holds the data sets."""
    fullbake = [sys.executable, "-m", "fullbake"]
    if name == "demo":
        return [*fullbake, "demo"]
    if name == "banking77":
        rows = [str(folder / "banking77_train.csv"), "--text", "text", "--label", "label", "--max-length", "64"]
        return [*fullbake, "compare", *rows, "--budget", "3m", "--out", "compared"]
    rows = [str(folder / "jigsaw_8k.csv"), "--text", "comment_text", "--label", "toxic", "--max-length", "128"]
    return [*fullbake, "compare", *rows, "--max-rows", "3000", "--budget", "10m", "--out", "compared"]


def measure(name: str, busy: int, folder: Path) -> dict[str, Any]:
    """Run a comparison beside `busy` processes; return what it used of its budget and which ways it holds."""
    with tempfile.TemporaryDirectory() as made, busy_processes(busy, BUSY, own_sessions=True):
        place = Path(made)
        started = time.monotonic()
        environment = os.environ | {"FULLBAKE_CACHE_DIR": str(place / "cache")}
        subprocess.run(command_of(name, folder), cwd=place, check=True, env=environment)
        seconds = time.monotonic() - started
        (stored,) = place.glob("*/leaderboard.json")
        board = json.loads(stored.read_text("utf-8"))
    done = [entry for entry in board["recipes"] if entry["status"] == "done"]
    budget = board["design"]["budget_seconds"]
    ways = {"further" if entry["further_pretraining"] else entry["way"] for entry in done} - {"baseline"}
    return {
        "comparison": name,
        "busy processes": busy,
        "budget, s": budget,
        "seconds": round(seconds),
        "used": f"{seconds / budget:.0%}",
        "ways": ", ".join(sorted(ways)),
        "recipes": f"{len(done)} of {len(board['recipes'])}",
        "made smaller": "; ".join(dict.fromkeys(line for lines in board["reduced"].values() for line in lines)),
        "macro-F1": ", ".join(f"{entry['name']} {entry['test'][board['metric']]['mean']:.3f}" for entry in done),
        "verdict": board["verdict"]["words"][0],
    }


def main(folder: Path, words: list[str]) -> None:
    """Run the named comparisons and store their rows beside those of earlier runs."""
    for word in words:
        name, _, busy = word.partition(":")
        found = measure(name, int(busy or 0), folder)
        key = ("comparison", "busy processes")
        others = [row for row in stored_rows(NAME) if [row[part] for part in key] != [found[part] for part in key]]
        store_result(NAME, sorted([*others, found], key=lambda row: [row[part] for part in key]))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), sys.argv[2:] or ["demo:0", "demo:1", "demo:2", "banking77:0", "jigsaw:0"])
