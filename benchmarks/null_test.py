"""False alarms: one recipe under two names, trained with other seeds, compared 200 times by 3 seeds of each name.

    python benchmarks/null_test.py FOLDER_OF_DATA [seeds a name]

Frozen heads on the base `demo`, the same rows for all. Every comparison draws three seeds of each name and tests their
difference as `fullbake compare` does; at a level of 5% ten of 200 alarms are expected of an exact test, and at most 17
are accepted. Beside it, what the plain bootstrap that draws rows and seeds with replacement would have said.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
from machine import keep
from seeded import DATA, HEADS, train_seeds

from fullbake.evaluation.bootstrap import BootstrapScores, resample
from fullbake.evaluation.significance import LEVEL, contrast

COMPARISONS, TAKEN, ACCEPTED = 200, 3, 17


def plain_p(a: BootstrapScores, b: BootstrapScores, random: np.random.Generator) -> float:
    """Two-sided p by percentiles, each draw of rows with seeds drawn with replacement."""

    def drawn(side: BootstrapScores) -> np.ndarray:
        taken = random.integers(0, side.draws.shape[1], side.draws.shape)
        return np.take_along_axis(side.draws, taken, axis=1).mean(axis=1)

    below = (drawn(a) - drawn(b) < 0).mean()
    return float(2 * min(below, 1 - below))


def taken(scores: BootstrapScores, names: np.ndarray) -> BootstrapScores:
    return BootstrapScores(scores.points[names], scores.draws[:, names], scores.rows)


def measure(folder: Path, data: str, head: str, seeds: int) -> list[dict[str, Any]]:
    trained = train_seeds(folder, data, head, range(2 * seeds))
    return [row(data, head, metric, trained, seeds) for metric in ("f1_macro", "accuracy")]


def row(data: str, head: str, metric: str, trained: Any, seeds: int) -> dict[str, Any]:
    scores, random = resample(trained.predictions, trained.labels, metric), np.random.default_rng(0)
    alarms, plain = 0, 0
    for _ in range(COMPARISONS):
        first, second = random.permutation(seeds)[:TAKEN], seeds + random.permutation(seeds)[:TAKEN]
        a, b = taken(scores, first), taken(scores, second)
        alarms += contrast(a, b).p < LEVEL
        plain += plain_p(a, b, random) < LEVEL
    counted = {
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
    print(counted, flush=True)
    return counted


def main(folder: Path, seeds: int = 24) -> None:
    rows = [row for data in DATA for head in HEADS for row in measure(folder, data, head, seeds)]
    keep("null_test", rows, comparisons=COMPARISONS, seeds_a_comparison=TAKEN, level=LEVEL, most_accepted=ACCEPTED)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
