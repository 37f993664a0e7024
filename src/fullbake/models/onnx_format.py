"""The part of the ONNX file format that the graphs of bundles have, declared for the `protobuf` library.

A light install has onnxruntime, which brings `protobuf`, but not the `onnx` package. So the messages that a graph may
hold are declared here, with the field numbers of onnx.proto (ONNX IR version 10). What a bundle's graph never has is
left out on purpose: functions, graphs within attributes, training, sparse tensors, docstrings, metadata. A file with
such a part has fields that are not declared, and `parse_graph` refuses it. Without graphs within attributes no message
holds a message of its own kind, so the depth is bounded by the declaration.
"""

from functools import cache
from typing import Any, Final

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from fullbake.core.json_files import ShapeFault

_KINDS: Final = {
    "int64": FieldDescriptorProto.TYPE_INT64,
    "int32": FieldDescriptorProto.TYPE_INT32,
    "float": FieldDescriptorProto.TYPE_FLOAT,
    "string": FieldDescriptorProto.TYPE_STRING,
    "bytes": FieldDescriptorProto.TYPE_BYTES,
}

_MESSAGES: Final[dict[str, dict[str, tuple[int, str]]]] = {
    "Model": {
        "ir_version": (1, "int64"),
        "producer_name": (2, "string"),
        "producer_version": (3, "string"),
        "graph": (7, "Graph"),
        "opset_import": (8, "OperatorSet*"),
    },
    "OperatorSet": {"domain": (1, "string"), "version": (2, "int64")},
    "Graph": {
        "node": (1, "Node*"),
        "name": (2, "string"),
        "initializer": (5, "Tensor*"),
        "input": (11, "Value*"),
        "output": (12, "Value*"),
    },
    "Node": {
        "input": (1, "string*"),
        "output": (2, "string*"),
        "name": (3, "string"),
        "op_type": (4, "string"),
        "attribute": (5, "Attribute*"),
        "domain": (7, "string"),
    },
    "Attribute": {
        "name": (1, "string"),
        "f": (2, "float"),
        "i": (3, "int64"),
        "s": (4, "bytes"),
        "t": (5, "Tensor"),
        "floats": (7, "float*"),
        "ints": (8, "int64*"),
        "type": (20, "int32"),  # an enum in onnx.proto, which has the same bytes
    },
    "Tensor": {
        "dims": (1, "int64*"),
        "data_type": (2, "int32"),
        "name": (8, "string"),
        "raw_data": (9, "bytes"),
        "external_data": (13, "Entry*"),
        "data_location": (14, "int32"),
    },
    "Entry": {"key": (1, "string"), "value": (2, "string")},
    "Value": {"name": (1, "string"), "type": (2, "Type")},
    "Type": {"tensor_type": (1, "TensorType")},
    "TensorType": {"elem_type": (1, "int32"), "shape": (2, "TensorShape")},
    "TensorShape": {"dim": (1, "Dimension*")},
    "Dimension": {"dim_value": (1, "int64"), "dim_param": (2, "string")},
}
"""Message -> name of a field -> its number in onnx.proto and its type; `*` marks a list."""

_PACKAGE: Final = "fullbake_onnx"


def parse_graph(content: bytes) -> Any:
    """Return a model as a message with the fields of `_MESSAGES`.

    Args:
        content: The bytes of a file.

    Raises:
        ShapeFault: It is no ONNX file, or has a part that is not declared here.
    """
    model = _model_class()()
    try:
        model.ParseFromString(content)
    except DecodeError as error:
        raise ShapeFault("", "an ONNX file", str(error)[:80]) from error
    size = model.ByteSize()
    model.DiscardUnknownFields()
    if model.ByteSize() != size:
        raise ShapeFault("", "the parts of a bundle's graph alone", "functions, graphs in attributes, or other parts")
    return model


@cache
def _model_class() -> Any:
    """Return the class of the message Model. Its pool is its own: the `onnx` package may be loaded beside it."""
    pool = DescriptorPool()
    pool.Add(
        FileDescriptorProto(
            name=f"{_PACKAGE}.proto",
            package=_PACKAGE,
            syntax="proto3",
            message_type=[_declare(name) for name in _MESSAGES],
        )
    )
    return GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.Model"))


def _declare(name: str) -> DescriptorProto:
    message = DescriptorProto(name=name)
    for field, (tag, kind) in _MESSAGES[name].items():
        word = kind.removesuffix("*")
        listed = kind.endswith("*")
        declared = message.field.add(
            name=field,
            number=tag,
            label=FieldDescriptorProto.LABEL_REPEATED if listed else FieldDescriptorProto.LABEL_OPTIONAL,
            type=_KINDS.get(word, FieldDescriptorProto.TYPE_MESSAGE),
        )
        if word not in _KINDS:
            declared.type_name = f".{_PACKAGE}.{word}"
        elif not listed:
            # A field of its own oneof remembers that it was written, also where its value is 0: ONNX asks for that.
            declared.proto3_optional = True
            declared.oneof_index = len(message.oneof_decl)
            message.oneof_decl.add(name=f"_{field}")
    return message
