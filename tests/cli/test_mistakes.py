"""Command lines that cannot be understood get what is meant, and the line to type; the rest is in test_newcomer.py."""

from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.commands import refusal

from fullbake.cli.main import app
from fullbake.cli.mistakes import commands_of, flags_of
from fullbake.cli.terminal import as_understood

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_help_and_version_are_understood_as_words() -> None:
    assert as_understood(["help"]) == ["--help"]
    assert as_understood(["help", "train"]) == ["train", "--help"]
    assert as_understood(["train", "help"]) == ["train", "--help"]
    assert as_understood(["version"]) == ["--version"]
    assert as_understood(["predict", "m", "help"]) == ["predict", "m", "help"]


def test_a_file_called_help_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "help").touch()
    assert as_understood(["inspect", "help"]) == ["inspect", "help"]


@pytest.mark.parametrize("word", ["fit", "finetune", "fine-tune", "trian", "Fit"])
def test_a_command_is_known_by_meaning_and_by_spelling(run: Run, word: str) -> None:
    assert f"It is called train: fullbake train {'a b.csv'!r}" in refusal(run, word, "a b.csv")


def test_an_unknown_command_lists_all(run: Run) -> None:
    error = refusal(run, "zzz")
    assert all(name in error for name in commands_of(app))


def test_switches_and_flags_with_values_are_told_apart() -> None:
    flags = flags_of(app, "train")
    assert (flags["--overwrite"], flags["--epochs"], flags["--debug"]) == (True, False, True)
    assert "--no-overwrite" not in flags
    assert "--no-bench" in flags_of(app, "compare")


@pytest.mark.parametrize(
    ("typed", "answer"),
    [
        (("evaluate", "m", "d.csv", "--lr", "3"), "evaluate has no flag --lr. "),
        (("predict", "m", "x", "--batch-size=8"), "predict has no flag --batch-size. compare"),
        (("predict", "m", "x", "-o", "y.csv"), "Try: fullbake predict m x --out y.csv"),
        (("predict", "m", "x", "--outt=y"), "did you mean --out? Try: fullbake predict m x --out=y"),
        (("export", "m", "--onnx"), "export has no flag --onnx. train has --graph."),
        (("bench", "m", "--nonsense"), "bench has no flag --nonsense."),
        (("predict", "m", "x", "--n-jobs", "2"), "predict has no flag --n-jobs: here it is called --jobs"),
        (("evaluate", "m", "d.csv", "--n-jobs", "2"), "evaluate has no flag --n-jobs: here it is called --threads"),
        (("export", "m", "--no-int8"), "--int8 is off unless it is given. Try: fullbake export m"),
        (("compare", "d.csv", "--seeds", "three"), "unable to convert"),
        (("predict", "m", "x", "--engine", "pytorch"), "Here it is called 'torch'."),
        (("predict", "m", "x", "--out", "a", "--out", "b"), "--out is given more than once."),
        (("evaluate", "m", "d.csv", "e.csv"), "evaluate has no use for 'e.csv'."),
        (("cascade", "s", "t"), "fullbake cascade needs --data and --out."),
        (("pretrain", "--out", "m"), "fullbake pretrain needs CORPUS and --base."),
    ],
)
def test_a_wrong_line_is_answered(run: Run, typed: tuple[str, ...], answer: str) -> None:
    assert answer in refusal(run, *typed)


def test_a_flag_that_does_not_exist_is_dropped_with_its_value(run: Run) -> None:
    error = refusal(run, "inspect", "rows.csv", "--device", "cuda", "--lowercase", "--label", "topic")
    assert "CUDA_VISIBLE_DEVICES" in error
    assert "fullbake inspect rows.csv --label topic" in error
