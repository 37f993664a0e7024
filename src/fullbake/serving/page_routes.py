"""The files of the page at `/`: read once, and served from memory, so that no path of a request reaches the disk."""

from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

PAGE_FOLDER: Final = Path(__file__).parent / "page"

_MEDIA_TYPES: Final = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}


def page_routes() -> list[Route]:
    """Return a route for each file of the page: `/` for index.html, `/page/NAME` for the others."""
    routes = []
    for path in sorted(PAGE_FOLDER.iterdir()):
        if path.suffix not in _MEDIA_TYPES:
            continue
        url = "/" if path.name == "index.html" else f"/page/{path.name}"
        content = path.read_bytes()
        answer = partial(_answer, content, _MEDIA_TYPES[path.suffix], f'"{sha256(content).hexdigest()[:32]}"')
        routes.append(Route(url, answer, methods=["GET"]))
    return routes


async def _answer(content: bytes, media_type: str, tag: str, request: Request) -> Response:
    """Return a file, or 304 to a browser that has it already. It asks each time, so an update is seen at once."""
    headers = {"etag": tag, "cache-control": "no-cache"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=media_type, headers=headers)
