"""`fullbake compare` on four data sets: which way wins, whether the difference is significant, and what it costs.

    python benchmarks/comparisons.py FOLDER_OF_DATA [--budget 55m] [--max-rows 2000] [--further-steps 300] [name ...]

FOLDER_OF_DATA holds the files named below. The base is `demo`. Each leaderboard is stored in
results/comparisons/NAME.json, without texts of the data, whose license does not allow us to publish them. The workspace
with the report is comparisons/NAME in the current folder. A comparison that was stopped is resumed. With
`--further-steps`, further pretraining is that of Sun et al. 2019 (masked words and next-sentence prediction, rows of
128 tokens, batches of 32, rate 5e-5) with so many steps; without, it is that of `compare` itself.
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

STORED = RESULTS / "comparisons"


@dataclass(frozen=True)
class Task:
    """One data set.

    Attributes:
        train: The file to train on.
        test: A test file, or the share of the rows to test on.
        fields: Fields of all recipes.
        test_rows: At most this many rows of a test file are used; None: all.
    """

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


def further_pretraining(steps: int) -> dict[str, Any]:
    """Return the section of a recipe for a further pretraining of so many steps."""
    lengths = {"max_length": 128, "batch_size": 32, "steps": steps}
    return {"objective": "mlm+nsp", "learning_rate": 5e-5, "warmup": 0.1} | lengths


def measure(folder: Path, name: str, budget: str | None, max_rows: int | None, steps: int | None) -> None:
    """Run one comparison and store its leaderboard."""
    task = TASKS[name]
    fields = task.fields | ({"further_pretraining": further_pretraining(steps)} if steps else {})
    out = Path("comparisons") / name
    test = _test_file(folder / task.test, task, out) if isinstance(task.test, str) else task.test
    earlier = _seconds_of_earlier_calls(out)
    board = compare(folder / task.train, out=out, budget=budget, max_rows=max_rows, base="demo", test=test, **fields)
    board["seconds"] += earlier
    board["command"] = f"python benchmarks/comparisons.py FOLDER {name}"
    if budget:
        board["command"] += f" --budget {budget}"
    if max_rows:
        board["command"] += f" --max-rows {max_rows}"
    if steps:
        board["command"] += f" --further-steps {steps}"
    STORED.mkdir(parents=True, exist_ok=True)
    (STORED / f"{name}.json").write_text(
        json.dumps(_without_texts(board), indent=1, ensure_ascii=False) + "\n", "utf-8"
    )
    print("\n".join(board["verdict"]["words"]), flush=True)


def _seconds_of_earlier_calls(out: Path) -> float:
    """Return the seconds of the calls that this one resumes, as their leaderboard says; 0 if there is none."""
    stored = STORED / f"{out.name}.json"
    if not (out / "leaderboard.json").exists() or not stored.exists():
        return 0.0
    return float(json.loads(stored.read_text("utf-8"))["seconds"])


def _test_file(path: Path, task: Task, out: Path) -> str:
    """Return the test file; if `test_rows` is set, a file of that many of its rows, chosen by a fixed seed."""
    if task.test_rows is None:
        return str(path)
    table = pyarrow.csv.read_csv(path, parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True))
    places = np.random.default_rng(0).permutation(len(table))[: task.test_rows]
    out.parent.mkdir(parents=True, exist_ok=True)
    chosen = out.with_name(f"{out.name}-test-{task.test_rows}.csv")
    pyarrow.csv.write_csv(table.take(np.sort(places)), chosen)
    return str(chosen)


def _without_texts(board: dict[str, Any]) -> dict[str, Any]:
    """Leave out texts, findings that may quote them, and long entries that the docs do not show."""
    board = board | {"disagreements": [], "data": board["data"] | {"findings": []}}
    long_entries = ("histories", "threshold_curve", "calibration", "cells")
    board["recipes"] = [{key: entry[key] for key in entry if key not in long_entries} for entry in board["recipes"]]
    return board


def main() -> None:
    """Run the named comparisons, by default all."""
    parser = argparse.ArgumentParser(description="Compare the ways on several data sets.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--budget")
    parser.add_argument("--max-rows", type=int)
    parser.add_argument("--further-steps", type=int)
    arguments = parser.parse_intermixed_args()
    for name in arguments.names or TASKS:
        measure(arguments.folder, name, arguments.budget, arguments.max_rows, arguments.further_steps)


if __name__ == "__main__":
    main()
