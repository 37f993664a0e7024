"""The most disputed rows come first."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fullbake.evaluation.significance import rank_disagreements


def test_the_most_disputed_row_is_the_one_with_the_fewest_behind_its_commonest_answer() -> None:
    labels = np.array([0, 0, 0, 0, 0])
    predictions = {
        "a": np.array([0, 0, 0, 0, 1]),
        "b": np.array([0, 0, 1, 0, 1]),
        "c": np.array([0, 1, 2, 1, 1]),
        "d": np.array([0, 0, 3, 1, 1]),
    }
    assert rank_disagreements(predictions, labels).tolist() == [2, 3, 1]  # 0 and 4: all alike, right or wrong
    assert rank_disagreements(predictions, labels, most=1).tolist() == [2]


def test_of_equals_the_row_where_right_and_wrong_are_even_comes_first() -> None:
    predictions = {"a": np.array([1, 0]), "b": np.array([2, 1])}
    assert rank_disagreements(predictions, np.array([0, 0])).tolist() == [1, 0]


def test_many_labels_are_one_answer() -> None:
    held = np.array([[1, 0], [1, 0]])
    predictions = {"a": held, "b": np.array([[1, 0], [1, 1]])}
    assert rank_disagreements(predictions, held).tolist() == [1]


def test_nothing_and_one_recipe_disagree_nowhere() -> None:
    labels = np.array([0, 1])
    assert rank_disagreements({}, labels).tolist() == []
    assert rank_disagreements({"a": labels}, labels).tolist() == []


@given(st.integers(0, 10**6), st.integers(2, 5))
def test_the_ranking_is_exactly_the_rows_not_judged_alike(seed: int, recipes: int) -> None:
    random = np.random.default_rng(seed)
    predictions = {str(number): random.integers(0, 3, 12) for number in range(recipes)}
    ranked = rank_disagreements(predictions, random.integers(0, 3, 12))
    stacked = np.stack(list(predictions.values()))
    assert sorted(ranked) == [row for row in range(12) if len(set(stacked[:, row])) > 1]
    backing = [max(np.bincount(stacked[:, row])) for row in ranked]
    assert backing == sorted(backing)
