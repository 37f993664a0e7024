"""Which candidates take part, and which design a budget allows."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fullbake.comparison.design import (
    DEFAULT_RECIPES,
    RATES,
    Design,
    RecipePlan,
    Trial,
    describe_left_out,
    full_design,
    parse_budget,
    pick_design,
    read_candidates,
    smaller_designs,
)
from fullbake.core.errors import RecipeError

GRID = (5e-5, 2e-5, 3e-5, 4e-5)
PLANS = (
    RecipePlan("finetune", GRID, (0, 1, 2)),
    RecipePlan("frozen-linear", (), (0,)),
    RecipePlan("further", GRID, (0, 1, 2), further_pretrained=True),
    RecipePlan("tfidf", (), (0,)),
)
REMOVABLE = ("further", "finetune")


def test_trial_id_names_recipe_fold_rate_and_seed() -> None:
    assert Trial("finetune", 5e-5, 0).id == "finetune/5e-05/0"
    assert Trial("finetune", 5e-5, 2, fold=0).id == "finetune/fold-1/5e-05/2"
    assert Trial("tfidf", None, 0).id == "tfidf/only/0"


def test_full_design_has_every_recipe_rate_and_seed() -> None:
    trials = full_design(PLANS).trials(PLANS, None)
    assert len(trials) == len(set(trials)) == 4 * 3 + 1 + 4 * 3 + 1
    assert len(full_design(PLANS).trials(PLANS, 5)) == 5 * len(trials)
    assert len({trial.id for trial in trials}) == len(trials)


def test_smaller_designs_reduce_rates_then_pretraining_then_seeds_then_recipes() -> None:
    designs = list(smaller_designs(PLANS, REMOVABLE))
    all_names = ("finetune", "frozen-linear", "further", "tfidf")
    assert designs[0] == full_design(PLANS) == Design(all_names, 4, 3, 1.0)
    assert [design.rates for design in designs[:3]] == [4, 2, 1]
    assert designs[3].pretraining_share < 1
    assert designs[3].seeds == 3
    assert min(design.seeds for design in designs if "further" in design.names) == 2
    assert designs[-1] == Design(("frozen-linear", "tfidf"), 1, 1, 1.0)
    without_further = [
        design.names for design in designs if "finetune" in design.names and "further" not in design.names
    ]
    assert without_further
    assert "finetune" not in designs[-1].names


def test_all_recipes_of_a_design_have_the_same_number_of_rates() -> None:
    for design in smaller_designs(PLANS, REMOVABLE):
        trials = design.trials(PLANS, None)
        counts = {
            name: len({trial.rate for trial in trials if trial.candidate == name})
            for name in design.names
            if name in ("finetune", "further")
        }
        assert set(counts.values()) <= {design.rates}


@given(st.floats(0.1, 100), st.floats(0, 5000))
def test_first_design_that_fits_is_picked(each: float, seconds: float) -> None:
    def cost(design: Design) -> float:
        return each * len(design.trials(PLANS, None)) * design.pretraining_share

    designs = list(smaller_designs(PLANS, REMOVABLE))
    picked = pick_design(iter(designs), cost, seconds)
    fitting = [design for design in designs if cost(design) <= seconds]
    assert picked == (fitting[0] if fitting else None)


def test_everything_left_out_is_listed() -> None:
    full = full_design(PLANS)
    assert describe_left_out(full, full, "too expensive") == []
    lines = describe_left_out(full, Design(("finetune", "frozen-linear", "tfidf"), 2, 3, 0.1), "too expensive")
    assert lines[0] == "further: too expensive"
    assert any("2 of up to 4" in line for line in lines)
    assert any("10% of its own length" in line for line in lines)


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


def test_encoders_and_heads_have_the_same_number_of_rates() -> None:
    finetune, mlp, linear = read_candidates(["finetune", "frozen-mlp", "frozen-linear"], base="demo")
    assert set(finetune.rates) == {5e-5, 4e-5, 3e-5, 2e-5}
    assert finetune.rates == RATES
    assert len(mlp.rates) == len(RATES)
    assert linear.rates == ()
    assert not linear.depends_on_seed
    chosen = read_candidates(["finetune", "frozen-mlp"], base="demo", rates=(1e-5,), head_rates=(1e-3, 1e-4))
    assert [candidate.rates for candidate in chosen] == [(1e-5,), (1e-3, 1e-4)]


def test_seeds_start_at_the_seed_of_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("way: frozen\nhead: mlp\ntraining:\n  seed: 40\n  learning_rate: [0.1, 0.01]\n")
    (mine,) = read_candidates([tmp_path / "mine.yaml"], base="demo")
    assert (mine.name, mine.title) == ("mine", "mine")
    assert mine.plan(3) == RecipePlan("mine", (0.1, 0.01), (40, 41, 42))
    assert read_candidates(["frozen-linear"], base="demo")[0].plan(3).seeds == (0,)


def test_further_pretraining_can_be_set_and_shortened() -> None:
    (tapt,) = read_candidates(["further-finetune"], base="demo")
    assert tapt.recipe is not None
    assert tapt.recipe.stage.epochs == 100
    assert tapt.with_pretraining_share(0.1).recipe.stage.epochs == 10
    assert tapt.with_pretraining_share(1.0) is tapt
    (steps,) = read_candidates(["further-finetune"], base="demo", further_pretraining="objective=mlm;steps=50")
    assert steps.with_pretraining_share(0.3).recipe.stage.steps == 15
    (long,) = read_candidates(["further-pretrain"], base="demo")
    assert long.with_pretraining_share(0.03).recipe.stage.warmup_steps == 300


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
