"""False alarms: one recipe under two names with different seeds is compared 200 times, with 3 seeds of each name.

    python benchmarks/null_test.py FOLDER_OF_DATA [seeds per name]

The recipes have a frozen base `demo` and the same rows. Every comparison takes three seeds of each name at random and
tests the difference as `fullbake compare` does. At a level of 5% an exact test gives 10 false alarms in 200; at most 17
are accepted. The plain bootstrap, which draws rows and seeds with replacement, is measured too.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
from machine import store_result
from seeded import DATA, HEADS, train_seeds

from fullbake.evaluation.bootstrap import BootstrapScores, resample
from fullbake.evaluation.significance import LEVEL, contrast

COMPARISONS, SEEDS_PER_NAME, ACCEPTED = 200, 3, 17


def plain_p(a: BootstrapScores, b: BootstrapScores, random: np.random.Generator) -> float:
    """Return the two-sided p by percentiles; each resample of the rows draws its seeds with replacement."""

    def resampled(scores: BootstrapScores) -> np.ndarray:
        seeds = random.integers(0, scores.draws.shape[1], scores.draws.shape)
        return np.take_along_axis(scores.draws, seeds, axis=1).mean(axis=1)

    below = (resampled(a) - resampled(b) < 0).mean()
    return float(2 * min(below, 1 - below))


def with_seeds(scores: BootstrapScores, seeds: np.ndarray) -> BootstrapScores:
    return BootstrapScores(scores.points[seeds], scores.draws[:, seeds], scores.rows)


def measure(folder: Path, data: str, head: str, seeds: int) -> list[dict[str, Any]]:
    trained = train_seeds(folder, data, head, range(2 * seeds))
    return [row(data, head, metric, trained, seeds) for metric in ("f1_macro", "accuracy")]


def row(data: str, head: str, metric: str, trained: Any, seeds: int) -> dict[str, Any]:
    scores, random = resample(trained.predictions, trained.labels, metric), np.random.default_rng(0)
    alarms, plain = 0, 0
    for _ in range(COMPARISONS):
        first, second = random.permutation(seeds)[:SEEDS_PER_NAME], seeds + random.permutation(seeds)[:SEEDS_PER_NAME]
        a, b = with_seeds(scores, first), with_seeds(scores, second)
        alarms += contrast(a, b).p < LEVEL
        plain += plain_p(a, b, random) < LEVEL
    result = {
        "data": data,
        "head": head,
        "metric": metric,
        "test rows": scores.rows,
        "seeds a name": seeds,
        "mean": round(scores.mean, 4),
        "sd over seeds": round(float(scores.points.std(ddof=1)), 4),
        "between the names": round(float(scores.points[:seeds].mean() - scores.points[seeds:].mean()), 4),
        f"false alarms of {COMPARISONS}": int(alarms),
        "by the plain bootstrap": int(plain),
        "accepted": bool(alarms <= ACCEPTED),
    }
    print(result, flush=True)
    return result


def main(folder: Path, seeds: int = 24) -> None:
    rows = [row for data in DATA for head in HEADS for row in measure(folder, data, head, seeds)]
    store_result(
        "null_test",
        rows,
        comparisons=COMPARISONS,
        seeds_a_comparison=SEEDS_PER_NAME,
        level=LEVEL,
        most_accepted=ACCEPTED,
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
