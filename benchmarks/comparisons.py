"""`fullbake compare` on four data sets: which way wins, whether that is real, and what it costs.

    python benchmarks/comparisons.py FOLDER_OF_DATA [--budget 55m] [--max-rows 2000] [name ...]

FOLDER_OF_DATA holds the files named below. Base `demo`. The leaderboard of each goes to results/comparisons/NAME.json
(without the disputed rows: the texts are not ours to pass on), the folder with its page to comparisons/NAME beside the
working folder. A comparison that was stopped goes on.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.csv
from machine import RESULTS

from fullbake import compare

KEPT = RESULTS / "comparisons"


@dataclass(frozen=True)
class Task:
    """One data set. test: a file or a share of the rows. fields: of all recipes. test_rows: of a test file, at most."""

    train: str
    test: str | float
    fields: dict[str, Any]
    test_rows: int | None = None


TASKS = {
    "jigsaw_toxic": Task("jigsaw_8k.csv", 0.3, {"text": "comment_text", "label": "toxic", "max_length": 128}),
    "trec": Task("trec_train.csv", "trec_test.csv", {"label": "coarse", "max_length": 64, "drop_overlap": True}),
    "sms_spam": Task("sms_spam.csv", 0.3, {"max_length": 96}),
    "ag_news": Task(
        "ag_news_train_10k.csv",
        "ag_news_test.csv",
        {"text": "description", "max_length": 96, "drop_overlap": True},
        test_rows=2000,
    ),
}


def measure(folder: Path, name: str, budget: str | None, max_rows: int | None) -> None:
    """Run one and keep its leaderboard."""
    task = TASKS[name]
    out = Path("comparisons") / name
    test = _test_file(folder / task.test, task, out) if isinstance(task.test, str) else task.test
    board = compare(
        folder / task.train, out=out, budget=budget, max_rows=max_rows, base="demo", test=test, **task.fields
    )
    board["command"] = f"python benchmarks/comparisons.py FOLDER {name}"
    if budget:
        board["command"] += f" --budget {budget}"
    if max_rows:
        board["command"] += f" --max-rows {max_rows}"
    KEPT.mkdir(parents=True, exist_ok=True)
    (KEPT / f"{name}.json").write_text(json.dumps(_small(board), indent=1, ensure_ascii=False) + "\n", "utf-8")
    print("\n".join(board["verdict"]["words"]), flush=True)


def _test_file(path: Path, task: Task, out: Path) -> str:
    """The test file, or of a large one so many rows drawn from a fixed seed, as a file beside `out`."""
    if task.test_rows is None:
        return str(path)
    table = pyarrow.csv.read_csv(path, parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True))
    places = np.random.default_rng(0).permutation(len(table))[: task.test_rows]
    out.parent.mkdir(parents=True, exist_ok=True)
    drawn = out.with_name(f"{out.name}-test-{task.test_rows}.csv")
    pyarrow.csv.write_csv(table.take(np.sort(places)), drawn)
    return str(drawn)


def _small(board: dict[str, Any]) -> dict[str, Any]:
    """Without texts, findings that may quote them, and what is long and shown nowhere in the docs."""
    board = board | {"disagreements": [], "data": board["data"] | {"findings": []}}
    long = ("histories", "threshold_curve", "calibration", "cells")
    board["recipes"] = [{key: entry[key] for key in entry if key not in long} for entry in board["recipes"]]
    return board


def main() -> None:
    """Run the named comparisons, or all."""
    parser = argparse.ArgumentParser(description="Compare the ways on several data sets.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--budget")
    parser.add_argument("--max-rows", type=int)
    given = parser.parse_intermixed_args()
    for name in given.names or TASKS:
        measure(given.folder, name, given.budget, given.max_rows)


if __name__ == "__main__":
    main()
