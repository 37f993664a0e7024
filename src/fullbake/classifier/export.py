"""Export a saved classifier as an ONNX graph: into its bundle, or as one file."""

from pathlib import Path

from fullbake.classifier.bundle_update import require_changeable
from fullbake.classifier.graph_files import GraphSource, WrittenGraph, add_graph, write_standalone
from fullbake.classifier.model import Classifier
from fullbake.core import storage
from fullbake.models.graph_export import require_export_packages


def export_graph(bundle: str | Path) -> WrittenGraph:
    """Add the graph of a classifier to its bundle, or replace the one that is there.

    Args:
        bundle: The bundle.

    Raises:
        BundleError: The folder is no intact bundle, its family cannot be exported, or the graph computes something
            else than torch.
        OutputError: The bundle cannot be written.
        MissingExtraError: The packages of the extra `export` are not installed.
    """
    folder = Path(bundle)
    require_export_packages()
    require_changeable(folder)
    return add_graph(folder, source_of(Classifier.load(folder, engine="torch")))


def export_standalone(bundle: str | Path, target: str | Path, *, overwrite: bool = False) -> WrittenGraph:
    """Write a classifier as one ONNX file that holds its weights. The bundle stays as it is.

    Args:
        bundle: The bundle.
        target: The file to write.
        overwrite: Replace a file of this name.

    Raises:
        BundleError: As for `export_graph`; or the weights are too many for one file.
        OutputError: The file exists already, or cannot be written.
        MissingExtraError: The packages of the extra `export` are not installed.
    """
    require_export_packages()
    storage.require_new_file(target, overwrite=overwrite)
    source = source_of(Classifier.load(bundle, engine="torch"))
    return write_standalone(Path(bundle), source, Path(target), overwrite=overwrite)


def source_of(classifier: Classifier) -> GraphSource:
    """Return what a graph of a classifier of the engine `torch` is made of."""
    return GraphSource(classifier.network, classifier.tokenizer, classifier.tokens, len(classifier.label_names))
