"""`fullbake export` says what it wrote, and refuses what it cannot write."""

import json
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from helpers.rows import make_rows, write_csv

from fullbake import Classifier
from fullbake.classifier import export, graph_files, precision
from fullbake.classifier.graph_files import WrittenGraph
from fullbake.classifier.precision import WrittenInt8
from fullbake.core.errors import BundleError
from fullbake.evaluation.fidelity import FidelityPromise

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


def test_train_adds_the_graph_and_the_int8_that_its_validation_rows_speak_for(
    run: Run, train_words: tuple[Any, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The base is of random weights and 32 wide, so int8 changes 5% of the labels, more than the limits of `train`."""
    loose = partial(precision.export_int8, promise=FidelityPromise(0.1, 0.9))
    monkeypatch.setattr(precision, "export_int8", loose)
    write_csv(tmp_path / "rows.csv", make_rows(1000))
    code, out, error = run(*train_words, "--int8", "--validation", "0.5", "--test", "0.1")
    assert code == 0, error
    assert f"graph: {tmp_path / 'm' / 'model.onnx'} (" in out
    assert out.index("report: ") < out.index("graph: ") < out.index("largest difference from torch")
    assert f"int8: {tmp_path / 'm' / 'int8'} (" in out
    texts = [text for text, _ in make_rows(50, seed=1)]
    found = [Classifier.load(tmp_path / "m", precision=kind).predict(texts) for kind in ("fp32", "int8")]
    assert (found[0] == found[1]).mean() >= 0.75


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


INT8_FACTS: dict[str, Any] = {
    "temperature": 1.004,
    "bytes": {"fp32": 90_000_000, "int8": 24_000_000},
    "data": {"source": "rows.csv", "fitted": 1000},
    "fidelity": {
        "rows": 1001,
        "equal_labels": {"value": 0.994, "low": 0.987, "high": 0.998},
        "probabilities_apart": {"far": 0.08},
        "metric": {
            "name": "f1_macro",
            "original": 0.9,
            "other": 0.899,
            "difference": -0.001,
            "low": -0.004,
            "high": 0.002,
        },
    },
    "calibration_error": {"fp32": 0.02, "int8": 0.021},
    "speed": {"fp32_texts_per_cpu_second": 75.0, "int8_texts_per_cpu_second": 150.0},
}


def test_int8_is_shown_as_a_table_and_as_json(
    run: Run, written: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[Any] = []

    def int8(*arguments: Any, **given: Any) -> WrittenInt8:
        asked.append((arguments, given))
        return WrittenInt8(tmp_path / "int8", INT8_FACTS)

    monkeypatch.setattr(precision, "export_int8", int8)
    bundle = shutil.copytree(FIXTURE, tmp_path / "bundle")
    code, out, _ = run("export", bundle, "--int8", "--data", "rows.csv", "--tolerance", 0.01, "--text", "words")
    assert code == 0
    assert written == [bundle], "a bundle without a graph gets one first"
    assert asked == [((bundle, "rows.csv", FidelityPromise(0.01, 0.98)), {"text": "words"})]
    for words in ("1,001 judging rows", "-0.0010 (-0.0040 to +0.0020)", "2.00 times", "99.40% of the rows"):
        assert words in out
    code, out, _ = run("export", bundle, "--int8", "--data", "rows.csv", "--json")
    assert json.loads(out[out.index("{") :]) == INT8_FACTS


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--int8"], "--int8 needs labeled rows"),
        (["--data", "rows.csv"], "--data belongs to --int8"),
        (["--text", "words"], "--text belongs to --int8"),
        (["--int8", "--data", "rows.csv", "--standalone", "whole.onnx"], "--standalone does not go with --int8"),
        (["--int8", "--data", "rows.csv", "--tolerance", "0"], "out of range"),
        (["--int8", "--data", "rows.csv", "--agreement", "1"], "out of range"),
    ],
)
def test_flags_of_int8_that_do_not_fit_are_refused(
    words: list[str], message: str, run: Run, written: list[Any]
) -> None:
    code, out, err = run("export", "out/m", *words)
    assert (code, out) == (2, "")
    assert message in err
    assert written == []


def test_train_keeps_fp32_where_int8_is_refused(run: Run, train_words: tuple[Any, ...], tmp_path: Path) -> None:
    """The few validation rows of a small file say too little of int8."""
    code, out, error = run(*train_words, "--int8", "--folds", 0)
    words = " ".join(error.split())
    assert code == 2
    assert f"is complete in fp32. To judge int8 by other rows: fullbake export {tmp_path / 'm'} --int8" in words
    assert "report: " in out
    Classifier.load(tmp_path / "m")
    assert not (tmp_path / "m" / "int8").exists()
    code, _, error = run(*train_words, "--int8", "--folds", 2, "--overwrite")
    assert code == 2
    assert "--int8 needs validation rows" in error
