"""The command `export`: write a saved classifier as an ONNX graph."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyclopts import App

from fullbake.cli.options import RowFlags, RowOptions, Threads, apply_threads
from fullbake.cli.terminal import print_json, print_line, print_table
from fullbake.core.console import format_duration, format_size
from fullbake.core.errors import BundleError, Error, RecipeError
from fullbake.core.storage import read_manifest_file, require_new_file

if TYPE_CHECKING:
    from fullbake.classifier.graph_files import WrittenGraph
    from fullbake.classifier.model import Classifier
    from fullbake.classifier.precision import WrittenInt8
    from fullbake.config.recipe import Recipe


def add_export_command(app: App) -> None:
    """Add the command to the app."""
    app.command(export_command, name="export")


def export_command(
    bundle: Path,
    /,
    *,
    standalone: Path | None = None,
    overwrite: bool = False,
    int8: bool = False,
    data: str | None = None,
    tolerance: float | None = None,
    agreement: float | None = None,
    json: bool = False,
    threads: Threads = "auto",
    flags: RowFlags = RowOptions(),  # noqa: B008  (only read)
) -> None:
    """Add an ONNX graph to a bundle, so that it predicts without torch. Needs `pip install 'fullbake[export]'`.

    The graph, model.onnx, reads its weights from the bundle's own weights file. It is compared with torch on many
    batches first, and not written if it computes anything else. A graph that the bundle has already is replaced.

    With --int8 the bundle also gets a graph that computes in 8 bits: a fourth of the size, and faster on processors
    with instructions for it. It answers not quite as fp32 does, so labeled rows must show that it loses little enough;
    else it is refused. A graph that the bundle has already stays then.

    Args:
        bundle: Folder that `fullbake train` wrote.
        standalone: Write one ONNX file with the weights in it, for other programs, and leave the bundle as it is.
        overwrite: Replace the file of --standalone.
        int8: Add an int8 graph, which is judged by the rows of --data.
        data: Labeled rows for --int8 that were not trained on: a file or the id of a hub data set. Half of them fit the
            temperature and thresholds of int8, half judge it. Take validation rows and not the test rows, so that the
            test score stays one that nothing was chosen by.
        tolerance: The most of the metric that int8 may lose, as far as its 95% interval reaches. Default: 0.005.
        agreement: The least share of rows with the same labels as in fp32, its 95% interval included. Default: 0.98.
        json: Print what was measured of int8 as JSON.
    """
    given = flags.model_dump(exclude_none=True)
    if int8:
        _refuse_with_int8({"--standalone": standalone is not None, "--overwrite": overwrite})
        apply_threads(threads)
        _export_int8(bundle, data, tolerance, agreement, given, json=json)
        return
    named = {"--data": data, "--tolerance": tolerance, "--agreement": agreement, "--json": json or None}
    _refuse_without_int8([*(flag for flag, value in named.items() if value is not None), *map(_as_flag, given)])
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


def _refuse_with_int8(flags: dict[str, bool]) -> None:
    """Raise RecipeError if a flag was given that --int8 does not go with."""
    for flag, given in flags.items():
        if given:
            raise RecipeError(
                f"{flag} does not go with --int8", remedy="int8 is written into the bundle. Leave one of them out."
            )


def _refuse_without_int8(flags: list[str]) -> None:
    """Raise RecipeError if flags were given that need --int8."""
    if flags:
        raise RecipeError(
            f"{', '.join(flags)} belongs to --int8", remedy="Add --int8, or leave it out: a graph needs no rows."
        )


def _as_flag(field: str) -> str:
    return f"--{field.replace('_', '-')}"


def _export_int8(
    bundle: Path,
    data: str | None,
    tolerance: float | None,
    agreement: float | None,
    given: dict[str, Any],
    *,
    json: bool,
) -> None:
    if data is None:
        raise RecipeError(
            "--int8 needs labeled rows to be judged by",
            expected="--data FILE with rows that were not trained on",
            remedy="Give validation rows. A bundle holds no rows of its own.",
        )
    from fullbake.classifier.export import export_graph
    from fullbake.classifier.precision import check_promise, export_int8
    from fullbake.evaluation.fidelity import FidelityPromise

    limits = {"tolerance": tolerance, "agreement": agreement}
    promise = FidelityPromise(**{name: value for name, value in limits.items() if value is not None})
    check_promise(promise)
    if "graph" not in (read_manifest_file(bundle) or {"graph": None}):  # a folder that is no bundle is said below
        print_graph(export_graph(bundle), weights="it reads the weights of the bundle")
    written = export_int8(bundle, data, promise, **given)
    if json:
        print_json(written.facts)
    else:
        _print_int8(written)


def _print_int8(written: "WrittenInt8") -> None:
    from fullbake.cli.tables import int8_table

    print_table(int8_table(written.facts))
    print_line(f"int8: {written.folder} ({format_size(written.facts['bytes']['int8'])})")


def add_int8_to_run(classifier: "Classifier", folder: Path, data: str, recipe: "Recipe") -> None:
    """Add an int8 graph to the bundle of a finished run, judged by its validation rows, and print what was measured.

    The first process alone does it. The test rows have no part in it: their score stays one that chose nothing.

    Args:
        classifier: What the run trained.
        folder: Its bundle, which has a graph.
        data: The training file or hub id.
        recipe: The recipe of the run.

    Raises:
        Error: int8 is refused; the classifier stays in fp32.
    """
    from fullbake.classifier.precision import export_int8, read_validation_rows
    from fullbake.core import runtime

    if runtime.rank() != 0:
        return
    try:
        written = export_int8(folder, read_validation_rows(classifier, data, recipe.data))
    except Error as error:
        raise type(error)(
            error.what,
            where=error.where,
            expected=error.expected,
            got=error.got,
            remedy=f"The classifier in {folder} is complete in fp32. To judge int8 by other rows: fullbake export "
            f"{folder} --int8 --data FILE.",
        ) from error
    _print_int8(written)


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
