"""Which candidates take part, and how they are made smaller."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fullbake.comparison.design import (
    DEFAULT_RECIPES,
    FEWEST_ROWS,
    FEWEST_ROWS_OF_CLASS,
    at_size,
    parse_budget,
    read_candidates,
    row_shares,
)
from fullbake.comparison.schedule import PlannedRecipe, Size
from fullbake.config.recipe import Recipe
from fullbake.core.errors import RecipeError


def test_budget_is_a_duration_in_seconds() -> None:
    assert parse_budget("10m") == 600


@pytest.mark.parametrize("text", ["", "10", "ten minutes"])
def test_budget_that_is_not_a_duration_is_refused_with_examples(text: str) -> None:
    with pytest.raises(RecipeError, match=r"--budget: this is [\s\S]*such as 90s, 10m"):
        parse_budget(text)


def test_default_recipes_are_all_ways_with_and_without_further_pretraining_and_baselines() -> None:
    candidates = read_candidates(DEFAULT_RECIPES, base="demo")
    assert [(candidate.way, candidate.further_pretrained) for candidate in candidates] == [
        ("finetune", False),
        ("frozen", False),
        ("frozen", False),
        ("finetune", True),
        ("frozen", True),
        ("frozen", True),
        ("baseline", False),
        ("baseline", False),
    ]
    assert len({candidate.title for candidate in candidates}) == len(candidates)


def test_rates_that_are_given_are_taken_as_given(tmp_path: Path) -> None:
    names = ["finetune", "devlin2019", "frozen-mlp", "frozen-linear"]
    rates = {one.name: one.recipe.training.learning_rate for one in read_candidates(names, base="demo") if one.recipe}
    assert rates == {
        "finetune": "auto",
        "devlin2019": (5e-5,),
        "frozen-mlp": "auto",
        "frozen-linear": Recipe.load("frozen-linear", base="demo").training.learning_rate,
    }
    (tmp_path / "mine.yaml").write_text("way: finetune\ntraining:\n  learning_rate: 3.0e-5\n")
    (tmp_path / "open.yaml").write_text("way: finetune\n")
    given = read_candidates(
        ["finetune", "frozen-mlp", tmp_path / "mine.yaml", tmp_path / "open.yaml"],
        base="demo",
        rates=(1e-5,),
        head_rates=(1e-3, 1e-4),
    )
    found = [one.recipe.training.learning_rate for one in given if one.recipe]
    assert found == [(1e-5,), (1e-3, 1e-4), (3e-5,), (1e-5,)], "a file keeps its own rate"
    (fixed,) = read_candidates(["frozen-mlp"], base="demo", learning_rate=2e-3)
    assert fixed.recipe is not None
    assert fixed.recipe.training.learning_rate == (2e-3,)


def test_seeds_start_at_the_seed_of_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("way: frozen\nhead: mlp\ntraining:\n  seed: 40\n  learning_rate: [0.1, 0.01]\n")
    (mine,) = read_candidates([tmp_path / "mine.yaml"], base="demo")
    assert (mine.name, mine.title) == ("mine", "mine")
    assert mine.planned(3, 1000) == PlannedRecipe("mine", "frozen", (40, 41, 42))
    linear, majority = read_candidates(["frozen-linear", "majority"], base="demo")
    assert linear.planned(3, 1000).seeds == majority.planned(3, 1000).seeds == (0,)
    assert majority.planned(3, 1000).way == "baseline"


def test_fine_tuning_may_have_fewer_epochs() -> None:
    (finetune,) = read_candidates(["finetune"], base="demo", epochs=3)
    assert finetune.planned(1, 1000).epochs == (1.0, 0.5, 0.25)
    (short,) = read_candidates(["finetune"], base="demo", epochs=1)
    assert short.planned(1, 1000).epochs == (1.0,)
    assert finetune.recipe is not None
    assert at_size(finetune.recipe, Size(epochs=0.5), 1000).training.epochs == 2
    few = finetune.recipe.with_fields(min_steps=200)
    halved = at_size(few, Size(epochs=0.5), 320)
    assert (halved.training.epochs, halved.training.min_steps) == (10, 0), "half of the twenty that the steps need"


def test_further_pretraining_may_be_shortened_to_a_part_of_one_pass() -> None:
    (tapt,) = read_candidates(["further-finetune"], base="demo")
    assert tapt.recipe is not None
    planned = tapt.planned(1, 1000)
    assert planned.way == "further"
    assert planned.pretraining == (1.0, 0.3, 0.1, 0.03, 0.01, 0.005, 0.0025, 0.00125)
    assert at_size(tapt.recipe, Size(pretraining=0.1), 1000).stage.epochs == 10
    half = at_size(tapt.recipe, Size(pretraining=0.005), 1024).stage
    assert (half.steps, half.epochs) == (2, None), "half of the four batches of a pass"
    assert at_size(tapt.recipe, Size(), 1000) is tapt.recipe
    (steps,) = read_candidates(["further-finetune"], base="demo", further_pretraining="objective=mlm;steps=50")
    assert steps.recipe is not None
    assert at_size(steps.recipe, Size(pretraining=0.3), 1000).stage.steps == 15
    (long,) = read_candidates(["further-pretrain"], base="demo")
    assert long.recipe is not None
    shortened = at_size(long.recipe, Size(pretraining=0.03), 1000).stage
    assert shortened.warmup_steps == 300
    one = at_size(long.recipe, Size(pretraining=1e-6), 1000).stage
    assert one.steps == 10, "each of its phases needs a step"


@given(st.integers(1, 100_000), st.integers(2, 300))
def test_rows_are_cut_to_200_and_16_a_class_at_most(rows: int, classes: int) -> None:
    shares = row_shares(rows, classes)
    assert shares[0] == 1
    assert list(shares) == sorted(shares, reverse=True)
    fewest = max(FEWEST_ROWS, FEWEST_ROWS_OF_CLASS * classes)
    assert shares[-1] * rows == pytest.approx(min(fewest, rows))


def test_titles_say_what_a_recipe_is() -> None:
    found = {
        one.name: one.title for one in read_candidates(["finetune", "frozen-mlp", "further-frozen-linear"], base="demo")
    }
    assert found == {
        "finetune": "Fine-tuned base",
        "frozen-mlp": "Frozen base with MLP head",
        "further-frozen-linear": "Frozen base with linear head after further pretraining",
    }


def test_error_of_unknown_recipe_suggests_the_nearest() -> None:
    with pytest.raises(RecipeError, match="Did you mean 'finetune'"):
        read_candidates(["finetun"], base="demo")
    with pytest.raises(RecipeError, match="Did you mean 'further-frozen-mlp'"):
        read_candidates(["further-frozen-mpl"], base="demo")


def test_recipes_that_cannot_be_compared_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="two recipes are called 'tfidf'"):
        read_candidates(["finetune", "tfidf", "tfidf"], base="demo")
    with pytest.raises(RecipeError, match="no recipe to compare"):
        read_candidates(["majority", "tfidf"], base="demo")
    (tmp_path / "other.yaml").write_text("way: finetune\ndata:\n  text: body\n")
    with pytest.raises(RecipeError, match=r"text: text and body(?s:.*)--text"):
        read_candidates(["finetune", tmp_path / "other.yaml"], base="demo")
    read_candidates(["finetune", tmp_path / "other.yaml"], base="demo", text="body")
