"""Labels that may have been meant otherwise are said, and honest ones are not doubted."""

import re
from pathlib import Path

import pytest
from helpers.rows import make_rows, write_csv

from fullbake.config.problems import MULTI_LABEL, SINGLE_LABEL, problem_named
from fullbake.config.sections import Columns, DataConfig
from fullbake.data.inspection import inspect_file
from fullbake.data.label_doubts import find_alike_labels, find_label_doubts, lists_in_words

SINGLE, MULTI = problem_named(SINGLE_LABEL), problem_named(MULTI_LABEL)


@pytest.mark.parametrize("label", ["['a', 'b']", "[0, 1, 1]", "['a']", "{'a', 'b'}", "('a', 'b')", '["a"]'])
def test_label_that_is_a_list_in_words_is_doubted(label: str) -> None:
    doubt = lists_in_words(["plain", label])
    assert doubt is not None
    assert (doubt.kind, doubt.count) == ("lists in words", 1)
    assert label in doubt.sentence


@pytest.mark.parametrize("label", ["joy", "(other)", "a, b", "[x", "C++ (old)", "-1"])
def test_plain_label_is_not_doubted(label: str) -> None:
    assert lists_in_words([label]) is None


def test_labels_made_of_other_labels_are_doubted() -> None:
    columns = Columns("text", "label")
    counts = {"joy": 4, "fear": 3, "fear|joy": 2, "rock, pop": 5}
    (doubt,) = find_label_doubts(counts, SINGLE, columns, rows=14, one_label_rows=14)
    assert "--label-separator '|'" in doubt.sentence


def test_lists_of_one_label_and_labels_of_one_row_are_doubted() -> None:
    columns = Columns("text", "label")
    alone, each = find_label_doubts({"a": 3, "b": 1}, MULTI, columns, rows=4, one_label_rows=4)
    assert "'b'" in alone.sentence
    assert "--exclusive makes classes" in each.sentence
    assert find_label_doubts({"a": 3, "b": 2}, MULTI, columns, rows=4, one_label_rows=3) == []


@pytest.mark.parametrize(
    ("counts", "kind", "words"),
    [
        ({"good": 30, "bad": 20, "nan": 4}, "missing value", "'nan' (4 rows)"),
        ({"1.0": 30, "0.0": 20, "NaN": 1}, "missing value", "--drop-unlabelled"),
        ({"good": 30, "bad": 20, "#N/A": 1}, "missing value", "'#N/A'"),
        ({"good": 30, "bad": 20, "Label": 2}, "header among the rows", "2 rows have the label 'Label'"),
        ({"good": 30, "bad": 20, '="01"': 9}, "labels as formulas", "a formula of a spreadsheet"),
    ],
    ids=str,
)
def test_words_that_programs_leave_among_labels_are_doubted(counts: dict[str, int], kind: str, words: str) -> None:
    rows = sum(counts.values())
    for problem in (SINGLE, MULTI):
        found = find_label_doubts(counts, problem, Columns("text", "label"), rows=rows, one_label_rows=0)
        (doubt,) = [one for one in found if one.kind != "labels of one row"]
        assert doubt.kind == kind
        assert words in doubt.sentence


@pytest.mark.parametrize(
    "counts",
    [
        {"label": 30, "no label": 20},  # a column `spam` holds `spam`
        {"none": 30, "NA": 20, "EU": 20},
        {"null pointer": 30, "banana": 20},
        {"=)": 30, "=(": 20},
    ],
    ids=str,
)
def test_honest_labels_are_not_doubted(counts: dict[str, int]) -> None:
    assert find_label_doubts(counts, SINGLE, Columns("text", "label"), rows=50, one_label_rows=50) == []


@pytest.mark.parametrize(
    ("names", "groups"),
    [
        (["pos", "pos ", "neg"], [["pos", "pos "]]),
        (["True", "False", "1", "0"], [["0", "False"], ["1", "True"]]),
        (["1", "1.0", "0"], [["1", "1.0"]]),
        (["1.0", "1.5", "2"], []),
        (["true", "1", "2"], []),
        (["0", "1"], []),
        (["01", "1"], []),
        (["caf\u00e9", "cafe\u0301"], [["cafe\u0301", "caf\u00e9"]]),
    ],
    ids=str,
)
def test_labels_that_mean_the_same_are_found(names: list[str], groups: list[list[str]]) -> None:
    assert find_alike_labels(names) == groups


def test_what_programs_leave_among_texts_is_found(tmp_path: Path) -> None:
    """Files put one after another, ids for texts, missing values as words, formulas of a spreadsheet."""
    rows = [*make_rows(60), ("text", "label"), ("nan", "food"), ('="01"', "food"), ("10.11.2026", "game")]
    rows += [("9f86d081-884c7d659a2feaa0", "game")]
    facts = inspect_file(write_csv(tmp_path / "rows.csv", rows), DataConfig())
    found = {one.kind: one for one in facts.findings}
    assert found["header among the rows"].severity == "warning"
    texts = {re.split(" contains? ", one.message)[1]: one for one in facts.findings if one.kind == "texts"}
    assert {name.partition(" (")[0]: one.rows for name, one in texts.items()} == {
        "nothing but a word for a missing value": (62,),
        "a formula of a spreadsheet in place of a text": (63,),
        "nothing but a number, a date or an id": (64, 65),
    }
