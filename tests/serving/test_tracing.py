"""Spans: one for each request, in the caller's trace, only where the environment asks for them."""

import builtins
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from helpers.served_models import make_source
from starlette.testclient import TestClient

from fullbake.core.errors import RecipeError
from fullbake.serving import tracing
from fullbake.serving.app import build_app
from fullbake.serving.door import DoorRules
from fullbake.serving.service import Service
from fullbake.serving.tracing import open_tracer

trace = pytest.importorskip("opentelemetry.sdk.trace")
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture
def spans() -> Any:
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    return InMemorySpanExporter()


@pytest.fixture
def client(spans: Any) -> Iterator[TestClient]:
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    provider = trace.TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(spans))
    service = Service([make_source("org/topics", ("a", "b"))])
    app = build_app(service, DoorRules(frozenset("*")), tracer=provider.get_tracer("test"))
    with TestClient(app, raise_server_exceptions=False) as found:
        assert found.portal is not None
        found.portal.call(service.start)
        yield found


def test_span_continues_the_callers_trace_and_has_no_text(client, spans, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="fullbake.serving")
    client.post("/v1/predict", json={"texts": ["secret"]}, headers={"traceparent": f"00-{TRACE}-{PARENT}-01"})
    (span,) = spans.get_finished_spans()
    assert (span.name, span.kind.name) == ("POST /v1/predict", "SERVER")
    assert (f"{span.context.trace_id:032x}", f"{span.parent.span_id:016x}") == (TRACE, PARENT)
    wanted = {"http.route": "/v1/predict", "http.response.status_code": 200, "fullbake.model": "org/topics"}
    assert wanted.items() <= span.attributes.items()
    assert "secret" not in span.to_json()
    assert json.loads(caplog.records[-1].message)["trace"] == TRACE


@pytest.mark.parametrize("parent", ["", "00-0-0-00", "00-" + "f" * 5_000, "\x00"])
def test_wrong_parent_begins_a_trace_of_its_own(client, spans, parent: str) -> None:
    assert client.get("/v2/models/org/topics", headers={"traceparent": parent}).status_code == 200
    (span,) = spans.get_finished_spans()
    assert (span.name, span.parent) == ("GET /v2/models/{name}", None)


def test_failure_is_an_error_and_a_refusal_is_not(client, spans, monkeypatch: pytest.MonkeyPatch) -> None:
    client.get("/nothing")
    monkeypatch.setattr("fullbake.serving.scorer.TextScorer.answers", lambda self, parts: 1 / 0)
    client.request("PROPFIND", "/v1/predict")
    client.post("/v1/predict", json={"texts": ["a"]})
    found = [(span.name, span.status.status_code.name) for span in spans.get_finished_spans()]
    assert found == [("GET", "UNSET"), ("_OTHER /v1/predict", "UNSET"), ("POST /v1/predict", "ERROR")]


def test_nothing_is_traced_unless_the_environment_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_SDK_DISABLED"):
        monkeypatch.delenv(name, raising=False)
    assert open_tracer() is None
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    assert open_tracer() is None
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert open_tracer() is None


def test_exporter_comes_from_the_environment(spans, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tracing._find_exporter("console", "").__name__ == "ConsoleSpanExporter"
    asked: list[str] = []
    monkeypatch.setattr(tracing, "_find_exporter", lambda name, _: asked.append(name) or (lambda: spans))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "mine")
    tracer = open_tracer()
    assert tracer is not None
    with tracer.start_as_current_span("hello"):
        pass
    tracer.span_processor.shutdown()
    (span,) = spans.get_finished_spans()
    assert (span.name, span.resource.attributes["service.name"], asked) == ("hello", "mine", ["otlp"])


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "nonsense")
    with pytest.raises(RecipeError, match="no such exporter"):
        open_tracer()
    imported = builtins.__import__

    def without(name: str, *words: Any, **named: Any) -> Any:
        if name.startswith("opentelemetry"):
            raise ImportError(name)
        return imported(name, *words, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    assert open_tracer() is None
    assert "pip install opentelemetry-sdk" in caplog.text
