"""A bounded folder of things that can be made again: frozen features, by a key of all they depend on.

An entry is a sealed folder, put by one rename, and read only after every byte agreed with its hash: a damaged
one is dropped and made again, never used. Several processes may share a cache: what one of them is making slowly
(`growing`) the others wait for, and what it leaves behind when it dies the next one goes on with. Trade-offs:
hashing each time costs some 0.2 s for 150 MB, against training on rotten features; and nothing holds an entry
while it is read (the least recently used go first, and reading counts as use): a file that was opened or mapped
before it went stays readable where the system allows that, as all but Windows do.
"""

import logging
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from fullbake.core import console, storage
from fullbake.core.console import say
from fullbake.core.errors import Fault, OutputError

_KEY = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]{0,127}")

_GROWING = ".growing"
"""What the name of an entry that is being made ends in; no key has a dot."""

_FORGOTTEN = 14 * 24 * 3600.0
"""Seconds after which what nobody went on with is thrown out."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CacheEntry:
    """What `fullbake cache` shows of an entry. size: bytes. used: seconds since the epoch."""

    key: str
    description: str
    size: int
    used: float


class Cache:
    """Sealed folders by key, together at most `limit_bytes` large; the least recently used go first."""

    def __init__(self, root: str | Path, limit_bytes: int) -> None:
        """The folder `root` is made when something is put."""
        self.root, self.limit_bytes = Path(root), limit_bytes

    def get(self, key: str) -> Path | None:
        """The folder put under `key`, every byte of it checked, or None where there is none to use.

        A damaged entry is dropped with a warning in the log. Read what you need before the next `put`.
        """
        folder = self._folder(key)
        if not folder.is_dir():
            return None
        try:
            storage.verify(folder)
        except (Fault, OSError) as fault:
            _log.warning("dropped a damaged cache entry, it will be made again: %s", fault)
            self._drop(folder)
            return None
        with suppress(OSError):  # a cache that may only be read is still a cache
            os.utime(folder / storage.SEAL_FILE)
        return folder

    @contextmanager
    def put(self, key: str, description: str) -> Iterator[Path]:
        """Yields an empty folder; what is written there is kept under `key` when the block ends well.

        Where another process put the key meanwhile, its entry stands. An entry larger than the bound is not
        kept, with a warning in the log that says so. Raises OutputError where the folder cannot be made,
        SpaceFault where the disk is full.
        """
        place = self._folder(key).resolve()
        with storage.hidden_folder(place) as fresh:
            storage.recover_all(self.root)
            fresh.mkdir()
            yield fresh
            storage.seal(fresh, {"description": description})
            storage.sync_tree(fresh)
            with self._lock():
                self._admit(fresh, place)

    def holds(self, size: int) -> bool:
        """Whether an entry of so many bytes is within the bound at all."""
        return size <= self.limit_bytes

    @contextmanager
    def growing(self, key: str, description: str, needed: int = 0) -> Iterator[Path | None]:
        """Yields the folder in which the value of `key` grows, with all that an earlier try left there; it becomes the
        entry when the block ends well, and stays for the next try when it does not. needed: bytes of the whole, which
        are asked of the disk first.

        Only one process at a time has it; the others wait. Yields None where the entry has come into being meanwhile:
        `get` it. Raises OutputError where the folder cannot be made, SpaceFault where the disk is full.
        """
        place = self._folder(key).resolve()
        folder = place.with_name(place.name + _GROWING)
        storage.make_folder(self.root)
        with self._alone(key):
            if place.exists():
                yield None
                return
            self._forget(older_than=_FORGOTTEN)
            storage.make_folder(folder)
            with storage.translate_full_disk(folder, place, needed):
                (folder / storage.SEAL_FILE).unlink(missing_ok=True)
                storage.require_space(folder, needed - _size(folder), place.name)
                yield folder
                storage.seal(folder, {"description": description})
                storage.sync_tree(folder)
                with self._lock():
                    self._admit(folder, place)

    @contextmanager
    def _alone(self, key: str) -> Iterator[None]:
        lock = FileLock(self.root / f".{key}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            say("another process is computing the same; waiting for it")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def _forget(self, older_than: float) -> None:
        """Throw out what was left half made and not touched for so many seconds, and locks, unless somebody holds
        them."""
        for path in self.root.glob(".?*.lock"):
            folder = self.root / (path.name[1:].removesuffix(".lock") + _GROWING)
            with suppress(Timeout, OSError), FileLock(path).acquire(timeout=0):
                if folder.is_dir() and time.time() - _newest(folder) >= older_than:
                    self._drop(folder)
                if not folder.exists():
                    path.unlink()

    def entries(self) -> list[CacheEntry]:
        """All entries, the last used first."""
        found = []
        for folder in self._folders():
            with suppress(FileNotFoundError):  # another process has just thrown it out
                found.append(_read_entry(folder))
        return sorted(found, key=lambda entry: -entry.used)

    def clear(self) -> int:
        """Removes all entries and what dead processes left; returns the bytes of the entries."""
        freed = sum(entry.size for entry in self.entries())
        for folder in self._folders():
            self._drop(folder)
        self._forget(older_than=0)
        storage.recover_all(self.root)
        return freed

    def _folder(self, key: str) -> Path:
        if not _KEY.fullmatch(key):
            raise ValueError(f"a cache key is letters, digits, - and _ (at most 128), not {key!r}")
        return self.root / key

    def _folders(self) -> list[Path]:
        names = os.listdir(self.root) if self.root.is_dir() else []
        return [self.root / name for name in names if _KEY.fullmatch(name)]

    def _lock(self) -> FileLock:
        return FileLock(self.root / ".lock")

    def _admit(self, fresh: Path, place: Path) -> None:
        """Makes room, then gives `fresh` its place; both under the lock, or two processes would overshoot the
        bound.
        """
        size = _size(fresh)
        if size > self.limit_bytes:
            _log.warning(
                "not kept in the cache: %s is more than its bound of %s",
                console.format_size(size),
                console.format_size(self.limit_bytes),
            )
            return
        if place.exists():
            return
        self._evict(self.limit_bytes - size)
        with suppress(OutputError):  # put by a process that a lock does not reach (another host)
            storage.publish(fresh, place)

    def _evict(self, room: int) -> None:
        entries = self.entries()
        held = sum(entry.size for entry in entries)
        for entry in reversed(entries):
            if held <= room:
                return
            self._drop(self.root / entry.key)
            held -= entry.size

    def _drop(self, folder: Path) -> None:
        """Renamed away before it is removed, so no reader finds half an entry; left alone where that is
        forbidden.
        """
        with suppress(FileNotFoundError, OutputError), storage.hidden_folder(folder.resolve()) as grave:
            storage.publish(folder, grave)


def _read_entry(folder: Path) -> CacheEntry:
    manifest = folder / storage.SEAL_FILE
    try:
        description, used = storage.verify(folder, contents=False)["description"], manifest.stat().st_mtime
    except (Fault, OSError):
        description, used = "damaged", 0.0
    return CacheEntry(folder.name, description, _size(folder), used)


def _newest(folder: Path) -> float:
    return max(path.stat().st_mtime for path in (folder, *folder.iterdir()))


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
