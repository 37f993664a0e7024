"""Write the ONNX graph of a classifier: into its bundle, where it reads the bundle's own weights, or as one file."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from transformers import PreTrainedModel

from fullbake.classifier import manifest
from fullbake.classifier.bundle_update import require_changeable, updated_bundle
from fullbake.config.sections import TokensConfig
from fullbake.core import storage
from fullbake.models.graph_check import (
    GRAPH_FILE,
    CheckedGraph,
    read_checked_graph,
    read_checked_standalone,
)
from fullbake.models.graph_export import BuiltGraph, build_graph, require_export_packages
from fullbake.models.graph_proof import GraphProof, ProofRows, prove_graph, word_ids
from fullbake.models.graph_session import open_graph

_GRAPH_BYTES: Final = 20_000_000
"""Space that a graph needs on the disk, at most; its weights are those of the bundle."""

_LIBRARIES: Final = ("torch", "transformers", "onnx", "onnxscript", "onnxruntime")
"""Libraries that made a graph or proved it."""


@dataclass(frozen=True)
class GraphSource:
    """What a graph is made of and compared with."""

    network: PreTrainedModel
    """The classifier, in fp32 and without fast layers, on any device."""

    tokenizer: Any
    tokens: TokensConfig
    classes: int

    @property
    def segments(self) -> bool:
        """Whether rows have segments."""
        return "token_type_ids" in self.tokenizer.model_input_names


@dataclass(frozen=True)
class WrittenGraph:
    """A graph that was written, and what is known of it."""

    path: Path
    size: int
    """Bytes of the file."""

    seconds: float
    facts: dict[str, Any]
    """The entry `graph` of fullbake.json."""


def add_graph(bundle: Path, source: GraphSource) -> WrittenGraph:
    """Add a graph to a bundle, or replace the one that is there. It is kept only if it computes what torch does.

    Args:
        bundle: The bundle, whose files were found right.
        source: The same classifier in memory.

    Raises:
        BundleError: The family cannot be exported, or the graph computes something else than torch.
        OutputError: The bundle cannot be written.
        MissingExtraError: The packages of the extra `export` are not installed.
    """
    started = time.monotonic()
    require_export_packages()
    require_changeable(bundle)
    with _on_cpu(source.network), updated_bundle(bundle, without=(GRAPH_FILE,), needed=_GRAPH_BYTES) as update:
        built = build_graph(source.network, update.folder, segments=source.segments)
        storage.write_bytes(update.folder / GRAPH_FILE, built.content)
        checked = read_checked_graph(update.folder, classes=source.classes)
        facts = _facts(built, checked, _prove(source, checked, update.folder))
        update.entries["graph"] = facts
    return WrittenGraph(bundle / GRAPH_FILE, len(built.content), time.monotonic() - started, facts)


def write_standalone(bundle: Path, source: GraphSource, target: Path, *, overwrite: bool = False) -> WrittenGraph:
    """Write a classifier as one ONNX file that holds its weights. The bundle stays as it is.

    Args:
        bundle: The bundle.
        source: The same classifier in memory.
        target: The file to write.
        overwrite: Replace a file of this name.

    Raises:
        BundleError: As for `add_graph`; or the weights are too many for one file.
        OutputError: The file exists already, or cannot be written.
        MissingExtraError: The packages of the extra `export` are not installed.
    """
    started = time.monotonic()
    require_export_packages()
    storage.require_new_file(target, overwrite=overwrite)
    with _on_cpu(source.network):
        built = build_graph(source.network, bundle, segments=source.segments, standalone=True)
        with storage.staged_file(target, overwrite=overwrite, needed=len(built.content)) as fresh:
            storage.write_bytes(fresh, built.content)
            checked = read_checked_standalone(fresh, classes=source.classes)
            facts = _facts(built, checked, _prove(source, checked, fresh.parent))
    return WrittenGraph(target, len(built.content), time.monotonic() - started, facts)


@contextmanager
def _on_cpu(network: Any) -> Iterator[None]:
    """Move a network to the CPU within the block, and back to its device afterwards.

    Yields:
        Nothing.
    """
    place = next(network.parameters()).device
    network.to("cpu")
    try:
        yield
    finally:
        network.to(place)


def _prove(source: GraphSource, checked: CheckedGraph, folder: Path) -> GraphProof:
    network: Any = source.network
    assert source.tokens.max_length is not None
    rows = ProofRows(
        words=word_ids(source.tokenizer, network.get_input_embeddings().weight.shape[0]),
        pad_id=source.tokenizer.pad_token_id,
        segments=source.segments,
        longest=source.tokens.max_length,
        probe=manifest.encode_probe(source.tokenizer, source.tokens),
    )
    return prove_graph(network, open_graph(checked, folder), rows)


def _facts(built: BuiltGraph, checked: CheckedGraph, proof: GraphProof) -> dict[str, Any]:
    """Return the entry `graph` of fullbake.json."""
    return {
        "exporter": built.exporter,
        "opset": checked.opset,
        "inputs": list(checked.inputs),
        "nodes": checked.nodes,
        "difference": proof.difference,
        "alone": proof.alone,
        "batches": proof.batches,
        "versions": {name: metadata.version(name) for name in _LIBRARIES},
    }
