"""The protocol of Text Embeddings Inference: documented exchanges, shapes of inputs, truncation, vectors, errors."""

from collections.abc import Iterator

import numpy as np
import pytest
from helpers.protocols import exchanges, send, shape
from helpers.served_models import make_source, open_client
from starlette.testclient import TestClient

from fullbake.serving.limits import Limits

EMOTIONS = ("admiration", "anger", "joy")
LONG = "food water bank team " * 30


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    sources = [
        make_source("goemotions", EMOTIONS),
        make_source("pairs", ("no", "yes"), pair=True),
        make_source("windows", EMOTIONS, truncation="windows", stride=4),
        make_source("tail", EMOTIONS, truncation="tail"),
    ]
    with open_client(*sources, limits=Limits(texts=8)) as found:
        yield found


def predict(client: TestClient, inputs: object, model: str = "goemotions", **fields: object):
    return client.post(f"/predict?model={model}", json={"inputs": inputs, **fields})


@pytest.mark.parametrize("exchange", exchanges("embeddings_inference"), ids=lambda exchange: exchange["from"])
def test_documented_requests_get_responses_of_the_documented_shape(client, exchange):
    found = send(client, exchange["request"], model=exchange["model"])
    free = ("id2label", "label2id")
    assert (found.status_code, shape(found.json(), free)) == (
        exchange["response"]["status"],
        shape(exchange["response"]["json"], free),
    )
    assert found.json().keys() == exchange["response"]["json"].keys() if isinstance(found.json(), dict) else True


def test_scores_are_the_librarys_and_sorted(client):
    classifier = client.service.model("goemotions").classifier
    (expected,) = classifier.predict_proba(["good food"])
    found = predict(client, "good food").json()
    assert [one["score"] for one in found] == sorted(expected.tolist(), reverse=True)
    assert {one["label"]: one["score"] for one in found} == dict(zip(EMOTIONS, expected.tolist(), strict=True))
    raw = predict(client, "good food", raw_scores=True).json()
    expected = classifier.logits(["good food"])[0].tolist()
    assert {one["label"]: one["score"] for one in raw} == dict(zip(EMOTIONS, expected, strict=True))


def test_a_list_of_two_texts_is_one_pair_and_a_batch_is_a_list_of_lists(client):
    classifier = client.service.model("pairs").classifier
    one, batch = predict(client, ["a", "b"], "pairs").json(), predict(client, [["a", "b"], ["c", "d"]], "pairs").json()
    assert batch[0] == one
    expected = classifier.predict_proba(["a", "c"], ["b", "d"])
    found = [[{one["label"]: one["score"] for one in row}[name] for name in ("no", "yes")] for row in batch]
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert predict(client, ["a"]).json() == predict(client, "a").json()
    assert predict(client, [["a"], ["b"]]).json() == [predict(client, text).json() for text in ("a", "b")]


@pytest.mark.parametrize("inputs", [[], ["a", "b", "c"], [["a", "b", "c"]], [[]], [["a"], "b"], [1], {}, None, 7, True])
def test_other_inputs_are_refused_with_what_is_expected(client, inputs):
    found = predict(client, inputs)
    assert (found.status_code, found.json()["error_type"]) == (422, "Validation")
    assert "pair" in found.json()["error"] or "no text" in found.json()["error"]


def test_pairs_and_texts_are_not_mixed(client):
    assert "not both" in predict(client, [["a"], ["a", "b"]]).json()["error"]
    assert 'a batch is [["a"], ["b"]]' in predict(client, ["a", "b"]).json()["error"]
    assert "single texts" in predict(client, [["a", "b"]]).json()["error"]
    assert "pairs of texts" in predict(client, "a", "pairs").json()["error"]


def test_long_text_is_cut_as_in_training_unless_the_request_says_otherwise(client):
    head, tail = (predict(client, LONG + "game", model).json() for model in ("goemotions", "tail"))
    assert head != tail
    assert predict(client, LONG + "game", truncate=True).json() == head
    assert predict(client, LONG + "game", truncation_direction="right").json() == head
    assert predict(client, LONG + "game", truncation_direction="left").json() == tail
    assert predict(client, LONG + "game", "tail", truncation_direction="Right").json() == head
    assert predict(client, LONG + "game", "windows", truncation_direction="Left").json() == tail
    assert predict(client, "a", truncation_direction="up").status_code == 422


def test_text_that_would_be_cut_is_refused_where_truncation_is_off(client):
    found = predict(client, LONG, truncate=False)
    assert (found.status_code, found.json()) == (
        413,
        {"error": "`inputs` must have at most 32 tokens. Given: 122", "error_type": "Validation"},
    )
    exact = "food " * 30
    assert predict(client, exact, truncate=False).status_code == 200
    assert predict(client, exact + "food", truncate=False).status_code == 413
    assert predict(client, LONG, "windows", truncate=False).status_code == 200  # windows cut nothing
    pair = ["food " * 15, "water " * 14]
    assert predict(client, pair, "pairs", truncate=False).status_code == 200
    found = predict(client, [pair[0], pair[1] + "bank bank"], "pairs", truncate=False)
    assert found.json()["error"].endswith("Given: 34")
    assert predict(client, pair, "pairs", truncation_direction="left").status_code == 422


def test_vectors_have_length_1_unless_told_otherwise(client):
    classifier = client.service.model("goemotions").classifier
    prepared = client.service.model("goemotions").scorer.prepare(["good food", "the bank"])
    pooled = classifier.predictor.pooled(prepared.encoded, classifier.tokens)
    found = client.post("/embed", json={"inputs": ["good food", "the bank"], "normalize": False}).json()
    np.testing.assert_allclose(found, pooled, rtol=1e-6)
    unit = np.array(client.post("/embed", json={"inputs": ["good food", "the bank"]}).json())
    np.testing.assert_allclose(unit, pooled / np.linalg.norm(pooled, axis=1, keepdims=True), rtol=1e-5)
    for fields in ({"prompt_name": "query"}, {"dimensions": 2}):
        assert client.post("/embed", json={"inputs": "a", **fields}).status_code == 422


def test_limits_have_the_protocols_errors(client):
    found = predict(client, [["a"]] * 9)
    assert (found.status_code, found.json()["error_type"]) == (413, "Validation")
    assert "at most 8" in found.json()["error"]
    batcher = client.service.model("goemotions").batcher
    batcher.most_tokens, before = 100, batcher.most_tokens
    batcher.waiting_tokens += 99
    found = predict(client, "a")
    batcher.waiting_tokens, batcher.most_tokens = batcher.waiting_tokens - 99, before
    assert (found.status_code, found.json()["error_type"]) == (429, "Overloaded")
    assert int(found.headers["retry-after"]) >= 1


def test_failure_of_the_model_is_424(client, monkeypatch):
    model = client.service.model("tail")
    monkeypatch.setattr(model.scorer, "answers", lambda parts: 1 / 0)
    found = predict(client, "a", "tail")
    assert (found.status_code, found.json()["error_type"]) == (424, "Backend")
    assert "division" not in found.text


def test_headers_say_what_it_took_and_labels_are_counted(client):
    headers = predict(client, [["good food"], ["the"]]).headers
    assert (headers["x-compute-characters"], headers["x-compute-tokens"]) == ("12", "7")
    assert headers["x-total-time"].isdigit()
    assert 'fullbake_labels_total{label="' in client.get("/metrics").text


def test_health_says_unhealthy_while_the_server_stops():
    with open_client(make_source("one", EMOTIONS)) as client:
        assert (client.get("/health").status_code, client.get("/health").content) == (200, b"")
        client.service.draining = True
        found = client.get("/health")
        assert (found.status_code, found.json()) == (503, {"error": "unhealthy", "error_type": "Unhealthy"})
        assert predict(client, "a", "one").json()["error_type"] == "Unhealthy"


def test_unknown_model_and_method_have_the_protocols_errors(client):
    assert predict(client, "a", "nothing").status_code == 404
    assert client.get("/predict").json()["error"] == "GET is not possible at '/predict', POST is."
    assert client.post("/embed/all").json()["error_type"] == "Validation"
