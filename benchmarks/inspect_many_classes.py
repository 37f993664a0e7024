"""`fullbake inspect` on 4,800 rows with 2 to 1,600 classes: CPU seconds and findings, before and now, in one run.

    python benchmarks/inspect_many_classes.py FOLDER_WITH_THE_OLD_SOURCE

The folder is the `src` of a checkout of the version to compare with, such as a `git worktree` of 789c420. Each
measurement is a process of its own; old and new take turns.
"""

import csv
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from machine import store_result

import fullbake

ROWS = 4_800
CLASSES = (2, 100, 400, 1_600)
INSPECT = """
import json, sys, time
from fullbake.data.inspection import inspect_file
from fullbake.config.sections import DataConfig
before = time.process_time()
facts = inspect_file(sys.argv[1], DataConfig())
print(json.dumps([time.process_time() - before, len(facts.findings)]))
"""


def make(folder: Path, classes: int, *, several: bool) -> Path:
    """Write rows of random words and a word of their class, with one label or up to three a row."""
    drawn = random.Random(classes)
    words = [f"word{number}" for number in range(3_000)]
    path = folder / f"rows{classes}.{'jsonl' if several else 'csv'}"
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        if not several:
            table.writerow(["text", "label"])
        for row in range(ROWS):
            own = sorted({drawn.randrange(classes) for _ in range(drawn.randrange(4))}) if several else [row % classes]
            text = " ".join([*drawn.choices(words, k=12), *(f"topic{number}" for number in own)])
            names = [f"class {number}" for number in own]
            if several:
                file.write(json.dumps({"text": text, "label": names}) + "\n")
            else:
                table.writerow([text, names[0]])
    return path


def inspect(path: Path, source: Path) -> tuple[float, int]:
    """Return the CPU seconds and the number of findings of one version."""
    environment = os.environ | {"PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", INSPECT, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    seconds, findings = json.loads(done.stdout.splitlines()[-1])
    return seconds, findings


def main(old: Path) -> None:
    """Measure and store."""
    new = Path(fullbake.__file__).parent.parent
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as made:
        for several in (False, True):
            for classes in CLASSES:
                path = make(Path(made), classes, several=several)
                before, now = inspect(path, old), inspect(path, new)
                row = {
                    "labels a row": "0 to 3" if several else "1",
                    "rows": ROWS,
                    "classes": classes,
                    "CPU s before": round(before[0], 2),
                    "CPU s now": round(now[0], 2),
                    "findings before": before[1],
                    "findings now": now[1],
                }
                print(row, flush=True)
                rows.append(row)
    store_result("inspect_many_classes", rows)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
