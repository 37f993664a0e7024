"""IMDb at equal settings, cut at the head, the tail, both, and read in windows: accuracy on test, by way.

    python benchmarks/long_documents.py FOLDER_OF_DATA [training rows] [test rows] [fine-tuning rows]

The limit is 128 tokens, so that nine reviews in ten are longer; windows share a quarter of it, the default. Validation
is 20% of the training rows; each way and truncation is one run with one seed.
"""

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from machine import keep

from fullbake import Dataset, Recipe, adapt, evaluate
from fullbake.data.splits import read_labeled, split

TRUNCATIONS = ("head", "tail", "head+tail", "windows")
LIMIT = 128


def draw(path: Path, rows: int, config: Any, names: tuple[str, ...] | None = None) -> Dataset:
    data = read_labeled(path, config, label_names=names)
    return data.take(split(np.arange(len(data)), data.labels, rows / len(data), 0)[1])


def measure(folder: Path, recipe: str, truncation: str, train_rows: int, test_rows: int) -> dict[str, Any]:
    extra = {"batch_size": 16, "epochs": 2} if recipe == "finetune" else {}
    chosen = Recipe.load(recipe, base="demo", max_length=LIMIT, truncation=truncation, folds=0, **extra)
    train = draw(folder / "imdb_train.parquet", train_rows, chosen.data)
    test = draw(folder / "imdb_test.parquet", test_rows, chosen.data, train.label_names)
    started = time.perf_counter()
    classifier = adapt(chosen, train)
    seconds = time.perf_counter() - started
    scored = time.perf_counter()
    figure = evaluate(classifier, test)["overall"]["accuracy"]
    row = {
        "recipe": recipe,
        "truncation": truncation,
        "training rows": len(train),
        "test rows": len(test),
        "accuracy": round(figure["value"], 4),
        "95% interval": f"{figure['low']:.3f} to {figure['high']:.3f}",
        "training seconds": round(seconds),
        "test rows/s": round(len(test) / (time.perf_counter() - scored), 1),
    }
    print(row, flush=True)
    return row


def main(folder: Path, train_rows: int = 2000, test_rows: int = 2000, tuned_rows: int = 800) -> None:
    rows = [measure(folder, "frozen-linear", cut, train_rows, test_rows) for cut in TRUNCATIONS]
    rows += [measure(folder, "finetune", cut, tuned_rows, test_rows) for cut in TRUNCATIONS]
    keep("long_documents", rows, max_length=LIMIT)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
