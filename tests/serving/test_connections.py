"""A connection's time runs while a head is incomplete, and never while a request is answered."""

import asyncio
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from fullbake.serving import connections
from fullbake.serving.connections import BoundedConnection

HEAD = b"GET / HTTP/1.1\r\nhost: a\r\n"


class Wire(asyncio.Transport):
    """A transport that remembers what was written."""

    def __init__(self) -> None:
        super().__init__()
        self.written, self.closed = b"", False

    def write(self, data: Any) -> None:
        self.written += bytes(data)

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


async def app(_: Any, __: Any, send: Any) -> None:
    await asyncio.sleep(0.2)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


@pytest.mark.parametrize(
    ("pieces", "closed", "answered"),
    [((), True, False), ((HEAD,), True, False), ((HEAD, b"\r\n"), False, True), ((HEAD + b"\r\n", HEAD), True, True)],
)
def test_connection_is_closed_while_its_head_is_incomplete(
    pieces: tuple[bytes, ...], closed: bool, answered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.1)

    async def run() -> Wire:
        config = uvicorn.Config(app, lifespan="off", log_config=None)
        config.load()
        wire = Wire()
        connection = BoundedConnection(config, ServerState(), {})
        connection.connection_made(wire)
        for piece in pieces:
            connection.data_received(piece)
            await asyncio.sleep(0.3 if piece.endswith(b"\r\n\r\n") else 0.01)  # the app answers after 0.2
        await asyncio.sleep(0.3)
        found = wire.closed
        connection.connection_lost(None)
        wire.closed = found
        return wire

    wire = asyncio.run(run())
    assert wire.closed == closed
    assert (b" 200 " in wire.written) == answered
