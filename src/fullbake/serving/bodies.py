"""Read the body of a request: bounded JSON, and the fields of it, with errors that say what is wrong."""

import asyncio
import gc
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Final, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator
from pydantic_core import ErrorDetails
from starlette.requests import ClientDisconnect, Request

from fullbake.core.errors import did_you_mean
from fullbake.core.escaping import escape_hidden
from fullbake.serving.memory import LARGE_BODY
from fullbake.serving.refusals import Refusal, invalid, too_large

BODY_SECONDS: Final = 20.0
"""Time in which a body must have come: a client that sends a byte now and then keeps no connection open."""

SLOWEST_BODY: Final = 50_000
"""Bytes a second that add to this time: a large body over a slow line may take longer."""

BROKEN_BODY: Final = "broken_body"
"""Key of a request's state under which the connection says what is wrong with a body that is no HTTP."""

_MOST_DIGITS: Final = 400
"""Digits of a whole number; no double has more. Python takes the longer for a digit, the more there are."""

_MOST_FIELDS: Final = 100
"""Fields of a body whose unknown fields are faults: each fault takes as long as a hundred values."""

_NO_SIGNS: Final = bytes(set(range(256)) - set(b',[{"'))
"""Bytes of a JSON text that neither begin nor part values or texts."""

_MOST_SHOWN: Final = 3
"""Faults of a body that are listed."""


class Body(BaseModel):
    """A body of a request. Fields that it does not know are refused, so that a misspelled one is noticed."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)


class ForeignBody(BaseModel):
    """A body that clients of other servers send. Fields that have no meaning here are left out."""

    model_config = ConfigDict(extra="ignore", strict=True, use_attribute_docstrings=True)


_WORDS: Final = {
    "string_type": "a text is expected",
    "list_type": "a list is expected",
    "dict_type": "an object is expected",
    "model_type": "an object is expected",
    "bool_type": "true or false is expected",
    "int_type": "a whole number is expected",
}
"""Type of pydantic's error -> what is wrong."""

_LONGEST_NAME: Final = 100
"""Characters that are shown of a field's name."""

AnyBody = TypeVar("AnyBody", bound=BaseModel)


Item = TypeVar("Item")

Many = Annotated[list[Item], Field(fail_fast=True)]
"""A list in a body. The first item that is wrong ends the check: a million wrong ones cost no more than one."""


def expected(words: str) -> WrapValidator:
    """Return a validator that says what is expected, in place of what each of several forms lacks."""

    def check(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        try:
            return handler(value)
        except ValidationError as error:
            raise ValueError(f"expected {words}") from error

    return WrapValidator(check)


async def read_bytes(request: Request) -> bytes:
    """Return the body of a request.

    Raises:
        Refusal: It is larger than `app.state.body_bytes` (413), comes too slowly (408), is compressed (415), or breaks
            the rules of HTTP (400).
    """
    most, parts, size = request.app.state.body_bytes, [], 0
    if (encoding := request.headers.get("content-encoding", "identity").lower()) not in ("", "identity"):
        raise Refusal(
            415, "invalid", f"A body is read as it is; got content-encoding {encoding[:40]!r}. Send it uncompressed."
        )
    if (length := request.headers.get("content-length", "")).isdecimal() and int(length[:20]) > most:
        raise _too_large(most)
    try:
        started = asyncio.get_running_loop().time()
        async with asyncio.timeout_at(started + BODY_SECONDS) as limit:
            async for part in request.stream():
                parts.append(part)
                size += len(part)
                limit.reschedule(started + BODY_SECONDS + size / SLOWEST_BODY)
                if size > most:
                    raise _too_large(most)
    except TimeoutError as error:
        seconds = BODY_SECONDS + size / SLOWEST_BODY
        raise Refusal(408, "timeout", f"The body came too slowly: {size:,} bytes in {seconds:.0f} seconds.") from error
    except ClientDisconnect as error:
        raise Refusal(400, "invalid", "The client went away before its request was complete.") from error
    if size >= LARGE_BODY:
        request.app.state.large_bodies += 1
    if (fault := request.scope.get("state", {}).get(BROKEN_BODY)) is not None:
        raise Refusal(400, "invalid", f"The body is no HTTP: {fault[:200]}.")
    return b"".join(parts)


def _too_large(most: int) -> Refusal:
    return too_large(f"The body is larger than {most:,} bytes, the most that this server takes (--max-body).")


async def read_json(request: Request) -> Any:
    """Return the JSON value of a body.

    Raises:
        Refusal: It is no JSON, or cannot be read, as for `read_bytes`.
    """
    return parse_json(await read_bytes(request), request.app.state.most_values)


def parse_json(content: bytes, most_values: int) -> Any:
    """Return the JSON value in a body; errors as for `read_json`.

    Args:
        content: The body.
        most_values: How many values it may have. More are refused before they are read.
    """
    if not content:
        raise Refusal(400, "invalid", "The body is empty; JSON is expected.")
    try:
        if _has_more_values(content, most_values):
            raise too_large(f"The body has more than {most_values:,} values. Send them in several requests.")
        with _collector_paused(wanted=len(content) > LARGE_BODY):
            return json.loads(content, parse_constant=_refuse_constant, parse_int=_parse_int)
    except RecursionError as error:
        raise Refusal(400, "invalid", "The body is no JSON that is read here: it is nested too deeply.") from error
    except (ValueError, UnicodeDecodeError) as error:
        raise Refusal(400, "invalid", f"The body is no JSON: {_place(error)}") from error


@contextmanager
def _collector_paused(*, wanted: bool) -> Iterator[None]:
    """Stop the garbage collector within the block: it would look through millions of new lists again and again."""
    if not wanted or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _has_more_values(content: bytes, most: int) -> bool:
    """Return True if a JSON text has more values, that is more commas and opening brackets outside of its texts."""
    if sum(map(content.count, (b",", b"[", b"{"))) <= most:  # those within texts are among them
        return False
    if (encoding := json.detect_encoding(content)) not in ("utf-8", "utf-8-sig"):
        content = content.decode(encoding, "surrogatepass").encode("utf-8", "surrogatepass")
    without_escapes = content.replace(rb"\\", b"").replace(rb"\"", b"")
    signs = np.frombuffer(without_escapes.translate(None, _NO_SIGNS), np.uint8)
    quotes = signs == ord('"')
    outside = np.add.accumulate(quotes, dtype=np.uint8) % 2 == 0
    return int(np.count_nonzero(outside & ~quotes)) > most


def _parse_int(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"a number has {len(digits):,} digits, and at most {_MOST_DIGITS} are read")
    return int(digits)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON value")


def _place(error: ValueError) -> str:
    """Return what is wrong with a JSON text, without its content."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at line {error.lineno}, column {error.colno}."
    if isinstance(error, UnicodeDecodeError):
        return f"it is not UTF-8 at byte {error.start + 1}."
    return f"{str(error)[:100]}."


async def read_body(request: Request, kind: type[AnyBody]) -> AnyBody:
    """Return the body of a request, checked.

    Args:
        request: The request.
        kind: What its body must be.

    Raises:
        Refusal: It is not that.
    """
    return check_body(await read_json(request), kind)


def check_body(value: Any, kind: type[AnyBody]) -> AnyBody:
    """Return a JSON value as a checked body; errors as for `read_body`."""
    if not isinstance(value, dict):
        raise invalid(f"A JSON object is expected, with the fields {', '.join(kind.model_fields)}.")
    if issubclass(kind, Body) and len(value) > _MOST_FIELDS:
        raise invalid(f"The request has {len(value):,} fields; there are {', '.join(kind.model_fields)}.")
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False, include_context=False)
        shown = "; ".join(f"{_field_name(fault['loc'])}: {_fault(fault, kind)}" for fault in faults[:_MOST_SHOWN])
        more = f"; and {len(faults) - _MOST_SHOWN:,} more" if len(faults) > _MOST_SHOWN else ""
        raise invalid(f"The request is wrong. {shown}{more}.") from error


def _fault(fault: ErrorDetails, kind: type[BaseModel]) -> str:
    """Return what is wrong with a field, in our words where pydantic's are those of Python."""
    if fault["type"] == "extra_forbidden":
        fields = tuple(kind.model_fields)
        return f"there is no such field. {did_you_mean(str(fault['loc'][-1])[:_LONGEST_NAME], fields)}".rstrip(".")
    return _WORDS.get(fault["type"]) or fault["msg"].removeprefix("Value error, ")


def _field_name(place: tuple[int | str, ...]) -> str:
    """Return where a fault is. Unknown fields have the names that the client gave them."""
    return escape_hidden(".".join(str(part)[:_LONGEST_NAME] for part in place))[:_LONGEST_NAME] or "the body"
