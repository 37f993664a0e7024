"""POST /v1/explain as a client sees it."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.running_server import running_server

from fullbake import Classifier
from fullbake.serving.limits import Limits

FIXTURES = Path(__file__).parents[2] / "fixtures"
TEXT = "an old game 😀 and the bank card"


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier.load(FIXTURES / "bundle_0_1_0_multilabel")


@pytest.fixture(scope="module")
def address(classifier: Classifier) -> Iterator[str]:
    with running_server({"m": classifier}, limits=replace(Limits(), explained_words=5)) as url:
        yield url


def ask(address: str, body: Any) -> tuple[int, dict[str, Any]]:
    import requests

    found = requests.post(f"{address}v1/explain", json=body, timeout=60)
    return found.status_code, found.json()


def test_the_answer_has_the_effects_of_the_words(address: str, classifier: Classifier) -> None:
    status, found = ask(address, {"text": TEXT, "labels": ["team", "food"], "max_words": 100})
    assert status == 200
    timing = found.pop("timing")
    assert timing["tokens"] > 0
    assert found.pop("model") == "m"
    expected = classifier.explain(TEXT, labels=["team", "food"], max_parts=5).to_json()
    expected.pop("texts")
    assert found.keys() == expected.keys()
    for own, other in zip(found["labels"], expected["labels"], strict=True):
        assert own["label"] == other["label"]
        assert own["score"] == pytest.approx(other["score"], abs=1e-5)
        for word, wanted in zip(own["words"], other["words"], strict=True):
            assert word == wanted | {"effect": pytest.approx(wanted["effect"], abs=1e-5)}


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        ({}, 422, "invalid"),
        ({"text": None}, 422, "invalid"),
        ({"text": ["a"]}, 422, "invalid"),
        ({"text": "a", "text_pair": "b"}, 422, "invalid"),
        ({"text": "a", "labels": ["none such"]}, 422, "invalid"),
        ({"text": "a", "max_words": 0}, 422, "invalid"),
        ({"text": "\ud800"}, 422, "invalid"),
        ({"text": "a", "model": "other"}, 404, "unknown_model"),
        ({"text": "a" * 60_000}, 413, "too_large"),
    ],
)
def test_bad_input_is_refused(address: str, body: Any, status: int, kind: str) -> None:
    found, value = ask(address, body)
    assert (found, value["error"]["kind"]) == (status, kind)


def test_a_text_without_words_has_no_effects(address: str) -> None:
    status, found = ask(address, {"text": " "})
    assert status == 200
    assert found["labels"][0]["words"] == []
