"""Constants of a graph that equal stored tensors are read from their file, also transposed ones and those of shards."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file

from fullbake.core.errors import BundleError
from fullbake.models import graph_weights
from fullbake.models.graph_weights import bind_weights, store_inside

RANDOM = np.random.default_rng(0)
ARRAYS = {name: RANDOM.normal(size=shape).astype(np.float32) for name, shape in {"a": (8, 16), "b": (20, 8)}.items()}
ARRAYS["small"] = np.ones(4, np.float32)
CODES = {"codes": RANDOM.integers(-127, 127, (40, 16)).astype(np.int8), "rows": np.arange(300, dtype=np.int32)}


def graph_of(arrays: dict[str, np.ndarray]) -> Any:
    """Return a model that has these constants."""
    tensors = [numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in arrays.items()]
    nodes = [helper.make_node("Identity", [name], [f"{name}.out"]) for name in arrays]
    return helper.make_model(helper.make_graph(nodes, "g", [], [], tensors))


def values_of(model: Any, folder: Path) -> dict[str, np.ndarray]:
    """Return what the Identity nodes of the model give, with its weights read from the folder."""
    for name in list(ARRAYS):
        model.graph.output.append(helper.make_tensor_value_info(f"{name}.out", TensorProto.FLOAT, None))
    onnx.save(model, folder / "g.onnx")
    import onnxruntime

    session = onnxruntime.InferenceSession(folder / "g.onnx", providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return {name.removesuffix(".out"): found for name, found in zip(names, session.run(None, {}), strict=True)}


@pytest.mark.parametrize("shards", [False, True])
def test_constants_are_read_from_the_files(shards: bool, tmp_path: Path) -> None:
    if shards:
        save_file({"a": ARRAYS["a"]}, tmp_path / "one.safetensors")
        save_file({"b": ARRAYS["b"]}, tmp_path / "two.safetensors")
        places = '{"metadata": {}, "weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}'
        (tmp_path / "model.safetensors.index.json").write_text(places)
    else:
        save_file(ARRAYS, tmp_path / "model.safetensors")
    model = graph_of({"a": ARRAYS["a"], "b": ARRAYS["b"].T, "small": ARRAYS["small"]})
    bind_weights(model, tmp_path)
    places = {tensor.name: bool(tensor.data_location) for tensor in model.graph.initializer}
    assert places == {"a": True, "b.stored": True, "small": False}
    assert model.graph.node[0].op_type == "Transpose"
    found = values_of(model, tmp_path)
    for name, array in {"a": ARRAYS["a"], "b": ARRAYS["b"].T, "small": ARRAYS["small"]}.items():
        np.testing.assert_array_equal(found[name], array)


def test_tied_constants_read_the_same_tensor(tmp_path: Path) -> None:
    save_file(ARRAYS, tmp_path / "model.safetensors")
    model = graph_of({"first": ARRAYS["a"], "second": ARRAYS["a"]})
    bind_weights(model, tmp_path)
    first, second = ([(e.key, e.value) for e in tensor.external_data] for tensor in model.graph.initializer)
    assert first == second


def test_whole_numbers_are_read_from_the_file_too(tmp_path: Path) -> None:
    """A student's table is int8. A constant of the same bytes and another type is another constant."""
    save_file(CODES, tmp_path / "model.safetensors")
    model = graph_of({**CODES, "others": CODES["codes"].view(np.uint8)})
    bind_weights(model, tmp_path)
    assert [bool(tensor.data_location) for tensor in model.graph.initializer] == [True, True, False]


def test_few_constants_that_no_file_has_stay_inside_and_many_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file(ARRAYS, tmp_path / "model.safetensors")
    other = {"table of positions": np.arange(200, dtype=np.float32)}
    model = graph_of(other)
    bind_weights(model, tmp_path)
    assert model.graph.initializer[0].raw_data == other["table of positions"].tobytes()
    monkeypatch.setattr(graph_weights, "_MOST_INSIDE", 799)
    with pytest.raises(BundleError, match="table of positions") as error:
        bind_weights(graph_of(other), tmp_path)
    assert "--standalone" in str(error.value)


def test_standalone_graph_has_a_largest_size(monkeypatch: pytest.MonkeyPatch) -> None:
    model = graph_of(ARRAYS)
    store_inside(model)
    monkeypatch.setattr(graph_weights, "MOST_STANDALONE_BYTES", 1_000)
    with pytest.raises(BundleError, match="too many for one file"):
        store_inside(model)
