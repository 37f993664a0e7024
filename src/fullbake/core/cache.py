"""A bounded folder of results that can be computed again, such as frozen features, by a key of all they depend on.

An entry is a sealed folder, put by one rename. It is read only after every byte has matched its hash; a damaged entry
is dropped and computed again. Several processes may share a cache: while one of them makes an entry with
`put_resumable`, the others wait, and if it dies, the next one resumes its work. Trade-offs: hashing at each read costs
some 0.2 s for 150 MB, but no training uses damaged features. Nothing locks an entry while it is read, so another
process may evict it; a file that was open or mapped before that stays readable, except on Windows.
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

from fullbake.core import storage
from fullbake.core.console import format_size, say
from fullbake.core.errors import Fault, OutputError

_KEY = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]{0,127}")

_GROWING = ".growing"
"""The end of the folder name of an entry that is being made; no key has a dot."""

_ABANDONED_SECONDS = 14 * 24 * 3600.0
"""An unfinished entry that nobody has touched for this long is removed."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CacheEntry:
    """What `fullbake cache` shows of an entry.

    Attributes:
        key: what it is found by.
        description: one line for a person.
        size: bytes on disk.
        used: time of the last use, in seconds since 1970.
    """

    key: str
    description: str
    size: int
    used: float


class Cache:
    """Sealed folders by key, together at most `limit_bytes` large; the least recently used are evicted first."""

    def __init__(self, root: str | Path, limit_bytes: int) -> None:
        """Open a cache; the folder `root` is made when the first entry is put."""
        self.root, self.limit_bytes = Path(root), limit_bytes

    def get(self, key: str) -> Path | None:
        """Return the folder that was put under `key`, after a check of every byte, or None if there is none.

        A damaged entry is dropped with a warning in the log. Read what you need before the next `put`, which may evict
        the entry.
        """
        folder = self._folder(key)
        if not folder.is_dir():
            return None
        try:
            storage.verify(folder)
        except (Fault, OSError) as fault:
            _log.warning("dropped a damaged cache entry, it will be computed again: %s", fault)
            self._drop(folder)
            return None
        with suppress(OSError):  # a cache that may only be read is still a cache
            os.utime(folder / storage.SEAL_FILE)
        return folder

    @contextmanager
    def put(self, key: str, description: str) -> Iterator[Path]:
        """Provide an empty folder and keep what the block writes there under `key`.

        If the block raises, nothing is kept. If another process has put the key meanwhile, its entry stays. An entry
        larger than the bound is not kept, which a warning in the log says.

        Args:
            key: letters, digits, - and _, at most 128.
            description: one line for a person.

        Yields:
            The folder to write into.

        Raises:
            OutputError: the folder cannot be made.
            SpaceFault: the disk is full.
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

    def can_hold(self, size: int) -> bool:
        """Return True if an entry of so many bytes is within the bound."""
        return size <= self.limit_bytes

    @contextmanager
    def put_resumable(self, key: str, description: str, needed: int = 0) -> Iterator[Path | None]:
        """Provide the folder in which the entry of `key` is made, with all that an earlier attempt left there.

        It becomes the entry when the block ends without an exception; otherwise it stays for the next attempt. Only one
        process at a time makes an entry, the others wait.

        Args:
            key: letters, digits, - and _, at most 128.
            description: one line for a person.
            needed: bytes of the whole entry, which the disk must have free.

        Yields:
            The folder to write into, or None if another process has made the entry meanwhile: then `get` it.

        Raises:
            OutputError: the folder cannot be made.
            SpaceFault: the disk is full.
        """
        place = self._folder(key).resolve()
        folder = place.with_name(place.name + _GROWING)
        storage.make_folder(self.root)
        with self._sole_maker(key):
            if place.exists():
                yield None
                return
            self._remove_abandoned(older_than=_ABANDONED_SECONDS)
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
    def _sole_maker(self, key: str) -> Iterator[None]:
        """Wait until no other process makes the entry of `key`, and keep others waiting within the block."""
        lock = FileLock(self.root / f".{key}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            say("another process is computing the same; waiting for it to finish")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def _remove_abandoned(self, older_than: float) -> None:
        """Remove unfinished entries that nobody has touched for so many seconds, and their locks, if nobody holds
        them."""
        for path in self.root.glob(".?*.lock"):
            folder = self.root / (path.name[1:].removesuffix(".lock") + _GROWING)
            with suppress(Timeout, OSError), FileLock(path).acquire(timeout=0):
                if folder.is_dir() and time.time() - _newest(folder) >= older_than:
                    self._drop(folder)
                if not folder.exists():
                    path.unlink()

    def entries(self) -> list[CacheEntry]:
        """Return all entries, the most recently used first."""
        found = []
        for folder in self._folders():
            with suppress(FileNotFoundError):  # another process has just evicted it
                found.append(_read_entry(folder))
        return sorted(found, key=lambda entry: -entry.used)

    def clear(self) -> int:
        """Remove all entries and what dead processes left, and return the size of the entries in bytes."""
        freed = sum(entry.size for entry in self.entries())
        for folder in self._folders():
            self._drop(folder)
        self._remove_abandoned(older_than=0)
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
        """Make room and move `fresh` to its place. The caller holds the lock: otherwise two processes could exceed
        the bound together."""
        size = _size(fresh)
        if size > self.limit_bytes:
            _log.warning(
                "not kept in the cache: %s is more than its bound of %s",
                format_size(size),
                format_size(self.limit_bytes),
            )
            return
        if place.exists():
            return
        self._evict(self.limit_bytes - size)
        with suppress(OutputError):  # a process on another host, which the lock does not reach, has put it
            storage.publish(fresh, place)

    def _evict(self, room: int) -> None:
        entries = self.entries()
        total = sum(entry.size for entry in entries)
        for entry in reversed(entries):
            if total <= room:
                return
            self._drop(self.root / entry.key)
            total -= entry.size

    def _drop(self, folder: Path) -> None:
        """Remove an entry, or leave it if that is not permitted.

        It is renamed before it is removed, so that no reader finds half an entry.
        """
        with suppress(FileNotFoundError, OutputError), storage.hidden_folder(folder.resolve()) as removed:
            storage.publish(folder, removed)


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
