"""CPU seconds of heads and regressions on features and on words, beside what a comparison forecasts for them.

    python benchmarks/forecast_costs.py FOLDER [SET:MULTIPLE ...]

FOLDER holds the data sets and gets a cache of features, which are not timed. MULTIPLE multiplies the usual rows of a
set. Everything is computed with one thread. The base is `demo`.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from frozen_heads import RATES, features, linear, mlp_heads
from machine import store_result
from small_sets import draw

from fullbake.comparison import forecast
from fullbake.core import runtime
from fullbake.data.splits import Part
from fullbake.training import logistic
from fullbake.training.baselines import BaselineRows, characters_read, fit_baseline

DRAWS = ("comments:0.5", "comments:1", "trec:0.5", "trec:4", "banking77:1", "banking77:3")


def cpu_seconds(work: Callable[[], Any]) -> float:
    """Return the CPU seconds that a function takes."""
    started = time.process_time()
    work()
    return time.process_time() - started


def measured(folder: Path, name: str, multiple: float) -> list[dict[str, Any]]:
    """Return the rows of the table for one set."""
    parts = draw(folder, name, 0, multiple)
    assert parts.validation is not None
    classes, count = len(parts.train.source.label_names), len(parts.train)

    def row(part: str, seconds: float, expected: float) -> dict[str, Any]:
        numbers = {"rows": count, "classes": classes, "CPU seconds": round(seconds, 2), "forecast": round(expected, 2)}
        return {"trained": part, "set": name, **numbers}

    def words(part: Part) -> BaselineRows:
        return BaselineRows(part.joined_texts.to_pylist(), part.labels)

    train, validation = words(parts.train), words(parts.validation)
    tfidf = cpu_seconds(lambda: fit_baseline("tfidf", train, classes, validation=validation))
    read = characters_read([len(text) for text in train.texts])
    rows, names = features(folder, name, 0, multiple)
    regression = cpu_seconds(lambda: linear(rows, names, 0, "neg_log_loss", logistic.fit_scaler))
    epochs: list[int] = []
    heads = cpu_seconds(lambda: epochs.extend(len(history) for _, history in mlp_heads(rows, names, 0, None)))
    expected = forecast.head_seconds(count, classes, max(epochs), len(RATES))
    return [
        row("TF-IDF", tfidf, forecast.words_seconds(count, read, classes)),
        row("linear head", regression, forecast.regression_seconds(count, classes)),
        row(f"mlp head, {len(RATES)} rates, {max(epochs)} epochs", heads, expected),
    ]


def main(folder: Path, draws: tuple[str, ...]) -> None:
    """Measure all sets and store the table."""
    runtime.set_threads(1)
    rows = []
    for one in draws:
        name, _, multiple = one.partition(":")
        rows += measured(folder, name, float(multiple or 1))
        print(*rows[-3:], sep="\n", flush=True)
    store_result("forecast_costs", rows)


if __name__ == "__main__":
    main(Path(sys.argv[1]), tuple(sys.argv[2:]) or DRAWS)
