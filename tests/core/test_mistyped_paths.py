"""A mistyped path is neither a hub id nor a text."""

from pathlib import Path

import pytest

from fullbake.core.mistyped_paths import (
    find_address,
    is_path_by_form,
    looks_like_file,
    mistyped_path_remedy,
    no_folder_remedy,
    similar_paths,
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "out" / "base").mkdir(parents=True)
    (tmp_path / "data.csv").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def any_path(path: Path) -> bool:
    return True


@pytest.mark.parametrize("word", ["./m", "../m", "/m", "~/m", "m/", "a/b/c", ".\\m", "C:\\m"])
def test_some_words_can_only_be_paths(word: str) -> None:
    assert is_path_by_form(word)


def test_a_hub_id_is_left_alone(folder: Path) -> None:
    for word in ("bert-base-uncased", "google/bert", "owner/name:test", "dato.csv"):
        assert mistyped_path_remedy(word, any_path) is None


def test_an_address_is_known_also_as_a_path() -> None:
    assert find_address("s3://bucket/x") == find_address(Path("s3://bucket/x")) == "s3://bucket/x"
    assert [find_address(word) for word in ("out/x", "/out", "C:/out", "C:\\out", "a:b")] == [None] * 5
    assert "predict alone" in no_folder_remedy(Path("s3://bucket/x"))
    assert no_folder_remedy(Path("gone/x")) == "There is no folder 'gone' either."


def test_a_mistyped_path_is_answered_with_what_is_there(folder: Path) -> None:
    assert mistyped_path_remedy("out/basse", any_path) == "Did you mean 'out/base'?"
    assert mistyped_path_remedy("./data.cvs", any_path) == "Did you mean 'data.csv'?"
    assert mistyped_path_remedy("nowhere/at/all", any_path) == "There is no folder 'nowhere/at' either."
    assert mistyped_path_remedy("out/base", any_path) is None
    assert similar_paths("data.cvs", Path.is_dir) == []


@pytest.mark.parametrize("word", ["data.cvs", "data.CSV", "rows.jsnl", "x.csv.gz", "data/new", "./new", "a.parqet"])
def test_such_a_word_looks_like_a_file(word: str) -> None:
    assert looks_like_file(word, [".csv", ".jsonl", ".parquet", ".gz"])


@pytest.mark.parametrize(
    "word",
    [
        "Great",
        "Great!",
        "e.g.",
        "wow...ok",
        "这部电影/很好。",
        "https://a.b/c.csv",
        "great film.csv",
        "U.S.",
    ],
)
def test_such_a_word_is_a_text(word: str) -> None:
    assert not looks_like_file(word, [".csv", ".jsonl", ".parquet", ".gz"])
