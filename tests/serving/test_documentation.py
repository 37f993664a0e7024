"""/openapi.json and /docs: valid, complete, without a network; and no path answers 500, whatever is sent."""

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from helpers.served_models import make_source, open_client
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from fullbake.serving import documentation
from fullbake.serving.keys import ApiKeys

HOSTILE_LABEL = "<script>alert(1)</script>"


KEY = {"authorization": "Bearer a-key-of-twenty-chars"}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    sources = [
        make_source("many", (HOSTILE_LABEL, "b"), many=True),
        make_source("name", ("a", "b")),
        make_source("pairs", ("a", "b"), pair=True),
    ]
    file = tmp_path_factory.mktemp("keys") / "keys"
    file.write_text(KEY["authorization"].removeprefix("Bearer "))
    with open_client(*sources, keys=ApiKeys(file)) as found:
        found.headers.update(KEY)
        yield found


@pytest.fixture(scope="module")
def document(client: TestClient) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/openapi.json").json()
    return found


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from references(one)


def test_document_has_all_that_openapi_asks_for(document):
    assert document["openapi"] == "3.1.0"
    assert {"title", "version"} <= document["info"].keys()
    operations = [one for by in document["paths"].values() for one in by.values()]
    ids = [one["operationId"] for one in operations]
    assert len(set(ids)) == len(ids)
    for reference in references(document):
        assert reference.removeprefix("#/components/schemas/") in document["components"]["schemas"]
    for path, by in document["paths"].items():
        for one in by.values():
            declared = [part["name"] for part in one.get("parameters", []) if part["in"] == "path"]
            assert declared == re.findall(r"\{(\w+)\}", path)
            assert one["responses"]["200"]["description"]
            assert one["tags"][0] in [tag["name"] for tag in document["tags"]]


def test_every_route_is_documented(client, document):
    routes = {
        (route.path.replace(":model}", "}"), method)
        for route in client.app.routes
        for method in route.methods - {"HEAD"}
    }
    documented = {(path, method.upper()) for path, by in document["paths"].items() for method in by}
    assert documented <= routes
    assert not {path for path, _ in routes - documented if not path.startswith(("/page", "/ui"))} - {"/"}


def test_fields_have_descriptions_and_examples_are_answered(client, document):
    for path, by in document["paths"].items():
        body = by.get("post", {}).get("requestBody", {}).get("content", {}).get("application/json")
        if body is None:
            continue
        fields = document["components"]["schemas"][body["schema"]["$ref"].rpartition("/")[2]]["properties"]
        assert all(field.get("description") for field in fields.values()), path
        if not path.startswith("/admin"):
            assert client.post(path.format(name="name"), json=body["example"]).status_code == 200, path


class Page(HTMLParser):
    """The tags of a page and what they refer to."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]


def test_page_needs_no_script_and_nothing_from_elsewhere(client, document):
    found = client.get("/docs")
    assert found.headers["content-type"].startswith("text/html")
    page = Page()
    page.feed(found.text)
    assert not {"script", "style", "img", "iframe"} & set(page.tags)
    assert {link for link in page.links if not link.startswith("#")} == {"page/docs.css", "openapi.json"}
    assert (Path(documentation.__file__).parent / "page/docs.css").is_file()
    for path in document["paths"]:
        assert path in found.text
    assert "http://testserver/predict" in found.text


def test_host_in_the_page_is_text():
    with open_client(make_source("one", ("a", "b")), hosts=frozenset("*")) as client:
        found = client.get("/docs", headers={"host": 'x"><script>alert(1)</script>'})
        assert "<script>" not in found.text


HOSTILE_TEXTS = [
    "\x00",
    "\u202etxt",
    "</script><script>alert(1)</script>",
    "\ufeff",
    "\udc80",
    "." * 300_000,
    " ",
    "\U0010ffff",
]
REQUESTS = {
    "/v1/predict": lambda text: {"texts": [text], "model": "many"},
    "/v1/explain": lambda text: {"text": text, "model": "many"},
    "/predict": lambda text: {"inputs": text},
    "/embed": lambda text: {"inputs": text},
    "/tokenize": lambda text: {"inputs": text},
    "/decode": lambda text: {"ids": [ord(text[0])]},
    "/classify": lambda text: {"input": text},
    "/v1/moderations": lambda text: {"input": text},
    "/v2/models/many/infer": lambda text: {
        "inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": [text]}]
    },
    "/invocations": lambda text: {"inputs": [text]},
}


@pytest.mark.parametrize("path", REQUESTS)
def test_hostile_texts_and_labels_are_data(client, path):
    """Each is answered in JSON; only half of a surrogate pair, which no text can hold, and what is too long are not."""
    for text in HOSTILE_TEXTS:
        found = client.post(path, content=json.dumps(REQUESTS[path](text)))
        refused = (text == "\udc80" and path != "/decode") or (
            len(text) > 200_000 and path in ("/v1/explain", "/tokenize")
        )
        assert (found.status_code in (413, 422, 400)) == refused, (text[:20], found.text)
        assert refused or found.status_code == 200, (text[:20], found.text)
        assert found.headers["content-type"] == "application/json"
        json.loads(found.content)


RAW = {'"@1e400"': "1e400", '"@deep"': "[" * 20_000 + "]" * 20_000, '"@digits"': "9" * 5_000, '"@nan"': "NaN"}
"""JSON that Python does not write."""

LEAVES = st.one_of(
    st.sampled_from([None, True, False, 0, -1, 2, 10**30, 0.5, "", "a", "left", "text", "\ud800", "\x00", "x" * 5_000]),
    st.sampled_from(["@1e400", "@deep", "@digits", "@nan", "BYTES", "scores"]),
    st.text(max_size=5),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=6,
)


def mutated(value: Any) -> st.SearchStrategy[Any]:
    """Return values like this one, in which some parts are something else."""
    whole: st.SearchStrategy[Any] = st.just(value)
    if isinstance(value, dict):
        parts = {key: mutated(one) for key, one in value.items()}
        whole = st.fixed_dictionaries(parts) | st.fixed_dictionaries({}, optional=parts | {"\ud800": VALUES})
    elif isinstance(value, list):
        whole = st.lists(st.one_of([mutated(one) for one in value]), max_size=3) if value else whole
    return st.one_of(whole, whole, VALUES)


FUZZED = [
    *("/v1/predict", "/v1/explain", "/predict", "/embed", "/tokenize", "/decode", "/classify", "/v1/moderations"),
    *("/v2/models/{name}/infer", "/invocations", "/admin/reload"),
]
HEADERS = st.dictionaries(
    st.sampled_from(["x-timeout", "content-type", "content-encoding", "inference-header-content-length", "accept"]),
    st.sampled_from(
        ["", "0", "-1", "2", "1e9", "nan", "gzip", "text/csv", "application/json; charset=latin-1", "\xff"]
    ),
    max_size=2,
)


def test_every_body_is_fuzzed(document):
    assert {path for path, by in document["paths"].items() if "post" in by} == {*FUZZED, "/v1/classify"}


@pytest.mark.parametrize("path", FUZZED)
def test_whatever_is_sent_is_answered_or_refused(client, document, path):
    content = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
    schema = document["components"]["schemas"][content["schema"]["$ref"].rpartition("/")[2]]
    errors = document["paths"][path]["post"]["responses"]["default"]["content"]["application/json"]["schema"]
    keys = document["components"]["schemas"][errors["$ref"].rpartition("/")[2]]["properties"].keys()
    full = dict.fromkeys(schema["properties"], VALUES)
    bodies = st.one_of(mutated(content["example"]), st.fixed_dictionaries({}, optional=full), VALUES)

    @settings(max_examples=50, deadline=None, database=None)
    @given(bodies, st.sampled_from(["name", "many", "pairs", "none", "%ed%a0%80", "a%2Fb"]), st.just({}) | HEADERS)
    def answered(body: Any, model: str, headers: dict[str, str]) -> None:
        text = json.dumps(body)
        for mark, raw in RAW.items():
            text = text.replace(mark, raw)
        query = "" if "{name}" in path else f"?model={model}"
        raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        found = client.post(path.format(name=model) + query, content=text.encode(), headers=raw)
        assert found.status_code in (200, 400, 404, 413, 415, 422) or "has no vectors" in found.text, found.text
        assert "The server failed" not in found.text  # TEI's status of that is 424
        if found.status_code != 200:
            assert found.json().keys() == keys

    answered()
