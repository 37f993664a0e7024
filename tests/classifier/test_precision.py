"""A bundle gets an int8 graph that labeled rows speak for; else it stays as it is, and the message has the figures."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from helpers.bases import WORDS
from helpers.bundles import update_manifest
from safetensors.numpy import load_file, save_file

from fullbake import Classifier, Recipe, adapt
from fullbake.classifier import engines, manifest, precision
from fullbake.classifier.evaluate import find_training_texts
from fullbake.classifier.export import export_graph
from fullbake.classifier.precision import export_int8, read_validation_rows
from fullbake.core import storage
from fullbake.core.errors import BundleError, DataError, RecipeError
from fullbake.core.hashing import hash_files
from fullbake.data.normalization import text_hashes
from fullbake.evaluation.fidelity import FidelityPromise

FIXTURES = Path(__file__).parents[1] / "fixtures"
LOOSE = FidelityPromise(tolerance=0.1, agreement=0.85)
"""A promise that 100 judging rows can show."""


def texts(rows: int) -> list[str]:
    random = np.random.default_rng(0)
    return [f"{' '.join(random.choice(WORDS, random.integers(3, 20)))} {row}" for row in range(rows)]


def labeled_file(folder: Path, path: Path, rows: int = 240) -> Path:
    """Write rows with the labels that a classifier gives them, so that fp32 is always right."""
    classifier, own = Classifier.load(folder, engine="torch"), texts(rows)
    decided = classifier.decision.decide(classifier.predict_proba(own))
    names = [[classifier.label_names[place] for place in ids] for ids in classifier.problem.label_ids(decided)]
    several = not classifier.problem.exclusive
    lines = []
    for text, labels in zip(own, names, strict=True):
        columns = {name: int(name in labels) for name in classifier.label_names} if several else {"label": labels[0]}
        lines.append(json.dumps({"text": text} | columns))
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module", params=["bundle_0_1_0", "bundle_0_1_0_multilabel"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A folder with a bundle that has a graph and an int8 graph, and the rows that judged; tests must not change it."""
    place = tmp_path_factory.mktemp("int8")
    folder = Path(shutil.copytree(FIXTURES / request.param, place / "bundle"))
    export_graph(folder)
    shutil.copytree(folder, place / "before")
    rows = labeled_file(folder, place / "rows.jsonl")
    export_int8(folder, rows, LOOSE)
    return place


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with a graph, its rows beside it; tests must copy it."""
    place = tmp_path_factory.mktemp("single")
    folder = Path(shutil.copytree(FIXTURES / "bundle_0_1_0", place / "bundle"))
    export_graph(folder)
    labeled_file(folder, place / "rows.jsonl")
    return place


@pytest.fixture
def bundle(single: Path, tmp_path: Path) -> Path:
    shutil.copytree(single, tmp_path / "own")
    return tmp_path / "own" / "bundle"


def test_int8_loads_and_scores_nearly_as_fp32(made: Path) -> None:
    one, two = (Classifier.load(made / "bundle", engine="onnx", precision=word) for word in ("fp32", "int8"))  # type: ignore[arg-type]
    logits = [own.logits(texts(40)) for own in (one, two)]
    assert two.engine == "onnx"
    assert 0 < np.abs(logits[0] - logits[1]).max() < 0.15 * np.abs(logits[0]).max()
    np.testing.assert_allclose(two.logits(texts(40)[3:4])[0], logits[1][3], rtol=1e-4, atol=1e-5)
    facts = manifest.read_manifest(made / "bundle")["int8"]
    assert two.decision.to_json() == facts["thresholds"]
    assert one.decision.to_json() == manifest.read_manifest(made / "bundle")["thresholds"]


def test_manifest_holds_what_was_measured(made: Path) -> None:
    facts = manifest.read_manifest(made / "bundle")["int8"]
    assert facts["products"] > 0
    assert facts["bytes"]["int8"] < facts["bytes"]["fp32"]
    assert facts["data"] == {"source": "rows.jsonl", "fitted": facts["data"]["fitted"], "seed": 0}
    assert facts["data"]["fitted"] + facts["fidelity"]["rows"] == 240
    assert facts["promise"] == {"tolerance": 0.1, "agreement": 0.85}
    assert facts["dependence"] < 1e-4
    assert facts["speed"]["int8_texts_per_cpu_second"] > 0


def test_card_tells_of_int8_and_the_bundle_before_is_untouched(made: Path) -> None:
    card = (made / "bundle" / "README.md").read_text()
    assert 'precision="int8"' in card
    assert "One probability in a thousand differs by more than" in card
    assert "int8" not in (made / "before" / "README.md").read_text()
    new = {name for name in hash_files(made / "bundle") if name not in hash_files(made / "before")}
    assert new == {"int8/model.onnx", "int8/model.safetensors", "int8/probe.safetensors"}


def test_other_engines_ignore_int8(made: Path) -> None:
    assert Classifier.load(made / "bundle", engine="torch").engine == "torch"
    with pytest.raises(BundleError, match="int8 is computed by the engine onnx alone"):
        Classifier.load(made / "bundle", engine="torch", precision="int8")
    with pytest.raises(BundleError, match="no such precision"):
        Classifier.load(made / "bundle", precision="int4")  # type: ignore[arg-type]


def test_bundle_without_int8_says_how_to_make_it(single: Path) -> None:
    with pytest.raises(BundleError, match="no int8 graph") as refused:
        Classifier.load(single / "bundle", precision="int8")
    assert "--int8 --data FILE" in str(refused.value)


def test_refused_int8_leaves_the_bundle_as_it_was(bundle: Path) -> None:
    before = hash_files(bundle.parent)
    with pytest.raises(DataError, match="too few") as refused:
        export_int8(bundle, bundle.parent / "rows.jsonl")
    assert "macro F1 changes by" in str(refused.value)
    assert hash_files(bundle.parent) == before
    with pytest.raises(RecipeError, match="out of range"):
        export_int8(bundle, bundle.parent / "rows.jsonl", FidelityPromise(agreement=1))


def test_second_int8_replaces_the_first(bundle: Path) -> None:
    rows = bundle.parent / "rows.jsonl"
    first, second = (export_int8(bundle, rows, LOOSE).facts for _ in range(2))
    assert first["fidelity"] == second["fidelity"]
    export_graph(bundle)
    Classifier.load(bundle, precision="int8")


def test_texts_that_were_trained_on_are_left_out(bundle: Path, caplog: pytest.LogCaptureFixture) -> None:
    seen = load_file(bundle / "seen.safetensors")
    save_file(seen | {"hashes": text_hashes(texts(100))}, bundle / "seen.safetensors")
    update_manifest(bundle)
    with caplog.at_level("WARNING", logger="fullbake"):
        written = export_int8(bundle, bundle.parent / "rows.jsonl", FidelityPromise(0.2, 0.8))
    assert "100 of 240 rows are left out" in caplog.text
    assert written.facts["data"]["fitted"] + written.facts["fidelity"]["rows"] == 140
    save_file(seen | {"hashes": text_hashes(texts(240))}, bundle / "seen.safetensors")
    update_manifest(bundle)
    with pytest.raises(DataError, match="no rows to judge int8 by"):
        export_int8(bundle, bundle.parent / "rows.jsonl", LOOSE)


def test_card_that_was_edited_keeps_its_words_and_one_that_was_removed_stays_away(bundle: Path) -> None:
    (bundle / "README.md").write_text("my own words")
    export_int8(bundle, bundle.parent / "rows.jsonl", LOOSE)
    export_int8(bundle, bundle.parent / "rows.jsonl", LOOSE)
    card = (bundle / "README.md").read_text()
    assert card.startswith("my own words\n\n<!-- int8 -->")
    assert card.count("## int8") == 1
    (bundle / "README.md").unlink()
    export_int8(bundle, bundle.parent / "rows.jsonl", LOOSE)
    assert not (bundle / "README.md").exists()


def test_bundle_without_a_graph_or_of_a_student_is_refused(bundle: Path, tmp_path: Path) -> None:
    plain = shutil.copytree(FIXTURES / "bundle_0_1_0", tmp_path / "plain")
    with pytest.raises(BundleError, match="no graph"):
        export_int8(plain, bundle.parent / "rows.jsonl", LOOSE)
    agreement = {"rows": 9, "value": 1.0, "low": 0.7, "high": 1.0}
    student = {"teacher": "x", "agreement": agreement, "held_out_seen": 0, "labeled": None}
    content = storage.read_json(bundle / "fullbake.json") | {"student": student}
    storage.write_json(bundle / "fullbake.json", manifest.sign_manifest(content))
    with pytest.raises(BundleError, match="distilled student"):
        export_int8(bundle, bundle.parent / "rows.jsonl", LOOSE)


def test_processor_without_the_instructions_is_named(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for module in (engines, precision):
        monkeypatch.setattr(module, "int8_instructions", lambda: ())
    with caplog.at_level("WARNING", logger="fullbake"):
        export_int8(bundle, bundle.parent / "rows.jsonl", LOOSE)
    assert "so int8 may be slower; measured here" in caplog.text
    caplog.clear()
    with caplog.at_level("WARNING", logger="fullbake"):
        Classifier.load(bundle, precision="int8")
    assert "int8 may be slower than fp32 here" in caplog.text
    assert "no instructions for 8 bits" in (bundle / "README.md").read_text()


def test_onnxruntime_without_the_operator_is_named(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("Fatal error: com.microsoft:MatMulIntegerToFloat(-1) is not a registered function/op")

    monkeypatch.setattr(onnxruntime, "InferenceSession", refuse)
    with pytest.raises(BundleError, match="lacks an operator of the graph") as refused:
        Classifier.load(made / "bundle", precision="int8")
    assert "leave out --precision" in str(refused.value)


def changed_probe(folder: Path) -> None:
    logits = load_file(folder / "int8" / "probe.safetensors")["logits"]
    save_file({"logits": logits + np.abs(logits).max()}, folder / "int8" / "probe.safetensors")


def short_probe(folder: Path) -> None:
    save_file({"logits": np.zeros((1, 3), np.float32)}, folder / "int8" / "probe.safetensors")


def no_entry(folder: Path) -> None:
    content = storage.read_json(folder / "fullbake.json")
    del content["int8"]
    storage.write_json(folder / "fullbake.json", manifest.sign_manifest(content))


@pytest.mark.parametrize(
    ("change", "words"),
    [(changed_probe, "other logits"), (short_probe, "finite numbers"), (no_entry, "an entry int8 where")],
)
def test_changed_int8_is_refused(change: Callable[[Path], None], words: str, made: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(made / "bundle", tmp_path / "bundle")
    change(folder)
    update_manifest(folder)
    with pytest.raises(BundleError, match=words):
        Classifier.load(folder, precision="int8")


def test_validation_rows_of_a_run_are_found_again(bases: Callable[..., Path], tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    rows = [f"{text},{random.choice(['a', 'b'])}" for text in texts(80)]
    file = tmp_path / "rows.csv"
    file.write_text("\n".join(["words,kind", *rows]) + "\n")
    recipe = Recipe.load(base=str(bases("bert")), way="frozen", head="linear", text="words", label="kind", folds=0)
    classifier = adapt(recipe, file, cache_dir=tmp_path / "cache")
    found = read_validation_rows(classifier, file, recipe.data)
    np.testing.assert_array_equal(np.sort(found.rows), np.sort(classifier.record.seen["validation_rows"]))
    assert not find_training_texts(classifier, found).any()
    seen = {name: array for name, array in classifier.record.seen.items() if name != "validation_rows"}
    classifier.record = replace(classifier.record, seen=seen)
    with pytest.raises(RecipeError, match="folds of its training rows"):
        read_validation_rows(classifier, file, recipe.data)
