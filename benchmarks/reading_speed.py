"""CPU seconds of reading a file, and of `inspect` on it: this code and an older commit, alternately in new processes.

    python benchmarks/reading_speed.py FOLDER_OF_DATA COMMIT [bytes of the CSV, 200000000]

The CSV is that of inspect_one_gigabyte.py; JSON Lines, Parquet and TSV hold its first quarter. One thread; the least of
three runs counts, because other work on the machine only adds to it. Last comes `inspect` of a CSV of five times the
bytes, once for each side: five copies, the words of each text rotated by another number, so that no texts are equal.
"""

import csv
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
from inspect_one_gigabyte import make
from machine import store_result
from pyarrow import parquet

ROOT = Path(__file__).parent.parent
ROUNDS = 3

READ = """
import json, sys, time
from fullbake.data.files import open_table
table = open_table(sys.argv[1], columns=["text", "label"])
started = time.process_time()
rows = sum(len(chunk) for chunk in table.chunks())
print(json.dumps([rows, time.process_time() - started]))
"""

INSPECT = """
import json, sys, time
from fullbake.config.sections import DataConfig
from fullbake.data.inspection import inspect_file
started = time.process_time()
facts = inspect_file(sys.argv[1], DataConfig())
print(json.dumps([facts.rows, time.process_time() - started]))
"""


def sources(commit: str, folder: Path) -> Path:
    """Unpack the package of a commit; return the folder for PYTHONPATH."""
    packed = subprocess.run(["git", "archive", commit, "src"], cwd=ROOT, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")
    return folder / "src"


def write_others(path: Path) -> list[Path]:
    """Write the first quarter of the rows of a CSV in other formats."""
    size = path.stat().st_size // 4
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        first = list(islice(reader, 1000))
        rows = [*first, *islice(reader, size * 1000 // sum(len(row["text"]) for row in first) - 1000)]
    files = [path.with_suffix(ending) for ending in (".tsv", ".jsonl", ".parquet")]
    with files[0].open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, delimiter="\t", lineterminator="\n")
        table.writerows([("text", "label"), *((row["text"], row["label"]) for row in rows)])
    files[1].write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    parquet.write_table(pa.Table.from_pylist(rows), files[2])
    return files


def write_copies(path: Path, target: Path) -> None:
    """Write five copies of the rows of a CSV, the words of each text rotated by the number of the copy."""
    with target.open("w", newline="", encoding="utf-8") as out:
        table = csv.writer(out)
        table.writerow(["text", "label"])
        for copy in range(5):
            with path.open(newline="", encoding="utf-8") as file:
                for row in csv.DictReader(file):
                    words = row["text"].split(" ")
                    table.writerow([" ".join(words[copy:] + words[:copy]), row["label"]])


def seconds(code: str, path: Path, source: Path) -> tuple[int, float]:
    """Return (rows, CPU seconds) of one run in a new process."""
    environment = os.environ | {"PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, str(path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    rows, spent = json.loads(done.stdout.splitlines()[-1])
    return rows, spent


def compare(file: Path, what: str, code: str, sides: dict[str, Path], rounds: int) -> dict[str, Any]:
    """Return the CPU seconds of both sides, measured in turn."""
    runs = [{side: seconds(code, file, source) for side, source in sides.items()} for _ in range(rounds)]
    (number,) = {rows for run in runs for rows, _ in run.values()}
    best = {side: min(run[side][1] for run in runs) for side in sides}
    row = {"file": file.suffix, "MB": round(file.stat().st_size / 1e6), "rows": number, "what": what, "runs": rounds}
    row |= {f"{side}, CPU s": round(spent, 2) for side, spent in best.items()}
    row |= {"now / before": round(best["now"] / best["before"], 3)}
    print(row, flush=True)
    return row


def main(data: Path, commit: str, size: int = 200_000_000) -> None:
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as made:
        sides = {"before": sources(commit, Path(made) / "old"), "now": ROOT / "src"}
        path = Path(made) / "rows.csv"
        make(data / "jigsaw_8k.csv", path, size)
        for file in [path, *write_others(path)]:
            for what, code in (("reading", READ), ("inspect", INSPECT)):
                rows.append(compare(file, what, code, sides, ROUNDS))
        large = Path(made) / "large.csv"
        write_copies(path, large)
        rows.append(compare(large, "inspect", INSPECT, sides, 1))
    store_result("reading_speed", rows, before=commit)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:]))
