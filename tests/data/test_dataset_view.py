"""A data set says how many rows, labels and doubtful texts it has, and shows no text."""

import re
from pathlib import Path

import pytest
from helpers.leaderboards import HOSTILE
from helpers.rows import column, write_csv

from fullbake.data.dataset import read_dataset
from fullbake.data.dataset_view import DatasetFacts, dataset_html, describe_dataset

ROWS = [("one text", "a"), ("one text", "a"), ("", "a"), *((f"text {n}" * n, "b") for n in range(12))]


def test_one_line_names_the_most_frequent_labels(tmp_path: Path) -> None:
    file = write_csv(tmp_path / "rows.csv", ROWS)
    assert repr(read_dataset(file, text="text", label="label")) == (
        "Dataset(15 rows of 'rows.csv', 2 classes: 'b' 12, 'a' 3)"
    )
    assert repr(read_dataset(file, text="text")) == "Dataset(15 rows of 'rows.csv', no labels)"


def test_a_notebook_gets_labels_lengths_and_warnings(tmp_path: Path) -> None:
    page = read_dataset(write_csv(tmp_path / "rows.csv", ROWS), text="text", label="label")._repr_html_()
    for words in (
        "15 rows of rows.csv",
        "the longest 77",
        "2 texts are empty.",
        "2 rows have a text that another row has too.",
        "1 of 2 classes have fewer than 10 rows (&#39;a&#39;)",
        "80.0%",
    ):
        assert words in page, words
    assert str(tmp_path) not in page
    assert "one text" not in page


def test_pairs_and_rows_without_labels(tmp_path: Path) -> None:
    file = write_csv(tmp_path / "rows.csv", [("a", "b"), ("a", "c")], names=("text", "other"))
    found = read_dataset(file, text="text", text_pair="other")
    assert repr(found) == "Dataset(2 pairs of 'rows.csv', no labels)"
    page = found._repr_html_()
    assert "characters in text_pair" in page
    assert "another row has too" not in page
    assert "<p>" not in found.take([])._repr_html_().replace('<p class="t">', "")


def test_many_labels_are_counted() -> None:
    facts = DatasetFacts("x.csv", column(["a"]), None, {f"l{n}": n for n in range(50)}, "labels", ["text"], {"r": 1})
    page = dataset_html(facts)
    assert "and 30 more labels" in page
    assert "1 rare labels were left out" in page
    assert describe_dataset(facts).endswith("50 labels: 'l49' 49, 'l48' 48, 'l47' 47, ...)")


@pytest.mark.parametrize("text", [text for text in HOSTILE if "\ud800" not in text])
def test_hostile_names_are_inert(text: str) -> None:
    page = dataset_html(DatasetFacts(text, column([text]), None, {text: 1}, "labels", [text], {}))
    tags = set(re.findall(r"<([a-z]+)", page))
    assert tags <= {"div", "style", "p", "table", "thead", "tbody", "tr", "th", "td", "bdi", "span"}
