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

from fullbake import __version__, printing
from fullbake.config import Recipe, choices_of, leaf_fields, recipe_names
from fullbake.errors import Error
from fullbake.progress import console as err
from fullbake.progress import say

if TYPE_CHECKING:
    from fullbake.model import Classifier

out = Console()

app = App(
    name="fullbake",
    help="Adapt a BERT-family encoder to text classification, and keep a classifier that reloads everywhere.\n\n"
    "Every command takes `--debug` (show the traceback of an error) and `--quiet` (no lines while it works).",
    version=__version__,
    help_format="markdown",
)

DEMO_TEXTS = (
    "The keeper saved a penalty in the last minute and the whole stand went quiet.",
    "Let the dough rest overnight in the fridge, it is far easier to shape.",
    "My laptop will not boot since the update, it just shows a grey screen.",
)

def _flags() -> type[BaseModel]:
    """A model with every leaf field of a recipe as an optional flag."""
    fields: dict[str, Any] = {}
    for name, (section, field) in leaf_fields().items():
        kind = bool if field.annotation is bool else str
        words = choices_of(field.annotation)
        choices = f" One of: {', '.join(words)}." if words else ""
        text = f"{field.description}{choices}"
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
        out.print_json(data=scores, ensure_ascii=False)
    else:
        out.print(printing.scores(scores))


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
    from fullbake import running
    from fullbake.model import Classifier
    from fullbake.tables import FORMS, open_lines, open_table

    from_stdin = inputs in ((), ("-",))
    from_file = len(inputs) == 1 and Path(inputs[0]).suffix.lower() in FORMS
    classifier = Classifier.load(bundle)
    if not from_stdin and not from_file:
        out.print(printing.predictions(classifier.label_names, inputs, classifier.predict_proba(inputs)))
        return
    column = text or classifier.text_column
    table = (
        open_lines(sys.stdin.buffer, column=column)
        if from_stdin
        else open_table(inputs[0], columns=[column], delimiter=delimiter, encoding=encoding)
    )
    target = out_file if out_file is not None else sys.stdout.buffer
    rows = running.predict_file(classifier, table, target, text=column, prefix=prefix, overwrite=overwrite)
    say(f"{rows:,} rows scored{'' if out_file is None else f' into {out_file}'}")


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
    from fullbake.config import HeadConfig
    from fullbake.summary import summarize

    chosen = HeadConfig.model_validate(
        {"kind": head, "pooling": None if head == "standard" else pooling, "layers": layers, "width": width}
    )
    out.print(printing.summary(summarize(base, way=way, head=chosen, num_labels=num_labels)))


@app.command
def cache(*, clear: bool = False, cache_dir: Path | None = None) -> None:
    """Show what the cache of frozen features holds, or clear it.

    Parameters
    ----------
    clear: bool
        Remove all of it.
    cache_dir: Path
        Which folder. Default: FULLBAKE_CACHE_DIR or the user's cache folder.
    """
    from fullbake.running import feature_cache
    from fullbake.storage import amount

    features = feature_cache(cache_dir)
    if clear:
        out.print(f"cleared {amount(features.clear())} in {features.root}", markup=False)
        return
    out.print(printing.cache(features))


@app.command
def demo(*, out_folder: Annotated[Path, Parameter(name="--out")] = Path("fullbake-demo"), recipe: str = "frozen-linear") -> None:
    """Train on 1,200 bundled forum comments (eight topics) with the packaged base, score, and predict. No hub needed.

    Parameters
    ----------
    out_folder: Path
        Folder for the bundle; an earlier demo there is replaced.
    recipe: str
        A shipped recipe by name.
    """
    from importlib import resources

    from fullbake.running import adapt

    chosen = Recipe.load(recipe, base="demo", text="text", label="topic", test=0.2)
    with resources.as_file(resources.files("fullbake") / "samples" / "comments.csv") as comments:
        classifier = adapt(chosen, comments, out=out_folder, overwrite=True)
    out.print(printing.scores(classifier.record.facts["metrics"]["test"]))
    out.print(printing.predictions(classifier.label_names, DEMO_TEXTS, classifier.predict_proba(DEMO_TEXTS)))
    _print_run(classifier, out_folder)
    out.print(f'Try it: fullbake predict {out_folder} "The keeper saved a penalty in the last minute."', markup=False)


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


def _print_run(classifier: "Classifier", folder: Path) -> None:
    """The scores of each part, where the bundle lies, and what the scores are worth."""
    facts = classifier.record.facts
    for part, result in facts["metrics"].items():
        out.print(printing.headline(part, result), markup=False, highlight=False)
    if "test" not in facts["metrics"]:
        out.print("No test part: these validation scores also chose the epoch, so they flatter. --test 0.2 holds rows back.")
    if facts["data"]["overlap_allowed"]:
        rows = facts["data"]["overlap_allowed"]
        out.print(f"{rows:,} training rows also stand in a later part (--allow-overlap): the scores flatter.")
    out.print(f"bundle: {folder}", markup=False, highlight=False, soft_wrap=True)


def _show_log(quiet: bool) -> None:
    handler = RichHandler(console=err, show_time=False, show_level=False, show_path=False, highlighter=None)
    logger = logging.getLogger("fullbake")
    logger.handlers = [handler]
    logger.setLevel(logging.WARNING if quiet else logging.INFO)
    logger.propagate = False
