"""Graphs are written with a proof or not at all, and the network is where it was afterwards."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from fullbake import Classifier
from fullbake.classifier import graph_files, manifest
from fullbake.classifier.export import source_of
from fullbake.classifier.graph_files import add_graph, write_standalone
from fullbake.core.errors import BundleError, OutputError
from fullbake.core.hashing import hash_files
from fullbake.models.graph_check import GRAPH_FILE

FIXTURES = Path(__file__).parents[1] / "fixtures"


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier.load(FIXTURES / "bundle_0_1_0", engine="torch")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A copy of an old bundle, without a graph, that a test may change."""
    return Path(shutil.copytree(FIXTURES / "bundle_0_1_0", tmp_path / "bundle"))


def test_failed_proof_leaves_the_bundle_as_it_was(
    classifier: Classifier, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = hash_files(bundle)
    tried: list[Any] = []

    def refuse(network: Any, session: Any, rows: Any) -> Any:
        tried.append(rows)
        raise BundleError("the logits differ from torch's, so the graph is not written")

    monkeypatch.setattr(graph_files, "prove_graph", refuse)
    with pytest.raises(BundleError, match="not written"):
        add_graph(bundle, source_of(classifier))
    assert tried[0].segments
    assert tried[0].longest == classifier.tokens.max_length
    assert hash_files(bundle) == before
    assert [path.name for path in bundle.parent.iterdir()] == ["bundle"]


def test_network_returns_to_its_device_and_mode(
    classifier: Classifier, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(network: Any, *_: Any, **__: Any) -> Any:
        assert next(network.parameters()).device.type == "cpu"
        raise BundleError("no")

    monkeypatch.setattr(graph_files, "build_graph", refuse)
    network: Any = classifier.network
    place = next(network.parameters()).device
    with pytest.raises(BundleError, match="no"):
        add_graph(bundle, source_of(classifier))
    assert next(network.parameters()).device == place
    assert not network.training


def test_standalone_target_that_exists_is_refused_before_work(classifier: Classifier, bundle: Path) -> None:
    target = bundle.parent / "whole.onnx"
    target.write_bytes(b"mine")
    with pytest.raises(OutputError, match="exists already"):
        write_standalone(bundle, source_of(classifier), target)
    assert target.read_bytes() == b"mine"


def test_saved_with_a_graph_a_bundle_scores_by_it(classifier: Classifier, tmp_path: Path) -> None:
    classifier.save(tmp_path / "again", graph=True)
    assert (tmp_path / "again" / GRAPH_FILE).is_file()
    assert manifest.read_manifest(tmp_path / "again")["graph"]["opset"] == 20
    scored = Classifier.load(tmp_path / "again", engine="onnx")
    assert scored.engine == "onnx"
    texts = ["good food", "the game of the team"]
    assert abs(scored.logits(texts) - classifier.logits(texts)).max() < 1e-4
