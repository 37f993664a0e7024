"""`fullbake bench` prints a table or JSON of each engine, on the bundled comments or on a file."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fullbake.classifier import speed
from fullbake.classifier.speed import EngineSpeed

Run = Callable[..., tuple[int, str, str]]

FOUND = [
    EngineSpeed("torch", "fp32", 2.5, 0.4, 9.5, 20.0, 75.123456, 80.0, 400_000_000, 1),
    EngineSpeed("onnx", "fp32", 0.4, 0.1, 4.0, 6.0, 90.0, 95.0, None, 1),
]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Return what `measure_engines` was asked; it measures nothing."""
    calls: list[dict[str, Any]] = []

    def measure(bundle: Path, texts: list[list[str]], **given: Any) -> list[EngineSpeed]:
        calls.append({"bundle": bundle, "texts": texts} | given)
        return FOUND

    monkeypatch.setattr(speed, "measure_engines", measure)
    return calls


def test_table_has_a_row_for_each_engine(run: Run, graph_bundles: Callable[..., Path], asked: list[Any]) -> None:
    code, out, _ = run("bench", graph_bundles("bert"), "--threads", 1, "--time", "2s")
    assert code == 0
    for word in ("torch", "onnx", "2.50 s", "9.5 ms", "75", "1 thread", "1,200 texts of the bundled comments"):
        assert word in out, out
    assert asked[0]["seconds"] == 2
    assert asked[0]["threads"] == 1
    assert len(asked[0]["texts"][0]) == 1200


def test_json_has_all_figures_of_the_texts_of_a_file(
    run: Run, graph_bundles: Callable[..., Path], asked: list[Any], tmp_path: Path
) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text("words\none\ntwo\n")
    code, out, _ = run("bench", graph_bundles("bert"), rows, "--text", "words", "--json")
    assert code == 0
    found = json.loads(out)
    assert found["texts"] == 2
    assert found["engines"][0]["texts_per_second"] == 75.12
    assert found["engines"][1]["peak_memory"] is None
    assert asked[0]["texts"] == [["one", "two"]]


def test_flags_of_a_file_without_a_file_are_answered(run: Run, graph_bundles: Callable[..., Path]) -> None:
    code, _, err = run("bench", graph_bundles("bert"), "--text", "words")
    assert code == 2
    assert "no file is given" in err
    code, _, err = run("bench", graph_bundles("bert"), "--time", "soon")
    assert code == 2
    assert "--time" in err
