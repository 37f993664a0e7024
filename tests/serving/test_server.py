"""A whole server in a process of its own: start, stop without loss, slow clients, and addresses that cannot be used."""

import asyncio
import contextlib
import gc
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvicorn

from fullbake import Classifier
from fullbake.serving import server
from fullbake.serving.app import build_app
from fullbake.serving.connections import ConnectionBounds
from fullbake.serving.door import DoorRules
from fullbake.serving.server import Address, listen, serve
from fullbake.serving.service import Service

BUNDLE = Path(__file__).parents[1] / "fixtures" / "bundle_0_1_0"
HELD = """
import sys, time
from pathlib import Path
from fullbake.serving import connections, scorer
connections.HEAD_SECONDS = 0.5
own, hold = scorer.TextScorer.answers, Path(sys.argv.pop(1))
def held(self, parts):
    while hold.exists():
        time.sleep(0.01)
    return own(self, parts)
scorer.TextScorer.answers = held
from fullbake.cli.main import main
main()
"""
"""A server whose rounds wait as long as a file exists."""


class Running:
    def __init__(self, process: "subprocess.Popen[str]", url: str) -> None:
        self.process, self.url = process, url
        self.port = int(url.rpartition(":")[2])

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"{self.url}{path}", timeout=60) as found:
                return found.status, found.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def waiting_tokens(self) -> float:
        (found,) = re.findall(r"^fullbake_queue_tokens{model=\"m\"} (\S+)", self.get("/metrics")[1], re.MULTILINE)
        return float(found)

    def post(self, texts: list[str]) -> tuple[int, dict]:
        body = json.dumps({"texts": texts}).encode()
        try:
            with urllib.request.urlopen(urllib.request.Request(f"{self.url}/v1/predict", body), timeout=60) as found:
                return found.status, json.load(found)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)


@contextlib.contextmanager
def running(hold: Path, *words: str) -> Iterator[Running]:
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", HELD, str(hold), "serve", f"m={BUNDLE}", "--port", "0", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )
    try:
        assert process.stdout is not None
        seen = []
        for line in process.stdout:
            seen.append(line)
            if found := re.search(r"http://\S+", line):
                yield Running(process, found[0])
                break
        else:
            raise AssertionError("".join(seen))
    finally:
        process.kill()
        process.communicate()


def until(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(0.02)


def test_server_bounds_slow_clients_and_finishes_what_it_accepted(tmp_path: Path) -> None:
    texts = [f"the cook {'bank ' * 20} {number}" for number in range(40)]
    hold = tmp_path / "hold"
    with running(hold) as server:
        cut_off_slow_clients(server)
        tokens = server.post(texts)[1]["timing"]["tokens"]
        hold.touch()
        found: list[tuple[int, dict]] = []
        clients = [threading.Thread(target=lambda: found.append(server.post(texts))) for _ in range(3)]
        for client in clients:
            client.start()
        until(lambda: server.waiting_tokens() == 3 * tokens)
        server.process.send_signal(signal.SIGTERM)
        until(lambda: server.get("/health")[0] == 503)
        status, late = server.post(["late"])
        hold.unlink()
        for client in clients:
            client.join()
        assert server.process.wait(60) == 0
    assert [code for code, _ in found] == [200] * 3
    assert (status, late["error"]["kind"]) == (503, "unavailable")
    wanted = list(Classifier.load(BUNDLE).predict(texts))
    for _, answer in found:
        assert [result["label"] for result in answer["results"]] == wanted


def cut_off_slow_clients(server: Running) -> None:
    """A head that comes slowly, none at all, and one of a million bytes: each is cut off, and others are served."""
    address = ("127.0.0.1", server.port)
    with socket.create_connection(address) as slow, socket.create_connection(address) as idle:
        slow.sendall(b"POST /v1/predict HTTP/1.1\r\nhost: loc")
        for client in (slow, idle):
            client.settimeout(60)
            assert client.recv(100) == b""
    with socket.create_connection(address) as large:
        large.settimeout(60)
        with contextlib.suppress(OSError):
            large.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\nx-large: " + b"a" * 1_000_000)
        with contextlib.suppress(ConnectionResetError):
            assert b" 431 " in large.recv(100)
    assert server.post(["still here"])[0] == 200


def test_address_that_is_taken_is_refused(run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, _, error = run("serve", BUNDLE, "--port", port)
    assert code == 2
    assert f"127.0.0.1:{port}: this address cannot be listened on" in error
    assert "--port 0" in error


def test_bundle_that_cannot_be_loaded_ends_the_server(run, tmp_path: Path) -> None:
    code, _, error = run("serve", tmp_path, "--port", "0")
    assert code == 2
    assert "this is not a fullbake bundle" in error


def test_what_was_loaded_is_not_searched_for_garbage_again(served) -> None:
    """A full pass over all that a server has imported would hold up its requests for 0.2 s, again and again."""
    service, frozen = Service([served()]), []

    def stop(_: str) -> None:
        frozen.append(gc.get_freeze_count())
        os.kill(os.getpid(), signal.SIGTERM)

    try:
        serve(build_app(service, DoorRules(frozenset("*"))), service, Address(port=0), on_ready=stop)
    finally:
        gc.unfreeze()
    assert frozen[0] > 10_000


def test_memory_is_given_back_some_times_after_a_storm(monkeypatch: pytest.MonkeyPatch, served) -> None:
    """What is free only after the first time must not stay; while many are connected there is nothing to gain."""
    trims: list[int] = []
    monkeypatch.setattr(server, "trim_memory", lambda: trims.append(0))
    service = Service([served()])
    app = build_app(service, DoorRules(frozenset("*")))
    bounds = ConnectionBounds(10_000)
    own = server._Server(uvicorn.Config(app), bounds, service, 1.0, lambda: None)
    own.state = app.state

    async def looks(count: int) -> int:
        before = len(trims)
        for look in range(count):
            await own.on_tick(50 * look)
        return len(trims) - before

    async def run() -> list[int]:
        found = [await looks(3)]
        app.state.large_bodies = 1
        found.append(await looks(20))
        bounds.connections = set(range(2_000))  # type: ignore[arg-type]  # they are counted alone
        bounds.peak = 2_000
        found.append(await looks(20))
        bounds.connections = set()
        return [*found, await looks(20)]

    none, after, meanwhile, ended = asyncio.run(run())
    assert (none, after, meanwhile, ended) == (0, 4, 0, 4)


def test_answers_are_sent_without_delay() -> None:
    async def accepted() -> int:
        found: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            found.set_result(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        with contextlib.closing(listen(Address("127.0.0.1", 0))) as listener:
            async with await asyncio.start_server(answer, sock=listener):
                _, writer = await asyncio.open_connection(*listener.getsockname())
                waited = await found
                writer.close()
                return waited

    assert asyncio.run(accepted())
