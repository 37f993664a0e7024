"""What to do with the threshold of a label that few validation rows have: its test F1 under several rules.

    python benchmarks/few_positive_thresholds.py [repetitions]

Every label's own best threshold on validation is compared with one threshold for all labels and with rules between the
two. With k positive validation rows and a constant m:

- "logits" is the mean of the two thresholds' logits, with weights k and m;
- "claims" is the threshold that claims a number of rows in proportion to the label's positive rows, the same share for
  all labels, and with m the mean of its logit and that of the own threshold;
- "curves" takes the threshold with the best F1 of the label's own rows plus m positive rows of an average label: the
  other labels' shares of positive rows found, and of rows claimed for each positive row, at each threshold;
- "switch" takes the common threshold below m positives, the own one from there.

The common threshold has the best mean F1 over the labels that validation has ("macro"), or the best F1 over all pairs
of row and label ("micro"). Two sources of scores: labels whose true distribution is known (normal scores, calibrated
up to a slope and an offset of each label), so that the F1 of a threshold is exact; and GoEmotions and Jigsaw comments,
whose words a logistic regression reads, with many draws of few validation rows and thousands of test rows.

"few" is the mean F1 of labels with fewer than 10 positives in a draw, "none" of those without any, "many" of the
others, "macro" of all; "worst precision" the mean over draws of the lowest precision of a label with 1 to 9 positives.
"""

import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from machine import store_result
from scipy.special import expit, logit
from scipy.stats import norm

DATA = Path(__file__).parents[2] / "shared" / "data"
FEW = 10
GRID = np.linspace(-9, 6, 301)
"""Thresholds that are tried, as logits."""

Scored = tuple[np.ndarray, np.ndarray]
"""F1 and precision of each label, (labels,)."""
Draw = tuple[np.ndarray, np.ndarray, Callable[[np.ndarray], Scored]]
"""Validation logits and labels, (rows, labels); and what a threshold (as a logit) for each label gives on test."""


def curves(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the positive rows found and the rows claimed at each threshold of the grid, both (labels, thresholds)."""
    claimed = np.stack([(logits >= cut).sum(axis=0) for cut in GRID], axis=1)
    hits = np.stack([((logits >= cut) & (labels == 1)).sum(axis=0) for cut in GRID], axis=1)
    return hits.astype(float), claimed.astype(float)


def best(values: np.ndarray) -> np.ndarray:
    """Return the threshold in the middle of the best ones. values: (..., thresholds)."""
    top = np.isclose(values, values.max(axis=-1, keepdims=True))
    first, last = top.argmax(axis=-1), len(GRID) - 1 - top[..., ::-1].argmax(axis=-1)
    same = [own[a : b + 1].all() for own, a, b in zip(np.atleast_2d(top), *map(np.atleast_1d, (first, last)))]  # noqa: B905
    chosen: np.ndarray = np.where(np.array(same).reshape(np.shape(first)), (GRID[first] + GRID[last]) / 2, GRID[last])
    return chosen


def rules(logits: np.ndarray, labels: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Yield each rule's name and its thresholds, (labels,)."""
    hits, claimed = curves(logits, labels)
    support = labels.sum(axis=0).astype(float)
    known = support > 0
    f1 = 2 * hits / np.maximum(claimed + support[:, None], 1)
    own = np.where(known, best(f1), 0.0)
    common = {
        "macro": float(best(f1[known].mean(axis=0))),
        "micro": float(best(2 * hits.sum(axis=0) / (claimed.sum(axis=0) + support.sum()))),
    }
    yield "own", own
    per_positive = np.maximum(support[:, None], 1)
    found, claims = (hits / per_positive)[known].mean(axis=0), (claimed / per_positive)[known].mean(axis=0)
    for kind, cut in common.items():
        yield f"common, {kind}", np.full(len(own), cut)
        for m in (0.5, 1, 2, 5, 10):
            share = support / (support + m)
            yield f"logits, {kind}, m {m}", share * own + (1 - share) * cut
        yield f"switch, {kind}, m {FEW}", np.where(support < FEW, cut, own)
    ranked = ranked_thresholds(logits, labels, common["macro"])
    yield "claims", ranked
    for m in (0.5, 1, 2, 5, 10):
        share = support / (support + m)
        yield f"claims, m {m}", share * own + (1 - share) * ranked
    for m in (1, 2, 5):
        yield f"curves, m {m}", best(2 * (hits + m * found) / (claimed + m * claims + support[:, None] + m))


def ranked_thresholds(logits: np.ndarray, labels: np.ndarray, common: float) -> np.ndarray:
    """Return the threshold of each label that claims the same number of rows for each positive row, (labels,)."""
    support, ratios = labels.sum(axis=0), np.linspace(0.2, 3, 29)
    ordered, rows = -np.sort(-logits, axis=0), len(logits)
    taken = np.clip(np.rint(ratios[:, None] * support), 1, rows - 1).astype(int)  # (ratios, labels)
    places = np.arange(len(support))
    cuts = (ordered[taken - 1, places] + ordered[taken, places]) / 2
    hits = np.stack([((logits >= own) & (labels == 1)).sum(axis=0) for own in cuts])
    f1 = 2 * hits / (taken + support)
    chosen: np.ndarray = cuts[f1[:, support > 0].mean(axis=1).argmax()]
    return np.where(support > 0, chosen, common)


# Scores


def simulated(repetitions: int, rows: int, labels: int) -> Iterator[Draw]:
    for seed in range(repetitions):
        random = np.random.default_rng(seed)
        prevalence = np.exp(random.uniform(np.log(0.002), np.log(0.1), labels))
        apart, slope, offset = random.uniform(1, 3.5, labels), np.exp(random.normal(0, 0.2, labels)), None
        offset = random.normal(0, 0.5, labels)
        held = random.random((rows, labels)) < prevalence
        if not held.any():
            continue
        normal = random.normal(size=(rows, labels)) + apart * held
        base = logit(prevalence) - apart**2 / 2

        def test(
            cuts: np.ndarray,
            scales: tuple[np.ndarray, ...] = (prevalence, apart, slope, offset, base),
        ) -> Scored:
            share, apart, slope, offset, base = scales
            at = ((cuts - offset) / slope - base) / apart
            hits, alarms = share * norm.sf(at - apart), (1 - share) * norm.sf(at)
            return 2 * hits / (hits + alarms + share), hits / np.maximum(hits + alarms, 1e-12)

        yield slope * (base + apart * normal) + offset, held.astype(int), test


def texts_and_labels(name: str) -> tuple[list[str], np.ndarray]:
    """Return the texts of a data set and its label matrix."""
    import csv

    if name == "jigsaw":
        with (DATA / "jigsaw_8k.csv").open(newline="", encoding="utf-8") as file:
            found = list(csv.DictReader(file))
        kinds = list(found[0])[2:]
        return [row["comment_text"] for row in found], np.array([[int(row[kind]) for kind in kinds] for row in found])
    parts = [(DATA / f"goemotions_{part}.jsonl").read_text("utf-8").splitlines() for part in ("train", "dev", "test")]
    found = [json.loads(line) for part in parts for line in part]
    kinds = sorted({label for row in found for label in row["labels"]})
    return [row["text"] for row in found], np.array([[int(kind in row["labels"]) for kind in kinds] for row in found])


@cache
def scored_texts(name: str, train: int) -> tuple[np.ndarray, np.ndarray]:
    """Return logits and labels of the rows after the first `train`, on which a regression on words was fitted."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    texts, labels = texts_and_labels(name)
    order = np.random.default_rng(0).permutation(len(texts))
    labels = labels[order]
    words = TfidfVectorizer(sublinear_tf=True, min_df=2).fit_transform([texts[row] for row in order])
    logits = np.stack(
        [
            LogisticRegression(C=4.0, max_iter=300).fit(words[:train], own[:train]).decision_function(words[train:])
            for own in labels.T
        ],
        axis=1,
    )
    return logits, labels[train:]


def measured(name: str, repetitions: int, rows: int, train: int, test_rows: int) -> Iterator[Draw]:
    logits, labels = scored_texts(name, train)
    held, pool = slice(0, test_rows), np.arange(test_rows, len(labels))

    def test(cuts: np.ndarray) -> Scored:
        predicted, truth = logits[held] >= cuts, labels[held] == 1
        hits = (predicted & truth).sum(axis=0)
        return 2 * hits / (predicted.sum(axis=0) + truth.sum(axis=0)), hits / np.maximum(predicted.sum(axis=0), 1)

    for seed in range(repetitions):
        drawn = np.random.default_rng(seed).choice(pool, rows, replace=False)
        yield logits[drawn], labels[drawn], test


def judge(source: str, draws: Iterator[Draw]) -> list[dict[str, Any]]:
    """Return a row of results for each rule."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for logits, labels, test in draws:
        support = labels.sum(axis=0)
        kinds = {"few": (support > 0) & (support < FEW), "none": support == 0, "many": support >= FEW}
        for name, cuts in rules(logits, labels):
            f1, precision = test(cuts)
            found[name]["macro"].append(float(f1.mean()))
            for kind, which in kinds.items():
                found[name][kind] += f1[which].tolist()
            if kinds["few"].any():
                found[name]["worst precision"].append(float(precision[kinds["few"]].min()))
    keys = ("few", "none", "many", "macro", "worst precision")
    rows = []
    for name, scores in found.items():
        row = {"source": source, "rule": name}
        row |= {key: round(float(np.mean(scores[key])), 4) if scores[key] else None for key in keys}
        rows.append(row)
        print(row, flush=True)
    return rows


def against_own(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return, for each rule, the mean and the lowest difference to the own thresholds over the sources."""
    own = {row["source"]: row for row in rows if row["rule"] == "own"}
    found = []
    for rule in dict.fromkeys(row["rule"] for row in rows):
        entry: dict[str, Any] = {"rule": rule}
        for key in ("few", "none", "many", "macro", "worst precision"):
            pairs = [(row[key], own[row["source"]][key]) for row in rows if row["rule"] == rule]
            differences = [one - other for one, other in pairs if one is not None and other is not None]
            entry |= {key: round(float(np.mean(differences)), 4), f"{key}, lowest": round(min(differences), 4)}
        found.append(entry)
        print(entry, flush=True)
    return found


def main(repetitions: int = 100) -> None:
    assert np.isclose(expit(GRID[0]), 1e-4, atol=1e-4)
    rows = []
    for size, labels in ((300, 6), (300, 28), (1000, 6), (1000, 28)):
        rows += judge(f"simulated, {labels} labels, {size} rows", simulated(4 * repetitions, size, labels))
    for size in (200, 600, 1600):
        rows += judge(f"goemotions, {size} rows", measured("goemotions", repetitions, size, 6000, 20_000))
    for size in (150, 400, 1000):
        rows += judge(f"jigsaw, {size} rows", measured("jigsaw", repetitions, size, 2500, 3000))
    store_result("few_positive_thresholds", rows, repetitions=repetitions, against_own=against_own(rows))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
