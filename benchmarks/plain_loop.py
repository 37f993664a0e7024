"""Fine-tuning by fullbake against a plain textbook loop, seed by seed, and the old defaults against the new ones.

    python benchmarks/plain_loop.py LINES

LINES is what `finetune_grid.py` wrote with `--sides fullbake,plain`. fullbake trains with its fast layers, steps of
texts of similar length and its own dropout; the plain loop with random batches and torch's dropout. Both have the same
rows, rate, head and number of steps. A difference is fullbake minus the plain loop; its interval is that of a paired t
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
        both = [found for found in by_seed.values() if len(found) == 2]
        if both:
            row: dict[str, Any] = {"set": name, "seeds": len(both)}
            for metric, title in (("f1_macro", "macro-F1"), ("log_loss", "log loss")):
                ours, theirs = ([found[side][metric] for found in both] for side in ("fullbake", "plain"))
                row |= {
                    f"{title}, fullbake": round(mean(ours), 3),
                    f"{title}, plain": round(mean(theirs), 3),
                    f"{title}, difference": difference(ours, theirs),
                }
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
    """Store both tables."""
    lines = known_lines(Path(path))
    store_result("plain_loop", sides(lines))
    store_result("old_and_new_defaults", defaults(lines), cells="mean test macro-F1 (number of seeds)")


if __name__ == "__main__":
    main(sys.argv[1])
