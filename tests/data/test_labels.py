"""Labels in every form that a table may hold them in."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fullbake.config.problems import MULTI_LABEL, SINGLE_LABEL, problem_named
from fullbake.config.sections import Columns
from fullbake.core.errors import DataError
from fullbake.data.labels import LabelReader, count_labels

ONE = Columns("text", "label")
MANY = Columns("text", labels=("a", "b"))
SEPARATED = Columns("text", "label", label_separator="|")


def where(index: int) -> str:
    return f"x.csv, line {index + 2}"


def finish(columns: Columns, *chunks: dict[str, list[Any]], known: tuple[str, ...] | None = None) -> Any:
    reader = LabelReader(columns, known)
    for chunk in chunks:
        reader.add(chunk, where)
    return reader.finish()


def test_single_labels_are_numbered_in_sorted_order_over_chunks() -> None:
    names, labels, rows = finish(ONE, {"label": ["z", "1"]}, {"label": ["01", "z"]})
    assert names == ("01", "1", "z")
    assert labels.tolist() == [2, 1, 0, 2]
    assert rows.tolist() == [0, 1, 2, 3]


def test_empty_label_is_counted_and_its_row_left_out() -> None:
    reader = LabelReader(ONE)
    reader.add({"label": ["a", "", "b", " "]}, where)
    assert (reader.unlabeled, reader.first_unlabeled) == (2, "x.csv, line 3")
    _, labels, rows = reader.finish()
    assert (labels.tolist(), rows.tolist()) == ([0, 1], [0, 2])


SETS = st.lists(st.sets(st.sampled_from(["joy", "anger", " odd", "ß"])), min_size=1, max_size=8)


@given(SETS)
def test_every_form_of_many_labels_gives_the_same_matrix(sets: list[set[str]]) -> None:
    names = tuple(sorted(set.union(*sets)))
    if not names:
        return
    expected = [[int(name in held) for name in names] for held in sets]
    lists = finish(ONE, {"label": [sorted(held) for held in sets]})
    columns = {name: [str(int(name in held)) for held in sets] for name in names}
    indicators = finish(Columns("text", labels=names), columns)
    for found in (lists, indicators):
        assert found[0] == names
        assert found[1].tolist() == expected
        assert found[1].dtype == np.uint8
    stripped = {name.strip() for name in names}
    separated = finish(SEPARATED, {"label": ["|".join(sorted(held)) for held in sets]})
    assert set(separated[0]) == stripped
    assert separated[1].sum() == sum(map(len, sets))


def test_column_of_0_and_1_may_be_spelled_in_four_ways() -> None:
    values = ["0", "1", "0.0", "1.0", "false", "true", "False", "True"]
    names, labels, _ = finish(MANY, {"a": values, "b": values[::-1]})
    assert (names, labels[:, 0].tolist()) == (("a", "b"), [0, 1] * 4)


EXCLUSIVE = {
    "lists": (Columns("text", "label", exclusive=True), {"label": [["b"], ["a"], ["b"]]}),
    "words": (Columns("text", "label", exclusive=True), {"label": ["b", "a", "b"]}),
    "separated": (Columns("text", "label", label_separator="|", exclusive=True), {"label": ["b ", "a", " b"]}),
    "columns": (Columns("text", labels=("a", "b"), exclusive=True), {"a": ["0", "1", "0"], "b": ["1", "0", "1"]}),
}


@pytest.mark.parametrize("form", EXCLUSIVE)
def test_exclusive_labels_are_classes_in_every_form(form: str) -> None:
    columns, chunk = EXCLUSIVE[form]
    names, labels, rows = finish(columns, chunk)
    assert (names, labels.tolist(), rows.tolist()) == (("a", "b"), [1, 0, 1], [0, 1, 2])
    assert labels.dtype == np.int64


def test_exclusive_row_without_a_label_is_unlabeled_and_with_two_is_refused() -> None:
    columns = Columns("text", "label", exclusive=True)
    reader = LabelReader(columns)
    reader.add({"label": [["a"], [], ["b"]]}, where)
    assert (reader.unlabeled, reader.first_unlabeled) == (1, "x.csv, line 3")
    assert reader.finish()[2].tolist() == [0, 2]
    with pytest.raises(DataError, match=r"(?s)x\.csv, line 2.*several labels.*\['a', 'b'\].*--exclusive"):
        finish(columns, {"label": [["a", "b"]]})


@pytest.mark.parametrize(
    ("columns", "chunk", "known", "words"),
    [
        (ONE, {"label": ["a", "b"]}, "multi_label", r"line 2.*list of labels.*a word.*--exclusive"),
        (ONE, {"label": [["a"], ["b"]]}, "single_label", r"line 2.*a word.*list of labels: \['a'\].*--exclusive"),
        (MANY, {"a": ["1", "0"], "b": ["0", "1"]}, "single_label", "'a', 'b'.*another form"),
    ],
)
def test_other_form_than_that_of_training_is_refused(columns: Any, chunk: Any, known: str, words: str) -> None:
    problem = problem_named(SINGLE_LABEL if known == "single_label" else MULTI_LABEL)
    with pytest.raises(DataError, match="(?s)" + words):
        LabelReader(columns, ("a", "b"), problem).add(chunk, where)


def test_known_labels_keep_their_order_for_any_order_of_columns() -> None:
    flipped = Columns("text", labels=("b", "a"))
    names, labels, _ = finish(flipped, {"a": ["1"], "b": ["0"]}, known=("a", "b"))
    assert (names, labels.tolist()) == (("a", "b"), [[1, 0]])


@pytest.mark.parametrize(
    ("columns", "chunks", "words"),
    [
        (ONE, [{"label": ["a"]}, {"label": [["a"]]}], "different forms"),
        (ONE, [{"label": [["a"]]}, {"label": ["a"]}], "different forms"),
        (ONE, [{"label": [["a", "a"]]}], "twice"),
        (ONE, [{"label": [["0", "1", "1"]]}], "vector of 0 and 1.*--labels"),
        (ONE, [{"label": [["a", " "]]}], "empty label"),
        (SEPARATED, [{"label": ["a||b"]}], "empty label"),
        (SEPARATED, [{"label": [["a"]]}], "different forms"),
        (MANY, [{"a": ["2"], "b": ["0"]}], "0 and 1"),
        (MANY, [{"a": [["1"]], "b": ["0"]}], "0 and 1"),
    ],
)
def test_labels_in_a_wrong_form_are_refused_with_their_line(
    columns: Columns, chunks: list[dict[str, list[Any]]], words: str
) -> None:
    with pytest.raises(DataError, match=r"(?s)x\.csv, line 2.*" + words):
        finish(columns, *chunks)


def test_unknown_labels_and_other_label_columns_are_refused() -> None:
    with pytest.raises(DataError, match=r"training did not have[\s\S]*Did you mean 'joy'"):
        finish(ONE, {"label": ["joi"]}, known=("anger", "joy"))
    with pytest.raises(DataError, match="not the labels of training"):
        LabelReader(MANY, ("a", "c"))


def test_rows_of_each_label_are_counted() -> None:
    assert count_labels(np.array([0, 2, 2]), 4).tolist() == [1, 0, 2, 0]
    assert count_labels(np.array([[1, 0], [1, 1]], dtype=np.uint8), 2).tolist() == [2, 1]


@pytest.mark.parametrize("columns", [ONE, MANY, SEPARATED, Columns("a", "l", "b")])
def test_columns_are_saved_and_loaded_as_json(columns: Columns) -> None:
    assert Columns.from_json(columns.to_json()) == columns


def test_columns_list_those_of_texts_and_of_labels() -> None:
    for columns, texts, labels in (
        (Columns("a", "l", "b"), ("a", "b"), ("l",)),
        (MANY, ("text",), ("a", "b")),
        (Columns("a"), ("a",), ()),
    ):
        assert (columns.of_texts, columns.of_labels) == (texts, labels)
