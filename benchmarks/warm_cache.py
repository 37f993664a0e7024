"""The time of a second `frozen-linear` run from the data in memory to a trained head, with features from the cache.

    python benchmarks/warm_cache.py FILE TEXT LABEL

The time includes splitting, the search for near duplicates, loading the base, reading the features, fitting with each
regularization strength, and scoring. It does not include reading the file, imports, and saving the bundle.
"""

import sys
import time
from pathlib import Path

from machine import store_result

from fullbake import Dataset, Recipe
from fullbake.classifier.adapt import adapt
from fullbake.data.labeled_files import read_labeled

RUNS = 5


def main(file: str, text: str, label: str) -> None:
    recipe = Recipe.load("frozen-linear", base="demo", text=text, label=label)
    data = read_labeled(file, recipe.data)
    adapt(recipe, data)  # fills the cache
    seconds = [timed(recipe, data) for _ in range(RUNS)]
    print(", ".join(f"{value:.2f} s" for value in seconds))
    rows = [{"run": number, "seconds": round(value, 3)} for number, value in enumerate(seconds, start=1)]
    store_result("warm_cache", rows, data=f"{Path(file).name}, {len(data):,} rows", median=sorted(seconds)[RUNS // 2])


def timed(recipe: Recipe, data: Dataset) -> float:
    """Return the seconds of `adapt`, which also scores the classifier."""
    started = time.perf_counter()
    adapt(recipe, data)
    return time.perf_counter() - started


if __name__ == "__main__":
    main(*sys.argv[1:])
