"""The `fullbake` command: train and evaluate; the other commands are added from the files beside this one.

Each command parses its words, calls one function and prints. Heavy libraries are imported inside the commands, so that
`--help` loads no torch.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from fullbake import __version__
from fullbake.cli import tables, terminal
from fullbake.cli.bench import add_bench_command
from fullbake.cli.compare import add_comparison_commands
from fullbake.cli.distill import add_distillation_commands
from fullbake.cli.doctor import add_doctor_command
from fullbake.cli.examples import add_examples
from fullbake.cli.explain import add_explain_command
from fullbake.cli.export import add_export_command, add_graph_to_run, add_int8_to_run
from fullbake.cli.options import (
    EngineFlag,
    Flags,
    OnFlag,
    PrecisionFlag,
    RecipeFlags,
    RowFlags,
    RowOptions,
    Threads,
    TrackFlag,
    WorkersFlag,
    apply_engine_threads,
    apply_threads,
    find_bundle,
    resume_mode,
    shown_default,
)
from fullbake.cli.predict import add_predict_command
from fullbake.cli.pretrain import add_pretraining_commands
from fullbake.cli.push import add_push_command
from fullbake.cli.serve import add_serve_command
from fullbake.cli.show import add_showing_commands
from fullbake.cli.terminal import help_console, print_json, print_line, print_table
from fullbake.config.recipe import Recipe
from fullbake.core.console import say
from fullbake.core.errors import RecipeError
from fullbake.core.processors import begin_measuring
from fullbake.core.runtime import limit_spinning
from fullbake.core.tracker_names import find_trackers
from fullbake.training.checkpoints import CheckpointInterval, is_saved

if TYPE_CHECKING:
    from fullbake.classifier.model import Classifier


app = App(
    name="fullbake",
    help="Adapt a BERT-family encoder to text classification, and keep a classifier that reloads everywhere.\n\n"
    "Every command takes `--debug` (show the traceback of an error) and `--quiet` (no lines while it works).",
    version=__version__,
    help_format="markdown",
    suppress_keyboard_interrupt=False,
    console=help_console,
    version_flags=("--version", "-V"),
    # Most switches are off unless they are given, so `--no-...` and [default: False] would say nothing.
    default_parameter=Parameter(negative_bool=(), negative_iterable=(), show_default=shown_default),
)

add_pretraining_commands(app)
add_comparison_commands(app)
add_explain_command(app)
add_export_command(app)
add_distillation_commands(app)
add_bench_command(app)
add_serve_command(app)
add_showing_commands(app)
add_doctor_command(app)
add_push_command(app)


@app.command(name="train")
def train_command(
    data: str,
    /,
    *,
    out_folder: Annotated[Path, Parameter(name="--out")],
    recipe: str | None = None,
    overwrite: bool = False,
    checkpoint_every: str = "5m",
    resume: bool = False,
    resume_anyway: bool = False,
    restart: bool = False,
    max_rows: int | None = None,
    baseline: Annotated[bool, Parameter(negative="--no-baseline")] = True,
    refit: bool = False,
    graph: bool = False,
    int8: bool = False,
    cache_dir: Path | None = None,
    track: TrackFlag = (),
    on: OnFlag = None,
    workers: WorkersFlag = None,
    threads: Threads = "auto",
    flags: RecipeFlags = Flags.model_construct(),  # noqa: B008  (only read)
) -> None:
    """Train a classifier on a labeled file, save it as a bundle, and write a report beside it: OUT.html.

    The report says what the score means and shows mistakes with their texts; the bundle holds no text of any row.

    Args:
        data: Labeled rows: a CSV, TSV, JSON or Parquet file, a folder of such files or with a subfolder for each class,
            or the id of a hub data set.
        out_folder: Folder for the bundle.
        recipe: A shipped recipe by name (`fullbake recipes` lists them), a YAML file, or the folder of a bundle, whose
            recipe is used again. Default: the shipped recipe that fits --way and --head.
        overwrite: Replace the bundle and its report when the new ones are complete.
        checkpoint_every: Save a checkpoint every so many steps (50) or minutes (5m), in OUT.unfinished. That folder is
            removed when the bundle is complete.
        resume: Stop with an error if there is no unfinished run. Without this flag an unfinished run is resumed if
            there is one, else a new run starts.
        resume_anyway: Resume although the recipe, the data or the installed libraries have changed.
        restart: Delete the unfinished run and start again.
        max_rows: Use at most this many rows of the file, and keep the share of each class. Default: all rows.
        baseline: Score the majority class and TF-IDF with logistic regression on the same rows, and show them beside
            the classifier.
        refit: When validation has chosen rate, epoch, thresholds and temperature, train once more with them, on the
            training and validation rows. Scores on validation are of the training before.
        graph: Add an ONNX graph to the bundle at the end, as `fullbake export` does. Needs
            `pip install 'fullbake[export]'`.
        int8: Add a graph and an int8 graph, as `fullbake export --int8` does: one half of the validation rows fits it,
            the other half judges it.
        cache_dir: Folder of the cache of features. Default: FULLBAKE_CACHE_DIR, or the user's cache folder.
    """
    given = flags.model_dump(exclude_none=True)
    from fullbake.cli.first_training import require_all

    require_all("train", data, given, sys.argv[1:], out=out_folder, recipe=recipe)
    chosen = Recipe.load(recipe, **given)
    CheckpointInterval.parse(checkpoint_every)  # report a wrong interval before torch is loaded
    trackers = find_trackers(track)
    mode = resume_mode(resume, resume_anyway, restart)
    if on is not None or workers is not None:
        from fullbake.cli.ray_workers import run_on_ray

        run_on_ray(sys.argv[1:], on, workers, out_folder)
    from fullbake.comparison.page import page_beside
    from fullbake.core.pages import check_page_target

    # A bundle without --overwrite is refused by `adapt`, unless its run only has to be cleaned up.
    check_page_target(page_beside(out_folder), overwrite=overwrite or is_saved(out_folder))
    apply_threads(threads, out_folder, mode)
    from fullbake.classifier.adapt import adapt

    if int8 and chosen.data.folds:
        raise RecipeError(
            "--int8 needs validation rows, and folds have none", remedy="Leave out --folds, or pass --folds 0."
        )
    if int8 and refit:
        raise RecipeError(
            "--int8 needs validation rows that were not trained on, and --refit trains on them",
            remedy="Leave out one of the two; `fullbake export --int8 --data FILE` judges int8 by other rows.",
        )
    if graph or int8:
        from fullbake.models.graph_export import require_export_packages

        require_export_packages()  # before hours of training
    classifier = adapt(
        chosen,
        data,
        out=out_folder,
        overwrite=overwrite,
        cache_dir=cache_dir,
        checkpoint_every=checkpoint_every,
        resume=mode,
        track=trackers,
        max_rows=max_rows,
        refit=refit,
        baseline=baseline,
    )
    _print_run(classifier, out_folder)
    _write_page(classifier, out_folder)
    if graph or int8:
        add_graph_to_run(classifier, out_folder)
    if int8:
        add_int8_to_run(classifier, out_folder, data, chosen)


@app.command(name="evaluate")
def evaluate_command(
    bundle: Path,
    data: str,
    /,
    *,
    json: bool = False,
    report: Path | None = None,
    overwrite: bool = False,
    engine: EngineFlag = "auto",
    precision: PrecisionFlag = "fp32",
    threads: Threads = "auto",
    flags: RowFlags = RowOptions.model_construct(),  # noqa: B008  (only read)
) -> None:
    """Score a saved classifier on a labeled file.

    Without --text and --label the columns have the names that they had in training.

    Args:
        bundle: Folder that `fullbake train` wrote, or the id of a bundle on the hub, such as org/name.
        data: Labeled rows: a CSV, TSV, JSON or Parquet file, a folder of such files or with a subfolder for each class,
            or the id of a hub data set.
        json: Print all numbers as JSON instead of tables.
        report: HTML file for a page like that of `fullbake train`: what the scores mean, and mistakes with their texts.
        overwrite: Replace the file of --report, if fullbake wrote it.
    """
    if report is not None:
        from fullbake.core.pages import check_page_target

        check_page_target(report, overwrite=overwrite)
    name, bundle = bundle.resolve().name, find_bundle(bundle)
    apply_engine_threads(threads, bundle, engine, precision)
    from fullbake.classifier.evaluate import evaluate_logits, read_as_trained
    from fullbake.classifier.model import Classifier

    classifier = Classifier.load(bundle, engine=engine, precision=precision)
    dataset = read_as_trained(classifier, data, **flags.model_dump(exclude_none=True))
    answers = classifier.answers(dataset.texts, dataset.text_pair)
    scores = evaluate_logits(classifier, dataset, answers.logits, answers.answered_by)
    if report is not None:
        from fullbake.comparison.classifier_page import write_evaluation_page

        write_evaluation_page(classifier, name, dataset, answers.logits, scores, report, _typed("evaluate"))
        say(f"report: {report} (it holds texts of rows)")
    if json:
        print_json(scores)
    else:
        print_table(tables.scores_table(scores))
        if "answered_by" in scores:
            print_line(tables.answered_line(scores["answered_by"]))


add_predict_command(app)
add_examples(app)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the `fullbake` command and exit with its code.

    Args:
        arguments: Words of the command line; None takes those of the process.
    """
    limit_spinning()
    begin_measuring()
    terminal.run(app, arguments)


def _write_page(classifier: "Classifier", folder: Path) -> None:
    """Write the page beside the bundle, on the first process only, and print where it is."""
    from fullbake.core import runtime

    if runtime.rank() != 0:
        return
    from fullbake.comparison.classifier_page import write_training_page

    page = write_training_page(classifier, folder, _typed("train"))
    print_line(f"report: {page} (it holds texts of rows, the bundle holds none)")


def _typed(command: str) -> str:
    """Return the command line as it was typed, without folders; the command's name where Python called `main`."""
    from fullbake.comparison.page import command_line

    line = command_line(sys.argv)
    return line if line.startswith("fullbake ") else f"fullbake {command}"


def _print_run(classifier: "Classifier", folder: Path) -> None:
    """Print the scores of each part, warnings that belong to them, and the bundle's folder."""
    facts = classifier.record.facts
    for part, result in facts["metrics"].items():
        print_line(tables.scores_headline(part, result))
        for line in tables.baseline_lines(part, facts):
            print_line(line)
    if "refit" in facts:
        print_line(tables.refit_line(facts))
    print_line(tables.calibration_line(facts["calibration"]))
    for line in tables.rank_change_lines(facts.get("rank_changes", ())):
        print_line(line)
    fitted = facts["metrics"]["validation"]["thresholds"]
    if fitted:
        print_table(tables.thresholds_table(fitted))
    if "test" not in facts["metrics"]:
        print_line(
            "No test part: validation also chose the epoch, so its scores are too high. --test 0.2 keeps test rows."
        )
    for stamp in classifier.stamps:
        print_line(stamp)
    from fullbake.classifier.baseline_scores import compare_with_baselines

    remark = compare_with_baselines(facts)
    if remark is not None:
        print_line(remark)
    print_line(f"bundle: {folder}")
