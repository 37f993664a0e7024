"""Bind the constants of an ONNX graph to the tensors of safetensors files: file, offset, length.

An exporter copies all weights into the graph. Each constant that equals a tensor of the files is replaced by that
tensor's place; one that equals a tensor transposed becomes that tensor and a Transpose node, which onnxruntime folds
when it loads the graph. So the graph is small and there is one copy of the weights.
"""

import hashlib
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fullbake.core.console import format_size
from fullbake.core.errors import BundleError
from fullbake.models.graph_check import MOST_STANDALONE_BYTES, find_weight_names
from fullbake.models.weight_headers import StoredTensor, read_weight_header

_SMALL: Final = 256
"""Bytes up to which a constant stays inside the graph: naming its place would take as many."""

_MOST_INSIDE: Final = 16_000_000
"""Bytes of constants that no file has and that may stay inside the graph, such as tables of positions."""

_EXTERNAL: Final = 1
"""What `data_location` of a tensor is where its data lies in a file."""

_TYPES: Final = {"float32": "F32", "int8": "I8", "uint8": "U8", "int32": "I32", "int64": "I64"}
"""Type of an array -> what safetensors calls it. A student's table is int8; its rows are int32."""

_Key = tuple[str, str, tuple[int, ...]]
"""Type of a tensor as safetensors calls it, hash of its bytes, and shape."""


def bind_weights(model: Any, folder: Path) -> None:
    """Replace the weights in a graph by their places in the safetensors files of a folder.

    Args:
        model: An onnx.ModelProto, which is changed.
        folder: The bundle.

    Raises:
        BundleError: Too many weights of the graph are in none of the files.
    """
    stored = _Stored(folder)
    turned: list[tuple[str, str]] = []
    inside: list[Any] = []
    for tensor in model.graph.initializer:
        array = _array_of(tensor)
        if array.nbytes <= _SMALL:
            inside.append(tensor)
        elif (place := stored.find(array)) is not None:
            _point_to(tensor, *place)
        elif array.ndim == 2 and (place := stored.find(array.T)) is not None:
            name = f"{tensor.name}.stored"
            turned.append((name, tensor.name))
            tensor.name = name
            tensor.dims[:] = array.T.shape
            _point_to(tensor, *place)
        else:
            inside.append(tensor)
    _put_inside(inside)
    _refuse_too_much(inside, folder)
    _insert_transposes(model, turned)


def store_inside(model: Any) -> None:
    """Put all constants into a graph as bytes. model: an onnx.ModelProto, which is changed."""
    size = sum(_array_of(tensor).nbytes for tensor in model.graph.initializer)
    if size > 0.99 * MOST_STANDALONE_BYTES:
        raise BundleError(
            "the weights are too many for one file of ONNX",
            expected=f"at most {format_size(MOST_STANDALONE_BYTES)}",
            got=format_size(size),
            remedy="Leave out --standalone: the graph in the bundle reads the weights file beside it.",
        )
    _put_inside(list(model.graph.initializer))


class _Stored:
    """The tensors of a folder's safetensors files, found by their content."""

    def __init__(self, folder: Path) -> None:
        self._places: dict[_Key, tuple[str, StoredTensor]] = {}
        for name in find_weight_names(folder):
            content = np.memmap(folder / name, np.uint8, "r")
            for tensor in read_weight_header(folder / name).values():
                if tensor.length > _SMALL:
                    data = content[tensor.offset : tensor.offset + tensor.length]
                    self._places.setdefault((tensor.dtype, _digest(data), tensor.shape), (name, tensor))
        self._shapes = {(kind, shape) for kind, _, shape in self._places}

    def find(self, array: NDArray[Any]) -> tuple[str, StoredTensor] | None:
        """Return the file and the tensor that equal an array, None if there is none."""
        kind = _TYPES.get(array.dtype.name, "")
        if (kind, array.shape) not in self._shapes:  # hashing is what takes time
            return None
        return self._places.get((kind, _digest(np.ascontiguousarray(array)), array.shape))


def _digest(array: NDArray[Any]) -> str:
    return hashlib.sha256(array.reshape(-1).view(np.uint8).data).hexdigest()


def _array_of(tensor: Any) -> NDArray[Any]:
    from onnx import numpy_helper

    array: NDArray[Any] = numpy_helper.to_array(tensor)
    return array


def _point_to(tensor: Any, name: str, stored: StoredTensor) -> None:
    """Make a tensor of a graph one whose data is in a file."""
    for field in ("raw_data", "float_data", "int32_data", "int64_data"):
        tensor.ClearField(field)
    tensor.data_location = _EXTERNAL
    del tensor.external_data[:]
    for key, value in (("location", name), ("offset", stored.offset), ("length", stored.length)):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, str(value)


def _put_inside(tensors: list[Any]) -> None:
    """Write the data of tensors as raw bytes, the one form that `graph_check` reads."""
    from onnx import numpy_helper

    for tensor in tensors:
        tensor.CopyFrom(numpy_helper.from_array(_array_of(tensor), tensor.name))


def _insert_transposes(model: Any, turned: list[tuple[str, str]]) -> None:
    """Put nodes at the start of a graph that transpose stored tensors. turned: names of input and output of each."""
    from onnx import helper

    nodes = [helper.make_node("Transpose", [stored], [name], perm=[1, 0]) for stored, name in turned]
    old = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *old])


def _refuse_too_much(inside: list[Any], folder: Path) -> None:
    """Raise BundleError if more than a few tables of constants are in none of the files."""
    size = sum(len(tensor.raw_data) for tensor in inside)
    if size > _MOST_INSIDE:
        largest = max(inside, key=lambda tensor: len(tensor.raw_data))
        raise BundleError(
            "the graph has weights that the files of the bundle do not have",
            where=str(folder),
            expected=f"at most {format_size(_MOST_INSIDE)} of constants",
            got=f"{format_size(size)}, the largest of them {largest.name!r}",
            remedy="Export with --standalone FILE, which holds all weights.",
        )
