"""Reading, overriding, checking and writing recipes."""

import copy
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fullbake.config.recipe import FIELDS, Recipe, as_recipe, choices_of, default_recipe, leaf_fields, recipe_names
from fullbake.core.errors import RecipeError
from fullbake.models.heads import POOLINGS

# Shipped recipes


@pytest.mark.parametrize("name", recipe_names())
def test_shipped_recipe_loads_and_survives_a_round_trip(name: str, tmp_path: Path) -> None:
    recipe = Recipe.load(name, base="demo")
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe.to_yaml())
    assert Recipe.load(path) == recipe
    assert recipe_names()[name]


def test_frozen_mlp_recipe_has_the_published_settings() -> None:
    recipe = Recipe.load("frozen-mlp", base="demo")
    head, training = recipe.head, recipe.training
    assert (head.dropout, head.layers, head.l2) == (0.15, 2, 0.01)
    assert (training.optimizer, training.learning_rate, training.batch_size) == ("adam", (1e-2,), 16)
    assert (training.epochs, training.patience, training.max_grad_norm) == (10, 3, None)


def test_devlin2019_recipe_has_the_published_settings() -> None:
    recipe = Recipe.load("devlin2019", base="demo")
    assert (recipe.way, recipe.head.kind) == ("finetune", "standard")
    assert (recipe.training.learning_rate, recipe.training.batch_size, recipe.training.epochs) == ((5e-5,), 32, 3)
    assert recipe.training.min_steps == 0


def test_default_recipes_leave_head_and_rate_to_what_measures_best() -> None:
    for name in ("finetune", "frozen"):
        recipe = Recipe.load(name, base="demo")
        assert (recipe.way, recipe.head.kind, recipe.training.learning_rate) == (name, "auto", "auto")
        assert recipe.training.search_metric == "neg_log_loss"
    assert Recipe.load("finetune", base="demo").training.min_steps == 30


def test_a_metric_that_is_given_searches_too(tmp_path: Path) -> None:
    assert Recipe.load("finetune", base="demo", metric="accuracy").training.search_metric == "accuracy"
    both = Recipe.load("finetune", base="demo", metric="accuracy", search_metric="roc_auc").training
    assert (both.metric, both.search_metric) == ("accuracy", "roc_auc")
    path = tmp_path / "recipe.yaml"
    path.write_text("base: demo\ntraining: {metric: accuracy}\n")
    assert Recipe.load(path).training.search_metric == "accuracy"
    again = Recipe.load("finetune", base="demo")
    path.write_text(again.to_yaml())
    assert Recipe.load(path) == again  # a recipe that was written with all fields keeps its search metric


def test_epochs_that_are_given_are_not_raised(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("base: demo\ntraining: {epochs: 3, min_steps: 200}\n")
    assert Recipe.load(path).training.min_steps == 200
    assert Recipe.load(path, epochs=2).training.min_steps == 0
    assert Recipe.load(path, epochs=2, min_steps=50).training.min_steps == 50


@pytest.mark.parametrize(("text", "rates"), [("auto", "auto"), ("1e-4", (1e-4,)), ("5e-5,4e-5", (5e-5, 4e-5))])
def test_rates_are_numbers_or_auto(text: str, rates: object) -> None:
    assert Recipe.load("finetune", base="demo", learning_rate=text).training.learning_rate == rates


def test_a_rate_that_is_still_auto_is_no_number() -> None:
    with pytest.raises(ValueError, match="still 'auto'"):
        _ = Recipe.load("finetune", base="demo").training.peak_rate
    assert Recipe.load("finetune", base="demo", learning_rate="1e-4,2e-4").training.peak_rate == 1e-4


def test_no_rate_and_an_unknown_word_are_refused() -> None:
    for wrong in ("", "automatic", "0", "2"):
        with pytest.raises(RecipeError, match="learning_rate"):
            Recipe.load("finetune", base="demo", learning_rate=wrong)


def test_gradients_may_be_left_unclipped() -> None:
    assert Recipe.load("finetune", base="demo", max_grad_norm="none").training.max_grad_norm is None
    assert Recipe.load("frozen-mlp", base="demo", max_grad_norm="2").training.max_grad_norm == 2.0


def test_way_and_head_choose_the_shipped_recipe() -> None:
    assert default_recipe(None, None) == default_recipe("finetune", "mlp") == "finetune"
    assert default_recipe("frozen", None) == default_recipe("frozen", "auto") == "frozen"
    assert default_recipe("frozen", "mlp") == "frozen-mlp"
    assert default_recipe("frozen", "linear") == "frozen-linear"
    assert Recipe.load(base="demo", way="frozen", head="linear").training.optimizer == "lbfgs"


# Overrides


def test_overrides_take_flag_names_and_command_line_texts() -> None:
    recipe = Recipe.load(
        "finetune", base="demo", head="mlp", learning_rate="5e-5,4e-5", epochs="2", test="t.csv", validation="0.1"
    )
    assert recipe.head.kind == "mlp"
    assert recipe.training.learning_rate == (5e-5, 4e-5)
    assert (recipe.training.epochs, recipe.data.test, recipe.data.validation) == (2, "t.csv", 0.1)


def test_override_of_head_keeps_the_other_fields_of_its_section(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("base: demo\nway: frozen\nhead: mlp\n")
    assert Recipe.load(path, layers=1, epochs=1).head.model_dump(include={"kind", "layers"}) == {
        "kind": "mlp",
        "layers": 1,
    }


def test_override_of_none_changes_nothing_in_load() -> None:
    assert Recipe.load("finetune", base="demo", epochs=None) == Recipe.load("finetune", base="demo")


def test_with_fields_can_set_none() -> None:
    recipe = Recipe.load("frozen-mlp", base="demo")
    assert recipe.with_fields(patience=None, max_length=64).training.patience is None


def test_further_pretraining_is_a_recipe_name_or_single_fields() -> None:
    named = Recipe.load("finetune", base="demo", further_pretraining="tapt")
    assert named.stage == Recipe.load("tapt", base="demo").stage
    single = Recipe.load("finetune", base="demo", further_pretraining="objective=mlm; steps=200")
    assert (single.stage.objective, single.stage.steps) == ("mlm", 200)
    with pytest.raises(RecipeError, match="'frozen-mlp' has no section further_pretraining"):
        Recipe.load("finetune", base="demo", further_pretraining="frozen-mlp")


def test_stage_field_replaces_the_fields_that_exclude_it(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("base: demo\nfurther_pretraining: {epochs: 2, phases: {128: 0.9, 512: 0.1}}\n")
    stage = Recipe.load_stage(path, steps=50, max_length=64)
    assert (stage.steps, stage.epochs, stage.lengths) == (50, None, {64: 1.0})
    assert Recipe.load_stage(path).epochs == 2


# Fields


def test_every_field_has_one_name_and_a_help_text() -> None:
    leaves = leaf_fields()
    assert len(set(FIELDS.values())) == len(FIELDS) == len(leaves)
    assert {name for name, (_, field) in leaves.items() if not field.description} == set()


def test_recipes_accept_every_pooling_of_the_heads() -> None:
    _, field = leaf_fields()["pooling"]
    assert {*choices_of(field.annotation)} == {*POOLINGS}


def test_no_two_sections_share_a_field_name() -> None:
    names = [path[-1] for path in FIELDS.values()]
    assert sorted(names) == sorted(set(names))


# Errors


def test_all_wrong_fields_are_listed_in_one_error() -> None:
    with pytest.raises(RecipeError) as caught:
        Recipe.load("finetune", lerning_rate=3, epochs=0, way="frozn", max_length=2)
    message = str(caught.value)
    for expected in ("5 fields", "Did you mean 'learning_rate'", "training.epochs", "Did you mean 'frozen'", "--base"):
        assert expected in message


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"head": "standard", "pooling": "cls"}, "pooling: the standard head"),
        ({"optimizer": "lbfgs"}, "optimizer: lbfgs"),
        ({"way": "frozen", "freeze_layers": 1}, "freeze_layers: way frozen"),
        ({"way": "frozen", "layer_decay": 0.9}, "layer_decay: way frozen"),
        ({"head": "mlp", "batch_size": 1}, "batch_size: the batch norm"),
        ({"text_pair": "b", "truncation": "tail"}, "truncation: in a pair"),
        ({"stride": 10}, "stride: it needs truncation windows"),
        ({"loss": "focal", "label_smoothing": 0.1}, "label_smoothing: it has no meaning together with focal"),
    ],
)
def test_fields_of_two_sections_that_conflict_are_refused(fields: dict[str, object], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        Recipe.load("finetune", base="demo", **fields)


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"loss": "focal"}, "loss"),
        ({"label_smoothing": 0.1}, "label_smoothing"),
        ({"sampling": "balanced"}, "sampling"),
    ],
)
def test_lbfgs_takes_neither_another_loss_nor_sampling(fields: dict[str, object], name: str) -> None:
    with pytest.raises(RecipeError, match=f"{name}: lbfgs"):
        Recipe.load("frozen-linear", base="demo", **fields)


def test_lbfgs_takes_class_weights() -> None:
    recipe = Recipe.load("frozen-linear", base="demo", class_weights="a=2,b=0.5")
    assert recipe.training.class_weights == {"a": 2, "b": 0.5}


def test_unknown_recipe_is_refused_with_a_near_name() -> None:
    with pytest.raises(RecipeError, match="Did you mean 'finetune'"):
        Recipe.load("finetun")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "not valid YAML"),
        ("- a list", "has to be a mapping of fields to values"),
        ("base: !!python/object/apply:os.system ['echo']", "not valid YAML"),
    ],
    ids=["broken", "list", "code"],
)
def test_file_that_is_not_a_recipe_is_refused(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=words):
        Recipe.load(path)


# Round trips


@given(
    rate=st.floats(1e-7, 0.5),
    epochs=st.integers(1, 50),
    seed=st.integers(0, 2**31),
    text=st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1).filter("label".__ne__),
)
def test_any_recipe_survives_a_round_trip(rate: float, epochs: int, seed: int, text: str) -> None:
    recipe = Recipe.load("finetune", base="demo", learning_rate=rate, epochs=epochs, seed=seed, text=text)
    assert Recipe.model_validate(yaml.safe_load(recipe.to_yaml())) == recipe


def test_lists_and_amounts_of_flags_survive_a_round_trip(tmp_path: Path) -> None:
    recipe = Recipe.load("finetune", base="demo", labels="a, b", costs="miss=5,false_alarm=1", class_weights="a=3")
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    assert Recipe.load(tmp_path / "recipe.yaml") == recipe
    assert recipe.data.columns.labels == ("a", "b")


# From Python


def test_single_fields_may_be_named_as_in_load() -> None:
    made = Recipe(base="demo", text="review", learning_rate=3e-5, head="mlp", layers=3, data={"label": "stars"})
    assert (made.data.text, made.data.label) == ("review", "stars")
    assert made.training.learning_rate == (3e-5,)
    assert (made.head.kind, made.head.layers) == ("mlp", 3)


def test_a_recipe_from_python_reports_all_its_wrong_fields_at_once() -> None:
    with pytest.raises(RecipeError) as caught:
        Recipe(base="demo", txt="review", epochs=0, labell="x")
    message = str(caught.value)
    assert "3 fields are wrong" in message
    assert "txt: there is no such field. Did you mean 'text'?" in message
    assert "epochs: " in message
    with pytest.raises(RecipeError, match="base: missing"):
        Recipe(text="review")
    with pytest.raises(RecipeError, match=r"Recipe\.load\('finetune', base='demo'\)"):
        Recipe("finetune", base="demo")


def test_values_from_python_libraries_are_taken() -> None:
    made = Recipe.load(
        "finetune", base=Path("models") / "b", learning_rate=np.float64(3e-5), epochs=np.int64(2), test=Path("test.csv")
    )
    assert made.base == str(Path("models") / "b")
    assert (made.training.epochs, made.data.test) == (2, "test.csv")
    assert Recipe.load(base="demo", labels=(name for name in ("a", "b"))).data.labels == ("a", "b")


def test_a_recipe_or_its_fields_are_a_source(tmp_path: Path) -> None:
    first = Recipe.load("frozen-mlp", base="demo")
    assert Recipe.load(first) == first
    assert Recipe.load(first, epochs=3) == first.with_fields(epochs=3, min_steps=0)
    assert Recipe.load(first.model_dump()) == first
    assert Recipe.load({"base": "demo", "text": "review"}).data.text == "review"
    assert as_recipe(first) is first
    (tmp_path / "r.yaml").write_text(first.to_yaml(), "utf-8")
    assert as_recipe(tmp_path / "r.yaml") == first
    assert copy.deepcopy(first) == first


def test_what_is_no_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="the argument recipe cannot be used"):
        Recipe.load(3)  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match="the argument recipe cannot be used"):
        as_recipe([1])
    (tmp_path / "r.yaml").write_bytes("base: caf\u00e9".encode("latin-1"))
    with pytest.raises(RecipeError, match="not UTF-8"):
        Recipe.load(tmp_path / "r.yaml")
    with pytest.raises(RecipeError, match="Did you mean 'epochs'"):
        Recipe.load("finetune", base="demo").with_fields(epoch=3)


def test_a_single_field_in_a_file_belongs_in_its_section(tmp_path: Path) -> None:
    """A file is read by others too, so that it has one form."""
    (tmp_path / "r.yaml").write_text("base: demo\ntext: review\n", "utf-8")
    with pytest.raises(RecipeError, match="text: there is no such field"):
        Recipe.load(tmp_path / "r.yaml")
