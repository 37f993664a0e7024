"""Classifiers predict, and save and load as bundles."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.bundles import update_manifest
from helpers.rows import column, make_rows, train
from safetensors.numpy import load_file, save_file

from fullbake import Classifier
from fullbake.classifier.bundle_writer import model_card
from fullbake.classifier.manifest import MANIFEST_FILE, UNHASHED_FILES, probe_texts
from fullbake.config.sections import Columns, TokensConfig
from fullbake.core import storage
from fullbake.core.errors import BundleError, DataError, OutputError
from fullbake.core.hashing import hash_files

Bases = Callable[..., Path]
TEXTS = [row[0] for row in make_rows(8, seed=3)]
HASHED_FILES = (
    "config.json",
    "fullbake.json",
    "model.safetensors",
    "probe.safetensors",
    "seen.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
)


@pytest.fixture(scope="module")
def classifiers(bases: Bases, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Classifier]:
    """Classifiers with each head, trained once."""
    made: dict[str, Classifier] = {}
    folder = tmp_path_factory.mktemp("runs")

    def classifier(head: str) -> Classifier:
        if head not in made:
            made[head] = train(bases("bert"), folder, f"frozen-{head}")
        return made[head]

    return classifier


@pytest.fixture(scope="module")
def saved(classifiers: Callable[[str], Classifier], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folders of their bundles; tests must not change them."""
    folder = tmp_path_factory.mktemp("bundles")

    def bundle(head: str) -> Path:
        if not (folder / head).exists():
            classifiers(head).save(folder / head)
        return folder / head

    return bundle


@pytest.fixture
def bundle(saved: Callable[[str], Path], tmp_path: Path) -> Path:
    """A copy of a bundle that a test may change."""
    return Path(shutil.copytree(saved("standard"), tmp_path / "bundle"))


# Prediction


MANY_TEXTS = [*(row[0] for row in make_rows(14, seed=5)), "", "game " * 300]
NETWORKS = [
    ("bert", "frozen-mlp", "cls"),
    ("distilbert", "finetune", None),
    ("roberta", "frozen-linear", "mean"),
    ("electra", "frozen-standard", None),
    ("albert", "frozen-mlp", "mean"),
    ("deberta-v2", "finetune", None),
    ("deberta-v3", "frozen-mlp", "max"),
    ("modernbert", "finetune", None),
    ("mpnet", "frozen-linear", "cls+mean"),
    ("xlm-roberta", "frozen-standard", None),
]


@pytest.fixture(scope="module")
def classifier(classifiers: Callable[[str], Classifier]) -> Classifier:
    return classifiers("mlp")


def with_settings(classifier: Classifier, **settings: object) -> Classifier:
    """Return the same classifier with other settings of `tokens`."""
    tokens = TokensConfig.model_validate(classifier.tokens.model_dump() | settings)
    return Classifier.of_network(classifier.network, classifier.tokenizer, tokens, classifier.record)


@pytest.mark.parametrize(("family", "name", "pooling"), NETWORKS)
def test_text_scores_the_same_anywhere(
    bases: Bases, tmp_path: Path, family: str, name: str, pooling: str | None
) -> None:
    """Alone, in any batch and order, with any padding and token budget, and from a reloaded bundle."""
    made = train(bases(family, initializer_range=0.2), tmp_path, name, pooling=pooling, epochs=1, learning_rate=1e-3)
    expected = made.predict_proba(MANY_TEXTS)
    assert expected.std(axis=0).max() > 1e-3
    made.save(tmp_path / "m")
    for other in (
        with_settings(made, token_budget=1),
        with_settings(made, token_budget=100_000),
        with_settings(made, padding="max_length"),
        Classifier.load(tmp_path / "m"),
    ):
        np.testing.assert_allclose(other.predict_proba(MANY_TEXTS), expected, atol=1e-5)
    alone = np.concatenate([made.predict_proba([text]) for text in MANY_TEXTS])
    np.testing.assert_allclose(alone, expected, atol=1e-5)
    np.testing.assert_allclose(made.predict_proba(MANY_TEXTS[::-1])[::-1], expected, atol=1e-5)


def test_results_are_as_scikit_learn_defines_them(classifier: Classifier) -> None:
    probabilities = classifier.predict_proba(MANY_TEXTS)
    assert probabilities.shape == (len(MANY_TEXTS), 3)
    assert probabilities.dtype == np.float64
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert classifier.classes_.tolist() == ["food", "game", "money"]
    assert np.array_equal(classifier.predict(MANY_TEXTS), classifier.classes_[probabilities.argmax(axis=1)])


def test_top_labels_are_as_a_pipeline_of_transformers_lists_them(classifier: Classifier) -> None:
    probabilities = classifier.predict_proba(TEXTS)
    listed = classifier.predict(TEXTS, top_k=2)
    assert [entries[0]["label"] for entries in listed] == classifier.predict(TEXTS).tolist()
    assert [entries[0]["score"] for entries in listed] == probabilities.max(axis=1).tolist()
    assert classifier.predict([], top_k=2) == []
    assert classifier.predict(TEXTS, top_k=1, threshold=1.0) == [[] for _ in TEXTS]


def test_threshold_of_a_call_replaces_the_decision(classifier: Classifier) -> None:
    name = classifier.label_names[-1]
    assert classifier.predict(TEXTS, threshold={name: 0.0}).tolist() == [name] * len(TEXTS)
    assert name not in classifier.predict(TEXTS, threshold={name: 1.0})


def test_texts_may_be_an_arrow_array(classifier: Classifier) -> None:
    assert np.array_equal(classifier.logits(column(MANY_TEXTS)), classifier.logits(MANY_TEXTS))


def test_no_texts_give_no_rows(classifier: Classifier) -> None:
    assert classifier.predict_proba([]).shape == (0, 3)
    assert classifier.predict([]).shape == (0,)


def test_one_string_in_place_of_a_list_is_refused(classifier: Classifier) -> None:
    with pytest.raises(DataError, match=r"predict\(\[text\]\)"):
        classifier.predict("a good game")


def test_text_that_is_no_string_is_refused(classifier: Classifier) -> None:
    with pytest.raises(DataError, match=r"text 2(?s:.*)got None"):
        classifier.predict(["a", None])  # type: ignore[list-item]


def test_columns_of_training_are_remembered(classifier: Classifier) -> None:
    assert classifier.columns == Columns("text", "label")


def test_network_stays_in_eval_mode(classifier: Classifier) -> None:
    classifier.predict(MANY_TEXTS)
    assert not any(module.training for module in classifier.network.modules())


# Save and load


@pytest.mark.parametrize("head", ["standard", "mlp", "linear"])
def test_reloaded_bundle_scores_the_same(
    classifiers: Callable[[str], Classifier], saved: Callable[[str], Path], head: str
) -> None:
    loaded = Classifier.load(saved(head))
    assert np.array_equal(loaded.logits(TEXTS), classifiers(head).logits(TEXTS))
    assert loaded.label_names == ("food", "game", "money")


def test_bundle_holds_these_files(saved: Callable[[str], Path]) -> None:
    assert {path.name for path in saved("standard").iterdir()} == {*HASHED_FILES, *UNHASHED_FILES} - {"labels.png"}
    assert {path.name for path in saved("mlp").iterdir()} == {*HASHED_FILES, *UNHASHED_FILES} - {"labels.png"}


def test_record_is_saved_and_loaded(classifiers: Callable[[str], Classifier], saved: Callable[[str], Path]) -> None:
    record, loaded = classifiers("mlp").record, Classifier.load(saved("mlp")).record
    assert record.facts.items() <= loaded.facts.items()
    assert loaded.history == record.history
    assert loaded.seen.keys() == record.seen.keys() == {"hashes", "train_rows", "validation_rows"}
    assert all(np.array_equal(loaded.seen[name], record.seen[name]) for name in record.seen)


def test_loaded_bundle_can_be_saved_again(saved: Callable[[str], Path], tmp_path: Path) -> None:
    Classifier.load(saved("linear")).save(tmp_path / "again")
    assert np.array_equal(
        Classifier.load(tmp_path / "again").logits(TEXTS), Classifier.load(saved("linear")).logits(TEXTS)
    )


def test_bundle_holds_no_training_text(saved: Callable[[str], Path]) -> None:
    content = b"".join(path.read_bytes() for path in saved("standard").iterdir())
    assert not any(text.encode() in content for text, _ in make_rows())


# Damaged, missing and foreign files


@pytest.mark.parametrize("name", HASHED_FILES)
def test_missing_file_is_named(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    with pytest.raises(BundleError, match=name):
        Classifier.load(bundle)


@pytest.mark.parametrize("name", HASHED_FILES)
@pytest.mark.parametrize("position", [0.0, 0.4, 0.999])
def test_file_with_a_changed_bit_is_named(bundle: Path, name: str, position: float) -> None:
    content = bytearray((bundle / name).read_bytes())
    content[int(position * len(content))] ^= 1
    (bundle / name).write_bytes(content)
    with pytest.raises(BundleError, match=f"(?s){name} is damaged"):
        Classifier.load(bundle)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "probe.safetensors"])
def test_file_from_another_bundle_is_named(bundle: Path, saved: Callable[[str], Path], name: str) -> None:
    shutil.copy(saved("mlp") / name, bundle / name)
    with pytest.raises(BundleError, match=f"{name} is damaged"):
        Classifier.load(bundle)


def test_manifest_from_another_bundle_is_refused(bundle: Path, saved: Callable[[str], Path]) -> None:
    shutil.copy(saved("mlp") / MANIFEST_FILE, bundle / MANIFEST_FILE)
    with pytest.raises(BundleError, match=r"model\.safetensors is damaged"):
        Classifier.load(bundle)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model-00001-of-00002.safetensors", "notes/private.txt"])
def test_foreign_file_is_named(bundle: Path, name: str) -> None:
    (bundle / name).parent.mkdir(exist_ok=True)
    (bundle / name).write_text("hello")
    with pytest.raises(BundleError, match=f"{name} is foreign"):
        Classifier.load(bundle)


def test_files_without_a_hash_may_be_edited_or_removed(bundle: Path) -> None:
    (bundle / "history.png").unlink()
    (bundle / "README.md").write_text("mine now")
    (bundle / "history.json").write_text("not even JSON")
    loaded = Classifier.load(bundle)
    assert loaded.record.history == []
    assert len(loaded.predict(TEXTS)) == len(TEXTS)


def test_changed_weights_are_found_by_the_probe_texts(bundle: Path) -> None:
    """Also where the hashes agree: the head's weights are changed, and the manifest is updated."""
    weights = load_file(bundle / "model.safetensors")
    weights["classifier.weight"] = weights["classifier.weight"] * 1.1
    save_file(weights, bundle / "model.safetensors", {"format": "pt"})
    update_manifest(bundle)
    with pytest.raises(BundleError, match="probe texts give other logits"):
        Classifier.load(bundle)


def test_updated_manifest_is_accepted(bundle: Path) -> None:
    update_manifest(bundle)
    Classifier.load(bundle)


def test_missing_weight_is_named(bundle: Path) -> None:
    weights = load_file(bundle / "model.safetensors")
    del weights["bert.encoder.layer.1.output.dense.weight"]
    save_file(weights, bundle / "model.safetensors", {"format": "pt"})
    update_manifest(bundle)
    with pytest.raises(BundleError, match=r"bert\.encoder\.layer\.1\.output\.dense\.weight"):
        Classifier.load(bundle)


def test_label_names_of_config_and_manifest_must_agree(bundle: Path) -> None:
    config = json.loads((bundle / "config.json").read_text())
    config["id2label"]["0"], config["label2id"] = "fod", {"fod": 0, "game": 1, "money": 2}
    (bundle / "config.json").write_text(json.dumps(config))
    update_manifest(bundle)
    with pytest.raises(BundleError, match=r"id2label: config\.json cannot be used(?s:.*)the 3 labels"):
        Classifier.load(bundle)


# Interrupted saves


def stop_at(number: int) -> Callable[[str, Path], None]:
    """Return an observer that interrupts at the storage operation of this number."""
    steps = iter(range(number))

    def stop(operation: str, path: Path) -> None:
        if next(steps, None) is None:
            raise KeyboardInterrupt

    return stop


def test_interrupted_save_leaves_the_target_unchanged(classifiers: Callable[[str], Classifier], tmp_path: Path) -> None:
    target, steps = tmp_path / "m", []
    with storage.observed(lambda *step: steps.append(step)):
        classifiers("standard").save(tmp_path / "whole")
    shutil.rmtree(tmp_path / "whole")
    for number in range(0, len(steps), 3):
        with pytest.raises(KeyboardInterrupt), storage.observed(stop_at(number)):
            classifiers("standard").save(target)
        if target.exists():  # stopped after the rename: then it is complete
            Classifier.load(target)
            shutil.rmtree(target)
        assert not list(tmp_path.glob("[!.]*"))
    classifiers("standard").save(target)
    assert [path.name for path in tmp_path.iterdir()] == ["m"]  # the next save deletes hidden leftovers


def test_overwriting_keeps_the_old_bundle_until_the_new_one_is_complete(
    classifiers: Callable[[str], Classifier], saved: Callable[[str], Path], tmp_path: Path
) -> None:
    target = Path(shutil.copytree(saved("linear"), tmp_path / "m"))
    with pytest.raises(OutputError, match="already holds something"):
        classifiers("standard").save(target)
    with pytest.raises(KeyboardInterrupt), storage.observed(stop_at(6)):
        classifiers("standard").save(target, overwrite=True)
    assert hash_files(target) == hash_files(saved("linear"))
    classifiers("standard").save(target, overwrite=True)
    assert np.array_equal(Classifier.load(target).logits(TEXTS), classifiers("standard").logits(TEXTS))
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


# Plain transformers


HIDE_FULLBAKE = "import sys; sys.modules['fullbake'] = None\n"
SCORE_PLAINLY = """
import json, sys, torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline
folder, texts = json.loads(sys.argv[1])
model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
with torch.no_grad():
    logits = [model(**tokenizer([t], truncation=True, return_tensors="pt")).logits[0].tolist() for t in texts]
classify = pipeline("text-classification", folder, top_k=None)
scores = [{one["label"]: one["score"] for one in row} for row in classify(texts, truncation=True, batch_size=4)]
print(json.dumps([logits, scores, type(model).__module__.split(".")[0]]))
"""


def scores_of_plain_transformers(code: str, folder: Path) -> tuple[np.ndarray, list[dict[str, float]], str]:
    """Return logits, the pipeline's scores and the model's package, from a process that runs plain transformers."""
    given = json.dumps([str(folder), TEXTS])
    done = subprocess.run(
        [sys.executable, "-c", code + SCORE_PLAINLY, given], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    logits, scores, module = json.loads(done.stdout.splitlines()[-1])
    return np.array(logits), scores, module


@pytest.mark.slow
@pytest.mark.parametrize(
    ("head", "before", "module"),
    [
        ("standard", HIDE_FULLBAKE, "transformers"),
        ("mlp", "from fullbake import Classifier\n", "fullbake"),
        ("linear", "from fullbake import Classifier\n", "fullbake"),
    ],
)
def test_plain_transformers_gives_the_same_scores(
    saved: Callable[[str], Path], head: str, before: str, module: str
) -> None:
    """A standard head in a process that cannot import fullbake, other heads after its import."""
    classifier = Classifier.load(saved(head))
    logits, scores, found = scores_of_plain_transformers(before, saved(head))
    assert found == module
    np.testing.assert_allclose(logits, classifier.logits(TEXTS), atol=1e-4)
    expected = classifier.predict_proba(TEXTS)
    names = classifier.label_names
    np.testing.assert_allclose([[row[name] for name in names] for row in scores], expected, atol=1e-5)


def test_weights_of_a_standard_head_load_into_berts_own_class(saved: Callable[[str], Path]) -> None:
    from transformers import BertForSequenceClassification

    model, info = BertForSequenceClassification.from_pretrained(saved("standard"), output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert model.dtype == torch.float32
    assert model.config.id2label == {0: "food", 1: "game", 2: "money"}


# The model card


def test_model_card_says_how_far_the_scores_can_be_trusted(
    classifiers: Callable[[str], Classifier], saved: Callable[[str], Path]
) -> None:
    card = (saved("standard") / "README.md").read_text()
    assert "validation scores also chose the epoch" in card
    assert 'pipeline("text-classification"' in card
    assert '"food", "game", "money"' in card
    assert "fullbake" not in card.split("```python")[2].split("```")[0]
    facts = Classifier.load(saved("standard")).record.facts
    overlapping = model_card(facts | {"data": facts["data"] | {"overlap_allowed": 7}})
    assert "**7 training texts are in the validation or test part too** (`--allow-overlap`)" in overlapping


def test_model_card_states_what_differs_in_transformers(saved: Callable[[str], Path]) -> None:
    facts = Classifier.load(saved("linear")).record.facts
    plain = model_card(facts)
    assert "after `from fullbake import Classifier`" in plain
    assert "it always keeps the head of a longer text.\n" in plain
    assert "this classifier has none" in plain
    thresholds = {"thresholds": {"food": 0.25, "game": 0.5, "money": 0.5}}
    other = model_card(
        facts
        | {"thresholds": thresholds, "problem_type": "multi_label_classification"}
        | {"tokens": facts["tokens"] | {"truncation": "windows"}, "data": facts["data"] | {"folds": 5}}
    )
    assert "this classifier reads the whole text in windows" in other
    assert "so you must apply those below" in other
    assert '| "food" | 0.2500 |' in other
    assert "Validation used 5 folds of the training rows" in other


def test_probe_texts_are_packaged() -> None:
    assert len(probe_texts()) >= 4
    assert any(not text.isascii() for text in probe_texts())
