"""The open inference protocol: documented exchanges, tensors of texts, several models, what is refused."""

import json
from collections.abc import Iterator

import numpy as np
import pytest
from helpers.protocols import exchanges, send, shape
from helpers.served_models import make_source, open_client
from starlette.testclient import TestClient

from fullbake.serving.dialects.binary_tensors import BinaryReader, pack

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
        ([tensor()], {"outputs": [{"name": "scores", "parameters": {"classification": 2}}]}, "classification"),
    ],
)
def test_what_is_not_possible_is_refused(client, inputs, fields, said):
    found = infer(client, *inputs, **fields)
    assert (found.status_code, list(found.json())) == (400, ["error"])
    assert said in found.json()["error"]


def post_binary(client: TestClient, model: str, body: dict[str, object], *tensors: bytes):
    head = json.dumps(body).encode()
    header = {"Inference-Header-Content-Length": str(len(head))}
    return client.post(f"/v2/models/{model}/infer", content=head + b"".join(tensors), headers=header)


def test_texts_and_answers_may_be_binary(client):
    """What tritonclient.http sends by default: binary input, and binary output of all tensors."""
    for name, texts in (("topics", [TEXTS]), ("pairs", [TEXTS, ["c", ""]])):
        packed = [pack("BYTES", own) for own in texts]
        inputs = [
            {"name": column, "shape": [2], "datatype": "BYTES", "parameters": {"binary_data_size": len(own)}}
            for column, own in zip(("text", "other"), packed, strict=False)
        ]
        found = post_binary(client, name, {"inputs": inputs, "parameters": {"binary_data_output": True}}, *packed)
        assert (found.status_code, found.headers["content-type"]) == (200, "application/octet-stream"), found.text
        place = int(found.headers["inference-header-content-length"])
        given, scores = json.loads(found.content[:place])["outputs"]
        size = given["parameters"]["binary_data_size"]
        classifier = client.service.model(name).classifier
        assert BinaryReader(found.content[place : place + size]).read_texts(
            {"binary_data_size": size}, "label", 2
        ) == list(classifier.predict(*texts))
        assert scores["parameters"]["binary_data_size"] == len(found.content) - place - size
        wanted = classifier.predict_proba(*texts)
        np.testing.assert_array_equal(np.frombuffer(found.content[place + size :]).reshape(wanted.shape), wanted)


def test_each_output_may_be_binary_or_not(client):
    outputs = [{"name": "scores", "parameters": {"binary_data": False}}, {"name": "labels"}]
    parameters = {"parameters": {"binary_data_output": True}}
    found = infer(client, tensor(), model="many", outputs=outputs, **parameters)
    place = int(found.headers["inference-header-content-length"])
    labels, scores = json.loads(found.content[:place])["outputs"]
    plain = infer(client, tensor(), model="many").json()["outputs"]
    assert (scores["data"], [bool(byte) for byte in found.content[place:]]) == (plain[1]["data"], plain[0]["data"])
    assert labels["parameters"] == {"labels": ["a", "b", "c"], "binary_data_size": 6}
    assert infer(client, tensor(), outputs=[{"name": "scores"}]).headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("fields", "tail", "said"),
    [
        ({"parameters": {"binary_data_size": 6}}, b"", "binary_data_size"),
        ({"parameters": {"binary_data_size": 5}, "shape": [1]}, b"\x01\x00\x00\x00aX", "belong to no tensor"),
        ({"parameters": {"binary_data_size": 5}}, b"\x01\x00\x00\x00a", "its shape says 2"),
        ({}, b"", "neither data nor binary_data_size"),
    ],
)
def test_binary_data_that_is_not_there_is_refused(client, fields, tail, said):
    one = {"name": "text", "shape": [2], "datatype": "BYTES"}
    found = post_binary(client, "topics", {"inputs": [one | fields]}, tail)
    assert (found.status_code, list(found.json())) == (400, ["error"])
    assert said in found.json()["error"]


def test_names_may_have_slashes():
    with open_client(make_source("org/name", ("a", "b")), make_source("org/name/infer-2", ("a", "b"))) as client:
        for name in ("org/name", "org%2Fname", "org/name/infer-2", "org%2fname%2Finfer-2"):
            wanted = name.replace("%2F", "/").replace("%2f", "/")
            assert client.get(f"/v2/models/{name}").json()["name"] == wanted
            assert client.get(f"/v2/models/{name}/ready").json() == {"name": wanted, "ready": True}
            assert infer(client, tensor(), model=name).json()["model_name"] == wanted
            assert client.get(f"/v2/models/{name}/infer").status_code == 405
        assert client.post("/v1/predict", json={"texts": ["a"], "model": "org/name"}).status_code == 200
        assert client.get("/info?model=org%2Fname").json()["model_id"] == "org/name"
        found = client.post("/v2/models/org/name/versions/1/infer", json={"inputs": [tensor()]})
        assert (found.status_code, "no versions" in found.json()["error"]) == (404, True)
        assert 'route="/v2/models/{name}/infer"' in client.get("/metrics").text


def test_errors_below_v2_have_the_protocols_shape(client):
    for path in ("/v2/models/topics/versions/1", "/v2/models", "/v2/repository/index", "/v2/models/topics/infer"):
        assert list(client.get(path).json()) == ["error"]
    client.service.draining = True
    found = {path: client.get(path).status_code for path in ("/v2/health/live", "/v2/health/ready")}
    client.service.draining = False
    assert found == {"/v2/health/live": 200, "/v2/health/ready": 503}
