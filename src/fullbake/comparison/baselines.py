"""Baselines without an encoder: the majority class, and TF-IDF features with logistic regression.

They show how much of a score needs no encoder. Both return logits, so temperature, thresholds and scores are computed
as for every other recipe.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from fullbake.config.problems import problem_of
from fullbake.training.logistic import ABSENT_LOGIT, LogisticModel

BASELINE_NAMES: Final = {"majority": "Majority class", "tfidf": "TF-IDF and logistic regression"}
"""Name -> title."""

BASELINE_STRENGTHS: Final = (0.1, 1.0, 10.0, 100.0)
"""Inverse regularization strengths that validation chooses from: as many as a recipe has learning rates."""

ScoreFunction = Callable[[np.ndarray], float]
"""Logits of the validation rows (rows, classes) to the metric; higher is better."""


@dataclass(frozen=True)
class Baseline:
    """A trained baseline."""

    logits: Callable[[Sequence[str]], np.ndarray]
    """Texts to logits, float32 (texts, classes)."""
    parameters: int
    """Number of fitted numbers."""
    size: int
    """Bytes that it would take on disk."""
    strength: float | None = None
    """The chosen inverse regularization strength; None if there is none."""


def fit_baseline(
    name: str,
    texts: Sequence[str],
    labels: np.ndarray,
    classes: int,
    *,
    validation_texts: Sequence[str],
    score: ScoreFunction,
    strength: float | None = None,
) -> Baseline:
    """Train a baseline.

    Args:
        name: `majority` or `tfidf`.
        texts: Training texts.
        labels: Ids (rows,), or a label matrix (rows, classes).
        classes: Number of classes.
        validation_texts: Texts that the strength is chosen by.
        score: The metric on their logits.
        strength: The strength to use, in place of choosing one.
    """
    if name == "majority":
        return _majority(labels, classes)
    strengths = (strength,) if strength else BASELINE_STRENGTHS
    return _tfidf(texts, labels, classes, validation_texts, score, strengths)


def _majority(labels: np.ndarray, classes: int) -> Baseline:
    """Predict the shares of the classes for every text."""
    row = problem_of(labels).prior_logits(labels, classes).astype(np.float32)
    return Baseline(lambda texts: np.tile(row, (len(texts), 1)), parameters=0, size=row.nbytes)


def _tfidf(
    texts: Sequence[str],
    labels: np.ndarray,
    classes: int,
    validation_texts: Sequence[str],
    score: ScoreFunction,
    strengths: Sequence[float],
) -> Baseline:
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
    inputs, validation = vectorizer.fit_transform(texts), vectorizer.transform(validation_texts)
    fitted = [(strength, _regression(inputs, labels, classes, strength)) for strength in strengths]
    strength, model = max(fitted, key=lambda pair: score(pair[1](validation))) if len(fitted) > 1 else fitted[0]
    weights = len(vectorizer.vocabulary_) * len(problem_of(labels).one_against_rest(classes))
    vocabulary_bytes = sum(len(word.encode()) for word in vectorizer.vocabulary_)
    return Baseline(lambda rows: model(vectorizer.transform(rows)), weights, 8 * weights + vocabulary_bytes, strength)


def _regression(inputs: Any, labels: np.ndarray, classes: int, strength: float) -> Callable[[Any], np.ndarray]:
    """Return a function of sparse word weights to logits, float32 (rows, classes)."""
    model = LogisticModel(labels).fit(inputs, strength)
    problem = problem_of(labels)
    constant = np.full(classes, ABSENT_LOGIT, dtype=np.float32)
    if not problem.exclusive:
        constant[problem.count_rows(labels, classes) == len(labels)] = -ABSENT_LOGIT  # labels that all rows have

    def logits(rows: Any) -> np.ndarray:
        all_classes = np.tile(constant, (rows.shape[0], 1))
        all_classes[:, model.outputs] = model.logits(rows)
        return all_classes

    return logits
