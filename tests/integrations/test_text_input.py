"""X and y in the forms that scikit-learn's callers have them, and what is refused."""

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from sklearn.exceptions import DataConversionWarning

from fullbake.core.errors import DataError, RecipeError
from fullbake.integrations.text_input import (
    EstimatorInputError,
    as_dataset,
    as_value_errors,
    read_target,
    read_text_columns,
)

TEXTS = ["one", "two", "three"]


@pytest.mark.parametrize(
    "value",
    [
        TEXTS,
        tuple(TEXTS),
        np.array(TEXTS),
        np.array(TEXTS, dtype=object),
        np.array(TEXTS)[:, None],
        pd.Series(TEXTS, index=[5, 6, 7]),
        pd.Series(TEXTS, dtype="category"),
        pd.DataFrame({"text": TEXTS}),
        pa.table({"text": TEXTS}),
        pa.chunked_array([TEXTS]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_single_texts(value: Any) -> None:
    read = read_text_columns(value)
    assert read.texts == TEXTS
    assert read.text_pair is None
    assert np.shape(read.table) == (3, 1)


@pytest.mark.parametrize(
    "value",
    [
        list(zip(TEXTS, TEXTS[::-1], strict=True)),
        np.array([TEXTS, TEXTS[::-1]]).T,
        pd.DataFrame({"a": TEXTS, "b": TEXTS[::-1]}),
        pa.table({"a": TEXTS, "b": TEXTS[::-1]}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_pairs(value: Any) -> None:
    read = read_text_columns(value)
    assert (read.texts, read.text_pair) == (TEXTS, TEXTS[::-1])


class PolarsLike:
    """A frame with the methods of polars that are used."""

    columns = ("text",)

    def get_column(self, name: str) -> pa.Array:
        class Column:
            def to_list(self) -> list[str]:
                return TEXTS

        return Column()

    def __len__(self) -> int:
        return 3


def test_polars_frames() -> None:
    assert read_text_columns(PolarsLike()).texts == TEXTS


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("a text", "Pass a list of texts"),
        (None, "None"),
        ({"text": TEXTS}, "dict"),
        ({"a", "b"}, "set"),
        ([], "0 sample"),
        ([1, 2], "in row 0"),
        (["a", None], "in row 1"),
        (["a", float("nan")], "Fill it in"),
        (np.zeros((3, 2)), "Convert numbers yourself"),
        (np.zeros((3, 4)), "shape (3, 4)"),
        (pd.DataFrame({"id": TEXTS, "text": TEXTS, "more": TEXTS}), "X[['id']]"),
        (sparse.csr_array(np.eye(3)), "X holds no texts"),
        ([["a"], ["b", "c"]], "list"),
        (7, "X holds no texts"),
    ],
)
def test_other_values_of_x_are_refused(value: Any, words: str) -> None:
    with pytest.raises(EstimatorInputError) as caught:
        read_text_columns(value)
    assert words in str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_half_a_surrogate_pair_is_refused_with_its_row() -> None:
    with pytest.raises(EstimatorInputError, match="row 1"):
        as_dataset(read_text_columns(["a", "\ud83d"]), read_target([0, 1]))


@pytest.mark.parametrize(
    ("y", "classes"),
    [
        (["b", "a", "b"], ["a", "b"]),
        ([10, 2, 10], [2, 10]),
        ([True, False, True], [False, True]),
        ([1.0, 0.0, 1.0], [0.0, 1.0]),
        (np.array(["b", "a", "b"], dtype=object), ["a", "b"]),
        (pd.Series([2, 1, 2], dtype="category"), [1, 2]),
        ([("x", 2), ("x", 1), ("x", 2)], [("x", 1), ("x", 2)]),
        ([1, "a", 1], [1, "a"]),
    ],
)
def test_labels_of_any_kind(y: Any, classes: list[Any]) -> None:
    target = read_target(y)
    assert target.classes.tolist() == classes
    assert target.names == tuple(map(str, classes))
    assert target.labels.tolist() == ([1, 0, 1] if classes != [1, "a"] else [0, 1, 0])


def test_indicators_dense_sparse_and_named() -> None:
    matrix = np.array([[1, 0], [0, 0], [1, 1]])
    for value in (matrix, matrix.tolist(), sparse.csr_matrix(matrix), matrix.astype(bool)):
        target = read_target(value)
        assert target.classes.tolist() == [0, 1]
        assert np.array_equal(target.labels, matrix)
    assert read_target(pd.DataFrame(matrix, columns=["x", "y"])).names == ("x", "y")


def test_a_column_of_labels_is_taken_with_a_warning() -> None:
    with pytest.warns(DataConversionWarning, match="column-vector"):
        assert read_target(np.array([["a"], ["b"]])).labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("y", "words"),
    [
        (None, "y is None"),
        ([0.5, 1.5], "continuous"),
        ([1.0, float("nan")], "missing label"),
        ([1.0, float("inf")], "infinite"),
        (["a", None], "row 1"),
        (["a", " "], "empty label"),
        ([1, "1"], "differ in type alone"),
        ([[0, 2], [1, 0]], "other values than 0 and 1"),
        ([{"a"}, {"b"}], "row 0"),
        (np.zeros((2, 2, 2)), "shape (2, 2, 2)"),
        ("ab", "y holds no labels"),
    ],
)
def test_other_values_of_y_are_refused(y: Any, words: str) -> None:
    with pytest.raises(EstimatorInputError) as caught:
        read_target(y)
    assert words in str(caught.value)


@given(st.lists(st.one_of(st.integers(), st.text(min_size=1).map("x".__add__)), min_size=2))
def test_ids_lead_back_to_the_labels(y: list[Any]) -> None:
    target = read_target(y)
    assert target.classes[target.labels].tolist() == y


def test_data_set_of_pairs_groups_and_no_labels() -> None:
    data = as_dataset(read_text_columns([("a", "b"), ("c", "d")]), None, groups=[4, None])
    assert data.columns.of_groups == ("group",)
    assert data.text_pair is not None
    assert data.text_pair.to_pylist() == ["b", "d"]
    assert len(data.label_names) == 2


@pytest.mark.parametrize("kind", [DataError, RecipeError])
def test_errors_become_value_errors_with_the_same_words(kind: type[DataError]) -> None:
    with pytest.raises(EstimatorInputError) as caught, as_value_errors():
        raise kind("wrong", where="here", expected="this", got="that", remedy="Do so.")
    assert str(caught.value) == "here: wrong.\nExpected this; got that. Do so."
