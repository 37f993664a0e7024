"""One pass over labelled rows, in memory that does not grow with them.

Counts are of all rows; a random sample of rows is kept whole; and beyond a million rows hashes are kept of those texts
whose hash falls into a share of all hashes, so that whole groups of equal texts are in it or out.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from zlib import crc32

import numpy as np
import pyarrow as pa

from fullbake.duplicates import text_hashes
from fullbake.writing import MARKS, marked

MOST_HASHES: Final = 1_000_000
"""Hashes of texts held at a time."""

SHOWN: Final = 5
"""Row numbers that a finding names."""


Named = Sequence[tuple[str, ...] | None]
"""The labels of each row by name, None where the row has no mark of any."""


def named_labels(rows: int, names: tuple[str, ...], labels: np.ndarray, labelled: np.ndarray) -> Named:
    """Labels by name. labels: of the rows at the positions `labelled`, as `LabelReader.finish` gives them."""
    named: list[tuple[str, ...] | None] = [None] * rows
    for position, held in zip(labelled.tolist(), labels.tolist(), strict=True):
        places = [place for place, mark in enumerate(held) if mark] if isinstance(held, list) else [held]
        named[position] = tuple(names[place] for place in places)
    return named


@dataclass
class Survey:
    """What one pass gathers. sample: (key, row, text, labels) of the rows with the lowest random keys. prints: hash,
    label and row of the texts whose hash is a multiple of `share`, in arrays a chunk."""

    source: str
    size: int
    multi_label: bool = False
    rows: int = 0
    unlabelled: int = 0
    bare: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    lengths: Counter[int] = field(default_factory=Counter)
    marked: Counter[str] = field(default_factory=Counter)
    marked_first: dict[str, list[int]] = field(default_factory=dict)
    sample: list[tuple[float, int, str, tuple[str, ...]]] = field(default_factory=list)
    prints: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = field(default_factory=list)
    share: int = 1

    def add(self, texts: list[str], named: Named, numbers: Sequence[int] | None = None) -> None:
        """Take rows; numbers: theirs in the file, None where they go on from the last."""
        rows = list(numbers) if numbers is not None else list(range(self.rows + 1, self.rows + 1 + len(texts)))
        keys = np.random.Generator(np.random.PCG64([self.rows, 1])).random(len(texts)).tolist()
        self.rows += len(texts)
        self.unlabelled += sum(labels is None for labels in named)
        self.bare += sum(labels == () for labels in named)
        self.labels.update(label for labels in named for label in labels or ())
        self.lengths.update(map(len, texts))
        self._mark(pa.array(texts, pa.large_string()), rows)
        self._print(texts, named, rows)
        taken = [(key, row, text, held or ()) for key, row, text, held in zip(keys, rows, texts, named, strict=True)]
        limit = self.sample[-1][0] if len(self.sample) >= self.size else 2.0
        self.sample = sorted([*self.sample, *(one for one in taken if one[0] < limit)])[: self.size]

    def _mark(self, texts: pa.Array, rows: list[int]) -> None:
        for name, pattern in MARKS.items():
            found = marked(texts, pattern)
            first = self.marked_first.setdefault(name, [])
            first.extend(rows[position] for position in found[: SHOWN - len(first)])
            self.marked[name] += len(found)

    def _print(self, texts: list[str], named: Named, rows: list[int]) -> None:
        """Keep hashes, and half as many whenever there are too many: those of a text are kept together or not at
        all."""
        whole = text_hashes(texts).view("<u8")[:, 0]
        own = np.array([crc32("\x1f".join(sorted(labels or ())).encode()) for labels in named], dtype=np.uint32)
        self.prints.append(_every(self.share, (whole, own, np.array(rows))))
        while sum(len(hashes) for hashes, _, _ in self.prints) > MOST_HASHES:
            self.share *= 2
            self.prints = [_every(self.share, arrays) for arrays in self.prints]


def _every(share: int, arrays: tuple[np.ndarray, ...]) -> Any:
    kept = arrays[0] % np.uint64(share) == 0
    return tuple(array[kept] for array in arrays)
