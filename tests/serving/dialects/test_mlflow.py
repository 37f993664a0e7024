"""MLflow's scoring protocol: documented exchanges, all forms alike, CSV, what is refused."""

from collections.abc import Iterator

import numpy as np
import pytest
from helpers.protocols import exchanges, send, shape
from helpers.served_models import make_source, open_client
from starlette.testclient import TestClient


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    sources = [
        make_source("topics", ("food", "game", "money")),
        make_source("pairs", ("no", "yes"), pair=True),
        make_source("many", ("a", "b", "c"), many=True, thresholds=(0.2, 0.5, 0.8)),
    ]
    with open_client(*sources) as found:
        yield found


def invoke(client: TestClient, body: object, model: str = "topics"):
    return client.post(f"/invocations?model={model}", json=body)


def invoke_csv(client: TestClient, content: str | bytes, model: str = "topics", kind: str = "text/csv"):
    return client.post(f"/invocations?model={model}", content=content, headers={"content-type": kind})


@pytest.mark.parametrize("exchange", exchanges("mlflow"), ids=lambda exchange: exchange["from"])
def test_documented_requests_get_responses_of_the_documented_shape(client, exchange):
    found = send(client, exchange["request"])
    assert (found.status_code, shape(found.json())) == (
        exchange["response"]["status"],
        shape(exchange["response"]["json"]),
    )


def test_all_forms_give_the_librarys_predictions(client):
    texts = ["good food", "the bank"]
    classifier = client.service.model("topics").classifier
    answered = [send(client, one["request"]).json() for one in exchanges("mlflow")[:6]]
    for given in (texts, {"text": texts}, [{"text": text} for text in texts]):
        answered += [invoke(client, {form: given}).json() for form in ("inputs", "instances")]
    expected = zip(classifier.predict(texts), classifier.predict_proba(texts).max(axis=1), strict=True)
    predictions = [{"predicted": label, "score": float(np.float32(score))} for label, score in expected]
    assert answered == [{"predictions": predictions}] * 12
    assert invoke(client, {"inputs": texts[0]}).json() == {"predictions": predictions[:1]}
    assert invoke(client, {"inputs": {"text": texts[0]}}).json() == {"predictions": predictions[:1]}


def test_pairs_in_every_form(client):
    rows = [["a", "c"], ["b", "d"]]
    scores = client.service.model("pairs").classifier.predict_proba(["a", "b"], ["c", "d"])
    expected = scores.max(axis=1).astype(np.float32).tolist()
    found = [
        invoke(client, {"instances": rows}, "pairs"),
        invoke(client, {"inputs": {"other": ["c", "d"], "text": ["a", "b"]}}, "pairs"),
        invoke(client, {"dataframe_split": {"columns": ["text", "other"], "data": rows}}, "pairs"),
        invoke_csv(client, "other,text\nc,a\nd,b\n", "pairs"),
    ]
    for one in found:
        assert [row["score"] for row in one.json()["predictions"]] == expected


def test_many_labels_have_a_column_each_and_scores_where_asked_for(client):
    classifier = client.service.model("many").classifier
    texts = ["good food", "the bank", "team"]
    found = invoke(client, {"inputs": texts}, "many").json()["predictions"]
    assert [list(row) for row in found] == [["predicted:a", "predicted:b", "predicted:c"]] * 3
    assert [list(row.values()) for row in found] == classifier.predict(texts).tolist()
    found = invoke(client, {"inputs": texts, "params": {"scores": True}}, "many").json()["predictions"]
    scores = [[row[f"score:{name}"] for name in "abc"] for row in found]
    assert scores == classifier.predict_proba(texts).astype(np.float32).tolist()


def test_answers_are_those_of_the_mlflow_model(client):
    pytest.importorskip("pandas")
    from fullbake.integrations.mlflow import BundleModel

    for model in ("topics", "many"):
        classifier = client.service.model(model).classifier
        for params in ({}, {"scores": True}):
            expected = BundleModel(classifier).predict(["good food", "the bank"], params).to_dict(orient="records")
            found = invoke(client, {"inputs": ["good food", "the bank"], "params": params}, model).json()
            assert found["predictions"] == expected


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "none of them"),
        ([], "got a list"),
        ("text", "got a text"),
        ({"inputs": ["a"], "instances": ["a"]}, "got instances, inputs"),
        ({"inputs": None}, "got null"),
        ({"inputs": 7}, "got a number"),
        ({"inputs": []}, "no text"),
        ({"inputs": [None]}, "Row 1: a text is expected in 'text'; got null"),
        ({"inputs": ["a", 7]}, "Row 2"),
        ({"inputs": [["a", "b"]]}, "Row 1 has 2 values"),
        ({"inputs": {"text": ["a"], "id": [1, 2]}}, "different lengths"),
        ({"instances": [{"body": "a"}]}, "no such column"),
        ({"dataframe_records": "a"}, "dataframe_records"),
        ({"dataframe_records": None}, "got null"),
        ({"dataframe_split": {"columns": ["text"]}}, "dataframe_split.data"),
        ({"dataframe_split": {"columns": ["text"], "data": [["a", "b"]]}}, "Row 1 has 2 values"),
    ],
)
def test_what_is_not_possible_is_refused(client, body, said):
    found = invoke(client, body)
    assert (found.status_code, found.json()["error_code"]) == (400, "BAD_REQUEST")
    assert said in found.json()["message"]


def test_csv_of_any_kind_is_read_or_refused(client):
    text = 'text\n"a, ""quoted""\nline"\n'
    found = invoke_csv(client, text.encode("utf-8-sig"), kind="Text/CSV; charset=UTF-8")
    assert found.json() == invoke(client, {"inputs": ['a, "quoted"\nline']}).json()
    for content, said in [
        ("body\na\n", "no such column"),
        ("", "no text"),
        ('text\n"a\n', "no CSV"),
        (b"text\n\xff\n", "not UTF-8"),
        ("id,text\n1\n", "got null"),
    ]:
        found = invoke_csv(client, content)
        assert (found.status_code, said in found.json()["message"]) == (400, True), content[:40]
    assert invoke_csv(client, "text\n" + "x" * 200_000 + "\n").status_code == 200
    assert invoke_csv(client, "text\na\n", kind="text/csv; charset=latin-1").status_code == 415


def test_ping_and_errors_have_the_protocols_shape(client):
    assert (client.get("/ping").status_code, client.get("/ping").text) == (200, "\n")
    client.service.draining = True
    found = client.get("/ping")
    client.service.draining = False
    assert (found.status_code, found.json()["error_code"]) == (503, "TEMPORARILY_UNAVAILABLE")
    assert invoke(client, {"inputs": ["a"]}, "nothing").json()["error_code"] == "RESOURCE_DOES_NOT_EXIST"
