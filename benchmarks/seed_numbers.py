"""False alarms and power where numbers of seeds differ, in simulated comparisons at a level of 5%.

    python benchmarks/seed_numbers.py [simulations of each kind]

Two recipes of one kind are compared with one to three seeds. A recipe with one seed borrows the variance over seeds
from the other side, or from a third recipe of the kind, by `evaluation.significance.contrast`. Scores are the sum of a
part of the test rows and a part of the seed, both normal; the first column is the ratio of their variances. "search"
says how the learning rate was chosen among four that differ by up to two standard deviations of the seed: by none, by
the first seed for all seeds (as `fullbake compare` does), or by each seed for itself. Validation is as noisy as a seed.
"found" is the share of comparisons that find a true difference of three standard errors, "predicted" the mean of
`significance.predict_power`; "Satterthwaite" gives the false alarms with the usual degrees of freedom in its place.
"""

import sys
from typing import Any

import numpy as np
from machine import store_result
from scipy import stats

from fullbake.evaluation.bootstrap import BootstrapScores
from fullbake.evaluation.significance import LEVEL, Difference, contrast, predict_power

DRAWS, ROWS = 60, 500
SEEDS = ((1, 1), (1, 2), (1, 3), (2, 3), (3, 3))
RATIOS = (0.1, 1.0, 10.0)
RATES = np.array([0.0, -0.5, -1.0, -2.0])
SEARCHES = ("none", "by the first seed", "by each seed")


def train(random: np.random.Generator, seeds: int, ratio: float, search: str, shift: float = 0.0) -> BootstrapScores:
    """Return the scores of one recipe: unit variance over seeds, variance `ratio` over rows."""
    seen = RATES + random.normal(0, 1, (seeds, len(RATES)))  # on validation
    chosen = {"none": np.zeros(seeds), "by each seed": RATES[seen.argmax(axis=1)]}.get(search)
    effects = np.full(seeds, RATES[seen[0].argmax()]) if chosen is None else chosen
    points = shift + random.normal(0, np.sqrt(ratio)) + effects + random.normal(0, 1, seeds)
    # Draws of the rows change all seeds alike. Their variance is made exact: a bootstrap's error is small beside it.
    drawn = random.normal(0, 1, DRAWS)
    drawn = (drawn - drawn.mean()) / drawn.std(ddof=1) * np.sqrt(ratio)
    return BootstrapScores(points, points + drawn[:, None], ROWS)


def compare(random: np.random.Generator, seeds: tuple[int, int], ratio: float, search: str, shift: float) -> Difference:
    a, b = train(random, seeds[0], ratio, search, shift), train(random, seeds[1], ratio, search)
    lenders = [b, train(random, 3, ratio, search)] if seeds[1] > 1 else [train(random, 3, ratio, search)]
    return contrast(a, b, a_lenders=lenders, b_lenders=lenders)


def satterthwaite_p(one: Difference) -> float:
    error = one.variance.on_these_rows()
    return float(2 * stats.t.sf(abs(one.difference) / error.size, error.total_freedom))


def measure(seeds: tuple[int, int], ratio: float, search: str, simulations: int) -> dict[str, Any]:
    random = np.random.default_rng([*seeds, int(10 * ratio), SEARCHES.index(search)])
    shift = 3 * float(np.sqrt(2 * ratio + 1 / seeds[0] + 1 / seeds[1]))
    null = [compare(random, seeds, ratio, search, 0.0) for _ in range(simulations)]
    real = [compare(random, seeds, ratio, search, shift) for _ in range(simulations)]
    alarms = sum(one.p < LEVEL for one in null)
    result = {
        "seeds": f"{seeds[0]} against {seeds[1]}",
        "rows to seeds": ratio,
        "search": search,
        "false alarms": round(alarms / simulations, 3),
        "at most": round(float(stats.binom.ppf(0.99, simulations, LEVEL)) / simulations, 3),
        "Satterthwaite": round(sum(satterthwaite_p(one) < LEVEL for one in null) / simulations, 3),
        "found": round(sum(one.p < LEVEL and one.difference > 0 for one in real) / simulations, 3),
        "predicted": round(float(np.mean([predict_power(one, size=shift) for one in real])), 3),
    }
    print(result, flush=True)
    return result


def main(simulations: int = 1000) -> None:
    rows = [measure(seeds, ratio, "none", simulations) for seeds in SEEDS for ratio in RATIOS]
    rows += [measure(seeds, 1.0, search, simulations) for seeds in SEEDS for search in SEARCHES[1:]]
    store_result("seed_numbers", rows, simulations_of_each_kind=simulations, level=LEVEL)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
