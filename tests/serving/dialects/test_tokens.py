"""/tokenize and /decode: the tokens that the classifier reads, and what is refused."""

from collections.abc import Iterator

import pytest
from helpers.served_models import make_source, open_client
from starlette.testclient import TestClient

from fullbake.serving.dialects import tokens


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with open_client(make_source("topics", ("a", "b")), make_source("pairs", ("a", "b"), pair=True)) as found:
        yield found


def post(client: TestClient, path: str, **body: object):
    return client.post(path, json=body)


def test_tokens_are_those_that_are_scored_with_their_places(client):
    text = "Good  food\x00 日本 food " + "food " * 50
    (found,) = post(client, "/tokenize", inputs=text).json()
    assert found[0] == {"id": found[0]["id"], "text": "[CLS]", "special": True, "start": None, "stop": None}
    assert len(found) > 50, "a long text is not cut"
    assert all(token["text"] == text[token["start"] : token["stop"]] for token in found[1:-1])
    encoded = client.service.model("topics").scorer.prepare([text]).encoded.input_ids.tolist()
    assert [token["id"] for token in found][: len(encoded) - 1] == encoded[:-1]
    plain = post(client, "/tokenize", inputs=[text, "food"], add_special_tokens=False).json()
    assert plain[0] == found[1:-1]
    assert client.post("/tokenize?model=pairs", json={"inputs": text}).json() == [found]


def test_ids_are_turned_into_texts(client):
    (found,) = post(client, "/tokenize", inputs="good food").json()
    ids = [token["id"] for token in found]
    assert post(client, "/decode", ids=ids).json() == ["good food"]
    assert post(client, "/decode", ids=[ids, ids[1:2]], skip_special_tokens=False).json()[0].startswith("[CLS]")
    assert post(client, "/decode", ids=[2**31]).json() == [""]
    assert post(client, "/decode", ids=[]).status_code == 200


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/tokenize", {"inputs": []}, 422),
        ("/tokenize", {"inputs": [1]}, 422),
        ("/tokenize", {"inputs": "a", "prompt_name": "query"}, 422),
        ("/tokenize", {"inputs": "a" * (tokens.MOST_TOKENIZED + 1)}, 413),
        ("/decode", {"ids": [-1]}, 422),
        ("/decode", {"ids": [2**32]}, 422),
        ("/decode", {"ids": [[1], 2]}, 422),
        ("/decode", {"ids": "1"}, 422),
        ("/decode", {"ids": [[1]] * 1_025}, 413),
        ("/decode", {"ids": [1] * (tokens.MOST_TOKENIZED + 1)}, 413),
    ],
)
def test_what_is_not_possible_is_refused(client, path, body, status):
    found = post(client, path, **body)
    assert (found.status_code, list(found.json())) == (status, ["error", "error_type"])
