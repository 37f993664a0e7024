"""Over a finished classifier: `evaluate` scores it on labelled rows, `predict_file` runs it over a file of any size."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from fullbake.classifier.model import Classifier
from fullbake.config.problems import MULTI_LABEL
from fullbake.config.recipe import Recipe
from fullbake.core.console import bar, warn
from fullbake.core.errors import DataError
from fullbake.core.runtime import release_memory
from fullbake.data.dataset import Dataset
from fullbake.data.duplicates import text_hashes
from fullbake.data.files import open_table, open_writer
from fullbake.data.splits import read_labeled
from fullbake.data.tables import Table
from fullbake.evaluation.calibration import score_decision


def predict_file(
    classifier: Classifier,
    source: str | Path | Table,
    target: str | Path | BinaryIO,
    *,
    text: str | None = None,
    text_pair: str | None = None,
    prefix: str = "",
    overwrite: bool = False,
) -> int:
    """Write the rows of `source` again, in order, with `predicted`, `score` and `score:<class>` after their columns;
    where a text may have many labels, with `predicted:<label>` (0 or 1) and `score:<label>`.

    source: a file (.csv .tsv .jsonl .parquet) or an open Table. target: a file, its form by its extension, or a binary
    stream in the source's form. text, text_pair: columns of the texts (None: the names they had in training). prefix:
    put before the added names. Streamed: memory does not grow with the rows. Returns the number of rows.
    Raises DataError for a row that cannot be read or a name that is taken, OutputError where the target is there.
    """
    columns = text_columns(classifier, text, text_pair)
    table = source if isinstance(source, Table) else open_table(source, columns=columns)
    extra = _added_columns(classifier, prefix)
    done = 0
    with open_writer(target, table, extra, overwrite=overwrite) as writer, bar("predicting", None, "rows") as advance:
        for chunk in table.chunks(keep=True):
            writer.write(chunk, _added(classifier, [chunk.columns[name] for name in columns], list(extra)))
            release_memory()
            advance(len(chunk))
            done += len(chunk)
    return done


def text_columns(classifier: Classifier, text: str | None, text_pair: str | None) -> list[str]:
    """The columns to read texts from: as named, or by their names in training."""
    trained = classifier.columns
    if text_pair is not None and trained.text_pair is None:
        raise DataError(
            "this classifier was trained on single texts", got=f"a second column {text_pair!r}", remedy="Leave it out."
        )
    return [text or trained.text, *([] if trained.text_pair is None else [text_pair or trained.text_pair])]


def open_table_as_trained(
    classifier: Classifier,
    source: str | Path,
    *,
    text: str | None = None,
    text_pair: str | None = None,
    delimiter: str | None = None,
    encoding: str = "utf-8",
) -> Table:
    """A file with the texts that the classifier reads, for `predict_file`."""
    columns = text_columns(classifier, text, text_pair)
    return open_table(source, columns=columns, delimiter=delimiter, encoding=encoding)


def read_as_trained(classifier: Classifier, source: str | Path, **given: Any) -> Dataset:
    """Labelled rows for `evaluate`. given: fields of the recipe's `data` section, in place of those of training."""
    trained = {name: value for name, value in classifier.columns.to_json().items() if value is not None}
    if "label" in given:
        trained.pop("labels", None)
    if "labels" in given:
        trained.pop("label_separator", None)
    config = Recipe.load(**({"base": "as trained"} | trained | given)).data
    return read_labeled(source, config, label_names=classifier.label_names)


def predict_texts(classifier: Classifier, texts: Sequence[str]) -> np.ndarray:
    """Probabilities of texts as they are typed, (texts, classes); of a classifier of pairs the two texts of one
    pair."""
    if classifier.columns.text_pair is None:
        return classifier.predict_proba(texts)
    if len(texts) != 2:
        raise DataError(
            "this classifier reads pairs of texts",
            expected="two texts, or a file with two columns of them",
            got=f"{len(texts)} text{'' if len(texts) == 1 else 's'}",
            remedy="Give both texts of one pair.",
        )
    return classifier.predict_proba(texts[:1], texts[1:])


def _added_columns(classifier: Classifier, prefix: str) -> dict[str, type]:
    """Names and kinds of the added columns, in their order."""
    names = classifier.label_names
    predicted: dict[str, type] = (
        {f"predicted:{name}": np.uint8 for name in names}
        if classifier.problem_type == MULTI_LABEL
        else {"predicted": str, "score": np.float32}
    )
    return {prefix + name: kind for name, kind in (predicted | {f"score:{n}": np.float32 for n in names}).items()}


def _added(classifier: Classifier, texts: list[list[str]], names: list[str]) -> dict[str, Any]:
    """The added columns of one chunk. texts: a list a column of texts."""
    chances = classifier.predict_proba(*texts)
    decided = classifier.decision.decide(chances)
    scores = chances.astype(np.float32)
    if decided.ndim == 2:
        return dict(zip(names, [*decided.T, *scores.T], strict=True))
    own = scores[np.arange(len(decided)), decided]
    return dict(zip(names, [list(classifier.classes_[decided]), own, *scores.T], strict=True))


def evaluate(classifier: Classifier, dataset: Dataset) -> dict[str, Any]:
    """Score a classifier on labelled rows: `metrics.score`'s figures by the classifier's own decision, `calibration`,
    `trained_on`, how many rows it was trained on, and `stamps`, what else the scores have to be read with.

    Warns where there is any of it. The dataset must have been read with the classifier's `label_names`.
    """
    assert dataset.labels is not None
    scores = score_decision(dataset.labels, classifier.logits(dataset.texts, dataset.text_pair), classifier.decision)
    trained_on = count_training_texts(classifier, dataset)
    if trained_on:
        warn(
            f"{trained_on:,} of these {len(dataset):,} rows were trained on: the scores flatter the classifier "
            "(texts compared after NFKC, case folding and whitespace collapsing)"
        )
    for stamp in classifier.stamps:
        warn(stamp)
    return scores | {"trained_on": trained_on, "stamps": classifier.stamps}


def count_training_texts(classifier: Classifier, dataset: Dataset) -> int:
    """How many of the rows hold a text that the classifier was trained on."""
    seen = {bytes(row) for row in classifier.record.seen["hashes"]}
    return sum(bytes(row) in seen for row in text_hashes(dataset.joined_texts))
