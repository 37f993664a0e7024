"""The finished cells of a comparison on disk: sealed folders of JSON and arrays, put by one rename, checked when read.

A cell has up to four: `trained` (what validation saw of it), `weights` (kept until the comparison is done), and of the
choice alone `scored` (test logits) and `probed` (what its encoder forgot). Each carries the identity of all that it
depends on: one of another identity, or a damaged one, counts as not there and is made again.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fullbake.core import storage
from fullbake.core.console import warn
from fullbake.core.errors import Fault

Kind = Literal["trained", "weights", "scored", "probed"]

_ARRAYS = "arrays.safetensors"


@dataclass(frozen=True)
class Kept:
    """What a sealed folder holds: JSON values, and arrays by name."""

    facts: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Cells:
    """The cells under one folder."""

    root: Path

    def folder(self, cell: str) -> Path:
        """Where all of a cell lies."""
        return self.root / cell

    def read(self, cell: str, kind: Kind, identity: str) -> Kept | None:
        """What was kept, None where nothing of this identity was."""
        folder = self.root / cell / kind
        if not folder.is_dir():
            return None
        try:
            about = storage.verify(folder)
            arrays = storage.read_tensors(folder / _ARRAYS)
        except (Fault, OSError, ValueError) as fault:
            warn(f"cell {cell} is damaged and will be made again: {fault}")
            return None
        return Kept(about["facts"], arrays) if about["identity"] == identity else None

    def keep(self, cell: str, kind: Kind, identity: str, kept: Kept) -> None:
        """Put it in place of what is there."""
        with storage.staged(self.root / cell / kind, overwrite=True) as folder:
            storage.write_tensors(folder / _ARRAYS, kept.arrays)
            storage.seal(folder, {"identity": identity, "facts": dict(kept.facts)})

    def drop(self, cell: str, kind: Kind) -> None:
        """Remove what was kept, if anything."""
        if (self.root / cell / kind).is_dir():
            storage.remove(self.root / cell / kind)
