"""A header with unnamed spare columns (`v1,v2,,,`): they are ignored, because nobody asks for them."""

from collections.abc import Callable
from pathlib import Path

from fullbake import read_dataset

SPAM = Path(__file__).parents[1] / "fixtures" / "cases" / "kaggle_spam_header" / "spam.csv"


def test_unnamed_spare_columns_are_ignored(run: Callable[..., tuple[int, str, str]]) -> None:
    dataset = read_dataset(SPAM, text="v2", label="v1", encoding="latin-1")
    assert (len(dataset), dataset.label_names) == (80, ("ham", "spam"))
    code, out, error = run("inspect", SPAM, "--text", "v2", "--label", "v1", "--encoding", "latin-1")
    assert code == 0, error
    assert "80" in out
    assert "columns without a name are left out" in " ".join(error.split())
