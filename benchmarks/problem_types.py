"""Test scores by way for multi-label rows, pairs, 77 classes and Chinese, with and without fitted thresholds.

    python benchmarks/problem_types.py FOLDER_OF_DATA [name ...]

FOLDER_OF_DATA holds the data sets named below. Where a number of training rows is given, so many are chosen by a seeded
stratified split; all rows of the test files are scored. The base is `demo`. Only ChnSentiCorp uses a small base with
random weights, to show that Chinese text is processed without errors; its score has no meaning.
"""

import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from machine import store_result, stored_rows

from fullbake import Recipe, adapt
from fullbake.classifier.evaluate import read_as_trained
from fullbake.data.labeled_files import read_labeled
from fullbake.data.partition import split
from fullbake.evaluation.calibration import score_decision
from fullbake.evaluation.decisions import Decision

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))


@dataclass(frozen=True)
class Task:
    """One data set.

    Attributes:
        train: The training file.
        test: The test file.
        rows: The training rows to use; None: all.
        fields: Fields of the recipe.
    """

    train: str
    test: str
    rows: int | None
    fields: dict[str, Any] = field(default_factory=dict)


TASKS = {
    "goemotions (28 labels)": Task(
        "goemotions_train.jsonl", "goemotions_test.jsonl", 6000, {"label": "labels", "max_length": 64, "folds": 0}
    ),
    "mrpc (pairs)": Task(
        "mrpc_train.csv", "mrpc_test.csv", None, {"text": "sentence1", "text_pair": "sentence2", "max_length": 128}
    ),
    "banking77 (77 classes)": Task("banking77_train.csv", "banking77_test.csv", None, {"max_length": 64}),
    "chnsenticorp (random base)": Task(
        "chnsenticorp_train.csv", "chnsenticorp_dev.csv", 2000, {"max_length": 128, "epochs": 1}
    ),
}
RECIPES: dict[str, dict[str, Any]] = {
    "frozen-linear": {},
    "frozen-mlp": {},
    "finetune": {"batch_size": 16},
    "finetune, linear head": {"batch_size": 16, "head": "linear"},
}


def measure(folder: Path, name: str, recipe: str, base: str) -> dict[str, Any]:
    task, started = TASKS[name], time.perf_counter()
    fields = {"validation": 0.15} | task.fields
    if recipe == "frozen-linear":
        fields.pop("epochs", None)
    chosen = Recipe.load(recipe.partition(",")[0], base=base, **fields, **RECIPES[recipe])
    data = read_labeled(folder / task.train, chosen.data)
    if task.rows is not None:
        chosen_rows = split(np.arange(len(data)), data.labels, task.rows / len(data), 0)[1]
        data = data.take(chosen_rows)
    classifier = adapt(chosen, data)
    seconds = time.perf_counter() - started
    test = read_as_trained(classifier, folder / task.test)
    logits = classifier.logits(test.texts, test.text_pair)
    plain = score_decision(test.labels, logits, Decision(classifier.problem, classifier.label_names))
    tuned = score_decision(test.labels, logits, classifier.decision)
    calibration = classifier.record.facts["calibration"]
    return {
        "data": name,
        "recipe": recipe,
        "training rows": len(data),
        "test rows": len(test),
        "macro F1": value(tuned, "f1_macro"),
        "micro F1": value(tuned, "f1_micro"),
        "macro F1 at 0.5": value(plain, "f1_macro"),
        "micro F1 at 0.5": value(plain, "f1_micro"),
        "temperature": round(calibration["temperature"], 3),
        "test ECE": round(tuned["calibration"]["ece"], 4),
        "seconds": round(seconds),
    }


def value(scores: dict[str, Any], name: str) -> float:
    return round(scores["overall"][name]["value"], 4)


def main(folder: Path, names: list[str]) -> None:
    """Measure the named data sets, by default all; stored rows of other data sets are kept."""
    from helpers.bases import make_base

    rows = [row for row in stored_rows("problem_types") if row["data"] not in names] if names else []
    with tempfile.TemporaryDirectory() as made:
        for name in names or TASKS:
            base = str(make_base("bert", Path(made))) if "random" in name else "demo"
            for recipe in RECIPES:
                rows.append(measure(folder, name, recipe, base))
                print(rows[-1], flush=True)
    store_result("problem_types", rows)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
