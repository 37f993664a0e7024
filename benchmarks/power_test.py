"""Power: how often 200 comparisons find a difference of known size, compared with the predicted power.

    python benchmarks/power_test.py FOLDER_OF_DATA [seeds per side]

The recipe is the frozen linear head of the null test on TREC, and its test rows are the population: every comparison
draws test rows from them with replacement, takes three seeds of each side, and replaces a share of one side's predicted
labels by wrong ones. They are replaced in other rows for each seed (chance of the seeds), or in the same rows for all
seeds (a recipe that fails on these rows). So the true difference in accuracy is known. "predicted" is the mean over the
comparisons of `significance.predict_power` for that difference. The last rows of the table use as many test rows as
`significance.rows_needed` (the median) gives for a power of 80%. A significant difference in the wrong direction counts
as not found.
"""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from machine import store_result
from seeded import SeedPredictions, train_seeds

from fullbake.evaluation.bootstrap import resample
from fullbake.evaluation.significance import LEVEL, Difference, contrast, predict_power, rows_needed

COMPARISONS, SEEDS_PER_SIDE, ROWS, DRAWS = 200, 3, 400, 500
SHARES = (0.01, 0.02, 0.03, 0.05, 0.08, 0.12)
MAX_ROWS = 20_000
"""At most this many test rows are used in the last comparisons."""


def replace_labels(predicted: np.ndarray, share: float, same_rows: bool, classes: int, random: Any) -> np.ndarray:
    """Replace a share of the predicted label ids (seeds, rows) by random other classes."""
    replaced = random.random(predicted.shape[1] if same_rows else predicted.shape) < share
    other = (predicted + random.integers(1, classes, predicted.shape)) % classes
    return np.where(replaced, other, predicted)


def compare(
    population: SeedPredictions, rows: int, share: float, same_rows: bool, random: np.random.Generator
) -> Difference:
    half, classes = len(population.predictions) // 2, int(population.labels.max()) + 1
    drawn = random.integers(0, len(population.labels), rows)
    a = population.predictions[random.permutation(half)[:SEEDS_PER_SIDE]][:, drawn]
    b = population.predictions[half + random.permutation(half)[:SEEDS_PER_SIDE]][:, drawn]
    worse = replace_labels(b, share, same_rows, classes, random)
    return contrast(*(resample(side, population.labels[drawn], "accuracy", draws=DRAWS) for side in (a, worse)))


def true_difference(population: SeedPredictions, share: float) -> float:
    """Return the true difference in accuracy over all rows and seeds.

    Replaced labels were right as often as the others; where one was wrong, a random other label is right with
    probability 1 / (classes - 1).
    """
    half, classes = len(population.predictions) // 2, int(population.labels.max()) + 1
    a, b = (
        (side == population.labels).mean() for side in (population.predictions[:half], population.predictions[half:])
    )
    return float(a - (b * (1 - share) + (1 - b) * share / (classes - 1)))


def row(
    population: SeedPredictions, share: float, same_rows: bool, rows: int = ROWS
) -> tuple[dict[str, Any], int | None]:
    """Return a row of the table, and the median of the rows needed."""
    random, true = np.random.default_rng(0), true_difference(population, share)
    differences = [compare(population, rows, share, same_rows, random) for _ in range(COMPARISONS)]
    needed = [rows_needed(replace(one, difference=true)) for one in differences]
    median = float(np.median([np.inf if count is None else count for count in needed]))
    found = sum(one.p < LEVEL and one.difference > 0 for one in differences) / COMPARISONS
    result = {
        "replaced": share,
        "at": "the same rows in all seeds" if same_rows else "each seed's own rows",
        "test rows": rows,
        "true difference": round(true, 4),
        "mean seen": round(float(np.mean([one.difference for one in differences])), 4),
        "predicted": round(float(np.mean([predict_power(one, size=true) for one in differences])), 3),
        "found": round(found, 3),
        "rows needed (median)": int(median) if np.isfinite(median) else None,
        "true difference in the interval": round(
            float(np.mean([one.low <= true <= one.high for one in differences])), 3
        ),
    }
    print(result, flush=True)
    return result, result["rows needed (median)"]


def main(folder: Path, seeds: int = 24) -> None:
    population = train_seeds(folder, "trec", "linear", range(2 * seeds))
    rows, repeated = [], []
    for same_rows in (False, True):
        for share in SHARES:
            result, needed = row(population, share, same_rows)
            rows.append(result)
            if needed is not None and needed <= MAX_ROWS and share in (0.02, 0.05):
                repeated.append((share, same_rows, needed))
    rows += [row(population, share, same_rows, needed)[0] for share, same_rows, needed in repeated]
    store_result("power_test", rows, comparisons=COMPARISONS, seeds_a_comparison=SEEDS_PER_SIDE, level=LEVEL)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
