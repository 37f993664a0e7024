"""Memory that was freed goes back to the system, where its C library can do that."""

import sys

import pytest

from fullbake.serving import memory
from fullbake.serving.memory import limit_arenas, trim_memory


def test_memory_is_given_back_where_that_is_possible(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, ...]] = []
    collected: list[None] = []

    class Library:
        malloc_trim = mallopt = staticmethod(lambda *values: calls.append(values))

    monkeypatch.setattr(memory.gc, "collect", lambda: collected.append(None))
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda _: Library)
    assert trim_memory()
    assert limit_arenas()
    assert calls == [(0,), (-8, 2)]
    assert collected, "what refers to itself is freed before"
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda _: object())
    assert not trim_memory()
    monkeypatch.setattr(sys, "platform", "win32")
    assert not limit_arenas()
