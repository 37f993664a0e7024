"""Limits: each is a bound above 0."""

from dataclasses import asdict

from fullbake.serving.limits import Limits


def test_every_limit_bounds_something() -> None:
    assert all(value > 0 for value in asdict(Limits()).values())
    assert Limits().texts <= Limits().queue_tokens, "a request of short texts fits into the queue"
