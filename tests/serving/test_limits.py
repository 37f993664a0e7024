"""Limits: each is a bound above 0; single models have their own, from a file."""

from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest

from fullbake.core.errors import RecipeError
from fullbake.serving.limits import FLAGS, Limits, read_limits


def test_every_limit_bounds_something_and_has_a_flag() -> None:
    assert all(value > 0 for value in asdict(Limits()).values())
    assert Limits().texts <= Limits().queue_tokens, "a request of short texts fits into the queue"
    assert FLAGS.keys() == {field.name for field in fields(Limits)}


def test_values_of_a_body_suffice_for_rows_of_a_hundred_columns() -> None:
    assert Limits().values == 102_400
    assert Limits(texts=20_000).values == 2_000_000
    assert Limits(texts=1).values == 100_000


@pytest.mark.parametrize(
    ("field", "value"), [("texts", 0), ("queue_tokens", -1), ("timeout", float("nan")), ("explained_words", 3)]
)
def test_limit_that_lets_nothing_in_is_refused(field: str, value: float) -> None:
    with pytest.raises(RecipeError, match=f"--{FLAGS[field]}: this limit lets nothing in"):
        Limits(**{field: value})


def test_file_gives_single_models_their_own_limits(tmp_path: Path) -> None:
    file = tmp_path / "limits.yaml"
    file.write_text("org/name: {max-texts: 8, timeout: 5s}\nb: {max_queue: 100, max-explained-words: 20}\nc: {}\n")
    default = Limits(characters=77)
    assert read_limits(file, default, ["org/name", "b", "c", "d"]) == {
        "org/name": replace(default, texts=8, timeout=5.0),
        "b": replace(default, queue_tokens=100, explained_words=20),
        "c": default,
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "cannot be read"),
        ("", "no file of limits"),
        ("a: 8", "no file of limits"),
        ("topic: {}", "Did you mean 'topics'"),
        ("topics: {max-text: 8}", "Did you mean 'max-texts'"),
        ("topics: {max-body: 8}", "one for all models"),
        ("topics: {max-texts: 0}", "a whole number above 0"),
        ("topics: {max-texts: true}", "got True"),
        ("topics: {max-texts: 1.5}", "got 1.5"),
        ("topics: {max-explained-words: 2}", "at least 4"),
        ("topics: {timeout: 5}", "without a unit"),
        ("7: {}", "no such model"),
    ],
)
def test_other_files_are_refused_with_the_remedy(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "limits.yaml").write_text(text)
    with pytest.raises(RecipeError) as raised:
        read_limits(tmp_path / "limits.yaml", Limits(), ["topics"])
    assert said in " ".join(str(raised.value).split())


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="cannot be read"):
        read_limits(tmp_path / "none.yaml", Limits(), ["topics"])
