"""Fine-tuning by fullbake against a plain textbook loop, seed by seed, and the old defaults against the new ones.

    python benchmarks/plain_loop.py LINES

LINES is what `finetune_grid.py` wrote with `--sides fullbake,plain`. fullbake trains with its fast layers, steps of
texts of similar length and its own dropout; the plain loop with random batches and torch's dropout. Both have the same
rows, rate, head and number of steps. The temperature is fitted on validation, as every bundle's is; lines of an older
version have none. A difference is fullbake minus the plain loop; its interval is that of a paired t
test at 95% over seeds.
"""

import sys
from collections import defaultdict
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from finetune_grid import known_lines
from machine import store_result
from scipy import stats

RATE = 2e-4
SIDES = {"fullbake", "plain"}
METRICS = {"f1_macro": "macro-F1", "log_loss": "log loss", "scaled_log_loss": "log loss after the temperature"}
"""The metrics by their names in the lines, with their titles in the table."""


def difference(ours: list[float], theirs: list[float]) -> str:
    """Return the mean difference with its 95% interval and the p-value of a paired t test."""
    found = np.array(ours) - np.array(theirs)
    if len(found) < 2:
        return f"{found.mean():+.3f} (one seed)"
    test = stats.ttest_1samp(found, 0.0)
    low, high = test.confidence_interval(0.95)
    return f"{found.mean():+.3f} ({low:+.3f} to {high:+.3f}), p {test.pvalue:.2f}"


def sides(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a row for each task that both sides trained on with equal settings."""
    pairs: dict[str, dict[int, dict[str, Any]]] = defaultdict(lambda: defaultdict(dict))
    for line in lines:
        if line["head"] == "linear" and line["rate"] == RATE and not line["steps"] and line["scale"] == 1.0:
            pairs[line["set"]][line["seed"]][line["side"]] = line["test"]
    rows = []
    for name, by_seed in pairs.items():
        both = [found for found in by_seed.values() if set(found) >= SIDES]
        if both:
            row: dict[str, Any] = {"set": name, "seeds": len(both)}
            for metric, title in METRICS.items():
                pairs_with = [found for found in both if all(metric in found[side] for side in SIDES)]
                row |= compared(pairs_with, metric, title)
            rows.append(row)
    return rows


def compared(pairs: list[dict[str, Any]], metric: str, title: str) -> dict[str, Any]:
    """Return the means of both sides and their difference; empty texts without pairs."""
    if not pairs:
        return {f"{title}, {name}": "" for name in ("fullbake", "plain", "difference")}
    ours, theirs = ([found[side][metric] for found in pairs] for side in ("fullbake", "plain"))
    return {
        f"{title}, fullbake": round(mean(ours), 3),
        f"{title}, plain": round(mean(theirs), 3),
        f"{title}, difference": difference(ours, theirs) + f"; {len(pairs)} seeds",
    }


def starts(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a row for each task: fullbake's start of the linear head against one of standard deviation 0.02.

    The differences are the small start minus fullbake's.
    """
    found: dict[str, dict[int, dict[str, Any]]] = defaultdict(lambda: defaultdict(dict))
    for line in lines:
        if line["side"] in ("fullbake", "fullbake-small") and "temperature" in line and line["rate"] == RATE:
            found[line["set"]][line["seed"]][line["side"]] = line
    rows = []
    for name, by_seed in found.items():
        both = [pair for pair in by_seed.values() if len(pair) == 2]
        if not both:
            continue
        row: dict[str, Any] = {"set": name, "seeds": len(both)}
        for metric, title in METRICS.items():
            ours, small = ([pair[s]["test"][metric] for pair in both] for s in ("fullbake", "fullbake-small"))
            row |= {title: round(mean(ours), 3), f"{title}, small": round(mean(small), 3)}
            row[f"{title}, difference"] = difference(small, ours)
        row["temperature"] = round(mean(pair["fullbake"]["temperature"] for pair in both), 2)
        row["temperature, small"] = round(mean(pair["fullbake-small"]["temperature"] for pair in both), 2)
        rows.append(row)
    return rows


def defaults(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a row for each task: test macro-F1 of the old defaults and of the new ones, over the same seeds."""
    found: dict[tuple[str, int], dict[str, float]] = defaultdict(dict)
    kinds = {
        ("fullbake", "standard", 5e-5): "standard head, 5e-5",
        ("fullbake", "linear", 5e-5): "linear head, 5e-5",
        ("fullbake", "linear", RATE): "linear head, 2e-4",
        ("plain", "linear", RATE): "plain loop, linear head, 2e-4",
    }
    titles = list(kinds.values())
    for line in lines:
        kind = (line["side"], line["head"], line["rate"])
        if kind in kinds and not line["steps"] and line["scale"] == 1.0:
            found[line["set"], line["seed"]][kinds[kind]] = line["test"]["f1_macro"]
    rows = []
    for name in dict.fromkeys(task for task, _ in found):
        own = [values for (task, _), values in found.items() if task == name]
        row: dict[str, Any] = {"set": name}
        for title in titles:
            values = [entry[title] for entry in own if title in entry]
            row[title] = f"{mean(values):.3f} ({len(values)})" if values else ""
        rows.append(row)
    return rows


def main(path: str) -> None:
    """Store the three tables."""
    lines = known_lines(Path(path))
    store_result("plain_loop", sides(lines))
    store_result("start_of_the_head", starts(lines))
    store_result("old_and_new_defaults", defaults(lines), cells="mean test macro-F1 (number of seeds)")


if __name__ == "__main__":
    main(sys.argv[1])
