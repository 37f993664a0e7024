"""/v1/predict and /v1/models."""

import numpy as np
import pytest

from fullbake import Classifier

TEXTS = ["the cook", "money in the bank"]


def test_scores_and_labels_are_those_of_the_library(clients, served):
    found = clients().post("/v1/predict", json={"texts": TEXTS}).json()
    classifier: Classifier = served().load()
    assert [result["label"] for result in found["results"]] == list(classifier.predict(TEXTS))
    scores = [[result["scores"][name] for name in classifier.label_names] for result in found["results"]]
    np.testing.assert_allclose(scores, classifier.predict_proba(TEXTS), atol=1e-5)
    assert found["model"] == "m0"
    assert found["decision"] is None
    assert found["timing"]["tokens"] > 0


def test_top_k_gives_the_highest_scores_first(clients):
    (result,) = clients().post("/v1/predict", json={"texts": TEXTS[:1], "top_k": 2}).json()["results"]
    scores = list(result["scores"].items())
    assert len(scores) == 2
    assert scores[0][0] == result["label"]
    assert scores[0][1] >= scores[1][1]


def test_labels_only_gives_no_scores(clients):
    found = clients().post("/v1/predict", json={"texts": TEXTS, "labels_only": True}).json()["results"]
    assert all(list(result) == ["label"] for result in found)


def test_rows_have_the_columns_of_training(clients):
    client = clients()
    rows = [{"text": text, "id": 7} for text in TEXTS]
    by_rows = client.post("/v1/predict", json={"rows": rows}).json()["results"]
    assert by_rows == client.post("/v1/predict", json={"texts": TEXTS}).json()["results"]
    found = client.post("/v1/predict", json={"rows": [{"Text": "a"}]})
    assert "Row 1: a text is expected in 'text'; got no such column" in found.json()["error"]["message"]
    found = client.post("/v1/predict", json={"rows": [{"text": None}]})
    assert "got null" in found.json()["error"]["message"]


@pytest.mark.parametrize(
    "body", [{}, {"texts": TEXTS, "rows": []}, {"texts": []}, {"rows": []}, {"texts": TEXTS, "top_k": 0}]
)
def test_body_without_clear_texts_is_refused(clients, body):
    assert clients().post("/v1/predict", json=body).status_code == 422


def test_multilabel_gives_all_labels_and_their_thresholds(clients):
    client = clients("bundle_0_1_0", "bundle_0_1_0_multilabel")
    found = client.post("/v1/predict", json={"texts": TEXTS, "model": "m1"}).json()
    assert all(isinstance(result["labels"], list) for result in found["results"])
    names = {model["name"]: model for model in client.get("/v1/models").json()["models"]}
    assert names["m1"]["problem"] == "multi_label_classification"
    assert found["decision"] == names["m1"]["decision"]
    assert client.post("/v1/predict", json={"texts": TEXTS, "model": "m2"}).status_code == 404
