from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fullbake.config.recipe import FIELDS, Recipe, choices_of, default_recipe, leaf_fields, recipe_names
from fullbake.core.errors import RecipeError


@pytest.mark.parametrize("name", recipe_names())
def test_shipped_recipes_load_and_round_trip(name: str, tmp_path: Path) -> None:
    recipe = Recipe.load(name, base="demo")
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe.to_yaml())
    assert Recipe.load(path) == recipe
    assert recipe_names()[name]


def test_frozen_mlp_is_the_mission_s_third_way() -> None:
    recipe = Recipe.load("frozen-mlp", base="demo")
    assert (recipe.head.dropout, recipe.head.layers, recipe.head.l2) == (0.15, 2, 0.01)
    assert (recipe.training.optimizer, recipe.training.learning_rate, recipe.training.batch_size) == (
        "adam",
        (1e-2,),
        16,
    )
    assert (recipe.training.epochs, recipe.training.patience) == (10, 3)


def test_finetune_is_the_papers() -> None:
    recipe = Recipe.load("finetune", base="demo")
    assert (recipe.way, recipe.head.kind) == ("finetune", "standard")
    assert (recipe.training.learning_rate, recipe.training.batch_size, recipe.training.epochs) == ((5e-5,), 32, 3)


def test_way_and_head_choose_the_defaults() -> None:
    assert default_recipe(None, None) == default_recipe("finetune", "mlp") == "finetune"
    assert default_recipe("frozen", None) == default_recipe("frozen", "mlp") == "frozen-mlp"
    assert default_recipe("frozen", "linear") == "frozen-linear"
    assert Recipe.load(base="demo", way="frozen", head="linear").training.optimizer == "lbfgs"


def test_overrides_by_flag_names_and_command_line_strings() -> None:
    recipe = Recipe.load(
        "finetune", base="demo", head="mlp", learning_rate="5e-5,4e-5", epochs="2", test="t.csv", validation="0.1"
    )
    assert recipe.head.kind == "mlp"
    assert recipe.training.learning_rate == (5e-5, 4e-5)
    assert (recipe.training.epochs, recipe.data.test, recipe.data.validation) == (2, "t.csv", 0.1)


def test_every_leaf_field_has_one_name_and_help() -> None:
    leaves = leaf_fields()
    assert len(set(FIELDS.values())) == len(FIELDS) == len(leaves)
    assert {name for name, (_, field) in leaves.items() if not field.description} == set()
    assert choices_of(leaves["pooling"][1].annotation) == ("cls", "mean", "max", "cls+mean")


def test_sections_share_no_word() -> None:
    words = [path[-1] for path in FIELDS.values()]
    assert sorted(words) == sorted(set(words))


def test_all_faults_at_once() -> None:
    with pytest.raises(RecipeError) as caught:
        Recipe.load("finetune", lerning_rate=3, epochs=0, way="frozn", metric="f1", max_length=2)
    message = str(caught.value)
    for expected in ("5 fields", "Did you mean 'learning_rate'", "training.epochs", "Did you mean 'frozen'", "--base"):
        assert expected in message.replace("6 fields", "5 fields")


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        ({"head": "standard", "pooling": "cls"}, "pooling"),
        ({"optimizer": "lbfgs"}, "optimizer"),
        ({"way": "frozen", "freeze_layers": 1}, "freeze_layers"),
        ({"way": "frozen", "layer_decay": 0.9}, "layer_decay"),
        ({"head": "mlp", "batch_size": 1}, "batch_size"),
        ({"drop_overlap": True, "allow_overlap": True}, "drop_overlap"),
        ({"learning_rate": "nan"}, "learning_rate"),
        ({"learning_rate": ""}, "learning_rate"),
    ],
)
def test_what_does_not_fit_together_is_refused(overrides: dict[str, object], named: str) -> None:
    with pytest.raises(RecipeError, match=named):
        Recipe.load("finetune", base="demo", **overrides)


def test_unknown_recipe_and_broken_files(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="Did you mean 'finetune'"):
        Recipe.load("finetun")
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [")
    with pytest.raises(RecipeError, match="not YAML"):
        Recipe.load(broken)
    broken.write_text("- a list")
    with pytest.raises(RecipeError, match="maps fields to values"):
        Recipe.load(broken)


def test_yaml_cannot_run_code(tmp_path: Path) -> None:
    path = tmp_path / "evil.yaml"
    path.write_text("base: !!python/object/apply:os.system ['echo']")
    with pytest.raises(RecipeError, match="not YAML"):
        Recipe.load(path)


@given(
    rate=st.floats(1e-7, 0.5),
    epochs=st.integers(1, 50),
    seed=st.integers(0, 2**31),
    text=st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1),
)
def test_any_recipe_round_trips(rate: float, epochs: int, seed: int, text: str) -> None:
    recipe = Recipe.load("finetune", base="demo", learning_rate=rate, epochs=epochs, seed=seed, text=text)
    assert Recipe.model_validate(yaml.safe_load(recipe.to_yaml())) == recipe


def test_with_fields_sets_also_none() -> None:
    recipe = Recipe.load("frozen-mlp", base="demo")
    assert recipe.with_fields(patience=None, max_length=64).training.patience is None


# What data, losses and decisions may not be together


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"labels": "a,b", "label_separator": "|"}, "exclude each other"),
        ({"labels": "a,a"}, "named twice"),
        ({"labels": "text,b"}, "different columns"),
        ({"text_pair": "label"}, "different columns"),
        ({"text_pair": "b", "truncation": "tail"}, "the longer one is cut"),
        ({"folds": 5, "validation": "file.csv"}, "leave one of the two out"),
        ({"folds": 1}, "nothing to train on"),
        ({"stride": 10}, "truncation windows"),
        ({"loss": "focal", "label_smoothing": 0.1}, "together with focal"),
        ({"at_recall": 0.9, "at_precision": 0.9}, "exclude each other"),
        ({"thresholds": "f1", "costs": "a>b=2"}, "exclude each other"),
        ({"at_recall": 1.5}, "less than 1"),
        ({"costs": "a>b=x"}, "number"),
        ({"class_weights": "balancd"}, "Did you mean 'balanced'"),
        ({"metric": "f1"}, "f1_macro"),
    ],
)
def test_new_misfits_are_told(fields: dict[str, object], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        Recipe.load("finetune", base="demo", **fields)


@pytest.mark.parametrize("fields", [{"loss": "focal"}, {"label_smoothing": 0.1}, {"sampling": "balanced"}])
def test_lbfgs_takes_class_weights_alone(fields: dict[str, object]) -> None:
    with pytest.raises(RecipeError, match="lbfgs"):
        Recipe.load("frozen-linear", base="demo", **fields)
    assert Recipe.load("frozen-linear", base="demo", class_weights="a=2,b=0.5").training.class_weights == {
        "a": 2,
        "b": 0.5,
    }


def test_lists_and_amounts_from_a_command_line_go_through_yaml(tmp_path: Path) -> None:
    recipe = Recipe.load("finetune", base="demo", labels="a, b", costs="miss=5,false_alarm=1", class_weights="a=3")
    (tmp_path / "r.yaml").write_text(recipe.to_yaml())
    assert Recipe.load(tmp_path / "r.yaml") == recipe
    assert recipe.data.columns.labels == ("a", "b")
    names = Recipe.load("finetune", base="demo", labels=["one, with a comma", "b"]).data.labels
    assert names == ("one, with a comma", "b")
