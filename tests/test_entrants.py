from pathlib import Path

import pytest

from fullbake.comparison.design import DEFAULT, RATES, Line, read_entrants
from fullbake.core.errors import RecipeError


def test_the_default_is_every_way_with_and_without_further_pretraining_and_baselines() -> None:
    entrants = read_entrants(DEFAULT, base="demo")
    assert [(one.way, one.further) for one in entrants] == [
        ("finetune", False),
        ("frozen", False),
        ("frozen", False),
        ("finetune", True),
        ("frozen", True),
        ("frozen", True),
        ("baseline", False),
        ("baseline", False),
    ]
    assert len({one.title for one in entrants}) == len(entrants)


def test_rates_are_a_grid_for_encoders_and_one_for_heads_as_long() -> None:
    finetune, mlp, linear = read_entrants(["finetune", "frozen-mlp", "frozen-linear"], base="demo")
    assert set(finetune.rates) == {5e-5, 4e-5, 3e-5, 2e-5}
    assert finetune.rates == RATES
    assert len(mlp.rates) == len(RATES)
    assert linear.rates == ()
    assert not linear.lucky
    chosen = read_entrants(["finetune", "frozen-mlp"], base="demo", rates=(1e-5,), head_rates=(1e-3, 1e-4))
    assert [one.rates for one in chosen] == [(1e-5,), (1e-3, 1e-4)]


def test_seeds_count_from_the_recipes_own(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("way: frozen\nhead: mlp\ntraining:\n  seed: 40\n  learning_rate: [0.1, 0.01]\n")
    (mine,) = read_entrants([tmp_path / "mine.yaml"], base="demo")
    assert (mine.name, mine.title) == ("mine", "mine")
    assert mine.line(3) == Line("mine", (0.1, 0.01), (40, 41, 42))
    assert read_entrants(["frozen-linear"], base="demo")[0].line(3).seeds == (0,)


def test_a_stage_may_be_named_and_shortened() -> None:
    (tapt,) = read_entrants(["further-finetune"], base="demo")
    assert tapt.recipe is not None
    assert tapt.recipe.stage.epochs == 100
    assert tapt.shortened(0.1).recipe.stage.epochs == 10
    assert tapt.shortened(1.0) is tapt
    (steps,) = read_entrants(["further-finetune"], base="demo", further_pretraining="objective=mlm;steps=50")
    assert steps.shortened(0.3).recipe.stage.steps == 15
    (long,) = read_entrants(["further-pretrain"], base="demo")
    assert long.shortened(0.03).recipe.stage.warmup_steps == 300


def test_an_unknown_recipe_is_told_with_the_nearest() -> None:
    with pytest.raises(RecipeError, match="Did you mean 'finetune'"):
        read_entrants(["finetun"], base="demo")
    with pytest.raises(RecipeError, match="Did you mean 'further-frozen-mlp'"):
        read_entrants(["further-frozen-mpl"], base="demo")


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="two recipes are called 'tfidf'"):
        read_entrants(["finetune", "tfidf", "tfidf"], base="demo")
    with pytest.raises(RecipeError, match="no recipe to compare"):
        read_entrants(["majority", "tfidf"], base="demo")
    (tmp_path / "other.yaml").write_text("way: finetune\ndata:\n  text: body\n")
    with pytest.raises(RecipeError, match=r"text: text and body(?s:.*)--text"):
        read_entrants(["finetune", tmp_path / "other.yaml"], base="demo")
    read_entrants(["finetune", tmp_path / "other.yaml"], base="demo", text="body")
