"""Which engine is taken, what it is loaded with, and what is said where it cannot be."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.bundles import update_manifest
from helpers.rows import train

from fullbake import Classifier
from fullbake.classifier import engines
from fullbake.classifier.engines import engines_of, load_engine
from fullbake.core import runtime, storage
from fullbake.core.errors import BundleError, MissingExtraError

Bundles = Callable[..., Path]


@pytest.fixture(scope="module")
def plain(bases: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle without a graph."""
    folder = tmp_path_factory.mktemp("run")
    train(bases("bert"), folder).save(folder / "bundle")
    return folder / "bundle"


@pytest.fixture
def graph(graph_bundles: Bundles) -> Path:
    return graph_bundles("bert", pooling="mean")


@pytest.fixture(autouse=True)
def _no_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "may_have_accelerator", lambda: False)


def without(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    """Let these libraries count as not installed."""
    monkeypatch.setattr(engines, "is_installed", lambda name: name not in modules)


def test_torch_comes_with_its_tokenizer_and_limits(plain: Path) -> None:
    found = load_engine(plain, (), "auto", labels=3)
    assert found.predictor.engine == "torch"
    assert (found.positions, found.segments) == (512, 2)
    assert found.rows > found.added_id >= 0
    assert found.tokenizer.is_fast


def test_onnx_has_the_limits_of_torch(graph: Path) -> None:
    one = load_engine(graph, ("model.onnx",), "torch", labels=3)
    other = load_engine(graph, ("model.onnx",), "onnx", labels=3)
    assert other.predictor.engine == "onnx"
    assert (other.rows, other.positions, other.segments) == (one.rows, one.positions, one.segments)


def test_auto_takes_the_graph_where_there_is_one_and_no_gpu(
    plain: Path, graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert engines_of(graph, "auto") == {"onnx"}
    assert engines_of(plain, "auto") == engines_of(tmp_path, "auto") == {"torch"}
    assert engines_of(graph, "torch") == {"torch"}
    without(monkeypatch, "onnxruntime")
    assert engines_of(graph, "auto") == {"torch"}
    without(monkeypatch)
    monkeypatch.setattr(runtime, "may_have_accelerator", lambda: True)
    assert engines_of(graph, "auto") == {"torch"}
    without(monkeypatch, "torch")
    assert engines_of(graph, "auto") == {"onnx"}
    assert Classifier.load(graph).engine == "onnx"


def test_bundle_without_a_graph_says_how_to_add_one(plain: Path) -> None:
    with pytest.raises(BundleError, match=r"no graph(.|\n)*fullbake export"):
        Classifier.load(plain, engine="onnx")


def test_unknown_engine_is_refused(plain: Path) -> None:
    with pytest.raises(BundleError, match="auto, torch, onnx"):
        Classifier.load(plain, engine="tensorflow")  # type: ignore[arg-type]


def test_torch_that_is_not_installed_names_the_extra(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "torch")

    def missing(folder: Path) -> Any:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr("fullbake.models.network.load_network", missing)
    with pytest.raises((MissingExtraError, ModuleNotFoundError), match="torch"):
        Classifier.load(plain)


def test_what_only_torch_has_is_refused_with_the_way_out(graph: Path, tmp_path: Path) -> None:
    classifier = Classifier.load(graph, engine="onnx")
    with pytest.raises(BundleError, match=r"Classifier\.network needs the engine torch(.|\n)*engine='torch'"):
        _ = classifier.network
    with pytest.raises(BundleError, match=r"Classifier\.save"):
        classifier.save(tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_saved_again_a_bundle_has_no_graph(graph: Path, tmp_path: Path) -> None:
    Classifier.load(graph, engine="torch").save(tmp_path / "again")
    facts = storage.read_json(tmp_path / "again" / "fullbake.json")
    assert "graph" not in facts
    assert "model.onnx" not in facts["files"]
    assert Classifier.load(tmp_path / "again").engine == "torch"


def test_settings_that_only_transformers_can_read_take_torch_with_a_warning(
    graph: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(graph, tmp_path / "bundle"))
    settings = storage.read_json(folder / "tokenizer_config.json")
    storage.write_json(folder / "tokenizer_config.json", settings | {"do_lower_case": False})
    update_manifest(folder)
    with caplog.at_level(logging.WARNING, "fullbake"):
        assert Classifier.load(folder).engine == "torch"
    assert "scoring with torch" in caplog.text
    with pytest.raises(BundleError, match="read by transformers alone"):
        Classifier.load(folder, engine="onnx")
    without(monkeypatch, "torch")
    with pytest.raises(BundleError, match="read by transformers alone"):
        Classifier.load(folder)


@pytest.mark.parametrize("engine", ["auto", "torch", "onnx"])
def test_damaged_graph_is_refused_by_every_engine(graph: Path, tmp_path: Path, engine: Any) -> None:
    folder = Path(shutil.copytree(graph, tmp_path / "bundle"))
    content = bytearray((folder / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "model.onnx").write_bytes(content)
    with pytest.raises(BundleError, match=r"model\.onnx is damaged"):
        Classifier.load(folder, engine=engine)


@pytest.mark.parametrize("engine", ["auto", "onnx"])
def test_probe_is_scored_by_the_engine_that_is_used(graph: Path, tmp_path: Path, engine: Any) -> None:
    """Also where all hashes agree."""
    folder = Path(shutil.copytree(graph, tmp_path / "bundle"))
    probe = storage.read_tensors(folder / "probe.safetensors")
    storage.write_tensors(folder / "probe.safetensors", probe | {"logits": probe["logits"] * 1.1})
    update_manifest(folder)
    with pytest.raises(BundleError, match="other logits"):
        Classifier.load(folder, engine=engine)
