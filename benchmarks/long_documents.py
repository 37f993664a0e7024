"""Test accuracy on IMDb by way and truncation: head, tail, head+tail, and windows, with equal settings.

    python benchmarks/long_documents.py FOLDER_OF_DATA [training rows] [test rows] [fine-tuning rows]

The limit is 128 tokens, and nine reviews in ten are longer. Neighboring windows share a quarter of the limit, which is
the default. Validation is 20% of the training rows. Each way and truncation is one run with one seed.
"""

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from machine import store_result

from fullbake import Dataset, Recipe, adapt, evaluate
from fullbake.data.labeled_files import read_labeled
from fullbake.data.partition import split

TRUNCATIONS = ("head", "tail", "head+tail", "windows")
LIMIT = 128


def sample(path: Path, rows: int, config: Any, names: tuple[str, ...] | None = None) -> Dataset:
    data = read_labeled(path, config, label_names=names)
    return data.take(split(np.arange(len(data)), data.labels, rows / len(data), 0)[1])


def measure(folder: Path, recipe: str, truncation: str, train_rows: int, test_rows: int) -> dict[str, Any]:
    extra = {"batch_size": 16, "epochs": 2} if recipe == "finetune" else {}
    chosen = Recipe.load(recipe, base="demo", max_length=LIMIT, truncation=truncation, folds=0, **extra)
    train = sample(folder / "imdb_train.parquet", train_rows, chosen.data)
    test = sample(folder / "imdb_test.parquet", test_rows, chosen.data, train.label_names)
    started = time.perf_counter()
    classifier = adapt(chosen, train)
    seconds = time.perf_counter() - started
    scored = time.perf_counter()
    accuracy = evaluate(classifier, test)["overall"]["accuracy"]
    row = {
        "recipe": recipe,
        "truncation": truncation,
        "training rows": len(train),
        "test rows": len(test),
        "accuracy": round(accuracy["value"], 4),
        "95% interval": f"{accuracy['low']:.3f} to {accuracy['high']:.3f}",
        "training seconds": round(seconds),
        "test rows/s": round(len(test) / (time.perf_counter() - scored), 1),
    }
    print(row, flush=True)
    return row


def main(folder: Path, train_rows: int = 2000, test_rows: int = 2000, tuned_rows: int = 800) -> None:
    rows = [measure(folder, "frozen-linear", truncation, train_rows, test_rows) for truncation in TRUNCATIONS]
    rows += [measure(folder, "finetune", truncation, tuned_rows, test_rows) for truncation in TRUNCATIONS]
    store_result("long_documents", rows, max_length=LIMIT)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
