"""Bodies that are no JSON, or not what is expected, are refused in one sentence."""

import asyncio
import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.virtual_time import run_in_virtual_time
from starlette.requests import Request

from fullbake.serving import bodies
from fullbake.serving.app import build_app
from fullbake.serving.bodies import Body, ForeignBody, check_body, parse_json
from fullbake.serving.dialects.native import PredictBody as NativeBody
from fullbake.serving.door import DoorRules
from fullbake.serving.limits import Limits
from fullbake.serving.refusals import Refusal
from fullbake.serving.service import Service


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
        (b"1" * 5_000, "5,000 digits"),
        (b'{"texts": ["a"], "top_k": 1' + b"0" * 400 + b"}", "401 digits"),
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
    with pytest.raises(Refusal, match=r"The request is wrong|A JSON object is expected, with the fields texts, top_k"):
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
        b'{"texts": [' + b"1," * 1_000 + b"1]}",
        b'{"inputs": [{"data": [' + b"[]," * 500 + b"[]]}]}",
        b"{" + b",".join(b'"%d":1' % number for number in range(1_010)) + b"}",
        b"[" * 1_010 + b"]" * 1_010,
        b'["' + rb"\\" * 9 + b'",' + b"1," * 1_010 + b"1]",
        '["\u2222",'.encode("utf-16") + ("1," * 1_010 + "1]").encode("utf-16-le"),
        b"{" * 1_010,
    ],
)
def test_body_of_too_many_values_is_refused_before_they_are_read(content: bytes):
    with pytest.raises(Refusal, match="more than 1,000 values") as refused:
        parse_json(content, 1_000)
    assert refused.value.status == 413


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32-be"])
def test_within_a_text_commas_and_brackets_are_no_values(encoding: str):
    text = '[{,"\\",{[\\' * 1_000 + "\u2222,\u222c" * 1_000
    body = {text: [text, 1, {"a": text}]}
    for readable in (True, False):
        assert parse_json(json.dumps(body, ensure_ascii=readable).encode(encoding), 6) == body
    with pytest.raises(Refusal, match="more than 4 values"):
        parse_json(json.dumps(body).encode(encoding), 4)


def test_values_of_a_body_are_those_of_the_most_generous_model(served):
    sources = [replace(served(name="a"), limits=Limits(texts=5_000)), served(name="b")]
    app = build_app(Service(sources, Limits(texts=8)), DoorRules(frozenset("*")))
    assert app.state.most_values == 500_000


def test_many_unknown_fields_cost_no_fault_each():
    with pytest.raises(Refusal, match="The request has 5,001 fields; there are texts, top_k") as refused:
        check_body({"texts": [], **{str(number): 1 for number in range(5_000)}}, Own)
    assert refused.value.status == 422
    with pytest.raises(Refusal) as refused:
        check_body({"x" * 1_000_000: 1}, Own)
    assert len(refused.value.message) < 300


def test_faults_beyond_the_first_cost_nothing():
    with pytest.raises(Refusal, match=r"texts\.0"):
        check_body({"texts": [1] * 100_000}, NativeBody)


def test_compressed_body_is_refused_with_the_remedy(clients):
    found = clients().post("/predict", content=b"{}", headers={"content-encoding": "gzip"})
    assert (found.status_code, found.json()["error_type"]) == (415, "Validation")
    assert "uncompressed" in found.json()["error"]


def test_misspelled_field_is_refused_in_own_bodies_and_left_out_in_foreign_ones():
    with pytest.raises(Refusal, match=r"text: there is no such field\. Did you mean 'texts'"):
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
    return run_in_virtual_time(bodies.read_bytes(Request(scope, receive)))


def test_body_that_trickles_is_refused_and_a_large_one_over_a_slow_line_is_not():
    with pytest.raises(Refusal, match="too slowly: 20 bytes in 20 seconds") as refused:
        read_slowly(parts=10_000, size=1, pause=1.0)
    assert refused.value.status == 408
    assert len(read_slowly(parts=40, size=50_000, pause=1.4)) == 2_000_000
