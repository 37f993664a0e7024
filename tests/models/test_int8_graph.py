"""Products and tables of a graph get 8 bits, one scale a row; the head stays fp32, and no sum leaves 16 bits."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from helpers.graphs import CLASSES, load_model, outside, prove_network, write_small_graph
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file, save_file

from fullbake.core.errors import BundleError
from fullbake.models.graph_check import GRAPH_FILE, GRAPH_INPUTS, read_checked_graph
from fullbake.models.graph_session import open_graph, run_graph
from fullbake.models.int8_graph import INT8_WEIGHTS, multiply_logits, round_columns, write_int8_graph

WORDS, WIDTH, INNER = 60, 48, 32


def write_dense_graph(folder: Path, opset: int = 20) -> dict[str, np.ndarray]:
    """Write a graph of two layers that share their input, an activation and a head, and return its weights."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    shapes = {
        "table": (WORDS, WIDTH),
        "one": (INNER, WIDTH),
        "one.bias": (INNER,),
        "two": (WIDTH, INNER),
        "head": (CLASSES, INNER),
    }
    arrays = {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    save_file(arrays, folder / "model.safetensors")
    inner = [numpy_helper.from_array(np.array([1], np.int64), "axes")]
    nodes = [
        helper.make_node("Transpose", ["one"], ["one.turned"], perm=[1, 0]),
        helper.make_node("Gather", ["table", "input_ids"], ["states"]),
        helper.make_node("MatMul", ["states", "one.turned"], ["first"]),
        helper.make_node("Add", ["first", "one.bias"], ["first.biased"]),
        helper.make_node("MatMul", ["states", "two"], ["second"]),
        helper.make_node("Mul", ["first.biased", "second"], ["product"]),
        helper.make_node("ReduceMean", ["product", "axes"], ["pooled"], keepdims=0),
        helper.make_node("Gemm", ["pooled", "head"], ["logits"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"]) for name in GRAPH_INPUTS],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES]),
            helper.make_tensor_value_info("pooled", TensorProto.FLOAT, ["batch", INNER]),
        ],
        [outside(name, folder) for name in arrays] + inner,
    )
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", opset)])
    (folder / GRAPH_FILE).write_bytes(model.SerializeToString())
    return arrays


def run(folder: Path, ids: np.ndarray, weights: list[str] | None = None) -> dict[str, np.ndarray]:
    session = open_graph(read_checked_graph(folder, classes=CLASSES, weights=weights), folder)
    return run_graph(session, {name: ids if name == "input_ids" else np.ones_like(ids) for name in GRAPH_INPUTS})


@pytest.fixture
def both(tmp_path: Path) -> tuple[Path, Path, dict[str, np.ndarray]]:
    """Folders of an fp32 graph and of its int8 graph, and the weights."""
    weights = write_dense_graph(tmp_path / "fp32")
    (tmp_path / "int8").mkdir()
    write_int8_graph(tmp_path / "fp32" / GRAPH_FILE, tmp_path / "int8", least_table=WORDS * WIDTH)
    return tmp_path / "fp32", tmp_path / "int8", weights


def rounded_rows(values: np.ndarray) -> np.ndarray:
    """Return values as 8 bits with one scale a row (the last axis) show them."""
    scale = np.abs(values).max(axis=-1, keepdims=True) / 127
    return np.asarray(np.rint(values / scale) * scale)


def test_graph_computes_what_a_plain_calculation_with_rounded_numbers_gives(
    both: tuple[Path, Path, dict[str, np.ndarray]],
) -> None:
    _, int8, weights = both
    ids = np.array([[3, 5, 8], [1, 2, 59]])
    states = rounded_rows(weights["table"])[ids]
    columns = {}
    for name, matrix in (("one", weights["one"].T), ("two", weights["two"])):
        numbers, scale = round_columns(matrix)
        columns[name] = numbers * scale
    product = (rounded_rows(states) @ columns["one"] + weights["one.bias"]) * (rounded_rows(states) @ columns["two"])
    pooled = product.mean(axis=1)
    found = run(int8, ids, [INT8_WEIGHTS])
    np.testing.assert_allclose(found["pooled"], pooled, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found["logits"], pooled @ weights["head"].T, rtol=1e-4, atol=1e-3)


def test_int8_is_near_fp32_and_does_not_depend_on_the_batch(both: tuple[Path, Path, dict[str, np.ndarray]]) -> None:
    fp32, int8, _ = both
    ids = np.random.default_rng(1).integers(0, WORDS, (9, 7))
    expected, found = run(fp32, ids), run(int8, ids, [INT8_WEIGHTS])
    assert 0 < np.abs(found["logits"] - expected["logits"]).max() < 0.05 * np.abs(expected["logits"]).max()
    for row in range(len(ids)):
        alone = run(int8, ids[row : row + 1], [INT8_WEIGHTS])
        np.testing.assert_allclose(alone["logits"][0], found["logits"][row], rtol=1e-5, atol=1e-4)


def test_everything_is_in_the_folder_and_what_is_rounded_takes_a_fourth(
    both: tuple[Path, Path, dict[str, np.ndarray]],
) -> None:
    fp32, int8, weights = both
    assert {path.name for path in int8.iterdir()} == {GRAPH_FILE, INT8_WEIGHTS}
    for path in fp32.iterdir():
        path.unlink()
    run(int8, np.array([[1, 2]]), [INT8_WEIGHTS])
    stored = load_file(int8 / INT8_WEIGHTS)
    assert {name: array.dtype.name for name, array in stored.items() if array.size > 1000} == {
        "table.int8": "int8",
        "one.transposed.int8": "int8",
        "two.int8": "int8",
    }
    inside = {tensor.name for tensor in load_model(int8).graph.initializer if not tensor.data_location}
    assert {"head", "logit_scale"} <= inside | set(stored)
    kinds = [node.op_type for node in load_model(int8).graph.node]
    assert kinds.count("QuantizeLinear") == 1, "two products of one input round it once"
    assert kinds.count("MatMulIntegerToFloat") == 2
    assert kinds.count("Gemm") == 1, "the head stays fp32"
    assert "Transpose" not in kinds
    np.testing.assert_array_equal(stored.get("head", weights["head"]), weights["head"])


def test_same_graph_gives_the_same_bytes(tmp_path: Path) -> None:
    write_dense_graph(tmp_path)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_int8_graph(tmp_path / GRAPH_FILE, tmp_path / name)
    for file in (GRAPH_FILE, INT8_WEIGHTS):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_logits_are_multiplied(both: tuple[Path, Path, dict[str, np.ndarray]]) -> None:
    _, int8, _ = both
    ids = np.array([[4, 5]])
    before = run(int8, ids, [INT8_WEIGHTS])
    multiply_logits(int8 / GRAPH_FILE, 0.8)
    after = run(int8, ids, [INT8_WEIGHTS])
    np.testing.assert_allclose(after["logits"], before["logits"] * np.float32(0.8), rtol=1e-6)
    np.testing.assert_array_equal(after["pooled"], before["pooled"])


def test_files_with_a_second_name_are_read(tmp_path: Path) -> None:
    """The files of a staged bundle are hard links; the library `onnx` refuses to read their tensors."""
    write_dense_graph(tmp_path / "fp32")
    (tmp_path / "second").hardlink_to(tmp_path / "fp32" / "model.safetensors")
    (tmp_path / "int8").mkdir()
    assert write_int8_graph(tmp_path / "fp32" / GRAPH_FILE, tmp_path / "int8").products == 2


def test_rows_of_zeros_stay_zeros(tmp_path: Path) -> None:
    weights = write_dense_graph(tmp_path / "fp32")
    save_file(weights | {"table": np.zeros_like(weights["table"])}, tmp_path / "fp32" / "model.safetensors")
    (tmp_path / "int8").mkdir()
    write_int8_graph(tmp_path / "fp32" / GRAPH_FILE, tmp_path / "int8", least_table=0)
    assert np.isfinite(run(tmp_path / "int8", np.array([[1, 2]]), [INT8_WEIGHTS])["logits"]).all()


def test_nothing_to_round_is_refused(tmp_path: Path) -> None:
    folder = write_small_graph(tmp_path / "small")
    with pytest.raises(BundleError, match="nothing that int8 would make faster or smaller"):
        write_int8_graph(folder / GRAPH_FILE, tmp_path)


def test_old_version_of_onnx_is_refused(tmp_path: Path) -> None:
    write_dense_graph(tmp_path, opset=17)
    with pytest.raises(BundleError, match="opset 18 or later"):
        write_int8_graph(tmp_path / GRAPH_FILE, tmp_path)


@given(
    st.integers(1, 9),
    st.integers(1, 4),
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.0, 1.0, 1e30, 1e-35]),
)
def test_no_sum_of_two_neighbors_leaves_16_bits(rows: int, columns: int, seed: int, outlier: float) -> None:
    weights = np.random.default_rng(seed).standard_cauchy((rows, columns)).astype(np.float32)
    weights[0, 0] = outlier
    numbers, scale = round_columns(weights)
    pairs = np.pad(numbers.astype(np.int64), ((0, rows % 2), (0, 0))).reshape(-1, 2, columns)
    assert (255 * np.maximum(pairs, 0).sum(axis=1)).max() <= 2**15 - 1
    assert (255 * np.minimum(pairs, 0).sum(axis=1)).min() >= -(2**15)
    assert (np.abs(weights - numbers * scale) <= scale * 0.5001 + 1e-30).all()


@pytest.mark.parametrize(("family", "products"), [("bert", 12), ("albert", 6 + 1)])
def test_exported_family_gets_8_bits(family: str, products: int, bases: Callable[..., Path], tmp_path: Path) -> None:
    """ALBERT's layers share their weights, which are stored once."""
    prove_network(bases(family), tmp_path, "linear")
    (tmp_path / "int8").mkdir()
    made = write_int8_graph(tmp_path / GRAPH_FILE, tmp_path / "int8", least_table=1000)
    stored: dict[str, Any] = load_file(tmp_path / "int8" / INT8_WEIGHTS)
    assert made.tables >= 1
    assert sum(name.endswith(".int8") for name in stored) <= products + made.tables <= 20
    ids = np.array([[5, 9, 12, 7]])
    inputs = [entry.name for entry in onnx.load(tmp_path / GRAPH_FILE, load_external_data=False).graph.input]
    batch = {name: ids if name == "input_ids" else np.ones_like(ids) * (name == "attention_mask") for name in inputs}
    logits = [
        run_graph(open_graph(read_checked_graph(folder, classes=3, weights=[INT8_WEIGHTS]), folder), batch)["logits"]
        for folder in (tmp_path, tmp_path / "int8")
    ]
    assert np.abs(logits[0] - logits[1]).max() < 0.15 * np.abs(logits[0]).max()
