"""Files are read by the recipe's columns; a further file has the labels of training, and may lack the group column."""

import logging
from pathlib import Path

import pytest
from helpers.rows import write_csv

from fullbake.config.recipe import Recipe
from fullbake.core.errors import DataError
from fullbake.data.label_checks import drop_rare_labels
from fullbake.data.labeled_files import read_labeled, read_part, without_missing_group

ROWS = [("good food", "a"), ("bad food", "b"), ("good game", "a"), ("the bank", "c")]


def config(**fields: object):
    return Recipe.load(base="demo", text="text", label="label", **fields).data


def test_columns_are_those_of_the_recipe(tmp_path: Path) -> None:
    data = read_labeled(write_csv(tmp_path / "train.csv", ROWS), config())
    assert data.label_names == ("a", "b", "c")
    assert data.texts.to_pylist() == [text for text, _ in ROWS]


def test_part_with_an_unknown_label_is_refused(tmp_path: Path) -> None:
    train = read_labeled(write_csv(tmp_path / "train.csv", ROWS), config())
    with pytest.raises(DataError, match="'d'"):
        read_part(write_csv(tmp_path / "test.csv", [("a game", "d")]), config(), train)


def test_part_leaves_out_the_labels_that_training_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train = drop_rare_labels(read_labeled(write_csv(tmp_path / "train.csv", ROWS), config()), 2)
    other = write_csv(tmp_path / "test.csv", [("a game", "a"), ("a bank", "c")])
    with caplog.at_level(logging.INFO, "fullbake"):
        assert len(read_part(other, config(drop_rare="2"), train)) == 1
    assert "1 of 2 rows have a label that is left out" in caplog.text
    with pytest.raises(DataError, match="every row has a label that is left out"):
        read_part(write_csv(tmp_path / "rare.csv", [("a bank", "c")]), config(drop_rare="2"), train)


def test_group_column_that_a_file_lacks_is_left_out_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    grouped = config(group="user")
    with_users = write_csv(tmp_path / "train.csv", [(*row, "u") for row in ROWS], ("text", "label", "user"))
    assert without_missing_group(with_users, grouped).group == "user"
    with caplog.at_level(logging.WARNING, "fullbake"):
        assert without_missing_group(write_csv(tmp_path / "test.csv", ROWS), grouped).group is None
    assert "--group" in caplog.text
