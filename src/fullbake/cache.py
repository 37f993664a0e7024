"""A bounded folder of things that can be made again: frozen features, by a key of all they depend on.

An entry is a sealed folder, put by one rename, and read only after every byte agreed with its hash: a damaged
one is dropped and made again, never used. Several processes may share a cache. Trade-offs: hashing each time
costs some 0.2 s for 150 MB, against training on rotten features; and nothing holds an entry while it is read,
so a reader takes what it needs at once (the least recently used go first, and reading counts as use).
"""

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from fullbake import storage
from fullbake.errors import Fault, OutputError

_KEY = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]{0,127}")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
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
            os.utime(folder / storage.MANIFEST)
        return folder

    @contextmanager
    def put(self, key: str, description: str) -> Iterator[Path]:
        """Yields an empty folder; what is written there is kept under `key` when the block ends well.

        Where another process put the key meanwhile, its entry stands. An entry larger than the bound is not
        kept, with a warning in the log that says so. Raises OutputError where the folder cannot be made,
        SpaceFault where the disk is full.
        """
        place = self._folder(key).resolve()
        with storage.hidden(place) as fresh:
            storage.sweep(self.root)
            fresh.mkdir()
            yield fresh
            storage.seal(fresh, {"description": description})
            storage.settle(fresh)
            with self._lock():
                self._admit(fresh, place)

    def entries(self) -> list[Entry]:
        """All entries, the last used first."""
        found = []
        for folder in self._folders():
            with suppress(FileNotFoundError):  # another process has just thrown it out
                found.append(_entry(folder))
        return sorted(found, key=lambda entry: -entry.used)

    def clear(self) -> int:
        """Removes all entries and what dead processes left; returns the bytes of the entries."""
        freed = sum(entry.size for entry in self.entries())
        for folder in self._folders():
            self._drop(folder)
        storage.sweep(self.root)
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
                storage.amount(size),
                storage.amount(self.limit_bytes),
            )
            return
        if place.exists():
            return
        self._evict(self.limit_bytes - size)
        with suppress(OutputError):  # put by a process that a lock does not reach (another host)
            storage.put(fresh, place)

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
        with suppress(FileNotFoundError, OutputError), storage.hidden(folder.resolve()) as grave:
            storage.put(folder, grave)


def _entry(folder: Path) -> Entry:
    manifest = folder / storage.MANIFEST
    try:
        description, used = storage.verify(folder, contents=False)["description"], manifest.stat().st_mtime
    except (Fault, OSError):
        description, used = "damaged", 0.0
    return Entry(folder.name, description, _size(folder), used)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
