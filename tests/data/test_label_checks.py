"""Checks of all labels of a data set: what can be learned, rare labels, the form of training, what may be meant."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.rows import column

from fullbake.config.problems import MULTI_LABEL, SINGLE_LABEL, problem_named
from fullbake.config.sections import Columns, DataConfig
from fullbake.core.errors import DataError
from fullbake.data.dataset import Dataset, read_dataset
from fullbake.data.label_checks import (
    check_read_as_configured,
    check_trainable,
    describe_dropped,
    drop_rare_labels,
    leave_out_labels,
    with_labels_of,
)

SINGLE, MULTI = problem_named(SINGLE_LABEL), problem_named(MULTI_LABEL)


def of_classes(labels: list[str]) -> Dataset:
    names = sorted(set(labels))
    ids = np.array([names.index(label) for label in labels], dtype=np.int64)
    texts = column([f"text {number}" for number in range(len(labels))])
    return Dataset(texts, ids, tuple(names), np.arange(1, len(labels) + 1), "train.csv", Columns("text", "label"))


def of_lists(lists: list[set[str]], names: str) -> Dataset:
    matrix = np.array([[name in own for name in names] for own in lists], dtype=np.uint8)
    texts = column([f"text {number}" for number in range(len(lists))])
    return Dataset(texts, matrix, tuple(names), np.arange(1, len(lists) + 1), "x.jsonl", Columns("text", "label"))


def named(dataset: Dataset) -> list[list[str]]:
    assert dataset.labels is not None
    return [[dataset.label_names[label] for label in own] for own in dataset.problem.label_ids(dataset.labels)]


UNTRAINABLE = {
    "one class": (["x"] * 6, "only one class"),
    "a class with one row": (["x", "x", "y", "y", "z", "x"], "a class has a single row"),
    "classes with one row": (["x", "x", "x", "x", "y", "z"], "2 classes have a single row"),
    "texts as labels": (["p", "q", "r", "s", "t", "t"], "too many classes for so few rows"),
}


@pytest.mark.parametrize("name", UNTRAINABLE)
def test_labels_that_no_classifier_can_learn_are_refused(name: str) -> None:
    labels, message = UNTRAINABLE[name]
    with pytest.raises(DataError, match=message) as caught:
        check_trainable(of_classes(labels))
    assert "train.csv, column 'label'" in str(caught.value)
    assert caught.value.remedy


def test_trainable_labels_are_accepted_and_missing_ones_refused(tmp_path: Path) -> None:
    check_trainable(of_classes(["x", "y", "x", "y"]))
    (tmp_path / "train.csv").write_text("text\na\n", "utf-8")
    with pytest.raises(DataError, match="no labels"):
        check_trainable(read_dataset(tmp_path / "train.csv", text="text"))


def test_one_row_a_class_is_enough_where_a_file_validates() -> None:
    check_trainable(of_classes(["p", "q", "r"]), shares=False)
    with pytest.raises(DataError, match="only one class"):
        check_trainable(of_classes(["p", "p"]), shares=False)
    with pytest.raises(DataError, match="--drop-rare 2"):
        check_trainable(of_classes(["p", "q", "q", "q"]))


def test_label_of_one_row_does_not_refuse_rows_with_many_labels() -> None:
    check_trainable(of_lists([{"a"}, {"a", "b"}, set(), {"a"}], "ab"))
    with pytest.raises(DataError, match="every row has the label 'a'"):
        check_trainable(of_lists([{"a"}, {"a", "b"}], "ab"))
    with pytest.raises(DataError, match="--drop-rare 1"):
        check_trainable(of_lists([{"a"}, set()], "ab"))


def test_classes_that_look_like_lists_are_named_in_the_error() -> None:
    with pytest.raises(DataError, match=r"list written as text.*--label-separator"):
        check_trainable(of_classes(["['a', 'b']", "['a']", "['b']"]))


def test_class_whose_column_holds_no_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text,a,b,c\np,1,0,0\nq,0,1,0\nr,1,0,0\ns,0,1,0\n", "utf-8")
    read = read_dataset(tmp_path / "train.csv", text="text", labels=["a", "b", "c"], exclusive=True)
    for shares in (True, False):
        with pytest.raises(DataError, match=r"(?s)no row has the label 'c'.*--drop-rare 1"):
            check_trainable(read, shares=shares)
    check_trainable(drop_rare_labels(read, 1))


def test_data_set_must_hold_what_the_recipe_asks_for() -> None:
    check_read_as_configured(of_classes(["a", "b"]), DataConfig(exclusive=True))
    with pytest.raises(DataError, match=r"(?s)read without.*group='user'.*no group column"):
        check_read_as_configured(of_classes(["a", "b"]), DataConfig(group="user"))
    with pytest.raises(DataError, match=r"exclusive=True"):
        check_read_as_configured(of_lists([{"a"}, {"b"}], "ab"), DataConfig(exclusive=True))


# Rare labels


def test_rows_of_rare_classes_are_left_out_and_counted() -> None:
    left = drop_rare_labels(of_classes(["m", "a", "z", "m", "z", "m", "b"]), 2)
    assert left.label_names == ("m", "z")
    assert named(left) == [["m"], ["z"], ["m"], ["z"], ["m"]]
    assert left.rows.tolist() == [1, 3, 4, 5, 6]
    assert left.dropped_labels == {"a": 1, "b": 1}
    assert left.dropped_labels is not None
    assert describe_dropped(left.dropped_labels) == "2 labels were left out, with 2 rows: 'a', 'b'"


def test_rows_with_many_labels_stay_and_lose_rare_ones() -> None:
    left = drop_rare_labels(of_lists([{"a", "b"}, {"c"}, {"b", "c"}, {"c"}], "abc"), 2)
    assert named(left) == [["b"], ["c"], ["b", "c"], ["c"]]
    assert left.dropped_labels == {"a": 1}


def test_rare_labels_are_left_out_once() -> None:
    once = drop_rare_labels(of_classes(["m", "m", "m", "z", "z", "q"]), 2)
    assert drop_rare_labels(once.take([0, 1, 3]), 2).label_names == ("m", "z")
    whole = of_classes(["m", "z"])
    assert drop_rare_labels(whole, None) is whole
    assert leave_out_labels(whole, 2) is whole
    assert describe_dropped({"q": 1}) == "one label was left out, with 1 row: 'q'"


# The labels of training


def test_labels_are_numbered_as_in_training() -> None:
    found = with_labels_of(of_classes(["z", "m", "z"]), ("a", "z", "m"), SINGLE)
    assert found.labels is not None
    assert found.labels.tolist() == [1, 2, 1]
    assert found.label_names == ("a", "z", "m")
    lists = with_labels_of(of_lists([{"b"}, {"a", "b"}], "ab"), ("c", "b", "a"), MULTI)
    assert named(lists) == [["b"], ["b", "a"]]


def test_rows_of_labels_that_training_left_out_are_left_out() -> None:
    found = with_labels_of(of_classes(["z", "m", "q"]), ("m", "z"), SINGLE, ("q",))
    assert named(found) == [["z"], ["m"]]


@pytest.mark.parametrize(
    ("dataset", "problem", "message"),
    [
        (of_classes(["a", "b"]), MULTI, "another form.*Expected lists of labels.*one label a row"),
        (of_lists([{"a"}, {"b"}], "ab"), SINGLE, "another form.*Expected one label a row.*exclusive"),
        (of_classes(["a", "q"]), SINGLE, "labels that training did not have.*'q'"),
    ],
)
def test_other_labels_than_those_of_training_are_refused(dataset: Dataset, problem: Any, message: str) -> None:
    with pytest.raises(DataError) as caught:
        with_labels_of(dataset, ("a", "b"), problem)
    text = str(caught.value)
    for part in message.split(".*"):
        assert part in text
