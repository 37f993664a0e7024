"""Turn a classifier's fp32 ONNX graph into an int8 graph, in a folder of its own.

Each product of token vectors and constant weights that `pooled` rests on is computed in 8 bits. The inputs have one
scale a row (a token), found while the text runs, and the weights one scale a column. The usual scale for a whole batch
makes the logits of a text depend on the texts beside it; a scale a row does not. Large embedding tables are stored in
8 bits with one scale a row. The head, the attention between tokens, norms and biases stay fp32.

Inputs are unsigned bytes with a zero point of 128, weights signed bytes. On x86 processors without VNNI and AMX,
onnxruntime multiplies these by an instruction (vpmaddubsw) that adds two neighbors in 16 bits, and saturates. So that
all machines compute the same sums, the scale of a column is chosen by the largest sum of two neighbors and not by the
largest weight: two neighbors of one sign are together at most 128. That costs little, since two large weights are
seldom neighbors. Unsigned weights would be exact too, but take 1.5 times as long with VNNI.

The product is onnxruntime's own operator `MatMulIntegerToFloat`, which turns 32-bit sums into floats within the
product; the operators of the ONNX standard write the sums to memory first. The package `onnx` edits the graph, so this
module is imported only where a graph is made.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from fullbake.core import storage
from fullbake.core.errors import BundleError
from fullbake.models.graph_check import GRAPH_FILE
from fullbake.models.weight_headers import StoredTensor, read_weight_header

INT8_WEIGHTS: Final = "model.safetensors"

LEAST_TABLE: Final = 1_000_000
"""Values from which on an embedding table is stored in 8 bits. Smaller ones (positions, segments) save little."""

_CONTRIB: Final = "com.microsoft"
"""The domain of onnxruntime's own operators."""

_LOGIT_SCALE: Final = "logit_scale"
"""The tensor that the logits are multiplied by: one over a temperature."""

_INSIDE: Final = 1024
"""Tensors of fewer bytes lie within the graph's file."""

_STEPS: Final = 127
"""Numbers that stand for values run from -127 to 127. Those of inputs are stored with 128 added."""

_TINY: Final = 1e-30
"""The least largest value of a row or column, so that one of zeros has a scale."""

_LOWEST_OPSET: Final = 18
"""From this version on, ReduceMax takes its axes as an input."""


@dataclass(frozen=True)
class Int8Facts:
    """What was made of a graph."""

    products: int
    """Products with constant weights that are computed in 8 bits."""

    tables: int
    """Embedding tables that are stored in 8 bits."""

    bytes_before: int
    """Bytes of the tensors of the fp32 graph."""

    bytes_after: int
    """Bytes of the tensors of the int8 graph."""


def write_int8_graph(source: Path, folder: Path, *, least_table: int = LEAST_TABLE) -> Int8Facts:
    """Write the int8 graph of a classifier.

    Args:
        source: The fp32 graph with the outputs `logits` and `pooled`; its external tensors lie beside it.
        folder: Gets the graph as model.onnx, and all its tensors as model.safetensors.
        least_table: Values from which on an embedding table is stored in 8 bits.

    Raises:
        BundleError: The graph has nothing that could be computed or stored in 8 bits, or is of an old version of ONNX.
    """
    model = onnx.load(str(source), load_external_data=False)
    _check_version(model, source)
    constants = _Constants(model.graph, source.parent)
    made = _Rewriting(constants)
    encoder = _outputs_under(model.graph.node, "pooled")
    for node in model.graph.node:
        in_encoder = node.output[0] in encoder
        if not (in_encoder and (made.replace_product(node) or made.replace_lookup(node, least_table))):
            made.nodes.append(node)
    if not made.products and not made.tables:
        raise BundleError(
            "this classifier has nothing that int8 would make faster or smaller",
            where=str(source),
            expected="products with constant weights before `pooled`, or a large table of embeddings in fp32",
            remedy="Use it in fp32.",
        )
    made.scale_logits()
    nodes = _live_nodes(made.nodes, [output.name for output in model.graph.output])
    used = sorted({name for node in nodes for name in _inputs(node)})
    tensors = {name: array for name in used if (array := made.tensor(name)) is not None}
    storage.write_tensors(folder / INT8_WEIGHTS, {name: own for name, own in tensors.items() if own.nbytes >= _INSIDE})
    places = read_weight_header(folder / INT8_WEIGHTS)
    stored = [_stored_tensor(name, array, places.get(name)) for name, array in tensors.items()]
    storage.write_bytes(folder / GRAPH_FILE, _assemble(model, nodes, stored).SerializeToString(deterministic=True))
    after = sum(array.nbytes for array in tensors.values())
    return Int8Facts(made.products, len(made.tables), constants.count_bytes(), after)


def multiply_logits(graph: Path, factor: float) -> None:
    """Set the number that an int8 graph multiplies its logits by, which `write_int8_graph` sets to 1.

    Args:
        graph: The file that `write_int8_graph` wrote.
        factor: One over a temperature.
    """
    model = onnx.load(str(graph), load_external_data=False)
    (scale,) = (tensor for tensor in model.graph.initializer if tensor.name == _LOGIT_SCALE)
    scale.CopyFrom(numpy_helper.from_array(np.array(factor, np.float32), _LOGIT_SCALE))
    storage.write_bytes(graph, model.SerializeToString(deterministic=True))


def _check_version(model: ModelProto, source: Path) -> None:
    version = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if version < _LOWEST_OPSET:
        raise BundleError(
            "the graph is of an old version of ONNX",
            where=str(source),
            expected=f"opset {_LOWEST_OPSET} or later",
            got=str(version),
            remedy="Make the graph again: fullbake export BUNDLE --overwrite.",
        )


class _Constants:
    """The tensors of a graph that do not depend on its inputs, and transposed views of them."""

    def __init__(self, graph: GraphProto, folder: Path) -> None:
        self._folder = folder
        self._tensors = {tensor.name: tensor for tensor in graph.initializer}
        self._views = {node.output[0]: node for node in graph.node if node.op_type in ("Transpose", "Identity")}

    def array(self, name: str) -> NDArray[Any] | None:
        """Return the value of a tensor, None if it is not stored."""
        tensor = self._tensors.get(name)
        if tensor is None:
            return None
        place = {entry.key: entry.value for entry in tensor.external_data}
        if not place:
            return np.asarray(numpy_helper.to_array(tensor))
        # The library `onnx` reads no file with a second name, and the files of a staged bundle have one.
        kind = helper.tensor_dtype_to_np_dtype(tensor.data_type)
        file, offset = self._folder / place["location"], int(place["offset"])
        return np.asarray(np.memmap(file, kind, "r", offset, tuple(tensor.dims)))

    def find_matrix(self, name: str) -> tuple[str, bool] | None:
        """Return the stored fp32 matrix that a name stands for, and whether it is transposed; None if there is none."""
        turned = False
        while name in self._views:
            turned ^= self._views[name].op_type == "Transpose"
            name = self._views[name].input[0]
        tensor = self._tensors.get(name)
        if tensor is None or tensor.data_type != TensorProto.FLOAT or len(tensor.dims) != 2:
            return None
        return name, turned

    def count_bytes(self) -> int:
        """Return the bytes of all tensors."""
        sizes = (helper.tensor_dtype_to_np_dtype(own.data_type).itemsize * _count(own.dims) for own in self.all())
        return int(sum(sizes))

    def all(self) -> Iterable[TensorProto]:
        """Return the stored tensors."""
        return self._tensors.values()


def _count(dims: Iterable[int]) -> int:
    return int(np.prod(list(dims), dtype=np.int64))


@dataclass
class _Rewriting:
    """The nodes and tensors of the int8 graph, as far as it is made."""

    constants: _Constants
    nodes: list[NodeProto] = field(default_factory=list)
    products: int = 0
    tables: set[str] = field(default_factory=set)
    made: dict[str, NDArray[Any]] = field(default_factory=dict)
    """Tensors that the fp32 graph does not have, by name."""

    rows: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Bytes and scales of values that have been rounded, by the name of the value."""

    def tensor(self, name: str) -> NDArray[Any] | None:
        """Return a stored tensor of the int8 graph, None if the name is that of a computed value."""
        return self.made[name] if name in self.made else self.constants.array(name)

    def replace_product(self, node: NodeProto) -> bool:
        """Add a product in 8 bits in place of a MatMul or Gemm with constant weights; return False for other nodes."""
        found = _weights_of(node, self.constants)
        if found is None:
            return False
        name, turned = found
        numbers, scale = self._round_rows(node.input[0])
        weights, weight_scale = self._round_columns(name, turned)
        one, zero = self._constant("one", np.float32(1)), self._constant("zero_point", np.uint8(_STEPS + 1))
        out, bias = node.output[0], node.input[2] if len(node.input) > 2 else ""
        inputs = [numbers, weights, one, weight_scale, zero]
        summed = self._add("MatMulIntegerToFloat", inputs, f"{out}.sums", domain=_CONTRIB)
        self._add("Mul", [summed, scale], f"{out}.scaled" if bias else out)
        if bias:
            self._add("Add", [f"{out}.scaled", bias], out)
        self.products += 1
        return True

    def replace_lookup(self, node: NodeProto, least: int) -> bool:
        """Add a lookup in a table of 8 bits in place of one in a large fp32 table; return False for other nodes."""
        found = self.constants.find_matrix(node.input[0]) if node.op_type == "Gather" and not _axis(node) else None
        if found is None or found[1]:
            return False
        name, table, out = found[0], self.constants.array(found[0]), node.output[0]
        if table is None or table.size < least:
            return False
        if name not in self.tables:
            scale = np.maximum(np.abs(table).max(axis=1, keepdims=True), _TINY) / np.float32(_STEPS)
            self.made |= {f"{name}.int8": np.rint(table / scale).astype(np.int8), f"{name}.scale": scale}
            self.tables.add(name)
        numbers, scales = (
            self._add("Gather", [f"{name}.{part}", node.input[1]], f"{out}.row.{part}") for part in ("int8", "scale")
        )
        floats = self._add("Cast", [numbers], f"{out}.row.floats", to=TensorProto.FLOAT)
        self._add("Mul", [floats, scales], out)
        return True

    def scale_logits(self) -> None:
        """Add a node that multiplies the logits by a number, for a temperature that is not known yet."""
        last = next(node for node in self.nodes if "logits" in node.output)
        last.output[list(last.output).index("logits")] = "logits.unscaled"
        for node in self.nodes:  # whatever else reads the logits reads them unscaled
            node.input[:] = ["logits.unscaled" if name == "logits" else name for name in node.input]
        self._add("Mul", ["logits.unscaled", self._constant(_LOGIT_SCALE, np.float32(1))], "logits")

    def _round_rows(self, value: str) -> tuple[str, str]:
        """Add nodes that round a value to bytes, with one scale a row; return the names of bytes and scales."""
        if value not in self.rows:
            least, axis = self._constant("least", np.float32(_TINY)), self._constant("last_axis", np.array([-1]))
            steps = self._constant("steps", np.float32(_STEPS))
            size = self._add("Abs", [value], f"{value}.sizes")
            largest = self._add("ReduceMax", [size, axis], f"{value}.largest", keepdims=1)
            largest = self._add("Max", [largest, least], f"{value}.range")
            scale = self._add("Div", [largest, steps], f"{value}.scale")
            units = self._add("Mul", [value, self._add("Reciprocal", [scale], f"{value}.inverse")], f"{value}.units")
            one, zero = self._constant("one", np.float32(1)), self._constant("zero_point", np.uint8(_STEPS + 1))
            self.rows[value] = self._add("QuantizeLinear", [units, one, zero], f"{value}.bytes"), scale
        return self.rows[value]

    def _round_columns(self, name: str, turned: bool) -> tuple[str, str]:
        """Store a matrix in 8 bits, with one scale a column; return the names of numbers and scales."""
        stem = f"{name}.transposed" if turned else name
        if f"{stem}.int8" not in self.made:
            stored = self.constants.array(name)
            assert stored is not None
            numbers, scale = round_columns(stored.T if turned else stored)
            self.made |= {f"{stem}.int8": numbers, f"{stem}.scale": scale}
        return f"{stem}.int8", f"{stem}.scale"

    def _constant(self, name: str, value: Any) -> str:
        self.made[name] = np.asarray(value)
        return name

    def _add(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output


def round_columns(weights: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Round weights to 8 bits with one scale a column, so that no sum of two neighboring products leaves 16 bits.

    Args:
        weights: (inputs, outputs).

    Returns:
        The numbers, (inputs, outputs), and the scales, (outputs,). Numbers of one sign in rows 2i and 2i + 1 are
        together at most 128, so that their products with bytes add up to at most 32,640.
    """
    even = np.pad(weights, ((0, len(weights) % 2), (0, 0)))
    pairs = even.reshape(-1, 2, even.shape[1])
    sums = [np.maximum(sign * pairs, 0).sum(axis=1).max(axis=0) for sign in (1, -1)]
    # Rounding two numbers adds at most 1 to their sum.
    scale = np.maximum(np.maximum(*sums), _TINY).astype(np.float32) / np.float32(_STEPS)
    return np.ascontiguousarray(np.rint(weights / scale).astype(np.int8)), scale


def _weights_of(node: NodeProto, constants: _Constants) -> tuple[str, bool] | None:
    """Return the constant weights that a node multiplies its first input by, and whether they are transposed."""
    if node.op_type not in ("MatMul", "Gemm"):
        return None
    given = {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}
    if given.get("transA", 0) or given.get("alpha", 1.0) != 1 or given.get("beta", 1.0) != 1:
        return None
    found = constants.find_matrix(node.input[1])
    return None if found is None else (found[0], found[1] ^ bool(given.get("transB", 0)))


def _axis(node: NodeProto) -> int:
    return next((int(entry.i) for entry in node.attribute if entry.name == "axis"), 0)


def _inputs(node: NodeProto) -> list[str]:
    """Return the names that a node reads, also within its subgraphs."""
    inner = [own for entry in node.attribute for own in [entry.g, *entry.graphs]]
    return [*filter(None, node.input), *(name for graph in inner for own in graph.node for name in _inputs(own))]


def _outputs_under(nodes: Iterable[NodeProto], value: str) -> set[str]:
    """Return the names of all values that a value is computed from, itself included."""
    made_by = {name: node for node in nodes for name in node.output}
    found, left = set[str](), [value]
    while left:
        name = left.pop()
        if name not in found and name in made_by:
            found |= set(made_by[name].output)
            left += _inputs(made_by[name])
    return found


def _live_nodes(nodes: Sequence[NodeProto], outputs: Sequence[str]) -> list[NodeProto]:
    """Return the nodes that the outputs rest on, in their order."""
    live = set[str]().union(*(_outputs_under(nodes, name) for name in outputs))
    return [node for node in nodes if live & set(node.output)]


def _stored_tensor(name: str, array: NDArray[Any], place: StoredTensor | None) -> TensorProto:
    """Return a tensor that lies in the file of weights, or within the graph if it has no place there."""
    if place is None:
        return numpy_helper.from_array(array, name)
    kind = helper.np_dtype_to_tensor_dtype(array.dtype)
    tensor = TensorProto(name=name, data_type=kind, dims=array.shape, data_location=TensorProto.EXTERNAL)
    for key, value in (("location", INT8_WEIGHTS), ("offset", str(place.offset)), ("length", str(place.length))):
        tensor.external_data.add(key=key, value=value)
    return tensor


def _assemble(model: ModelProto, nodes: Sequence[NodeProto], tensors: Sequence[TensorProto]) -> ModelProto:
    """Return a model with the inputs, outputs and versions of another one, and with these nodes and tensors."""
    graph = helper.make_graph(nodes, "int8", model.graph.input, model.graph.output, tensors)
    others = [entry for entry in model.opset_import if entry.domain != _CONTRIB]
    versions = [*others, helper.make_opsetid(_CONTRIB, 1)]
    return helper.make_model(graph, opset_imports=versions, ir_version=model.ir_version, producer_name="fullbake")
