"""Refusals: their statuses, and when a client may come again."""

import pytest

from fullbake.serving.refusals import Refusal, invalid, overloaded, too_large, unavailable


def test_statuses_are_those_of_http() -> None:
    assert [one.status for one in (invalid("a"), too_large("b"), unavailable("c"))] == [422, 413, 503]
    assert str(invalid("what is wrong")) == "what is wrong"


@pytest.mark.parametrize(("seconds", "header"), [(-3.0, "1"), (0.2, "1"), (4.0, "4"), (4.6, "5")])
def test_overloaded_says_in_whole_seconds_when_to_come_again(seconds: float, header: str) -> None:
    assert overloaded("full", seconds).headers == {"retry-after": header}


def test_refusal_has_no_headers_of_another() -> None:
    assert Refusal(400, "invalid", "x").headers is not Refusal(400, "invalid", "y").headers
