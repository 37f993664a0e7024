"""A value of the wrong type gets one paragraph; one whose meaning is plain becomes what a recipe takes."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fullbake.core.arguments import PATH, as_plain_value, describe_value, is_instance_of, require_type
from fullbake.core.errors import DataError, RecipeError


def test_a_value_of_the_right_type_passes() -> None:
    require_type(1, (int, str), "n", error=RecipeError, expected="a number")
    require_type("x", PATH, "n", error=DataError, expected="a path")


@pytest.mark.parametrize("value", [pd.DataFrame({"text": ["a"]}), ["a.csv"], None, 3, b"rows.csv"])
def test_a_value_of_another_type_is_refused(value: Any) -> None:
    with pytest.raises(DataError) as caught:
        require_type(value, PATH, "source", error=DataError, expected="a path", remedy="Pass one.")
    assert "the argument source cannot be used" in str(caught.value)
    assert type(value).__name__.replace("NoneType", "None") in str(caught.value)
    assert "Pass one." in str(caught.value)


def test_classes_of_libraries_are_known_without_importing_them(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = pd.DataFrame()
    assert is_instance_of(frame, "pandas", "DataFrame")
    assert not is_instance_of(frame, "pandas", "Series")
    assert not is_instance_of(frame, "pandas", "no_such_name")
    assert not is_instance_of(frame, "no.such.module", "DataFrame")
    monkeypatch.delitem(sys.modules, "pandas")
    assert not is_instance_of(frame, "pandas", "DataFrame")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "None"),
        ([1], "a list"),
        (3, "an int: 3"),
        ("text", "a str: 'text'"),
        ("x" * 100, "a str"),
        (np.zeros(2), "a ndarray"),
    ],
)
def test_a_value_in_words(value: Any, words: str) -> None:
    assert describe_value(value) == words


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Path("a") / "b", str(Path("a") / "b")),
        (np.int64(3), 3),
        (np.array([1e-5, 3e-5]), [1e-5, 3e-5]),
        (pd.Index(["a", "b"]), ["a", "b"]),
        ((word for word in "ab"), ["a", "b"]),
        ([Path("x")], ["x"]),
        ({"corpus": (Path("x"),)}, {"corpus": ["x"]}),
        ("text", "text"),
        (None, None),
    ],
)
def test_a_value_as_a_recipe_takes_it(value: Any, plain: Any) -> None:
    assert as_plain_value(value) == plain
    assert type(as_plain_value(value)) is type(plain)
