"""vLLM's /classify: documented exchanges, labels by the decision, what is refused."""

from collections.abc import Iterator

import pytest
from helpers.protocols import exchanges, send, shape
from helpers.served_models import make_source, open_client
from starlette.testclient import TestClient


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    sources = [
        make_source("jason9693/Qwen2.5-1.5B-apeach", ("Default", "Spoiled")),
        make_source("none", ("a", "b", "c"), many=True, thresholds=(1.0, 1.0, 1.0)),
        make_source("all", ("a", "b", "c"), many=True, thresholds=(0.0, 0.0, 0.0)),
        make_source("tail", ("Default", "Spoiled"), truncation="tail"),
    ]
    with open_client(*sources) as found:
        yield found


def classify(client: TestClient, text: object = "good food", **fields: object):
    return client.post("/classify", json={"input": text, **fields})


@pytest.mark.parametrize("exchange", exchanges("vllm"), ids=lambda exchange: exchange["from"])
def test_documented_requests_get_responses_of_the_documented_shape(client, exchange):
    found = send(client, exchange["request"])
    free = exchange.get("free", ())
    assert (found.status_code, shape(found.json(), free)) == (
        exchange["response"]["status"],
        shape(exchange["response"]["json"], free),
    )


def test_label_is_that_of_the_decision(client):
    classifier = client.service.model().classifier
    found = classify(client, ["good food", "the bank"]).json()["data"]
    assert [one["label"] for one in found] == classifier.predict(["good food", "the bank"]).tolist()
    assert [one["probs"] for one in found] == classifier.predict_proba(["good food", "the bank"]).tolist()
    assert [one["index"] for one in found] == [0, 1]
    raw = classify(client, use_activation=False).json()["data"][0]["probs"]
    assert raw == classify(client, activation=False).json()["data"][0]["probs"]
    assert raw == classifier.logits(["good food"])[0].tolist()


def test_of_many_labels_the_likeliest_that_was_given_is_named(client):
    assert classify(client, model="none").json()["data"][0]["label"] is None
    found = classify(client, model="all").json()["data"][0]
    assert found["label"] == "abc"[found["probs"].index(max(found["probs"]))]


def test_request_id_is_part_of_the_id(client):
    assert classify(client, request_id="mine").json()["id"] == "classify-mine"
    found = client.post("/classify", json={"input": "a"}, headers={"x-request-id": "header"})
    assert found.json()["id"] == "classify-header"


def test_truncation_side_replaces_that_of_training(client):
    text = "food water bank team " * 30 + "game"
    tail = classify(client, text, model="tail").json()["data"]
    assert classify(client, text, truncation_side="left", truncate_prompt_tokens=32).json()["data"] == tail
    assert classify(client, text, truncate_prompt_tokens=-1).json()["data"] != tail


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"input": [1, 2]}, "token ids"),
        ({"input": [[1], [2]]}, "token ids"),
        ({"input": []}, "no text"),
        ({"input": "a", "truncate_prompt_tokens": 7}, "only -1 or 32"),
        ({"input": "a", "truncate_prompt_tokens": -2}, "truncate_prompt_tokens"),
        ({"input": "a", "add_special_tokens": False}, "add_special_tokens"),
        ({"messages": [{"role": "user", "content": "a"}]}, "input: Field required"),
        ({"input": "a", "request_id": "x" * 500}, "request_id"),
    ],
)
def test_what_is_not_possible_is_refused(client, fields, said):
    found = client.post("/v1/classify", json=fields)
    assert (found.status_code, found.json()["error"]["code"]) == (400, 400)
    assert said in found.json()["error"]["message"]


def test_errors_have_the_protocols_types(client):
    found = client.get("/classify")
    assert (found.status_code, found.json()["error"]["type"]) == (405, "MethodNotAllowedError")
    client.service.draining = True
    found = classify(client)
    client.service.draining = False
    assert (found.status_code, found.json()["error"]["type"]) == (503, "ServiceUnavailableError")
