"""The open inference protocol: documented exchanges, tensors of texts, several models, what is refused."""

from collections.abc import Iterator

import pytest
from helpers.protocols import exchanges, send, shape
from helpers.served_models import make_source, open_client
from starlette.testclient import TestClient

TEXTS = ["good food", "the bank"]


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    sources = [
        make_source("topics", ("food", "game", "money")),
        make_source("pairs", ("no", "yes"), pair=True),
        make_source("many", ("a", "b", "c"), many=True, thresholds=(0.2, 0.5, 0.8)),
    ]
    with open_client(*sources) as found:
        yield found


def tensor(**fields: object) -> dict[str, object]:
    return {"name": "text", "shape": [2], "datatype": "BYTES", "data": TEXTS, **fields}


def infer(client: TestClient, *inputs: dict[str, object], model: str = "topics", **fields: object):
    return client.post(f"/v2/models/{model}/infer", json={"inputs": inputs, **fields})


@pytest.mark.parametrize("exchange", exchanges("open_inference"), ids=lambda exchange: exchange["from"])
def test_documented_requests_get_responses_of_the_documented_shape(client, exchange):
    found = send(client, exchange["request"])
    free = exchange.get("free", ())
    assert (found.status_code, shape(found.json(), free)) == (
        exchange["response"]["status"],
        shape(exchange["response"]["json"], free),
    )


def test_tensors_hold_the_librarys_scores(client):
    for name in ("topics", "many"):
        classifier = client.service.model(name).classifier
        given, scores = infer(client, tensor(), model=name).json()["outputs"]
        assert (scores["name"], scores["datatype"], scores["shape"]) == ("scores", "FP64", [2, 3])
        assert scores["data"] == classifier.predict_proba(TEXTS).ravel().tolist()
        assert scores["parameters"] == {"labels": list(classifier.label_names)}
        predicted = classifier.predict(TEXTS)
        if name == "topics":
            assert (given["name"], given["shape"], given["data"]) == ("label", [2], predicted.tolist())
        else:
            assert (given["name"], given["shape"]) == ("labels", [2, 3])
            assert given["data"] == (predicted == 1).ravel().tolist()
        described = client.get(f"/v2/models/{name}").json()["outputs"]
        assert [(one["name"], one["datatype"]) for one in described] == [
            (one["name"], one["datatype"]) for one in (given, scores)
        ]


def test_pairs_are_two_tensors_by_name(client):
    classifier = client.service.model("pairs").classifier
    found = infer(client, tensor(name="other", data=["c", "d"]), tensor(), model="pairs").json()
    assert found["outputs"][1]["data"] == classifier.predict_proba(TEXTS, ["c", "d"]).ravel().tolist()
    assert [one["name"] for one in client.get("/v2/models/pairs").json()["inputs"]] == ["text", "other"]


@pytest.mark.parametrize(
    ("inputs", "fields", "said"),
    [
        ([], {}, "inputs"),
        ([tensor(), tensor(name="other")], {}, "got 2 tensors"),
        ([tensor()], {"model": "pairs"}, "got 1 tensors"),
        ([tensor(), tensor(name="third")], {"model": "pairs"}, "no tensor 'other'"),
        ([tensor(), tensor(name="other", shape=[1], data=["c"])], {"model": "pairs"}, "1 second texts"),
        ([tensor(datatype="FP32")], {}, "BYTES"),
        ([tensor(shape=[3])], {}, "its shape says 3"),
        ([tensor(shape=[1, 2])], {}, "[texts, 1]"),
        ([tensor(shape=[-1])], {}, "shape"),
        ([tensor(shape=[2**64])], {}, "shape"),
        ([tensor(shape=[True])], {}, "shape"),
        ([tensor(shape=[1] * 9)], {}, "shape"),
        ([tensor(shape=[0], data=[])], {}, "no text"),
        ([tensor(data=[1, 2])], {}, "got a number"),
        ([tensor(data=[["good food"], ["the bank"]])], {}, "got a list"),
        ([tensor(data=[None, True])], {}, "got null"),
        ([tensor(parameters={"content_type": "base64"})], {}, "content_type"),
        ([tensor()], {"outputs": [{"name": "logits"}]}, "no output 'logits'"),
        ([tensor()], {"id": 7}, "id"),
    ],
)
def test_what_is_not_possible_is_refused(client, inputs, fields, said):
    found = infer(client, *inputs, **fields)
    assert (found.status_code, list(found.json())) == (400, ["error"])
    assert said in found.json()["error"]


def test_binary_data_is_refused(client):
    found = client.post("/v2/models/topics/infer", content=b"{}", headers={"Inference-Header-Content-Length": "2"})
    assert (found.status_code, "binary_data=False" in found.json()["error"]) == (400, True)


def test_errors_below_v2_have_the_protocols_shape(client):
    for path in ("/v2/models/topics/versions/1", "/v2/models", "/v2/repository/index", "/v2/models/topics/infer"):
        assert list(client.get(path).json()) == ["error"]
    client.service.draining = True
    found = {path: client.get(path).status_code for path in ("/v2/health/live", "/v2/health/ready")}
    client.service.draining = False
    assert found == {"/v2/health/live": 200, "/v2/health/ready": 503}
