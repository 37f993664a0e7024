"""The command line: parse, call one function, print.

Flags are made from the recipe's fields, so their help is the line under the field. Everything heavy is imported
inside the commands, so that `--help` loads no torch. Results go to stdout, everything else to stderr. Exit codes: 0
done, 1 a fault, 2 the user's mistake, 130 Ctrl-C.
"""

import logging
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, CycloptsError, Group, Parameter, validators
from pydantic import BaseModel, create_model
from rich.console import Console, RenderableType
from rich.text import Text

from fullbake import __version__, printing, runtime
from fullbake.checkpoints import Cadence
from fullbake.config import Recipe, choices_of, leaf_fields, recipe_names
from fullbake.errors import DataError, Error, Interrupted, OutputError, RecipeError
from fullbake.progress import console as err
from fullbake.progress import say
from fullbake.unfinished import Resume

if TYPE_CHECKING:
    from fullbake.model import Classifier

out = Console()
PIPED_WIDTH = 160
"""Columns of a table that goes to a file or a pipe, where no screen's edge should cut it."""

app = App(
    name="fullbake",
    help="Adapt a BERT-family encoder to text classification, and keep a classifier that reloads everywhere.\n\n"
    "Every command takes `--debug` (show the traceback of an error) and `--quiet` (no lines while it works).",
    version=__version__,
    help_format="markdown",
    suppress_keyboard_interrupt=False,
)

DEMO_TEXTS = (
    "The keeper saved a penalty in the last minute and the whole stand went quiet.",
    "Let the dough rest overnight in the fridge, it is far easier to shape.",
    "My laptop will not boot since the update, it just shows a grey screen.",
)

SECTIONS = ("Recipe", "Data", "Tokens", "Head", "Training")
"""The order in which `train --help` shows a recipe's fields."""


def _flags() -> type[BaseModel]:
    """A model with every leaf field of a recipe as an optional flag."""
    fields: dict[str, Any] = {}
    for name, (section, field) in leaf_fields().items():
        kind = bool if field.annotation is bool else str
        words = choices_of(field.annotation)
        choices = f" One of: {', '.join(words)}." if words else ""
        text = f"{field.description}{choices}"
        group = Group(section, sort_key=SECTIONS.index(section))
        fields[name] = (Annotated[kind | None, Parameter(help=text, group=group, negative="")], None)
    return create_model("Flags", **fields)


Flags = _flags()
if TYPE_CHECKING:
    RecipeFlags = BaseModel  # mypy cannot look into a model that is made at run time
else:
    RecipeFlags = Annotated[Flags, Parameter(name="*")]


@app.command
def train(
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
    cache_dir: Path | None = None,
    flags: RecipeFlags = Flags(),  # noqa: B008  (only read)
) -> None:
    """Train a classifier on a labelled file and save it as a bundle.

    Parameters
    ----------
    data: Path
        Labelled rows: .csv, .tsv, .jsonl or .parquet, or the id of a hub data set.
    out_folder: Path
        Folder for the bundle.
    recipe: str
        A shipped recipe by name (see `fullbake recipes`), a YAML file, or the folder of a bundle, whose recipe is run
        again. Default: the shipped one that fits --way and --head.
    overwrite: bool
        Replace what stands in the output folder, once the new bundle is complete.
    checkpoint_every: str
        Save what is needed to go on every so many steps (50) or minutes (5m). It lies in OUT.unfinished until the
        bundle is done.
    resume: bool
        Go on with the unfinished run, and refuse to start anew. Without it an unfinished run of the same recipe and
        data is gone on with where there is one.
    resume_anyway: bool
        Go on although the recipe, the data or the installed libraries differ.
    restart: bool
        Throw an unfinished run away and start anew.
    cache_dir: Path
        Where features of frozen bases are kept. Default: FULLBAKE_CACHE_DIR or the user's cache folder.
    """
    chosen = Recipe.load(recipe, **flags.model_dump(exclude_none=True))
    Cadence.parse(checkpoint_every)  # a mistake in it is told before torch is loaded
    from fullbake.running import adapt

    classifier = adapt(
        chosen,
        data,
        out=out_folder,
        overwrite=overwrite,
        cache_dir=cache_dir,
        checkpoint_every=checkpoint_every,
        resume=_resume(resume, resume_anyway, restart),
    )
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
    from fullbake import scoring
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
    scores = scoring.evaluate(classifier, dataset)
    if json:
        out.print_json(data=scores, ensure_ascii=False)
    else:
        _show(printing.scores(scores))


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
        One file (.csv, .tsv, .jsonl, .parquet), or texts. Default: a text a line on stdin.
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
    from fullbake import scoring
    from fullbake.model import Classifier
    from fullbake.tables import FORMS, open_lines, open_table

    from_stdin = not inputs
    from_file = len(inputs) == 1 and Path(inputs[0]).suffix.lower() in FORMS
    if not from_stdin and not from_file:
        _check_texts(inputs, out_file, tuple(FORMS))
    classifier = Classifier.load(bundle)
    if not from_stdin and not from_file:
        _show(printing.predictions(classifier.label_names, inputs, classifier.predict_proba(inputs)))
        return
    if from_stdin and sys.stdin.isatty():
        say("reading a text a line; Ctrl-D ends")
    column = text or classifier.text_column
    table = (
        open_lines(sys.stdin.buffer, column=column)
        if from_stdin
        else open_table(inputs[0], columns=[column], delimiter=delimiter, encoding=encoding)
    )
    target = out_file if out_file is not None else sys.stdout.buffer
    rows = scoring.predict_file(classifier, table, target, text=column, prefix=prefix, overwrite=overwrite)
    say(f"{rows:,} rows scored{'' if out_file is None else f' into {out_file}'}")


def _check_texts(inputs: tuple[str, ...], out_file: Path | None, forms: tuple[str, ...]) -> None:
    """Texts as arguments are shown, not written; and what names a file was hardly meant as a text."""
    files = [word for word in inputs if Path(word).suffix.lower() in forms or os.path.isfile(word)]
    if files:
        raise DataError(
            "this is a file, where texts or one file of rows are taken",
            where=files[0],
            expected=f"one file ({', '.join(forms)}), or texts",
            got="several arguments" if len(inputs) > 1 else "a file of another kind",
            remedy="Score files one at a time; give a file with a text a line on stdin: "
            f"fullbake predict BUNDLE < {files[0]}",
        )
    if out_file is not None:
        raise OutputError(
            "texts that are given as arguments are shown, not written",
            where=f"--out {out_file}",
            remedy="Give a file, or the texts a line on stdin, or leave --out away.",
        )


@app.command
def summary(
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
        How a linear or mlp head's input is pooled: cls, mean, max or cls+mean. Default: cls, unless the base names
        its own.
    layers: int
        Blocks of an mlp head. Default: 2.
    width: int
        Units of each block. Default: as wide as the base.
    """
    chosen = Recipe.load(base=base, way=way, head=head, pooling=pooling, layers=layers, width=width)
    from fullbake.summary import summarize

    _show(printing.summary(summarize(base, way=way, head=chosen.head, num_labels=num_labels)))


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
        _tell(f"cleared {amount(features.clear())} in {features.root}")
        return
    _show(printing.cache(features))


@app.command
def demo(
    *, out_folder: Annotated[Path, Parameter(name="--out")] = Path("fullbake-demo"), recipe: str = "frozen-linear"
) -> None:
    """Train on 1,200 bundled forum comments (eight topics) with the packaged base, score, and predict. No hub needed.

    Parameters
    ----------
    out_folder: Path
        Folder for the bundle; an earlier demo there is replaced.
    recipe: str
        A shipped recipe by name.
    """
    from dataclasses import replace
    from importlib import resources

    from fullbake.parts import read_labelled
    from fullbake.running import adapt

    chosen = Recipe.load(recipe, base="demo", text="text", label="topic", test=0.2)
    with resources.as_file(resources.files("fullbake") / "samples" / "comments.csv") as path:
        comments = replace(read_labelled(path, chosen.data), source="the bundled comments")
    classifier = adapt(chosen, comments, out=out_folder, overwrite=True, resume="restart")
    _show(printing.scores(classifier.record.facts["metrics"]["test"]))
    _show(printing.predictions(classifier.label_names, DEMO_TEXTS, classifier.predict_proba(DEMO_TEXTS)))
    _print_run(classifier, out_folder)
    _tell(f'Try it: fullbake predict {out_folder} "The keeper saved a penalty in the last minute."')


@app.command
def recipes(name: str | None = None, /) -> None:
    """List the shipped recipes, or print one as YAML with every field.

    Parameters
    ----------
    name: str
        The recipe to print.
    """
    if name is not None:
        _tell(Recipe.load(name, base="demo").to_yaml().rstrip())
        return
    for recipe, text in recipe_names().items():
        _tell(Text.assemble((f"{recipe:<16}", "bold"), text))


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
        return _fail(f"{error}\nfullbake COMMAND --help lists what a command takes.", 2)
    except Error as error:
        return _fail(str(error), error.exit_code, debug)
    except Interrupted as stop:
        return _fail(_stopped(stop), 128 + stop.signal)
    except KeyboardInterrupt:
        return _fail("stopped by Ctrl-C. Nothing half-written was left behind.", 130)
    except BrokenPipeError:  # who read stdout has gone; Python would complain again when it flushes at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        reason = f"{type(error).__name__}: {error}\nThis is a fault of fullbake's. --debug shows where."
        return _fail(reason, 1, debug)
    return 0


def _show(result: RenderableType) -> None:
    """A table, as wide as the screen, or wide where there is none."""
    if not out.is_terminal:
        out.width = PIPED_WIDTH
    out.print(result)


def _tell(line: str | Text) -> None:
    """A line of the result: plain text, never broken."""
    out.print(line, markup=False, highlight=False, soft_wrap=True)


def _resume(required: bool, anyway: bool, restart: bool) -> "Resume":
    """The word for what the three flags say together. Raises RecipeError where more than one is given."""
    words: dict[Resume, bool] = {"require": required, "anyway": anyway, "restart": restart}
    asked = [word for word, given in words.items() if given]
    if len(asked) > 1:
        raise RecipeError("--resume, --resume-anyway and --restart exclude each other", remedy="Pass one of them.")
    return asked[0] if asked else "auto"


def _stopped(stop: Interrupted) -> str:
    return f"{stop}, as asked. It is saved in {stop.saved}; the same command goes on from there."


def _fail(message: str, code: int, debug: bool = False) -> int:
    """Print an error as one paragraph, its lines set in under the first; with `debug`, the traceback before it."""
    if debug:
        traceback.print_exc()
    who = f"process {runtime.rank()}: " if runtime.world_size() > 1 else ""
    err.print(Text.assemble(("error: ", "bold red"), who + message.replace("\n", "\n       ")), soft_wrap=True)
    return code


def _print_run(classifier: "Classifier", folder: Path) -> None:
    """The scores of each part, where the bundle lies, and what the scores are worth."""
    facts = classifier.record.facts
    for part, result in facts["metrics"].items():
        _tell(printing.headline(part, result))
    if "test" not in facts["metrics"]:
        _tell(
            "No test part: these validation scores also chose the epoch, so they flatter. --test 0.2 holds rows back."
        )
    if facts["data"]["overlap_allowed"]:
        rows = facts["data"]["overlap_allowed"]
        _tell(f"{rows:,} training rows also stand in a later part (--allow-overlap): the scores flatter.")
    _tell(f"bundle: {folder}")


class _Lines(logging.Handler):
    """Log records as unbroken lines on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one."""
        sign = ("warning: ", "yellow") if record.levelno >= logging.WARNING else ""
        err.print(Text.assemble(sign, record.getMessage()), soft_wrap=True)


def _show_log(quiet: bool) -> None:
    """Lines of the run on stderr. Of several processes that train together the first one speaks; errors come from
    each."""
    alone = runtime.rank() == 0
    quiet, out.quiet = quiet or not alone, not alone
    logger = logging.getLogger("fullbake")
    logger.handlers = [_Lines()]
    logger.setLevel(logging.WARNING if quiet else logging.INFO)
    logger.propagate = False
