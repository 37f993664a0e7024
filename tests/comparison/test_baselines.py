"""Baselines equal their scikit-learn counterparts."""

import numpy as np
import pytest
from helpers.rows import make_rows
from sklearn.dummy import DummyClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from fullbake.comparison.baselines import BASELINE_STRENGTHS, fit_baseline

ROWS = make_rows(90)
NAMES = sorted({label for _, label in ROWS})
TEXTS = [text for text, _ in ROWS]
LABELS = np.array([NAMES.index(label) for _, label in ROWS])


def accuracy(labels: np.ndarray):
    return lambda logits: float((logits.argmax(axis=1) == labels).mean())


def test_majority_equals_scikit_learns_dummy_classifier() -> None:
    labels = np.array([2, 2, 2, 0, 0, 1])
    fitted = fit_baseline("majority", ["a"] * 6, labels, 3, validation_texts=[], score=accuracy(labels))
    dummy = DummyClassifier(strategy="prior").fit(np.zeros((6, 1)), labels)
    logits = fitted.logits(["x", "y"])
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probabilities, dummy.predict_proba(np.zeros((2, 1))), atol=1e-5)
    assert fitted.parameters == 0


def test_tfidf_equals_scikit_learns_pipeline_at_the_chosen_strength() -> None:
    train, validation = TEXTS[:60], TEXTS[60:]
    fitted = fit_baseline("tfidf", train, LABELS[:60], 3, validation_texts=validation, score=accuracy(LABELS[60:]))
    assert fitted.strength in BASELINE_STRENGTHS
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
    model = LogisticRegression(C=fitted.strength, max_iter=1000).fit(vectorizer.fit_transform(train), LABELS[:60])
    np.testing.assert_allclose(
        fitted.logits(validation), model.decision_function(vectorizer.transform(validation)), atol=1e-5
    )
    again = fit_baseline(
        "tfidf", train, LABELS[:60], 3, validation_texts=[""], score=accuracy(LABELS), strength=fitted.strength
    )
    np.testing.assert_array_equal(again.logits(validation), fitted.logits(validation))


def test_class_without_training_rows_gets_the_lowest_logit() -> None:
    labels = np.where(LABELS == 2, 0, LABELS)
    fitted = fit_baseline("tfidf", TEXTS, labels, 3, validation_texts=TEXTS, score=accuracy(labels))
    logits = fitted.logits(TEXTS)
    assert logits.shape == (90, 3)
    assert (logits[:, 2] < logits[:, :2].min(axis=1)).all()
    assert accuracy(labels)(logits) > 0.9


@pytest.mark.parametrize("name", ["majority", "tfidf"])
def test_baselines_learn_several_labels_a_row(name: str) -> None:
    label_matrix = np.stack([LABELS == 0, LABELS != 1, np.ones(90)], axis=1).astype(np.uint8)
    fitted = fit_baseline(
        name, TEXTS, label_matrix, 3, validation_texts=TEXTS, score=lambda logits: -float(np.abs(logits).mean())
    )
    logits = fitted.logits(TEXTS)
    assert logits.shape == (90, 3)
    assert (logits[:, 2] > 0).all()
