"""Time limits, clients that go away, and failures that are nobody's fault but the server's."""

import asyncio
import logging
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response

from fullbake.serving.dialects.dialect import endpoint, in_time, json_response
from fullbake.serving.limits import Limits
from fullbake.serving.refusals import Refusal


class Plain:
    def routes(self) -> list[Any]:
        return []

    def refuse(self, refusal: Refusal) -> Response:
        return json_response({"kind": refusal.kind, "message": refusal.message}, refusal.status, **refusal.headers)


def request(*messages: dict[str, Any], **headers: str) -> Request:
    left = list(messages)

    async def receive() -> Any:
        if left:
            return left.pop(0)
        return await asyncio.Event().wait()

    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request(
        {"type": "http", "method": "POST", "path": "/", "headers": raw, "state": {"request_id": "r7"}}, receive
    )


def wait(given: Request, seconds: float = 0.0, limit: float = 60.0) -> str:
    async def work() -> str:
        await asyncio.sleep(seconds)
        return "done"

    return asyncio.run(in_time(Limits(timeout=limit), given, work()))


def test_work_in_time_gives_its_result():
    assert wait(request(x_timeout="2")) == "done"


@pytest.mark.parametrize("given", [request(x_timeout="0.01"), request()])
def test_work_that_takes_too_long_is_stopped(given: Request):
    with pytest.raises(Refusal) as refused:
        wait(given, 30.0, limit=0.02)
    assert refused.value.status == 504


def test_work_for_a_client_that_went_away_is_stopped():
    with pytest.raises(Refusal) as refused:
        wait(request({"type": "http.request"}, {"type": "http.disconnect"}), 30.0)
    assert refused.value.status == 499


@pytest.mark.parametrize("value", ["soon", "-1", "0", "nan", "inf"])
def test_wrong_timeout_is_refused(value: str):
    with pytest.raises(Refusal, match="x-timeout"):
        wait(request(x_timeout=value))


def test_failure_is_answered_without_its_trace_and_logged_with_it(caplog: pytest.LogCaptureFixture):
    async def broken(_: Request) -> Response:
        raise ZeroDivisionError("a secret of the code")

    caplog.set_level(logging.ERROR, logger="fullbake.serving")
    found = asyncio.run(endpoint(Plain(), broken)(request()))
    assert found.status_code == 500
    assert b"r7" in found.body
    assert b"secret" not in found.body
    assert "ZeroDivisionError" in caplog.text
