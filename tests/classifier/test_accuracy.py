"""`Classifier.score` is the accuracy that scikit-learn computes, for labels in every form that callers have."""

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import scipy.sparse
from helpers.counting import counting_classifier
from sklearn.metrics import accuracy_score

from fullbake.classifier.accuracy import accuracy_of
from fullbake.config.problems import MULTI_LABEL, SINGLE_LABEL, problem_named
from fullbake.core.errors import DataError

SINGLE, MANY = problem_named(SINGLE_LABEL), problem_named(MULTI_LABEL)
TEXTS = ["good film", "bad", "good good bad", "the film is bad"]
TRUE = ["good", "bad", "bad", "bad"]
MATRIX = np.array([[1, 0], [0, 1], [0, 1], [1, 1]])
DECIDED = np.array([[1, 0], [0, 1], [1, 1], [1, 1]], np.uint8)


@pytest.mark.parametrize("form", [list, np.array, pd.Series, pa.array, lambda y: np.array(y, object)])
def test_accuracy_of_single_labels(form: Any) -> None:
    classifier = counting_classifier()
    assert classifier.score(TEXTS, form(TRUE)) == accuracy_score(TRUE, classifier.predict(TEXTS)) == 0.75
    weights = [1, 1, 4, 2]
    expected = accuracy_score(TRUE, classifier.predict(TEXTS), sample_weight=weights)
    assert classifier.score(TEXTS, form(TRUE), sample_weight=weights) == expected


@pytest.mark.parametrize("y", [[0, 1, 1], np.array([0, 1, 1]), [0.0, 1.0, 1.0], ["0", "1", "1"]])
def test_numbers_are_names_as_a_file_has_them(y: Any) -> None:
    assert accuracy_of(np.array([0, 1, 0]), y, SINGLE, ("0", "1")) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    "y",
    [
        MATRIX,
        MATRIX.astype(bool),
        MATRIX.tolist(),
        pd.DataFrame(MATRIX[:, ::-1], columns=["b", "a"]),
        scipy.sparse.csr_matrix(MATRIX),
        [["a"], ["b"], ("b",), {"a", "b"}],
    ],
)
def test_subset_accuracy_of_many_labels(y: Any) -> None:
    assert accuracy_of(DECIDED, y, MANY, ("a", "b")) == accuracy_score(MATRIX, DECIDED) == 0.75


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (["good", "bad"], "differ in length"),
        (["good", "bad", "bad", "bda"], "Did you mean 'bad'"),
        ([0, 1, 1, 1], r"classes_\[y\]"),
        ("good", "no labels"),
        (None, "no labels"),
        (["good", "bad", "bad", None], "none of the classifier's"),
    ],
)
def test_wrong_labels_are_refused(y: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        counting_classifier().score(TEXTS, y)


@pytest.mark.parametrize("y", [MATRIX[:, :1], MATRIX * 2, ["a", "b", "a", "b"], [["a"], ["c"], [], []]])
def test_wrong_labels_of_many_are_refused(y: Any) -> None:
    with pytest.raises(DataError, match="y"):
        accuracy_of(DECIDED, y, MANY, ("a", "b"))


@pytest.mark.parametrize("weights", [[1, 2], [0, 0, 0, 0], [-1, 1, 1, 1]])
def test_wrong_weights_are_refused(weights: list[int]) -> None:
    with pytest.raises(DataError, match="sample_weight"):
        counting_classifier().score(TEXTS, TRUE, sample_weight=weights)


def test_no_rows_have_no_score() -> None:
    with pytest.raises(DataError, match="no rows"):
        counting_classifier().score([], [])
