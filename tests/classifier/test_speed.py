"""The speed of engines is measured in real processes; a process that fails is an error that says what to try."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fullbake.classifier import speed
from fullbake.classifier.speed import available_engines, measure_engines
from fullbake.core.errors import BundleError, RecipeError

TEXTS = ["red apple", "a green pear and more words", "blue"]
GraphBundles = Callable[..., Path]


def test_both_engines_are_measured_in_processes_of_their_own(graph_bundles: GraphBundles) -> None:
    bundle = graph_bundles("bert")
    assert available_engines(bundle) == [("torch", "fp32"), ("onnx", "fp32")]
    found = measure_engines(bundle, [TEXTS], threads=1, seconds=0.01)
    assert [(one.engine, one.precision, one.threads) for one in found] == [("torch", "fp32", 1), ("onnx", "fp32", 1)]
    for one in found:
        assert one.cold_start_s > one.load_s > 0
        assert 0 < one.p50_ms <= one.p99_ms
        assert one.texts_per_second > 0
        assert one.texts_per_cpu_second > 0
        assert one.peak_memory is None or one.peak_memory > 10_000_000
    torch, onnx = found
    assert onnx.peak_memory is None or torch.peak_memory is None or onnx.peak_memory < torch.peak_memory


def test_engines_are_those_of_the_bundle_and_of_the_installation(
    graph_bundles: GraphBundles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = graph_bundles("bert")
    monkeypatch.setattr(speed, "is_installed", lambda module: module == "onnxruntime")
    assert available_engines(bundle) == [("onnx", "fp32")]
    monkeypatch.setattr(speed, "is_installed", lambda _: False)
    with pytest.raises(BundleError, match="no engine that is installed here"):
        available_engines(bundle)
    with pytest.raises(BundleError, match="not a fullbake bundle"):
        available_engines(tmp_path)


def test_engine_that_fails_is_named_with_what_it_said(graph_bundles: GraphBundles, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(graph_bundles("bert"), bundle)
    weights = bundle / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\1\1\1\1")
    with pytest.raises(BundleError, match=r"torch \(fp32\) could not be measured") as caught:
        measure_engines(bundle, [TEXTS], threads=1, seconds=0.01)
    assert "differs from what was saved" in str(caught.value)


def test_measuring_ends_at_its_limit(graph_bundles: GraphBundles) -> None:
    assert measure_engines(graph_bundles("bert"), [TEXTS * 100_000], threads=1, seconds=1e9, limit=0.0) == []


@pytest.mark.parametrize(
    ("texts", "seconds", "words"),
    [([TEXTS], 0.0, "no time"), ([TEXTS], float("nan"), "no time"), ([[]], 1.0, "no text"), ([], 1.0, "no text")],
)
def test_nothing_to_measure_is_said_before_work(texts: list[list[str]], seconds: float, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        measure_engines("nowhere", texts, threads=1, seconds=seconds)
