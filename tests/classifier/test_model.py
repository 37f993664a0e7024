"""fullbake.classifier.model: ."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.rows import column, make_rows, train
from safetensors.numpy import load_file, save_file

from fullbake import Classifier
from fullbake.classifier.manifest import MANIFEST_FILE, UNHASHED_FILES, sign_manifest
from fullbake.classifier.model import model_card, probe_texts
from fullbake.config.sections import Columns, TokensConfig
from fullbake.core import storage
from fullbake.core.errors import BundleError, DataError, OutputError
from fullbake.core.hashing import hash_files

Bases = Callable[..., Path]
TEXTS = [row[0] for row in make_rows(8, seed=3)]
KEPT = (
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
    """A classifier under each head, trained once."""
    made: dict[str, Classifier] = {}
    folder = tmp_path_factory.mktemp("runs")

    def classifier(head: str) -> Classifier:
        if head not in made:
            made[head] = train(bases("bert"), folder, f"frozen-{head}")
        return made[head]

    return classifier


@pytest.fixture(scope="module")
def saved(classifiers: Callable[[str], Classifier], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folders of their bundles: copy one before changing anything in it."""
    place = tmp_path_factory.mktemp("bundles")

    def bundle(head: str) -> Path:
        if not (place / head).exists():
            classifiers(head).save(place / head)
        return place / head

    return bundle


@pytest.fixture
def bundle(saved: Callable[[str], Path], tmp_path: Path) -> Path:
    """A copy of a bundle to change things in."""
    return Path(shutil.copytree(saved("standard"), tmp_path / "bundle"))


def hash_again(folder: Path) -> None:
    """Make the manifest agree with the files that stand there now."""
    manifest = storage.read_json(folder / MANIFEST_FILE)
    files = {name: facts for name, facts in hash_files(folder).items() if name in manifest["files"]}
    storage.write_json(folder / MANIFEST_FILE, sign_manifest(manifest | {"files": files}))


@pytest.mark.parametrize("head", ["standard", "mlp", "linear"])
def test_reloaded_bundle_scores_the_same(
    classifiers: Callable[[str], Classifier], saved: Callable[[str], Path], head: str
) -> None:
    loaded = Classifier.load(saved(head))
    assert np.array_equal(loaded.logits(TEXTS), classifiers(head).logits(TEXTS))
    assert loaded.label_names == ("food", "game", "money")


def test_files_are_these(saved: Callable[[str], Path]) -> None:
    assert {path.name for path in saved("standard").iterdir()} == {*KEPT, *UNHASHED_FILES} - {"labels.png"}
    assert {path.name for path in saved("mlp").iterdir()} == {*KEPT, *UNHASHED_FILES} - {"labels.png"}


def test_what_is_saved_comes_back(classifiers: Callable[[str], Classifier], saved: Callable[[str], Path]) -> None:
    record, loaded = classifiers("mlp").record, Classifier.load(saved("mlp")).record
    assert record.facts.items() <= loaded.facts.items()
    assert loaded.history == record.history
    assert loaded.seen.keys() == record.seen.keys() == {"hashes", "train_rows", "validation_rows"}
    assert all(np.array_equal(loaded.seen[name], record.seen[name]) for name in record.seen)


def test_a_loaded_bundle_saves_again(saved: Callable[[str], Path], tmp_path: Path) -> None:
    Classifier.load(saved("linear")).save(tmp_path / "again")
    assert np.array_equal(
        Classifier.load(tmp_path / "again").logits(TEXTS), Classifier.load(saved("linear")).logits(TEXTS)
    )


def test_no_training_text_lies_in_it(saved: Callable[[str], Path]) -> None:
    content = b"".join(path.read_bytes() for path in saved("standard").iterdir())
    assert not any(text.encode() in content for text, _ in make_rows())


# What is damaged, missing or foreign is named


@pytest.mark.parametrize("name", KEPT)
def test_missing_file_is_named(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    with pytest.raises(BundleError, match=name):
        Classifier.load(bundle)


@pytest.mark.parametrize("name", KEPT)
@pytest.mark.parametrize("place", [0.0, 0.4, 0.999])
def test_flipped_bit_is_named(bundle: Path, name: str, place: float) -> None:
    content = bytearray((bundle / name).read_bytes())
    content[int(place * len(content))] ^= 1
    (bundle / name).write_bytes(content)
    with pytest.raises(BundleError, match=f"(?s){name} is damaged"):
        Classifier.load(bundle)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "probe.safetensors"])
def test_file_of_another_bundle_is_named(bundle: Path, saved: Callable[[str], Path], name: str) -> None:
    shutil.copy(saved("mlp") / name, bundle / name)
    with pytest.raises(BundleError, match=f"{name} is damaged"):
        Classifier.load(bundle)


def test_manifest_of_another_bundle_is_caught(bundle: Path, saved: Callable[[str], Path]) -> None:
    shutil.copy(saved("mlp") / MANIFEST_FILE, bundle / MANIFEST_FILE)
    with pytest.raises(BundleError, match=r"model\.safetensors is damaged"):
        Classifier.load(bundle)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model-00001-of-00002.safetensors", "notes/private.txt"])
def test_foreign_file_is_named(bundle: Path, name: str) -> None:
    (bundle / name).parent.mkdir(exist_ok=True)
    (bundle / name).write_text("hello")
    with pytest.raises(BundleError, match=f"{name} is foreign"):
        Classifier.load(bundle)


def test_free_files_may_be_edited_or_removed(bundle: Path) -> None:
    (bundle / "history.png").unlink()
    (bundle / "README.md").write_text("mine now")
    (bundle / "history.json").write_text("not even JSON")
    loaded = Classifier.load(bundle)
    assert loaded.record.history == []
    assert len(loaded.predict(TEXTS)) == len(TEXTS)


def test_swapped_weights_are_caught_by_the_probe(bundle: Path) -> None:
    """Hashes that agree are not enough: the head's weights moved a little, the manifest made to fit."""
    weights = load_file(bundle / "model.safetensors")
    weights["classifier.weight"] = weights["classifier.weight"] * 1.1
    save_file(weights, bundle / "model.safetensors", {"format": "pt"})
    hash_again(bundle)
    with pytest.raises(BundleError, match="probe texts give other logits"):
        Classifier.load(bundle)


def test_hashing_again_alone_changes_nothing(bundle: Path) -> None:
    hash_again(bundle)
    Classifier.load(bundle)


def test_missing_weight_is_named(bundle: Path) -> None:
    weights = load_file(bundle / "model.safetensors")
    del weights["bert.encoder.layer.1.output.dense.weight"]
    save_file(weights, bundle / "model.safetensors", {"format": "pt"})
    hash_again(bundle)
    with pytest.raises(BundleError, match=r"bert\.encoder\.layer\.1\.output\.dense\.weight"):
        Classifier.load(bundle)


def test_label_names_must_agree(bundle: Path) -> None:
    config = json.loads((bundle / "config.json").read_text())
    config["id2label"]["0"], config["label2id"] = "fod", {"fod": 0, "game": 1, "money": 2}
    (bundle / "config.json").write_text(json.dumps(config))
    hash_again(bundle)
    with pytest.raises(BundleError, match="name different labels"):
        Classifier.load(bundle)


def test_another_format_version_is_said(bundle: Path) -> None:
    manifest = storage.read_json(bundle / MANIFEST_FILE)
    storage.write_json(bundle / MANIFEST_FILE, manifest | {"format": 99})
    with pytest.raises(BundleError, match=r"another format version(?s:.*)got 99(?s:.*)fullbake 0\.1\.0"):
        Classifier.load(bundle)


def test_edited_manifest_is_caught(bundle: Path) -> None:
    manifest = storage.read_json(bundle / MANIFEST_FILE)
    manifest["columns"]["text"] = "body"
    storage.write_json(bundle / MANIFEST_FILE, manifest)
    with pytest.raises(BundleError, match=r"fullbake\.json is damaged"):
        Classifier.load(bundle)


def test_what_is_no_bundle_is_said(bases: Bases, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such folder"):
        Classifier.load(tmp_path / "nowhere")
    with pytest.raises(BundleError, match=r"a folder without fullbake\.json"):
        Classifier.load(bases("bert"))
    (tmp_path / "file").write_text("")
    with pytest.raises(BundleError, match="got a file"):
        Classifier.load(tmp_path / "file")


# Whole or not there


def stop_at(number: int) -> Callable[[str, Path], None]:
    steps = iter(range(number))

    def stop(operation: str, path: Path) -> None:
        if next(steps, None) is None:
            raise KeyboardInterrupt

    return stop


def test_interrupted_save_leaves_the_target_as_it_was(classifiers: Callable[[str], Classifier], tmp_path: Path) -> None:
    target, steps = tmp_path / "m", []
    with storage.observed(lambda *step: steps.append(step)):
        classifiers("standard").save(tmp_path / "whole")
    shutil.rmtree(tmp_path / "whole")
    for number in range(0, len(steps), 3):
        with pytest.raises(KeyboardInterrupt), storage.observed(stop_at(number)):
            classifiers("standard").save(target)
        if target.exists():  # stopped after the rename: then it is whole
            Classifier.load(target)
            shutil.rmtree(target)
        assert not list(tmp_path.glob("[!.]*"))
    classifiers("standard").save(target)
    assert [path.name for path in tmp_path.iterdir()] == ["m"]  # hidden leftovers go at the next start


def test_overwriting_keeps_the_old_until_the_new_is_complete(
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


HIDE = "import sys; sys.modules['fullbake'] = None\n"
PLAIN = """
import json, sys, torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline
folder, texts = json.loads(sys.argv[1])
model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
with torch.no_grad():
    logits = [model(**tokenizer([t], truncation=True, return_tensors="pt")).logits[0].tolist() for t in texts]
classify = pipeline("text-classification", folder, top_k=None)
said = [{one["label"]: one["score"] for one in row} for row in classify(texts, truncation=True, batch_size=4)]
print(json.dumps([logits, said, type(model).__module__.split(".")[0]]))
"""


def scores_elsewhere(code: str, folder: Path) -> tuple[np.ndarray, list[dict[str, float]], str]:
    """What another process with plain transformers gives for the texts."""
    given = json.dumps([str(folder), TEXTS])
    done = subprocess.run([sys.executable, "-c", code + PLAIN, given], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    logits, said, module = json.loads(done.stdout.splitlines()[-1])
    return np.array(logits), said, module


@pytest.mark.slow
@pytest.mark.parametrize(
    ("head", "before", "module"),
    [
        ("standard", HIDE, "transformers"),
        ("mlp", "from fullbake import Classifier\n", "fullbake"),
        ("linear", "from fullbake import Classifier\n", "fullbake"),
    ],
)
def test_plain_transformers_reads_it(saved: Callable[[str], Path], head: str, before: str, module: str) -> None:
    """A standard head in a process that has never heard of fullbake; others after one import."""
    classifier = Classifier.load(saved(head))
    logits, said, found = scores_elsewhere(before, saved(head))
    assert found == module
    np.testing.assert_allclose(logits, classifier.logits(TEXTS), atol=1e-4)
    expected = classifier.predict_proba(TEXTS)
    names = classifier.label_names
    np.testing.assert_allclose([[row[name] for name in names] for row in said], expected, atol=1e-5)


def test_weights_load_into_the_architectures_own_class(saved: Callable[[str], Path]) -> None:
    from transformers import BertForSequenceClassification

    model, info = BertForSequenceClassification.from_pretrained(saved("standard"), output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert model.dtype == torch.float32
    assert model.config.id2label == {0: "food", 1: "game", 2: "money"}


# The model card


def test_card_says_what_the_scores_are_worth(
    classifiers: Callable[[str], Classifier], saved: Callable[[str], Path]
) -> None:
    card = (saved("standard") / "README.md").read_text()
    assert "validation scores also chose the epoch" in card
    assert 'pipeline("text-classification"' in card
    assert '"food", "game", "money"' in card
    assert "fullbake" not in card.split("```python")[2].split("```")[0]
    facts = Classifier.load(saved("standard")).record.facts
    stamped = model_card(facts | {"data": facts["data"] | {"overlap_allowed": 7}})
    assert "7 training" in stamped
    assert "--allow-overlap" in stamped


def test_probe_texts_are_packaged() -> None:
    assert len(probe_texts()) >= 4
    assert any(not text.isascii() for text in probe_texts())


MODEL_TEXTS = [*(row[0] for row in make_rows(14, seed=5)), "", "game " * 300]
CASES = [
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
def classifier(bases: Bases, tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    return train(bases("bert"), tmp_path_factory.mktemp("run"), "frozen-mlp")


def with_tokens(classifier: Classifier, **settings: object) -> Classifier:
    tokens = TokensConfig.model_validate(classifier.tokens.model_dump() | settings)
    return Classifier(classifier.network, classifier.tokenizer, tokens, classifier.record)


@pytest.mark.parametrize(("family", "name", "pooling"), CASES)
def test_a_text_scores_the_same_anywhere(
    bases: Bases, tmp_path: Path, family: str, name: str, pooling: str | None
) -> None:
    """Promise 4: alone, in any batch, at any padding, under any budget, from the library and a reloaded bundle."""
    made = train(bases(family, initializer_range=0.2), tmp_path, name, pooling=pooling, epochs=1, learning_rate=1e-3)
    expected = made.predict_proba(MODEL_TEXTS)
    assert expected.std(axis=0).max() > 1e-3
    made.save(tmp_path / "m")
    for other in (
        with_tokens(made, token_budget=1),
        with_tokens(made, token_budget=100_000),
        with_tokens(made, padding="max_length"),
        Classifier.load(tmp_path / "m"),
    ):
        np.testing.assert_allclose(other.predict_proba(MODEL_TEXTS), expected, atol=1e-5)
    alone = np.concatenate([made.predict_proba([text]) for text in MODEL_TEXTS])
    np.testing.assert_allclose(alone, expected, atol=1e-5)
    np.testing.assert_allclose(made.predict_proba(MODEL_TEXTS[::-1])[::-1], expected, atol=1e-5)


def test_words_of_scikit_learn(classifier: Classifier) -> None:
    probabilities = classifier.predict_proba(MODEL_TEXTS)
    assert probabilities.shape == (len(MODEL_TEXTS), 3)
    assert probabilities.dtype == np.float64
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert classifier.classes_.tolist() == ["food", "game", "money"]
    assert np.array_equal(classifier.predict(MODEL_TEXTS), classifier.classes_[probabilities.argmax(axis=1)])


def test_texts_may_be_an_arrow_column(classifier: Classifier) -> None:
    assert np.array_equal(classifier.logits(column(MODEL_TEXTS)), classifier.logits(MODEL_TEXTS))


def test_no_texts_give_no_rows(classifier: Classifier) -> None:
    assert classifier.predict_proba([]).shape == (0, 3)
    assert classifier.predict([]).shape == (0,)


def test_one_string_is_refused(classifier: Classifier) -> None:
    """Its letters are not texts."""
    with pytest.raises(DataError, match=r"predict\(\[text\]\)"):
        classifier.predict("a good game")


def test_what_is_no_text_is_refused(classifier: Classifier) -> None:
    with pytest.raises(DataError, match=r"text 2(?s:.*)got None"):
        classifier.predict(["a", None])  # type: ignore[list-item]


def test_it_knows_its_columns(classifier: Classifier) -> None:
    assert classifier.columns == Columns("text", "label")


def test_network_is_left_in_eval_mode(classifier: Classifier) -> None:
    classifier.predict(MODEL_TEXTS)
    assert not any(module.training for module in classifier.network.modules())
