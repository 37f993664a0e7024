"""Check the ONNX graph of a bundle before onnxruntime sees it.

A bundle may come from anybody. onnxruntime is a C++ library that trusts its files more than fullbake trusts a bundle,
so the graph is parsed here first and held to what `graph_export` writes: known operators of the standard domain, the
inputs and outputs of the contract, and weights that are whole tensors of the bundle's own safetensors files. The bytes
that onnxruntime gets are written again from what was checked, so there is no part that only one of the two parsers
sees. Nothing heavy is imported: this runs at every start of a light install.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fullbake.core.errors import BundleError
from fullbake.core.json_files import ShapeFault, check_plain_file, parse_checked_json
from fullbake.models.onnx_format import parse_graph
from fullbake.models.weight_headers import StoredTensor, read_weight_header

GRAPH_FILE: Final = "model.onnx"

GRAPH_INPUTS: Final = ("input_ids", "attention_mask", "token_type_ids")
"""Inputs of a graph, int64 (batch, tokens). The last one is there where the base has segments."""

GRAPH_OUTPUTS: Final = ("logits", "pooled")
"""Outputs of a graph, float32: (batch, classes), and (batch, width) of what the head reads."""

OPSETS: Final = range(17, 24)
"""Versions of the standard operators that a graph may ask for. 17 is the first one with LayerNormalization."""

MOST_GRAPH_BYTES: Final = 64_000_000
"""Largest model.onnx. One of six layers has 0.3 MB, one of 24 layers 2 MB."""

MOST_STANDALONE_BYTES: Final = 2**31 - 1
"""Largest file that protobuf reads, so the largest graph with its weights inside."""

MOST_NODES: Final = 100_000
MOST_OPERANDS: Final = 1_000
"""Inputs and outputs of one node, and numbers in one of its attributes."""

LONGEST_NAME: Final = 1_000
MOST_DIMENSIONS: Final = 16

STANDARD_OPERATORS: Final = frozenset(
    """
    Abs Add And ArgMax ArgMin AveragePool BatchNormalization Cast Ceil Celu Clip Concat Constant ConstantOfShape Conv
    Cos CumSum DequantizeLinear Div DynamicQuantizeLinear Einsum Elu Equal Erf Exp Expand Floor Gather GatherElements
    GatherND Gelu Gemm GlobalAveragePool Greater GreaterOrEqual GroupNormalization HardSigmoid HardSwish Identity
    InstanceNormalization IsInf IsNaN LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax MatMul MatMulInteger
    Max Min Mish Mod Mul Neg NonZero Not OneHot Or Pad Pow QuantizeLinear Range Reciprocal ReduceL1 ReduceL2
    ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Round
    RMSNormalization ScatterElements ScatterND Selu Shape Shrink Sigmoid Sign Sin Size Slice Softmax Softplus Softsign
    Split Sqrt Squeeze Sub Sum Tan Tanh ThresholdedRelu Tile TopK Transpose Trilu Unsqueeze Where Xor
    """.split()  # noqa: SIM905
)
"""Operators that graphs of the families have, and their neighbors. Each is a pure function of tensors: none loops,
draws at random, reads a file or calls another graph."""

MICROSOFT_OPERATORS: Final = frozenset(("MatMulIntegerToFloat",))
"""Operators of onnxruntime's own domain that int8 graphs have."""

_DOMAINS: Final[Mapping[str, frozenset[str]]] = {"": STANDARD_OPERATORS, "com.microsoft": MICROSOFT_OPERATORS}

_STORED_TYPES: Final[Mapping[int, tuple[str, int]]] = {
    1: ("F32", 4),
    2: ("U8", 1),
    3: ("I8", 1),
    6: ("I32", 4),
    7: ("I64", 8),
    9: ("BOOL", 1),
    10: ("F16", 2),
    11: ("F64", 8),
}
"""Type of a tensor in ONNX -> what safetensors calls it, and bytes of one number."""

_FLOAT, _INT64, _EXTERNAL = 1, 7, 1

_ATTRIBUTE_FIELDS: Final = {1: "f", 2: "i", 3: "s", 4: "t", 6: "floats", 7: "ints"}
"""Type of an attribute -> the field that holds its value. Graphs, sparse tensors and types are not among them."""

_DIGITS: Final = re.compile(r"[0-9]{1,18}")

_REMEDY: Final = "Copy the bundle again from an intact copy, or run `fullbake export BUNDLE` to write the graph anew."


@dataclass(frozen=True)
class CheckedGraph:
    """A graph that was found right."""

    content: bytes
    """The graph as onnxruntime is to read it."""

    inputs: tuple[str, ...]
    """Names of its inputs, those of GRAPH_INPUTS or all but the last."""

    opset: int
    nodes: int

    files: tuple[str, ...]
    """Names of the files with its weights, beside it."""


def read_checked_graph(
    folder: Path, *, classes: int, weights: Sequence[str] | None = None, name: str = GRAPH_FILE
) -> CheckedGraph:
    """Read the graph of a bundle and check it.

    Args:
        folder: The bundle, or a folder in it that has a graph and its weights.
        classes: Number of classes.
        weights: Names of the safetensors files that the graph may read. None: those of a bundle, which are
            model.safetensors, or the shards that its index names.
        name: The graph's file.

    Raises:
        BundleError: It cannot be read, or is not what a bundle has there.
    """
    path = folder / name
    try:
        check_plain_file(path, MOST_GRAPH_BYTES)
        return check_graph(path.read_bytes(), _read_headers(folder, weights), classes=classes)
    except ShapeFault as fault:
        raise _explain(path, fault) from fault
    except (OSError, ValueError) as error:
        raise BundleError(
            "the graph of the bundle cannot be read", where=str(path), got=str(error)[:300], remedy=_REMEDY
        ) from error


def read_checked_standalone(path: Path, *, classes: int) -> CheckedGraph:
    """Read a graph with its weights inside and check it. Arguments and errors: `read_checked_graph`."""
    try:
        check_plain_file(path, MOST_STANDALONE_BYTES)
        return check_graph(path.read_bytes(), {}, classes=classes)
    except ShapeFault as fault:
        raise _explain(path, fault) from fault
    except OSError as error:
        raise BundleError("the graph cannot be read", where=str(path), got=str(error)[:300]) from error


def _explain(path: Path, fault: ShapeFault) -> BundleError:
    return BundleError(
        f"{path.name} cannot be used",
        where=f"{path}, {fault.where}" if fault.where else str(path),
        expected=fault.expected,
        got=fault.got,
        remedy=_REMEDY,
    )


def find_weight_names(folder: Path) -> list[str]:
    """Return the names of a bundle's weight files: model.safetensors, or the shards that its index names.

    Raises:
        ShapeFault: The index names something else than plain names of safetensors files.
        OSError: There is neither.
        ValueError: The index is no JSON.
    """
    if (folder / "model.safetensors").is_file():
        return ["model.safetensors"]
    path = folder / "model.safetensors.index.json"
    check_plain_file(path, MOST_GRAPH_BYTES)
    index = parse_checked_json(path.read_bytes())
    places = index.get("weight_map") if isinstance(index, dict) else None
    names = sorted(set(map(str, places.values()))) if isinstance(places, dict) else []
    if not names or not all(map(_is_weights_name, names)):
        raise ShapeFault("weight_map of the index", "plain names of .safetensors files", json.dumps(names)[:80])
    return names


def _is_weights_name(name: str) -> bool:
    return name.endswith(".safetensors") and Path(name).name == name and "\\" not in name


def _read_headers(folder: Path, weights: Sequence[str] | None) -> dict[str, list[StoredTensor]]:
    """Return the tensors of each weights file, by the file's name."""
    names = find_weight_names(folder) if weights is None else weights
    return {name: list(read_weight_header(folder / name).values()) for name in names}


def check_graph(content: bytes, stored: Mapping[str, Sequence[StoredTensor]], *, classes: int) -> CheckedGraph:
    """Check a graph.

    Args:
        content: The bytes of its file.
        stored: The tensors of each weights file that it may read, by the file's name. {}: its weights are inside.
        classes: Number of classes.

    Raises:
        ShapeFault: It is not what a bundle has.
    """
    model = parse_graph(content)
    if not 8 <= model.ir_version <= 13:
        raise ShapeFault("ir_version", "8 to 13", str(model.ir_version))
    opset = _check_opsets(model.opset_import)
    graph = model.graph
    _check_count("nodes", len(graph.node), MOST_NODES)
    _check_count("initializers", len(graph.initializer), MOST_NODES)
    inputs = _check_inputs(graph.input)
    _check_outputs(graph.output, classes)
    known = {*inputs, ""}  # "" is an operand that is left out
    places = {file: {(tensor.offset, tensor.length): tensor for tensor in tensors} for file, tensors in stored.items()}
    used: set[str] = set()
    for tensor in graph.initializer:
        _add_name(known, tensor.name)
        file = _check_tensor(tensor, places)
        used |= {file} if file else set()
    domains = {entry.domain for entry in model.opset_import}
    for node in graph.node:
        _check_node(node, known, domains)
    missing = [name for name in GRAPH_OUTPUTS if name not in known]
    if missing:
        raise ShapeFault("nodes", f"one that computes {missing[0]!r}", "none")
    return CheckedGraph(
        model.SerializeToString(deterministic=True), inputs, opset, len(graph.node), tuple(sorted(used))
    )


def _check_opsets(entries: Sequence[Any]) -> int:
    """Check the versions of the operators. Return that of the standard ones."""
    versions = {entry.domain: entry.version for entry in entries}
    if len(versions) != len(entries) or not versions.keys() <= _DOMAINS.keys():
        raise ShapeFault("opset_import", f"the domains {_quoted(_DOMAINS)}", _quoted(versions))
    standard = versions.get("", 0)
    if standard not in OPSETS:
        raise ShapeFault("opset_import", f"a version from {OPSETS[0]} to {OPSETS[-1]}", str(standard))
    if versions.get("com.microsoft", 1) != 1:
        raise ShapeFault("opset_import", "version 1 of com.microsoft", str(versions["com.microsoft"]))
    return int(standard)


def _check_inputs(values: Sequence[Any]) -> tuple[str, ...]:
    names = tuple(value.name for value in values)
    if names not in (GRAPH_INPUTS, GRAPH_INPUTS[:2]):
        raise ShapeFault("inputs", f"{', '.join(GRAPH_INPUTS)}, the last one where the base has it", _quoted(names))
    for value in values:
        if _shape_of(value, _INT64) != [None, None]:
            raise ShapeFault(f"input {value.name}", "whole numbers, int64 (batch, tokens), both of any size")
    return names


def _check_outputs(values: Sequence[Any], classes: int) -> None:
    names = tuple(value.name for value in values)
    if names != GRAPH_OUTPUTS:
        raise ShapeFault("outputs", ", ".join(GRAPH_OUTPUTS), _quoted(names))
    for value, width in zip(values, (classes, None), strict=True):
        shape = _shape_of(value, _FLOAT)
        if shape is None or len(shape) != 2 or shape[0] is not None or (width and shape[1] not in (None, width)):
            raise ShapeFault(f"output {value.name}", f"numbers, float32 (batch, {width or 'width'})", str(shape))


def _shape_of(value: Any, kind: int) -> list[int | None] | None:
    """Return the sizes of an input or output, None for one that varies; None if it is no tensor of the type `kind`."""
    found = value.type.tensor_type
    if found.elem_type != kind:
        return None
    return [dim.dim_value if dim.HasField("dim_value") else None for dim in found.shape.dim]


def _check_tensor(tensor: Any, places: Mapping[str, Mapping[tuple[int, int], StoredTensor]]) -> str | None:
    """Check a constant tensor. Return the name of the file that holds it, None for one inside the graph."""
    where = f"tensor {tensor.name!r:.80}"
    kind, size = _STORED_TYPES.get(tensor.data_type, ("", 0))
    if not kind:
        raise ShapeFault(where, f"one of the types {', '.join(name for name, _ in _STORED_TYPES.values())}")
    dims = list(tensor.dims)
    if len(dims) > MOST_DIMENSIONS or any(dim < 0 for dim in dims):
        raise ShapeFault(where, f"at most {MOST_DIMENSIONS} sizes of 0 and more", str(dims)[:80])
    length = math.prod(dims) * size
    if not tensor.data_location:
        if len(tensor.external_data) or len(tensor.raw_data) != length:
            raise ShapeFault(where, f"{length:,} bytes inside the graph", f"{len(tensor.raw_data):,}")
        return None
    if tensor.data_location != _EXTERNAL or len(tensor.raw_data):
        raise ShapeFault(where, "data inside the graph or in a file")
    return _check_place(where, tensor.external_data, (kind, tuple(dims), length), places)


def _check_place(
    where: str,
    entries: Sequence[Any],
    wanted: tuple[str, tuple[int, ...], int],
    places: Mapping[str, Mapping[tuple[int, int], StoredTensor]],
) -> str:
    """Check that a tensor outside the graph is a whole tensor of one of the weights files. Return the file's name.

    Args:
        where: The tensor, for errors.
        entries: What the graph says of its place.
        wanted: Its type, shape and bytes.
        places: File -> (offset, bytes) -> the tensor there.
    """
    place = {entry.key: entry.value for entry in entries}
    if len(place) != len(entries) or place.keys() != {"location", "offset", "length"}:
        raise ShapeFault(where, "location, offset and length", _quoted(place))
    if place["location"] not in places:
        raise ShapeFault(where, f"weights in {_quoted(places) or 'the graph'}", repr(place["location"])[:80])
    if not all(_DIGITS.fullmatch(place[key]) for key in ("offset", "length")):
        raise ShapeFault(where, "whole numbers as offset and length")
    kind, shape, length = wanted
    found = places[place["location"]].get((int(place["offset"]), int(place["length"])))
    if found is None or (found.dtype, found.shape, found.length) != (kind, shape, length):
        got = "none there" if found is None else f"{found.dtype} {found.shape}"
        raise ShapeFault(where, f"a tensor {kind} {shape} of {place['location']}", got)
    return str(place["location"])


def _check_node(node: Any, known: set[str], domains: Iterable[str]) -> None:
    """Check a node, and add the names of what it computes to `known`."""
    operators = _DOMAINS.get(node.domain, frozenset())
    if node.op_type not in operators or node.domain not in domains:
        kind = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
        raise ShapeFault("nodes", "operators that graphs of classifiers have", repr(kind)[:80])
    where = f"a node {node.op_type}"
    _check_count(f"operands of {where}", max(len(node.input), len(node.output)), MOST_OPERANDS)
    early = [name for name in node.input if name not in known]
    if early:
        raise ShapeFault(where, "inputs that are computed before it", repr(early[0])[:80])
    for name in node.output:
        if name:
            _add_name(known, name)
    for attribute in node.attribute:
        _check_attribute(where, attribute)


def _check_attribute(where: str, attribute: Any) -> None:
    field = _ATTRIBUTE_FIELDS.get(attribute.type)
    if field is None:
        raise ShapeFault(where, "numbers, a word or a tensor as attribute", f"type {attribute.type}")
    set_fields = {descriptor.name for descriptor, _ in attribute.ListFields()} - {"name", "type"}
    if not set_fields <= {field}:
        raise ShapeFault(where, f"an attribute of one value ({field})", ", ".join(sorted(set_fields)))
    if field == "t":
        _check_tensor(attribute.t, {})
    elif field in ("floats", "ints"):
        _check_count(f"numbers in {where}", len(getattr(attribute, field)), MOST_OPERANDS)


def _add_name(known: set[str], name: str) -> None:
    if not name or len(name) > LONGEST_NAME or name in known:
        raise ShapeFault("names of values", f"names of at most {LONGEST_NAME} characters, each once", repr(name)[:80])
    known.add(name)


def _check_count(where: str, count: int, most: int) -> None:
    if count > most:
        raise ShapeFault(where, f"at most {most:,}", f"{count:,}")


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(repr(name)[:40] for name in list(names)[:6])
