"""The comparison as it is typed."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.rows import make_rows, write_csv

Bases = Callable[..., Path]
Run = Callable[..., tuple[int, str, str]]
SHORT = (
    "--max-length",
    "48",
    "--batch-size",
    "8",
    "--epochs",
    "2",
    "--seeds",
    "2",
    "--head-rates",
    "1e-2,1e-3",
    "--no-bench",
)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return write_csv(tmp_path / "rows.csv", make_rows(80))


def test_compare_then_again_then_predict(run: Run, bases: Bases, rows: Path, tmp_path: Path) -> None:
    out = tmp_path / "compared"
    words = ("compare", rows, "--base", bases("bert"), "--recipes", "frozen-mlp,frozen-linear,majority", *SHORT)
    where = ("--out", out, "--cache-dir", tmp_path / "cache")
    code, shown, told = run(*words, *where)
    assert code == 0, told
    board = json.loads((out / "leaderboard.json").read_text("utf-8"))
    assert board["verdict"]["words"][0] in shown
    for line in (f"report: {out / 'report.html'}", f"bundle: {out / 'best'}", "F1, macro on test"):
        assert line in shown
    assert "frozen-mlp/0" in told
    assert "validation macro F1" in told
    assert "left" in told
    assert board["command"].startswith("fullbake compare rows.csv --base")
    code, again, told = run(*words, *where)
    assert code == 0
    assert again == shown, "nothing is trained again, so nothing differs"
    assert told.count("done before") == len([cell for entry in board["recipes"] for cell in entry["cells"]])
    code, shown, _ = run("predict", out / "best", "the good water at home")
    assert code == 0
    assert any(label in shown for label in ("food", "game", "money"))


def test_output_says_once_what_the_budget_left_out(run: Run, bases: Bases, rows: Path, tmp_path: Path) -> None:
    words = ("compare", rows, "--base", bases("bert"), "--recipes", "frozen-mlp,tfidf", *SHORT, "--budget", "5m")
    code, shown, told = run(*words, "--out", tmp_path / "out", "--cache-dir", tmp_path / "cache")
    assert code == 0, told
    board = json.loads((tmp_path / "out" / "leaderboard.json").read_text("utf-8"))
    assert board["design"]["budget_seconds"] == 300
    for line in board["design"]["left_out"]:
        assert shown.count(line) <= 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--recipes", "finetun"), "Did you mean 'finetune'"),
        (("--recipes", "majority"), "there is no recipe to compare"),
        (("--rates", "5e-5;3e-5"), "learning rates must be numbers with commas between them"),
        (("--budget", "soon"), "such as 90s, 10m, 1.5h or 1h30m"),
        (("--metric", "f1_makro"), "f1_macro"),
        (("--label", "lable"), "label"),
    ],
)
def test_impossible_options_are_refused(
    run: Run, bases: Bases, rows: Path, tmp_path: Path, words: tuple[str, ...], told: str
) -> None:
    code, shown, said = run("compare", rows, "--base", bases("bert"), "--out", tmp_path / "out", *words)
    assert (code, shown) == (2, "")
    assert said.startswith("error: ")
    assert told in " ".join(said.split())
    assert not (tmp_path / "out").exists()
