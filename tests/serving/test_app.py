"""The routes: health, metrics, administration, and refusals of what is no route."""

import re
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from fullbake.serving.app import build_app
from fullbake.serving.door import DoorRules
from fullbake.serving.keys import ApiKeys
from fullbake.serving.limits import Limits
from fullbake.serving.service import Service

DOCS = Path(__file__).parents[2] / "docs"
KEY = "a-key-of-twenty-chars"


def test_server_is_ready_once_its_models_are_loaded(served):
    service = Service([served()])
    with TestClient(build_app(service, DoorRules(frozenset("*")))) as client:
        assert client.get("/v2/health/live").status_code == 200
        for path in ("/health", "/ping", "/v2/health/ready"):
            assert client.get(path).status_code == 503
        answer = client.post("/v1/predict", json={"texts": ["a"]})
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        client.portal.call(service.start)
        assert {client.get(path).status_code for path in ("/health", "/ping", "/v2/health/ready")} == {200}
        client.portal.call(service.drain)
        assert client.get("/health").status_code == 503
        assert client.get("/v2/health/live").status_code == 200
        assert "stopping" in client.post("/v1/predict", json={"texts": ["a"]}).json()["error"]["message"]


def test_unknown_route_and_method_are_refused_in_json(clients):
    client = clients()
    found = client.get("/nothing")
    assert (found.status_code, found.json()["error"]["kind"]) == (404, "not_found")
    found = client.get("/v1/predict")
    assert (found.status_code, found.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize(
    ("path", "status", "keys"),
    [
        ("/rerank", 424, ["error", "error_type"]),
        ("/similarity", 424, ["error", "error_type"]),
        ("/v1/embeddings", 404, ["error"]),
        ("/v1/chat/completions", 404, ["error"]),
        ("/v2/repository/index", 404, ["error"]),
    ],
)
def test_what_a_classifier_cannot_do_is_refused_with_what_it_can(clients, path: str, status: int, keys: list[str]):
    found = clients().post(path, json={})
    assert (found.status_code, list(found.json())) == (status, keys)
    assert "POST /" in found.text or path.startswith("/v2")


@pytest.mark.parametrize("method", ["GET", "DELETE", "OPTIONS", "PROPFIND"])
def test_wrong_method_has_the_shape_of_the_dialect(clients, method: str):
    client = clients()
    keys = {}
    for path in ("/v1/predict", "/predict", "/classify", "/v1/moderations", "/v2/models/m0/infer", "/invocations"):
        found = client.request(method, path)
        assert (found.status_code, found.headers["allow"]) == (405, "POST")
        keys[path] = sorted(found.json())
    assert keys["/predict"] == ["error", "error_type"]
    assert keys["/invocations"] == ["error_code", "message"]
    assert client.head("/v1/predict").status_code == 405
    assert (client.head("/v1/models").status_code, client.head("/v1/models").content) == (200, b"")


def test_path_with_slashes_too_many_is_refused_by_its_dialect(clients):
    client = clients()
    assert list(client.post("http://testserver//predict").json()) == ["error", "error_type"]
    assert list(client.post("/v2//models/m0/infer").json()) == ["error"]


@pytest.mark.parametrize("path", ["/v1/predict/", "/predict/", "/invocations/", "/v2/health/ready/"])
def test_path_with_a_slash_at_its_end_is_refused_in_the_shape_of_its_dialect(clients, path: str):
    found = clients().post(path, json={}, follow_redirects=False)
    assert found.status_code == 404
    assert "Leave out the / at its end" in str(found.json())


def test_large_body_is_refused(clients):
    client = clients(limits=Limits(body_bytes=100))
    found = client.post("/v1/predict", json={"texts": ["a" * 200]})
    assert found.status_code == 413
    assert "--max-body" in found.json()["error"]["message"]
    found = client.post("/v1/predict", content=(b"x" * 60 for _ in range(3)))  # without a length
    assert found.status_code == 413


def test_metrics_count_requests_texts_and_labels(clients):
    client = clients()
    client.post("/v1/predict", json={"texts": ["the cook", "the bank"]})
    client.get("/wp-admin.php")
    found = client.get("/metrics")
    assert found.headers["content-type"].startswith("text/plain")
    lines = found.text.splitlines()
    assert 'fullbake_texts_total{model="m0"} 2.0' in lines
    assert 'fullbake_requests_total{route="/v1/predict",status="200"} 1.0' in lines
    assert 'fullbake_requests_total{route="other",status="404"} 1.0' in lines
    assert sum(float(line.split()[-1]) for line in lines if line.startswith("fullbake_labels_total{")) == 2
    assert 'fullbake_queue_tokens{model="m0"} 0.0' in lines


def test_reload_needs_a_key_and_a_name_and_takes_no_path(clients, tmp_path: Path):
    (tmp_path / "keys").write_text(KEY)
    client = clients(keys=ApiKeys(tmp_path / "keys"))
    bearer = {"authorization": f"Bearer {KEY}"}
    assert client.post("/admin/reload", json={}).status_code == 401
    assert client.post("/admin/reload", json={"model": "/etc"}, headers=bearer).status_code == 404
    assert client.post("/admin/reload", json={"folder": "/etc"}, headers=bearer).status_code == 422
    assert client.post("/admin/reload", json={}, headers=bearer).json()["reloaded"]["name"] == "m0"
    assert clients().post("/admin/reload", json={}, headers=bearer).status_code == 403


@pytest.mark.parametrize("path", ["/v1/models", "/metrics"])
def test_responses_carry_what_a_browser_needs_to_be_safe(clients, path: str):
    headers = clients().get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert "script" not in headers["content-security-policy"]
    assert "default-src 'self'" in headers["content-security-policy"]


def documented_requests() -> list[tuple[str, str]]:
    """Return path and body of each curl command in the pages on serving."""
    pages = [DOCS / "how-to" / "serve.md", DOCS / "reference" / "serving.md"]
    lines = [line for page in pages for line in page.read_text("utf-8").splitlines() if line.startswith("curl ")]
    return [found.groups() for line in lines if (found := re.search(r":8000(/\S+) .*-d '(.*?)'", line))]


@pytest.mark.parametrize(("path", "body"), documented_requests())
def test_requests_of_the_docs_are_answered(clients, path: str, body: str):
    client = clients("bundle_0_1_0_multilabel" if "moderations" in path else "bundle_0_1_0")
    found = client.post(path.replace("/m/", "/m0/"), content=body.replace("praise", "food"))
    assert found.status_code == 200, found.text
    if path == "/v1/predict":
        assert list(found.json()) == ["model", "results", "decision", "timing"]
