"""OpenAI's moderation: documented exchanges, thresholds, classifiers of two classes, what is refused."""

from collections.abc import Iterator

import pytest
from helpers.protocols import exchanges, send, shape
from helpers.served_models import make_source, open_client
from starlette.testclient import TestClient

CATEGORIES = tuple(exchanges("moderation")[0]["response"]["json"]["results"][0]["categories"])


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    sources = [
        make_source("categories", CATEGORIES, many=True, thresholds=[0.1 * (place % 10) for place in range(11)]),
        make_source("binary", ("ham", "spam")),
        make_source("topics", ("food", "game", "money")),
        make_source("pairs", ("no", "yes"), pair=True),
    ]
    with open_client(*sources) as found:
        yield found


def moderate(client: TestClient, given: object, **fields: object):
    return client.post("/v1/moderations", json={"input": given, **fields})


@pytest.mark.parametrize("exchange", exchanges("moderation"), ids=lambda exchange: exchange["from"])
def test_documented_requests_get_responses_of_the_documented_shape(client, exchange):
    found = send(client, exchange["request"])
    free = exchange.get("free", ())
    assert (found.status_code, shape(found.json(), free)) == (
        exchange["response"]["status"],
        shape(exchange["response"]["json"], free),
    )


def test_categories_are_flagged_by_their_own_thresholds(client):
    texts = ["good food", "the bank"]
    classifier = client.service.model("categories").classifier
    found = moderate(client, texts).json()["results"]
    assert [list(one["categories"].values()) for one in found] == (classifier.predict(texts) == 1).tolist()
    assert [list(one["category_scores"].values()) for one in found] == classifier.predict_proba(texts).tolist()
    assert [one["flagged"] for one in found] == [True, True]


def test_of_two_classes_the_last_one_is_the_category(client):
    texts = ["good food", "the bank", "team game play", "we"]
    classifier = client.service.model("binary").classifier
    found = moderate(client, texts, model="binary").json()["results"]
    predicted = classifier.predict(texts).tolist()
    assert len(set(predicted)) == 2, "the texts show both"
    assert [one["flagged"] for one in found] == [label == "spam" for label in predicted]
    assert [one["categories"] for one in found] == [{"spam": label == "spam"} for label in predicted]
    assert [one["category_scores"]["spam"] for one in found] == classifier.predict_proba(texts)[:, 1].tolist()


def test_parts_are_one_input(client):
    parts = [{"type": "text", "text": "good"}, {"type": "text", "text": "food"}]
    assert moderate(client, parts).json()["results"] == moderate(client, "good\nfood").json()["results"]


@pytest.mark.parametrize(
    ("given", "fields", "said"),
    [
        ("a", {"model": "topics"}, "exclude each other"),
        ("a", {"model": "pairs"}, "pairs of texts"),
        ([], {}, "no text"),
        ([{"type": "image_url", "image_url": {"url": "x"}}], {}, "images are not read"),
        ([["a"]], {}, "a list of texts"),
        (True, {}, "a text"),
    ],
)
def test_what_is_not_possible_is_refused(client, given, fields, said):
    found = moderate(client, given, **fields)
    assert (found.status_code, found.json()["error"]["type"]) == (400, "invalid_request_error")
    assert said in found.json()["error"]["message"]


def test_a_key_is_asked_for_in_the_protocols_shape(tmp_path):
    from fullbake.serving.keys import ApiKeys

    path = tmp_path / "keys.txt"
    path.write_text("a-key-of-twenty-chars\n", encoding="utf-8")
    with open_client(make_source("binary", ("ham", "spam")), keys=ApiKeys(path)) as client:
        found = moderate(client, "a")
        assert (found.status_code, found.json()["error"]["code"]) == (401, "invalid_api_key")
        client.headers["authorization"] = "Bearer a-key-of-twenty-chars"
        assert moderate(client, "a").status_code == 200
