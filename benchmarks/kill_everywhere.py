"""SIGKILL before every event of a run, in turn, then the same command again: do the same weights come out?

    python benchmarks/kill_everywhere.py [way ...]

Events are every storage operation (folder made, file written, synced, renamed, removed), the checkpoints' and the
final save's among them, and every optimizer step. The runs are those of tests/faults/harness.py.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from machine import keep

HARNESS = Path(__file__).parent.parent / "tests" / "faults" / "harness.py"
SAME = ("weights", "metrics", "history")


def outcomes(folder: Path, way: str, points: range) -> list[dict[str, Any]]:
    folder.mkdir()
    command = [sys.executable, str(HARNESS), str(folder), way, *map(str, points)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def row(way: str) -> dict[str, Any]:
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as place:
        events = outcomes(Path(place) / "count", way, range(0))[0]["events"]
        whole, *killed = outcomes(Path(place) / "kill", way, range(events))
    same = [end for end in killed if end["finished"] and all(end[part] == whole[part] for part in SAME)]
    told = {"run": way, "events": events, "killed": sum(end["killed"] for end in killed), "same bits": len(same)}
    print(told, flush=True)
    return told | {"seconds": round(time.perf_counter() - started)}


if __name__ == "__main__":
    ways = sys.argv[1:] or ["finetune", "grid", "finetune-mlp", "frozen"]
    keep("kill_everywhere", [row(way) for way in ways])
