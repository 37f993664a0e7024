"""Bodies that are no JSON, or not what is expected, are refused in one sentence."""

import pytest

from fullbake.serving.bodies import Body, ForeignBody, check_body
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


def test_misspelled_field_is_refused_in_own_bodies_and_left_out_in_foreign_ones():
    with pytest.raises(Refusal, match="text: Extra inputs"):
        check_body({"texts": ["a"], "text": "b"}, Own)
    assert check_body({"inputs": "a", "unknown": 1}, Foreign).inputs == "a"
