"""Kill a run by SIGKILL before each of its events, run the same command again, and compare the weights.

    python benchmarks/kill_everywhere.py [way ...]

The events are all storage operations (make a folder; write, sync, rename or remove a file), also those of checkpoints
and of the final save, and all optimizer steps. The runs are those of tests/faults/harness.py.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from machine import store_result

HARNESS = Path(__file__).parent.parent / "tests" / "faults" / "harness.py"
SAME = ("weights", "metrics", "history")


def run_and_kill(folder: Path, way: str, points: range) -> list[dict[str, Any]]:
    folder.mkdir()
    command = [sys.executable, str(HARNESS), str(folder), way, *map(str, points)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def row(way: str) -> dict[str, Any]:
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        events = run_and_kill(Path(folder) / "count", way, range(0))[0]["events"]
        uninterrupted, *killed = run_and_kill(Path(folder) / "kill", way, range(events))
    same = [end for end in killed if end["finished"] and all(end[part] == uninterrupted[part] for part in SAME)]
    result = {"run": way, "events": events, "killed": sum(end["killed"] for end in killed), "same bits": len(same)}
    print(result, flush=True)
    return result | {"seconds": round(time.perf_counter() - started)}


if __name__ == "__main__":
    ways = sys.argv[1:] or ["finetune", "grid", "finetune-mlp", "frozen"]
    store_result("kill_everywhere", [row(way) for way in ways])
