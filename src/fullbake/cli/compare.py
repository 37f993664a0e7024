"""The commands that compare: `compare` on a file of one's own, `demo` on bundled comments."""

from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from fullbake.cli import tables
from fullbake.cli.options import ComparisonFlags, ComparisonOptions
from fullbake.cli.terminal import print_line, print_table
from fullbake.config.recipe import Recipe
from fullbake.core.errors import RecipeError

DEMO_TEXTS = (
    "The keeper saved a penalty in the last minute and the whole stand went quiet.",
    "Let the dough rest overnight in the fridge, it is far easier to shape.",
    "My laptop will not boot since the update, it just shows a grey screen.",
)


def add_to(app: App) -> None:
    """Register the commands."""
    for command in (compare, demo):
        app.command(command)


def compare(
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
    cache_dir: Path | None = None,
    flags: ComparisonFlags = ComparisonOptions(),  # noqa: B008  (only read)
) -> None:
    """Compare recipes on the same rows: which is best, whether that is real, what it costs. Writes a page.

    The same command goes on where it was stopped.

    Parameters
    ----------
    data: Path
        Labelled rows: .csv, .tsv, .jsonl or .parquet, or the id of a hub data set.
    out_folder: Path
        Folder for leaderboard.json, report.html, best/ (a bundle) and cells/.
    recipes: str
        Names with commas between: shipped recipes, `further-` and one of them (after further pretraining), the
        baselines majority and tfidf, or YAML files. Default: finetune, frozen-mlp, frozen-linear, each of them after
        further pretraining, and both baselines.
    seeds: int
        Trainings of each recipe at each rate, with other seeds.
    rates: str
        Learning rates that validation chooses from where the base trains. Default: 5e-5,2e-5,3e-5,4e-5, of which a
        short budget takes the first.
    head_rates: str
        The same for heads on a frozen base. Default: 1e-2,1e-3,3e-3,3e-4 for mlp.
    budget: str
        Time to keep to, such as 90s, 10m or 1h: the largest design that is expected to fit is run, and what is left
        out is told. Default: everything.
    folds: int
        Let each of so many parts of the rows be test in turn. Default: one split.
    max_rows: int
        Take at most so many rows of the file, of each class its share.
    restart: bool
        Throw away what the folder holds and start anew.
    cache_dir: Path
        Where features and further pretrained bases are kept. Default: FULLBAKE_CACHE_DIR or the user's cache folder.
    """
    from fullbake.comparison.design import DEFAULT_RECIPES

    names = [name.strip() for name in recipes.split(",")] if recipes else list(DEFAULT_RECIPES)
    own = None if rates is None else _rates("rates", rates)
    of_heads = None if head_rates is None else _rates("head-rates", head_rates)
    from fullbake.comparison.compare import compare as run_comparison

    board = run_comparison(
        data,
        names,
        out=out_folder,
        seeds=seeds,
        budget=budget,
        folds=folds,
        max_rows=max_rows,
        restart=restart,
        cache_dir=cache_dir,
        rates=own,
        head_rates=of_heads,
        **flags.model_dump(exclude_none=True),
    )
    _print_comparison(board, out_folder)


def _rates(name: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise RecipeError(
            "rates are numbers with commas between",
            where=f"--{name}",
            expected="such as 5e-5,3e-5",
            got=repr(text),
        ) from None


def _print_comparison(board: dict[str, Any], folder: Path) -> None:
    """The leaderboard, the verdict, and where the page lies."""
    print_table(tables.leaderboard_table(board))
    for line in board["verdict"]["words"]:
        print_line(line)
    for line in tables.left_out_besides_recipes(board):
        print_line(f"left out: {line}")
    for line in board["stamps"]:
        print_line(line)
    print_line(f"page: {folder / 'report.html'}")
    if (folder / "best").is_dir():
        print_line(f"bundle: {folder / 'best'}")


def demo(*, out_folder: Annotated[Path, Parameter(name="--out")] = Path("fullbake-demo"), budget: str = "5m") -> None:
    """Compare the ways on 1,200 bundled forum comments (eight topics) with the packaged base. No hub needed.

    Parameters
    ----------
    out_folder: Path
        Folder for the comparison; an earlier demo there is replaced.
    budget: str
        Time to keep to, such as 90s, 5m or 1h.
    """
    from dataclasses import replace
    from importlib import resources

    from fullbake.classifier.model import Classifier
    from fullbake.comparison.compare import compare
    from fullbake.data.splits import read_labeled

    fields: dict[str, Any] = {"text": "text", "label": "topic"}
    with resources.as_file(resources.files("fullbake") / "resources" / "samples" / "comments.csv") as path:
        read = read_labeled(path, Recipe.load(base="demo", **fields).data)
    comments = replace(read, source="the bundled comments")
    board = compare(comments, out=out_folder, budget=budget, restart=True, base="demo", max_length=128, **fields)
    _print_comparison(board, out_folder)
    classifier = Classifier.load(out_folder / "best")
    print_table(tables.predictions_table(classifier.decision, DEMO_TEXTS, classifier.predict_proba(DEMO_TEXTS)))
    print_line(f'Try it: fullbake predict {out_folder}/best "The keeper saved a penalty in the last minute."')
