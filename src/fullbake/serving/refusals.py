"""What a request is refused with, before a dialect gives it the shape of its own errors."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(eq=False)
class Refusal(Exception):  # noqa: N818  (it is an answer, not a fault)
    """A request that is not answered.

    Args:
        status: HTTP status.
        kind: One word for programs: `invalid`, `too_large`, `overloaded`, `timeout`, `unavailable`, `unknown_model`,
            `unauthorized`, `forbidden`, `not_found`, `impossible`, `internal`.
        message: What is wrong, what was expected, and what to do, in sentences.
        headers: Headers of the response.
    """

    status: int
    kind: str
    message: str
    headers: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.message


def invalid(message: str) -> Refusal:
    """Return the refusal of a request that is readable but wrong."""
    return Refusal(422, "invalid", message)


def too_large(message: str) -> Refusal:
    """Return the refusal of a request with more than the limits allow."""
    return Refusal(413, "too_large", message)


def overloaded(message: str, seconds: float) -> Refusal:
    """Return the refusal of a request for which the queue has no room.

    Args:
        message: What is full.
        seconds: After which time there will be room.
    """
    return Refusal(429, "overloaded", message, {"retry-after": str(max(1, round(seconds + 0.5)))})


def unavailable(message: str) -> Refusal:
    """Return the refusal of a server that starts or stops."""
    return Refusal(503, "unavailable", message, {"retry-after": "1"})
