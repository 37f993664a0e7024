"""Bundles that version 0.1.0 saved still load, and score as they did then, by the class and on the command line."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fullbake import Classifier

FIXTURES = Path(__file__).parent / "fixtures"
EXPECTED: dict[str, Any] = json.loads((FIXTURES / "bundle_0_1_0_expected.json").read_text("utf-8"))
"""Bundle -> label_names, texts, and the scores and predictions of 0.1.0."""


@pytest.fixture(params=EXPECTED)
def saved(request: pytest.FixtureRequest) -> tuple[Path, dict[str, Any]]:
    """The folder of a bundle, and what 0.1.0 said of its texts."""
    return FIXTURES / request.param, EXPECTED[request.param]


def test_it_loads_and_scores_as_it_did(saved: tuple[Path, dict[str, Any]]) -> None:
    folder, expected = saved
    classifier = Classifier.load(folder)
    assert list(classifier.label_names) == expected["label_names"]
    assert np.allclose(classifier.predict_proba(expected["texts"]), expected["scores"], rtol=0, atol=1e-5)
    assert classifier.predict(expected["texts"]).tolist() == expected["predictions"]


def test_saved_again_it_has_the_same_weights(saved: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder, expected = saved
    Classifier.load(folder).save(tmp_path / "again")
    for name in ("model.safetensors", "seen.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes(), name
    scores = Classifier.load(tmp_path / "again").predict_proba(expected["texts"])
    assert np.allclose(scores, expected["scores"], rtol=0, atol=1e-5)


@pytest.mark.slow
def test_typed_texts_score_as_they_did(saved: tuple[Path, dict[str, Any]]) -> None:
    """The table has three decimals; scores are held to them, and the labels exactly."""
    folder, expected = saved
    command = [sys.executable, "-m", "fullbake", "predict", str(folder), *expected["texts"]]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONUTF8": "1"})
    assert done.returncode == 0, done.stderr
    rows = [line.strip("│").split("│") for line in done.stdout.splitlines() if line.startswith("│")]
    shown = [[cell.strip() for cell in row] for row in rows if row[1].strip()]  # long texts go over several lines
    assert len(shown) == len(expected["texts"])
    for (_, labels, scores), text, row, decided in zip(
        shown, expected["texts"], expected["scores"], expected["predictions"], strict=True
    ):
        names = expected["label_names"]
        held = (
            [decided] if isinstance(decided, str) else [name for name, one in zip(names, decided, strict=True) if one]
        )
        assert labels == (", ".join(held) or "none"), text
        told = [float(score) for score in scores.split(",") if score]
        assert np.allclose(told, [row[names.index(name)] for name in held], rtol=0, atol=5.1e-4), text


@pytest.mark.slow
def test_lines_score_as_they_did_on_the_command_line(saved: tuple[Path, dict[str, Any]]) -> None:
    """As lines on stdin, which gives all scores with all digits."""
    folder, expected = saved
    lines = "".join(f"{text}\n" for text in expected["texts"])
    command = [sys.executable, "-m", "fullbake", "predict", str(folder), "--quiet"]
    environment = os.environ | {"PYTHONUTF8": "1"}
    done = subprocess.run(command, input=lines, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(done.stdout.splitlines()))
    scores = [[float(row[f"score:{name}"]) for name in expected["label_names"]] for row in rows]
    assert [row["text"] for row in rows] == expected["texts"]
    assert np.allclose(scores, expected["scores"], rtol=0, atol=1e-5)
