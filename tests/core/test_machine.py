"""Facts of the machine, from files made up for the test; the hub is asked at addresses of this machine only."""

import socket
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from fullbake.core import machine


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("processor: 0\nflags\t\t: fpu avx2 fma avx512_vnni\n", ("fma", "avx2", "avx512_vnni")),
        ("Features\t: fp asimd i8mm\n", ("asimd", "i8mm")),
        ("processor : 0\n", None),
    ],
)
def test_vector_instructions(tmp_path: Path, text: str, found: tuple[str, ...] | None) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    assert machine.vector_instructions(tmp_path / "cpuinfo") == found


def test_vector_instructions_are_unknown_elsewhere(tmp_path: Path) -> None:
    assert machine.vector_instructions(tmp_path / "missing") is None


def test_memory_of_a_container(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 8000 kB\nMemFree: 1 kB\nMemAvailable: 4000 kB\n")
    (tmp_path / "memory.max").write_text("1024000\n")
    assert machine.memory(tmp_path / "meminfo", tmp_path) == {"total": 8192000, "available": 4096000, "limit": 1024000}
    (tmp_path / "memory.max").write_text("max\n")
    assert machine.memory(tmp_path / "meminfo", tmp_path)["limit"] is None


def test_folders_of_caches(tmp_path: Path) -> None:
    (tmp_path / "features").mkdir()
    (tmp_path / "features" / "a").write_bytes(b"123")
    found = {folder.name: folder for folder in machine.cache_folders(tmp_path)}
    assert (found["fullbake"].size, found["fullbake"].exists, found["fullbake"].writable) == (3, True, True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["features"]


def test_a_closed_cache_is_said(closed_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(path)

    monkeypatch.setattr(machine.storage, "require_writable", refuse)  # root may write everywhere
    assert not machine.cache_folders(closed_folder)[0].writable


class _Refuses(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self.send_response(403)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.fixture
def mirror() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), _Refuses)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_mirror_that_answers_is_reachable(online: pytest.MonkeyPatch, mirror: str) -> None:
    online.setenv("HF_ENDPOINT", mirror)
    found = machine.ask_hub(30)
    assert (found.endpoint, found.mirror, found.state) == (mirror, True, "reachable")


def test_a_hub_that_is_silent_is_left_after_the_time(online: pytest.MonkeyPatch) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        online.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert machine.ask_hub(0.05).state == "unreachable"


def test_name_resolution_has_the_same_time(online: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    online.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    online.setattr(machine, "_answer", lambda *_: (released.wait(60), ("reachable", ""))[1])
    started = time.monotonic()
    assert machine.ask_hub(0.05).state == "unreachable"
    assert time.monotonic() - started < 50
    released.set()


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9", "ftp://mirror", "no address", "https://"])
def test_wrong_addresses_are_no_error(online: pytest.MonkeyPatch, endpoint: str) -> None:
    online.setenv("HF_ENDPOINT", endpoint)
    found = machine.ask_hub(30)
    assert (found.state, bool(found.detail)) == ("unreachable", True)


def test_offline_asks_nobody(online: pytest.MonkeyPatch) -> None:
    online.setenv("HF_HUB_OFFLINE", "1")
    online.setattr(machine, "_answer", lambda *_: pytest.fail("a request"))
    assert machine.ask_hub().state == "offline"


def test_a_broken_torch_is_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "torch":
                raise OSError("libgomp.so.1: cannot open shared object file")

    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    assert machine.accelerators() == {
        "installed": True,
        "error": "OSError: libgomp.so.1: cannot open shared object file",
    }
