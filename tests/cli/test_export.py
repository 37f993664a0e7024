"""`fullbake export` says what it wrote, and refuses what it cannot write."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.rows import make_rows, write_csv

from fullbake import Classifier
from fullbake.classifier import export, graph_files
from fullbake.classifier.graph_files import WrittenGraph
from fullbake.core.errors import BundleError

Run = Callable[..., tuple[int, str, str]]
FIXTURE = Path(__file__).parents[1] / "fixtures" / "bundle_0_1_0"
FACTS = {"exporter": "torch", "opset": 20, "difference": 2.6e-7, "alone": 0.0, "batches": 24}
FACTS |= {"versions": {"torch": "2.13.0"}}


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the command asked for; nothing is exported."""
    asked: list[Any] = []

    def graph(bundle: Path) -> WrittenGraph:
        asked.append(bundle)
        return WrittenGraph(bundle / "model.onnx", 812_345, 7.4, FACTS)

    def standalone(bundle: Path, target: Path, *, overwrite: bool) -> WrittenGraph:
        asked.append((bundle, target, overwrite))
        return WrittenGraph(target, 90_812_345, 7.4, FACTS)

    monkeypatch.setattr(export, "export_graph", graph)
    monkeypatch.setattr(export, "export_standalone", standalone)
    return asked


def test_lines_say_what_was_written(run: Run, written: list[Any]) -> None:
    code, out, _ = run("export", "out/m")
    assert code == 0
    assert written == [Path("out/m")]
    first, second, third = out.splitlines()
    assert first.startswith("graph: out/m/model.onnx (")
    assert "it reads the weights of the bundle" in first
    assert "3e-07 of the largest output, in 24 batches" in second
    assert "torch 2.13.0" in third


def test_standalone_names_the_file(run: Run, written: list[Any], tmp_path: Path) -> None:
    code, out, _ = run("export", "out/m", "--standalone", tmp_path / "whole.onnx")
    assert code == 0
    assert written == [(Path("out/m"), tmp_path / "whole.onnx", False)]
    assert "it holds all weights" in out


def test_flags_that_do_not_fit_are_refused(run: Run, written: list[Any], tmp_path: Path) -> None:
    code, _, err = run("export", "out/m", "--overwrite")
    assert code == 2
    assert "--overwrite belongs to --standalone" in err
    (tmp_path / "whole.onnx").write_bytes(b"")
    code, _, err = run("export", "out/m", "--standalone", tmp_path / "whole.onnx")
    assert code == 2
    assert "exists already" in err
    assert written == []


def test_bundle_that_is_none_is_one_error(run: Run, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    code, out, err = run("export", tmp_path / "none")
    assert (code, out) == (2, "")
    assert "not a fullbake bundle" in err


def test_family_that_cannot_be_exported_is_one_error(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = shutil.copytree(FIXTURE, tmp_path / "bundle")

    def refuse(*_: object, **__: object) -> None:
        raise BundleError("the family 'bert' cannot be exported", remedy="Score with torch.")

    monkeypatch.setattr(graph_files, "build_graph", refuse)
    code, out, err = run("export", bundle)
    assert (code, out) == (2, "")
    assert "the family 'bert' cannot be exported" in err
    assert not (bundle / "model.onnx").exists()


# train --graph


@pytest.fixture
def train_words(bases: Callable[..., Path], tmp_path: Path) -> tuple[Any, ...]:
    rows = write_csv(tmp_path / "rows.csv", make_rows())
    short = ("--max-length", "48", "--epochs", "1", "--batch-size", "8", "--head", "linear")
    return ("train", rows, "--base", bases("bert"), "--way", "frozen", *short, "--out", tmp_path / "m", "--graph")


def test_train_adds_the_graph_at_the_end(run: Run, train_words: tuple[Any, ...], tmp_path: Path) -> None:
    code, out, error = run(*train_words)
    assert code == 0, error
    assert f"graph: {tmp_path / 'm' / 'model.onnx'} (" in out
    assert out.index("report: ") < out.index("graph: ") < out.index("largest difference from torch")
    Classifier.load(tmp_path / "m")


def test_classifier_without_a_graph_is_kept(
    run: Run, train_words: tuple[Any, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise BundleError("the family 'bert' cannot be exported", remedy="Score with torch.")

    monkeypatch.setattr(graph_files, "build_graph", refuse)
    code, out, error = run(*train_words)
    assert code == 2
    assert "report: " in out
    assert "is complete and works with torch; it has no graph" in " ".join(error.split())
    assert not (tmp_path / "m" / "model.onnx").exists()
    Classifier.load(tmp_path / "m")


def test_missing_packages_are_said_before_training(
    run: Run, train_words: tuple[Any, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    code, out, error = run(*train_words)
    assert (code, out) == (2, "")
    assert "pip install 'fullbake[export]'" in error
    assert not (tmp_path / "m").exists()
