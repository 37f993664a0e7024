"""Labels that are likely wrong, ranked for a person to check.

Every row gets its probabilities from a logistic regression on frozen features that was fitted without it (nor any text
like it); cleanlab (Northcutt, Jiang and Chuang 2021, arXiv 1911.00068) ranks the rows by how little of it their own
label has. Nothing is changed or left out: a rare but right label looks suspect too.
"""

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from fullbake.config.recipe import Recipe
from fullbake.core import storage
from fullbake.core.console import bar
from fullbake.core.errors import OutputError, RecipeError
from fullbake.data.dataset import Dataset
from fullbake.data.duplicates import duplicate_groups
from fullbake.data.splits import Part, Parts, make_folds
from fullbake.models import network
from fullbake.models.encoder import load_encoder
from fullbake.training.job import Job, feature_cache, part_features, recipe_tokenizer, resolve_recipe

FOLDS: Final = 5
REGRESSION_STRENGTH: Final = 150.0
"""Inverse regularization strength times rows. Strong, so that a wrong label is not learned from the rows about it: at
the 0.03 that this is for 5,000 rows most flips were found on TREC (0.79 of 40 in the first 100; 0.74 at 0.1, 0.68 at
1).
"""


@dataclass(frozen=True)
class LabelErrors:
    """Rows in order of suspicion. positions: into the data set, the most suspect first. quality: of each, 0 to 1, low
    is suspect. suggested: the labels that the other rows would give."""

    positions: np.ndarray
    quality: np.ndarray
    suggested: list[tuple[str, ...]]


def dataset_features(dataset: Dataset, recipe: Recipe, cache_dir: str | Path | None = None) -> np.ndarray:
    """Features (rows, width) of a data set's texts, cut at the head, from the cache where it knows them."""
    chosen = resolve_recipe(recipe.with_fields(way="frozen", truncation="head", stride=None, **_AS_LINEAR))
    whole = Part(dataset, np.arange(len(dataset)))
    base = network.encoder_fingerprint(load_encoder(chosen.base))
    job = Job(chosen, Parts(whole, None, None), recipe_tokenizer(chosen), base, feature_cache(cache_dir))
    (found,) = part_features(job, [whole])
    return found.vectors


_AS_LINEAR: Final = {"head": "linear", "optimizer": "lbfgs", "freeze_layers": None, "layer_decay": 1.0}


def find_label_errors(dataset: Dataset, features: np.ndarray, *, seed: int = 0) -> LabelErrors:
    """Rank all rows. features: (rows, width). Raises RecipeError where cleanlab is not installed."""
    require_cleanlab()
    assert dataset.labels is not None
    chances = _cross_validated(dataset, features, seed)
    quality = _quality(dataset.labels, chances)
    order = np.argsort(quality, kind="stable")
    names = dataset.label_names
    decided = chances >= 0.5 if dataset.multi_label else chances == chances.max(axis=1, keepdims=True)
    suggested = [tuple(names[place] for place in np.flatnonzero(decided[row])) for row in order]
    return LabelErrors(order, quality[order], suggested)


def write_label_errors(path: str | Path, dataset: Dataset, suspects: LabelErrors) -> None:
    """A CSV of all rows, the most suspect first: rank, row (from 1), label, suggested, quality, text (or both texts).

    Raises OutputError where the file is there already.
    """
    if Path(path).exists():
        raise OutputError("there is a file already", where=str(path), remedy="Name another one, or remove it.")
    written = io.StringIO(newline="")
    rows = csv.writer(written, lineterminator="\n")
    rows.writerow(["rank", "row", "label", "suggested", "quality", *dataset.columns.of_texts])
    taken = dataset.take(suspects.positions)
    texts = [column.to_pylist() for column in (taken.texts, taken.text_pair) if column is not None]
    given = _named(taken)
    for rank, cells in enumerate(zip(taken.rows, given, suspects.suggested, suspects.quality, *texts, strict=True), 1):
        row, own, other, quality, *text = cells
        rows.writerow([rank, row, " | ".join(own), " | ".join(other), f"{quality:.4f}", *text])
    storage.write_bytes(Path(path), written.getvalue().encode())


def _named(dataset: Dataset) -> list[tuple[str, ...]]:
    assert dataset.labels is not None
    names = dataset.label_names
    if not dataset.multi_label:
        return [(names[label],) for label in dataset.labels]
    return [tuple(names[place] for place in np.flatnonzero(row)) for row in dataset.labels]


def _cross_validated(dataset: Dataset, features: np.ndarray, seed: int) -> np.ndarray:
    """Probabilities (rows, classes) of each row by a regression that saw neither it nor a text like it."""
    labels: Any = dataset.labels
    chances = np.zeros((len(dataset), len(dataset.label_names)))
    held_out = make_folds(duplicate_groups(dataset.joined_texts), labels, FOLDS, seed)
    with bar("cross-validating", len(dataset), "rows") as advance:
        for held in held_out:
            kept = np.setdiff1d(np.arange(len(dataset)), held)
            _fit_and_score(features, labels, kept, held, chances)
            advance(len(held))
    return chances


def _fit_and_score(
    features: np.ndarray, labels: np.ndarray, kept: np.ndarray, held: np.ndarray, chances: np.ndarray
) -> None:
    """Fill in the chances of the rows that are held out."""
    regression: Any = LogisticRegression(C=REGRESSION_STRENGTH / len(kept), max_iter=1000)
    known = np.arange(chances.shape[1])
    if labels.ndim == 2:  # a label that these rows all have, or none, cannot be fitted
        counts = labels[kept].sum(axis=0)
        known = np.flatnonzero((counts > 0) & (counts < len(kept)))
        regression = OneVsRestClassifier(regression)
        labels = labels[:, known]
    model = make_pipeline(StandardScaler(), regression)
    with threadpool_limits(1, user_api="blas"):
        model.fit(features[kept], labels[kept])
    columns = known if labels.ndim == 2 else model.classes_
    chances[held[:, None], columns] = model.predict_proba(features[held])


def require_cleanlab() -> None:
    """Raise RecipeError where cleanlab is not installed: it is told before the work."""
    try:
        import cleanlab.rank  # noqa: F401
    except ImportError:
        raise RecipeError(
            "cleanlab, which ranks suspect labels, is not installed",
            remedy="pip install 'fullbake[suspects]'",
        ) from None


def _quality(labels: np.ndarray, chances: np.ndarray) -> np.ndarray:
    """How little suspect each row's label is, (rows,), by its own probability ("self-confidence")."""
    from cleanlab.multilabel_classification.rank import get_label_quality_scores as of_many
    from cleanlab.rank import get_label_quality_scores as of_one

    if labels.ndim == 2:
        held: list[list[int]] = [np.flatnonzero(row).tolist() for row in labels]
        return np.asarray(of_many(held, chances))
    return np.asarray(of_one(labels, chances, method="self_confidence", adjust_pred_probs=False))
