"""The command `export`: write a saved classifier as an ONNX graph."""

from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import App

from fullbake.cli.options import Threads, apply_threads
from fullbake.cli.terminal import print_line
from fullbake.core.console import format_duration, format_size
from fullbake.core.errors import BundleError, RecipeError
from fullbake.core.storage import require_new_file

if TYPE_CHECKING:
    from fullbake.classifier.graph_files import WrittenGraph
    from fullbake.classifier.model import Classifier


def add_export_command(app: App) -> None:
    """Add the command to the app."""
    app.command(export_command, name="export")


def export_command(
    bundle: Path, /, *, standalone: Path | None = None, overwrite: bool = False, threads: Threads = "auto"
) -> None:
    """Add an ONNX graph to a bundle, so that it predicts without torch. Needs `pip install 'fullbake[export]'`.

    The graph, model.onnx, reads its weights from the bundle's own weights file. It is compared with torch on many
    batches first, and not written if it computes anything else. A graph that the bundle has already is replaced.

    Args:
        bundle: Folder that `fullbake train` wrote.
        standalone: Write one ONNX file with the weights in it, for other programs, and leave the bundle as it is.
        overwrite: Replace the file of --standalone.
    """
    if standalone is not None:
        require_new_file(standalone, overwrite=overwrite)
    elif overwrite:
        raise RecipeError(
            "--overwrite belongs to --standalone", remedy="Leave it out: the graph of a bundle is replaced anyway."
        )
    apply_threads(threads)
    from fullbake.classifier.export import export_graph, export_standalone

    if standalone is None:
        print_graph(export_graph(bundle), weights="it reads the weights of the bundle")
    else:
        written = export_standalone(bundle, standalone, overwrite=overwrite)
        print_graph(written, weights="it holds all weights")


def add_graph_to_run(classifier: "Classifier", folder: Path) -> None:
    """Add a graph to the bundle of a finished run, on the first process only, and print what was written.

    Args:
        classifier: What the run trained.
        folder: Its bundle.

    Raises:
        BundleError: The family cannot be exported, or its graph computes something else than torch.
    """
    from fullbake.classifier.export import source_of
    from fullbake.classifier.graph_files import add_graph
    from fullbake.core import runtime

    if runtime.rank() != 0:
        return
    try:
        written = add_graph(folder, source_of(classifier))
    except BundleError as error:
        raise BundleError(
            error.what,
            where=error.where,
            expected=error.expected,
            got=error.got,
            remedy=f"The classifier in {folder} is complete and works with torch; it has no graph.",
        ) from error
    print_graph(written, weights="it reads the weights of the bundle")


def print_graph(written: "WrittenGraph", *, weights: str) -> None:
    """Print what was written, how far it is from torch, and what it took. weights: where those of the graph are."""
    facts = written.facts
    print_line(f"graph: {written.path} ({format_size(written.size)}, {weights})")
    print_line(
        f"largest difference from torch: {facts['difference']:.0e} of the largest output, in {facts['batches']} "
        f"batches; a text alone and in a batch: {facts['alone']:.0e}"
    )
    made = f"{facts['exporter']} {facts['versions'][facts['exporter']]}"
    print_line(f"exported by {made} in {format_duration(written.seconds)}, ONNX operators of version {facts['opset']}")
