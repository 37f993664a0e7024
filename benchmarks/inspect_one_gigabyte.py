"""`fullbake inspect` on a CSV of 1 GB and on smaller ones: memory and rows per second, each in a new process.

    python benchmarks/inspect_one_gigabyte.py FOLDER_OF_DATA [bytes]

The file repeats the rows of jigsaw_8k.csv with the words of each text in random order, so that few texts are equal. The
smaller files have a sixteenth and a quarter of its bytes.
"""

import csv
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from machine import store_result

INSPECT = """
import json, resource, sys, time
from functools import partial
from fullbake.data.inspection import inspect_file
from fullbake.config.sections import DataConfig
from fullbake.models.encoding import count_tokens
from fullbake.models.tokenizer import load_tokenizer
counter = partial(count_tokens, load_tokenizer("demo"))
before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
facts = inspect_file(sys.argv[1], DataConfig(), counter, 512)
seconds = time.perf_counter() - started
print(json.dumps([facts.rows, seconds, before / 1024, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))
"""


def make(source: Path, target: Path, size: int) -> None:
    """Write a CSV of about `size` bytes."""
    with source.open(newline="", encoding="utf-8") as file:
        rows = [(row["comment_text"].split(" "), row["toxic"]) for row in csv.DictReader(file)]
    random_numbers, written = random.Random(0), 0
    with target.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["text", "label"])
        while written < size:
            words, label = rows[random_numbers.randrange(len(rows))]
            text = " ".join(random_numbers.sample(words, len(words)))
            written += len(text.encode()) + 6
            table.writerow([text, label])


def inspect(path: Path) -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-c", INSPECT, str(path)], capture_output=True, text=True, check=True)
    rows, seconds, before, peak = json.loads(done.stdout.splitlines()[-1])
    row = {
        "MB": round(path.stat().st_size / 1e6),
        "rows": rows,
        "seconds": round(seconds, 1),
        "rows/s": round(rows / seconds),
        "MB before": round(before),
        "MB at most": round(peak),
    }
    print(row, flush=True)
    return row


def main(folder: Path, size: int = 1_000_000_000) -> None:
    with tempfile.TemporaryDirectory() as made:
        rows = []
        for file_size in (size // 16, size // 4, size):
            path = Path(made) / "rows.csv"
            make(folder / "jigsaw_8k.csv", path, file_size)
            rows.append(inspect(path))
    store_result("inspect_one_gigabyte", rows)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
