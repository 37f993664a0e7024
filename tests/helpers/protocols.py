"""Requests and responses of other servers, written down from their documentation (tests/fixtures/protocols)."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "fixtures/protocols"


def exchanges(name: str) -> list[dict[str, Any]]:
    """Return the exchanges of a protocol: {"from", "request": {...}, "response": {"status", "json"}}."""
    found: list[dict[str, Any]] = json.loads((FOLDER / f"{name}.json").read_text("utf-8"))
    return found


def shape(value: Any, free: Iterable[str] = ()) -> Any:
    """Return the kinds of a JSON value: its keys, the kinds of their values, and the kind of each list's first value.

    Args:
        value: The value.
        free: Keys whose values are not compared, such as parameters.
    """
    if isinstance(value, dict):
        return {key: "free" if key in free else shape(one, free) for key, one in sorted(value.items())}
    if isinstance(value, list):
        return [shape(one, free) for one in value[:1]]
    if value is None or isinstance(value, bool | str):
        return type(value).__name__
    return "number"


def send(client: Any, request: dict[str, Any], **changes: str) -> Any:
    """Send a request that was written down. changes: what stands in the path in place of `{key}`."""
    path = request["path"].format(**changes)
    content = {key: request[key] for key in ("json", "content", "headers") if key in request}
    return client.request(request["method"], path, **content)
