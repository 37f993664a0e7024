"""All that a first training lacks, in one message, with the line to type."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from helpers.commands import refusal

Run = Callable[..., tuple[int, str, str]]
ROWS = [("A great film", "5"), ("So bad it hurts", "1"), ("All right", "3"), ("Nothing new", "1")] * 5


def write(path: Path, rows: Sequence[Sequence[str]] = ROWS, header: str = "review,stars", separator: str = ",") -> None:
    path.write_text("\n".join([header, *(separator.join(row) for row in rows)]) + "\n", "utf-8")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "reviews.csv")
    return tmp_path


def test_everything_is_named_at_once(run: Run, folder: Path) -> None:
    (folder / "reviews-classifier").mkdir()
    error = refusal(run, "train", "reviews.csv")
    assert "fullbake train: 3 things are missing. - --text and --label: " in error
    line = "Try: fullbake train reviews.csv --text review --label stars --base demo --out reviews-classifier-2 "
    assert line in error
    assert "Try: fullbake compare reviews.csv --text review --label stars --base demo" in refusal(
        run, "compare", "reviews.csv"
    )
    assert "Try: fullbake inspect reviews.csv --text review --label stars" in refusal(run, "inspect", "reviews.csv")


def test_what_is_given_is_not_asked_for(run: Run) -> None:
    error = refusal(run, "train", "reviews.csv", "--text", "review", "--out", "m", "--base", "demo")
    assert "one thing is missing. - --label: the columns of reviews.csv are 'review', 'stars'" in error
    assert "Try: fullbake train reviews.csv --text review --out m --base demo --label stars" in error


def test_mistyped_names_of_files_and_columns_are_mended_in_the_line(run: Run) -> None:
    error = refusal(run, "train", "reviws.csv", "--label", "star")
    assert "there is no file 'reviws.csv': did you mean 'reviews.csv'?" in error
    assert "no column 'star' in reviews.csv. Did you mean 'stars'?" in error
    assert "Try: fullbake train reviews.csv --label stars --text review --base demo --out reviews-classifier" in error


def test_a_wrong_field_is_listed_with_the_rest(run: Run) -> None:
    error = refusal(run, "train", "reviews.csv", "--epochs", "many")
    assert "things are missing or wrong" in error
    assert "training.epochs: expected a valid integer" in error
    assert "--out: the folder" in error
    assert "Such as: fullbake train" in error, "with a wrong value the line cannot be typed as it is"


def test_a_recipe_with_a_base_needs_none(run: Run, folder: Path) -> None:
    (folder / "r.yaml").write_text("base: demo\ndata: {text: review, label: stars}\n")
    error = refusal(run, "train", "reviews.csv", "--recipe", "r.yaml")
    assert "one thing is missing. - --out" in error


def test_texts_of_another_script_get_no_english_base(run: Run, folder: Path) -> None:
    write(folder / "zh.csv", [("这部电影很好看", "好"), ("太差了看不下去", "差")] * 5, "text,label")
    error = refusal(run, "train", "zh.csv")
    assert "one that knows their language" in error
    assert "Such as: fullbake train zh.csv --base BASE --out zh-classifier" in error


def test_several_label_columns_are_offered_together(run: Run, folder: Path) -> None:
    write(folder / "multi.csv", [("A great film", "0", "1"), ("So bad it hurts", "1", "0")] * 5, "text,toxic,insult")
    assert "--labels toxic,insult" in refusal(run, "train", "multi.csv", "--base", "demo", "--out", "m")


def test_what_reads_the_file_says_more(run: Run, folder: Path) -> None:
    """A wrong delimiter, a missing header and a broken file are reported as by the run itself."""
    write(folder / "semi.csv", header="review;stars", separator=";")
    assert "Pass --delimiter ';'" in run("train", "semi.csv", "--base", "demo", "--out", "m")[2]
    both = refusal(run, "train", "semi.csv")
    assert "Pass --delimiter ';'" in both
    assert "--out: the folder" in both
    (folder / "empty.csv").touch()
    assert "empty.csv" in refusal(run, "train", "empty.csv")


def test_without_data_the_files_here_are_named(run: Run, folder: Path) -> None:
    assert "Try: fullbake train reviews.csv --text" in refusal(run, "train")
    write(folder / "more.csv")
    error = refusal(run, "train")
    assert "here is more.csv, reviews.csv" in error
    assert "Such as: fullbake train DATA" in error
