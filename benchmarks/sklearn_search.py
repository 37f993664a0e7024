"""scikit-learn's search over heads on features that are computed once, beside the same search without the cache.

    python benchmarks/sklearn_search.py FILE TEXT LABEL [ROWS]

Both sides run the same GridSearchCV over a pipeline of a base and a head, in one process, in turns. Without the cache
every call of `transform` runs the base over its texts, as a transformer around an encoder does that keeps nothing but
the loaded base. Processor seconds are counted, which other programs change less than the time on the clock.
"""

import csv
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from machine import store_result
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline
from sklearn.svm import SVC

from fullbake.integrations import text_vectors
from fullbake.integrations.sklearn import FullbakeFeatures
from fullbake.training.job import feature_cache

ROUNDS = 2
FOLDS = 3
HEADS: list[dict[str, list[Any]]] = [
    {"head": [LogisticRegression(max_iter=2000)], "head__C": [0.1, 1, 10]},
    {"head": [SVC()], "head__C": [1, 10]},
    {"head": [KNeighborsClassifier(metric="cosine")]},
]


class ForgetfulFeatures(FullbakeFeatures):  # type: ignore[misc]
    """The same features, where every call computes them, by a base that stays in memory."""

    def transform(self, X: Any) -> Any:  # noqa: N803
        forget(self.cache_dir)  # type: ignore[attr-defined]
        return super().transform(X)

    def fit(self, X: Any, y: Any = None) -> Any:  # noqa: N803, ARG002
        return self


def forget(folder: str) -> None:
    """Remove the vectors of texts from memory and from the cache."""
    text_vectors._memory.clear()
    feature_cache(folder).clear()


def keep_base_in_memory() -> None:
    """Let both sides load the base once."""
    load = text_vectors.initial_network
    loaded: list[Any] = []

    def kept(job: Any) -> Any:
        if not loaded:
            loaded.append(load(job))
        return loaded[0]

    text_vectors.initial_network = kept


def main(file: str, text: str, label: str, rows: str = "300") -> None:
    with Path(file).open(encoding="utf-8", newline="") as stream:
        read = list(csv.DictReader(stream))
    chosen = np.random.Generator(np.random.PCG64(0)).permutation(len(read))[: int(rows)]
    texts, labels = [read[row][text] for row in chosen], [read[row][label] for row in chosen]
    keep_base_in_memory()
    found = []
    for number in range(1, ROUNDS + 1):
        for name, kind in (("computed once", FullbakeFeatures), ("computed every time", ForgetfulFeatures)):
            found.append({"search": name, "round": number, **timed(kind, texts, labels)})
            print(found[-1])
    candidates = sum(len(grid.get("head__C", [1])) for grid in HEADS)
    data = f"{Path(file).name}, {len(texts):,} rows, {FOLDS} folds, {candidates} heads, base demo"
    store_result("sklearn_search", found, data=data)


def timed(kind: type[FullbakeFeatures], texts: list[str], labels: list[str]) -> dict[str, Any]:
    """Return the processor seconds and the seconds of a search from an empty cache, and what it found."""
    with tempfile.TemporaryDirectory() as folder:
        kind(cache_dir=folder).transform(texts[:2])  # imports, the base, and its trial
        forget(folder)
        pipeline = Pipeline([("features", kind(cache_dir=folder)), ("head", LogisticRegression())])
        used, started = time.process_time(), time.perf_counter()
        search = GridSearchCV(pipeline, HEADS, cv=FOLDS).fit(texts, labels)
        return {
            "processor seconds": round(time.process_time() - used, 2),
            "seconds": round(time.perf_counter() - started, 2),
            "best score": round(float(search.best_score_), 4),
        }


if __name__ == "__main__":
    main(*sys.argv[1:])
