"""`adapt` trains, scores and saves a classifier as its recipe says."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.rows import dataset, make_rows, recipe, train, weights, write_csv
from helpers.weights import assert_same

from fullbake import Recipe, adapt
from fullbake.config.sections import Columns
from fullbake.core.errors import DataError, OutputError, RecipeError
from fullbake.training.job import resolve_recipe

Bases = Callable[..., Path]


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("finetune", {}),
        ("finetune", {"head": "mlp"}),
        ("frozen-mlp", {}),
        ("frozen-linear", {}),
        ("frozen-standard", {}),
    ],
)
def test_recipe_saved_in_a_bundle_trains_the_same_weights(
    bases: Bases, tmp_path: Path, name: str, fields: dict[str, str]
) -> None:
    """A bundle holds the complete recipe; a second run of it gives the same bits."""
    source = write_csv(tmp_path / "rows.csv", make_rows())
    first = adapt(recipe(bases("bert"), name, **fields), source, out=tmp_path / "one", cache_dir=tmp_path / "a")
    saved = Recipe.load(tmp_path / "one")
    again = adapt(saved, source, out=tmp_path / "two", cache_dir=tmp_path / "b")
    assert_same(weights(first), weights(again))
    files = [(tmp_path / folder / "model.safetensors").read_bytes() for folder in ("one", "two")]
    assert files[0] == files[1]
    assert saved.tokens.max_length == 48


def test_resolved_recipe_has_the_defaults_of_the_base(bases: Bases) -> None:
    bare = Recipe.load("frozen-mlp", base=str(bases("roberta", hidden_size=16)))
    filled = resolve_recipe(bare)
    assert (filled.tokens.max_length, filled.head.pooling, filled.head.width) == (512, "cls", 16)
    assert resolve_recipe(filled) == filled


def test_max_length_above_that_of_the_base_is_refused(bases: Bases) -> None:
    with pytest.raises(RecipeError, match=r"Expected at most 64; got 100(?s:.*)--max-length 64"):
        resolve_recipe(Recipe.load("finetune", base=str(bases("bert", positions=64)), max_length=100))


def test_output_folder_that_holds_something_is_refused_before_all_work(bases: Bases, tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "mine").touch()
    with pytest.raises(OutputError, match=r"already holds something(?s:.*)--overwrite"):
        adapt(Recipe.load("finetune", base="no such base"), "no such file", out=tmp_path / "m")


def test_validation_chooses_the_learning_rate_and_a_message_says_so(
    bases: Bases, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rates = "1e-6,3e-2"
    with caplog.at_level(logging.INFO, "fullbake"):
        fields = {"pooling": "mean", "epochs": 4, "metric": "f1_macro"}
        made = train(bases("bert"), tmp_path, "frozen-mlp", learning_rate=rates, **fields)
    line = next(message for message in caplog.messages if message.startswith("validation chose"))
    history = made.record.history
    best = {rate: max(entry["f1_macro"] for entry in history if entry["rate"] == rate) for rate in (1e-6, 3e-2)}
    chosen = max(best, key=lambda rate: best[rate])
    assert f"{chosen:g}" in line
    assert all(f"{value:.4f} at {rate:g}" in line for rate, value in best.items())
    assert [entry["rate"] for entry in history if entry["best"]] == [chosen]
    alone = train(bases("bert"), tmp_path, "frozen-mlp", learning_rate=chosen, **fields)
    # Heads that train together compute in another order, so their losses differ by rounding.
    losses = [entry["train_loss"] for entry in history if entry["rate"] == chosen]
    assert losses == pytest.approx([entry["train_loss"] for entry in alone.record.history], rel=1e-2)
    again = train(bases("bert"), tmp_path, "frozen-mlp", learning_rate=rates, pooling="mean", epochs=4)
    assert_same(weights(made), weights(again))


def test_every_part_is_scored_and_its_row_numbers_are_saved(bases: Bases, tmp_path: Path) -> None:
    made = train(bases("bert"), tmp_path, test=0.25)
    facts, seen = made.record.facts, made.record.seen
    assert set(facts["metrics"]) == {"validation", "test"}
    assert facts["data"]["rows"] == {"train": 30, "validation": 15, "test": 15}
    rows = np.concatenate([seen["train_rows"], seen["validation_rows"], seen["test_rows"]])
    assert sorted(rows.tolist()) == list(range(1, 61))
    texts = [make_rows()[row - 1] for row in seen["test_rows"]]
    predicted = made.predict([text for text, _ in texts])
    accuracy = np.mean([label == own for label, (_, own) in zip(predicted, texts, strict=True)])
    assert facts["metrics"]["test"]["overall"]["accuracy"]["value"] == pytest.approx(accuracy)


def test_overlap_of_given_files_is_refused_or_dropped_or_recorded(bases: Bases, tmp_path: Path) -> None:
    given = str(write_csv(tmp_path / "given.csv", [make_rows()[0], make_rows()[1], *make_rows(12, seed=9)]))
    with pytest.raises(DataError, match="2 of 60 training rows"):
        train(bases("bert"), tmp_path, validation=given)
    dropped = train(bases("bert"), tmp_path, validation=given, drop_overlap=True).record.facts["data"]
    assert (dropped["rows"]["train"], dropped["overlap_dropped"], dropped["overlap_allowed"]) == (58, 2, 0)
    allowed = train(bases("bert"), tmp_path, validation=given, allow_overlap=True)
    assert allowed.record.facts["data"]["overlap_allowed"] == 2
    allowed.save(tmp_path / "m")
    assert "--allow-overlap" in (tmp_path / "m" / "README.md").read_text()


def test_column_names_of_the_data_are_remembered(bases: Bases, tmp_path: Path) -> None:
    source = write_csv(tmp_path / "rows.csv", make_rows(), ("body", "topic"))
    made = adapt(recipe(bases("bert"), text="body", label="topic"), source, cache_dir=tmp_path)
    assert made.columns == Columns("body", "topic")
    assert len(dataset(tmp_path)) == 60
