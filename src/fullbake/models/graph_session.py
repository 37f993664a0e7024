"""Open a checked graph with onnxruntime, and say in plain words why it cannot be opened.

onnxruntime gets the bytes that were checked, never the file's path, so nobody can exchange the file in between.
"""

from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from fullbake.core.errors import BundleError
from fullbake.models.graph_check import CheckedGraph

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

_FOLDER_OPTION: Final = "session.model_external_initializers_file_folder_path"
"""Setting of onnxruntime: where the weights of a graph lie that is given as bytes."""

_SAYS_UNKNOWN: Final = (
    "Could not find an implementation",
    "is not a registered function/op",
    "No Op registered for",
    "opset",
    "Unsupported model IR version",
)
"""What onnxruntime writes of an operator that its version lacks."""


def open_graph(graph: CheckedGraph, folder: Path, *, threads: int = 1) -> "InferenceSession":
    """Return a session of onnxruntime on the CPU.

    Args:
        graph: The graph.
        folder: Where its weights lie.
        threads: How many threads compute within an operator.

    Raises:
        BundleError: onnxruntime lacks an operator of the graph, or refuses the graph.
    """
    import onnxruntime as runtime

    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4  # what it would print is raised too
    if graph.files:
        options.add_session_config_entry(_FOLDER_OPTION, str(folder.absolute()))
    try:
        session: InferenceSession = runtime.InferenceSession(graph.content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no class in common but this one
        raise _explain(error, folder) from error
    return session


def run_graph(session: "InferenceSession", inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Compute the outputs of a graph for a batch.

    Args:
        session: As `open_graph` returns it.
        inputs: int64 arrays (batch, tokens) by name; those that the graph does not have are left out.

    Returns:
        float32 arrays by name: `logits` (batch, classes) and `pooled` (batch, width).
    """
    names = [output.name for output in session.get_outputs()]
    taken = {value.name: inputs[value.name] for value in session.get_inputs()}
    found = session.run(names, taken)
    return {name: np.asarray(array) for name, array in zip(names, found, strict=True)}


def _explain(error: Exception, folder: Path) -> BundleError:
    """Return the error to raise for what onnxruntime says of a graph."""
    words = " ".join(str(error).split())[:300]
    lacks = any(part in words for part in _SAYS_UNKNOWN)
    return BundleError(
        f"onnxruntime {metadata.version('onnxruntime')} "
        + ("lacks an operator of the graph" if lacks else "cannot open the graph"),
        where=str(folder),
        got=words,
        remedy="Install a newer version: pip install --upgrade onnxruntime. Or score with torch."
        if lacks
        else "Run `fullbake export BUNDLE` to write the graph anew, or score with torch.",
    )
