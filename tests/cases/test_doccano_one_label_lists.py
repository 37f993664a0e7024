"""Lists of one label each, as doccano exports them: said, and classes under --exclusive."""

from collections.abc import Callable
from pathlib import Path

CASE = Path(__file__).parent.parent / "fixtures" / "cases" / "doccano_one_label_lists"
Run = Callable[..., tuple[int, str, str]]
FLAGS = ("--way", "frozen", "--head", "linear", "--max-length", "32", "--optimizer", "lbfgs")


def test_lists_of_one_label_are_said(run: Run, bases: Callable[..., Path], tmp_path: Path) -> None:
    code, out, _ = run("inspect", CASE / "all.jsonl")
    assert code == 0
    assert "--exclusive makes classes" in " ".join(out.split())
    code, out, errors = run("train", CASE / "all.jsonl", "--base", bases("bert"), "--out", tmp_path / "out", *FLAGS)
    assert code == 0, errors
    assert "--exclusive makes classes" in " ".join(errors.split())
    code, _, errors = run("evaluate", tmp_path / "out", CASE / "test.csv")
    assert code == 2
    assert "another form" in errors


def test_exclusive_makes_classes_and_evaluates_words(run: Run, bases: Callable[..., Path], tmp_path: Path) -> None:
    code, out, _ = run("inspect", CASE / "all.jsonl", "--exclusive")
    assert code == 0
    assert "makes classes" not in out
    words = ("train", CASE / "all.jsonl", "--base", bases("bert"), "--out", tmp_path / "out", "--exclusive", *FLAGS)
    code, _, errors = run(*words)
    assert code == 0, errors
    code, out, errors = run("evaluate", tmp_path / "out", CASE / "test.csv")
    assert code == 0, errors
    assert "positive" in out


def test_row_with_two_labels_is_refused_under_exclusive(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a", "label": ["x"]}\n{"text": "b", "label": ["x", "y"]}\n', "utf-8")
    code, _, errors = run("inspect", path, "--exclusive")
    assert code == 2
    assert "line 2" in errors
    assert "one label in each row" in errors
