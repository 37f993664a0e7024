"""Spans of requests for OpenTelemetry, where it is installed and its environment variables ask for them.

There is nothing else to set: OTEL_TRACES_EXPORTER and OTEL_EXPORTER_OTLP_ENDPOINT say where spans go, OTEL_SERVICE_NAME
who sends them, OTEL_TRACES_SAMPLER how many, OTEL_PROPAGATORS how a caller names its trace. A server that was started
by `opentelemetry-instrument` uses what that has set up.
"""

import os
from importlib import metadata
from typing import TYPE_CHECKING, Any, Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fullbake import __version__
from fullbake.core.console import warn
from fullbake.core.errors import RecipeError

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

_ASKED_BY: Final = ("OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_INSTALL: Final = "pip install opentelemetry-sdk opentelemetry-exporter-otlp-proto-http"
_METHODS: Final = frozenset(("GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "TRACE", "CONNECT"))


def open_tracer() -> "Tracer | None":
    """Return what makes spans; None if OpenTelemetry is not installed, or nobody asks for spans.

    Raises:
        RecipeError: The exporter that is asked for is not installed.
    """
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    asked = next((name for name in _ASKED_BY if os.environ.get(name) not in (None, "", "none")), None)
    if os.environ.get("OTEL_TRACES_EXPORTER") == "none":
        asked = None
    try:
        from opentelemetry import trace
    except ImportError:
        if asked is not None:
            warn(f"{asked} is set, and OpenTelemetry is not installed: {_INSTALL}")
        return None
    provider = trace.get_tracer_provider()
    if isinstance(provider, trace.ProxyTracerProvider):
        if asked is None:
            return None
        provider = _make_provider(asked)
    return provider.get_tracer("fullbake.serving", __version__)


def _make_provider(asked: str) -> Any:
    """Return a provider as the environment describes it. It sends what is left when the process ends."""
    try:
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise RecipeError("OpenTelemetry's SDK is not installed", where=asked, remedy=f"{_INSTALL}.") from error
    provider = TracerProvider()
    for name in os.environ.get("OTEL_TRACES_EXPORTER", "otlp").split(","):
        provider.add_span_processor(BatchSpanProcessor(_find_exporter(name.strip(), asked)()))
    return provider


def _find_exporter(name: str, asked: str) -> Any:
    """Return the class of an exporter by the name that it has in OTEL_TRACES_EXPORTER."""
    names = [name]
    if name == "otlp":
        protocol = next((os.environ[key] for key in _PROTOCOLS if os.environ.get(key)), None)
        names = {"grpc": ["otlp_proto_grpc"], None: ["otlp_proto_http", "otlp_proto_grpc"]}.get(
            protocol, ["otlp_proto_http"]
        )
    for one in names:
        for found in metadata.entry_points(group="opentelemetry_traces_exporter", name=one):
            return found.load()
    raise RecipeError("there is no such exporter of spans", where=asked, got=name, remedy=f"{_INSTALL}.")


class Tracing:
    """An ASGI middleware that makes a span of each request, within the trace that the caller names.

    Args:
        app: What answers.
        tracer: As `open_tracer` gives it.
    """

    def __init__(self, app: ASGIApp, tracer: "Tracer") -> None:
        self._app, self._tracer = app, tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request within a span."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        from opentelemetry.propagate import extract
        from opentelemetry.trace import SpanKind, format_trace_id

        method = scope["method"] if scope["method"] in _METHODS else "_OTHER"
        facts = {"http.request.method": method, "url.path": scope["path"], "url.scheme": scope["scheme"]}
        with self._tracer.start_as_current_span(
            method, extract(dict(Headers(scope=scope))), SpanKind.SERVER, facts, record_exception=False
        ) as span:
            scope.setdefault("state", {})["trace"] = format_trace_id(span.get_span_context().trace_id)

            async def send_and_note(message: Message) -> None:
                if message["type"] == "http.response.start":
                    _describe(span, method, scope, message["status"])
                await send(message)

            await self._app(scope, receive, send_and_note)


def _describe(span: "Span", method: str, scope: Scope, status: int) -> None:
    """Say in a span how a request was answered. It has no text of the request."""
    from opentelemetry.trace import StatusCode

    route = getattr(scope.get("route"), "path", None)
    if route is not None:
        span.update_name(f"{method} {route.replace(':model}', '}')}")
        span.set_attribute("http.route", route.replace(":model}", "}"))
    span.set_attribute("http.response.status_code", status)
    if status >= 500:
        span.set_status(StatusCode.ERROR)
    entry = scope["state"].get("log", {})
    for name in ("model", "texts", "tokens"):
        if name in entry:
            span.set_attribute(f"fullbake.{name}", entry[name])
