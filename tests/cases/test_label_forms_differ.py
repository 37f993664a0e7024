"""Words in one file and lists in another are refused before training, both ways round, naming the two forms."""

from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.rows import recipe

from fullbake import adapt, evaluate
from fullbake.core.errors import DataError
from fullbake.data.dataset import read_dataset

CASE = Path(__file__).parent.parent / "fixtures" / "cases" / "label_forms_differ"
WORDS, LISTS = "train_single.csv", "train_lists.jsonl"
OTHER_WORDS, OTHER_LISTS = "validation_single.csv", "validation_lists.jsonl"

Run = Callable[..., tuple[int, str, str]]
FLAGS = ("--way", "frozen", "--head", "linear", "--max-length", "16", "--optimizer", "lbfgs")


@pytest.mark.parametrize("part", ["validation", "test"])
@pytest.mark.parametrize(("train", "other"), [(WORDS, OTHER_LISTS), (LISTS, OTHER_WORDS)])
def test_files_of_two_forms_are_refused_before_training(
    train: str, other: str, part: str, run: Run, bases: Callable[..., Path], tmp_path: Path
) -> None:
    code, _, errors = run(
        *("train", CASE / train, "--base", bases("bert"), "--out", tmp_path / "out", f"--{part}", CASE / other), *FLAGS
    )
    assert code == 2
    flat = " ".join(errors.split())
    assert "another form than those of training" in flat
    assert "a list of labels" in flat
    assert "one label" in flat
    assert "--exclusive" in flat
    assert not (tmp_path / "out").exists()


def test_exclusive_makes_both_forms_classes(run: Run, bases: Callable[..., Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    for train, other in ((WORDS, OTHER_LISTS), (LISTS, OTHER_WORDS)):
        flags = ("--validation", CASE / other, "--exclusive", "--overwrite", *FLAGS)
        code, _, errors = run("train", CASE / train, "--base", bases("bert"), "--out", out, *flags)
        assert code == 0, errors
        # The bundle knows: both forms are evaluated without a flag.
        for file in (OTHER_WORDS, OTHER_LISTS):
            assert run("evaluate", out, CASE / file)[0] == 0


def test_evaluate_names_the_two_forms(run: Run, bases: Callable[..., Path], tmp_path: Path) -> None:
    fields = {"optimizer": "lbfgs", "max_length": 16}
    words = adapt(recipe(bases("bert"), **fields), CASE / WORDS, out=tmp_path / "words")
    lists = adapt(recipe(bases("bert"), **fields), CASE / LISTS, out=tmp_path / "lists")
    for bundle, file, flag in (("words", OTHER_LISTS, "--exclusive"), ("lists", OTHER_WORDS, "--label-separator")):
        code, _, errors = run("evaluate", tmp_path / bundle, CASE / file)
        assert code == 2
        assert "another form than those of training" in errors
        assert flag in errors
    # The flags that the errors name work.
    assert run("evaluate", tmp_path / "words", CASE / OTHER_LISTS, "--exclusive")[0] == 0
    assert run("evaluate", tmp_path / "lists", CASE / OTHER_WORDS, "--label-separator", "|")[0] == 0
    # Python callers read the rows by themselves.
    for classifier, file in ((words, OTHER_LISTS), (lists, OTHER_WORDS)):
        with pytest.raises(DataError, match="another form than those of training"):
            evaluate(classifier, read_dataset(CASE / file, text="text", label="label"))


@pytest.mark.parametrize(("train", "other"), [(WORDS, OTHER_LISTS), (LISTS, OTHER_WORDS)])
def test_compare_refuses_files_of_two_forms(
    train: str, other: str, run: Run, bases: Callable[..., Path], tmp_path: Path
) -> None:
    code, _, errors = run(
        "compare", CASE / train, "--base", bases("bert"), "--out", tmp_path / "c", "--test", CASE / other
    )
    assert code == 2
    assert "another form than those of training" in errors
