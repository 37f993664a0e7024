"""Check what a Python caller passes where it comes in.

A value whose meaning is plain is taken. Any other gets one paragraph that says what was expected and what to do, in
place of a traceback from the inside of a library.
"""

import os
import sys
from collections.abc import Iterator
from typing import Any, Final

from fullbake.core.errors import Error

PATH: Final = (str, os.PathLike)
"""The types of a path."""


def require_type(
    value: object, kinds: tuple[type, ...], name: str, *, error: type[Error], expected: str, remedy: str | None = None
) -> None:
    """Raise an error if an argument is of another type.

    Args:
        value: The argument.
        kinds: The types that it may have.
        name: The argument's name.
        error: The class of the error.
        expected: What it should be, in words.
        remedy: Whole sentences that say what to do.
    """
    if not isinstance(value, kinds):
        raise error(f"the argument {name} cannot be used", expected=expected, got=describe_value(value), remedy=remedy)


def is_instance_of(value: object, module: str, name: str) -> bool:
    """Return True if a value is of a class of a library. A module that nobody has imported yet has made no value.

    Args:
        value: The value.
        module: The module's full name.
        name: The class in it.
    """
    kind = getattr(sys.modules.get(module), name, None)
    return isinstance(kind, type) and isinstance(value, kind)


def describe_value(value: object) -> str:
    """Return a value in words, for an error: its type, and a short value itself."""
    if value is None:
        return "None"
    kind = type(value).__name__
    named = f"{'an' if kind[0].lower() in 'aeiou' else 'a'} {kind}"
    return f"{named}: {value!r}" if isinstance(value, str | int | float) and len(repr(value)) <= 60 else named


def as_plain_value(value: Any) -> Any:
    """Return a value as the fields of a recipe take it.

    Paths become strings; numbers and arrays of numpy, columns of pandas and generators become numbers and lists.
    """
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, list | tuple | Iterator):
        return [as_plain_value(one) for one in value]
    if isinstance(value, dict):
        return {name: as_plain_value(one) for name, one in value.items()}
    return value
