"""`adapt` trains, scores and saves a classifier as its recipe says."""

import logging
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import polars as pl
import pytest
from helpers.rows import dataset, make_job, make_rows, recipe, train, weights, write_csv
from helpers.weights import assert_same

from fullbake import Recipe, adapt, compare
from fullbake.classifier.precision import read_validation_rows
from fullbake.config.sections import Columns
from fullbake.core.errors import DataError, Interrupted, OutputError, RecipeError
from fullbake.training.checkpoints import Checkpoints
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


# Rows in memory


def test_frame_trains_what_its_file_trains_and_resumes(
    bases: Bases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same rows have the same fingerprint, so caches are shared and an unfinished run is the same run."""
    frame = pd.DataFrame(make_rows(), columns=["text", "label"], index=range(60, 0, -1))
    frame.to_csv(tmp_path / "rows.csv", index=False)
    fields = {"optimizer": "adamw", "learning_rate": 1e-2}
    options: dict[str, Any] = {"cache_dir": tmp_path / "cache", "checkpoint_every": "1"}
    own = recipe(bases("bert"), "frozen-mlp", **fields)
    whole = adapt(own, tmp_path / "rows.csv", out=tmp_path / "file", **options)

    def stop(self: Checkpoints, checkpoint: Any) -> None:
        save(self, checkpoint)
        raise Interrupted(signal.SIGTERM, checkpoint.step, None)

    save = Checkpoints.save
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", stop)
        with pytest.raises(Interrupted):
            adapt(own, frame, out=tmp_path / "frame", **options)
    changed = frame.assign(text=frame["text"] + " more")
    with pytest.raises(OutputError, match="data"):
        adapt(own, changed, out=tmp_path / "frame", **options)
    resumed = adapt(own, frame, out=tmp_path / "frame", resume="require", **options)
    assert_same(weights(resumed), weights(whole))
    assert resumed.record.facts["data"]["fingerprint"] == whole.record.facts["data"]["fingerprint"]
    assert resumed.record.facts["data"]["source"]["train"] == "a pandas DataFrame of 60 rows"


def test_parts_of_a_data_set_dict_are_the_split(bases: Bases, tmp_path: Path) -> None:
    rows = pd.DataFrame(make_rows(90), columns=["text", "label"])
    parts = datasets.DatasetDict(
        {name: datasets.Dataset.from_pandas(rows.iloc[start : start + 30]) for name, start in STARTS.items()}
    )
    own = recipe(bases("bert"))
    classifier = adapt(own, parts, out=tmp_path / "m", cache_dir=tmp_path / "cache")
    facts = classifier.record.facts["data"]
    assert facts["rows"] == dict.fromkeys(STARTS, 30)
    assert set(facts["source"].values()) == {"a Hugging Face Dataset of 30 rows"}
    assert Recipe.load(tmp_path / "m").data.test == "a Hugging Face Dataset of 30 rows"
    again = adapt(Recipe.load(tmp_path / "m"), parts, cache_dir=tmp_path / "cache")
    assert_same(weights(classifier), weights(again))
    found = read_validation_rows(classifier, parts, own.data)
    assert len(found) == 30
    with pytest.raises(RecipeError, match="folds and a file for validation"):
        adapt(recipe(bases("bert"), folds=3), parts)
    overlap = {"train": rows.iloc[:40], "test": rows.iloc[30:]}
    with pytest.raises(DataError, match=r"10 (?s:.*)--drop-overlap"):
        adapt(own, overlap)


STARTS = {"train": 0, "validation": 30, "test": 60}


def test_comparison_takes_frames_and_parts(bases: Bases, tmp_path: Path) -> None:
    rows = pl.DataFrame(pd.DataFrame(make_rows(90), columns=["text", "label"]))
    fields: dict[str, Any] = {"base": str(bases("bert")), "max_length": 48, "cache_dir": tmp_path / "cache", "seeds": 1}
    found = compare({"train": rows[:60], "test": rows[60:]}, "frozen-linear,majority", out=tmp_path / "c", **fields)
    assert found["data"]["source"] == "a polars DataFrame of 60 rows"
    assert (found["data"]["train"] + found["data"]["validation"], found["data"]["test"]) == (60, 30)


@pytest.mark.parametrize("name", ["frozen-mlp", "frozen-linear", "finetune"])
def test_a_refit_trains_what_validation_chose_on_all_rows_but_those_of_test(
    bases: Bases, tmp_path: Path, name: str
) -> None:
    source = write_csv(tmp_path / "rows.csv", make_rows())
    options = {"cache_dir": tmp_path / "cache", "out": tmp_path / "m"}
    own = recipe(bases("bert", initializer_range=0.2), name, test=0.2)
    plain = adapt(own, source, cache_dir=tmp_path / "cache")
    again = adapt(own, source, refit=True, **options)
    first, second = plain.record.facts, again.record.facts
    assert second["metrics"]["validation"] == first["metrics"]["validation"]
    assert second["calibration"] == first["calibration"]
    assert second["refit"]["rows"] == first["data"]["rows"]["train"] + first["data"]["rows"]["validation"]
    chosen = next(entry for entry in plain.record.history if entry["best"])
    assert {name: chosen[name] for name in ("epoch", "C") if name in chosen}.items() <= second["refit"].items()
    assert any((one != two).any() for one, two in zip(weights(plain).values(), weights(again).values(), strict=True))
    assert len(again.record.seen["hashes"]) == second["refit"]["rows"]
    # The scores of test are those of the network that is saved.
    card = (tmp_path / "m" / "README.md").read_text("utf-8")
    assert "trained once\nmore with what validation chose" in card
    with pytest.raises(OutputError):
        adapt(own, source, refit=True, **options)


def test_a_refit_is_another_run_and_a_run_without_one_is_the_same_as_before(bases: Bases, tmp_path: Path) -> None:
    job = make_job(bases("bert"), tmp_path)
    assert "refit" not in job.facts()
    assert replace(job, refit=True).facts()["refit"] is True


def test_max_rows_takes_rows_of_each_class(bases: Bases, tmp_path: Path) -> None:
    classifier = adapt(recipe(bases("bert")), dataset(tmp_path), cache_dir=tmp_path / "cache", max_rows=30)
    assert sum(classifier.record.facts["data"]["rows"].values()) == 30
    with pytest.raises(RecipeError, match=r"--max-rows \(max_rows\): max_rows cannot be used"):
        adapt(recipe(bases("bert")), dataset(tmp_path), max_rows=0)


def test_fields_and_arguments_in_the_wrong_place(bases: Bases, tmp_path: Path) -> None:
    source = dataset(tmp_path)
    with pytest.raises(RecipeError, match="epoch: there is no such field"):
        adapt("frozen-linear", source, base="demo", epoch=3)
    with pytest.raises(RecipeError, match=r"adapt\(recipe, rows\)"):
        adapt(source, recipe(bases("bert")))  # type: ignore[arg-type]
    named = adapt("frozen-linear", source, base=str(bases("bert")), max_length=48, cache_dir=tmp_path / "cache")
    assert named.record.facts["recipe"]["tokens"]["max_length"] == 48
