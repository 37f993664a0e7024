"""False alarms and finds of the probes for leaks: on real data as it is, under random labels, and with planted leaks.

    python benchmarks/leak_probes.py FOLDER_OF_DATA [repetitions]

For each data set: what `inspect` and the head of a run report about it as it is; how many repetitions raise an alarm
when the labels are dealt to the texts at random (200, 1,000 and 4,000 rows, four random columns); and how often a leak
is found that is put into 3,000 rows, the sample of a run. A leak concerns the texts of the most frequent label of the
set; the position concerns all.
"""

import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from machine import store_result

from fullbake.config.sections import DataConfig
from fullbake.data.dataset import PAIR_SEPARATOR, Dataset, read_dataset
from fullbake.data.inspection import QUICK_SAMPLE_ROWS, SAMPLE_ROWS, inspect_file
from fullbake.data.leak_probes import (
    COLUMN,
    INVISIBLE,
    LENGTH,
    LETTERS,
    MIN_GAIN,
    POSITION,
    WHITE_SPACE,
    find_leaks,
)
from fullbake.data.normalization import normalize
from fullbake.data.predictive_codes import LabeledSample

JIGSAW: Final = ["toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate"]
PAIR: Final = {"text": "sentence1", "text_pair": "sentence2", "label": "label"}
NEWS: Final = {"text": "title", "text_pair": "description", "label": "label"}
EMOTIONS: Final = {"text": "text", "label": "labels"}
PLAIN: Final = {"text": "text", "label": "label"}
DATA: Final[tuple[tuple[str, dict[str, Any]], ...]] = (
    ("ag_news_train_10k.csv", NEWS),
    ("ag_news_test.csv", NEWS),
    ("banking77_train.csv", PLAIN),
    ("banking77_test.csv", PLAIN),
    ("chnsenticorp_train.csv", PLAIN),
    ("chnsenticorp_dev.csv", PLAIN),
    ("goemotions_train.jsonl", EMOTIONS),
    ("goemotions_dev.jsonl", EMOTIONS),
    ("goemotions_test.jsonl", EMOTIONS),
    ("imdb_train.parquet", PLAIN),
    ("imdb_test.parquet", PLAIN),
    ("jigsaw_8k.csv", {"text": "comment_text", "labels": JIGSAW}),
    ("mrpc_train.csv", PAIR),
    ("mrpc_test.csv", PAIR),
    ("sms_spam.csv", PLAIN),
    ("sst2_train.csv", PLAIN),
    ("sst2_dev.csv", PLAIN),
    ("trec_train.csv", {"text": "text", "label": "fine"}),
    ("trec_train.csv", {"text": "text", "label": "coarse"}),
    ("trec_test.csv", {"text": "text", "label": "coarse"}),
)
SIZES: Final = (200, 1_000, 4_000)
PLANTINGS: Final = 5
KINDS: Final = ("invisible characters", "white space", "letters", "length", "sorted by label", "revealing column")
"""The kinds of finding that come from probes."""

Random = np.random.Generator
Mask = npt.NDArray[np.bool_]


def sample_of(data: Dataset, positions: npt.NDArray[np.int64]) -> LabeledSample:
    """Return some rows of a data set."""
    assert data.labels is not None
    texts = data.joined_texts.take(positions).to_pylist()
    return _with_texts(texts, data.labels[positions], data, np.arange(1, len(positions) + 1))


def _with_texts(
    texts: list[str], labels: npt.NDArray[Any], data: Dataset, rows: npt.NDArray[np.int64]
) -> LabeledSample:
    ids = np.unique(np.array([normalize(text) for text in texts], dtype=object), return_inverse=True)[1]
    return LabeledSample(tuple(texts), labels, data.label_names, data.problem, rows, ids)


def with_random_labels(data: Dataset, size: int, random: Random) -> LabeledSample:
    """Return some of the texts with labels of other texts, and with random columns."""
    chosen = random.permutation(len(data))[:size]
    sample = sample_of(data, chosen)
    count = len(chosen)
    columns = {
        "number": random.normal(size=count),
        "category": random.integers(0, 5, count),
        "id": random.permutation(count),
        "day": random.integers(0, 10**9, count).astype("datetime64[s]"),
    }
    named = tuple((name, tuple(map(str, values))) for name, values in columns.items())
    return replace(sample, labels=sample.labels[random.permutation(count)], columns=named)


def _changed(sample: LabeledSample, own: Mask, change: Callable[[str], str]) -> LabeledSample:
    return replace(
        sample, texts=tuple(change(text) if one else text for text, one in zip(sample.texts, own, strict=True))
    )


def _cut(sample: LabeledSample, own: Mask) -> LabeledSample:
    """Cut the last text of a row to a third of the median length of all."""
    length = max(8, int(np.median([len(side) for side in sample.sides[-1]])) // 3)
    return _changed(
        sample, own, lambda text: text[: len(text) - len(text.rpartition(f"{PAIR_SEPARATOR} ")[2]) + length]
    )


def _sorted_by_label(sample: LabeledSample, own: Mask, _: Random) -> LabeledSample:
    """Put the rows with the label first; of single labels sort all rows by label."""
    order = np.argsort(sample.labels if sample.problem.exclusive else ~own, kind="stable")
    texts = tuple(sample.texts[row] for row in order)
    return replace(sample, texts=texts, labels=sample.labels[order], text_ids=sample.text_ids[order])


def _with_column(sample: LabeledSample, own: Mask, random: Random) -> LabeledSample:
    """Add a number that is higher by four standard deviations in the rows with the label."""
    return replace(sample, columns=(("score", tuple(f"{number:.3f}" for number in random.normal(4.0 * own))),))


PLANTED: Final[dict[str, tuple[str, Callable[[LabeledSample, Mask, Random], LabeledSample]]]] = {
    "U+FE0F in all texts of the label": (
        INVISIBLE,
        lambda sample, own, _: _changed(sample, own, lambda text: f"{text}\ufe0f"),
    ),
    "U+200B in half of them": (
        INVISIBLE,
        lambda sample, own, random: _changed(sample, own & (random.random(len(own)) < 0.5), lambda one: f"\u200b{one}"),
    ),
    "U+00A0 in a quarter of them": (
        INVISIBLE,
        lambda sample, own, random: _changed(sample, own & (random.random(len(own)) < 0.25), lambda one: f"\xa0{one}"),
    ),
    "tab at the end": (WHITE_SPACE, lambda sample, own, _: _changed(sample, own, lambda text: f"{text}\t")),
    "decomposed accents": (LETTERS, lambda sample, own, _: _changed(sample, own, lambda text: f"{text} e\u0301")),
    "cut to a third": (LENGTH, lambda sample, own, _: _cut(sample, own)),
    "sorted by label": (POSITION, _sorted_by_label),
    "column of numbers": (COLUMN, _with_column),
}
"""Name of a planted leak to the kind of probe that should find it, and what puts it into the rows with a label."""


def findings_of(path: Path, columns: dict[str, Any], rows: int) -> str:
    """Return what the probes report about a file as it is, in one cell."""
    facts = inspect_file(path, DataConfig(**columns), sample_rows=rows)
    return ", ".join(found.kind for found in facts.findings if found.kind in KINDS) or "nothing"


def count_alarms(data: Dataset, repetitions: int) -> Counter[str]:
    """Return by kind of probe how many samples with random labels raise an alarm."""
    random = np.random.default_rng(1)
    raised: Counter[str] = Counter()
    for size in SIZES:
        for _ in range(repetitions):
            raised.update({leak.kind for leak in find_leaks(with_random_labels(data, size, random))})
    return raised


def count_finds(data: Dataset) -> dict[str, str]:
    """Return by planted leak how many of the plantings are found."""
    random = np.random.default_rng(2)
    found: Counter[str] = Counter()
    for _ in range(PLANTINGS):
        sample = sample_of(data, random.permutation(len(data))[:QUICK_SAMPLE_ROWS])
        label = int(np.bincount(sample.entries[1]).argmax())
        own = sample.problem.has_label(sample.labels, label)
        for name, (kind, plant) in PLANTED.items():
            found[name] += any(leak.kind == kind for leak in find_leaks(plant(sample, own, random)))
    return {name: f"{found[name]} of {PLANTINGS}" for name in PLANTED}


def main(folder: Path, repetitions: int = 40) -> None:
    """Measure and store."""
    rows: list[dict[str, Any]] = []
    alarms: Counter[str] = Counter()
    tried = 0
    for name, columns in DATA:
        data = read_dataset(folder / name, **columns)
        raised = count_alarms(data, repetitions)
        alarms.update(raised)
        tried += repetitions * len(SIZES)
        row = {
            "data": f"{name}, {columns['label']}" if name.startswith("trec") else name,
            "rows": len(data),
            "labels": len(data.label_names),
            "reported by inspect": findings_of(folder / name, columns, SAMPLE_ROWS),
            "at the head of a run": findings_of(folder / name, columns, QUICK_SAMPLE_ROWS),
            "alarms under random labels": f"{raised.total()} of {repetitions * len(SIZES)}",
            **count_finds(data),
        }
        print(row, flush=True)
        rows.append(row)
    by_kind = {kind: f"{alarms[kind]} of {tried}" for kind in MIN_GAIN}
    store_result("leak_probes", rows, alarms_under_random_labels=by_kind)
    print(by_kind)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
