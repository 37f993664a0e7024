"""Over a finished classifier: `evaluate` scores it on labelled rows, `predict_file` runs it over a file of any size."""

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from fullbake import metrics
from fullbake.data import Dataset
from fullbake.duplicates import text_hashes
from fullbake.model import Classifier
from fullbake.progress import bar, warn
from fullbake.runtime import release_memory
from fullbake.tables import Table, open_table
from fullbake.writers import open_writer


def predict_file(
    classifier: Classifier,
    source: str | Path | Table,
    target: str | Path | BinaryIO,
    *,
    text: str | None = None,
    prefix: str = "",
    overwrite: bool = False,
) -> int:
    """Write the rows of `source` again, in order, with `predicted`, `score` and `score:<class>` after their columns.

    source: a file (.csv .tsv .jsonl .parquet) or an open Table. target: a file, its form by its extension, or a binary
    stream in the source's form. text: column of the texts (None: the name it had in training). prefix: put before the
    added names. Streamed: memory does not grow with the rows. Returns the number of rows.
    Raises DataError for a row that cannot be read or a name that is taken, OutputError where the target is there.
    """
    column = text or classifier.text_column
    table = source if isinstance(source, Table) else open_table(source, columns=[column])
    extra = {name: str if name == f"{prefix}predicted" else np.float32 for name in _added_names(classifier, prefix)}
    done = 0
    with open_writer(target, table, extra, overwrite=overwrite) as writer, bar("predicting", None, "rows") as advance:
        for chunk in table.chunks(keep=True):
            writer.write(chunk, _added(classifier, chunk.columns[column], prefix))
            release_memory()
            advance(len(chunk))
            done += len(chunk)
    return done


def _added_names(classifier: Classifier, prefix: str) -> list[str]:
    names = ["predicted", "score", *(f"score:{label}" for label in classifier.label_names)]
    return [prefix + name for name in names]


def _added(classifier: Classifier, texts: list[str], prefix: str) -> dict[str, Any]:
    """The added columns of one chunk: the likeliest class, its probability, and every class's."""
    chances = classifier.predict_proba(texts).astype(np.float32)
    likeliest = list(classifier.classes_[chances.argmax(axis=1)])
    return dict(zip(_added_names(classifier, prefix), [likeliest, chances.max(axis=1), *chances.T], strict=True))


def evaluate(classifier: Classifier, dataset: Dataset) -> dict[str, Any]:
    """Score a classifier on labelled rows: `metrics.score`'s figures, and `trained_on`, how many rows it was trained
    on.

    Warns where that is not 0. The dataset must have been read with the classifier's `label_names`.
    """
    assert dataset.labels is not None
    scores = metrics.score(dataset.labels, classifier.predict_proba(dataset.texts), classifier.label_names)
    trained_on = count_seen(classifier, dataset)
    if trained_on:
        warn(
            f"{trained_on:,} of these {len(dataset):,} rows were trained on: the scores flatter the classifier "
            "(texts compared after NFKC, case folding and whitespace collapsing)"
        )
    return scores | {"trained_on": trained_on}


def count_seen(classifier: Classifier, dataset: Dataset) -> int:
    """How many of the rows hold a text that the classifier was trained on."""
    seen = {bytes(row) for row in classifier.record.seen["hashes"]}
    return sum(bytes(row) in seen for row in text_hashes(dataset.texts))
