"""Read JSON files that somebody else may have written: bounded, unambiguous, and of a stated shape.

A bundle or a base can come from anywhere, so its JSON is checked before anything is built from it: what kind of file it
is, how large, how deep, whether a key is there twice, and whether each value is of the type that the code reads. Shapes
are pydantic models. They allow unknown keys, since later versions add some; what they name must be there and be right.
"""

import json
import math
import re
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

MOST_BYTES: Final = 64_000_000
"""Largest JSON file that is read. The largest of real models, an index of 100,000 weights, has 10 MB."""

DEEPEST: Final = 64
"""Most brackets within brackets. Configs of real models have fewer than ten."""

_MOST_SHOWN: Final = 60
"""Characters of a wrong value that an error shows."""

_KINDS: Final = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class Shape(BaseModel):
    """What a JSON object must hold: each field of this type exactly, without conversion. Other keys are allowed."""

    # A process checks few of the shapes, so they are built when they are used.
    model_config = ConfigDict(strict=True, extra="allow", frozen=True, allow_inf_nan=False, defer_build=True)


class ShapeFault(ValueError):  # noqa: N818  (callers make an Error of it)
    """A value of a JSON file is not what the code reads.

    Args:
        where: the keys that lead to the value, joined by dots; "" for the whole file.
        expected: what should have been there.
        got: what was there, None if `expected` says it all.
    """

    def __init__(self, where: str, expected: str, got: str | None = None) -> None:
        self.where, self.expected, self.got = where, expected, got
        found = f", got {got}" if got else ""
        super().__init__(f"{where or 'the file'}: expected {expected}{found}")


AnyShape = TypeVar("AnyShape", bound=Shape)
"""A shape that `match_shape` returns an instance of."""


def describe_kind(path: Path) -> str | None:
    """Return what a path is if it is not a plain file ("a named pipe"), None if it is one. A link counts as its target.

    Raises:
        OSError: there is nothing, or a link that leads nowhere or in a circle.
    """
    mode = path.stat().st_mode
    if stat.S_ISREG(mode):
        return None
    return next((words for test, words in _KINDS if test(mode)), "no plain file")


def check_plain_file(path: Path, most_bytes: int) -> None:
    """Check a file before it is opened: a pipe or a device could keep its reader waiting, or never end.

    Args:
        path: the file.
        most_bytes: the largest size that is accepted.

    Raises:
        OSError: there is no such file.
        ShapeFault: it is no plain file, or too large.
    """
    kind = describe_kind(path)
    if kind is not None:
        raise ShapeFault("", "a plain file", kind)
    size = path.stat().st_size
    if size > most_bytes:
        raise ShapeFault("", f"at most {most_bytes:,} bytes", f"{size:,}")


def read_checked_json(path: Path, *, most_bytes: int = MOST_BYTES, finite: bool = True) -> Any:
    """Read a JSON file that may come from anywhere.

    Args:
        path: the file.
        most_bytes: the largest size that is accepted.
        finite: refuse NaN and infinite numbers. Python writes them, although JSON has none.

    Returns:
        Its content. No object holds two values under one key.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no JSON, too large, too deep, ambiguous, or no plain file.
    """
    check_plain_file(path, most_bytes)
    return parse_checked_json(path.read_bytes(), finite=finite)


def parse_checked_json(content: bytes, *, finite: bool = True) -> Any:
    """Parse JSON that may come from anywhere. Arguments, results and errors are those of `read_checked_json`.

    Args:
        content: the bytes of a file, or of a part of one.
        finite: refuse NaN and infinite numbers.

    Raises:
        ValueError: it is no JSON, too deep, or ambiguous.
    """
    try:
        value = json.loads(
            content,
            object_pairs_hook=_object_of_pairs,
            parse_constant=_refuse_constant if finite else float,
        )
    except RecursionError:
        raise ShapeFault("", f"at most {DEEPEST} brackets within brackets", "more") from None
    _check_values(value, finite)
    return value


def _object_of_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        for key, value in pairs:
            # The same value twice is harmless, and hand-written configs have it.
            if found[key] != value:
                raise ShapeFault(_shorten(key), "one value", "two that differ")
    return found


def _refuse_constant(literal: str) -> None:
    raise ShapeFault("", "JSON", literal)


def _check_values(content: Any, finite: bool) -> None:
    """Raise ShapeFault for too much depth, and for a number that is not finite if `finite`: 1e999 is one."""
    waiting = [(content, 1)]
    while waiting:
        value, depth = waiting.pop()
        if finite and isinstance(value, float) and not math.isfinite(value):
            raise ShapeFault("", "finite numbers", "one that is too large")
        if isinstance(value, dict | list):
            if depth > DEEPEST:
                raise ShapeFault("", f"at most {DEEPEST} brackets within brackets", "more")
            inner = value.values() if isinstance(value, dict) else value
            waiting.extend((item, depth + 1) for item in inner)


def match_shape(shape: type[AnyShape], value: object, *, within: Sequence[str] = ()) -> AnyShape:
    """Return the value as an instance of a shape.

    Args:
        shape: what the value must be.
        value: what `read_checked_json` returned, or a part of it.
        within: the keys that lead to the value, for the error.

    Raises:
        ShapeFault: names the first part that does not fit.
    """
    try:
        return shape.model_validate(value)
    except ValidationError as error:
        raise explain_first_fault(error, within) from error


def explain_first_fault(error: ValidationError, within: Sequence[str] = ()) -> ShapeFault:
    """Return the first fault that pydantic found. A validator's ValueError has to say what is expected.

    Args:
        error: what pydantic raised.
        within: the keys that lead to the value that was validated.
    """
    fault = error.errors(include_url=False)[0]
    keys = [_shorten(part) for part in fault["loc"] if not (isinstance(part, str) and _BRANCH.fullmatch(part))]
    where = ".".join([*within, *keys])
    if fault["type"] == "missing":
        return ShapeFault(where, "an entry", "none")
    if fault["type"] == "extra_forbidden":
        return ShapeFault(where, "no such entry", None)
    words = fault["msg"].removeprefix("Value error, ").removeprefix("Input should be ").removeprefix("Input ")
    return ShapeFault(where, _TYPE_WORDS.get(fault["type"], words[:300]), _describe(fault["input"]))


_TYPE_WORDS: Final = {
    "bool_type": "true or false",
    "dict_type": "an object",
    "float_type": "a number",
    "int_type": "a whole number",
    "list_type": "a list",
    "model_type": "an object",
    "string_type": "a text",
}
"""What is expected where a value has another type, by pydantic's name of the fault. Its words name our classes."""


_BRANCH: Final = re.compile(r"(str|int|float|bool|none|constrained-str)|(dict|list|literal|function-\w+)\[.*")
"""How pydantic names the branch of a union, among the keys that lead to a value."""


def _shorten(key: object) -> str:
    word = str(key)
    shown = word if word.isprintable() else repr(word)[1:-1]
    return shown if len(shown) <= _MOST_SHOWN else f"{shown[:_MOST_SHOWN]}..."


def _describe(value: object) -> str:
    """Return a wrong value in words: short ones as they are, objects and lists by their size."""
    if isinstance(value, dict):
        return f"an object of {len(value):,}"
    if isinstance(value, list):
        return f"a list of {len(value):,}"
    shown = "null" if value is None else repr(value)
    return shown if len(shown) <= _MOST_SHOWN else f"{shown[:_MOST_SHOWN]}..."
