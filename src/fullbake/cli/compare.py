"""The commands `compare` (recipes on a labeled file) and `demo` (the same on the bundled comments)."""

import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from fullbake.cli import tables
from fullbake.cli.options import ComparisonFlags, ComparisonOptions, Threads, TrackFlag
from fullbake.cli.terminal import print_line, print_table
from fullbake.config.recipe import Recipe
from fullbake.core.errors import RecipeError
from fullbake.core.processors import parse_threads
from fullbake.core.ray_cluster import parse_on
from fullbake.core.tracker_names import find_trackers

DEMO_TEXTS = (
    "The keeper saved a penalty in the last minute and the whole stand went quiet.",
    "Let the dough rest overnight in the fridge, it is far easier to shape.",
    "My laptop will not boot since the update, it just shows a grey screen.",
)


def add_comparison_commands(app: App) -> None:
    """Add the commands to the app."""
    app.command(compare_command, name="compare")
    app.command(demo_command, name="demo")


def compare_command(
    data: str,
    /,
    *,
    out_folder: Annotated[Path, Parameter(name="--out")] = Path("comparison"),
    recipes: str | None = None,
    seeds: int = 3,
    rates: str | None = None,
    head_rates: str | None = None,
    budget: str | None = None,
    folds: int | None = None,
    max_rows: int | None = None,
    restart: bool = False,
    bench: Annotated[bool, Parameter(negative="--no-bench")] = True,
    cache_dir: Path | None = None,
    track: TrackFlag = (),
    threads: Threads = "auto",
    jobs: int | None = None,
    on: str | None = None,
    flags: ComparisonFlags = ComparisonOptions.model_construct(),  # noqa: B008  (only read)
) -> None:
    """Compare recipes on the same rows: which is best, is the difference real, what does it cost. Writes a report.

    After an interrupt, the same command resumes.

    Args:
        data: Labeled rows: a CSV, TSV, JSON or Parquet file, a folder of such files or with a subfolder for each class,
            or the id of a hub data set.
        out_folder: Folder for leaderboard.json, report.html, best/ (a bundle) and cells/ (finished trials).
        recipes: Recipe names with commas between them: shipped recipes, `further-NAME` (the recipe after further
            pretraining), the baselines majority and tfidf, or YAML files. Default: finetune, frozen-mlp, frozen-linear,
            each of them after further pretraining, and both baselines.
        seeds: How many times each recipe trains, with different seeds.
        rates: Learning rates for recipes that train the base; the first seed tries all, validation chooses one, and the
            other seeds take it. Default: those of the recipe.
        head_rates: Learning rates for heads on a frozen base. Default: 1e-2,3e-3,1e-3,3e-4 for frozen-mlp.
        budget: Time limit, such as 90s, 10m or 1h. Every recipe is trained once first; what does not fit is made
            smaller before anything is left out, and the output says so. The rest of the time is for whole trainings
            and more seeds. Default: no limit.
        folds: Cross-validate: split the rows into this many folds, and test on each of them in turn. Default: one
            split.
        max_rows: Use at most this many rows of the file, and keep the share of each class.
        restart: Delete what the folder holds and start again.
        bench: Measure at the end how fast the recommended classifier answers on this machine.
        cache_dir: Folder of the caches of features and of further-pretrained bases. Default: FULLBAKE_CACHE_DIR, or the
            user's cache folder.
        jobs: How many trials run at once, each in a process of its own; the processors are divided among them. Default:
            one, or as many as the cluster has room for.
        on: Where the trials run: `ray` (the cluster of RAY_ADDRESS or of this machine, else a new one), `ray:local`
            (always a new one on this machine) or `ray:HOST:PORT`. Default: this machine. A cluster runs what it is
            sent: use one that you trust.
    """
    if on is not None:
        parse_on(on)  # report a wrong place before torch is loaded
    from fullbake.comparison.design import DEFAULT_RECIPES

    given = flags.model_dump(exclude_none=True)
    from fullbake.cli.first_training import require_all

    require_all("compare", data, given, sys.argv[1:], out=out_folder, needs=("base",))
    setting = parse_threads(threads)
    trackers = find_trackers(track)
    names = [name.strip() for name in recipes.split(",")] if recipes else list(DEFAULT_RECIPES)
    own = None if rates is None else _rates("rates", rates)
    of_heads = None if head_rates is None else _rates("head-rates", head_rates)
    from fullbake.comparison.compare import compare

    board = compare(
        data,
        names,
        out=out_folder,
        seeds=seeds,
        budget=budget,
        folds=folds,
        max_rows=max_rows,
        restart=restart,
        bench=bench,
        cache_dir=cache_dir,
        rates=own,
        head_rates=of_heads,
        threads=setting,
        jobs=jobs,
        on=on,
        track=trackers,
        **given,
    )
    _print_comparison(board, out_folder)


def _rates(name: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise RecipeError(
            "learning rates must be numbers with commas between them",
            where=f"--{name}",
            expected="such as 5e-5,3e-5",
            got=repr(text),
        ) from None


def _print_comparison(board: dict[str, Any], folder: Path) -> None:
    """Print the leaderboard, the verdict, and where the report is."""
    print_table(tables.leaderboard_table(board))
    for line in board["verdict"]["words"]:
        print_line(line)
    for line in tables.left_out_besides_recipes(board):
        print_line(f"left out: {line}")
    for line in board["stamps"]:
        print_line(line)
    print_line(f"report: {folder / 'report.html'}")
    if (folder / "best").is_dir():
        print_line(f"bundle: {folder / 'best'}")


def demo_command(
    *,
    out_folder: Annotated[Path, Parameter(name="--out")] = Path("fullbake-demo"),
    budget: str = "5m",
    threads: Threads = "auto",
) -> None:
    """Compare the ways on 1,200 bundled forum comments with eight topics. Needs no model hub.

    Args:
        out_folder: Folder for the comparison. An earlier demo in it is replaced.
        budget: Time limit, such as 90s, 5m or 1h.
    """
    setting = parse_threads(threads)
    from dataclasses import replace
    from importlib import resources

    from fullbake.classifier.model import Classifier
    from fullbake.comparison.compare import compare
    from fullbake.data.labeled_files import read_labeled

    fields: dict[str, Any] = {"text": "text", "label": "topic"}
    with resources.as_file(resources.files("fullbake") / "resources" / "samples" / "comments.csv") as path:
        read = read_labeled(path, Recipe.load(base="demo", **fields).data)
    comments = replace(read, source="the bundled comments")
    options: dict[str, Any] = {"budget": budget, "restart": True, "bench": True, "threads": setting, "max_length": 128}
    board = compare(comments, out=out_folder, base="demo", **options, **fields)
    _print_comparison(board, out_folder)
    if not (out_folder / "best").is_dir():  # no recipe is recommended
        return
    classifier = Classifier.load(out_folder / "best")
    print_table(tables.predictions_table(classifier.decision, DEMO_TEXTS, classifier.predict_proba(DEMO_TEXTS)))
    print_line(f'Try it: fullbake predict {out_folder}/best "The keeper saved a penalty in the last minute."')
