"""fullbake.comparison.design: ."""

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
    parse_duration,
    pick_design,
    read_candidates,
    smaller_designs,
)
from fullbake.core.errors import RecipeError

GRID = (5e-5, 2e-5, 3e-5, 4e-5)
LINES = (
    RecipePlan("finetune", GRID, (0, 1, 2)),
    RecipePlan("frozen-linear", (), (0,)),
    RecipePlan("further", GRID, (0, 1, 2), further=True),
    RecipePlan("tfidf", (), (0,)),
)
DEAREST = ("further", "finetune")


def test_ids_name_recipe_fold_rate_and_seed() -> None:
    assert Trial("finetune", 5e-5, 0).id == "finetune/5e-05/0"
    assert Trial("finetune", 5e-5, 2, fold=0).id == "finetune/fold-1/5e-05/2"
    assert Trial("tfidf", None, 0).id == "tfidf/only/0"


def test_the_full_design_is_recipes_times_rates_times_seeds() -> None:
    cells = full_design(LINES).cells(LINES, None)
    assert len(cells) == len(set(cells)) == 4 * 3 + 1 + 4 * 3 + 1
    assert len(full_design(LINES).cells(LINES, 5)) == 5 * len(cells)
    assert len({cell.id for cell in cells}) == len(cells)


def test_what_is_short_gives_way_in_this_order() -> None:
    """Rates, then the length of further pretraining, then seeds down to two, then recipes, the dearest first."""
    designs = list(smaller_designs(LINES, DEAREST))
    everyone = ("finetune", "frozen-linear", "further", "tfidf")
    assert designs[0] == full_design(LINES) == Design(everyone, 4, 3, 1.0)
    assert [design.rates for design in designs[:3]] == [4, 2, 1]
    assert designs[3].share < 1
    assert designs[3].seeds == 3
    assert min(design.seeds for design in designs if "further" in design.names) == 2
    assert designs[-1] == Design(("frozen-linear", "tfidf"), 1, 1, 1.0)
    without = [design.names for design in designs if "finetune" in design.names and "further" not in design.names]
    assert without
    assert "finetune" not in designs[-1].names


def test_every_recipe_of_a_design_has_as_many_rates() -> None:
    for design in smaller_designs(LINES, DEAREST):
        cells = design.cells(LINES, None)
        counts = {
            name: len({cell.rate for cell in cells if cell.entrant == name})
            for name in design.names
            if name in ("finetune", "further")
        }
        assert set(counts.values()) <= {design.rates}


@given(st.floats(0.1, 100), st.floats(0, 5000))
def test_the_picked_design_fits_and_none_before_it_does(each: float, seconds: float) -> None:
    def cost(design: Design) -> float:
        return each * len(design.cells(LINES, None)) * design.share

    designs = list(smaller_designs(LINES, DEAREST))
    picked = pick_design(iter(designs), cost, seconds)
    fitting = [design for design in designs if cost(design) <= seconds]
    assert picked == (fitting[0] if fitting else None)


def test_what_is_left_out_is_told() -> None:
    full = full_design(LINES)
    assert describe_left_out(full, full, "too dear") == []
    told = describe_left_out(full, Design(("finetune", "frozen-linear", "tfidf"), 2, 3, 0.1), "too dear")
    assert told[0] == "further: too dear"
    assert any("2 of up to 4" in line for line in told)
    assert any("10% of its own length" in line for line in told)


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("10m", 600), ("1.5h", 5400)])
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "10", "0m", "-3m", "ten minutes", "5 m"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(RecipeError, match="90s, 10m or 1h"):
        parse_duration(text)


def test_the_default_is_every_way_with_and_without_further_pretraining_and_baselines() -> None:
    entrants = read_candidates(DEFAULT_RECIPES, base="demo")
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
    finetune, mlp, linear = read_candidates(["finetune", "frozen-mlp", "frozen-linear"], base="demo")
    assert set(finetune.rates) == {5e-5, 4e-5, 3e-5, 2e-5}
    assert finetune.rates == RATES
    assert len(mlp.rates) == len(RATES)
    assert linear.rates == ()
    assert not linear.lucky
    chosen = read_candidates(["finetune", "frozen-mlp"], base="demo", rates=(1e-5,), head_rates=(1e-3, 1e-4))
    assert [one.rates for one in chosen] == [(1e-5,), (1e-3, 1e-4)]


def test_seeds_count_from_the_recipes_own(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("way: frozen\nhead: mlp\ntraining:\n  seed: 40\n  learning_rate: [0.1, 0.01]\n")
    (mine,) = read_candidates([tmp_path / "mine.yaml"], base="demo")
    assert (mine.name, mine.title) == ("mine", "mine")
    assert mine.line(3) == RecipePlan("mine", (0.1, 0.01), (40, 41, 42))
    assert read_candidates(["frozen-linear"], base="demo")[0].line(3).seeds == (0,)


def test_a_stage_may_be_named_and_shortened() -> None:
    (tapt,) = read_candidates(["further-finetune"], base="demo")
    assert tapt.recipe is not None
    assert tapt.recipe.stage.epochs == 100
    assert tapt.shortened(0.1).recipe.stage.epochs == 10
    assert tapt.shortened(1.0) is tapt
    (steps,) = read_candidates(["further-finetune"], base="demo", further_pretraining="objective=mlm;steps=50")
    assert steps.shortened(0.3).recipe.stage.steps == 15
    (long,) = read_candidates(["further-pretrain"], base="demo")
    assert long.shortened(0.03).recipe.stage.warmup_steps == 300


def test_an_unknown_recipe_is_told_with_the_nearest() -> None:
    with pytest.raises(RecipeError, match="Did you mean 'finetune'"):
        read_candidates(["finetun"], base="demo")
    with pytest.raises(RecipeError, match="Did you mean 'further-frozen-mlp'"):
        read_candidates(["further-frozen-mpl"], base="demo")


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="two recipes are called 'tfidf'"):
        read_candidates(["finetune", "tfidf", "tfidf"], base="demo")
    with pytest.raises(RecipeError, match="no recipe to compare"):
        read_candidates(["majority", "tfidf"], base="demo")
    (tmp_path / "other.yaml").write_text("way: finetune\ndata:\n  text: body\n")
    with pytest.raises(RecipeError, match=r"text: text and body(?s:.*)--text"):
        read_candidates(["finetune", tmp_path / "other.yaml"], base="demo")
    read_candidates(["finetune", tmp_path / "other.yaml"], base="demo", text="body")
