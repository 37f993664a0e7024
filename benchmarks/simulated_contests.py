"""False alarms of three tests at a level of 5%, in simulated comparisons of two equally good recipes.

    python benchmarks/simulated_contests.py [simulations of each kind]

The metric is accuracy, with three seeds for each recipe. A prediction is right if its margin is positive. The margin is
the sum of four normal variables: one of the row (mean 1, standard deviation 1), one of the recipe and the row, one of
the seed, and one of the seed and the row, with the standard deviations in the table. The tests: that of fullbake
(`evaluation.significance`, column "contests"); the plain bootstrap, which draws rows and seeds with replacement
(percentiles); and the bootstrap of the rows alone.
"""

import sys
from typing import Any

import numpy as np
from machine import store_result
from null_test import plain_p

from fullbake.evaluation.bootstrap import BootstrapScores, resample
from fullbake.evaluation.significance import LEVEL, contrast

SEEDS, DRAWS = 3, 500
EFFECTS = [
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


def predictions(effects: dict[str, float], rows: int, random: np.random.Generator) -> list[np.ndarray]:
    shared = random.normal(1, 1, rows)
    margins = [
        shared
        + random.normal(0, effects["recipe x row"], rows)
        + random.normal(0, effects["seed"], (SEEDS, 1))
        + random.normal(0, effects["seed x row"], (SEEDS, rows))
        for _ in range(2)
    ]
    return [(margin > 0).astype(np.int64) for margin in margins]


def rows_p(a: BootstrapScores, b: BootstrapScores) -> float:
    below = (a.draws.mean(axis=1) - b.draws.mean(axis=1) < 0).mean()
    return float(2 * min(below, 1 - below))


def measure(effects: dict[str, float], rows: int, simulations: int) -> dict[str, Any]:
    random, alarms = np.random.default_rng(0), np.zeros(3)
    labels = np.ones(rows, dtype=np.int64)
    for number in range(simulations):
        a, b = (
            resample(side, labels, "accuracy", draws=DRAWS, seed=number) for side in predictions(effects, rows, random)
        )
        alarms += np.array([contrast(a, b).p, plain_p(a, b, random), rows_p(a, b)]) < LEVEL
    names = ("contests", "plain bootstrap", "rows alone")
    result = {"test rows": rows, **effects, **dict(zip(names, (alarms / simulations).round(3).tolist(), strict=True))}
    print(result, flush=True)
    return result


def main(simulations: int = 1000) -> None:
    rows = [measure(effects, size, simulations) for size in (100, 500) for effects in EFFECTS]
    store_result("simulated_contests", rows, simulations_of_each_kind=simulations, seeds_a_recipe=SEEDS, level=LEVEL)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
