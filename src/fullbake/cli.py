"""The command line: parse, call one function, print.

Flags are made from the recipe's fields, so their help is the line under the field. Everything heavy is imported inside the
commands, so that `--help` loads no torch. Results go to stdout, everything else to stderr.
Exit codes: 0 done, 1 a fault, 2 the user's mistake, 130 Ctrl-C.
"""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, CycloptsError, Group, Parameter
from pydantic import BaseModel, create_model
from rich.console import Console
from rich.logging import RichHandler
from rich.text import Text

from fullbake import __version__
from fullbake.config import Recipe, choices_of, leaf_fields, recipe_names
from fullbake.errors import Error
from fullbake.progress import console as err

if TYPE_CHECKING:
    from fullbake.model import Classifier

out = Console()

app = App(
    name="fullbake",
    help="Adapt a BERT-family encoder to text classification, and keep a classifier that reloads everywhere.",
    version=__version__,
    help_format="markdown",
)
app.meta.group_parameters = Group("Everywhere")


def _flags() -> type[BaseModel]:
    """A model with every leaf field of a recipe as an optional flag."""
    fields: dict[str, Any] = {}
    for name, (section, field) in leaf_fields().items():
        kind = bool if field.annotation is bool else str
        words = choices_of(field.annotation)
        text = f"{field.description}{f' One of: {", ".join(words)}.' if words else ''}"
        fields[name] = (Annotated[kind | None, Parameter(help=text, group=Group(section), negative="")], None)
    return create_model("Flags", **fields)


Flags = _flags()


@app.command
def train(
    data: str,
    /,
    *,
    out_folder: Annotated[Path, Parameter(name="--out")],
    recipe: str | None = None,
    overwrite: bool = False,
    cache_dir: Path | None = None,
    flags: Annotated[BaseModel, Parameter(name="*")] = Flags(),
) -> None:
    """Train a classifier on a labelled file and save it as a bundle.

    Parameters
    ----------
    data: Path
        Labelled rows: .csv, .tsv, .jsonl or .parquet, or the id of a hub data set.
    out_folder: Path
        Folder for the bundle.
    recipe: str
        A shipped recipe by name (see `fullbake recipes`) or a YAML file. Default: the one that fits --way and --head.
    overwrite: bool
        Replace what stands in the output folder, once the new bundle is complete.
    cache_dir: Path
        Where features of frozen bases are kept. Default: FULLBAKE_CACHE_DIR or the user's cache folder.
    """
    chosen = Recipe.load(recipe, **flags.model_dump(exclude_none=True))
    from fullbake.running import adapt

    classifier = adapt(chosen, data, out=out_folder, overwrite=overwrite, cache_dir=cache_dir)
    _print_run(classifier, out_folder)


@app.command
def evaluate(
    bundle: Path,
    data: str,
    /,
    *,
    text: str | None = None,
    label: str | None = None,
    json: bool = False,
    drop_unlabelled: bool = False,
    delimiter: str | None = None,
    encoding: str = "utf-8",
) -> None:
    """Score a saved classifier on a labelled file.

    Parameters
    ----------
    bundle: Path
        Folder that `fullbake train` wrote.
    data: Path
        Labelled rows: .csv, .tsv, .jsonl or .parquet, or the id of a hub data set.
    text: str
        Column that holds the texts. Default: the name it had in training.
    label: str
        Column that holds the labels. Default: the name it had in training.
    json: bool
        Print every figure as JSON instead of tables.
    drop_unlabelled: bool
        Leave rows with an empty label out.
    delimiter: str
        Field separator of text files. Default: by extension.
    encoding: str
        Encoding of text files.
    """
    from fullbake import running
    from fullbake.data import read_dataset
    from fullbake.model import Classifier

    classifier = Classifier.load(bundle)
    dataset = read_dataset(
        data,
        text=text or classifier.text_column,
        label=label or classifier.label_column,
        label_names=classifier.label_names,
        drop_unlabelled=drop_unlabelled,
        delimiter=delimiter,
        encoding=encoding,
    )
    scores = running.evaluate(classifier, dataset)
    if json:
        _print_json(scores)
    else:
        _print_scores(scores)


@app.command
def predict(
    bundle: Path,
    inputs: Annotated[tuple[str, ...], Parameter(allow_leading_hyphen=False)] = (),
    /,
    *,
    out_file: Annotated[Path | None, Parameter(name="--out")] = None,
    text: str | None = None,
    prefix: str = "",
    overwrite: bool = False,
    delimiter: str | None = None,
    encoding: str = "utf-8",
) -> None:
    """Classify the rows of a file, lines on stdin, or texts.

    Parameters
    ----------
    bundle: Path
        Folder that `fullbake train` wrote.
    inputs: str
        One file (.csv, .tsv, .jsonl, .parquet), or texts, or `-` for a text a line on stdin.
    out_file: Path
        File for the rows with `predicted`, `score` and `score:<class>` beside them. Default: stdout.
    text: str
        Column that holds the texts. Default: the name it had in training.
    prefix: str
        Put before the names of the new columns, where one of them is taken.
    overwrite: bool
        Replace the output file, once the new one is complete.
    delimiter: str
        Field separator of text files. Default: by extension.
    encoding: str
        Encoding of text files.
    """
    raise NotImplementedError


@app.command
def summary(
    base: str,
    /,
    *,
    way: str | None = None,
    head: str = "standard",
    num_labels: int = 2,
    pooling: str = "cls",
    layers: int = 2,
    width: int | None = None,
) -> None:
    """Print the layers of a base or a classifier on it: output shapes, parameters, what trains. Needs no weights.

    Parameters
    ----------
    base: str
        Folder with a config.json, hub id, or `demo`.
    way: str
        finetune or frozen. Default: the base alone.
    head: str
        standard, linear or mlp.
    num_labels: int
        Number of classes.
    pooling: str
        How a linear or mlp head's input is pooled.
    layers: int
        Blocks of an mlp head.
    width: int
        Units of each block. Default: as wide as the base.
    """
    raise NotImplementedError


@app.command
def recipes(name: str | None = None, /) -> None:
    """List the shipped recipes, or print one as YAML with every field.

    Parameters
    ----------
    name: str
        The recipe to print.
    """
    if name is not None:
        out.print(Recipe.load(name, base="demo").to_yaml(), end="", markup=False, highlight=False)
        return
    for recipe, text in recipe_names().items():
        out.print(Text.assemble((f"{recipe:<16}", "bold"), text))


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the `fullbake` command."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug, quiet = (_taken(arguments, flag) for flag in ("--debug", "--quiet"))
    _show_log(quiet)
    sys.exit(_run(arguments, debug))


def _taken(arguments: list[str], flag: str) -> bool:
    found = flag in arguments
    while flag in arguments:
        arguments.remove(flag)
    return found


def _run(arguments: list[str], debug: bool) -> int:
    try:
        app(arguments, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        return _fail(str(error), 2)
    except Error as error:
        if debug:
            raise
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _fail("stopped by Ctrl-C. Nothing half-written was left behind.", 130)
    except BrokenPipeError:
        return 1
    except Exception as error:
        if debug:
            raise
        return _fail(f"{type(error).__name__}: {error}\nThis is a fault of fullbake's. --debug shows where.", 1)
    return 0


def _fail(message: str, code: int) -> int:
    """Print an error as one paragraph, its lines set in under the first."""
    err.print(Text.assemble(("error: ", "bold red"), message.replace("\n", "\n       ")), soft_wrap=True)
    return code
