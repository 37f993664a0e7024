"""A bounded folder of results that can be computed again, such as frozen features, by a key of all they depend on.

An entry is a sealed folder, put by one rename. It is read only after every byte has matched its hash; a damaged entry
is dropped and computed again. Several processes may share a cache: while one of them makes an entry with
`put_resumable`, the others wait, and if it dies, the next one resumes its work. Trade-offs: hashing at each read costs
some 0.2 s for 150 MB, but no training uses damaged features. Nothing locks an entry while it is read, so another
process may evict it; a file that was open or mapped before that stays readable, except on Windows.

A cache is a convenience, so the work does without it where it must: what a read-only cache cannot take lies in a
temporary folder until the process ends, and what somebody deletes while the work runs is made again.
"""

import logging
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout

from fullbake.core import runtime, storage
from fullbake.core.console import format_size, say, warn
from fullbake.core.errors import Fault, OutputError, one_line

_KEY = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]{0,127}")

_GROWING = ".growing"
"""The end of the folder name of an entry that is being made; no key has a dot."""

_ABANDONED_SECONDS = 14 * 24 * 3600.0
"""An unfinished entry that nobody has touched for this long is removed."""

_log = logging.getLogger(__name__)

_substitutes: dict[Path, tempfile.TemporaryDirectory[str]] = {}
"""Root of a cache that cannot be written to -> the folder that takes its place in this process."""


class CacheDeleted(Fault):
    """Somebody deleted an entry while it was made."""


_noted: ContextVar[dict[tuple[str, str], Path] | None] = ContextVar("noted", default=None)


@contextmanager
def noted_entries() -> Iterator[dict[tuple[str, str], Path]]:
    """Within the block, note what is read from caches.

    Yields:
        (name of the cache's folder, key) -> folder of the entry; it fills while the block runs.
    """
    found: dict[tuple[str, str], Path] = {}
    token = _noted.set(found)
    try:
        yield found
    finally:
        _noted.reset(token)


Made = TypeVar("Made")
"""What a piece of work returns."""


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
        substitute = self._substitute()
        if not os.path.isdir(folder):
            return None if substitute is None else substitute.get(key)
        try:
            storage.verify(folder)
        except (Fault, OSError) as fault:
            _log.warning("dropped a damaged cache entry, it will be computed again: %s", one_line(fault))
            self._drop(folder)
            return None if substitute is None else substitute.get(key)
        with suppress(OSError):  # a cache that may only be read is still a cache
            os.utime(folder / storage.SEAL_FILE)
        note = _noted.get()
        if note is not None:
            note[self.root.name, key] = folder
        return folder

    def has(self, key: str) -> bool:
        """Return True if there is an entry of this key, whose bytes are not checked."""
        substitute = self._substitute()
        return os.path.isdir(self._folder(key)) or (substitute is not None and substitute.has(key))

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
            OutputError: the folder cannot be made, nor a temporary one in its place.
            SpaceFault: the disk is full.
            CacheDeleted: somebody deleted the folder meanwhile.
        """
        with self._writable()._put(key, description) as fresh:
            yield fresh

    @contextmanager
    def _put(self, key: str, description: str) -> Iterator[Path]:
        place = self._folder(key).resolve()
        with storage.hidden_folder(place) as fresh, _noticing_deletion(fresh):
            storage.recover_all(self.root)
            fresh.mkdir()
            yield fresh
            storage.seal(fresh, {"description": description})
            storage.sync_tree(fresh)
            with self._lock():
                self._admit(fresh, place)

    def store(self, key: str, description: str, write: Callable[[Path], None]) -> Path | None:
        """Keep what `write` writes under `key`, and return its folder; None if it is larger than the bound.

        If somebody deletes the cache meanwhile, it is written once more.

        Args:
            key: letters, digits, - and _, at most 128.
            description: one line for a person.
            write: writes the entry into the folder that it is given, which is empty.

        Raises:
            OutputError, SpaceFault: as `put`.
        """

        def attempt() -> Path | None:
            with self.put(key, description) as folder:
                write(folder)
                size = _size(folder)
            found = self.get(key)
            if found is None and self.can_hold(size):
                raise deleted_entry_error(self.root / key)
            return found

        return made_again(attempt)

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
            OutputError: the folder cannot be made, nor a temporary one in its place.
            SpaceFault: the disk is full.
            CacheDeleted: somebody deleted the folder meanwhile.
        """
        with self._writable()._put_resumable(key, description, needed) as folder:
            yield folder

    @contextmanager
    def _put_resumable(self, key: str, description: str, needed: int) -> Iterator[Path | None]:
        place = self._folder(key).resolve()
        folder = place.with_name(place.name + _GROWING)
        storage.make_folder(self.root)
        with self._sole_maker(key):
            if place.exists():
                yield None
                return
            self._remove_abandoned(older_than=_ABANDONED_SECONDS)
            storage.make_folder(folder)
            with storage.translate_full_disk(folder, place, needed), _noticing_deletion(folder):
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
        """Remove all entries and what dead processes left, and return the size of the entries in bytes.

        Raises:
            OutputError: the cache cannot be written to.
        """
        if self.root.is_dir():
            storage.require_writable(self.root / "entry")
        freed = sum(entry.size for entry in self.entries())
        for folder in self._folders():
            self._drop(folder)
        self._remove_abandoned(older_than=0)
        storage.recover_all(self.root)
        return freed

    def _writable(self) -> "Cache":
        """Return this cache, or the one that takes its place in this process if it cannot be written to."""
        try:
            storage.require_writable(self.root / "entry")
        except OutputError as error:
            return self._substitute() or self._make_substitute(error)
        return self

    def _substitute(self) -> "Cache | None":
        folder = _substitutes.get(self.root.absolute())
        return None if folder is None else Cache(folder.name, self.limit_bytes)

    def _make_substitute(self, error: OutputError) -> "Cache":
        if runtime.world_size() > 1:  # the other processes would not find it
            raise error
        try:
            folder = tempfile.TemporaryDirectory(prefix="fullbake-cache-")
        except OSError:  # no folder for temporary files either
            raise error from None
        # The caches of a run lie side by side; one warning says enough of them.
        is_first = all(root.parent != self.root.absolute().parent for root in _substitutes)
        _substitutes[self.root.absolute()] = folder
        if is_first:
            warn(
                f"the cache {self.root} cannot be written to ({error.got}): what would be kept there is kept in "
                f"{folder.name} until this run ends. --cache-dir names another folder"
            )
        return Cache(folder.name, self.limit_bytes)

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


def made_again(work: Callable[[], Made]) -> Made:
    """Return the result of work that fills a cache. If somebody deletes the cache meanwhile, it is done once more."""
    try:
        return work()
    except CacheDeleted as deleted:
        warn(f"{deleted.where} was deleted while it was made, and is made again")
        return work()


@contextmanager
def _noticing_deletion(folder: Path) -> Iterator[None]:
    """Raise CacheDeleted for whatever goes wrong within the block because the folder, or a file in it, is gone."""
    try:
        yield
    except FileNotFoundError as error:
        if folder.is_dir() and not str(error.filename).startswith(str(folder)):
            raise
        raise deleted_entry_error(folder) from error


def deleted_entry_error(folder: Path) -> CacheDeleted:
    """Return the error for an entry that somebody deleted while it was made or needed."""
    return CacheDeleted(
        "somebody deleted this folder of the cache while it was used",
        where=str(folder),
        remedy="Run the same command again: it makes what is missing.",
    )


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
