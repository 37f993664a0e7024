"""Connections of clients that are slow, silent, broken, half-closed, gone or too many."""

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import uvicorn

from fullbake.serving import connections
from fullbake.serving.bodies import BROKEN_BODY
from fullbake.serving.connections import BoundedConnection, ConnectionBounds, raise_open_files

HEAD = b"GET / HTTP/1.1\r\nhost: a\r\n"
POST = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
LARGE = b"GET /large HTTP/1.1\r\nhost: a\r\n\r\n"
EARLY = b"POST /early HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\n"
WAIT = b"GET /wait HTTP/1.1\r\nhost: a\r\n\r\n"
GONE: list[str] = []
"""Requests whose client went away before the answer."""

WAITING: list[asyncio.Event] = []
"""Of each request to /wait that has come: what it waits for."""


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer after 0.2 seconds, unless the client went away; /large with 50 MB, /early before the body has come, /wait
    when it may."""
    body = json.dumps({"broken": None}).encode()
    if scope["path"] != "/early":
        while (await receive()).get("more_body"):
            pass
        body = json.dumps({"broken": scope["state"].get(BROKEN_BODY)}).encode()
        if scope["path"] == "/large":
            body = b" " * 50_000_000
        else:
            until = asyncio.Event()
            if scope["path"] == "/wait":
                WAITING.append(until)
            else:
                asyncio.get_running_loop().call_later(0.2, until.set)
            gone, may = asyncio.ensure_future(receive()), asyncio.ensure_future(until.wait())
            await asyncio.wait((gone, may), return_when=asyncio.FIRST_COMPLETED)
            if gone.done():
                GONE.append(scope["path"])
                return
            gone.cancel()
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    await send({"type": "http.response.body", "body": body})


@contextlib.asynccontextmanager
async def listening(most: int = 100) -> AsyncIterator[tuple[int, ConnectionBounds, list[int]]]:
    """Serve `app`; yield the port, the connections, and what was refused."""
    GONE.clear()
    WAITING.clear()
    refused: list[int] = []
    bounds = ConnectionBounds(most, refused.append)
    config = uvicorn.Config(app, lifespan="off", log_config=None, log_level="error", h11_max_incomplete_event_size=5000)
    config.load()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: BoundedConnection(config, bounds, {}), "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], bounds, refused
    finally:
        server.close()
        for connection in tuple(bounds.connections):
            connection.transport.abort()
        await asyncio.gather(*bounds.tasks)


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


async def exchange(port: int, *pieces: bytes, end: bool = False) -> bytes:
    """Send pieces, after a request that is whole its answer. Return all that comes until the connection is closed,
    which it must be."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    found = b""
    try:
        for piece in pieces:
            writer.write(piece)
            if piece == HEAD + b"\r\n":
                found += await reader.readuntil(b"}")
        if end:
            writer.write_eof()
        return found + await reader.read()
    finally:
        writer.close()


@pytest.fixture(autouse=True)
def short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.1)
    monkeypatch.setattr(connections, "READ_SECONDS", 1.0)


def test_connection_is_closed_while_its_head_is_incomplete() -> None:
    async def run() -> list[bytes]:
        async with listening() as (port, _, _):
            cut = [await exchange(port, *pieces) for pieces in ((), (HEAD,), (HEAD + b"\r\n", HEAD))]
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for pause in (0.0, 0.3):  # between two requests it stays open
                await asyncio.sleep(pause)
                writer.write(HEAD + b"\r\n")
                await reader.readuntil(b"}")
            writer.close()
            return cut

    silent, slow, second = asyncio.run(run())
    assert silent == slow == b""
    assert second.count(b" 200 ") == 1


def test_half_closed_client_gets_its_answers() -> None:
    async def run() -> list[bytes]:
        async with listening() as (port, bounds, _):
            old = HEAD.replace(b"1.1", b"1.0") + b"\r\n"
            found = [await exchange(port, piece, end=True) for piece in (POST + b"{}", 3 * (HEAD + b"\r\n"), old)]
            assert not GONE
            await until(lambda: not bounds.connections)
            return found

    one, three, old = asyncio.run(run())
    assert one.endswith(b'{"broken": null}')
    assert three.count(b" 200 OK") == 3
    assert b" 100 " not in old  # HTTP/1.0 has no such answers


@pytest.mark.parametrize("reset", [False, True])
def test_client_that_is_gone_is_noticed_before_its_answer(reset: bool) -> None:
    async def run() -> None:
        async with listening() as (port, bounds, _):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(WAIT)
            await until(lambda: WAITING)
            writer.transport.abort() if reset else writer.close()
            await until(lambda: GONE == ["/wait"] and not bounds.connections)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("pieces", "end", "said"),
    [
        ((CHUNKED, b"zz\r\nab\r\n"), False, "illegal chunk header"),
        ((CHUNKED, b"1\r\nab\r\n0\r\n\r\n"), False, "malformed chunk footer"),
        ((CHUNKED, b"5\r\nab"), True, "before its end"),
        ((POST,), True, "before its end"),
    ],
)
def test_body_that_lies_about_its_length_is_known_to_its_request(pieces, end, said) -> None:
    async def run() -> bytes:
        async with listening() as (port, _, _):
            return await exchange(port, *pieces, end=end)

    found = asyncio.run(run())
    assert found.count(b" 200 OK") == 1
    assert said in json.loads(found.rpartition(b"\r\n")[2])["broken"]
    assert b"bytearray" not in found


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n", 400),
        (HEAD + b"x: a\x00b\r\n\r\n", 400),
        (HEAD + b"content-length: -1\r\n\r\n", 400),
        (HEAD + b"x: " + b"a" * 1_000_000, 431),
        (b"GET /" + b"a" * 1_000_000, 431),
    ],
)
def test_head_that_is_no_http_is_refused_in_json(head: bytes, status: int) -> None:
    async def run() -> tuple[bytes, list[int]]:
        async with listening() as (port, _, refused):
            return await exchange(port, head), refused

    found, refused = asyncio.run(run())
    fields, _, body = found.partition(b"\r\n\r\n")
    assert fields.startswith(b"HTTP/1.1 %d " % status)
    assert json.loads(body)["error"]["kind"] == "invalid"
    assert b"bytearray" not in body
    assert refused == [status]


def test_idlest_connection_makes_room_and_a_busy_server_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 60.0)

    async def run() -> None:
        async with listening(most=2) as (port, bounds, refused):
            wires = [socket.create_connection(("127.0.0.1", port)) for _ in range(5)]  # all are accepted in one turn
            first, second, third = [await asyncio.open_connection(sock=wire) for wire in (wires[2], *wires[3:])]
            assert await first[0].read() == b""  # idle for longest
            assert len(bounds.connections) == 2
            for wire in wires[:2]:
                wire.close()
            for _, writer in (second, third):
                writer.write(WAIT)
            await until(lambda: len(WAITING) == 2)
            found = await exchange(port)
            assert found.startswith(b"HTTP/1.1 503 ")
            assert b"retry-after: 1" in found
            assert "2 connections" in json.loads(found.rpartition(b"\r\n")[2])["error"]["message"]
            assert refused == [503]
            for waiting in WAITING:
                waiting.set()
            for reader, _ in (second, third):
                assert b" 200 OK" in await reader.readuntil(b"\r\n\r\n")
            await until(lambda: len(bounds.connections) == 2)
            for _, writer in (first, second, third):
                writer.close()

    asyncio.run(run())


def test_client_that_reads_nothing_is_cut_off_and_one_that_reads_slowly_is_not() -> None:
    async def run() -> None:
        async with listening() as (port, bounds, _):
            wire = socket.create_connection(("127.0.0.1", port))
            wire.sendall(LARGE)
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1_000_000)
            writer.write(LARGE)
            await until(lambda: len(bounds.connections) == 2)
            size = 0
            while len(bounds.connections) == 2:
                size += len(await reader.read(500_000))
                await asyncio.sleep(0.05)
            assert size < 50_000_000, "it was not yet through when the other one was cut off"
            while size < 50_000_000:
                size += len(await reader.read(10_000_000))
            writer.close()
            wire.close()

    asyncio.run(run())


def test_rest_of_a_body_that_nobody_reads_is_bounded() -> None:
    async def run() -> None:
        async with listening() as (port, bounds, _):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(EARLY)
            await reader.readuntil(b"}")
            while bounds.connections:
                writer.write(b"a")
                await asyncio.sleep(0.02)
            writer.close()

    asyncio.run(run())


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such bound")
def test_number_of_open_files_is_raised_as_far_as_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    given: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: given.append(limits))
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 4096))
    assert (raise_open_files(1_000), raise_open_files(10_000), raise_open_files(100)) == (1_000, 4_096, 256)
    assert given == [(1_000, 4_096), (4_096, 4_096)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert raise_open_files(10_000) == 10_000
