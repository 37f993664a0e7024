import csv
import gzip
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.commands import refusal
from helpers.rows import make_rows, write_csv

from fullbake import Classifier
from fullbake.cli.main import main

Bases = Callable[..., Path]
Run = Callable[..., tuple[int, str, str]]
SHORT = ("--max-length", "48", "--epochs", "1", "--batch-size", "8")


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_csv(tmp_path_factory.mktemp("data") / "rows.csv", make_rows())


@pytest.fixture(scope="module")
def bundle(bases: Bases, rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "m"
    with pytest.raises(SystemExit, match="0"):
        main(["train", str(rows), "--base", str(bases("bert")), "--way", "frozen", *SHORT, "--out", str(folder)])
    return folder


# What works


@pytest.mark.parametrize("way", ["frozen", "finetune"])
def test_train_evaluate_predict(run: Run, bases: Bases, rows: Path, tmp_path: Path, way: str) -> None:
    """The main job, and promise 4 between the command line and the library."""
    folder, scored = tmp_path / "m", tmp_path / "scored.csv"
    code, out, error = run(
        "train", rows, "--base", bases("bert"), "--way", way, *SHORT, "--test", "0.2", "--out", folder
    )
    assert code == 0, error
    assert re.search(
        r"^validation .*\n  majority class .*\n  TF-IDF .*\ntest .*\n  majority class .*\n  TF-IDF .*\n"
        r"temperature .* validation calibration error .*\nThe classifier is not above .*\nbundle: ",
        out,
        re.MULTILINE,
    )
    assert f"bundle: {folder}\nreport: {folder}.html (it holds texts of rows, the bundle holds none)\n" in out
    assert "fullbake train rows.csv --base" in (tmp_path / "m.html").read_text("utf-8")
    assert "epoch 1/1" in error
    code, out, error = run("evaluate", folder, rows, "--json")
    assert code == 0, error
    assert json.loads(out)["rows"] == 60
    assert "warning: " in error
    assert "of these 60 rows were in the training rows" in error
    code, out, error = run("predict", folder, rows, "--out", scored)
    assert (code, out) == (0, "")
    assert "60 rows scored into" in error
    read = list(csv.DictReader(io.StringIO(scored.read_text())))
    expected = Classifier.load(folder).predict_proba([text for text, _ in make_rows()])
    np.testing.assert_allclose([float(row["score"]) for row in read], expected.max(axis=1), atol=1e-5)


def test_train_writes_a_page_beside_the_bundle_and_never_into_it(bundle: Path) -> None:
    page = (bundle.parent / "m.html").read_text("utf-8")
    assert "How good is" in page
    assert not list(bundle.glob("*.html"))
    texts = re.findall(r'<blockquote dir="auto">(.*?)</blockquote>', page)
    assert texts
    saved = b"".join(path.read_bytes() for path in bundle.iterdir())
    assert not [text for text in texts if text.encode() in saved]


def test_evaluate_writes_a_page_where_asked_and_replaces_only_its_own(
    run: Run, bundle: Path, rows: Path, tmp_path: Path
) -> None:
    words = ("evaluate", bundle, rows, "--report", tmp_path / "page.html")
    code, out, error = run(*words, "--json")
    assert code == 0
    assert json.loads(out)["rows"] == 60
    assert f"report: {tmp_path / 'page.html'} (it holds texts of rows)" in error
    assert "Scored on 60 labeled rows" in re.sub("<[^>]*>", "", (tmp_path / "page.html").read_text("utf-8"))
    assert "--overwrite" in refusal(run, *words)
    code, _, error = run(*words, "--overwrite")
    assert code == 0, error
    (tmp_path / "page.html").write_text("my page")
    assert "something else has its name" in refusal(run, *words, "--overwrite")
    assert (tmp_path / "page.html").read_text() == "my page"


def test_output_warns_when_there_is_no_test_part(run: Run, bases: Bases, rows: Path, tmp_path: Path) -> None:
    _, out, _ = run(
        "train", rows, "--base", bases("bert"), "--way", "frozen", "--head", "linear", "--out", tmp_path / "m"
    )
    assert "validation also chose the epoch" in out


def test_running_a_bundles_recipe_again(run: Run, bundle: Path, rows: Path, tmp_path: Path) -> None:
    code, _, error = run("train", rows, "--recipe", bundle, "--out", tmp_path / "again", "--cache-dir", tmp_path / "c")
    assert code == 0, error
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (bundle / "model.safetensors").read_bytes()


def test_quiet(run: Run, bases: Bases, rows: Path, tmp_path: Path) -> None:
    words = ("train", rows, "--base", bases("bert"), "--way", "frozen", "--head", "linear", "--out", tmp_path / "m")
    code, out, error = run(*words, "--quiet")
    assert code == 0
    assert "bundle: " in out
    assert error == ""


def test_log_lines_are_not_broken(run: Run, bundle: Path, rows: Path, tmp_path: Path) -> None:
    """A line is a line, however long the names in it are."""
    target = tmp_path / ("long" * 30) / "scored.csv"
    target.parent.mkdir()
    _, _, error = run("predict", bundle, rows, "--out", target)
    assert error == f"60 rows scored into {target}\n"


def test_tables_of_evaluate(run: Run, bundle: Path, rows: Path) -> None:
    code, out, _ = run("evaluate", bundle, rows)
    assert code == 0
    for word in ("accuracy", "MCC", "PR-AUC", "food", "support", "Confusion"):
        assert word in out


def test_texts_as_arguments(run: Run, bundle: Path) -> None:
    code, out, _ = run("predict", bundle, "a good [red] game", "the bank")
    assert code == 0
    assert "a good [red] game" in out
    assert "the bank" in out


def test_lines_on_stdin(run: Run, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a game\n\nthe bank\n")))
    code, out, _ = run("predict", bundle)
    assert code == 0
    assert [row["text"] for row in csv.DictReader(io.StringIO(out))] == ["a game", "", "the bank"]


def test_file_to_stdout(run: Run, bundle: Path, rows: Path) -> None:
    code, out, error = run("predict", bundle, rows)
    assert code == 0
    assert [row["text"] for row in csv.DictReader(io.StringIO(out))] == [text for text, _ in make_rows()]
    assert "60 rows scored" in error


def test_help_shows_every_recipe_field(run: Run) -> None:
    code, out, _ = run("train", "--help")
    assert code == 0
    for flag in ("--learning-rate", "--head", "--pooling", "--drop-overlap", "--max-length", "--recipe"):
        assert flag in out


# Bad input: a paragraph with place, expected, got, remedy


def train_words(bases: Bases, data: object, out: Path) -> list[object]:
    return ["train", data, "--base", bases("bert"), "--way", "frozen", "--head", "linear", "--out", out]


def test_wrong_column(run: Run, bases: Bases, rows: Path, tmp_path: Path) -> None:
    said = refusal(run, *train_words(bases, rows, tmp_path / "m"), "--label", "lable")
    assert "rows.csv, line 1: no column 'lable'" in said
    assert "Did you mean 'label'?" in said
    assert not (tmp_path / "m").exists()


BAD_FILES = {
    "nothing.csv": ("", "empty"),
    "header.csv": ("text,label\n", "a header but no row"),
    "one-class.csv": ("text,label\na,x\nb,x\nc,x\n", "only one class"),
    "single.csv": ("text,label\n" + "a,x\nb,x\nc,x\nd,y\ne,y\nf,z\n", "single row"),
    "unlabelled.csv": ("text,label\na,x\nb,\nc,y\n", "line 3: column 'label' is empty. Every row needs a label"),
    "labels.csv": ("text,label\na,1\nb,2\nc,3\nd,4\n", "too many classes for so few rows"),
    "width.csv": ("text,label\na,x\nb,y,z\n", "line 3"),
    "quote.csv": ('text,label\n"a,x\nb,y\n', "line 2"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_file(run: Run, bases: Bases, tmp_path: Path, name: str) -> None:
    content, expected = BAD_FILES[name]
    (tmp_path / name).write_text(content)
    said = refusal(run, *train_words(bases, tmp_path / name, tmp_path / "m"))
    assert name in said
    assert expected in said
    assert not (tmp_path / "m").exists()


def test_missing_file(run: Run, bases: Bases, tmp_path: Path) -> None:
    assert "rowz.csv: there is no such file" in refusal(run, *train_words(bases, tmp_path / "rowz.csv", tmp_path / "m"))


def test_label_that_training_never_saw(run: Run, bases: Bases, rows: Path, tmp_path: Path) -> None:
    given = write_csv(tmp_path / "given.csv", [("a text", "foood")])
    said = refusal(run, *train_words(bases, rows, tmp_path / "m"), "--validation", given)
    assert "given.csv, line 2" in said
    assert "Did you mean 'food'?" in said


def test_max_length_beyond_the_base(run: Run, bases: Bases, rows: Path, tmp_path: Path) -> None:
    said = refusal(run, *train_words(bases, rows, tmp_path / "m"), "--max-length", "1000")
    assert "Expected at most 512; got 1000." in said
    assert "--max-length 512" in said


def test_output_that_holds_something(run: Run, bases: Bases, rows: Path, tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "mine.txt").write_text("precious")
    words = train_words(bases, rows, tmp_path / "m")
    assert "pass --overwrite" in refusal(run, *words)
    assert (tmp_path / "m" / "mine.txt").read_text() == "precious"
    code, _, error = run(*words, "--overwrite")
    assert code == 0, error
    Classifier.load(tmp_path / "m")


def test_a_file_with_the_name_of_the_page_is_refused_before_training(
    run: Run, bases: Bases, rows: Path, tmp_path: Path
) -> None:
    (tmp_path / "m.html").write_text("my thesis")
    words = train_words(bases, rows, tmp_path / "m")
    for more in ((), ("--overwrite",)):
        said = refusal(run, *words, *more)
        assert "m.html" in said
        assert "something else has its name" in said
    assert (tmp_path / "m.html").read_text() == "my thesis"
    assert not (tmp_path / "m").exists()


def test_overwrite_replaces_the_page_too(run: Run, bases: Bases, rows: Path, tmp_path: Path) -> None:
    words = train_words(bases, rows, tmp_path / "m")
    assert run(*words)[0] == 0
    first = (tmp_path / "m.html").read_text("utf-8")
    assert "--overwrite" in refusal(run, *words)
    assert run(*words, "--test", "0.3", "--overwrite")[0] == 0
    assert (tmp_path / "m.html").read_text("utf-8") != first


def test_a_page_without_its_bundle_needs_overwrite(run: Run, bases: Bases, rows: Path, tmp_path: Path) -> None:
    words = train_words(bases, rows, tmp_path / "m")
    assert run(*words)[0] == 0
    shutil.rmtree(tmp_path / "m")
    assert "page of an earlier classifier" in refusal(run, *words)
    assert run(*words, "--overwrite")[0] == 0


def test_unknown_base_has_three_ways_out(run: Run, rows: Path, tmp_path: Path) -> None:
    said = refusal(run, "train", rows, "--base", "no-such-base", "--out", tmp_path / "m")
    assert "no-such-base" in said
    for way_out in ("folder", "hub", "--base demo"):
        assert way_out in said


def test_no_base(run: Run, rows: Path, tmp_path: Path) -> None:
    assert "--base" in refusal(run, "train", rows, "--out", tmp_path / "m")


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("--recipe", "frozen-mpl"), "Did you mean 'frozen-mlp'?"),
        (("--learning-rat", "1e-3"), "did you mean --learning-rate?"),
        (("--way", "frozn"), "Did you mean 'frozen'?"),
        (("--metric", "f1-macro"), "Here it is called 'f1_macro'."),
        (("--optimizer", "lbfgs", "--way", "finetune"), "take adamw"),
        (("--head", "standard", "--pooling", "mean"), "leave it out"),
    ],
)
def test_mistyped_names_get_a_hint(
    run: Run, bases: Bases, rows: Path, tmp_path: Path, words: tuple[str, ...], hint: str
) -> None:
    assert hint in refusal(run, "train", rows, "--base", bases("bert"), "--out", tmp_path / "m", *words)


def test_every_fault_of_a_recipe_at_once(run: Run, bases: Bases, rows: Path, tmp_path: Path) -> None:
    words = ("--epochs", "none", "--dropout", "2", "--padding", "long")
    said = refusal(run, "train", rows, "--base", bases("bert"), "--out", tmp_path / "m", *words)
    assert "3 fields are wrong" in said
    for field in ("epochs", "dropout", "padding"):
        assert field in said


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("trian",), "It is called train: fullbake train"),
        (("train", "--out", "m"), "DATA"),
        (("predict",), "BUNDLE"),
        (("predict", "nowhere", "a text"), "no such folder"),
        (("summary", "demo", "--head", "mlpp"), "Did you mean 'mlp'?"),
        (("summary", "demo", "--num-labels", "0"), "num-labels"),
        (("recipes", "thawed"), "There is: 'devlin2019'"),
    ],
)
def test_mistyped_commands(run: Run, words: tuple[str, ...], hint: str) -> None:
    assert hint in refusal(run, *words)


def test_files_are_not_taken_for_texts(run: Run, bundle: Path, rows: Path, tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("a game\n")
    assert f"predict BUNDLE < {notes}" in refusal(run, "predict", bundle, notes)
    assert "one file per command" in refusal(run, "predict", bundle, rows, rows)
    assert "Leave --out away" in refusal(run, "predict", bundle, "a text", "--out", tmp_path / "scored.csv")


def test_debug_shows_where(run: Run) -> None:
    code, _, error = run("predict", "nowhere", "a text", "--debug")
    assert code == 2
    assert "Traceback" in error
    assert "error: nowhere: " in error


def test_an_internal_error_prints_no_traceback(
    run: Run, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Classifier, "answers", lambda *_: 1 / 0)
    rows = write_csv(tmp_path / "rows.csv", make_rows(3))
    said = refusal(run, "predict", bundle, rows, "--out", tmp_path / "scored.csv", code=1)
    assert "ZeroDivisionError" in said
    assert "--debug" in said


# Processes


def fullbake(*words: object) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "fullbake", *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_as_a_process(bundle: Path, tmp_path: Path) -> None:
    """Exit codes and streams as a shell sees them; a reader that goes away early is no drama."""
    many = write_csv(tmp_path / "many.csv", make_rows(3) * 5000)
    with fullbake("predict", bundle, many, "--text", "txt") as process:
        out, error = process.communicate(timeout=120)
        assert (process.returncode, out) == (2, "")
        assert error.startswith("error: ")
        assert "Did you mean 'text'?" in error
    with fullbake("predict", bundle, many) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith("text,label,predicted,score")
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(timeout=120) == 0


@pytest.mark.slow
def test_ctrl_c_leaves_no_incomplete_file(bases: Bases, rows: Path, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    words = ("train", rows, "--base", bases("bert"), "--max-length", "48", "--epochs", "5000", "--out", folder)
    with fullbake(*words) as process:
        assert process.stderr is not None
        next(line for line in process.stderr if line.startswith("epoch 2/"))  # until it trains
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        error = process.stderr.read()
        assert process.wait(timeout=60) == 130
    assert "error: stopped" in error
    assert "Traceback" not in error
    assert not folder.exists()


# Data as it comes


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = [(text, str(int(label == "food")), str(int(place % 2))) for place, (text, label) in enumerate(make_rows())]
    return write_csv(tmp_path_factory.mktemp("kinds") / "kinds.csv", made, ("text", "food", "odd"))


def test_many_labels_on_the_command_line(run: Run, bases: Bases, kinds: Path, tmp_path: Path) -> None:
    base = bases("bert")
    code, out, _ = run(
        "train", kinds, "--labels", "food,odd", "--base", base, "--way", "frozen", "--head", "linear", *SHORT[:2],
        "--out", tmp_path / "m", "--cache-dir", tmp_path / "cache",
    )  # fmt: skip
    assert code == 0
    assert "Thresholds, fitted on validation" in out
    assert "validation calibration error" in out
    code, out, _ = run("evaluate", tmp_path / "m", kinds, "--json")
    scores = json.loads(out)
    assert scores["problem_type"] == "multi_label_classification"
    code, _, _ = run("predict", tmp_path / "m", kinds, "--out", tmp_path / "scored.csv")
    with (tmp_path / "scored.csv").open(newline="", encoding="utf-8") as file:
        header = next(csv.reader(file))
    assert header == ["text", "food", "odd", "predicted:food", "predicted:odd", "score:food", "score:odd"]
    assert "not the labels of training" in refusal(run, "evaluate", tmp_path / "m", kinds, "--labels", "food")


def test_a_folder_of_packed_shards_is_scored(run: Run, bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    for number in range(2):
        packed = gzip.compress(f"text\ntext {number}\nanother\n".encode())
        (tmp_path / "shards" / f"{number}.csv.gz").write_bytes(packed)
    code, out, _ = run("predict", bundle, tmp_path / "shards")
    assert code == 0
    assert [row["text"] for row in csv.DictReader(out.splitlines())] == ["text 0", "another", "text 1", "another"]


def test_a_pipe_is_not_taken_for_a_text(run: Run, bundle: Path, tmp_path: Path) -> None:
    """A shell's <(...) names a pipe: it is pointed to stdin, not classified by its name."""
    os.mkfifo(tmp_path / "pipe")
    assert "fullbake predict BUNDLE <" in refusal(run, "predict", bundle, tmp_path / "pipe")
