"""The command `predict`: texts, a file, stdin, or many files shard by shard, here or on a Ray cluster."""

import itertools
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from fullbake.cli import tables
from fullbake.cli.options import (
    DIALECT_FIELDS,
    EngineFlag,
    OnFlag,
    PrecisionFlag,
    TextFlags,
    TextOptions,
    Threads,
    ThresholdFlag,
    apply_engine_threads,
    find_bundle,
    parse_threshold,
)
from fullbake.cli.terminal import print_table, stdout_bytes
from fullbake.config.fields import Engine, ScoringPrecision
from fullbake.config.recipe import dialect_of
from fullbake.core.console import say
from fullbake.core.errors import DataError, OutputError, RecipeError
from fullbake.core.mistyped_paths import looks_like_file, similar_paths
from fullbake.core.processors import parse_threads
from fullbake.core.storage import require_new_file
from fullbake.data.tables import COMPRESSED_ENDINGS, check_flags, data_suffix

if TYPE_CHECKING:
    from fullbake.evaluation.top_labels import Threshold


def add_predict_command(app: App) -> None:
    """Add the command to the app."""
    app.command(predict_command, name="predict")


def predict_command(
    bundle: Path,
    inputs: Annotated[tuple[str, ...], Parameter(allow_leading_hyphen=False)] = (),
    /,
    *,
    out_file: Annotated[Path | None, Parameter(name="--out")] = None,
    prefix: str = "",
    top_k: int | None = None,
    threshold: ThresholdFlag = None,
    labels_only: bool = False,
    on: OnFlag = None,
    jobs: int | None = None,
    skip_bad_shards: bool = False,
    overwrite: bool = False,
    engine: EngineFlag = "auto",
    precision: PrecisionFlag = "fp32",
    threads: Threads = "auto",
    flags: TextFlags = TextOptions.model_construct(),  # noqa: B008  (only read)
) -> None:
    """Classify the rows of files, the lines of stdin, or texts given as arguments.

    Without --text the column has the name that it had in training. Many files (a folder, a glob, an address) become as
    many scored files in the folder --out; the same command continues where it was stopped.

    Args:
        bundle: Folder that `fullbake train` wrote, or the id of a bundle on the hub, such as org/name.
        inputs: A CSV, TSV, JSON or Parquet file, a folder of such files, a glob in quotes, an address such as
            s3://bucket/folder, or texts; for a classifier of pairs, the two texts of one pair. Words with spaces are a
            text also if they end like a file, unless there is such a file. Default: one text a line on stdin, which
            takes every text.
        out_file: File for the rows with the columns `predicted`, `score` and `score:<class>` added; or a folder, for a
            scored file for each file of the input. Default: stdout.
        prefix: Text before the names of the added columns, for files that have such a column already.
        top_k: Write so many of the likeliest labels with their scores (`label:1`, `score:1`, ...) in place of a score
            for every label.
        labels_only: Write the labels, and no column of scores.
        jobs: How many workers score files side by side, each with the whole classifier in memory. Default: 1 here; on
            Ray as many as there are processors for.
        skip_bad_shards: Go on if one of many files cannot be read, and name it at the end.
        overwrite: Replace the output when the new one is complete; of a folder, remove what an earlier run wrote there
            and begin again.
    """
    from fullbake.data.files import FORMATS
    from fullbake.data.plain_text import open_lines

    columns: dict[str, Any] = {"top_k": top_k, "threshold": parse_threshold(threshold), "labels_only": labels_only}
    several = {"--on": on is not None, "--jobs": jobs is not None, "--skip-bad-shards": skip_bad_shards}
    asked = [name for name, given in several.items() if given]
    if asked or _are_shards(inputs, out_file):
        _require_shards(inputs, out_file, asked)
        given = flags.model_dump(exclude_none=True)
        options = {"engine": engine, "precision": precision, "overwrite": overwrite, "prefix": prefix, **columns}
        workers = {"on": on, "jobs": jobs, "skip_bad_shards": skip_bad_shards}
        _score_shards(bundle, inputs[0], out_file, threads, **options, **workers, **given)
        return
    if out_file is not None:
        require_new_file(out_file, overwrite=overwrite)
    from_stdin = not inputs
    dialect = dialect_of(**flags.model_dump(include=set(DIALECT_FIELDS)))
    forms = (*FORMATS, *([] if dialect.delimiter is None else [".txt"]))
    _refuse_missing_files(bundle, inputs, forms)
    from_file = len(inputs) == 1 and _names_rows(inputs[0], forms)
    if not from_file:
        what = "stdin, which is UTF-8 with one text a line" if from_stdin else "texts given as arguments"
        check_flags(what, dialect, frozenset(), "Leave it out, or name a file.")
    bundle = find_bundle(bundle)
    if not from_stdin and not from_file:
        _check_texts(inputs, out_file, tuple(FORMATS))
        apply_engine_threads(threads, bundle, engine, precision, few_texts=True)
        _show_texts(bundle, inputs, engine, precision, **columns)
        return
    apply_engine_threads(threads, bundle, engine, precision)
    from fullbake.classifier.model import Classifier
    from fullbake.classifier.predict import open_table_as_trained, predict_file

    classifier = Classifier.load(bundle, engine=engine, precision=precision)
    if from_stdin and classifier.columns.text_pair is not None:
        raise DataError(
            "this classifier needs pairs of texts, but a line of stdin is one text",
            where="stdin",
            remedy="Give a file with two text columns.",
        )
    if from_stdin and sys.stdin is None:
        raise DataError("it is closed", where="stdin", remedy="Give a file, or texts as arguments.")
    if from_stdin and sys.stdin.isatty():
        say("reading one text a line; press Ctrl-D to end")
    given = flags.model_dump(exclude_none=True)
    table = (
        open_lines(sys.stdin.buffer, column=given.get("text", classifier.columns.text))
        if from_stdin
        else open_table_as_trained(classifier, inputs[0], **given)
    )
    target = out_file if out_file is not None else stdout_bytes(binary=table.format == "parquet")
    texts: dict[str, Any] = {name: given.get(name) for name in ("text", "text_pair")}
    rows = predict_file(classifier, table, target, **texts, **columns, prefix=prefix, overwrite=overwrite)
    say(f"{rows:,} rows scored{'' if out_file is None else f' into {out_file}'}")


def _are_shards(inputs: Sequence[str], out: Path | None) -> bool:
    """Return True if the input is many files, and the output a folder: it exists, or its name has no ending of a file.

    A glob and an address are always many files, because nothing else reads them.
    """
    from fullbake.scoring.shards import is_address, names_several

    if len(inputs) != 1 or not names_several(inputs[0]):
        return False
    return is_address(inputs[0]) or not Path(inputs[0]).is_dir() or (out is not None and _names_folder(out))


def _names_folder(out: Path) -> bool:
    from fullbake.data.files import FORMATS

    return out.is_dir() or out.suffix.lower() not in FORMATS


def _require_shards(inputs: Sequence[str], out: Path | None, asked: Sequence[str]) -> None:
    """Raise an error unless one input goes into a folder. asked: flags that are for many files."""
    if len(inputs) != 1:
        raise RecipeError(
            f"{asked[0]} scores files",
            got="stdin" if not inputs else "several arguments",
            remedy="Give one file, folder, glob (in quotes) or address, and a folder: fullbake predict BUNDLE "
            f"'logs/*.csv' --out scored {asked[0]} ...",
        )
    if out is None or not _names_folder(out):
        raise OutputError(
            "the scored files go into a folder",
            where="--out" if out is None else f"--out {out}",
            expected="the name of a folder, such as --out scored",
            got="nothing" if out is None else "the name of a file",
            remedy="For one file of rows give one file or a folder as input, without --on and --jobs.",
        )


def _score_shards(bundle: Path, source: str, out: Path | None, threads: str, **options: Any) -> None:
    """Score many files into a folder, and say what was done."""
    from fullbake.scoring.run import describe_predictions, predict_shards

    setting = parse_threads(threads)
    number = None if setting == "auto" else setting
    assert out is not None
    say(describe_predictions(predict_shards(find_bundle(bundle), source, out, threads=number, **options)))


def _show_texts(
    bundle: Path,
    texts: tuple[str, ...],
    engine: Engine,
    precision: ScoringPrecision,
    *,
    top_k: int | None,
    threshold: "Threshold | None",
    labels_only: bool,
) -> None:
    """Print the scores of texts given as arguments."""
    from fullbake.classifier.model import Classifier
    from fullbake.classifier.predict import predict_texts
    from fullbake.evaluation.top_labels import with_threshold

    classifier = Classifier.load(bundle, engine=engine, precision=precision)
    decision = classifier.decision if threshold is None else with_threshold(classifier.decision, threshold)
    answers = predict_texts(classifier, texts)
    probabilities = classifier.problem.probabilities(answers.logits)
    answered_by = None if answers.answered_by is None else answers.answered_by.tolist()
    table = tables.predictions_table(decision, texts, probabilities, answered_by, top_k, labels_only=labels_only)
    print_table(table)


def _names_rows(word: str, forms: tuple[str, ...]) -> bool:
    """Return True if an argument names a file or a folder of rows, or can hardly be anything else than such a name.

    Args:
        word: The argument.
        forms: The endings of files of rows.
    """
    path = Path(word)
    if os.path.isdir(word):
        inside = itertools.chain(path.glob("*"), path.glob("*/*"))  # a folder for each class may lie within it
        return os.path.basename(word) != word or any(data_suffix(file) in forms for file in inside)
    return data_suffix(path) in forms and (os.path.exists(word) or not any(map(str.isspace, word)))


def _refuse_missing_files(bundle: Path, inputs: Sequence[str], forms: tuple[str, ...]) -> None:
    """Raise DataError for an argument that looks like a file that does not exist, so that it is not taken for a text.

    A name that ends like a file of rows is left out: what opens it says more.
    """
    from fullbake.data.files import names_a_data_file
    from fullbake.data.signatures import FOREIGN_ENDINGS

    endings = (*forms, *FOREIGN_ENDINGS, ".txt", *COMPRESSED_ENDINGS)
    for word in inputs:
        path = Path(word)
        if os.path.exists(word) or (data_suffix(path) in forms and len(inputs) == 1):
            continue
        near = similar_paths(word, lambda other: other.is_dir() or names_a_data_file(other)) if path.suffix else []
        if near or looks_like_file(word, endings):
            guess = f"Did you mean {near[0]!r}? " if near else ""
            raise DataError(
                "there is no such file, and it looks too much like one for a text",
                where=word,
                remedy=f"{guess}A text that looks like a file's name goes to stdin: "
                f"echo {shlex.quote(word)} | fullbake predict {shlex.quote(str(bundle))}",
            )


def _can_be_read(word: str) -> bool:
    """Return True if the word names a file, or a pipe such as a shell's <(...)."""
    return os.path.exists(word) and not os.path.isdir(word)


def _check_texts(inputs: tuple[str, ...], out_file: Path | None, forms: tuple[str, ...]) -> None:
    """Refuse arguments that name files, and --out: texts given as arguments are printed, not written."""
    files = [word for word in inputs if _can_be_read(word) or (_names_rows(word, forms) and not os.path.isdir(word))]
    if files:
        raise DataError(
            "this argument is a file, but several arguments must be texts",
            where=files[0],
            expected=f"one file ({', '.join(forms)}), or texts",
            got="several arguments" if len(inputs) > 1 else "a file of another kind",
            remedy="Score one file per command. A file with one text a line goes to stdin: "
            f"fullbake predict BUNDLE < {files[0]}",
        )
    if out_file is not None:
        raise OutputError(
            "texts given as arguments are printed, not written to a file",
            where=f"--out {out_file}",
            remedy="Leave --out away, or give the texts in a file or on stdin, one a line.",
        )
    for word in inputs:
        if data_suffix(Path(word)) in forms:
            say(f"there is no file {word!r}: it is scored as a text")
        elif os.path.isdir(word):
            say(f"the folder {word!r} holds no file of rows: the word is scored as a text")
