"""A million short rows scored by one process, by two actors on Ray of which one is killed twice, and by Spark.

    python benchmarks/cluster_scoring.py BUNDLE TEXTS.csv FOLDER

TEXTS.csv has a column `text`. Its rows are repeated until there are enough, each with its number behind it, so that no
two texts are equal (fullbake scores equal texts twice anyway; Spark may not). FOLDER holds input and outputs; it must
be on a disk, not in memory. Every side is a process of its own, one after the other, with one thread for each worker.
The checksum is of the sorted rows: number, label and scores as written.
"""

import argparse
import csv
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from machine import RESULTS, store_result

from fullbake.data.files import open_table

CURVES = RESULTS / "curves"
"""Where the memory over time is stored: (seconds, MB) of each process."""

EVERY = 1.0
"""Seconds between two looks at the memory."""

COLUMNS = ("id", "predicted", "score", "score:ham", "score:spam")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("texts", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--shards", type=int, default=40)
    parser.add_argument("--sides", nargs="+", default=["one", "jobs", "ray", "spark"])
    parser.add_argument("--name", default="cluster_scoring")
    parser.add_argument("--spark", action="store_true", help="be the side of Spark; used by this script itself")
    given = parser.parse_args()
    if given.spark:
        score_with_spark(given.bundle, given.folder)
        return
    os.environ |= {"OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0"}  # Ray's own choice is 15: after all others
    write_input(given.texts, given.folder, given.rows, given.shards)
    kept = stored(given.name)  # sides that are not measured now
    found = kept | {facts["side"]: facts for facts in (SIDES[name](given) for name in given.sides)}
    rows = list(found.values())
    curves = {facts["side"]: facts.pop("curve") for facts in rows}
    for facts in rows:
        facts["equal to one process"] = facts["checksum"] == found["one process"]["checksum"]
        if facts["side"] == "Spark local[2]" and (given.folder / "spark").exists():
            facts |= differences(given.folder / "one.csv", given.folder / "spark")
    store_result(given.name, rows, bundle=given.bundle.name, shards=given.shards, deduplication="none")
    CURVES.mkdir(exist_ok=True)
    (CURVES / f"{given.name}.json").write_text(json.dumps(curves) + "\n")
    draw(curves, Path(__file__).parent.parent / "docs" / "images" / f"{given.name.replace('_', '-')}-memory.png")


def stored(name: str) -> dict[str, dict[str, Any]]:
    """Return what was stored of each side, with its memory."""
    path = RESULTS / f"{name}.json"
    if not path.exists():
        return {}
    curves = json.loads((CURVES / f"{name}.json").read_text("utf-8"))
    rows = json.loads(path.read_text("utf-8"))["rows"]
    return {facts["side"]: facts | {"curve": curves[facts["side"]]} for facts in rows}


def write_input(texts: Path, folder: Path, rows: int, shards: int) -> None:
    """Write the rows as CSV shards, and the same shards as Parquet for Spark, unless they are there."""
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet as pq

    if (folder / "parquet" / f"part-{shards - 1:05d}.parquet").exists():
        return
    for name in ("csv", "parquet"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    with texts.open(encoding="utf-8", newline="") as file:
        known = [row["text"] for row in csv.DictReader(file)]
    for shard in range(shards):
        own = range(shard * rows // shards, (shard + 1) * rows // shards)
        table = pa.table({"id": list(own), "text": [f"{known[row % len(known)]} {row}" for row in own]})
        pq.write_table(table, folder / "parquet" / f"part-{shard:05d}.parquet")
        pyarrow.csv.write_csv(table, folder / "csv" / f"part-{shard:05d}.csv")


# The sides


def with_one_process(given: Any) -> dict[str, Any]:
    out = given.folder / "one.csv"
    words = predict(given.bundle, given.folder / "csv", out, "--threads", "1", "--overwrite")
    return watched("one process", words, out, lambda _: {})


def with_two_processes(given: Any) -> dict[str, Any]:
    out = fresh(given.folder / "jobs")
    words = predict(given.bundle, given.folder / "csv", out, "--jobs", "2", "--threads", "1")
    return watched("two processes (--jobs 2)", words, out, lambda _: workers(out))


def with_ray(given: Any) -> dict[str, Any]:
    """Kill the actor that is scoring when a third of the shards is finished, and again at two thirds."""
    out = fresh(given.folder / "ray")
    killed: list[int] = []

    def look(_: psutil.Process) -> dict[str, psutil.Process]:
        found = workers(out)
        finished = len(list((out / "_shards").glob("*.json")))
        if len(killed) < 2 and finished >= given.shards * (len(killed) + 1) // 3 and found:
            victim = sorted(found)[-1]
            os.kill(found[victim].pid, signal.SIGKILL)
            killed.append(found[victim].pid)
        return found

    words = predict(given.bundle, given.folder / "csv", out, "--on", "ray:local", "--jobs", "2", "--threads", "1")
    facts = watched("Ray Data, 2 actors, one killed twice", words, out, look)
    return facts | {"killed": len(killed)}


def with_spark(given: Any) -> dict[str, Any]:
    out = fresh(given.folder / "spark")
    words = [sys.executable, __file__, "--spark", str(given.bundle), str(given.texts), str(given.folder)]

    def look(process: psutil.Process) -> dict[str, psutil.Process]:
        children = process.children(recursive=True)
        named = {f"python {child.pid}": child for child in children if "pyspark.daemon" in command_of(child)}
        return named | dict([("JVM", child) for child in children if command_of(child).startswith("java ")][:1])

    return watched("Spark local[2]", words, out, look)


SIDES: dict[str, Callable[[Any], dict[str, Any]]] = {
    "one": with_one_process,
    "jobs": with_two_processes,
    "ray": with_ray,
    "spark": with_spark,
}


def score_with_spark(bundle: Path, folder: Path) -> None:
    from pyspark.sql import SparkSession

    from fullbake.integrations.spark import score

    settings = {"spark.ui.enabled": "false", "spark.driver.memory": "1g", "spark.driver.host": "127.0.0.1"}
    builder = SparkSession.builder.master("local[2]")
    for name, value in settings.items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    score(spark.read.parquet(str(folder / "parquet")), bundle).write.parquet(str(folder / "spark"))
    spark.stop()


def command_of(process: psutil.Process) -> str:
    """Return the command of a process with the name of its program first, "" of one that has ended."""
    try:
        return f"{process.name()} {' '.join(process.cmdline())}"
    except psutil.Error:
        return ""


def predict(bundle: Path, source: Path, out: Path, *flags: str) -> list[str]:
    return [sys.executable, "-m", "fullbake", "predict", str(bundle), str(source), "--out", str(out), *flags]


def fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    return folder


# Watching


def workers(out: Path) -> dict[str, psutil.Process]:
    """Return the processes that score a shard now, as the folder of the output names them."""
    found = {}
    for path in (out / "_attempts").glob("*.txt"):
        with suppress(OSError, ValueError, IndexError, psutil.Error):
            pid = int(path.read_text().split()[1])
            found[f"worker {pid}"] = psutil.Process(pid)
    return found


def watched(
    side: str, words: list[str], out: Path, look: Callable[[psutil.Process], dict[str, psutil.Process]]
) -> dict[str, Any]:
    """Run a command, look at the memory of its processes meanwhile, and read what it wrote."""
    begun, curve = time.monotonic(), {}
    first: float | None = None
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    driver = psutil.Process(process.pid)
    known: dict[str, psutil.Process] = {}
    while process.poll() is None:
        passed = round(time.monotonic() - begun, 1)
        with suppress(psutil.Error):
            new = look(driver)
            first = passed if first is None and new else first
            known |= new
        for name, one in {"driver": driver, **known}.items():
            with suppress(psutil.Error):
                curve.setdefault(name, []).append([passed, round(one.memory_info().rss / 1e6, 1)])
        time.sleep(EVERY)
    seconds = time.monotonic() - begun
    if process.returncode:
        raise SystemExit(f"{side} ended with code {process.returncode}")
    rows, checksum = summary(out)
    peaks = {name: max(size for _, size in points) for name, points in curve.items()}
    scored = "" if first is None else round(seconds - first, 1)
    print(f"{side}: {rows:,} rows in {seconds:.1f} s, {checksum[:12]}, {peaks}", flush=True)
    return {
        "side": side,
        "rows": rows,
        "seconds": round(seconds, 1),
        "rows a second": round(rows / seconds),
        "seconds without the start": scored,
        "driver, most MB": peaks.pop("driver"),
        "worker, most MB": max((peaks[name] for name in peaks if name != "JVM"), default=""),
        "checksum": checksum,
        "curve": curve,
    }


def summary(out: Path) -> tuple[int, str]:
    """Return the number of rows that were written, and a checksum of them that does not depend on their order."""
    lines = sorted(_lines(out))
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode())
    return len(lines), digest.hexdigest()


def differences(one: Path, other: Path) -> dict[str, Any]:
    """Return how many rows have another label, and the largest difference of a score."""
    (labels, scores), (other_labels, other_scores) = _arrays(one), _arrays(other)
    largest = float(np.abs(scores - other_scores).max())
    return {"rows with another label": int((labels != other_labels).sum()), "largest difference of a score": largest}


def _arrays(out: Path) -> tuple[Any, Any]:
    """Return the labels (rows,) and the scores (rows, 3) in the order of the rows' numbers."""
    columns: dict[str, list[str]] = {name: [] for name in COLUMNS}
    for chunk in open_table(out, columns=COLUMNS).chunks():
        for name in COLUMNS:
            columns[name] += chunk.columns[name]
    order = np.argsort(np.array(columns["id"], np.int64))
    scores = np.stack([np.array(columns[name], np.float64) for name in COLUMNS[2:]], axis=1)
    return np.array(columns["predicted"])[order], scores[order]


def _lines(out: Path) -> Iterator[str]:
    for chunk in open_table(out, columns=COLUMNS).chunks():
        for values in zip(*(chunk.columns[name] for name in COLUMNS), strict=True):
            yield "\x1f".join([*values[:2], *(f"{float(value):.7f}" for value in values[2:])]) + "\n"


def draw(curves: dict[str, Any], target: Path) -> None:
    """Draw the memory of all processes over time, a panel for each side."""
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, len(curves), figsize=(3.2 * len(curves), 2.8), sharey=True, squeeze=False)
    for panel, (side, curve) in zip(panels[0], curves.items(), strict=True):
        workers_seen = 0
        for name, points in curve.items():
            is_worker = name not in ("driver", "JVM")
            label = name if not is_worker else "workers" if not workers_seen else None
            workers_seen += is_worker
            color = {"driver": "#1f77b4", "JVM": "#d62728"}.get(name, "#ff7f0e")
            panel.plot(*zip(*points, strict=True), label=label, color=color, linewidth=1)
        panel.set_title(side, fontsize=8)
        panel.set_xlabel("seconds", fontsize=8)
        panel.tick_params(labelsize=7)
        panel.legend(fontsize=7, frameon=False)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0][0].set_ylabel("resident memory, MB", fontsize=8)
    panels[0][0].set_ylim(bottom=0)
    figure.tight_layout()
    figure.savefig(target, dpi=130)


if __name__ == "__main__":
    main()
