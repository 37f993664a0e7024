"""Two equally good recipes in simulated worlds: how often they are told apart at a level of 5%, by three tests.

    python benchmarks/simulated_contests.py [worlds of each kind]

Three seeds a recipe, accuracy. A prediction is right where a margin is positive: of the row (normal, deviation 1, mean
1), with effects of a recipe on single rows, of a seed on all rows, and of a seed on single rows, all normal with the
standard deviations named. Tests: `contests`; the plain bootstrap, which draws rows and seeds with replacement
(percentiles); and the bootstrap of the rows alone.
"""

import sys
from typing import Any

import numpy as np
from machine import keep
from null_test import plain_p

from fullbake.evaluation.bootstrap import BootstrapScores, resample
from fullbake.evaluation.significance import LEVEL, contrast

SEEDS, DRAWS = 3, 500
WORLDS = [
    {"recipe x row": recipe, "seed": seed, "seed x row": noise}
    for recipe, seed, noise in (
        (0, 0, 0.4),
        (0, 0.03, 0.4),
        (0, 0.2, 0.3),
        (0.4, 0, 0.2),
        (0.4, 0.05, 0.3),
        (0.4, 0.15, 0.3),
    )
]


def predictions(world: dict[str, float], rows: int, random: np.random.Generator) -> list[np.ndarray]:
    shared = random.normal(1, 1, rows)
    margins = [
        shared
        + random.normal(0, world["recipe x row"], rows)
        + random.normal(0, world["seed"], (SEEDS, 1))
        + random.normal(0, world["seed x row"], (SEEDS, rows))
        for _ in range(2)
    ]
    return [(margin > 0).astype(np.int64) for margin in margins]


def rows_p(a: BootstrapScores, b: BootstrapScores) -> float:
    below = (a.draws.mean(axis=1) - b.draws.mean(axis=1) < 0).mean()
    return float(2 * min(below, 1 - below))


def measure(world: dict[str, float], rows: int, worlds: int) -> dict[str, Any]:
    random, alarms = np.random.default_rng(0), np.zeros(3)
    labels = np.ones(rows, dtype=np.int64)
    for number in range(worlds):
        a, b = (
            resample(side, labels, "accuracy", draws=DRAWS, seed=number) for side in predictions(world, rows, random)
        )
        alarms += np.array([contrast(a, b).p, plain_p(a, b, random), rows_p(a, b)]) < LEVEL
    names = ("contests", "plain bootstrap", "rows alone")
    counted = {"test rows": rows, **world, **dict(zip(names, (alarms / worlds).round(3).tolist(), strict=True))}
    print(counted, flush=True)
    return counted


def main(worlds: int = 1000) -> None:
    rows = [measure(world, size, worlds) for size in (100, 500) for world in WORLDS]
    keep("simulated_contests", rows, worlds_of_each_kind=worlds, seeds_a_recipe=SEEDS, level=LEVEL)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
