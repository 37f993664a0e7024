"""Parity: a text typed on the command line gets what `Classifier` gives it; and what that leaves unloaded."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.rows import train

from fullbake import Classifier
from fullbake.classifier import lightweight, manifest
from fullbake.core.errors import BundleError, DataError

TEXTS = ["good food and water", "", "the team play a game " * 20, "unknownword émigré 漢字"]
UNNEEDED = ("transformers", "sklearn", "scipy", "matplotlib", "pyarrow", "datasets", "accelerate", "pandas", "sympy")


@pytest.fixture(scope="module")
def bundle(bases: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The folder of a bundle on a small base of a family, made once for each recipe."""
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
def test_scores_are_those_of_the_classifier(bundle, family, name, fields) -> None:
    folder = bundle(family, name, **fields)
    found = lightweight.lightweight_scores(folder, TEXTS)
    classifier = Classifier.load(folder)
    assert found is not None
    assert np.allclose(found.probabilities, classifier.predict_proba(TEXTS), atol=1e-5)
    assert found.decision == classifier.decision


@pytest.mark.parametrize("family", ["roberta", "modernbert", "albert"])
def test_other_families_are_left_to_the_classifier(bundle, family) -> None:
    assert lightweight.lightweight_scores(bundle(family), TEXTS) is None


def test_windows_are_left_to_the_classifier(bundle) -> None:
    assert lightweight.lightweight_scores(bundle(truncation="windows"), TEXTS) is None


def test_an_activation_that_is_not_written_out_is_left_to_the_classifier(bases, tmp_path) -> None:
    train(bases("bert", hidden_act="relu"), tmp_path).save(tmp_path / "bundle")
    assert lightweight.lightweight_scores(tmp_path / "bundle", TEXTS) is None


def test_a_network_that_scores_otherwise_is_left_to_the_classifier(bundle, monkeypatch) -> None:
    folder = bundle()
    monkeypatch.setattr(lightweight, "pool", lambda hidden, mask, kind: hidden[:, -1])
    assert lightweight.lightweight_scores(folder, TEXTS) is None


def test_a_damaged_bundle_is_refused(bundle, tmp_path) -> None:
    shutil.copytree(bundle(), tmp_path / "damaged")
    with (tmp_path / "damaged" / "model.safetensors").open("r+b") as file:
        file.seek(-4, 2)
        file.write(b"\xff\xff\xff\x7f")
    with pytest.raises(BundleError, match=r"model\.safetensors"):
        lightweight.lightweight_scores(tmp_path / "damaged", TEXTS)
    with pytest.raises(BundleError, match=manifest.MANIFEST_FILE):
        lightweight.lightweight_scores(tmp_path / "missing", TEXTS)


def test_what_is_no_text_is_refused(bundle) -> None:
    with pytest.raises(DataError, match="surrogate"):
        lightweight.lightweight_scores(bundle(), ["\ud800"])


def test_a_text_on_the_command_line_loads_no_more_than_it_needs(bundle) -> None:
    command = ["predict", str(bundle()), "good food"]
    code = f"""
import sys
from fullbake.cli.main import main
try:
    main({command!r})
except SystemExit as end:
    assert not end.code
print(*[name for name in {UNNEEDED!r} if name in sys.modules], file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "good food" in done.stdout
    assert done.stderr.split() == []
