"""Find labels that are likely wrong, ranked for a person to check.

Each row is scored by a logistic regression on frozen features that was fitted without it and without its near
duplicates. cleanlab (Northcutt, Jiang and Chuang 2021, arXiv 1911.00068) ranks the rows by the probability of their own
label. Nothing is changed or removed, because a rare but correct label looks doubtful too.
"""

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from threadpoolctl import threadpool_limits

from fullbake.config.problems import problem_of
from fullbake.config.recipe import Recipe
from fullbake.core import storage
from fullbake.core.console import bar
from fullbake.core.errors import OutputError, RecipeError
from fullbake.data.dataset import Dataset
from fullbake.data.duplicates import duplicate_groups
from fullbake.data.grouping import join_groups
from fullbake.data.partition import make_folds
from fullbake.data.splits import Part, Parts
from fullbake.models import network
from fullbake.models.admission import admit
from fullbake.training.job import Job, feature_cache, part_features, recipe_tokenizer, resolve_recipe
from fullbake.training.logistic import LogisticModel, fit_scaler

FOLDS: Final = 5
REGRESSION_STRENGTH: Final = 150.0
"""Inverse regularization strength times rows. Strong, so that a wrong label is not learned from the rows about it: at
the 0.03 that this is for 5,000 rows most flips were found on TREC (0.79 of 40 in the first 100; 0.74 at 0.1, 0.68 at
1).
"""


@dataclass(frozen=True)
class LabelErrors:
    """The rows of a data set, those with the most doubtful labels first."""

    positions: np.ndarray
    """Row numbers in the data set, from 0, int64 (rows,)."""

    quality: np.ndarray
    """Label quality of each row, 0 to 1, float64 (rows,). A low value is doubtful."""

    suggested: list[tuple[str, ...]]
    """The labels that the regression would give."""


def dataset_features(dataset: Dataset, recipe: Recipe, cache_dir: str | Path | None = None) -> np.ndarray:
    """Compute the frozen features (rows, width) of a data set's texts, or read them from the cache."""
    chosen = resolve_recipe(recipe.with_fields(way="frozen", truncation="head", stride=None, **_AS_LINEAR))
    whole = Part(dataset, np.arange(len(dataset)))
    admit(chosen.base, cache_dir=cache_dir)
    base = network.base_fingerprint(chosen.base)
    job = Job(chosen, Parts(whole, None, None), recipe_tokenizer(chosen), base, feature_cache(cache_dir))
    (found,) = part_features(job, [whole])
    return found.vectors


_AS_LINEAR: Final = {"head": "linear", "optimizer": "lbfgs", "freeze_layers": None, "layer_decay": 1.0}


def find_label_errors(dataset: Dataset, features: np.ndarray, *, seed: int = 0) -> LabelErrors:
    """Rank all rows by how doubtful their label is.

    Args:
        dataset: Labeled rows.
        features: Their frozen features, (rows, width).
        seed: Seed of the folds.

    Raises:
        RecipeError: cleanlab is not installed.
    """
    require_cleanlab()
    assert dataset.labels is not None
    probabilities = _cross_validated(dataset, features, seed)
    quality = _quality(dataset.labels, probabilities)
    order = np.argsort(quality, kind="stable")
    names = dataset.label_names
    decided = dataset.problem.label_ids(dataset.problem.decide(probabilities))
    suggested = [tuple(names[label] for label in decided[row]) for row in order]
    return LabelErrors(order, quality[order], suggested)


def write_label_errors(path: str | Path, dataset: Dataset, suspects: LabelErrors) -> None:
    """Write a CSV of all rows, the most doubtful labels first.

    Its columns are rank, row (from 1), label, suggested, quality, and the text or both texts.

    Raises:
        OutputError: As `check_target`.
    """
    check_target(path)
    written = io.StringIO(newline="")
    rows = csv.writer(written, lineterminator="\n")
    rows.writerow(["rank", "row", "label", "suggested", "quality", *dataset.columns.of_texts])
    taken = dataset.take(suspects.positions)
    texts = [column.to_pylist() for column in (taken.texts, taken.text_pair) if column is not None]
    given = _named(taken)
    for rank, cells in enumerate(zip(taken.rows, given, suspects.suggested, suspects.quality, *texts, strict=True), 1):
        row, own, other, quality, *text = cells
        rows.writerow([rank, row, " | ".join(own), " | ".join(other), f"{quality:.4f}", *text])
    with storage.staged_file(path) as fresh:
        storage.write_bytes(fresh, written.getvalue().encode())


def check_target(path: str | Path) -> None:
    """Raise the OutputError that `write_label_errors` would raise. Call it before long work.

    Raises:
        OutputError: The file exists already, or its folder cannot be written to.
    """
    if Path(path).exists():
        raise OutputError("the file exists already", where=str(path), remedy="Choose another name, or delete the file.")
    storage.require_writable(path)


def _named(dataset: Dataset) -> list[tuple[str, ...]]:
    assert dataset.labels is not None
    names = dataset.label_names
    return [tuple(names[label] for label in labels) for labels in dataset.problem.label_ids(dataset.labels)]


def _cross_validated(dataset: Dataset, features: np.ndarray, seed: int) -> np.ndarray:
    """Return probabilities (rows, classes), each row's by a regression fitted without it and its near duplicates."""
    labels: Any = dataset.labels
    probabilities = np.zeros((len(dataset), len(dataset.label_names)))
    held_out = make_folds(_groups(dataset), labels, FOLDS, seed)
    with bar("cross-validating", len(dataset), "rows") as advance:
        for held in held_out:
            kept = np.setdiff1d(np.arange(len(dataset)), held)
            _fit_and_score(features, labels, kept, held, probabilities)
            advance(len(held))
    return probabilities


def _groups(dataset: Dataset) -> np.ndarray:
    """Return (rows,) the groups that folds keep whole. Texts of one template are only joined where they are equal."""
    texts = duplicate_groups(dataset.joined_texts)
    if len(np.unique(texts)) < FOLDS:
        texts = duplicate_groups(dataset.joined_texts, near=False)
    own = dataset.group_ids
    return texts if own is None else join_groups(own, texts)


def _fit_and_score(
    features: np.ndarray, labels: np.ndarray, kept: np.ndarray, held: np.ndarray, probabilities: np.ndarray
) -> None:
    """Fill in the probabilities of the rows that are held out."""
    with threadpool_limits(1, user_api="blas"):
        scaler = fit_scaler(features[kept])
        model = LogisticModel(labels[kept]).fit(scaler.transform(features[kept]), REGRESSION_STRENGTH / len(kept))
    probabilities[held[:, None], model.outputs] = model.probabilities(scaler.transform(features[held]))


def require_cleanlab() -> None:
    """Raise RecipeError if cleanlab is not installed; called before the work begins."""
    try:
        import cleanlab.rank  # noqa: F401
    except ImportError:
        raise RecipeError(
            "--suspects needs cleanlab, which is not installed",
            remedy="pip install 'fullbake[suspects]'",
        ) from None


def _quality(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return the quality of each row's label, (rows,): the probability of that label ("self-confidence")."""
    from cleanlab.multilabel_classification.rank import get_label_quality_scores as of_many
    from cleanlab.rank import get_label_quality_scores as of_one

    problem = problem_of(labels)
    if problem.exclusive:
        return np.asarray(of_one(labels, probabilities, method="self_confidence", adjust_pred_probs=False))
    return np.asarray(of_many(problem.label_ids(labels), probabilities))
