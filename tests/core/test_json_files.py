"""JSON files of strangers are bounded, unambiguous and of a stated shape, or a ShapeFault names what is wrong."""

import json
import os
import socket
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fullbake.core.json_files import (
    DEEPEST,
    Shape,
    ShapeFault,
    check_plain_file,
    describe_kind,
    match_shape,
    read_checked_json,
)


class _Point(Shape):
    x: int
    name: str | None = None
    inner: list[dict[str, float]] | None = None


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def write(folder: Path, content: str | bytes) -> Path:
    """Write a file of this content."""
    path = folder / "file.json"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@given(content=VALUES)
def test_what_json_wrote_is_read_as_it_was(content: object, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_text(json.dumps(content), "utf-8")
    assert read_checked_json(path) == content


@given(content=st.binary(max_size=40))
def test_any_bytes_are_read_or_refused_with_a_value_error(
    content: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "bytes.json"
    path.write_bytes(content)
    with suppress(ValueError):
        read_checked_json(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"a": 1, "a": 2}', "a: expected one value, got two that differ"),
        ("[NaN]", "expected JSON, got NaN"),
        ('{"a": -Infinity}', "expected JSON, got -Infinity"),
        ("[1e999]", "finite numbers"),
        ("[" * (DEEPEST + 1) + "]" * (DEEPEST + 1), "brackets within brackets"),
        ("[" * 100_000, "brackets within brackets"),
        ("1" * 5_000, "digits"),
        ("{", "Expecting"),
    ],
)
def test_what_is_ambiguous_or_too_deep_is_refused(content: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=words):
        read_checked_json(write(tmp_path, content))


def test_harmless_oddities_are_read(tmp_path: Path) -> None:
    """The same value twice, a byte order mark, and, where they are allowed, numbers without an end."""
    assert read_checked_json(write(tmp_path, '\ufeff{"a": [1], "a": [1]}')) == {"a": [1]}
    assert read_checked_json(write(tmp_path, '{"limits": [0.0, Infinity]}'), finite=False) == {
        "limits": [0.0, float("inf")]
    }
    assert read_checked_json(write(tmp_path, "[" * DEEPEST + "]" * DEEPEST))


def test_only_plain_files_within_the_limit_are_opened(tmp_path: Path) -> None:
    """A pipe without a writer would keep its reader waiting for ever."""
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    kinds = {"pipe": "a named pipe", "socket": "a socket", "link": "a named pipe", ".": "a folder"}
    for name, kind in kinds.items():
        assert describe_kind(tmp_path / name) == kind
        with pytest.raises(ShapeFault, match=f"expected a plain file, got {kind}"):
            read_checked_json(tmp_path / name)
    assert describe_kind(Path(os.devnull)) == "a device"
    with pytest.raises(OSError, match="circle"):
        read_checked_json(tmp_path / "circle")
    assert describe_kind(write(tmp_path, "[]")) is None
    check_plain_file(tmp_path / "file.json", 2)
    with pytest.raises(ShapeFault, match="at most 1 bytes, got 2"):
        read_checked_json(tmp_path / "file.json", most_bytes=1)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({}, "x: expected an entry, got none"),
        ({"x": 1.0}, "x: expected a whole number, got 1.0"),
        ({"x": True}, "x: expected a whole number, got True"),
        ({"x": 1, "name": 7}, "name: expected a text, got 7"),
        ({"x": 1, "inner": [{"a": 1.0}, {"b": "c"}]}, "inner.1.b: expected a number, got 'c'"),
        ({"x": 1, "inner": [{"\x1b[2J": "c"}]}, r"inner.0.\\x1b\[2J: expected"),
        ({"x": "y" * 1_000}, r"got 'y{50,}\.\.\.$"),
        ([], "expected .*, got a list of 0"),
    ],
)
def test_the_first_value_that_does_not_fit_is_named(value: object, words: str) -> None:
    with pytest.raises(ShapeFault, match=words):
        match_shape(_Point, value)


def test_unknown_keys_are_allowed_and_the_keys_around_are_named() -> None:
    assert match_shape(_Point, {"x": 1, "later": [2]}).x == 1
    with pytest.raises(ShapeFault, match=r"outer\.part\.x: expected"):
        match_shape(_Point, {"x": None}, within=("outer", "part"))
