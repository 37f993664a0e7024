"""Scores without transformers are those of `Classifier`, and heavy libraries are not loaded."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.bundles import update_manifest
from helpers.rows import train

import fullbake
from fullbake import Classifier
from fullbake.classifier.lightweight import lightweight_scores
from fullbake.classifier.manifest import MANIFEST_FILE
from fullbake.core import storage
from fullbake.core.errors import BundleError, DataError

TEXTS = ["good food and water", "", "the team play a game " * 20, "unknownword émigré 漢字"]
HEAVY = ("transformers", "sklearn", "scipy", "matplotlib", "pyarrow", "datasets", "accelerate", "pandas", "sympy")


@pytest.fixture(scope="module")
def bundle(bases: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Bundles on small bases, made once for each family and recipe; tests must not change them."""
    made: dict[str, Path] = {}

    def saved(family: str = "bert", name: str = "frozen-linear", **fields: object) -> Path:
        key = repr((family, name, fields))
        if key not in made:
            folder = tmp_path_factory.mktemp(family)
            train(bases(family), folder, name, **fields).save(folder / "bundle")
            made[key] = folder / "bundle"
        return made[key]

    return saved


@pytest.mark.parametrize("family", ["bert", "distilbert"])
@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("frozen-linear", {"pooling": "cls"}),
        ("frozen-linear", {"pooling": "mean", "truncation": "tail"}),
        ("frozen-mlp", {"pooling": "cls+mean"}),
        ("frozen-linear", {"pooling": "max", "truncation": "head+tail"}),
        ("frozen-standard", {}),
    ],
)
def test_scores_equal_those_of_the_classifier(bundle, family, name, fields) -> None:
    folder = bundle(family, name, **fields)
    found = lightweight_scores(folder, TEXTS)
    classifier = Classifier.load(folder)
    assert found is not None
    assert np.allclose(found.probabilities, classifier.predict_proba(TEXTS), atol=1e-5)
    assert found.decision == classifier.decision


@pytest.mark.parametrize("family", ["roberta", "modernbert", "albert"])
def test_other_families_need_the_classifier(bundle, family) -> None:
    assert lightweight_scores(bundle(family), TEXTS) is None


def test_windows_need_the_classifier(bundle) -> None:
    assert lightweight_scores(bundle(truncation="windows"), TEXTS) is None


def test_other_activations_than_gelu_need_the_classifier(bases, tmp_path) -> None:
    train(bases("bert", hidden_act="relu"), tmp_path).save(tmp_path / "bundle")
    assert lightweight_scores(tmp_path / "bundle", TEXTS) is None


def test_bundle_whose_probe_gives_other_logits_needs_the_classifier(bundle, tmp_path) -> None:
    """A second implementation of the network is trusted only where it gives the saved logits."""
    folder = shutil.copytree(bundle(), tmp_path / "bundle")
    probe = storage.read_tensors(folder / "probe.safetensors")
    storage.write_tensors(folder / "probe.safetensors", probe | {"logits": probe["logits"] * 1.1})
    update_manifest(folder)
    assert lightweight_scores(folder, TEXTS) is None


@pytest.mark.parametrize("field", ["pooling", "head"])
def test_bundle_with_a_pooling_or_head_of_a_newer_version_is_refused_by_the_classifier(bundle, tmp_path, field) -> None:
    folder = shutil.copytree(bundle(), tmp_path / "bundle")
    config = storage.read_json(folder / "config.json")
    storage.write_json(folder / "config.json", config | {field: "newer"})
    update_manifest(folder)
    assert lightweight_scores(folder, TEXTS) is None
    with pytest.raises(BundleError, match=f"has no {field} 'newer'(.|\n)*written by fullbake {fullbake.__version__}"):
        Classifier.load(folder)


def test_damaged_or_missing_bundle_is_refused(bundle, tmp_path) -> None:
    shutil.copytree(bundle(), tmp_path / "damaged")
    with (tmp_path / "damaged" / "model.safetensors").open("r+b") as file:
        file.seek(-4, 2)
        file.write(b"\xff\xff\xff\x7f")
    with pytest.raises(BundleError, match=r"model\.safetensors"):
        lightweight_scores(tmp_path / "damaged", TEXTS)
    with pytest.raises(BundleError, match=MANIFEST_FILE):
        lightweight_scores(tmp_path / "missing", TEXTS)


def test_text_that_is_not_unicode_is_refused(bundle) -> None:
    with pytest.raises(DataError, match="surrogate"):
        lightweight_scores(bundle(), ["\ud800"])


def test_prediction_on_the_command_line_loads_no_heavy_library(bundle) -> None:
    command = ["predict", str(bundle()), "good food"]
    code = f"""
import sys
from fullbake.cli.main import main
try:
    main({command!r})
except SystemExit as exit:
    assert not exit.code
print(*[name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "good food" in done.stdout
    assert done.stderr.split() == []
