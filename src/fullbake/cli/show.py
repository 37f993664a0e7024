"""The commands that look at something and change nothing: inspect, check, summary, cache, recipes."""

import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter, validators

from fullbake.cli import tables
from fullbake.cli.options import Flags, RecipeFlags, Threads, apply_threads
from fullbake.cli.terminal import print_json, print_line, print_table
from fullbake.config.recipe import Recipe, recipe_names
from fullbake.core.console import say
from fullbake.core.errors import RecipeError
from fullbake.core.storage import require_new_file


def add_showing_commands(app: App) -> None:
    """Add the commands to the app."""
    app.command(inspect_command, name="inspect")
    app.command(check_command, name="check")
    app.command(summary_command, name="summary")
    app.command(cache_command, name="cache")
    app.command(recipes_command, name="recipes")


def inspect_command(
    data: str,
    /,
    *,
    json: bool = False,
    plot: Path | None = None,
    suspects: Path | None = None,
    cache_dir: Path | None = None,
    threads: Threads = "auto",
    flags: RecipeFlags = Flags.model_construct(),  # noqa: B008  (only read)
) -> None:
    """Check a labeled file before training: labels, lengths, duplicates, likely leaks and likely mistakes.

    Args:
        data: Labeled rows: a CSV, TSV, JSON or Parquet file, a folder of such files or with a subfolder for each class,
            or the id of a hub data set.
        json: Print all numbers as JSON instead of tables.
        plot: PNG file for a plot of the labels and the lengths.
        suspects: CSV file that lists the rows with the most doubtful labels first. Check them by hand. Needs --base,
            whose features it compares, and `pip install 'fullbake[suspects]'`.
        cache_dir: Folder of the cache of features. Default: FULLBAKE_CACHE_DIR, or the user's cache folder.
    """
    given = flags.model_dump(exclude_none=True)
    from fullbake.cli.first_training import require_all

    require_all("inspect", data, given, sys.argv[1:], needs=())
    recipe = Recipe.load(**({"base": "none given"} | given))
    if suspects is not None and "base" not in given:
        raise RecipeError("--suspects needs a base, whose features it compares", remedy="Name one: --base demo.")
    if plot is not None:
        require_new_file(plot, overwrite=True)
    if suspects is not None:
        from fullbake.classifier.label_errors import check_target, require_cleanlab

        require_cleanlab()
        check_target(suspects)
        apply_threads(threads)
    from fullbake.cli import tables
    from fullbake.data.inspection import inspect_file

    limits = _limits(recipe) if "base" in given else ()
    facts = inspect_file(data, recipe.data, *limits)
    if json:
        print_json(facts.to_json())
    else:
        print_table(tables.facts_sheet(facts))
    if plot is not None:
        _plot_facts(facts, plot)
    if suspects is not None:
        _write_suspects(data, recipe, suspects, cache_dir)


def _limits(recipe: Recipe) -> tuple[Any, int | None]:
    """Return a function that counts the tokens of texts for the base, and the base's longest input in tokens."""
    from functools import partial

    from fullbake.models.encoding import count_tokens
    from fullbake.models.tokenizer import load_tokenizer
    from fullbake.training.job import resolve_recipe

    tokens = resolve_recipe(recipe).tokens
    return partial(count_tokens, load_tokenizer(recipe.base), prompt=tokens.prompt), tokens.max_length


def _plot_facts(facts: Any, path: Path) -> None:
    from fullbake.core import storage
    from fullbake.evaluation import plots

    lengths = facts.tokens or facts.characters
    figure = plots.data_figure(facts.labels, facts.rows, lengths.counts, lengths.limit)
    with storage.staged_file(path, overwrite=True) as fresh:
        storage.write_bytes(fresh, figure)
    say(f"picture: {path}")


def _write_suspects(data: str, recipe: Recipe, path: Path, cache_dir: Path | None) -> None:
    from fullbake.classifier.label_errors import dataset_features, find_label_errors, write_label_errors
    from fullbake.data.label_checks import drop_rare_labels
    from fullbake.data.labeled_files import read_labeled

    dataset = drop_rare_labels(read_labeled(data, recipe.data), recipe.data.drop_rare)
    found = find_label_errors(dataset, dataset_features(dataset, recipe, cache_dir), seed=recipe.data.split_seed)
    write_label_errors(path, dataset, found)
    say(f"suspects: {path} lists all {len(dataset):,} rows, the most doubtful labels first; check them by hand")


def check_command(
    base: str,
    /,
    *,
    json: bool = False,
    cache_dir: Path | None = None,
    threads: Threads = "auto",
) -> None:
    """Try a base: its config, tokenizer and weights, and whether padding or earlier texts change its results.

    Every run makes the same checks before it computes anything, and remembers a base that passed. This command makes
    them again. It ends with exit code 2 if the base is refused.

    Args:
        base: Folder in Hugging Face format, a hub id, or `demo`.
        json: Print the checks as JSON instead of a table.
        cache_dir: Folder of the cache of admitted bases. Default: FULLBAKE_CACHE_DIR, or the user's cache folder.
    """
    apply_threads(threads)
    from fullbake.models.admission import examine

    found = examine(base, cache_dir=cache_dir, again=True)
    if json:
        print_json(found.to_json())
    elif found.facts:  # where no config was read, the error says all
        print_table(tables.admission_table(found))
    if found.errors:
        raise found.errors[0]


def summary_command(
    base: str,
    /,
    *,
    way: str | None = None,
    head: str = "standard",
    num_labels: Annotated[int, Parameter(validator=validators.Number(gte=1))] = 2,
    pooling: str | None = None,
    layers: str | None = None,
    width: str | None = None,
) -> None:
    """Print the layers of a base, or of a classifier on it, with output shapes and parameter counts. Needs no weights.

    Args:
        base: Folder with a config.json, a hub id, or `demo`.
        way: finetune or frozen. Default: the base alone.
        head: standard, linear or mlp.
        num_labels: Number of classes.
        pooling: How the token vectors become the input of a linear or mlp head, as --pooling of `fullbake train`.
            Default: the pooling that the base names, else cls.
        layers: Blocks of an mlp head. Default: 2.
        width: Units of each block. Default: the hidden size of the base.
    """
    chosen = Recipe.load(base=base, way=way, head=head, pooling=pooling, layers=layers, width=width)
    from fullbake.models.summary import summarize

    print_table(tables.summary_table(summarize(base, way=way, head=chosen.head, num_labels=num_labels)))


def cache_command(*, clear: bool = False, cache_dir: Path | None = None) -> None:
    """Show what the feature cache holds, or clear it.

    Args:
        clear: Delete all entries.
        cache_dir: Folder of the cache of features. Default: FULLBAKE_CACHE_DIR, or the user's cache folder.
    """
    from fullbake.core.console import format_size
    from fullbake.training.job import feature_cache

    features = feature_cache(cache_dir)
    if clear:
        print_line(f"cleared {format_size(features.clear())} in {features.root}")
        return
    print_table(tables.cache_table(features))


def recipes_command(name: str | None = None, /) -> None:
    """List the shipped recipes, or print one of them as YAML with all its fields.

    Args:
        name: The recipe to print.
    """
    if name is not None:
        for line in Recipe.load(name, base="demo").to_yaml().splitlines():
            print_line(line)
        return
    for recipe, text in recipe_names().items():
        print_line((f"{recipe:<18}", "bold"), text)
