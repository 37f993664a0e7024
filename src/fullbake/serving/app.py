"""The routes of a server: the dialects, metrics, administration, documentation."""

import functools
import re
from typing import TYPE_CHECKING, Any, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from typing_extensions import TypedDict

from fullbake.serving.bodies import Body, read_body
from fullbake.serving.dialects.dialect import Operation, ServerDialect, json_response, owned_path, route_of
from fullbake.serving.dialects.embeddings_inference import EmbeddingsInferenceDialect
from fullbake.serving.dialects.mlflow import MlflowDialect
from fullbake.serving.dialects.moderation import ModerationDialect
from fullbake.serving.dialects.native import NativeDialect
from fullbake.serving.dialects.open_inference import OpenInferenceDialect
from fullbake.serving.dialects.vllm import VllmDialect
from fullbake.serving.documentation import ApiSection, describe_api, render_documentation
from fullbake.serving.door import Door, DoorRules
from fullbake.serving.metrics import CONTENT_TYPE, Metrics
from fullbake.serving.page_routes import page_routes
from fullbake.serving.refusals import Refusal
from fullbake.serving.service import Service, describe_model
from fullbake.serving.tracing import Tracing

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

_KINDS: Final = {404: "not_found", 405: "invalid", 413: "too_large"}


class ReloadBody(Body):
    """The body of /admin/reload."""

    model: str | None = None
    """Name of the model; the first one by default. Never a path."""


class ReloadAnswer(TypedDict):
    """The answer of /admin/reload."""

    reloaded: dict[str, Any]


def build_app(
    service: Service, rules: DoorRules, metrics: Metrics | None = None, tracer: "Tracer | None" = None
) -> Starlette:
    """Return the ASGI app of a server.

    Args:
        service: The models. Until they are loaded, requests are answered with 503.
        rules: Who may come in.
        metrics: Where requests are counted.
        tracer: Makes a span of each request; None makes none.
    """
    metrics = Metrics() if metrics is None else metrics
    service.on_round = metrics.count_round
    native = NativeDialect(service, metrics)
    dialects: list[ServerDialect] = [
        native,
        EmbeddingsInferenceDialect(service, metrics),
        VllmDialect(service, metrics),
        ModerationDialect(service, metrics),
        OpenInferenceDialect(service, metrics),
        MlflowDialect(service, metrics),
    ]
    sections = [ApiSection(dialect.title, dialect, dialect.operations()) for dialect in dialects]
    sections.append(ApiSection("Server", native, _own_operations(service, metrics)))
    sections[-1:] = [ApiSection("Server", native, [*sections[-1].operations, *_documents(sections)])]
    routes = [route_of(section.dialect, operation) for section in sections for operation in section.operations]
    routes += page_routes()
    owners = {owned_path(operation): section.dialect for section in sections for operation in section.operations}
    owners |= {path: dialect for dialect in dialects for path in dialect.impossible}
    impossible = {path: words for dialect in dialects for path, words in dialect.impossible.items()}

    def refuse(path: str, refusal: Refusal) -> Response:
        return owner_of(path, owners, native).refuse(refusal)

    async def refuse_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        path = request.url.path
        words = impossible.get(path) if error.status_code == 404 else None
        return refuse(path, _refusal_of(request, error) if words is None else Refusal(404, "impossible", words))

    app = Starlette(
        routes=routes,
        exception_handlers={HTTPException: refuse_http},
    )
    app.router.redirect_slashes = False  # a redirect is no answer in the shape of a dialect
    app.state.metrics = metrics
    app.state.large_bodies = 0
    app.state.body_bytes = service.limits.body_bytes  # Starlette's own limit answers in plain text
    app.state.most_values = max(limits.values for limits in service.all_limits())
    paths = [route.path for route in routes]
    app.add_middleware(Door, rules=rules, metrics=metrics, refuse=refuse, routes=paths)
    if tracer is not None:
        app.add_middleware(Tracing, tracer=tracer)
    return app


def _refusal_of(request: Request, error: HTTPException) -> Refusal:
    """Return what Starlette refuses, such as a path without a route, in our words."""
    status, path = error.status_code, repr(request.url.path[:80])
    allowed = " or ".join(sorted({*(error.headers or {}).get("Allow", "").split(", ")} - {"HEAD"}))
    texts = {
        404: f"There is nothing at {path}." + (" Leave out the / at its end." if path.endswith("/'") else ""),
        405: f"{request.method} is not possible at {path}, {allowed} is.",
    }
    text = texts.get(status, f"{error.detail}.")
    return Refusal(status, _KINDS.get(status, "invalid"), text, error.headers or {})


def owner_of(path: str, owners: dict[str, ServerDialect], default: ServerDialect) -> ServerDialect:
    """Return the dialect whose errors a path has: that of the path itself, or of the nearest path above it.

    Args:
        path: Of a request, served or not.
        owners: Dialects by the paths that they serve.
        default: The dialect of a path that is below none of them.
    """
    path = re.sub("//+", "/", path)
    while path not in owners:
        path = path.rpartition("/")[0]
        if not path:
            return default
    return owners[path]


def _own_operations(service: Service, metrics: Metrics) -> list[Operation]:
    """Return metrics and administration."""

    async def show_metrics(_: Request) -> Response:
        for model in service.models.values():
            metrics.waiting.labels(model.name).set(model.batcher.waiting_tokens)
            metrics.rate.labels(model.name).set(model.batcher.rate)
        return Response(metrics.render(), media_type=CONTENT_TYPE)

    async def reload(request: Request) -> Response:
        body = await read_body(request, ReloadBody)
        model = await service.reload(service.model(body.model).name)
        return json_response(ReloadAnswer(reloaded=describe_model(model)))

    return [
        Operation("GET", "/metrics", show_metrics, "Metrics in the text format of Prometheus."),
        Operation(
            "POST",
            "/admin/reload",
            reload,
            "Load a bundle again, and serve it from then on. It needs a key.",
            request=ReloadBody,
            response=ReloadAnswer,
            example={},
        ),
    ]


def _documents(sections: list[ApiSection]) -> list[Operation]:
    """Return the documentation of the sections. It is written when it is asked for first."""

    @functools.cache
    def document() -> dict[str, Any]:
        return describe_api(sections)

    async def show_json(_: Request) -> Response:
        return json_response(document())

    async def show_page(request: Request) -> Response:
        address = f"{request.url.scheme}://{request.url.netloc}"
        return HTMLResponse(render_documentation(document(), address))

    return [
        Operation("GET", "/openapi.json", show_json, "This interface as an OpenAPI document.", response=dict[str, Any]),
        Operation("GET", "/docs", show_page, "This interface as a page."),
    ]
