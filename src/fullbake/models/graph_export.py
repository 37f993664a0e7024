"""Turn a classifier into an ONNX graph that reads its weights from the classifier's own safetensors files.

`torch.onnx.export` traces the network; where it fails, the exporter of transformers, which knows how to work around
parts of some families, tries too. What comes out is tidied (functions inlined, constants folded, notes of the exporter
left out) and bound to the weights files (`graph_weights`). Batch norm is not folded into the layer before it:
that would make new weights, which no file has, and onnxruntime folds it anyway.
"""

import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from fullbake.core.errors import BundleError
from fullbake.core.extras import name_missing_extra
from fullbake.models.encoder import eval_mode
from fullbake.models.graph_check import GRAPH_INPUTS, GRAPH_OUTPUTS
from fullbake.models.graph_weights import bind_weights, store_inside
from fullbake.models.heads import POOLINGS, pool
from fullbake.models.network import EncoderForTextClassification, pooling_of
from fullbake.models.pretrained import first_line, quiet_transformers

OPSET: Final = 20
"""Version of the standard operators: the first one with Gelu."""

_EXAMPLE: Final = (3, 17)
"""Rows and tokens of the batch that is traced. No size is 0 or 1, which a trace would take for fixed."""

_IR_VERSION: Final = 10
"""Version of the file format: that of OPSET's time, so that an onnxruntime that knows the one knows the other."""


@dataclass(frozen=True)
class BuiltGraph:
    """A graph, and what is known of how it was made."""

    content: bytes
    """The file."""

    exporter: str
    """What traced the network, and its version."""

    opset: int


class _TracedClassifier(nn.Module):
    """A classifier as the exporters call it: `logits_and_pooled` as a forward pass."""

    def __init__(self, network: PreTrainedModel) -> None:
        super().__init__()
        self.network = network

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Compute the outputs of the graph. Arguments: those of the network, each (batch, tokens)."""
        given = {"input_ids": input_ids, "attention_mask": attention_mask}
        return logits_and_pooled(
            self.network, given if token_type_ids is None else given | {"token_type_ids": token_type_ids}
        )


def logits_and_pooled(network: PreTrainedModel, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Compute the logits of a classifier, and what its head reads, in one pass.

    Args:
        network: The classifier, whose head reads one of POOLINGS.
        inputs: input_ids, and attention_mask and token_type_ids where the batch has them; each (batch, tokens).

    Returns:
        `logits` (batch, classes) and `pooled` (batch, width).
    """
    whole: Any = network
    if isinstance(whole, EncoderForTextClassification):
        pooled = whole.pooled(**inputs)
        return {"logits": whole.classify(pooled), "pooled": pooled}
    states: list[Tensor] = []
    hook = whole.base_model.register_forward_hook(lambda *call: states.append(call[2][0]))
    try:
        logits = whole(**inputs).logits
    finally:
        hook.remove()
    return {"logits": logits, "pooled": pool(states[0], inputs.get("attention_mask"), pooling_of(whole))}


def build_graph(network: PreTrainedModel, folder: Path, *, segments: bool, standalone: bool = False) -> BuiltGraph:
    """Export a classifier as an ONNX graph.

    Args:
        network: The classifier in fp32, on the CPU, without fast layers.
        folder: Where its weights were saved.
        segments: Whether its rows have segments (`token_type_ids`).
        standalone: Put the weights into the graph; else it names their places in the files of `folder`.

    Returns:
        The graph. The same network gives the same bytes.

    Raises:
        BundleError: No exporter can trace the network, or the graph cannot be bound to the weights.
        MissingExtraError: The packages of the extra `export` are not installed.
    """
    require_export_packages()
    if pooling_of(network) not in POOLINGS:
        raise BundleError(
            f"the standard head of model type {network.config.model_type!r} cannot be exported",
            expected=f"a head that reads one vector of each text ({', '.join(POOLINGS)})",
            got=f"one that reads the states of all tokens ({pooling_of(network)!r})",
            remedy="Score with torch, or train with --head linear or --head mlp.",
        )
    with eval_mode(network), torch.no_grad(), _quiet_exporters():
        program, exporter = _trace(_TracedClassifier(network), segments)
        model = _tidy(program)
    if standalone:
        store_inside(model)
    else:
        bind_weights(model, folder)
    return BuiltGraph(model.SerializeToString(deterministic=True), exporter, OPSET)


def require_export_packages() -> None:
    """Raise MissingExtraError unless the packages of the extra `export` are installed. Call it before long work."""
    with name_missing_extra():
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401


# Tracing


def _trace(classifier: _TracedClassifier, segments: bool) -> tuple[Any, str]:
    """Return the traced network as an onnx_ir.Model, and the exporter that made it."""
    ids = (torch.arange(_EXAMPLE[0] * _EXAMPLE[1]).reshape(_EXAMPLE) * 7 + 5) % _vocabulary(classifier.network)
    mask = (torch.arange(_EXAMPLE[1]) < torch.tensor([[_EXAMPLE[1]], [9], [4]])).long()
    names = GRAPH_INPUTS if segments else GRAPH_INPUTS[:2]
    inputs = dict(zip(names, (ids, mask, torch.zeros_like(ids)), strict=False))
    faults: list[str] = []
    for name, export in _EXPORTERS.items():
        try:
            return export(classifier, inputs), name
        except Exception as error:  # whatever torch, transformers or onnxscript raise for what they cannot trace
            root = _root_of(error)
            faults.append(f"{name}: {type(root).__name__}: {first_line(root)}"[:200])
    raise BundleError(
        f"the family {_family(classifier.network)!r} cannot be exported",
        expected="a network that an exporter can trace",
        got="; ".join(faults),
        remedy="Score with torch: the bundle works without a graph.",
    )


def _vocabulary(network: Any) -> int:
    return int(network.get_input_embeddings().weight.shape[0])


def _family(network: Any) -> str:
    return str(getattr(network.config, "encoder", network.config).model_type)


def _root_of(error: BaseException) -> Exception:
    """Return the error that another one was raised from: exporters wrap what went wrong in a page of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error if isinstance(error, Exception) else RuntimeError(str(error))


def _shapes(inputs: dict[str, Tensor]) -> dict[str, Any]:
    free = torch.export.Dim.DYNAMIC
    return {name: {0: free, 1: free} for name in inputs}


def _export_with_torch(classifier: nn.Module, inputs: dict[str, Tensor]) -> Any:
    program: Any = torch.onnx.export(
        classifier,
        kwargs=inputs,
        dynamo=True,
        dynamic_shapes=_shapes(inputs),
        input_names=list(inputs),
        output_names=list(GRAPH_OUTPUTS),
        opset_version=OPSET,
        optimize=False,
        verbose=False,
    )
    return program.model


def _export_with_transformers(classifier: nn.Module, inputs: dict[str, Tensor]) -> Any:
    from transformers.exporters.configs import OnnxConfig
    from transformers.exporters.exporter_onnx import OnnxExporter

    config = OnnxConfig(dynamic=True, dynamic_shapes=_shapes(inputs), opset_version=OPSET, optimize=False)
    exporter: Any = OnnxExporter()  # typed for transformers' own models, but takes any module
    return exporter.export(classifier, dict(inputs), config=config).program


_EXPORTERS: Final[dict[str, Callable[[nn.Module, dict[str, Tensor]], Any]]] = {
    "torch": _export_with_torch,
    "transformers": _export_with_transformers,
}
"""What traces a network, in the order in which they are tried."""


@contextmanager
def _quiet_exporters() -> Iterator[None]:
    """Keep the exporters' notes on their own workings from the user. Their errors are raised all the same."""
    before = logging.root.manager.disable
    with (
        quiet_transformers(),
        warnings.catch_warnings(),
        redirect_stdout(io.StringIO()),
        redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(before)


# Tidying


def _tidy(model: Any) -> Any:
    """Return an onnx_ir.Model as an onnx.ModelProto without functions, dead nodes, docstrings and metadata."""
    import onnx_ir.passes.common
    from onnxscript import optimizer

    common: Any = onnx_ir.passes.common  # not all of it is typed
    common.InlinePass()(model)
    for _ in range(2):
        optimizer.fold_constants(model, onnx_shape_inference=True, output_size_limit=1024)
        common.RemoveUnusedNodesPass()(model)
    common.CommonSubexpressionEliminationPass()(model)
    common.DeduplicateInitializersPass()(model)
    common.RemoveUnusedFunctionsPass()(model)
    common.RemoveUnusedOpsetsPass()(model)
    model.ir_version = _IR_VERSION
    proto = onnx_ir.serde.serialize_model(model)
    _strip(proto)
    return proto


def _strip(proto: Any) -> None:
    """Remove from a model what no runtime needs: notes of the exporter, and its guesses of shapes inside the graph."""
    graph = proto.graph
    del graph.value_info[:]
    for part in (proto, graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
        part.ClearField("doc_string")
        del part.metadata_props[:]
    for node in graph.node:
        node.ClearField("name")
