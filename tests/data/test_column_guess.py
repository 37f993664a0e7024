"""Which columns look like texts and labels."""

from pathlib import Path

import pytest

from fullbake.data.column_guess import ColumnGuess, guess_columns
from fullbake.data.files import open_table

TEXTS = ("A great film", "So bad it hurts", "All right for a rainy day", "Nothing new here")
CHINESE = ("这部电影很好看", "太差了看不下去", "下雨天可以看看", "没有什么新意啊")


def guess(folder: Path, header: str, row: str, texts: tuple[str, ...] = TEXTS) -> ColumnGuess:
    """Guess the columns of a file of 40 rows. row: with {id}, {text}, {a} (of 2 values) and {b} (of 4)."""
    path = folder / "rows.csv"
    lines = [row.format(id=n, text=texts[n % 4], a=n % 2, b="wxyz"[n % 4]) for n in range(40)]
    path.write_text("\n".join([header, *lines]) + "\n", "utf-8")
    return guess_columns(open_table(path))


@pytest.mark.parametrize(
    ("header", "row", "text", "label"),
    [
        ("review,stars", "{text},{b}", "review", "stars"),
        ("v1,v2,,,", "{b},{text},,,", "v2", "v1"),
        ("id,content,x", "{id},{text},{b}", "content", "x"),
        ("title,body,topic", "Note {id},{text} {text} {text},{b}", "body", "topic"),
        ("id,words,is_new,topic", "{id},{text},{a},{b}", "words", "topic"),
        ("id,words", "{id},{text}", "words", None),
        ("a,b", "{a},{b}", None, "a"),
    ],
)
def test_columns_are_guessed_by_their_values_and_names(
    tmp_path: Path, header: str, row: str, text: str | None, label: str | None
) -> None:
    found = guess(tmp_path, header, row)
    assert (found.text, found.label) == (text, label)
    assert found.names == tuple(header.split(","))


def test_several_columns_of_0_and_1_are_labels(tmp_path: Path) -> None:
    found = guess(tmp_path, "text,toxic,insult", "{text},{a},{a}")
    assert (found.text, found.label, found.labels) == ("text", None, ("toxic", "insult"))


def test_another_script_is_noticed(tmp_path: Path) -> None:
    assert guess(tmp_path, "text,label", "{text},{b}").latin
    found = guess(tmp_path, "text,label", "{text},{b}", CHINESE)
    assert (found.text, found.label, found.latin) == ("text", "label", False)


def test_a_file_without_rows_gives_no_guess(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("review,stars\n")
    found = guess_columns(open_table(path))
    assert (found.text, found.label, found.labels) == (None, None, ())
