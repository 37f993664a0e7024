"""Accuracy on the bundled comments (topic, base demo) on five splits with different seeds, by recipe and for TF-IDF.

    python benchmarks/accuracy_over_splits.py [recipe ...]

Each split sets 20% of the file aside for test, and 20% for validation. Test is scored once. TF-IDF is scikit-learn's
TfidfVectorizer and LogisticRegression with their defaults, on the same training and test rows.
"""

import statistics
import sys
import time
from typing import Any

from machine import store_result
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from small_sets import bundled_comments

from fullbake import Recipe, adapt
from fullbake.data.labeled_files import read_labeled
from fullbake.data.splits import divide

SEEDS = range(5)


def accuracy(recipe: str, seed: int) -> float:
    chosen = Recipe.load(recipe, base="demo", label="topic", test=0.2, split_seed=seed, seed=seed)
    classifier = adapt(chosen, bundled_comments())
    return float(classifier.record.facts["metrics"]["test"]["overall"]["accuracy"]["value"])


def tfidf(seed: int) -> float:
    config = Recipe.load("finetune", base="demo", label="topic", test=0.2, split_seed=seed).data
    parts = divide(read_labeled(bundled_comments(), config), config)
    pipeline = make_pipeline(TfidfVectorizer(), LogisticRegression(max_iter=1000))
    pipeline.fit(parts.train.joined_texts.to_pylist(), parts.train.labels)
    assert parts.test is not None
    return float(pipeline.score(parts.test.joined_texts.to_pylist(), parts.test.labels))


def measure_splits(name: str, measure: Any) -> dict[str, Any]:
    started = time.perf_counter()
    values = []
    for seed in SEEDS:
        values.append(round(measure(seed), 4))
        print(f"{name} split {seed}: {values[-1]:.4f}", flush=True)
    spread = f"{min(values):.3f} to {max(values):.3f}"
    seconds = round((time.perf_counter() - started) / len(values), 1)
    return {
        "recipe": name,
        "mean accuracy": round(statistics.mean(values), 4),
        "over the splits": spread,
        "each": values,
        "seconds a run": seconds,
    }


def main(recipes: list[str]) -> None:
    rows = [measure_splits("TF-IDF + logistic regression", tfidf)]
    rows += [measure_splits(recipe, lambda seed, recipe=recipe: accuracy(recipe, seed)) for recipe in recipes]
    store_result(
        "accuracy_over_splits",
        rows,
        data="samples/comments.csv, topic, 1,200 rows, 8 classes",
        splits=len(rows[0]["each"]),
    )


if __name__ == "__main__":
    main(sys.argv[1:] or ["frozen-linear", "frozen-mlp", "finetune"])
