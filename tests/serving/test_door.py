"""Who may come in, what a response carries, and what the log says."""

import json
import logging
from pathlib import Path

import pytest
from helpers.served_models import make_source, open_client

from fullbake.serving.keys import ApiKeys

KEY = "a-key-of-twenty-chars"
SECRET = "a text that nobody may read"


@pytest.fixture
def keys(tmp_path: Path) -> ApiKeys:
    (tmp_path / "keys").write_text(f"{KEY}\n{KEY[::-1]}")
    return ApiKeys(tmp_path / "keys")


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "testserver.evil", "[::2]:1", ""])
def test_foreign_host_is_refused(clients, host: str):
    found = clients().post("/v1/predict", json={"texts": ["a"]}, headers={"host": host})
    assert found.status_code == 421
    assert "--allow-host" in found.json()["error"]["message"]


@pytest.mark.parametrize("host", ["TestServer", "testserver:8000"])
def test_own_host_is_taken_in_any_case_and_with_a_port(clients, host: str):
    assert clients().get("/v1/models", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    ("target", "status", "path"),
    [
        (b"http://testserver/v1/models", 200, "/v1/models"),
        (b"HTTP://testserver:8000", 200, "/"),
        (b"http://evil.example/v1/models", 421, "/v1/models"),
        (b"http://testserver/v1%2Fmodels%20", 404, "/v1/models "),
    ],
)
def test_target_as_for_a_proxy_is_read_with_its_own_host(clients, target: bytes, status: int, path: str):
    """The host in the target counts, not that of the header (RFC 9112, 3.2.2)."""
    headers = [(b"host", b"testserver" if status == 421 else b"evil.example")]
    scope = {"type": "http", "method": "GET", "raw_path": target, "path": target.decode(), "headers": headers}
    scope |= {"http_version": "1.1", "scheme": "http", "query_string": b"", "server": None, "client": None}
    sent: list[dict] = []

    async def send(message: dict) -> None:
        sent.append(message)

    client = clients()
    client.portal.call(client.app, scope, None, send)
    assert (sent[0]["status"], scope["path"]) == (status, path)


def test_body_of_two_lengths_is_refused_and_its_connection_closed(clients):
    """A proxy that reads the other length would see the rest as a request of its own."""
    headers = {"transfer-encoding": "chunked", "content-length": "15"}
    found = clients().post("/predict", content=b'{"inputs": "a"}', headers=headers)
    assert (found.status_code, found.headers["connection"]) == (400, "close")
    assert list(found.json()) == ["error", "error_type"]


def test_supervisor_asks_by_address(clients):
    assert clients().get("/health", headers={"host": "10.0.0.7"}).status_code == 200


@pytest.mark.parametrize("headers", [{"authorization": f"Bearer {KEY}"}, {"x-api-key": KEY[::-1]}])
def test_key_opens(clients, keys: ApiKeys, headers: dict[str, str]):
    assert clients(keys=keys).post("/v1/predict", json={"texts": ["a"]}, headers=headers).status_code == 200


@pytest.mark.parametrize("headers", [{}, {"authorization": f"Basic {KEY}"}, {"x-api-key": "x" * 20}])
def test_without_a_key_all_but_health_is_closed(clients, keys: ApiKeys, headers: dict[str, str]):
    client = clients(keys=keys)
    for path in ("/v1/predict", "/v1/models", "/metrics", "/nothing", "/admin/reload", "/adminx"):
        found = client.post(path, json={"texts": ["a"]}, headers=headers)
        assert (found.status_code, found.headers["www-authenticate"]) == (401, "Bearer")
    assert client.get("/health").status_code == 200


def test_page_elsewhere_may_call_only_if_its_origin_is_allowed(clients):
    ask = {"access-control-request-method": "POST"}
    client = clients(origins=frozenset(("https://good.example",)))
    found = client.options("/v1/predict", headers={"origin": "https://good.example", **ask})
    assert (found.status_code, found.headers["access-control-allow-origin"]) == (204, "https://good.example")
    found = client.options("/v1/predict", headers={"origin": "https://bad.example", **ask})
    assert found.status_code == 405
    for origin in ("https://bad.example", "null"):
        found = client.post("/v1/predict", json={"texts": ["a"]}, headers={"origin": origin})
        assert "access-control-allow-origin" not in found.headers


def test_request_id_is_kept_if_it_is_harmless(clients):
    client = clients()
    assert client.get("/health", headers={"x-request-id": "abc-1"}).headers["x-request-id"] == "abc-1"
    made = client.get("/health", headers={"x-request-id": 'a"b{}'}).headers["x-request-id"]
    assert len(made) == 32


def test_log_has_a_json_line_for_each_request_and_no_text(clients, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, logger="fullbake.serving")
    client = clients()
    client.post("/v1/predict", json={"texts": [SECRET]}, headers={"x-request-id": "r1"})
    client.post("/v1/predict", content=SECRET)
    client.post("/v1/predict", json={"texts": [{"text": SECRET}]})
    client.post("/v1/predict", json={"texts": [SECRET], SECRET: 1})
    lines = [json.loads(record.message) for record in caplog.records if record.name == "fullbake.serving"]
    assert [line["status"] for line in lines] == [200, 400, 422, 422]
    assert {"request": "r1", "route": "/v1/predict", "model": "m0", "texts": 1}.items() <= lines[0].items()
    assert SECRET not in caplog.text


def test_log_has_the_texts_if_the_server_is_told_so(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, logger="fullbake.serving")
    sources = make_source("topics", ("a", "b")), make_source("pairs", ("a", "b"), pair=True)
    with open_client(*sources) as client:
        client.service.log_texts = True
        client.post("/v1/predict", json={"texts": [SECRET, "x" * 5_000 + "\u202e"]})
        client.post("/embed", json={"inputs": SECRET})
        client.post("/v1/predict", json={"model": "pairs", "rows": [{"text": SECRET, "other": "\x00"}]})
        client.post("/v1/explain", json={"model": "topics", "text": "a b c d"})
    lines = [json.loads(record.message) for record in caplog.records if record.name == "fullbake.serving"]
    assert [line["read"] for line in lines] == [[SECRET, "x" * 1_000], [SECRET], [SECRET], ["a b c d"]]
    assert [line.get("read_pair") for line in lines] == [None, None, ["\x00"], None]
