"""sha256 of files, folders and plain values, as 64 hex digits.

It imports no other module of the package, so that every layer can identify things in the same way. Trade-off: a folder
is checked by reading all of it (some 0.8 GB/s on one core), because sizes alone would not show a flipped bit.
"""

import fnmatch
import hashlib
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def fingerprint(*parts: Any) -> str:
    """Return the sha256, in hex, of plain values.

    Every value is framed by its kind and length, so ("ab", "c") and ("a", "bc") differ, and so do 1, 1.0, True and
    "1". A list equals a tuple. The order of a dict does not matter. The dtype and shape of an array do.

    Args:
        parts: None, bool, int, float, str, bytes, arrays, and lists, tuples and dicts of them.

    Raises:
        TypeError: for any other type.
    """
    digest = hashlib.sha256()
    for part in parts:
        _update(digest, part)
    return digest.hexdigest()


FileStamp = tuple[int, int, int]


def file_stamp(path: Path) -> FileStamp | None:
    """Return what changes when a file is written or replaced: its time in ns, bytes and inode; None without a file."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def file_sha256(path: Path) -> str:
    """Return the sha256, in hex, of a file's bytes, which are read in chunks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_known: dict[Path, tuple[FileStamp | None, str]] = {}
"""File -> its stamp and sha256 when it was last hashed in this process."""


def unchanged_file_sha256(path: Path) -> str:
    """Return what `file_sha256` returns, from memory if the file has the stamp of the last call.

    It is for large files that several checks of a run name by their hash, such as weights and tokenizers.
    """
    stamp, file = file_stamp(path), path.absolute()
    known = _known.get(file)
    if known is None or known[0] != stamp:
        known = _known[file] = stamp, file_sha256(path)
    return known[1]


def hash_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Return {"size", "sha256"} of every file below `folder`, by its relative name ("a/b.json"), sorted."""
    return {
        name: {"size": path.stat().st_size, "sha256": file_sha256(path)}
        for name, path in sorted(_files(folder).items())
    }


def find_file_faults(
    folder: Path,
    recorded: Mapping[str, Mapping[str, Any]],
    *,
    optional: Sequence[str] = (),
    contents: bool = True,
    foreign: bool = True,
) -> list[str]:
    """Compare a folder with what `hash_files` recorded, and return its faults, one clause for each file.

    Args:
        folder: the folder to check.
        recorded: the recorded files, as `hash_files` gave them.
        optional: names or shell patterns ("history.*") of files that may be changed, missing or added.
        contents: compare the hashes too; without it only names and sizes are compared, which reads no file.
        foreign: count a file that was not recorded as a fault.

    Returns:
        An empty list if the folder is as it was.
    """

    def is_optional(name: str) -> bool:
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in optional)

    found = _files(folder)
    faults = [
        _file_fault(name, found.get(name), recorded[name], contents) for name in recorded if not is_optional(name)
    ]
    added = sorted((found.keys() - recorded.keys()) | _other_entries(folder)) if foreign else []
    return [fault for fault in faults if fault] + [f"{name} is foreign" for name in added if not is_optional(name)]


def _other_entries(folder: Path) -> set[str]:
    """Return what is neither a plain file nor a folder (pipes, devices, links that lead nowhere), and linked folders.

    A linked folder is not looked into, so what it holds must not be read either.
    """
    odd = (path for path in folder.rglob("*") if not path.is_file() and (path.is_symlink() or not path.is_dir()))
    return {path.relative_to(folder).as_posix() for path in odd}


def _files(folder: Path) -> dict[str, Path]:
    return {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}


def _file_fault(name: str, path: Path | None, recorded: Mapping[str, Any], contents: bool) -> str | None:
    if path is None:
        return f"{name} is missing"
    size = path.stat().st_size
    if size != recorded.get("size"):
        return f"{name} is damaged ({size:,} bytes, {recorded.get('size')} when it was written)"
    if contents and file_sha256(path) != recorded.get("sha256"):
        return f"{name} is damaged (its sha256 differs)"
    return None


def _update(digest: Any, part: Any) -> None:
    kind, payload = _frame(part)
    digest.update(struct.pack(">cQ", kind, len(part) if kind in b"ld" else len(payload)))
    digest.update(payload)
    if kind == b"l":
        for item in part:
            _update(digest, item)
    if kind == b"d":
        for key in sorted(part):
            _update(digest, key)
            _update(digest, part[key])


def _frame(part: Any) -> tuple[bytes, Any]:
    """Return a value's kind and bytes. Those of the items of a list or dict follow one by one, in `_update`."""
    match part:
        case None:
            return b"n", b""
        case bool():
            return b"t", bytes([part])
        case int():
            return b"i", str(part).encode()
        case float():
            return b"f", struct.pack(">d", part)
        case str():
            return b"s", part.encode("utf-8", "surrogatepass")
        case bytes():
            return b"b", part
        case list() | tuple():
            return b"l", b""
        case dict() if all(isinstance(key, str) for key in part):
            return b"d", b""
        case np.ndarray() if part.dtype.kind in "biufSU":
            return b"a", _array_bytes(part)
    raise TypeError(f"cannot fingerprint {type(part).__name__} {part!r:.80}")


def _array_bytes(array: NDArray[Any]) -> bytes:
    return f"{array.dtype.str}{array.shape}:".encode() + np.asarray(array, order="C").tobytes()
