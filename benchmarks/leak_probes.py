"""False alarms and finds of the probes for leaks: on clean data sets as they are, under random labels, and with a leak.

    python benchmarks/leak_probes.py FOLDER_OF_DATA [repetitions]

For each data set: what the probes report about it as it is; how many of the repetitions raise an alarm when the labels
are dealt to the texts at random (samples of 200, 1,000 and 4,000 rows, four random columns); and how often a leak that
is put into a share of the texts of one label is found.
"""

import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from machine import store_result

from fullbake.data.dataset import read_dataset
from fullbake.data.duplicates import normalize
from fullbake.data.leak_probes import INVISIBLE, MIN_GAIN, LabeledSample, Leak, find_leaks

JIGSAW = ["toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate"]
DATA: dict[str, dict[str, Any]] = {
    "ag_news_train_10k.csv": {"text": "title", "text_pair": "description", "label": "label"},
    "banking77_train.csv": {"text": "text", "label": "label"},
    "chnsenticorp_train.csv": {"text": "text", "label": "label"},
    "goemotions_train.jsonl": {"text": "text", "label": "labels"},
    "imdb_train.parquet": {"text": "text", "label": "label"},
    "jigsaw_8k.csv": {"text": "comment_text", "labels": JIGSAW},
    "mrpc_train.csv": {"text": "sentence1", "text_pair": "sentence2", "label": "label"},
    "sms_spam.csv": {"text": "text", "label": "label"},
    "sst2_train.csv": {"text": "text", "label": "label"},
    "trec_train.csv": {"text": "text", "label": "fine"},
}
SIZES = (200, 1_000, 4_000)
SAMPLE_ROWS = 20_000
LEAK_SHARES = (0.25, 0.5, 1.0)


def read_sample(path: Path, columns: dict[str, Any]) -> LabeledSample:
    """Read a data set as `inspect` samples it."""
    data = read_dataset(path, **columns)
    kept = np.sort(np.random.default_rng(0).permutation(len(data))[:SAMPLE_ROWS])
    texts = data.joined_texts.to_pylist()
    assert data.labels is not None
    return _sample([texts[row] for row in kept], data.labels[kept], data.rows[kept], data)


def _sample(texts: list[str], labels: np.ndarray, rows: np.ndarray, named: Any) -> LabeledSample:
    ids = np.unique(np.array([normalize(text) for text in texts], dtype=object), return_inverse=True)[1]
    return LabeledSample(tuple(texts), labels, named.label_names, named.problem, rows, ids)


def with_random_labels(sample: LabeledSample, size: int, random_numbers: np.random.Generator) -> LabeledSample:
    """Return some of the texts with labels of other texts, and with random columns."""
    chosen = random_numbers.permutation(len(sample.texts))[:size]
    labels = sample.labels[random_numbers.permutation(chosen)]
    small = _sample([sample.texts[row] for row in chosen], labels, np.arange(1, len(chosen) + 1), sample)
    count = len(chosen)
    columns = {
        "number": random_numbers.normal(size=count),
        "category": random_numbers.integers(0, 5, count),
        "id": random_numbers.permutation(count),
        "day": random_numbers.integers(0, 10**9, count).astype("datetime64[s]"),
    }
    return replace(small, columns=tuple((name, tuple(map(str, values))) for name, values in columns.items()))


def with_leak(sample: LabeledSample, share: float, random_numbers: np.random.Generator) -> LabeledSample:
    """Return the sample with a zero-width space in this share of the texts of its second label."""
    own = sample.problem.has_label(sample.labels, min(1, len(sample.label_names) - 1))
    marked = own & (random_numbers.random(len(own)) < share)
    texts = tuple(f"{text}\u200b" if one else text for text, one in zip(sample.texts, marked, strict=True))
    return replace(sample, texts=texts)


def main(folder: Path, repetitions: int = 40) -> None:
    """Measure and store."""
    rows: list[dict[str, Any]] = []
    alarms: Counter[str] = Counter()
    tried = 0
    for name, columns in DATA.items():
        sample = read_sample(folder / name, columns)
        random_numbers = np.random.default_rng(1)
        raised: Counter[str] = Counter()
        for size in SIZES:
            for _ in range(repetitions):
                raised.update({leak.kind for leak in find_leaks(with_random_labels(sample, size, random_numbers))})
        tried += repetitions * len(SIZES)
        alarms.update(raised)
        found = {
            share: next(
                (leak for leak in find_leaks(with_leak(sample, share, random_numbers)) if leak.kind == INVISIBLE), None
            )
            for share in LEAK_SHARES
        }
        row = {
            "data": name,
            "rows": len(sample.texts),
            "as it is": ", ".join(f"{leak.kind} {leak.found.gain:.2f}" for leak in find_leaks(sample)) or "nothing",
            "alarms under random labels": f"{raised.total()} of {repetitions * len(SIZES)}",
            **{f"leak in {share:.0%}: gain": _gain(leaks) for share, leaks in found.items()},
        }
        print(row, flush=True)
        rows.append(row)
    shares = {kind: f"{alarms[kind]} of {tried}" for kind in MIN_GAIN}
    store_result("leak_probes", rows, alarms_under_random_labels=shares)
    print(shares)


def _gain(leaks: list[Leak]) -> str:
    return f"{leaks[0].found.gain:.2f}" if leaks else "not found"


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
