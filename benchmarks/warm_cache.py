"""How long a second `frozen-linear` run spends between reading the file and a trained head, its features being cached.

    python benchmarks/warm_cache.py FILE TEXT LABEL

Splitting, looking for near duplicates, loading the base, reading the features, fitting every strength and scoring are
in it; reading the file, importing the libraries and saving the bundle are not.
"""

import sys
import time
from pathlib import Path

from machine import keep

from fullbake import Dataset, Recipe
from fullbake.classifier.adapt import adapt
from fullbake.data.splits import read_labeled

RUNS = 5


def main(file: str, text: str, label: str) -> None:
    recipe = Recipe.load("frozen-linear", base="demo", text=text, label=label)
    data = read_labeled(file, recipe.data)
    adapt(recipe, data)  # fills the cache
    seconds = [timed(recipe, data) for _ in range(RUNS)]
    print(", ".join(f"{value:.2f} s" for value in seconds))
    rows = [{"run": number, "seconds": round(value, 3)} for number, value in enumerate(seconds, start=1)]
    keep("warm_cache", rows, data=f"{Path(file).name}, {len(data):,} rows", median=sorted(seconds)[RUNS // 2])


def timed(recipe: Recipe, data: Dataset) -> float:
    """Seconds from the data in memory to the scored classifier: all that `adapt` does, a little more than to the
    trained head."""
    started = time.perf_counter()
    adapt(recipe, data)
    return time.perf_counter() - started


if __name__ == "__main__":
    main(*sys.argv[1:])
