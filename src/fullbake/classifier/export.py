"""Write a classifier as an ONNX graph: into its bundle, where it reads the bundle's own weights, or as one file."""

import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from fullbake.classifier import manifest
from fullbake.classifier.bundle_update import require_changeable, updated_bundle
from fullbake.classifier.model import Classifier
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
from fullbake.models.inference import encode

_GRAPH_BYTES: Final = 20_000_000
"""Space that a graph needs on the disk, at most; its weights are those of the bundle."""

_LIBRARIES: Final = ("torch", "transformers", "onnx", "onnxscript", "onnxruntime")
"""Libraries that made a graph or proved it."""


@dataclass(frozen=True)
class WrittenGraph:
    """A graph that was written, and what is known of it."""

    path: Path
    size: int
    """Bytes of the file."""

    seconds: float
    facts: dict[str, Any]
    """The entry `graph` of fullbake.json."""


def export_graph(bundle: str | Path) -> WrittenGraph:
    """Add the graph of a classifier to its bundle, or replace the one that is there.

    Args:
        bundle: The bundle.

    Raises:
        BundleError: The folder is no intact bundle, its family cannot be exported, or the graph computes something
            else than torch.
        OutputError: The bundle cannot be written.
        Error: The packages of the extra `export` are not installed.
    """
    started, folder = time.monotonic(), Path(bundle)
    require_export_packages()
    require_changeable(folder)
    classifier = _load(folder)
    with updated_bundle(folder, without=(GRAPH_FILE,), needed=_GRAPH_BYTES) as update:
        built = build_graph(classifier.network, update.folder, segments=_has_segments(classifier))
        storage.write_bytes(update.folder / GRAPH_FILE, built.content)
        checked = read_checked_graph(update.folder, classes=len(classifier.label_names))
        facts = _facts(built, checked, _prove(classifier, checked, update.folder))
        update.entries["graph"] = facts
    return WrittenGraph(folder / GRAPH_FILE, len(built.content), time.monotonic() - started, facts)


def export_standalone(bundle: str | Path, target: str | Path, *, overwrite: bool = False) -> WrittenGraph:
    """Write a classifier as one ONNX file that holds its weights. The bundle stays as it is.

    Args:
        bundle: The bundle.
        target: The file to write.
        overwrite: Replace a file of this name.

    Raises:
        BundleError: As for `export_graph`; or the weights are too many for one file.
        OutputError: The file exists already, or cannot be written.
        Error: The packages of the extra `export` are not installed.
    """
    started, path = time.monotonic(), Path(target)
    require_export_packages()
    storage.require_new_file(path, overwrite=overwrite)
    classifier = _load(Path(bundle))
    weights = sum(tensor.nbytes for tensor in classifier.network.state_dict().values())
    built = build_graph(classifier.network, Path(bundle), segments=_has_segments(classifier), standalone=True)
    with storage.staged_file(path, overwrite=overwrite, needed=weights) as fresh:
        storage.write_bytes(fresh, built.content)
        checked = read_checked_standalone(fresh, classes=len(classifier.label_names))
        facts = _facts(built, checked, _prove(classifier, checked, fresh.parent))
    return WrittenGraph(path, len(built.content), time.monotonic() - started, facts)


def _load(folder: Path) -> Classifier:
    """Return a bundle's classifier with its network on the CPU."""
    classifier = Classifier.load(folder)
    network: Any = classifier.network
    classifier.network = network.to("cpu")
    return classifier


def _has_segments(classifier: Classifier) -> bool:
    return "token_type_ids" in classifier.tokenizer.model_input_names


def _prove(classifier: Classifier, checked: CheckedGraph, folder: Path) -> GraphProof:
    network: Any = classifier.network
    tokens = classifier.tokens
    assert tokens.max_length is not None
    embeddings = network.get_input_embeddings().weight.shape[0]
    rows = ProofRows(
        words=word_ids(classifier.tokenizer, embeddings),
        pad_id=classifier.tokenizer.pad_token_id,
        segments=_has_segments(classifier),
        longest=tokens.max_length,
        probe=encode(manifest.probe_texts(), classifier.tokenizer, manifest.probe_settings(tokens)),
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
