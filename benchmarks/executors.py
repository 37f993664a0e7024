"""Trials of a comparison in one process, in two, and on a Ray cluster: twelve short ones, or four long ones.

    python benchmarks/executors.py sms_spam.csv
    python benchmarks/executors.py trec_train.csv --long

The Ray cluster has three nodes of one CPU on this machine. The node to be killed is the one that runs a trial when the
first two are finished. Every way has an empty cache and one thread for each trial; besides the time, the bytes of all
logits are compared. CPU seconds are those of the command and of all processes that it started; those of the cluster are
read every half second, because its processes have other parents. The base is
small and random (two layers of width 64, the vocabulary of `demo`), so that the whole benchmark takes minutes.

With --long it is four fine-tunings of `demo`'s encoder, each of 15 to 30 seconds: in one process that computes with all
processors, in one with one thread, in two with one thread each, and on a Ray cluster of two CPUs on this machine. No
node is killed. `trial_seconds` is the median of what the trials took; the rest of `seconds` is what each way begins and
ends with. Two threads give other bits than one. What the encoder forgot is not measured: it would take longer, and the
same time each way.
"""

import argparse
import csv
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median
from typing import Any

from machine import store_result

ROWS = 1_000
RECIPES = ("frozen-mlp", "finetune", "frozen-linear", "tfidf")
SEEDS = 5
"""Of the first two recipes; the others do not depend on a seed."""
FIELDS: dict[str, Any] = {"text": "text", "label": "label", "max_length": 32, "epochs": 2, "test": 0.3}
RATE = 1e-3
FINISHED_BEFORE_THE_KILL = 2

LONG_ROWS = 900
LONG_FIELDS: dict[str, Any] = {"text": "text", "label": "coarse", "max_length": 32, "epochs": 3, "test": 0.3}
LONG_SEEDS = 2
LONG_RECIPES = ("finetune", "devlin2019")
LONG_WAYS: dict[str, dict[str, Any]] = {
    "one process, 2 threads": {"threads": 2},
    "one process, 1 thread": {"threads": 1},
    "--jobs 2, 1 thread each": {"threads": 1, "jobs": 2},
    "--on ray, 2 CPUs, 1 thread each": {"threads": 1, "on": "ray:local"},
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("--rows", type=int)
    parser.add_argument("--long", action="store_true")
    given = parser.parse_args()
    if given.long:
        compare_long_trials(given.data, given.rows or LONG_ROWS)
    else:
        compare_short_trials(given.data, given.rows or ROWS)


def compare_short_trials(source: Path, count: int) -> None:
    with tempfile.TemporaryDirectory(prefix="fbx") as name:
        folder = Path(name)
        data = sample(source, count, folder / "rows.csv")
        base = make_base(folder / "base")
        rows = [measured(way, data, base, folder) for way in ("local", "jobs", "ray")]
        for row in rows:
            row["same_bits"] = logits(folder / row["way"]) == logits(folder / "local")
    for row in rows:
        print(row)
    store_result("executors", rows, data=f"{count:,} rows of {source.name}, {FIELDS['epochs']} epochs")


def compare_long_trials(source: Path, count: int) -> None:
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="fbx") as name:
        folder = Path(name)
        data = sample(source, count, folder / "rows.csv")
        for number, where in enumerate(LONG_WAYS):
            own = folder / f"long {number}"
            started = time.perf_counter()
            subprocess.run([sys.executable, __file__, own.name, str(data), "demo", str(folder)], check=True)
            seconds = round(time.perf_counter() - started, 1)
            trials = [json.loads(path.read_text()) for path in own.glob("out/cells/**/trained/manifest.json")]
            facts = {
                "trials": len(trials),
                "trial_seconds": round(median(one["about"]["facts"]["seconds"] for one in trials), 1),
            }
            cpu = float((own / "cpu").read_text())
            rows.append({"where": where, **facts, "seconds": seconds, "cpu_seconds": cpu})
            rows[-1]["bits_of_one_thread"] = logits(own) == logits(folder / "long 1") if number > 1 else "-"
            print(rows[-1])
    store_result("executors_long", rows, data=f"{count:,} rows of {source.name}, {LONG_FIELDS['epochs']} epochs")


def sample(path: Path, count: int, target: Path) -> Path:
    """Write so many rows, drawn with a seed, and return their file."""
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    with target.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *random.Random(0).sample(rows, count)])
    return target


def make_base(folder: Path) -> Path:
    """Save a small BERT with random weights, and return its folder."""
    import torch
    from transformers import BertConfig, BertForMaskedLM

    from fullbake.models.tokenizer import load_tokenizer

    torch.manual_seed(0)
    tokenizer = load_tokenizer("demo")
    shape = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 256}
    BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), **shape)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def measured(way: str, data: Path, base: Path, folder: Path) -> dict[str, Any]:
    """Run the comparison one way, in a process of its own, and return its figures."""
    before, started = _child_seconds(), time.perf_counter()
    subprocess.run([sys.executable, __file__, way, str(data), str(base), str(folder)], check=True)
    words = {"local": "one process", "jobs": "--jobs 2", "ray": "--on ray, 3 nodes of 1 CPU, one killed"}
    trials = len(list((folder / way).glob("out/cells/**/trained")))
    seconds, cpu = round(time.perf_counter() - started, 1), round(_child_seconds() - before, 1)
    if way == "ray":
        cpu = float((folder / way / "cpu").read_text())
    killed = (folder / way / "killed").read_text() if way == "ray" else "none"
    facts = {"trials": trials, "seconds": seconds, "cpu_seconds": cpu, "node_killed": killed}
    return {"way": way, "where": words[way], **facts}


def _child_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run(way: str, data: Path, base: Path, folder: Path) -> None:
    """Run the comparison."""
    own = folder / way
    own.mkdir()
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # As the other ways: by default Ray lets its workers wait for all other processes.
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112  (Ray spells it so)
    from fullbake import compare
    from fullbake.comparison.functions import ComparisonFunctions

    if way.startswith("long"):
        given = LONG_FIELDS | list(LONG_WAYS.values())[int(way.removeprefix("long "))]
        given |= {"base": "demo", "out": own / "out", "cache_dir": own / "cache", "seeds": LONG_SEEDS}
        with watched_processes(own / "cpu"):
            functions = ComparisonFunctions(open_probe=_refuse_probe)
            compare(data, **given, rates=2e-4, recipes=LONG_RECIPES, bench=False, functions=functions)
        return
    fields = FIELDS | {"base": str(base), "out": own / "out", "cache_dir": own / "cache", "threads": 1, "seeds": SEEDS}
    fields |= {"rates": RATE, "recipes": RECIPES}
    if way == "local":
        compare(data, **fields)
    elif way == "jobs":
        compare(data, **fields, jobs=2)
    else:
        with cluster_with_a_death(own), watched_processes(own / "cpu"):
            compare(data, **fields, on="ray")


def _refuse_probe(*_: Any, **__: Any) -> Any:
    from fullbake.core.errors import Error

    raise Error("what it forgot is not measured here")


@contextmanager
def cluster_with_a_death(own: Path) -> Iterator[None]:
    """Within the block, be connected to a cluster of three nodes, of which one is killed while it runs a trial.

    The driver's node has no CPU, so that each of the three nodes can be killed.
    """
    import ray
    from ray.cluster_utils import Cluster

    place = tempfile.mkdtemp(prefix="fbr")
    head = {"num_cpus": 0, "object_store_memory": 100_000_000, "include_dashboard": False, "temp_dir": place}
    quiet = {"logging_level": "ERROR", "log_to_driver": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    nodes = [cluster.add_node(num_cpus=1, object_store_memory=100_000_000) for _ in range(3)]
    ray.init(address=cluster.address, **quiet)

    def kill() -> None:
        cells = own / "out" / "cells"
        while len(list(cells.glob("**/trained"))) < FINISHED_BEFORE_THE_KILL:
            time.sleep(0.2)
        busy = next(node for node in nodes if _is_busy(ray, node))
        cluster.remove_node(busy, allow_graceful=False)
        (own / "killed").write_text(f"after {len(list(cells.glob('**/trained')))} trials")

    threading.Thread(target=kill, daemon=True).start()
    try:
        yield
    finally:
        ray.shutdown()
        cluster.shutdown()


@contextmanager
def watched_processes(target: Path) -> Iterator[None]:
    """Within the block, watch this process and all below it; at the end write their CPU seconds into a file."""
    import psutil

    own, used, done = psutil.Process(), dict[int, float](), threading.Event()

    def look() -> None:
        while not done.wait(0.5):
            for process in [own, *own.children(recursive=True)]:
                with suppress(psutil.Error):
                    times = process.cpu_times()
                    used[process.pid] = times.user + times.system

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    yield
    done.set()
    watcher.join()
    target.write_text(f"{sum(used.values()):.1f}")


def _is_busy(ray: Any, node: Any) -> bool:
    """Return True if a node runs a task: its CPU is taken."""
    available = ray._private.state.available_resources_per_node()
    return available.get(node.node_id, {}).get("CPU", 0) < 1


def logits(folder: Path) -> dict[str, bytes]:
    """Return the bytes of the logits of all trials, by file."""
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.glob("out/cells/**/arrays.*")}
    return {name: data for name, data in found.items() if "/weights/" not in name}


if __name__ == "__main__":
    if sys.argv[1] in ("local", "jobs", "ray") or sys.argv[1].startswith("long "):
        run(sys.argv[1], *map(Path, sys.argv[2:]))
    else:
        main()
