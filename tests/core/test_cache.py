"""The cache keeps its bound, never gives a damaged entry, and survives several processes and kills."""

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fullbake.core import storage
from fullbake.core.cache import Cache
from fullbake.core.errors import SpaceFault


def keep(cache: Cache, key: str, size: int = 1000) -> None:
    with cache.put(key, f"{size} bytes") as folder:
        storage.write_bytes(folder / "x", b"x" * size)


def keys(cache: Cache) -> list[str]:
    return [entry.key for entry in cache.entries()]


def age(cache: Cache, *ordered: str) -> None:
    """Sets the last use, the first named the longest ago."""
    for number, key in enumerate(ordered):
        os.utime(cache.root / key / storage.SEAL_FILE, (1_000_000 + number, 1_000_000 + number))


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache", 10_000)


def test_what_was_put_is_found(cache: Cache) -> None:
    assert cache.get("a1") is None
    assert cache.entries() == []
    assert not cache.root.exists()
    with cache.put("a1", "3 texts x 2") as folder:
        storage.write_tensors(folder / "f.safetensors", {"x": np.eye(3)})
        assert cache.get("a1") is None
    found = cache.get("a1")
    assert found is not None
    np.testing.assert_array_equal(storage.read_tensors(found / "f.safetensors")["x"], np.eye(3))
    (entry,) = cache.entries()
    assert (entry.key, entry.description) == ("a1", "3 texts x 2")
    assert entry.size == sum(path.stat().st_size for path in found.iterdir())


def test_a_failed_put_leaves_nothing(cache: Cache) -> None:
    def fail() -> None:
        with cache.put("a", "") as folder:
            storage.write_bytes(folder / "x", b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert os.listdir(cache.root) == []


def test_the_least_recently_used_go_first(cache: Cache) -> None:
    for key in ("a", "b", "c"):
        keep(cache, key, 2500)
    age(cache, "a", "b", "c")
    assert cache.get("a") is not None  # use makes it the youngest
    assert keys(cache) == ["a", "c", "b"]
    keep(cache, "d", 4000)
    assert sorted(keys(cache)) == ["a", "c", "d"]
    assert sum(entry.size for entry in cache.entries()) <= cache.limit_bytes


def test_no_more_goes_than_must(cache: Cache) -> None:
    for key in ("a", "b", "c"):
        keep(cache, key, 2500)
    age(cache, "a", "b", "c")
    keep(cache, "d", 2500)
    assert sorted(keys(cache)) == ["b", "c", "d"]


def test_an_entry_beyond_the_bound_is_not_kept_and_costs_the_others_nothing(
    cache: Cache, caplog: pytest.LogCaptureFixture
) -> None:
    keep(cache, "a")
    with caplog.at_level(logging.WARNING):
        keep(cache, "big", 20_000)
    assert keys(cache) == ["a"]
    assert "not kept in the cache: 20.3 KB is more than its bound of 10.0 KB" in caplog.text


@pytest.mark.parametrize("name", ["x", storage.SEAL_FILE])
@pytest.mark.parametrize("way", ["one bit flipped", "missing", "truncated", "foreign"])
def test_a_damaged_entry_is_dropped_and_made_again(
    cache: Cache, caplog: pytest.LogCaptureFixture, name: str, way: str
) -> None:
    keep(cache, "a")
    path = cache.root / "a" / name
    content = path.read_bytes()
    if way == "missing":
        path.unlink()
    elif way == "foreign":
        path.with_suffix(".foreign").write_bytes(b"")
    else:
        path.write_bytes(content[:-3] if way == "truncated" else content[:30] + b"\x00" + content[31:])
    assert cache.get("a") is None
    assert "dropped a damaged cache entry" in caplog.text
    assert keys(cache) == []
    keep(cache, "a")
    assert cache.get("a") is not None


def test_a_damaged_entry_is_listed_and_can_be_evicted(cache: Cache) -> None:
    keep(cache, "a", 6000)
    (cache.root / "a" / storage.SEAL_FILE).unlink()
    assert [entry.description for entry in cache.entries()] == ["damaged"]
    keep(cache, "b", 6000)
    assert keys(cache) == ["b"]


def test_the_first_to_put_a_key_stands(cache: Cache) -> None:
    with cache.put("a", "mine") as folder:
        storage.write_bytes(folder / "x", b"mine")
        with cache.put("a", "theirs") as other:
            storage.write_bytes(other / "x", b"theirs")
    found = cache.get("a")
    assert found is not None
    assert (found / "x").read_bytes() == b"theirs"


def test_clearing_tells_the_bytes_and_leaves_nothing(cache: Cache) -> None:
    keep(cache, "a")
    keep(cache, "b")
    held = sum(entry.size for entry in cache.entries())
    assert cache.clear() == held > 2000
    assert [name for name in os.listdir(cache.root) if name != ".lock"] == []
    assert cache.clear() == 0


@pytest.mark.parametrize("key", ["", "..", "a/b", ".hidden", "a" * 129])
def test_a_key_is_a_plain_name(cache: Cache, key: str) -> None:
    with pytest.raises(ValueError, match="a cache key is"):
        cache.get(key)


def test_a_kill_while_putting_leaves_nothing_that_counts(cache: Cache) -> None:
    code = """
import os, signal, sys
from fullbake.core.cache import Cache
from fullbake.core.errors import SpaceFault
with Cache(sys.argv[1], 10_000).put("dead", "") as folder:
    (folder / "x").write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", code, str(cache.root)])
    assert killed.returncode == -signal.SIGKILL
    assert cache.get("dead") is None
    assert cache.entries() == []
    keep(cache, "other")
    assert sorted(os.listdir(cache.root)) == [".lock", "other"]


def test_processes_share_a_cache_that_is_too_small_for_them(cache: Cache) -> None:
    code = """
import random, sys
from fullbake.core.cache import Cache
from fullbake.core.errors import SpaceFault
cache, chance = Cache(sys.argv[1], 10_000), random.Random(int(sys.argv[2]))
for turn in range(40):
    key = f"k{chance.randrange(6)}"
    found = cache.get(key)
    if found is None:
        with cache.put(key, key) as folder:
            (folder / "x").write_bytes(key.encode() * 1000)
    else:
        try:
            content = (found / "x").read_bytes()
        except FileNotFoundError:
            continue  # evicted since: as documented
        assert content == key.encode() * 1000
    assert sum(entry.size for entry in cache.entries()) <= 10_000 + 2500
"""
    command = [sys.executable, "-W", "error", "-c", code, str(cache.root)]
    children = [subprocess.Popen([*command, seed], stderr=subprocess.PIPE, text=True) for seed in "12"]
    outcomes = [(process.communicate(timeout=60)[1], process.returncode) for process in children]
    assert [code for _, code in outcomes] == [0, 0], outcomes
    assert sum(entry.size for entry in cache.entries()) <= cache.limit_bytes
    for key in keys(cache):
        assert cache.get(key) is not None
    assert all(not name.endswith(".partial") for name in os.listdir(cache.root))


def grow(cache: Cache, key: str, content: bytes, *, die: bool = False) -> list[str]:
    """Adds a file to what grows under the key; returns what was there."""
    with cache.growing(key, "grown", len(content)) as folder:
        assert folder is not None
        there = sorted(path.name for path in folder.iterdir())
        storage.write_bytes(folder / f"part-{len(there)}", content)
        if die:
            raise ZeroDivisionError
    return there


def test_what_was_left_half_made_is_gone_on_with(cache: Cache) -> None:
    with pytest.raises(ZeroDivisionError):
        grow(cache, "a", b"one", die=True)
    assert cache.get("a") is None
    assert cache.entries() == []
    assert grow(cache, "a", b"two") == ["part-0"]
    found = cache.get("a")
    assert found is not None
    assert [(found / f"part-{number}").read_bytes() for number in (0, 1)] == [b"one", b"two"]
    with cache.growing("a", "again") as folder:
        assert folder is None


def test_growing_asks_the_disk_first(cache: Cache) -> None:
    with pytest.raises(SpaceFault), cache.growing("a", "", 10**18):
        pytest.fail("there is no such disk")


def test_what_nobody_goes_on_with_is_forgotten(cache: Cache) -> None:
    for key in ("old", "new"):
        with pytest.raises(ZeroDivisionError):
            grow(cache, key, b"x", die=True)
    old = cache.root / "old.growing"
    for path in (old, *old.iterdir()):
        os.utime(path, (1_000_000, 1_000_000))
    grow(cache, "third", b"x")
    assert not old.exists()
    assert (cache.root / "new.growing").exists()
    cache.clear()
    assert os.listdir(cache.root) in ([], [".lock"])
