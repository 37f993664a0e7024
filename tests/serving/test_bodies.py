"""Bodies that are no JSON, or not what is expected, are refused in one sentence."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.requests import Request

from fullbake.serving import bodies
from fullbake.serving.bodies import Body, ForeignBody, check_body, parse_json
from fullbake.serving.dialects.native import PredictBody as NativeBody
from fullbake.serving.refusals import Refusal


class Own(Body):
    texts: list[str]
    top_k: int | None = None


class Foreign(ForeignBody):
    inputs: str


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"{", "line 1, column 2"),
        (b"\xff{}", "UTF-8"),
        (b'{"texts": [NaN]}', "NaN"),
        (b"[" * 100_000, "nested too deeply"),
        (b"1" * 5_000, "no JSON"),
    ],
)
def test_body_that_is_no_json_is_refused(clients, content: bytes, words: str):
    found = clients().post("/v1/predict", content=content)
    assert found.status_code == 400
    assert words in found.json()["error"]["message"]


@pytest.mark.parametrize(
    "value", [None, 3, [], "text", {}, {"texts": "a"}, {"texts": [1]}, {"texts": [], "top_k": "1"}]
)
def test_value_of_another_shape_is_refused(value: object):
    with pytest.raises(Refusal, match="The request is wrong"):
        check_body(value, Own)


def test_faults_are_named_and_bounded_and_hold_no_input():
    with pytest.raises(Refusal) as refused:
        check_body({"texts": [1] * 1000 + [{"secret": "s3cret"}]}, Own)
    assert "texts.0" in refused.value.message
    assert "998 more" in refused.value.message
    assert "s3cret" not in refused.value.message


@pytest.mark.parametrize(
    "content",
    [
        b'{"texts": [' + b"1," * 510_000 + b"1]}",
        b'{"inputs": [{"data": [' + b"[]," * 510_000 + b"[]]}]}",
        b"{" + b",".join(b'"%d":1' % number for number in range(510_000)) + b"}",
        b"[" + b",".join([b"[" + b"1," * 1_000 + b"1]"] * 510) + b"]",
    ],
)
def test_body_of_too_many_values_is_refused_before_they_are_checked(content: bytes):
    with pytest.raises(Refusal, match="more than 500,000 values") as refused:
        parse_json(content)
    assert refused.value.status == 413
    assert parse_json(b'["' + b"[," * 600_000 + b'"]') == ["[," * 600_000], "within a text they are no values"


def test_faults_beyond_the_first_cost_nothing():
    with pytest.raises(Refusal, match=r"texts\.0"):
        check_body({"texts": [1] * 100_000}, NativeBody)


def test_compressed_body_is_refused_with_the_remedy(clients):
    found = clients().post("/predict", content=b"{}", headers={"content-encoding": "gzip"})
    assert (found.status_code, found.json()["error_type"]) == (415, "Validation")
    assert "uncompressed" in found.json()["error"]


def test_misspelled_field_is_refused_in_own_bodies_and_left_out_in_foreign_ones():
    with pytest.raises(Refusal, match="text: Extra inputs"):
        check_body({"texts": ["a"], "text": "b"}, Own)
    assert check_body({"inputs": "a", "unknown": 1}, Foreign).inputs == "a"


def read_slowly(parts: int, size: int, pause: float) -> bytes:
    """Read a body that comes in parts, with a pause before each."""
    left = [size] * parts

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(pause)
        return {"type": "http.request", "body": b"x" * left.pop(), "more_body": bool(left)}

    state = SimpleNamespace(body_bytes=10**9, large_bodies=0)
    scope = {"type": "http", "method": "POST", "headers": [], "app": SimpleNamespace(state=state)}
    return asyncio.run(bodies.read_bytes(Request(scope, receive)))


def test_body_that_trickles_is_refused_and_a_large_one_over_a_slow_line_is_not(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bodies, "BODY_SECONDS", 0.2)
    with pytest.raises(Refusal, match="too slowly") as refused:
        read_slowly(parts=10_000, size=1, pause=0.02)
    assert refused.value.status == 408
    assert len(read_slowly(parts=20, size=50_000, pause=0.02)) == 1_000_000
