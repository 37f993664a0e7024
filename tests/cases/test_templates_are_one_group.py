"""Texts of one template are one group of nearly equal texts: the error names the flag that keeps them apart."""

import json
from collections.abc import Callable
from pathlib import Path

CASE = Path(__file__).parent.parent / "fixtures" / "cases" / "templates_are_one_group" / "notices.csv"
Run = Callable[..., tuple[int, str, str]]
FLAGS = ("--way", "frozen", "--head", "linear", "--max-length", "32", "--optimizer", "lbfgs")


def test_error_names_the_flag_and_the_flag_trains(run: Run, bases: Callable[..., Path], tmp_path: Path) -> None:
    base = ("--base", bases("bert"), "--out", tmp_path / "out")
    for further in ((), ("--folds", "5")):
        code, _, errors = run("train", CASE, *base, *FLAGS, *further)
        assert code == 2
        assert "cannot be split" in errors
        assert "--near-duplicates apart" in errors
        assert "dd rows" not in errors
    code, out, errors = run("train", CASE, *base, *FLAGS, "--near-duplicates", "apart", "--test", "0.2")
    assert code == 0, errors
    # It is said while it runs, with the scores, in the bundle, on its page, and on later evaluations.
    for text in (
        errors,
        out,
        (tmp_path / "out" / "README.md").read_text("utf-8"),
        (tmp_path / "out.html").read_text("utf-8"),
    ):
        assert "--near-duplicates apart" in text
    facts = json.loads((tmp_path / "out" / "fullbake.json").read_text("utf-8"))
    assert facts["recipe"]["data"]["near_duplicates"] == "apart"
    assert facts["data"]["near_overlap"] == facts["data"]["rows"]["validation"] + facts["data"]["rows"]["test"]
    assert "--near-duplicates apart" in run("evaluate", tmp_path / "out", CASE)[2]


def test_inspect_reads_them_and_says_what_a_run_would_do(run: Run) -> None:
    code, out, errors = run("inspect", CASE)
    assert code == 0, errors
    assert "nearly equal" in out
    assert "--near-duplicates apart" in out


def test_comparison_carries_the_mark(run: Run, bases: Callable[..., Path], tmp_path: Path) -> None:
    words = (
        "compare",
        CASE,
        "--no-bench",
        "--recipes",
        "majority,frozen-linear",
        "--base",
        bases("bert"),
        "--out",
        tmp_path / "c",
    )
    short = ("--seeds", "1", "--max-length", "32")
    code, _, errors = run(*words, *short)
    assert code == 2
    assert "--near-duplicates apart" in errors
    code, _, errors = run(*words, *short, "--near-duplicates", "apart")
    assert code == 0, errors
    board = json.loads((tmp_path / "c" / "leaderboard.json").read_text("utf-8"))
    assert board["data"]["near_overlap"] > 0
    assert "--near-duplicates apart" in (tmp_path / "c" / "report.html").read_text("utf-8")
