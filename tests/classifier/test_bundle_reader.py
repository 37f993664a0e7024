"""What is read of a bundle is what was written, and must fit the network (more in test_bundle_shape)."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.bundles import update_manifest
from helpers.rows import train

from fullbake.classifier.bundle_reader import read_bundle
from fullbake.classifier.manifest import MANIFEST_FILE, sign_manifest
from fullbake.core import storage
from fullbake.core.errors import BundleError


@pytest.fixture(scope="module")
def saved(bases: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    train(bases("bert"), folder).save(folder / "bundle")
    return folder / "bundle"


def test_parts_are_those_of_the_files(saved: Path) -> None:
    bundle = read_bundle(saved)
    assert bundle.predictor.engine == "torch"
    assert bundle.tokens.max_length == 48
    assert bundle.facts["label_names"] == ["food", "game", "money"]
    assert "files" not in bundle.facts
    assert bundle.history == storage.read_json(saved / "history.json")
    assert bundle.seen["hashes"].shape[1] == 16


def test_length_beyond_the_positions_is_refused(saved: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(saved, tmp_path / "bundle"))
    facts = storage.read_json(folder / MANIFEST_FILE)
    facts["tokens"]["max_length"] = 513
    storage.write_json(folder / MANIFEST_FILE, sign_manifest(facts))
    with pytest.raises(BundleError, match=r"max_length(.|\n)*at most 512(.|\n)*513"):
        read_bundle(folder)


def test_other_ids_of_the_probe_texts_are_refused(saved: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(saved, tmp_path / "bundle"))
    probe = storage.read_tensors(folder / "probe.safetensors")
    probe["input_ids"][1] += 1
    storage.write_tensors(folder / "probe.safetensors", probe)
    update_manifest(folder)
    with pytest.raises(BundleError, match="other token ids"):
        read_bundle(folder)
