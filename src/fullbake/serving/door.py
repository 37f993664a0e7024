"""Who may come in: the Host header, API keys, origins; and what every response carries and every log line says.

A plain ASGI middleware around all routes. Paths that tell a supervisor that the server lives are open to all.
"""

import json
import logging
import re
import time
import uuid
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fullbake.serving.keys import ApiKeys
from fullbake.serving.metrics import Metrics
from fullbake.serving.refusals import Refusal

request_log = logging.getLogger("fullbake.serving")

OPEN_PATHS: Final = frozenset(("/health", "/ping", "/v2/health/live", "/v2/health/ready"))
"""Answered without a key, and under any Host: supervisors ask by address. They tell nothing but alive and ready."""

_ABSOLUTE_FORM: Final = re.compile(rb"https?://([^/?#]*)(/.*)?", re.IGNORECASE)
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_SECURITY_HEADERS: Final = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "content-security-policy": "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
}

RefusalResponse = Callable[[str, Refusal], Response]
"""The path of a request and its refusal -> the response, in the shape of the errors that clients of the path expect."""


@dataclass(frozen=True)
class DoorRules:
    """Who may come in."""

    hosts: frozenset[str]
    """Names that a Host header may give, in lower case; `*` for any."""

    keys: ApiKeys | None = None
    """None: requests need no key, and /admin is closed."""

    open_paths: frozenset[str] = OPEN_PATHS
    page_paths: tuple[str, ...] = ("/", "/page/", "/docs", "/openapi.json")
    """Open too: they hold no data. A path that ends in / stands for all below it."""

    origins: frozenset[str] = frozenset()
    """Origins of pages in a browser that may call this server."""


class Door:
    """The middleware.

    Args:
        app: The routes.
        rules: Who may come in.
        metrics: Where requests are counted.
        refuse: Makes the response of a refusal.
        routes: Paths that are counted by their own name; others are counted as `other`, so that a scanner does not
            fill the memory with names.
    """

    def __init__(
        self, app: ASGIApp, rules: DoorRules, metrics: Metrics, refuse: RefusalResponse, routes: Collection[str]
    ) -> None:
        self._app, self._rules, self._metrics, self._refuse = app, rules, metrics, refuse
        self._routes = frozenset(routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in or refuse it, and note how it ended."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        _use_origin_form(scope)
        headers, started, status = Headers(scope=scope), time.perf_counter(), 0
        given = headers.get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        origin = headers.get("origin")

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = MutableHeaders(scope=message)
                own["x-request-id"] = request_id
                for name, value in _SECURITY_HEADERS.items():
                    own.setdefault(name, value)
                if origin in self._rules.origins:
                    own["access-control-allow-origin"] = str(origin)
                    own.add_vary_header("Origin")
            await send(message)

        app = self._app
        try:
            preflight = self._check(scope, headers)
            app = app if preflight is None else preflight
        except Refusal as refusal:
            app = self._refuse(scope["path"], refusal)
        try:
            await app(scope, receive, send_with_headers)
        finally:
            self._note(scope, status, time.perf_counter() - started, request_id)

    def _check(self, scope: Scope, headers: Headers) -> Response | None:
        """Raise Refusal if a request may not come in. Return the answer to a browser that asks before it sends."""
        path = scope["path"]
        if "transfer-encoding" in headers and "content-length" in headers:  # a proxy may read it as two requests
            end = {"connection": "close"}
            raise Refusal(400, "invalid", "A body has Transfer-Encoding or Content-Length, not both.", end)
        if path not in self._rules.open_paths:
            self._check_host(headers.get("host", ""))
        origin = headers.get("origin")
        if scope["method"] == "OPTIONS" and origin in self._rules.origins:
            allowed = {
                "access-control-allow-methods": "GET, POST",
                "access-control-allow-headers": "authorization, content-type, x-api-key, x-request-id, x-timeout",
                "access-control-max-age": "600",
            }
            return Response(status_code=204, headers=allowed)
        if path.startswith("/admin"):
            self._check_key(headers, required=True)
        elif not self._is_open(path):
            self._check_key(headers, required=False)
        return None

    def _is_open(self, path: str) -> bool:
        return path in self._rules.open_paths or any(
            path == page or (page.endswith("/") and page != "/" and path.startswith(page))
            for page in self._rules.page_paths
        )

    def _check_host(self, host: str) -> None:
        if not host.strip() and "*" not in self._rules.hosts:
            raise Refusal(421, "forbidden", "The request has no Host header. Send one, or start with --allow-host '*'.")
        name = _host_name(host)
        if "*" not in self._rules.hosts and name not in self._rules.hosts:
            raise Refusal(
                421, "forbidden", f"The Host {name[:80]!r} is not served here. Allow it by --allow-host {name[:80]}."
            )

    def _check_key(self, headers: Headers, *, required: bool) -> None:
        keys = self._rules.keys
        if keys is None:
            if required:
                raise Refusal(403, "forbidden", "/admin needs an API key, and this server has none (--api-key-file).")
            return
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        key = bearer.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        if not keys.accept(key):
            what = "The API key is wrong." if key else "An API key is needed: the header `Authorization: Bearer KEY`."
            raise Refusal(401, "unauthorized", what, {"www-authenticate": "Bearer"})

    def _note(self, scope: Scope, status: int, seconds: float, request_id: str) -> None:
        path = scope["path"]
        route = path if path in self._routes else getattr(scope.get("route"), "path", "other").replace(":model}", "}")
        self._metrics.requests.labels(route, str(status)).inc()
        self._metrics.seconds.labels(route).observe(seconds)
        if request_log.isEnabledFor(logging.INFO):
            state = scope["state"]
            line = {
                "request": request_id,
                "method": scope["method"],
                "route": route,
                "status": status,
                "ms": round(1000 * seconds, 1),
                **({"trace": state["trace"]} if "trace" in state else {}),
                **state.get("log", {}),
            }
            request_log.info(json.dumps(line, ensure_ascii=True))


def _use_origin_form(scope: Scope) -> None:
    """Turn the target of a request to a proxy, http://HOST/PATH, into path and Host header (RFC 9112, 3.2.2)."""
    raw: bytes = scope.get("raw_path") or b""
    found = _ABSOLUTE_FORM.fullmatch(raw)
    if found is None:
        return
    host, path = found.groups(b"/")
    scope["raw_path"], scope["path"] = path, unquote(path.decode("latin-1"))
    scope["headers"] = [(b"host", host), *(pair for pair in scope["headers"] if pair[0] != b"host")]


def _host_name(host: str) -> str:
    """Return the name in a Host header, without the port, in lower case."""
    host = host.strip().lower()
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.rpartition(":")[0] if ":" in host else host
