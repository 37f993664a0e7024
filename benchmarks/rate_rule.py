"""What the rule for the learning rate loses against the whole grid, and what each chooser of a rate gives.

    python benchmarks/rate_rule.py LINES   (results/finetune_grid.jsonl holds the trainings so far)

LINES is what `finetune_grid.py` wrote. A grid is one task and one seed at several rates. Validation chooses a rate by
log loss, by log loss after a temperature (fullbake's default for grids that are given), or by macro-F1. Regret is the
test macro-F1 of the rate that the default chooses from the whole grid, minus that of the rule's rate. The stored rows
have one entry for each task; the facts hold the mean and the worst regret, and the same for longer trainings and other
heads.
"""

import sys
from collections import defaultdict
from pathlib import Path
from statistics import mean
from typing import Any

from finetune_grid import known_lines
from machine import store_result

RULE = 2e-4
RATES = (5e-5, 1e-4, 2e-4, 4e-4)
"""A grid has these rates."""

CHOOSERS = {"log loss": "log_loss", "log loss after the temperature": "scaled_log_loss", "macro-F1": "f1_macro"}
"""What chooses a rate on validation: its name in the table and in the lines."""

DEFAULT = "scaled_log_loss"
"""What fullbake chooses by."""

Grid = dict[float, dict[str, Any]]


def grids(lines: list[dict[str, Any]], **wanted: Any) -> dict[tuple[str, int], Grid]:
    """Return the lines with these values, by task and seed, then by rate."""
    found: dict[tuple[str, int], Grid] = defaultdict(dict)
    for line in lines:
        if all(line[key] == value for key, value in wanted.items()):
            found[line["set"], line["seed"]][line["rate"]] = line
    return found


def chosen(grid: Grid, metric: str) -> float:
    """Return the test macro-F1 of the rate that this metric chooses on validation."""
    sign = -1 if metric.endswith("log_loss") else 1
    best = max(grid, key=lambda rate: sign * grid[rate]["validation"][metric])
    return float(grid[best]["test"]["f1_macro"])


def table(found: dict[tuple[str, int], Grid]) -> list[dict[str, Any]]:
    """Return a row for each task: test macro-F1 by rate, and by what chooses the rate; means over seeds."""
    rows = []
    for name in dict.fromkeys(task for task, _ in found):
        own = [grid for (task, _), grid in found.items() if task == name]
        rates = sorted({rate for grid in own for rate in grid})
        row: dict[str, Any] = {"set": name, "seeds": len(own)}
        row |= {f"at {rate:g}": round(mean(grid[rate]["test"]["f1_macro"] for grid in own), 3) for rate in rates}
        row |= {
            f"chosen by {title}": round(mean(chosen(grid, metric) for grid in own), 3)
            for title, metric in CHOOSERS.items()
        }
        row["rule"] = round(mean(grid[RULE]["test"]["f1_macro"] for grid in own), 3)
        regrets = [chosen(grid, DEFAULT) - grid[RULE]["test"]["f1_macro"] for grid in own]
        rows.append(row | {"mean regret": round(mean(regrets), 4), "worst regret": round(max(regrets), 4)})
    return rows


def lengths(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a row for each task: test macro-F1 and log loss at the rule's rate, by the fewest steps of a training."""
    seeds = defaultdict(list)
    for line in lines:
        if line["rate"] == RULE and line["side"] == "fullbake" and line["head"] == "linear":
            seeds[line["set"], line["scale"], line["steps"]].append(line)
    compared = {key[:2] for key in seeds if key[2]}
    return [
        {
            "set": name,
            "share of the rows": scale,
            "fewest steps": steps,
            "steps run": own[0]["steps_run"],
            "seeds": len(own),
            "macro-F1": round(mean(line["test"]["f1_macro"] for line in own), 3),
            "log loss": round(mean(line["test"]["log_loss"] for line in own), 3),
        }
        for (name, scale, steps), own in sorted(seeds.items())
        if (name, scale) in compared
    ]


def main(path: str) -> None:
    """Store the tables of all trainings in a file of lines."""
    lines = known_lines(Path(path))
    whole = {
        key: grid
        for key, grid in grids(lines, side="fullbake", head="linear", steps=0, scale=1.0).items()
        if all(rate in grid and DEFAULT in grid[rate]["validation"] for rate in RATES)
    }
    regrets = [chosen(grid, DEFAULT) - grid[RULE]["test"]["f1_macro"] for grid in whole.values()]
    store_result(
        "rate_rule",
        table(whole),
        grids=len(whole),
        mean_regret=round(mean(regrets), 4),
        worst_regret=round(max(regrets), 4),
    )
    store_result("few_rows", lengths(lines))


if __name__ == "__main__":
    main(sys.argv[1])
