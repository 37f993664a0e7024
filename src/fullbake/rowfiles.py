"""Arrays of equal rows in one file: made part by part in any order, gone on with after a kill, memory-mapped when read.

The file is safetensors with one tensor, `rows`, so anything that reads safetensors reads it. Beside it, while it is
being made, lies a journal: a line a part with the hash of that part's rows. Whoever goes on keeps a part whose rows
still have their hash, and makes any other anew; so nothing hangs on the order in which a dying machine wrote its pages.
The price: what is kept is hashed once more when going on, a second for 1.5 GB.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

FILE: Final = "rows.safetensors"
JOURNAL: Final = "journal.jsonl"

Precision = Literal["fp32", "fp16"]

_DTYPES: Final[dict[Precision, tuple[str, type[np.floating[Any]]]]] = {
    "fp32": ("F32", np.float32),
    "fp16": ("F16", np.float16),
}
_ZEROS: Final = bytes(1 << 20)


@dataclass(frozen=True)
class Shape:
    """What a file holds: `rows` x `width` numbers of a precision. fp16 keeps 11 bits of each number and half the
    bytes."""

    rows: int
    width: int
    precision: Precision = "fp32"

    @property
    def size(self) -> int:
        """Bytes of the numbers."""
        return self.rows * self.width * np.dtype(self.dtype).itemsize

    @property
    def dtype(self) -> type[np.floating[Any]]:
        """numpy's type of a number."""
        return _DTYPES[self.precision][1]


Parts = Sequence[np.ndarray]
"""Which rows of the file each part makes, int64 (n,): every row in exactly one."""


def fill(folder: Path, shape: Shape, parts: Parts, make: Callable[[int], np.ndarray]) -> Iterator[int]:
    """Make the file in `folder`, part by part, and yield the number of each as it is there (also where it was already).

    make: number of a part -> its rows, float (n, width), in the order of `parts`; called only for what the folder does
    not hold yet. parts and what `make` gives have to be the same each time, which is for the caller's key to see to.
    The journal stays beside the file: a kill after the last part costs no more than one before it.
    """
    path, journal = folder / FILE, folder / JOURNAL
    known = _known(journal) if path.is_file() else {}
    if not known:
        _create(path, shape)
        journal.write_bytes(b"")
    rows = _mapped(path, "r+")
    with journal.open("a", encoding="utf-8") as notes:
        for number, places in enumerate(parts):
            if number not in known or known[number] != _digest(rows[places]):
                rows[places] = make(number)
                notes.write(json.dumps({"part": number, "sha256": _digest(rows[places])}) + "\n")
                notes.flush()
            yield number


def map_rows(folder: Path) -> np.ndarray:
    """The file in `folder`, memory-mapped: (rows, width), float32 or float16. Nothing is read before it is used.

    What is written to the array stays in memory: the file is never changed. Raises OSError where it is missing.
    """
    return _mapped(folder / FILE, "c")


def _digest(rows: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(rows).data).hexdigest()


def _known(journal: Path) -> dict[int, str]:
    """Hashes of the parts that were noted; a last line that was cut off is no note."""
    lines = journal.read_bytes().split(b"\n")[:-1] if journal.is_file() else []
    notes = [json.loads(line) for line in lines]
    return {note["part"]: note["sha256"] for note in notes}


def _create(path: Path, shape: Shape) -> None:
    """A file of zeros: really written, since a map over a hole that a full disk cannot fill kills the process."""
    header = {"dtype": _DTYPES[shape.precision][0], "shape": [shape.rows, shape.width], "data_offsets": [0, shape.size]}
    text = json.dumps({"rows": header}).encode()
    text += b" " * (-(len(text) + 8) % 64)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for start in range(0, shape.size, len(_ZEROS)):
            file.write(_ZEROS[: shape.size - start])
        file.flush()
        os.fsync(file.fileno())


def _mapped(path: Path, mode: Literal["r+", "c"]) -> np.ndarray:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))["rows"]
    dtype = dict(_DTYPES.values())[header["dtype"]]
    if not header["data_offsets"][1]:  # there is no map of nothing
        return np.empty(header["shape"], dtype)
    return np.asarray(np.memmap(path, dtype, mode, offset=8 + length, shape=tuple(header["shape"])))
