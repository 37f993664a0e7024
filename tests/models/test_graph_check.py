"""A stranger's graph: right ones pass, and everything else is a BundleError before onnxruntime sees it."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from helpers.graphs import CLASSES, WEIGHTS, load_model, write_small_graph, write_weights
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from fullbake.core.errors import BundleError
from fullbake.models.graph_check import (
    GRAPH_FILE,
    MICROSOFT_OPERATORS,
    MOST_GRAPH_BYTES,
    MOST_NODES,
    OPSETS,
    STANDARD_OPERATORS,
    find_weight_names,
    read_checked_graph,
    read_checked_standalone,
)

Change = Callable[[Any], object]


def check(folder: Path) -> Any:
    return read_checked_graph(folder, classes=CLASSES)


def test_right_graph_passes(tmp_path: Path) -> None:
    found = check(write_small_graph(tmp_path))
    assert found.inputs == ("input_ids", "attention_mask", "token_type_ids")
    assert found.files == (WEIGHTS,)
    assert found.nodes == 3
    assert onnx.load_from_string(found.content) == load_model(tmp_path)


def test_graph_without_segments_passes(tmp_path: Path) -> None:
    write_small_graph(tmp_path, lambda model: model.graph.input.pop())
    assert check(tmp_path).inputs == ("input_ids", "attention_mask")


def test_int8_node_passes(tmp_path: Path) -> None:
    def change(model: Any) -> None:
        node = model.graph.node.add(op_type="MatMulIntegerToFloat", domain="com.microsoft")
        node.input.append("states")
        node.output.append("more")
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))

    assert check(write_small_graph(tmp_path, change)).nodes == 4


def test_known_operators_exist() -> None:
    known = {schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == ""}
    assert known >= STANDARD_OPERATORS
    assert not STANDARD_OPERATORS & {"If", "Loop", "Scan", "RandomNormal", "RandomUniform", "Bernoulli", "Multinomial"}
    assert not MICROSOFT_OPERATORS & STANDARD_OPERATORS


def test_versions_of_operators_are_known() -> None:
    assert onnx.defs.onnx_opset_version() >= OPSETS[-1]


def set_place(key: str, value: str, tensor: int = 0) -> Change:
    def change(model: Any) -> None:
        for entry in model.graph.initializer[tensor].external_data:
            if entry.key == key:
                entry.value = value

    return change


def edit(words: str) -> Change:
    """Return a change that runs a line of Python on the model `m` and its graph `g`."""
    return lambda model: exec(words, {"m": model, "g": model.graph, "helper": helper, "np": numpy_helper})


WRONG: dict[str, tuple[Change, str]] = {
    "elsewhere": (set_place("location", "/etc/passwd"), "weights in 'model.safetensors'"),
    "above": (set_place("location", "../model.safetensors"), "weights in 'model.safetensors'"),
    "own file": (set_place("location", GRAPH_FILE), "weights in 'model.safetensors'"),
    "tokenizer": (set_place("location", "tokenizer.json"), "weights in 'model.safetensors'"),
    "beyond": (set_place("offset", "99999999"), "a tensor F32 (50, 4) of model.safetensors"),
    "header": (set_place("offset", "0"), "a tensor F32 (50, 4)"),
    "negative": (set_place("offset", "-8"), "whole numbers"),
    "hexadecimal": (set_place("offset", "0x10"), "whole numbers"),
    "many digits": (set_place("offset", "9" * 30), "whole numbers"),
    "longer": (set_place("length", "804"), "a tensor F32 (50, 4)"),
    "half a tensor": (edit("g.initializer[0].dims[:] = [25, 4]"), "a tensor F32 (25, 4)"),
    "turned": (edit("g.initializer[0].dims[:] = [4, 50]"), "a tensor F32 (4, 50)"),
    "other type": (edit("g.initializer[0].data_type = 6"), "a tensor I32 (50, 4)"),
    "checksum": (edit("g.initializer[0].external_data.add(key='checksum', value='0')"), "location, offset and length"),
    "twice": (edit("g.initializer[0].external_data.add(key='offset', value='0')"), "location, offset and length"),
    "both": (edit("g.initializer[0].raw_data = bytes(800)"), "inside the graph or in a file"),
    "too few bytes": (edit("g.initializer[3].raw_data = bytes(4)"), "8 bytes inside the graph"),
    "negative size": (edit("g.initializer[3].dims[:] = [-1]"), "sizes of 0 and more"),
    "huge size": (edit("g.initializer[3].dims[:] = [2**62, 2**62]"), "bytes inside the graph"),
    "many sizes": (edit("g.initializer[3].dims[:] = [1] * 17"), "at most 16 sizes"),
    "complex": (edit("g.initializer[3].data_type = 14"), "one of the types"),
    "one name twice": (edit("g.initializer[1].name = 'table'"), "each once"),
    "no name": (edit("g.initializer[3].name = ''"), "each once"),
    "name of an input": (edit("g.initializer[3].name = 'input_ids'"), "each once"),
    "long name": (edit("g.initializer[3].name = 'a' * 1001"), "at most 1000 characters"),
    "output twice": (edit("g.node[1].output[0] = 'states'"), "each once"),
    "backwards": (edit("g.node[0].input[1] = 'logits'"), "computed before it"),
    "control flow": (edit("g.node[0].op_type = 'Loop'"), "operators that graphs of classifiers have"),
    "random": (edit("g.node[0].op_type = 'RandomNormalLike'"), "operators that graphs of classifiers have"),
    "other domain": (edit("g.node[0].domain = 'ai.onnx.ml'"), "operators that graphs of classifiers have"),
    "python": (edit("g.node[0].op_type, g.node[0].domain = 'PyOp', 'pyopmulti'"), "operators that graphs"),
    "domain not named": (
        edit("g.node[0].op_type, g.node[0].domain = 'MatMulIntegerToFloat', 'com.microsoft'"),
        "operators that graphs of classifiers have",
    ),
    "domain imported": (edit("m.opset_import.append(helper.make_opsetid('evil', 1))"), "the domains"),
    "domain twice": (edit("m.opset_import.append(helper.make_opsetid('', 20))"), "the domains"),
    "old operators": (edit("m.opset_import[0].version = 11"), "a version from 17"),
    "new operators": (edit("m.opset_import[0].version = 99"), "a version from 17"),
    "old format": (edit("m.ir_version = 3"), "8 to 13"),
    "more inputs": (edit("g.input.append(helper.make_tensor_value_info('more', 7, [None, None]))"), "input_ids"),
    "input of floats": (edit("g.input[0].type.tensor_type.elem_type = 1"), "int64 (batch, tokens)"),
    "fixed batch": (edit("g.input[0].type.tensor_type.shape.dim[0].dim_value = 1"), "int64 (batch, tokens)"),
    "three dimensions": (edit("g.input[0].type.tensor_type.shape.dim.add()"), "int64 (batch, tokens)"),
    "other outputs": (edit("g.output[0].name = 'scores'"), "logits, pooled"),
    "fixed outputs": (edit("g.output[0].type.tensor_type.shape.dim[0].dim_value = 1"), "float32 (batch, 3)"),
    "more classes": (edit("g.output[0].type.tensor_type.shape.dim[1].dim_value = 4"), "float32 (batch, 3)"),
    "output of ints": (edit("g.output[1].type.tensor_type.elem_type = 7"), "float32 (batch, width)"),
    "nothing computed": (edit("del g.node[:]"), "one that computes 'logits'"),
    "attribute of two values": (edit("g.node[2].attribute[0].f = 1.0"), "an attribute of one value"),
    "attribute of a tensor elsewhere": (
        edit("a = g.node[0].attribute.add(name='value', type=4); a.t.CopyFrom(g.initializer[0])"),
        "weights in the graph",
    ),
    "attribute of a graph's type": (edit("g.node[0].attribute.add(name='a', type=5)"), "as attribute"),
    "attribute without a type": (edit("g.node[0].attribute.add(name='a', i=1)"), "as attribute"),
    "reference": (edit("g.node[0].attribute.add(name='a', ref_attr_name='b')"), "parts of a bundle's graph"),
    "long list": (edit("g.node[0].attribute.append(helper.make_attribute('a', list(range(1001))))"), "at most 1,000"),
    "many operands": (edit("g.node[0].input.extend(['axes'] * 1001)"), "at most 1,000"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_graph_is_refused(name: str, tmp_path: Path) -> None:
    change, expected = WRONG[name]
    write_small_graph(tmp_path, change)
    with pytest.raises(BundleError) as error:
        check(tmp_path)
    assert expected in str(error.value)
    assert "fullbake export BUNDLE" in str(error.value)


def test_too_many_nodes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fullbake.models.graph_check.MOST_NODES", 2)
    with pytest.raises(BundleError, match="at most 2; got 3"):
        check(write_small_graph(tmp_path))
    assert MOST_NODES > 10_000


def test_large_file_is_refused_unread(tmp_path: Path) -> None:
    write_small_graph(tmp_path)
    with (tmp_path / GRAPH_FILE).open("r+b") as file:
        file.truncate(MOST_GRAPH_BYTES + 1)
    with pytest.raises(BundleError, match="at most 64,000,000 bytes"):
        check(tmp_path)


def test_missing_graph_and_folder_in_its_place_are_refused(tmp_path: Path) -> None:
    write_weights(tmp_path)
    with pytest.raises(BundleError, match="cannot be read"):
        check(tmp_path)
    (tmp_path / GRAPH_FILE).mkdir()
    with pytest.raises(BundleError, match="a plain file"):
        check(tmp_path)


def test_weights_file_of_another_layout_is_refused(tmp_path: Path) -> None:
    write_small_graph(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    write_weights(other, "longer-name.safetensors")
    from safetensors.numpy import save_file

    save_file({"table": np.zeros((50, 5), np.float32)}, tmp_path / WEIGHTS)
    with pytest.raises(BundleError, match=r"a tensor F32 \(50, 4\)"):
        check(tmp_path)


def test_shards_of_an_index_may_be_read_and_no_others(tmp_path: Path) -> None:
    write_small_graph(tmp_path, set_place("location", "model-00001.safetensors"))
    (tmp_path / WEIGHTS).rename(tmp_path / "model-00001.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"table": "model-00001.safetensors"}}')
    assert find_weight_names(tmp_path) == ["model-00001.safetensors"]
    with pytest.raises(BundleError, match=r"weights in 'model-00001\.safetensors'"):
        check(tmp_path)  # the other two tensors still name model.safetensors
    for content in ('{"weight_map": {"a": "../m.safetensors"}}', '{"weight_map": {"a": "m.bin"}}', "[]", "{"):
        index.write_text(content)
        with pytest.raises(BundleError):
            check(tmp_path)


def test_standalone_holds_its_weights(tmp_path: Path) -> None:
    write_small_graph(tmp_path)
    model = onnx.load(tmp_path / GRAPH_FILE)
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name))
    (tmp_path / "whole.onnx").write_bytes(model.SerializeToString())
    assert read_checked_standalone(tmp_path / "whole.onnx", classes=CLASSES).files == ()
    with pytest.raises(BundleError, match="weights in the graph"):
        read_checked_standalone(tmp_path / GRAPH_FILE, classes=CLASSES)
    with pytest.raises(BundleError, match="cannot be read"):
        read_checked_standalone(tmp_path / "none.onnx", classes=CLASSES)


# Damaged bytes


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a right graph; tests copy it."""
    return write_small_graph(tmp_path_factory.mktemp("right"))


@settings(max_examples=400)
@given(data=st.data())
def test_damaged_bytes_give_a_bundle_error_and_nothing_else(data: st.DataObject, right: Path) -> None:
    content = bytearray((right / GRAPH_FILE).read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(content) - 1))
        action = data.draw(st.sampled_from(["set", "delete", "insert", "cut", "repeat"]))
        if action == "set":
            content[place] = data.draw(st.integers(0, 255))
        elif action == "delete":
            del content[place : place + data.draw(st.integers(1, 40))]
        elif action == "insert":
            content[place:place] = data.draw(st.binary(min_size=1, max_size=20))
        elif action == "cut":
            del content[place:]
        else:
            content += content[place:]
        content = content or bytearray(b"\0")
    folder = right.parent / "damaged"
    shutil.copytree(right, folder, dirs_exist_ok=True)
    (folder / GRAPH_FILE).write_bytes(content)
    try:
        found = check(folder)
    except BundleError:
        return
    # what still passes reads nothing but the bundle's own weights
    model = onnx.load_from_string(found.content)
    assert {tensor.data_location for tensor in model.graph.initializer} <= {0, TensorProto.EXTERNAL}
    assert set(found.files) <= {WEIGHTS}


@settings(max_examples=100)
@given(content=st.binary(max_size=300))
def test_random_bytes_give_a_bundle_error(content: bytes, right: Path) -> None:
    folder = right.parent / "random"
    shutil.copytree(right, folder, dirs_exist_ok=True)
    (folder / GRAPH_FILE).write_bytes(content)
    with pytest.raises(BundleError):
        check(folder)
