"""The routes of a server: the dialects, health, metrics, administration."""

from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from fullbake.serving.bodies import Body, read_body
from fullbake.serving.dialects.dialect import Dialect, endpoint, json_response
from fullbake.serving.dialects.native import NativeDialect
from fullbake.serving.door import Door, DoorRules
from fullbake.serving.metrics import CONTENT_TYPE, Metrics
from fullbake.serving.refusals import Refusal, unavailable
from fullbake.serving.service import Service, describe_model

_WORDS: Final = {404: "not_found", 405: "invalid", 413: "too_large"}


class ReloadBody(Body):
    """The body of /admin/reload."""

    model: str | None = None
    """Name of the model; the first one by default. Never a path."""


def build_app(service: Service, rules: DoorRules, metrics: Metrics | None = None) -> Starlette:
    """Return the ASGI app of a server.

    Args:
        service: The models. Until they are loaded, requests are answered with 503.
        rules: Who may come in.
        metrics: Where requests are counted.
    """
    metrics = Metrics() if metrics is None else metrics
    service.on_round = metrics.count_round
    native = NativeDialect(service, metrics)
    dialects: list[Dialect] = [native]
    owners = {route.path: dialect for dialect in dialects for route in dialect.routes()}

    def refuse(path: str, refusal: Refusal) -> Response:
        return owners.get(path, native).refuse(refusal)

    async def refuse_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        kind = _WORDS.get(error.status_code, "invalid")
        return refuse(request.url.path, Refusal(error.status_code, kind, f"{error.detail}.", error.headers or {}))

    routes = [route for dialect in dialects for route in dialect.routes()]
    routes += _own_routes(service, metrics, native)

    app = Starlette(
        routes=routes,
        exception_handlers={HTTPException: refuse_http},
    )
    app.state.body_bytes = service.limits.body_bytes  # Starlette's own limit answers in plain text
    paths = [route.path for route in routes]
    app.add_middleware(Door, rules=rules, metrics=metrics, refuse=refuse, routes=paths)
    return app


def _own_routes(service: Service, metrics: Metrics, native: NativeDialect) -> list[Route]:
    """Return the routes of health, metrics and administration."""

    async def live(_: Request) -> Response:
        return PlainTextResponse("")

    async def ready(_: Request) -> Response:
        if not service.ready:
            raise unavailable("The server is starting or stopping.")
        return PlainTextResponse("")

    async def show_metrics(_: Request) -> Response:
        for model in service.models.values():
            metrics.waiting.labels(model.name).set(model.batcher.waiting_tokens)
            metrics.rate.labels(model.name).set(model.batcher.rate)
        return Response(metrics.render(), media_type=CONTENT_TYPE)

    async def reload(request: Request) -> Response:
        body = await read_body(request, ReloadBody)
        model = await service.reload(service.model(body.model).name)
        return json_response({"reloaded": describe_model(model)})

    return [
        Route("/health", endpoint(native, ready), methods=["GET"]),
        Route("/v2/health/live", endpoint(native, live), methods=["GET"]),
        Route("/v2/health/ready", endpoint(native, ready), methods=["GET"]),
        Route("/ping", endpoint(native, ready), methods=["GET"]),
        Route("/metrics", endpoint(native, show_metrics), methods=["GET"]),
        Route("/admin/reload", endpoint(native, reload), methods=["POST"]),
    ]
