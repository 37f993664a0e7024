"""A handicap of known size is found as often as predicted: predicted labels replaced by wrong ones, 200 comparisons.

    python benchmarks/power_test.py FOLDER_OF_DATA [seeds a side]

The frozen linear head of the null test on TREC. Its test rows are taken for the world: every comparison draws its own
test rows from them with replacement, and three seeds of each side, and replaces a share of one side's predicted labels:
at rows of each seed's own (luck of the seeds), or at the same rows in all of them (a recipe that fails on these). So
the true difference in accuracy is known. Predicted is the mean of what each comparison's own numbers say of a
difference of that size (`contests.predict_power`). The last rows take as many test rows as the comparisons before them
said are needed to find it 4 times in 5 (`contests.rows_needed`, the median). An alarm for the wrong side is not found.
"""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from machine import keep
from seeded import Seeded, train_seeds

from fullbake.evaluation.bootstrap import resample
from fullbake.evaluation.significance import LEVEL, Difference, contrast, predict_power, rows_needed

COMPARISONS, TAKEN, ROWS, DRAWS = 200, 3, 400, 500
SHARES = (0.01, 0.02, 0.03, 0.05, 0.08, 0.12)
MOST = 20_000
"""Test rows of the last comparisons at most."""


def handicapped(predicted: np.ndarray, share: float, alike: bool, classes: int, random: Any) -> np.ndarray:
    """predicted: right or wrong ids (seeds, rows). Replaced labels are drawn from the other classes."""
    hit = random.random(predicted.shape[1] if alike else predicted.shape) < share
    other = (predicted + random.integers(1, classes, predicted.shape)) % classes
    return np.where(hit, other, predicted)


def compare(world: Seeded, rows: int, share: float, alike: bool, random: np.random.Generator) -> Difference:
    half, classes = len(world.predictions) // 2, int(world.labels.max()) + 1
    drawn = random.integers(0, len(world.labels), rows)
    a = world.predictions[random.permutation(half)[:TAKEN]][:, drawn]
    b = world.predictions[half + random.permutation(half)[:TAKEN]][:, drawn]
    worse = handicapped(b, share, alike, classes, random)
    return contrast(*(resample(side, world.labels[drawn], "accuracy", draws=DRAWS) for side in (a, worse)))


def true_difference(world: Seeded, share: float) -> float:
    """In accuracy, over all rows and seeds: what is replaced was right as often as the rest, and where it was wrong a
    random other label is right once in (classes - 1)."""
    half, classes = len(world.predictions) // 2, int(world.labels.max()) + 1
    a, b = ((side == world.labels).mean() for side in (world.predictions[:half], world.predictions[half:]))
    return float(a - (b * (1 - share) + (1 - b) * share / (classes - 1)))


def row(world: Seeded, share: float, alike: bool, rows: int = ROWS) -> tuple[dict[str, Any], int | None]:
    """A line of the table, and the median of the rows needed."""
    random, true = np.random.default_rng(0), true_difference(world, share)
    seen = [compare(world, rows, share, alike, random) for _ in range(COMPARISONS)]
    needed = [rows_needed(replace(one, difference=true)) for one in seen]
    median = float(np.median([np.inf if count is None else count for count in needed]))
    found = sum(one.p < LEVEL and one.difference > 0 for one in seen) / COMPARISONS
    counted = {
        "replaced": share,
        "at": "the same rows in all seeds" if alike else "each seed's own rows",
        "test rows": rows,
        "true difference": round(true, 4),
        "mean seen": round(float(np.mean([one.difference for one in seen])), 4),
        "predicted": round(float(np.mean([predict_power(one, size=true) for one in seen])), 3),
        "found": round(found, 3),
        "rows needed (median)": int(median) if np.isfinite(median) else None,
        "true difference in the interval": round(float(np.mean([one.low <= true <= one.high for one in seen])), 3),
    }
    print(counted, flush=True)
    return counted, counted["rows needed (median)"]


def main(folder: Path, seeds: int = 24) -> None:
    world = train_seeds(folder, "trec", "linear", range(2 * seeds))
    kept, wanted = [], []
    for alike in (False, True):
        for share in SHARES:
            counted, needed = row(world, share, alike)
            kept.append(counted)
            if needed is not None and needed <= MOST and share in (0.02, 0.05):
                wanted.append((share, alike, needed))
    kept += [row(world, share, alike, needed)[0] for share, alike, needed in wanted]
    keep("power_test", kept, comparisons=COMPARISONS, seeds_a_comparison=TAKEN, level=LEVEL)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
