"""Classifiers become graphs that read the weights that were saved: small, the same every time, or refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from helpers.graphs import load_model, prove_network

from fullbake.config.sections import HeadConfig
from fullbake.core.errors import BundleError, MissingExtraError
from fullbake.models import graph_export
from fullbake.models.graph_check import GRAPH_FILE
from fullbake.models.graph_export import build_graph, logits_and_pooled, require_export_packages
from fullbake.models.network import build_network, extract_head, features

Bases = Callable[..., Path]
INPUTS = {
    "input_ids": torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]),
}


def saved(base: Path, folder: Path, head: str) -> Any:
    """Return a classifier with random weights on a base, which is saved in `folder`."""
    network = build_network(base, HeadConfig(kind=head), ("a", "b", "c"), seed=0)  # type: ignore[arg-type]
    network.save_pretrained(folder)
    return network


@pytest.mark.parametrize(("family", "head"), [("bert", "mlp"), ("distilbert", "standard"), ("roberta", "linear")])
def test_graph_equals_its_network(family: str, head: str, bases: Bases, tmp_path: Path) -> None:
    proof = prove_network(bases(family), tmp_path, head)
    assert proof.difference < 1e-5
    assert proof.alone < 1e-5
    assert (tmp_path / GRAPH_FILE).stat().st_size < 50_000
    model = load_model(tmp_path)
    assert {entry.domain for entry in model.opset_import} == {""}
    inside = [tensor for tensor in model.graph.initializer if not tensor.data_location]
    floats = [tensor for tensor in inside if tensor.data_type == onnx.TensorProto.FLOAT]
    assert max(len(tensor.raw_data) for tensor in floats) <= 256


def test_same_network_gives_the_same_bytes(bases: Bases, tmp_path: Path) -> None:
    network = saved(bases("distilbert"), tmp_path, "linear")
    first, second = (build_graph(network, tmp_path, segments=False).content for _ in range(2))
    assert first == second


@pytest.mark.parametrize("head", ["standard", "linear"])
def test_pooled_is_what_the_head_reads(head: str, bases: Bases, tmp_path: Path) -> None:
    network = saved(bases("bert"), tmp_path, head)
    with torch.no_grad():
        found = logits_and_pooled(network, INPUTS)
        torch.testing.assert_close(found["pooled"], features(network, INPUTS))
        torch.testing.assert_close(extract_head(network)(found["pooled"]), found["logits"])


def test_temperature_is_in_the_graph(bases: Bases, tmp_path: Path) -> None:
    """A temperature divides the output layer, so logits of the graph have it already."""
    from fullbake.models.heads import divide_logits

    network = saved(bases("bert"), tmp_path, "linear")
    with torch.no_grad():
        before = logits_and_pooled(network, INPUTS)["logits"]
        divide_logits(network, 2.0)
        np.testing.assert_allclose(logits_and_pooled(network, INPUTS)["logits"] * 2, before, atol=1e-6)


def test_family_that_no_exporter_takes_is_refused(
    bases: Bases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        try:
            raise ValueError("a loop over the data\nand a page of advice")
        except ValueError as cause:
            raise RuntimeError("the export failed") from cause

    monkeypatch.setattr(graph_export, "_EXPORTERS", {"torch": fail, "transformers": fail})
    network = saved(bases("bert"), tmp_path, "linear")
    with pytest.raises(BundleError, match="the family 'bert' cannot be exported") as error:
        build_graph(network, tmp_path, segments=True)
    assert "torch: ValueError: a loop over the data; transformers: ValueError" in str(error.value)
    assert "works without a graph" in str(error.value)


def test_transformers_exports_what_torch_cannot(bases: Bases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Any:
        raise RuntimeError("no")

    second = graph_export._EXPORTERS["transformers"]
    monkeypatch.setattr(graph_export, "_EXPORTERS", {"torch": fail, "transformers": second})
    assert prove_network(bases("distilbert"), tmp_path, "linear").difference < 1e-5


def test_head_that_reads_all_tokens_is_refused(bases: Bases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = saved(bases("bert"), tmp_path, "standard")
    monkeypatch.setattr(graph_export, "pooling_of", lambda _: "late")
    with pytest.raises(BundleError, match="reads the states of all tokens"):
        build_graph(network, tmp_path, segments=True)


def test_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    require_export_packages()
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(MissingExtraError, match="onnxscript") as error:
        require_export_packages()
    assert "pip install 'fullbake[export]'" in str(error.value)
