"""Carry entries of the caches between machines that share no folder: features, and further-pretrained bases.

An entry goes as the bytes of its files. The receiver writes them into its own cache, which seals and checks them as if
it had made them.
"""

import functools
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Final

from fullbake.comparison.packing import divide_message, join_message
from fullbake.core import runtime, storage
from fullbake.core.cache import Cache
from fullbake.pretraining.stage import BASE_CACHE_BYTES
from fullbake.training.job import FEATURE_CACHE_BYTES

CARRIED: Final = {"features": FEATURE_CACHE_BYTES, "bases": BASE_CACHE_BYTES}
"""Name of a cache's folder -> the limit of that cache. Entries of other caches are only needed to make these."""


def pack_entries(found: Mapping[tuple[str, str], Path]) -> dict[str, bytes]:
    """Return the bytes of the entries of caches, by "cache/key".

    Args:
        found: What `noted_entries` noted.
    """
    return {f"{cache}/{key}": _pack(folder) for (cache, key), folder in found.items() if cache in CARRIED}


def _pack(folder: Path) -> bytes:
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    files = {name: (folder / name).read_bytes() for name in names if name != storage.SEAL_FILE}
    description = storage.verify(folder, contents=False)["description"]
    return join_message({"description": description}, files)


def install_entries(entries: Mapping[str, bytes], cache_dir: str | Path | None) -> None:
    """Write entries into the caches of this machine, except those that are there.

    Args:
        entries: What `pack_entries` returned.
        cache_dir: Holds all caches; None for the default.

    Raises:
        ValueError: An entry is of no known cache, or has a file outside of its folder.
        SpaceFault: The disk is full.
    """
    for name, data in entries.items():
        kind, _, key = name.partition("/")
        if kind not in CARRIED:
            raise ValueError(f"an entry of the cache {kind!r}")
        cache = Cache(runtime.cache_dir(cache_dir) / kind, CARRIED[kind])
        if not cache.has(key):
            head, files = divide_message(data)
            if not all(_is_inside(file) for file in files):
                raise ValueError(f"files of {name} that are outside of it")
            cache.store(key, str(head["description"]), functools.partial(_write, files))


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and not set(name) & {"\\", "\0"}


def _write(files: Mapping[str, bytes], folder: Path) -> None:
    for name, content in files.items():
        storage.make_folder((folder / name).parent)
        (folder / name).write_bytes(content)
