"""Rules within one section of a recipe."""

import pytest
from pydantic import ValidationError

from fullbake.config.recipe import Recipe
from fullbake.config.sections import Columns, DataConfig
from fullbake.core.errors import RecipeError


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"labels": "a,b", "label_separator": "|"}, "exclude each other"),
        ({"labels": "a,a"}, "the same column is named twice"),
        ({"labels": "text,b"}, "have to be different columns"),
        ({"text_pair": "label"}, "have to be different columns"),
        ({"drop_overlap": True, "allow_overlap": True}, "drop_overlap and allow_overlap exclude each other"),
        ({"folds": 5, "validation": "file.csv"}, "folds and a file for validation exclude each other"),
        ({"folds": 1}, "one fold leaves nothing to train on"),
        ({"at_recall": 0.9, "at_precision": 0.9}, "at_recall and at_precision exclude each other"),
        ({"thresholds": "f1", "costs": "a>b=2"}, "costs and thresholds f1 exclude each other"),
        ({"at_recall": 1.5}, "less than 1"),
        ({"costs": "a>b=x"}, "number"),
        ({"class_weights": "balancd"}, "Did you mean 'balanced'"),
        ({"learning_rate": "nan"}, "learning_rate"),
        ({"learning_rate": ""}, "learning_rate"),
    ],
)
def test_fields_of_one_section_that_conflict_are_refused(fields: dict[str, object], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        Recipe.load("finetune", base="demo", **fields)


def test_section_is_frozen_and_knows_no_other_field() -> None:
    with pytest.raises(ValidationError):
        DataConfig(delimeter=",")  # type: ignore[call-arg]
    with pytest.raises(RecipeError, match=r"recipe = recipe.with_fields\(text='body'\)"):
        DataConfig().text = "body"  # type: ignore[misc]


def test_columns_of_a_pair_and_of_label_columns() -> None:
    columns = DataConfig(text_pair="answer", labels=("a", "b")).columns
    assert (columns.of_texts, columns.of_labels) == (("text", "answer"), ("a", "b"))
    assert DataConfig().columns.of_labels == ("label",)
    assert Columns("text").of_labels == ()


def test_columns_survive_json() -> None:
    columns = Columns("text", None, "answer", ("a", "b"))
    assert Columns.from_json(columns.to_json()) == columns
