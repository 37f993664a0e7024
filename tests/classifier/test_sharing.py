"""A copy that may leave this machine loads and is checked, without hashes of texts and without paths."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.rows import dataset

from fullbake import Classifier, evaluate
from fullbake.classifier.cascade_files import write_cascade
from fullbake.classifier.sharing import copy_for_sharing, last_part
from fullbake.core.errors import BundleError
from fullbake.evaluation.agreement import CascadeThreshold

Bundles = Callable[..., Path]


@pytest.fixture(scope="module")
def bundle(graph_bundles: Bundles) -> Path:
    return graph_bundles("bert")


def test_the_copy_loads_and_gives_the_same_scores(bundle: Path, tmp_path: Path) -> None:
    shared = copy_for_sharing(bundle, tmp_path / "shared")
    assert shared.left_out == ("seen.safetensors",)
    assert set(shared.files) == {path.name for path in bundle.iterdir()} - {"seen.safetensors"}
    assert shared.files["model.safetensors"] == (bundle / "model.safetensors").stat().st_size
    texts = ["food water", "a game and a team"]
    shutil.copytree(
        tmp_path / "shared", tmp_path / "uploaded"
    )  # its files are links, which onnxruntime does not follow
    copy = Classifier.load(tmp_path / "uploaded", engine="onnx")
    assert np.array_equal(copy.logits(texts), Classifier.load(bundle).logits(texts))
    assert copy.record.seen == {}
    facts = json.loads((tmp_path / "shared" / "fullbake.json").read_text())
    assert "/" not in facts["recipe"]["base"]
    assert str(bundle.parent.parent) not in (tmp_path / "shared" / "README.md").read_text()


def test_without_hashes_an_evaluation_says_what_is_not_known(
    bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copy_for_sharing(bundle, tmp_path / "shared")
    with caplog.at_level("INFO", "fullbake"):
        scores = evaluate(tmp_path / "shared", dataset(tmp_path, 12))
    assert scores["trained_on"] == 0
    assert "whether rows were trained on is not known" in caplog.text


def test_hashes_are_kept_where_they_are_asked_for(bundle: Path, tmp_path: Path) -> None:
    assert copy_for_sharing(bundle, tmp_path / "shared", seen=True).left_out == ()
    assert "hashes" in Classifier.load(tmp_path / "shared").record.seen


def test_a_copy_is_saved_again_without_hashes(bundle: Path, tmp_path: Path) -> None:
    copy_for_sharing(bundle, tmp_path / "shared")
    Classifier.load(tmp_path / "shared", engine="torch").save(tmp_path / "again")
    assert not (tmp_path / "again" / "seen.safetensors").exists()
    assert Classifier.load(tmp_path / "again").record.seen == {}


def test_a_missing_or_changed_file_is_still_found(bundle: Path, tmp_path: Path) -> None:
    copy_for_sharing(bundle, tmp_path / "shared")
    (tmp_path / "shared" / "probe.safetensors").unlink()
    with pytest.raises(BundleError, match=r"probe\.safetensors is missing"):
        Classifier.load(tmp_path / "shared")
    with pytest.raises(BundleError, match=r"probe\.safetensors is missing"):
        copy_for_sharing(tmp_path / "shared", tmp_path / "twice")


def test_both_members_of_a_cascade_are_copied(bundle: Path, tmp_path: Path) -> None:
    def link(folder: Path) -> None:
        copy_for_sharing(bundle, folder, seen=True)

    members = {"student": link, "teacher": link}
    write_cascade(tmp_path / "cascade", members, CascadeThreshold(0.5, 100, 50, 0, 0.9, 0.9), needed=0, overwrite=False)
    shared = copy_for_sharing(tmp_path / "cascade", tmp_path / "shared")
    assert shared.left_out == ("student/seen.safetensors", "teacher/seen.safetensors")
    assert Classifier.load(tmp_path / "shared").first is not None


@pytest.mark.parametrize(
    ("path", "last"),
    [
        ("/home/me/bases/bert", "bert"),
        ("C:\\bases\\bert", "bert"),
        ("bases/bert", "bases/bert"),
        ("org/name", "org/name"),
        ("demo", "demo"),
        ("/", "/"),
        ("", ""),
    ],
)
def test_only_paths_from_the_root_lose_their_folders(path: str, last: str) -> None:
    assert last_part(path) == last
