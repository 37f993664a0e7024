"""Whatever a bundle's JSON files say, also signed anew: it is used, or refused with a BundleError."""

import copy
import json
import os
import random
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.json_mutations import use_bundle, write_mutated
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from fullbake import Classifier
from fullbake.classifier.bundle_shape import (
    check_facts,
    check_labels_of_config,
    check_probe,
    check_seen,
    is_history,
)
from fullbake.classifier.bundle_writer import model_card
from fullbake.classifier.manifest import MANIFEST_FILE, sign_manifest
from fullbake.config.problems import problem_named
from fullbake.core import storage
from fullbake.core.errors import BundleError
from fullbake.core.json_files import ShapeFault

FIXTURES = Path(__file__).parents[1] / "fixtures"
BUNDLES = ("bundle_0_1_0", "bundle_0_1_0_multilabel")


def facts_of(name: str) -> dict[str, Any]:
    """Return the entries of a bundle that version 0.1.0 wrote."""
    found = json.loads((FIXTURES / name / MANIFEST_FILE).read_bytes())
    return {key: value for key, value in found.items() if key not in ("format", "sha256")}


def set_at(content: Any, path: str, value: object) -> Any:
    """Return a copy of some JSON with another value at a dotted path."""
    changed = copy.deepcopy(content)
    holder, *rest = [changed], "0", *path.split(".")
    for key in rest[:-1]:
        holder = holder[int(key)] if isinstance(holder, list) else holder[key]
    if isinstance(holder, list):
        holder[int(rest[-1])] = value
    else:
        holder[rest[-1]] = value
    return changed


@pytest.fixture(params=BUNDLES)
def bundle(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of an old bundle that a test may change."""
    return Path(shutil.copytree(FIXTURES / request.param, tmp_path / "bundle"))


# Any change


@pytest.mark.parametrize("name", [MANIFEST_FILE, "config.json", "tokenizer_config.json"])
@settings(max_examples=25, suppress_health_check=list(HealthCheck))
@given(rng=st.randoms(use_true_random=False))
def test_a_changed_json_file_is_used_or_refused(name: str, rng: random.Random) -> None:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(shutil.copytree(FIXTURES / BUNDLES[0], Path(made) / "bundle"))
        write_mutated(folder, name, rng)
        note(f"{name}: {(folder / name).read_text('utf-8', 'replace')[:3_000]}")
        with suppress(BundleError):
            assert use_bundle(folder) == ""


# What version 0.1.0 wrote, and single values


@pytest.mark.parametrize("name", BUNDLES)
def test_old_bundles_have_the_shape(name: str) -> None:
    assert check_facts(facts_of(name)).max_length == 32


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("label_names", [], "label_names: expected"),
        ("label_names", ["food", "food", "money"], "names that all differ"),
        ("label_names", ["food", "\ud800", "money"], "label_names"),
        ("label_names", {"0": "food"}, "label_names: expected a list, got an object of 1"),
        ("problem_type", "regression", "problem_type: expected"),
        ("tokens.max_length", 0, "tokens.max_length: expected"),
        ("tokens.max_length", None, "tokens.max_length: expected a number"),
        ("tokens.max_length", 10**9, "tokens.max_length: expected a number of at most 2,000,000"),
        ("tokens.truncation", "auto", "tokens.truncation: expected what was chosen"),
        ("tokens.token_budget", 10**12, "tokens.token_budget: expected at most"),
        ("tokens", [], "tokens: expected"),
        ("columns.text", None, "columns.text: expected a text, got null"),
        ("metrics.validation.overall.accuracy.value", "0.9", "overall.accuracy.value: expected a number"),
        ("metrics.validation.per_class", [], "per_class: expected the labels in the order of label_names"),
        ("metrics.validation.confusion_matrix", [[1]], "confusion_matrix: expected a row and a column for each label"),
        ("metrics.validation.confusion_matrix", None, "confusion_matrix: expected a matrix only"),
        ("metrics.train", {}, "metrics: expected scores of the parts"),
        ("calibration.temperature", 0.0, "calibration.temperature: expected greater than 0"),
        ("data.rows.train", -1, "data.rows.train: expected"),
        ("data.source.extra", 7, "data: expected the name of a file for each part"),
        ("files", {"../../etc/passwd": {"size": 1, "sha256": "0" * 64}}, "names of files inside the folder"),
        ("files", {"/etc/passwd": {"size": 1, "sha256": "0" * 64}}, "names of files inside the folder"),
        ("files", {"config.json": {"size": 1, "sha256": "x"}}, "sha256: expected"),
        ("versions.torch", 2, "name of a version"),
        ("recipe.training.seed", "0", "recipe.training.seed"),
        ("thresholds", [0.5], "thresholds: expected"),
        ("thresholds", {"thresholds": {"nobody": 0.5}}, "thresholds.thresholds: expected"),
        ("thresholds", {"thresholds": {"food": 1.5}}, "thresholds.thresholds.food: expected"),
        ("thresholds", {"costs": {"food as game": -1.0}}, "thresholds.costs"),
    ],
)
def test_a_wrong_entry_is_named(path: str, value: object, words: str) -> None:
    with pytest.raises(ShapeFault, match=words):
        check_facts(set_at(facts_of(BUNDLES[0]), path, value))


def test_a_label_of_many_needs_its_threshold() -> None:
    facts = facts_of(BUNDLES[1])
    thresholds = facts["thresholds"]["thresholds"]
    thresholds.pop(next(iter(thresholds)))
    with pytest.raises(ShapeFault, match="a threshold for each label"):
        check_facts(facts)


def test_every_decision_that_is_saved_has_the_shape() -> None:
    """Also costs, which hold one number for each pair of classes."""
    facts = facts_of(BUNDLES[0])
    names = facts["label_names"]
    costs = dict.fromkeys(problem_named(facts["problem_type"]).cost_names(names), 1.0)
    check_facts(facts | {"thresholds": {"costs": costs}})
    check_facts(facts | {"thresholds": {"thresholds": {names[0]: 0.25}}})


def test_entries_of_later_versions_are_left_alone(bundle: Path) -> None:
    manifest = storage.read_json(bundle / MANIFEST_FILE)
    manifest["later"] = {"anything": [1, {"deep": None}]}
    manifest["metrics"]["validation"]["later"] = "word"
    storage.write_json(bundle / MANIFEST_FILE, sign_manifest(manifest))
    assert "later" in Classifier.load(bundle).record.facts


def test_a_card_is_written_of_all_that_has_the_shape() -> None:
    """Also where a further-pretrained base had no masked-LM head to compare, and where entries are left out."""
    pretraining = {
        "base": "demo",
        "further_pretraining": {"objective": "mlm"},
        "steps": 5,
        "corpus": {"tokens": 1_000},
        "start": {},
        "forgotten": None,
        "transductive": False,
    }
    facts = facts_of(BUNDLES[0]) | {"further_pretraining": pretraining}
    facts["data"] |= {"dropped_labels": {"rare": 1}, "groups": {"train": 7}}
    facts["recipe"].pop("data")
    check_facts(facts)
    card = model_card(facts)
    assert "5 steps on" in card
    assert "masked-LM loss" not in card
    assert "7 groups in training" in card


# Both ways answer alike


@pytest.mark.parametrize("name", ["pipe.json", "deep/pipe"])
def test_pipes_and_linked_folders_are_foreign(bundle: Path, name: str) -> None:
    (bundle / name).parent.mkdir(exist_ok=True)
    os.mkfifo(bundle / name)
    with pytest.raises(BundleError, match=f"{name} is foreign"):
        Classifier.load(bundle)
    (bundle / name).unlink()
    (bundle / "elsewhere").symlink_to(bundle.parent)
    with pytest.raises(BundleError, match="elsewhere is foreign"):
        Classifier.load(bundle)


@pytest.mark.parametrize("name", [MANIFEST_FILE, "config.json", "tokenizer.json", "probe.safetensors"])
def test_a_pipe_in_place_of_a_file_does_not_keep_its_reader_waiting(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    os.mkfifo(bundle / name)
    with pytest.raises(BundleError):
        Classifier.load(bundle)


# Arrays


def probe(**changes: Any) -> dict[str, np.ndarray]:
    """Return the arrays of two rows of three and two tokens, with changes."""
    arrays = {
        "input_ids": np.arange(5, dtype=np.int32),
        "offsets": np.array([0, 3, 5]),
        "logits": np.zeros((2, 4), np.float32),
    }
    return {name: array for name, array in (arrays | changes).items() if array is not None}


@pytest.mark.parametrize(
    "changes",
    [
        {"input_ids": None},
        {"more": np.zeros(1)},
        {"input_ids": np.zeros(5)},
        {"input_ids": np.zeros((1, 5), np.int64)},
        {"offsets": np.array([0, 3, 6])},
        {"offsets": np.array([0, 3, 3, 5])},
        {"offsets": np.array([0, 5])},
        {"offsets": np.array([], np.int64)},
        {"offsets": np.array([0, 4, 5])},
        {"token_type_ids": np.zeros(4, np.int64)},
        {"logits": np.full((2, 4), np.nan, np.float32)},
        {"logits": np.zeros((2, 3), np.float32)},
        {"logits": np.zeros((2, 4), np.int64)},
    ],
)
def test_a_probe_of_other_arrays_is_refused(changes: dict[str, Any]) -> None:
    check_probe(probe(), labels=4, max_length=3)
    with pytest.raises(ShapeFault):
        check_probe(probe(**changes), labels=4, max_length=3)


def test_seen_texts_are_hashes_and_row_numbers() -> None:
    hashes = np.zeros((3, 16), np.uint8)
    check_seen({"hashes": hashes, "train": np.arange(3)})
    for wrong in ({}, {"hashes": hashes[0]}, {"hashes": hashes, "train": np.zeros(3)}):
        with pytest.raises(ShapeFault):
            check_seen(wrong)


def test_labels_of_config_are_those_of_the_manifest() -> None:
    facts = {"label_names": ["LABEL_0", "LABEL_1"], "problem_type": "single_label_classification"}
    check_labels_of_config({"problem_type": "single_label_classification"}, facts)
    for wrong in ({"id2label": {"0": "a"}}, {"id2label": [1]}, {"problem_type": None}):
        with pytest.raises(ShapeFault):
            check_labels_of_config({"problem_type": "single_label_classification"} | wrong, facts)


@pytest.mark.parametrize("name", BUNDLES)
def test_a_history_that_cannot_be_drawn_is_left_out(name: str) -> None:
    history = json.loads((FIXTURES / name / "history.json").read_bytes())
    metric = facts_of(name)["recipe"]["training"]["metric"]
    assert is_history(history, metric)
    assert is_history([], metric)
    for wrong in ({}, [7], [{}], [{**history[0], metric: "high"}], [history[0], {**history[0], "train_loss": None}]):
        assert not is_history(wrong, metric)
