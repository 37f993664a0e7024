"""Baselines that keep everyone honest: the majority class, and TF-IDF with logistic regression. Neither has an encoder.

Both give logits, so that what follows (temperature, thresholds, scores) is the same as for every other recipe.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

BASELINE_NAMES: Final = {"majority": "Majority class", "tfidf": "TF-IDF and logistic regression"}
"""The baselines by name, with their titles."""

BASELINE_STRENGTHS: Final = (0.1, 1.0, 10.0, 100.0)
"""Inverse regularization strengths that validation chooses from: as many as a recipe has rates."""

_ABSENT: Final = -12.0
"""Logit of a class that no training row has: a chance of some 6e-6."""

SelectFunction = Callable[[np.ndarray], float]
"""Logits of the validation rows -> the metric; higher is better."""


@dataclass(frozen=True)
class Baseline:
    """A trained baseline. logits: texts -> float32 (texts, classes). parameters: numbers that were fitted. size: bytes
    that it would take on disk. strength: the chosen one, None where there is none."""

    logits: Callable[[Sequence[str]], np.ndarray]
    parameters: int
    size: int
    strength: float | None = None


def fit_baseline(
    name: str,
    texts: Sequence[str],
    labels: np.ndarray,
    classes: int,
    *,
    held: Sequence[str],
    judge: SelectFunction,
    strength: float | None = None,
) -> Baseline:
    """Train a baseline. labels: ids (rows,), or 0 and 1 (rows, classes). held: texts that choose the strength by
    `judge`, unless one is given."""
    if name == "majority":
        return _majority(labels, classes)
    return _tfidf(texts, labels, classes, held, judge, (strength,) if strength else BASELINE_STRENGTHS)


def _majority(labels: np.ndarray, classes: int) -> Baseline:
    """The shares of the classes, whatever the text."""
    if labels.ndim == 2:
        held, rows = labels.sum(axis=0, dtype=np.int64), len(labels)
        scores = np.log((held + 0.5) / (rows - held + 0.5))
    else:
        scores = np.log(np.bincount(labels, minlength=classes) + 1e-6)
    row = scores.astype(np.float32)
    return Baseline(lambda texts: np.tile(row, (len(texts), 1)), parameters=0, size=row.nbytes)


def _tfidf(
    texts: Sequence[str],
    labels: np.ndarray,
    classes: int,
    held: Sequence[str],
    judge: SelectFunction,
    strengths: Sequence[float],
) -> Baseline:
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
    inputs, other = vectorizer.fit_transform(texts), vectorizer.transform(held)
    fitted = [(strength, _regression(inputs, labels, classes, strength)) for strength in strengths]
    strength, model = max(fitted, key=lambda one: judge(one[1](other))) if len(fitted) > 1 else fitted[0]
    weights = len(vectorizer.vocabulary_) * (classes if classes > 2 or labels.ndim == 2 else 1)
    vocabulary = sum(len(word.encode()) for word in vectorizer.vocabulary_)
    return Baseline(lambda rows: model(vectorizer.transform(rows)), weights, 8 * weights + vocabulary, strength)


def _regression(inputs: Any, labels: np.ndarray, classes: int, strength: float) -> Callable[[Any], np.ndarray]:
    """Rows of words -> logits float32 (rows, classes)."""
    if labels.ndim == 2:
        columns = [_one(inputs, labels[:, place], 2, strength) for place in range(classes)]
        return lambda rows: np.stack([logit(rows)[:, 1] - logit(rows)[:, 0] for logit in columns], axis=1)
    return _one(inputs, labels, classes, strength)


def _one(inputs: Any, labels: np.ndarray, classes: int, strength: float) -> Callable[[Any], np.ndarray]:
    from sklearn.linear_model import LogisticRegression

    present = np.unique(labels)
    if len(present) == 1:
        scores = np.full(classes, _ABSENT, dtype=np.float32)
        scores[present] = 0
        return lambda rows: np.tile(scores, (rows.shape[0], 1))
    fitted = LogisticRegression(C=strength, max_iter=1000).fit(inputs, labels)

    def logits(rows: Any) -> np.ndarray:
        values = fitted.decision_function(rows)
        values = np.stack([-values, values], axis=1) / 2 if values.ndim == 1 else values
        whole = np.full((rows.shape[0], classes), _ABSENT, dtype=np.float32)
        whole[:, present] = values
        return whole

    return logits
