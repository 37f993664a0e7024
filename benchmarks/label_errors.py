"""How many of 40 labels changed on purpose are among the first 100 suspects, in about 5,000 TREC questions.

    python benchmarks/label_errors.py FOLDER_OF_DATA [changed labels]

The rows and their new labels are chosen at random from the six coarse classes, by seed. The features are those of base
`demo`. The result also states the share that 100 rows chosen at random would contain.
"""

import statistics
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from machine import store_result

from fullbake import Recipe
from fullbake.classifier.label_errors import dataset_features, find_label_errors
from fullbake.data.dataset import Dataset
from fullbake.data.labeled_files import read_labeled

FIRST = 100
SEEDS = range(5)


def change_labels(data: Dataset, flips: int, seed: int) -> tuple[Dataset, np.ndarray]:
    random = np.random.default_rng(seed)
    assert data.labels is not None
    rows = random.choice(len(data), flips, replace=False)
    labels = data.labels.copy()
    labels[rows] = (labels[rows] + random.integers(1, len(data.label_names), flips)) % len(data.label_names)
    return replace(data, labels=labels), rows


def measure(data: Dataset, features: np.ndarray, flips: int, seed: int) -> dict[str, Any]:
    changed, rows = change_labels(data, flips, seed)
    found = find_label_errors(changed, features, seed=seed)
    hits = int(np.isin(rows, found.positions[:FIRST]).sum())
    row = {"seed": seed, "flips": flips, f"found in the first {FIRST}": hits, "share": round(hits / flips, 3)}
    print(row, flush=True)
    return row


def main(folder: Path, flips: int = 40) -> None:
    recipe = Recipe.load("frozen-linear", base="demo", text="text", label="coarse")
    data = read_labeled(folder / "trec_train.csv", recipe.data)
    features = dataset_features(data, recipe)
    rows = [measure(data, features, flips, seed) for seed in SEEDS]
    mean = statistics.mean(row["share"] for row in rows)
    store_result("label_errors", rows, mean_share=round(mean, 3), blind_share=round(FIRST / len(data), 3))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
