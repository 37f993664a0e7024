"""Graphs are parsed as the `onnx` package parses them, and parts that no bundle has are refused."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from helpers.graphs import small_model, write_weights
from onnx import TensorProto, helper

from fullbake.core.json_files import ShapeFault
from fullbake.models import onnx_format
from fullbake.models.onnx_format import parse_graph


@pytest.fixture
def model(tmp_path: Path) -> Any:
    write_weights(tmp_path)
    return small_model(tmp_path)


def test_parsed_graph_is_the_same(model: Any) -> None:
    parsed = parse_graph(model.SerializeToString())
    assert [node.op_type for node in parsed.graph.node] == ["Gather", "ReduceMean", "Gemm"]
    assert onnx.load_from_string(parsed.SerializeToString()) == model


def test_declared_fields_are_those_of_onnx() -> None:
    """Names and numbers of fields are compared with the package's own description of the format."""
    ours = {"Model": "ModelProto", "OperatorSet": "OperatorSetIdProto", "Entry": "StringStringEntryProto"}
    ours |= {"Value": "ValueInfoProto", "Type": "TypeProto", "TensorType": "TypeProto.Tensor"}
    ours |= {"TensorShape": "TensorShapeProto", "Dimension": "TensorShapeProto.Dimension"}
    for name, fields in onnx_format._MESSAGES.items():
        cls: Any = onnx
        for part in ours.get(name, f"{name}Proto").split("."):
            cls = getattr(cls, part)
        for field, (number, kind) in fields.items():
            declared = cls.DESCRIPTOR.fields_by_name[field]
            assert declared.number == number, (name, field)
            assert declared.is_repeated == kind.endswith("*"), (name, field)


def add_function(model: Any) -> None:
    model.functions.add(name="f", domain="d")


def add_graph_attribute(model: Any) -> None:
    model.graph.node[0].attribute.append(helper.make_attribute("then_branch", model.graph))


def add_sparse(model: Any) -> None:
    model.graph.sparse_initializer.add()


def add_training(model: Any) -> None:
    model.training_info.add()


def add_metadata(model: Any) -> None:
    model.metadata_props.add(key="ort_config", value="{}")


def add_docstring(model: Any) -> None:
    model.graph.node[0].doc_string = "words"


def add_strings(model: Any) -> None:
    model.graph.initializer.append(helper.make_tensor("words", TensorProto.STRING, [1], [b"word"]))


def add_float_data(model: Any) -> None:
    model.graph.initializer.append(helper.make_tensor("numbers", TensorProto.FLOAT, [1], np.ones(1, np.float32)))


CHANGES = (add_function, add_graph_attribute, add_sparse, add_training, add_metadata, add_docstring, add_strings)


@pytest.mark.parametrize("change", [*CHANGES, add_float_data])
def test_parts_that_no_bundle_has_are_refused(change: Any, model: Any) -> None:
    change(model)
    with pytest.raises(ShapeFault, match="functions, graphs in attributes"):
        parse_graph(model.SerializeToString())


@pytest.mark.parametrize("content", [b"words", b"\xff" * 20, b"\x12\x01\xff", b"\x3b" * 5000])
def test_other_bytes_are_refused(content: bytes) -> None:
    with pytest.raises(ShapeFault, match="an ONNX file"):
        parse_graph(content)


def test_empty_file_has_nothing() -> None:
    assert not parse_graph(b"").graph.node
