"""The cache keeps its bound, never gives a damaged entry, and survives several processes and kills."""

import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers.permissions import permissions_hold

from fullbake.core import runtime, storage
from fullbake.core.cache import Cache, CacheDeleted
from fullbake.core.errors import OutputError, SpaceFault


def keep(cache: Cache, key: str, size: int = 1000) -> None:
    with cache.put(key, f"{size} bytes") as folder:
        storage.write_bytes(folder / "x", b"x" * size)


def keys(cache: Cache) -> list[str]:
    return [entry.key for entry in cache.entries()]


def set_last_use(cache: Cache, *ordered: str) -> None:
    """Set the time of each entry's last use, from the oldest to the latest."""
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


def test_least_recently_used_entries_are_evicted_first(cache: Cache) -> None:
    for key in ("a", "b", "c"):
        keep(cache, key, 2500)
    set_last_use(cache, "a", "b", "c")
    assert cache.get("a") is not None  # reading it counts as use
    assert keys(cache) == ["a", "c", "b"]
    keep(cache, "d", 4000)
    assert sorted(keys(cache)) == ["a", "c", "d"]
    assert sum(entry.size for entry in cache.entries()) <= cache.limit_bytes


def test_no_more_is_evicted_than_needed(cache: Cache) -> None:
    for key in ("a", "b", "c"):
        keep(cache, key, 2500)
    set_last_use(cache, "a", "b", "c")
    keep(cache, "d", 2500)
    assert sorted(keys(cache)) == ["b", "c", "d"]


def test_an_entry_beyond_the_bound_is_not_kept_and_evicts_nothing(
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


def test_the_first_process_to_put_a_key_wins(cache: Cache) -> None:
    with cache.put("a", "mine") as folder:
        storage.write_bytes(folder / "x", b"mine")
        with cache.put("a", "theirs") as other:
            storage.write_bytes(other / "x", b"theirs")
    found = cache.get("a")
    assert found is not None
    assert (found / "x").read_bytes() == b"theirs"


def test_clearing_returns_the_bytes_and_leaves_nothing(cache: Cache) -> None:
    keep(cache, "a")
    keep(cache, "b")
    total = sum(entry.size for entry in cache.entries())
    assert cache.clear() == total > 2000
    assert [name for name in os.listdir(cache.root) if name != ".lock"] == []
    assert cache.clear() == 0


@pytest.mark.parametrize("key", ["", "..", "a/b", ".hidden", "a" * 129])
def test_a_key_is_a_plain_name(cache: Cache, key: str) -> None:
    with pytest.raises(ValueError, match="a cache key is"):
        cache.get(key)


def test_a_kill_while_putting_leaves_no_entry(cache: Cache) -> None:
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


def test_processes_share_a_cache_that_is_too_small_for_all_entries(cache: Cache) -> None:
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
            continue  # evicted meanwhile, as documented
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


def put_part(cache: Cache, key: str, content: bytes, *, fail: bool = False) -> list[str]:
    """Add a file to the unfinished entry of the key; return the names of the files that were there before."""
    with cache.put_resumable(key, "made of parts", len(content)) as folder:
        assert folder is not None
        before = sorted(path.name for path in folder.iterdir())
        storage.write_bytes(folder / f"part-{len(before)}", content)
        if fail:
            raise ZeroDivisionError
    return before


def test_an_unfinished_entry_is_resumed(cache: Cache) -> None:
    with pytest.raises(ZeroDivisionError):
        put_part(cache, "a", b"one", fail=True)
    assert cache.get("a") is None
    assert cache.entries() == []
    assert put_part(cache, "a", b"two") == ["part-0"]
    found = cache.get("a")
    assert found is not None
    assert [(found / f"part-{number}").read_bytes() for number in (0, 1)] == [b"one", b"two"]
    with cache.put_resumable("a", "again") as folder:
        assert folder is None


def test_free_space_is_checked_before_an_entry_is_made(cache: Cache) -> None:
    with pytest.raises(SpaceFault), cache.put_resumable("a", "", 10**18):
        pytest.fail("there is no such disk")


def test_abandoned_entries_are_removed_after_two_weeks(cache: Cache) -> None:
    for key in ("old", "new"):
        with pytest.raises(ZeroDivisionError):
            put_part(cache, key, b"x", fail=True)
    old = cache.root / "old.growing"
    for path in (old, *old.iterdir()):
        os.utime(path, (1_000_000, 1_000_000))
    put_part(cache, "third", b"x")
    assert not old.exists()
    assert (cache.root / "new.growing").exists()
    cache.clear()
    assert os.listdir(cache.root) in ([], [".lock"])


# Where one may not write


@pytest.fixture
def read_only(cache: Cache) -> Iterator[Cache]:
    """A cache with one entry, `old`, whose folder may not be written to."""
    keep(cache, "old")
    cache.root.chmod(0o555)
    yield cache
    cache.root.chmod(0o755)


def test_what_a_read_only_cache_cannot_take_is_kept_until_the_process_ends(
    read_only: Cache, caplog: pytest.LogCaptureFixture
) -> None:
    with permissions_hold(), caplog.at_level(logging.WARNING, "fullbake"):
        keep(read_only, "new")
        put_part(read_only, "resumed", b"1")
        assert read_only.store("stored", "", lambda folder: storage.write_bytes(folder / "x", b"x")) is not None
        for key in ("old", "new", "resumed", "stored"):
            assert read_only.has(key)
            assert read_only.get(key) is not None
    (record,) = caplog.records
    assert f"the cache {read_only.root} cannot be written to (Permission denied)" in record.getMessage()
    assert "--cache-dir" in record.getMessage()
    assert keys(read_only) == ["old"]


def test_another_cache_of_the_same_process_is_none_of_its_business(read_only: Cache, tmp_path: Path) -> None:
    other = Cache(tmp_path / "other", 10_000)
    with permissions_hold():
        keep(read_only, "new")
        keep(other, "a")
    assert not other.has("new")
    assert keys(other) == ["a"]


def test_caches_side_by_side_warn_once(read_only: Cache, caplog: pytest.LogCaptureFixture) -> None:
    """A run keeps features, admissions and tokenizers in folders of one cache folder."""
    folders = [read_only.root / name for name in ("features", "admissions")]
    with permissions_hold(), caplog.at_level(logging.WARNING, "fullbake"):
        for folder in folders:
            keep(Cache(folder, 10_000), "new")
    assert [record.getMessage().split(" cannot")[0] for record in caplog.records] == [f"the cache {folders[0]}"]
    assert all(Cache(folder, 10_000).get("new") is not None for folder in folders)


def test_a_read_only_cache_is_not_cleared_in_silence(read_only: Cache) -> None:
    with permissions_hold(), pytest.raises(OutputError, match="Permission denied"):
        read_only.clear()
    assert keys(read_only) == ["old"]


def test_of_several_training_processes_none_has_a_cache_of_its_own(
    read_only: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "world_size", lambda: 2)
    with permissions_hold(), pytest.raises(OutputError, match="Permission denied"):
        keep(read_only, "new")


def test_an_entry_that_somebody_deletes_while_it_is_made_is_made_again(
    cache: Cache, caplog: pytest.LogCaptureFixture
) -> None:
    calls = []

    def write(folder: Path) -> None:
        calls.append(folder)
        if len(calls) == 1:
            shutil.rmtree(cache.root)
        storage.write_bytes(folder / "x", b"x")

    with caplog.at_level(logging.WARNING, "fullbake"):
        found = cache.store("a", "", write)
    assert found == cache.root / "a"
    assert len(calls) == 2
    assert "was deleted while it was made, and is made again" in caplog.text


def test_what_is_deleted_time_and_again_is_a_fault(cache: Cache) -> None:
    def write(folder: Path) -> None:
        shutil.rmtree(cache.root)
        storage.write_bytes(folder / "x", b"x")

    with pytest.raises(CacheDeleted, match="Run the same command again"):
        cache.store("a", "", write)


def test_a_missing_file_of_somebody_else_is_not_taken_for_a_deleted_cache(cache: Cache, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), cache.put("a", ""):
        (tmp_path / "corpus.txt").read_bytes()


def test_what_is_larger_than_the_bound_is_not_kept(cache: Cache) -> None:
    assert cache.store("a", "", lambda folder: storage.write_bytes(folder / "x", b"x" * 20_000)) is None
