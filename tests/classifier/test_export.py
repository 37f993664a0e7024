"""A bundle gets its graph, still loads, and is as before where that cannot be; one file holds a whole classifier."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from fullbake import Classifier
from fullbake.classifier import manifest
from fullbake.classifier.export import export_graph, export_standalone
from fullbake.core import storage
from fullbake.core.errors import BundleError, OutputError
from fullbake.core.hashing import hash_files
from fullbake.models.graph_check import GRAPH_FILE, read_checked_graph, read_checked_standalone
from fullbake.models.graph_session import open_graph, run_graph

FIXTURES = Path(__file__).parents[1] / "fixtures"
TEXTS = ["good food", "the game of the team was new and old", "money"]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An old bundle with a graph; tests must not change it."""
    folder = Path(shutil.copytree(FIXTURES / "bundle_0_1_0", tmp_path_factory.mktemp("exported") / "bundle"))
    export_graph(folder)
    return folder


@pytest.fixture
def bundle(exported: Path, tmp_path: Path) -> Path:
    """A copy of the bundle with a graph that a test may change."""
    return Path(shutil.copytree(exported, tmp_path / "bundle"))


def logits_of(folder: Path, classifier: Classifier, name: str = GRAPH_FILE) -> np.ndarray:
    """Return the logits that the graph in a folder gives the texts, one at a time."""
    read: Any = read_checked_graph if name == GRAPH_FILE else read_checked_standalone
    checked = read(folder if name == GRAPH_FILE else folder / name, classes=len(classifier.label_names))
    session = open_graph(checked, folder)
    found = []
    for text in TEXTS:
        ids = np.array([classifier.tokenizer(text)["input_ids"]], np.int64)
        inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        found.append(run_graph(session, inputs)["logits"])
    return np.concatenate(found)


def test_bundle_with_a_graph_loads_and_its_graph_gives_the_same_logits(exported: Path) -> None:
    classifier = Classifier.load(exported, engine="torch")
    np.testing.assert_allclose(logits_of(exported, classifier), classifier.logits(TEXTS), atol=1e-4)
    facts = manifest.read_manifest(exported)
    assert facts["graph"]["difference"] < 1e-4
    assert facts["graph"]["inputs"] == ["input_ids", "attention_mask", "token_type_ids"]
    assert facts["files"][GRAPH_FILE]["size"] == (exported / GRAPH_FILE).stat().st_size
    before = hash_files(FIXTURES / "bundle_0_1_0")
    after = hash_files(exported)
    assert {name for name in after if after[name] != before.get(name)} == {GRAPH_FILE, "fullbake.json"}


def test_saved_again_a_bundle_has_no_graph_and_says_so(exported: Path, tmp_path: Path) -> None:
    Classifier.load(exported, engine="torch").save(tmp_path / "again")
    assert "graph" not in manifest.read_manifest(tmp_path / "again")
    Classifier.load(tmp_path / "again")


def test_second_graph_replaces_the_first(bundle: Path) -> None:
    content = (bundle / GRAPH_FILE).read_bytes()
    manifest_before = storage.read_json(bundle / "fullbake.json")
    written = export_graph(bundle)
    assert (bundle / GRAPH_FILE).read_bytes() == content, "the same classifier gives the same graph"
    assert storage.read_json(bundle / "fullbake.json") == manifest_before
    assert written.size == len(content)
    assert written.path == bundle / GRAPH_FILE


def test_changed_weights_are_refused(bundle: Path) -> None:
    with (bundle / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x7f")
    with pytest.raises(BundleError, match=r"model\.safetensors is damaged"):
        Classifier.load(bundle, engine="torch")
    with pytest.raises(BundleError, match=r"model\.safetensors is damaged"):
        export_graph(bundle)


def test_changed_graph_is_refused(bundle: Path) -> None:
    model = onnx.load(bundle / GRAPH_FILE, load_external_data=False)
    model.producer_name = "somebody"
    (bundle / GRAPH_FILE).write_bytes(model.SerializeToString())
    with pytest.raises(BundleError, match=r"model\.onnx is damaged"):
        Classifier.load(bundle, engine="torch")


def drop_entry(facts: dict[str, Any]) -> None:
    del facts["graph"]


def drop_file(facts: dict[str, Any]) -> None:
    del facts["files"][GRAPH_FILE]


def spoil_entry(facts: dict[str, Any]) -> None:
    facts["graph"]["difference"] = "none"


@pytest.mark.parametrize("change", [drop_entry, drop_file, spoil_entry])
def test_entry_and_file_belong_together(change: Callable[[dict[str, Any]], None], bundle: Path) -> None:
    facts = storage.read_json(bundle / "fullbake.json")
    change(facts)
    storage.write_json(bundle / "fullbake.json", manifest.sign_manifest(facts))
    with pytest.raises(BundleError, match=r"fullbake\.json cannot be used"):
        Classifier.load(bundle, engine="torch")


def test_standalone_file_holds_all_weights_and_leaves_the_bundle(bundle: Path, tmp_path: Path) -> None:
    before = hash_files(bundle)
    written = export_standalone(bundle, tmp_path / "out" / "whole.onnx")
    assert hash_files(bundle) == before
    assert written.size > (bundle / "model.safetensors").stat().st_size * 0.9
    classifier = Classifier.load(bundle, engine="torch")
    found = logits_of(tmp_path / "out", classifier, "whole.onnx")
    np.testing.assert_allclose(found, classifier.logits(TEXTS), atol=1e-4)
    with pytest.raises(OutputError, match="exists already"):
        export_standalone(bundle, tmp_path / "out" / "whole.onnx")


def test_bundle_that_cannot_be_written_is_refused_before_work(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(bundle)
    with pytest.raises(OutputError, match="the bundle cannot be changed"):
        export_graph(bundle)
