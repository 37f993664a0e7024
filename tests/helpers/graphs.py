"""Small graphs: one made by hand over a small weights file, and those of small classifiers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file

from fullbake.classifier.manifest import probe_texts
from fullbake.config.sections import HeadConfig, TokensConfig
from fullbake.models.graph_check import GRAPH_FILE, GRAPH_INPUTS, read_checked_graph
from fullbake.models.graph_export import build_graph
from fullbake.models.graph_proof import GraphProof, ProofRows, prove_graph, word_ids
from fullbake.models.graph_session import open_graph
from fullbake.models.network import build_network
from fullbake.models.prediction import encode
from fullbake.models.pretrained import load_config, max_positions, takes_segments
from fullbake.models.tokenizer import load_tokenizer, set_defaults
from fullbake.models.weight_headers import read_weight_header

CLASSES, WIDTH, WORDS = 3, 4, 50
WEIGHTS = "model.safetensors"


def write_weights(folder: Path, name: str = WEIGHTS) -> dict[str, np.ndarray]:
    """Write random weights into a safetensors file, and return them."""
    random = np.random.default_rng(0)
    arrays = {
        "table": random.normal(size=(WORDS, WIDTH)).astype(np.float32),
        "head.weight": random.normal(size=(CLASSES, WIDTH)).astype(np.float32),
        "head.bias": random.normal(size=CLASSES).astype(np.float32),
    }
    save_file(arrays, folder / name)
    return arrays


def outside(name: str, folder: Path, weights: str = WEIGHTS) -> Any:
    """Return the tensor of this name in a weights file as one whose data is outside the graph."""
    stored = read_weight_header(folder / weights)[name]
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=stored.shape)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", weights), ("offset", stored.offset), ("length", stored.length)):
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def small_model(folder: Path) -> Any:
    """Return a graph that looks up words, averages them and classifies. Its weights are in `folder`."""
    free = ["batch", "tokens"]
    axes = numpy_helper.from_array(np.array([1], np.int64), "axes")
    return helper.make_model(
        helper.make_graph(
            [
                helper.make_node("Gather", ["table", "input_ids"], ["states"]),
                helper.make_node("ReduceMean", ["states", "axes"], ["pooled"], keepdims=0),
                helper.make_node("Gemm", ["pooled", "head.weight", "head.bias"], ["logits"], transB=1),
            ],
            "classifier",
            [helper.make_tensor_value_info(name, TensorProto.INT64, free) for name in GRAPH_INPUTS],
            [
                helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES]),
                helper.make_tensor_value_info("pooled", TensorProto.FLOAT, ["batch", WIDTH]),
            ],
            [outside(name, folder) for name in ("table", "head.weight", "head.bias")] + [axes],
        ),
        ir_version=10,
        opset_imports=[helper.make_opsetid("", 20)],
    )


def write_small_graph(folder: Path, change: Callable[[Any], object] = lambda model: None) -> Path:
    """Write weights and a graph into a folder, and return the folder. change: is given the model before."""
    folder.mkdir(parents=True, exist_ok=True)
    write_weights(folder)
    model = small_model(folder)
    change(model)
    (folder / GRAPH_FILE).write_bytes(model.SerializeToString())
    return folder


def load_model(folder: Path) -> Any:
    """Return the graph of a folder as the `onnx` package reads it, without the data outside."""
    return onnx.load(folder / GRAPH_FILE, load_external_data=False)


def prove_network(base: Path, folder: Path, head: str) -> GraphProof:
    """Export a classifier with random weights on a base, and prove its graph, as `fullbake export` does.

    Args:
        base: The base.
        folder: Where the network and its graph are written.
        head: Kind of head.
    """
    network = build_network(base, HeadConfig(kind=head), ("a", "b", "c"), seed=0)  # type: ignore[arg-type]
    network.save_pretrained(folder)
    config, tokenizer = load_config(base), load_tokenizer(base)
    longest = min(max_positions(config), 130)
    set_defaults(tokenizer, max_length=longest, truncation="head", has_token_type_ids=takes_segments(config))
    segments = "token_type_ids" in tokenizer.model_input_names
    (folder / GRAPH_FILE).write_bytes(build_graph(network, folder, segments=segments).content)
    checked = read_checked_graph(folder, classes=CLASSES)
    rows = ProofRows(
        words=word_ids(tokenizer, network.get_input_embeddings().weight.shape[0]),
        pad_id=tokenizer.pad_token_id,
        segments=segments,
        longest=longest,
        probe=encode(probe_texts(), tokenizer, TokensConfig(max_length=min(64, longest))),
    )
    return prove_graph(network, open_graph(checked, folder), rows)
