"""A TSV whose quotes are text: rows joined by quotations are warned of; one flag reads all rows, in every command."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

from fullbake import Classifier, read_dataset
from fullbake.classifier.evaluate import evaluate, read_as_trained
from fullbake.classifier.predict import predict_file
from fullbake.cli.options import ComparisonOptions, DialectOptions, Flags, RowOptions, TextOptions
from fullbake.config.recipe import Recipe
from fullbake.config.sections import Dialect

Bases = Callable[..., Path]
Run = Callable[..., tuple[int, str, str]]
REVIEWS = Path(__file__).parents[1] / "fixtures" / "cases" / "tsv_quotes_are_text" / "reviews.tsv"
SHORT = ("--max-length", "48", "--epochs", "1", "--batch-size", "8")


def test_joined_rows_are_warned_of_and_the_flag_reads_all(run: Run) -> None:
    code, out, error = run("inspect", REVIEWS, "--json")
    assert (code, json.loads(out)["rows"]) == (0, 54)
    assert "12 lines of the file became 6 rows" in " ".join(error.split())
    assert "--quoting none" in error
    code, out, error = run("inspect", REVIEWS, "--json", "--quoting", "none")
    assert (code, json.loads(out)["rows"]) == (0, 60)
    assert "--quoting" not in error


def test_the_flag_holds_in_training_and_after_it(run: Run, bases: Bases, tmp_path: Path) -> None:
    bundle = tmp_path / "m"
    base = bases("bert")
    code, _, error = run(
        "train", REVIEWS, "--base", base, "--way", "frozen", *SHORT, "--quoting", "none", "--out", bundle
    )
    assert code == 0, error
    classifier = Classifier.load(bundle)
    assert Recipe.load(str(bundle)).data.quoting == "none"
    code, out, error = run("evaluate", bundle, REVIEWS, "--json", "--quoting", "none")
    assert (code, json.loads(out)["rows"]) == (0, 60), error
    code, out, error = run("predict", bundle, REVIEWS, "--quoting", "none")
    assert code == 0, error
    assert len(list(csv.DictReader(out.splitlines(keepends=True), delimiter="\t"))) == 60
    assert predict_file(classifier, REVIEWS, tmp_path / "p.csv", quoting="none") == 60
    assert len(read_as_trained(classifier, REVIEWS, quoting="none")) == 60
    assert evaluate(classifier, read_dataset(REVIEWS, text="text", label="label", quoting="none"))["rows"] == 60


def test_every_command_that_reads_tables_has_the_flags() -> None:
    names = set(vars(Dialect()))
    for options in (Flags, RowOptions, TextOptions, ComparisonOptions, DialectOptions):
        assert names <= set(options.model_fields)


def test_flags_of_tables_are_refused_for_stdin_and_texts(run: Run, tmp_path: Path) -> None:
    code, _, error = run("predict", tmp_path, "--quoting", "none")
    assert (code, "--quoting does not apply here" in error, "stdin" in error) == (2, True, True)
    code, _, error = run("predict", tmp_path, "a text", "--delimiter", ";")
    assert (code, "--delimiter does not apply here" in error) == (2, True)
