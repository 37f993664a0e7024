"""The two engines of a bundle: cold start to the score of one text, and many texts.

    python benchmarks/engines.py FOLDER_OF_DATA [--before SRC] [--texts 3000] [--rounds 5]

A frozen-linear classifier is trained on 600 rows of AG News and exported. Cold start is the whole command `fullbake
predict BUNDLE TEXT`, in a process of its own; SRC is the `src` folder of an earlier version, which scores the same
bundle without its graph. Sides alternate. Everything computes with one thread; seconds are those of the processor, with
the least of all rounds beside the median.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from machine import store_result
from small_sets import draw, recipe_of

from fullbake.classifier.adapt import adapt
from fullbake.data.labeled_files import read_labeled

TEXT = "Stocks rose on Friday as oil prices fell for the third day in a row."

SCORE = """
import json, sys, time
import numpy as np
from fullbake import Classifier
task = json.load(sys.stdin)
classifier = Classifier.load(task["bundle"], engine=task["engine"])
classifier.predict_proba(task["texts"][:64])
begun = time.process_time()
found = classifier.predict_proba(task["texts"])
print(json.dumps({"seconds": time.process_time() - begun, "scores": found.round(7).tolist()}))
"""


def environment(source: str | None = None) -> dict[str, str]:
    """Return the environment of a child with one thread. source: the `src` folder to import from."""
    own = os.environ | {"OMP_NUM_THREADS": "1"}
    return own if source is None else own | {"PYTHONPATH": source}


def cpu_seconds(command: list[str], source: str | None = None) -> tuple[float, float]:
    """Run a command; return its processor seconds and the seconds that passed."""
    before, begun = os.times(), time.perf_counter()
    subprocess.run(command, check=True, env=environment(source), stdout=subprocess.DEVNULL)
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return used, time.perf_counter() - begun


def cold_starts(bundle: Path, without_graph: Path, before: str | None, rounds: int) -> list[dict[str, Any]]:
    """Return a row for each side: the processor seconds of `predict` with one text."""
    predict = [sys.executable, "-m", "fullbake", "predict"]
    sides: dict[str, tuple[list[str], str | None]] = {
        "onnx": ([*predict, str(bundle), TEXT], None),
        "torch": ([*predict, str(without_graph), TEXT], None),
    }
    if before is not None:
        sides["earlier version"] = ([*predict, str(without_graph), TEXT], before)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, (command, source) in sides.items():
            found[name].append(cpu_seconds(command, source))
    return [
        row("one text, cold", name, [cpu for cpu, _ in own], [wall for _, wall in own]) for name, own in found.items()
    ]


def many_texts(bundle: Path, texts: list[str], rounds: int) -> list[dict[str, Any]]:
    """Return a row for each engine: the processor seconds of many texts, and how far the scores are apart."""
    found: dict[str, list[float]] = {"onnx": [], "torch": []}
    scores: dict[str, Any] = {}
    for _ in range(rounds):
        for engine, own in found.items():
            task = json.dumps({"bundle": str(bundle), "engine": engine, "texts": texts})
            done = subprocess.run(
                [sys.executable, "-c", SCORE], input=task, text=True, check=True, env=environment(), capture_output=True
            )
            answer = json.loads(done.stdout)
            own.append(answer["seconds"])
            scores[engine] = answer["scores"]
    apart = max(
        abs(a - b) for one, other in zip(*scores.values(), strict=True) for a, b in zip(one, other, strict=True)
    )
    rows = [row(f"{len(texts):,} texts", engine, own) for engine, own in found.items()]
    return [one | {"largest difference of scores": float(f"{apart:.2g}")} for one in rows]


def row(work: str, side: str, cpu: list[float], wall: list[float] | None = None) -> dict[str, Any]:
    """Return a row of the table."""
    seconds = {"CPU s": round(median(cpu), 3), "least CPU s": round(min(cpu), 3)}
    return {"work": work, "side": side} | seconds | ({} if wall is None else {"least s": round(min(wall), 3)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--before")
    parser.add_argument("--texts", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        bundle, without_graph = Path(made) / "bundle", Path(made) / "without-graph"
        parts = draw(given.folder, "ag_news", 0)
        train = parts.train.source.take(parts.train.indices)
        adapt(recipe_of("ag_news", "frozen-linear"), train, out=bundle, cache_dir=made)
        shutil.copytree(bundle, without_graph)
        subprocess.run([sys.executable, "-m", "fullbake", "export", str(bundle)], check=True)
        recipe = recipe_of("ag_news")
        texts = read_labeled(given.folder / "ag_news_test.csv", recipe.data).texts.to_pylist()[: given.texts]
        rows = cold_starts(bundle, without_graph, given.before, given.rounds)
        rows += many_texts(bundle, texts, given.rounds)
    ratios = {
        work: round(
            side["CPU s"] / next(one["CPU s"] for one in rows if one["work"] == work and one["side"] == "onnx"), 2
        )
        for work in dict.fromkeys(one["work"] for one in rows)
        for side in [next(one for one in reversed(rows) if one["work"] == work)]
    }
    store_result("engines", rows, data="AG News, base demo, frozen-linear", onnx_is_faster_by=ratios)


if __name__ == "__main__":
    main()
