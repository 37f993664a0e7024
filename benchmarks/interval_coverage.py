"""Coverage of the 95% interval of accuracy on few test rows, one model, where its true accuracy is known.

    python benchmarks/interval_coverage.py [simulations of each kind]

Each simulation draws how many test rows a model gets right, and asks whether an interval holds the true accuracy.
"covered" is the interval of `fullbake compare`: Wilson's, and where all rows are right the exact one of Clopper and
Pearson. "bootstrap" is the plain interval of the standard error over the draws. "all right" is the share of simulations
where all rows were right: then every draw has the same score, the plain interval has no width, and macro F1 has none.
"""

import sys
from typing import Any

import numpy as np
from machine import store_result

from fullbake.evaluation.bootstrap import resample
from fullbake.evaluation.significance import estimate

ROWS, ACCURACIES, DRAWS = (24, 50, 100, 200), (0.7, 0.9, 0.95, 0.98, 0.995), 1000


def intervals(rows: int, *, share: bool) -> list[tuple[float, float]]:
    """Return the interval of accuracy for each number of right rows, from 0 to all; without `share` the plain one."""
    labels, found = np.ones(rows, dtype=np.int64), []
    for right in range(rows + 1):
        scores = resample((np.arange(rows) < right).astype(np.int64)[None], labels, "accuracy", draws=DRAWS)
        own = estimate(scores, share=share, least=0.0, most=1.0)
        found.append((own.mean, own.mean) if own.low is None or own.high is None else (own.low, own.high))
    return found


def measure(rows: int, accuracy: float, known: dict[bool, np.ndarray], simulations: int) -> dict[str, Any]:
    right = np.random.default_rng(rows).binomial(rows, accuracy, simulations)
    covered = {}
    for share, bounds in known.items():
        low, high = bounds[right].T
        covered[share] = round(float(((low <= accuracy) & (accuracy <= high)).mean()), 3)
    result = {
        "test rows": rows,
        "true accuracy": accuracy,
        "covered": covered[True],
        "bootstrap": covered[False],
        "all right": round(float((right == rows).mean()), 3),
    }
    print(result, flush=True)
    return result


def main(simulations: int = 20_000) -> None:
    rows = []
    for size in ROWS:
        known = {share: np.array(intervals(size, share=share)) for share in (True, False)}
        rows += [measure(size, accuracy, known, simulations) for accuracy in ACCURACIES]
    store_result("interval_coverage", rows, simulations_of_each_kind=simulations)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
