"""A checked graph runs in onnxruntime, and what onnxruntime refuses is said in plain words."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.graphs import CLASSES, WEIGHTS, write_small_graph
from safetensors.numpy import load_file, save_file

from fullbake.core.errors import BundleError
from fullbake.models.graph_check import GRAPH_FILE, read_checked_graph
from fullbake.models.graph_session import open_graph, run_graph

IDS = np.array([[1, 2, 3], [4, 5, 6]], np.int64)
INPUTS = dict.fromkeys(("input_ids", "attention_mask", "token_type_ids", "more"), IDS)


def expected(folder: Path) -> np.ndarray:
    arrays = load_file(folder / WEIGHTS)
    logits: np.ndarray = arrays["table"][IDS].mean(1) @ arrays["head.weight"].T + arrays["head.bias"]
    return logits


def test_graph_reads_the_weights_beside_it(tmp_path: Path) -> None:
    folder = write_small_graph(tmp_path)
    session = open_graph(read_checked_graph(folder, classes=CLASSES), folder)
    found = run_graph(session, INPUTS)
    np.testing.assert_allclose(found["logits"], expected(folder), atol=1e-6)
    assert found["pooled"].shape == (2, 4)


def test_checked_bytes_are_run_not_the_file(tmp_path: Path) -> None:
    folder = write_small_graph(tmp_path)
    checked = read_checked_graph(folder, classes=CLASSES)
    (folder / GRAPH_FILE).write_bytes(b"something else")
    assert run_graph(open_graph(checked, folder), INPUTS)["logits"].shape == (2, CLASSES)


def test_weights_may_lie_in_a_folder_with_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_small_graph(tmp_path / "a folder ü")
    monkeypatch.chdir(tmp_path)
    place = Path("a folder ü")
    assert run_graph(open_graph(read_checked_graph(place, classes=CLASSES), place), INPUTS)["logits"].shape == (2, 3)
    arrays = load_file(folder / WEIGHTS)
    save_file({name: array * 2 for name, array in arrays.items()}, folder / WEIGHTS)
    doubled = run_graph(open_graph(read_checked_graph(place, classes=CLASSES), place), INPUTS)
    np.testing.assert_allclose(doubled["logits"], expected(folder), atol=1e-5)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        # version 20 of Gather takes two inputs; onnxruntime finds out, the check does not
        (lambda model: model.graph.node[0].input.pop(), "cannot open the graph"),
        (lambda model: setattr(model.graph.node[2], "op_type", "RMSNormalization"), "lacks an operator of the graph"),
    ],
)
def test_refusal_of_onnxruntime_is_a_bundle_error(change: Any, words: str, tmp_path: Path) -> None:
    folder = write_small_graph(tmp_path, change)
    with pytest.raises(BundleError, match=words) as error:
        open_graph(read_checked_graph(folder, classes=CLASSES), folder)
    assert "torch" in str(error.value)
