"""The likeliest labels of each row, and thresholds that a caller gives."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fullbake.config.problems import MULTI_LABEL, SINGLE_LABEL, problem_named
from fullbake.core.errors import RecipeError
from fullbake.evaluation.decisions import Decision
from fullbake.evaluation.top_labels import list_top_labels, top_labels, with_threshold

NAMES = ("food", "game", "money")
ROWS = np.array([[0.2, 0.5, 0.3], [0.4, 0.2, 0.4]])
SINGLE = Decision(problem_named(SINGLE_LABEL), NAMES)
MANY = Decision(problem_named(MULTI_LABEL), NAMES, thresholds=(0.1, 0.6, 0.35))
BINARY = Decision(problem_named(SINGLE_LABEL), ("ham", "spam"))


def test_likeliest_come_first_and_ties_keep_the_order_of_ids() -> None:
    assert top_labels(ROWS, 2).tolist() == [[1, 2], [0, 2]]


@given(arrays(np.float64, st.tuples(st.integers(0, 4), st.integers(1, 5)), elements=st.floats(0, 1)), st.integers(1, 7))
def test_listed_scores_are_the_highest(rows: np.ndarray, top_k: int) -> None:
    names = [f"label {place}" for place in range(rows.shape[1])]
    for listed, row in zip(list_top_labels(rows, names, top_k), rows, strict=True):
        assert [entry["score"] for entry in listed] == sorted(row.tolist(), reverse=True)[:top_k]
        assert all(row[names.index(entry["label"])] == entry["score"] for entry in listed)


def test_form_is_that_of_a_pipeline() -> None:
    assert list_top_labels(ROWS[:1], NAMES, 1) == [[{"label": "game", "score": 0.5}]]


def test_labels_below_the_threshold_are_left_out() -> None:
    assert list_top_labels(ROWS, NAMES, 3, 0.45) == [[{"label": "game", "score": 0.5}], []]
    assert [entry["label"] for entry in list_top_labels(ROWS, NAMES, 3, {"game": 0.9})[0]] == ["money", "food"]


@pytest.mark.parametrize("top_k", [0, -1, True, 1.5, "3", np.int64(0)])
def test_wrong_top_k_is_refused(top_k: object) -> None:
    with pytest.raises(RecipeError, match=r"1 or more"):
        top_labels(ROWS, top_k)  # type: ignore[arg-type]


def test_a_number_decides_for_all_labels_of_many() -> None:
    assert with_threshold(MANY, 0.4).decide(ROWS).tolist() == [[0, 1, 0], [1, 0, 1]]


def test_a_mapping_leaves_the_other_thresholds() -> None:
    assert with_threshold(MANY, {"game": np.float32(0.25)}).thresholds == (0.1, 0.25, 0.35)
    plain = Decision(MANY.problem, NAMES)
    assert with_threshold(plain, {"game": 0.25}).thresholds == (0.5, 0.25, 0.5)


def test_a_number_belongs_to_the_last_of_two_classes_or_to_that_of_the_decision() -> None:
    rows = np.array([[0.7, 0.3], [0.9, 0.1]])
    assert with_threshold(BINARY, 0.3).decide(rows).tolist() == [1, 0]
    first = Decision(BINARY.problem, BINARY.label_names, thresholds=(0.5,), positive=0)
    assert with_threshold(first, 0.8).decide(rows).tolist() == [1, 0]


def test_one_class_among_many_is_named() -> None:
    assert with_threshold(SINGLE, {"money": 0.3}).decide(ROWS).tolist() == [2, 2]
    for threshold in (0.3, {"money": 0.3, "food": 0.2}, {}):
        with pytest.raises(RecipeError, match=r"one class against the rest") as error:
            with_threshold(SINGLE, threshold)
        assert "top_k=1" in str(error.value)


def test_costs_give_way_to_a_threshold() -> None:
    costly = Decision(BINARY.problem, BINARY.label_names, costs=((0, 1), (9, 0)))
    assert with_threshold(costly, 0.5).costs is None


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan"), "0.5", True, [0.5], {"game": 2}])
def test_wrong_score_is_refused(threshold: object) -> None:
    with pytest.raises(RecipeError, match=r"a score from 0 to 1"):
        with_threshold(MANY, threshold)  # type: ignore[arg-type]


def test_unknown_label_is_refused_with_a_guess() -> None:
    with pytest.raises(RecipeError, match=r"Did you mean 'money'"):
        list_top_labels(ROWS, NAMES, 1, {"mony": 0.5})
