"""Weights are safetensors files inside the folder, whatever the index of shards says; bases and bundles alike."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.bundles import update_manifest
from helpers.rows import train
from safetensors.torch import load_file

from fullbake import Classifier
from fullbake.core import storage
from fullbake.core.errors import BaseModelError, BundleError
from fullbake.models.encoder import load_encoder
from fullbake.models.masked_lm import load_language_model
from fullbake.models.weight_files import INDEX_FILE, WEIGHTS_FILE, check_weights, is_plain_name

Bases = Callable[..., Path]
SHARD = "model-00001-of-00001.safetensors"


def shard_weights(folder: Path, name: str = SHARD) -> Path:
    """Move a folder's weights into a file of this name, which an index names, and return the folder."""
    weights = load_file(folder / WEIGHTS_FILE)
    target = folder / name
    target.parent.mkdir(exist_ok=True)
    if name.endswith(".safetensors"):
        shutil.move(folder / WEIGHTS_FILE, target)
    else:
        (folder / WEIGHTS_FILE).unlink()
        torch.save(weights, target)
    index = {"metadata": {"total_size": 1}, "weight_map": dict.fromkeys(weights, name)}
    storage.write_json(folder / INDEX_FILE, index)
    return folder


@pytest.fixture
def base(bases: Bases, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bases("bert"), tmp_path / "base"))


def test_shards_are_read(base: Path, bases: Bases) -> None:
    found, expected = load_encoder(shard_weights(base)).state_dict(), load_encoder(bases("bert")).state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "../elsewhere.safetensors", "sub/model.safetensors"])
@pytest.mark.parametrize("load", [load_encoder, lambda base: load_language_model(base, pairs=False, seed=0)])
def test_shard_that_is_no_plain_name_of_safetensors_is_refused(name: str, load: Any, base: Path) -> None:
    with pytest.raises(BaseModelError, match=f"names a file that fullbake does not read(.|\n)*{name}"):
        load(shard_weights(base, name))


@pytest.mark.parametrize("name", ["/tmp/model.safetensors", "..\\model.safetensors", "", "..", "model.SAFETENSORS"])
def test_other_names_of_shards_are_refused(name: str, tmp_path: Path) -> None:
    storage.write_json(tmp_path / INDEX_FILE, {"metadata": {}, "weight_map": {"a": name}})
    with pytest.raises(BaseModelError, match="does not read"):
        check_weights(tmp_path)


@pytest.mark.parametrize(
    "index",
    [
        [],
        {},
        {"weight_map": {"a": SHARD}},
        {"metadata": {}, "weight_map": {}},
        {"metadata": {}, "weight_map": [1]},
        {"metadata": {}, "weight_map": {"a": 5}},
        {"metadata": None, "weight_map": {"a": SHARD}},
    ],
    ids=str,
)
def test_index_of_another_shape_is_refused(index: Any, tmp_path: Path) -> None:
    storage.write_json(tmp_path / INDEX_FILE, index)
    with pytest.raises(BaseModelError, match=f"{INDEX_FILE} cannot be used"):
        check_weights(tmp_path)


def test_missing_shard_is_named(base: Path) -> None:
    (shard_weights(base) / SHARD).unlink()
    with pytest.raises(BaseModelError, match=f"a file of the weights is missing(.|\n)*{SHARD}"):
        load_encoder(base)


def test_index_that_is_not_read_is_no_fault(base: Path) -> None:
    """A base may be saved twice; where there is one whole file, transformers reads it alone."""
    storage.write_json(base / INDEX_FILE, {"metadata": {}, "weight_map": {"a": "pytorch_model.bin"}})
    check_weights(base)


def test_config_that_names_another_file_of_weights_is_not_followed(base: Path) -> None:
    config = json.loads((base / "config.json").read_text())
    storage.write_json(base / "config.json", config | {"transformers_weights": "adapter_model.bin"})
    assert load_encoder(base) is not None


# Bundles


def change(folder: Path, change_weights: Callable[[Path], object]) -> Path:
    """Change a bundle's weights, and make its manifest agree, as somebody who means harm would."""
    change_weights(folder)
    manifest = storage.read_json(folder / "fullbake.json")
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    kept = [name for name in names if name in manifest["files"] or "model" in name]
    storage.write_json(folder / "fullbake.json", manifest | {"files": dict.fromkeys(kept)})
    update_manifest(folder)
    return folder


@pytest.fixture
def bundle(bases: Bases, tmp_path: Path) -> Path:
    train(bases("bert"), tmp_path).save(tmp_path / "bundle")
    return tmp_path / "bundle"


def test_bundle_in_shards_gives_its_scores_and_each_shard_is_hashed(bundle: Path) -> None:
    texts = ["good food", "play a game"]
    expected = Classifier.load(bundle).predict_proba(texts)
    change(bundle, shard_weights)
    assert (Classifier.load(bundle).predict_proba(texts) == expected).all()
    with (bundle / SHARD).open("r+b") as file:
        file.seek(-4, 2)
        file.write(b"\x00\x00\x00\x7f")
    with pytest.raises(BundleError, match=SHARD):
        Classifier.load(bundle)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "../elsewhere.safetensors", "sub/model.safetensors"])
def test_bundle_with_other_weights_is_refused(name: str, bundle: Path) -> None:
    change(bundle, lambda folder: shard_weights(folder, name))
    with pytest.raises(BundleError, match="does not read"):
        Classifier.load(bundle)


def test_bundle_with_an_adapter_is_refused(bundle: Path) -> None:
    """With peft installed, transformers would change the network by it."""
    change(bundle, lambda folder: storage.write_json(folder / "adapter_config.json", {"peft_type": "LORA"}))
    manifest = storage.read_json(bundle / "fullbake.json")
    storage.write_json(bundle / "fullbake.json", manifest | {"files": manifest["files"] | {"adapter_config.json": {}}})
    update_manifest(bundle)
    with pytest.raises(BundleError, match="adapter"):
        Classifier.load(bundle)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/a", "a\\b"])
def test_names_that_lead_elsewhere_are_not_plain(name: str) -> None:
    assert not is_plain_name(name)
    assert is_plain_name("2_Dense")


@pytest.mark.parametrize(
    ("name", "words"),
    [("model.fp16.safetensors", "rename it to model.safetensors"), ("tf_model.h5", "save_pretrained")],
)
def test_weights_under_another_name_are_refused_with_what_to_do(name: str, words: str, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    with pytest.raises(BaseModelError, match=words):
        check_weights(tmp_path)
