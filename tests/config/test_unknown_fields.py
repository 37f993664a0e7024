"""A word that is no field is answered with the field, or with where it belongs."""

import pytest

from fullbake import Recipe
from fullbake.config.recipe import FIELDS
from fullbake.config.unknown_fields import describe_unknown_field
from fullbake.core.errors import RecipeError


@pytest.mark.parametrize(
    ("word", "answer"),
    [
        ("lr", "Here it is called 'learning_rate'."),
        ("Model-Name-Or-Path", "Here it is called 'base'."),
        ("epoch", "Did you mean 'epochs'?"),
        ("output_dir", "adapt(recipe, rows, out='classifier')"),
        ("out", "adapt(recipe, rows, out='classifier')"),
        ("do_train", "Leave it out"),
        ("zzz", "none is similar"),
    ],
)
def test_answers(word: str, answer: str) -> None:
    assert answer in describe_unknown_field(word, FIELDS)


def test_recipes_answer_so_whatever_way_a_word_comes_in() -> None:
    recipe = Recipe.load(base="demo")
    for wrong in (
        lambda: Recipe(base="demo", lr=1e-3),
        lambda: Recipe.load(base="demo", lr=1e-3),
        lambda: recipe.with_fields(lr=1e-3),
        lambda: Recipe(base="demo", training={"lr": 1e-3}),
        lambda: Recipe.load({"base": "demo", "lr": 1e-3}),
    ):
        with pytest.raises(RecipeError, match=r"lr: there is no such field. Here it is called 'learning_rate'"):
            wrong()
