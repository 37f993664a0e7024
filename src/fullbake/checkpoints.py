"""Checkpoints of a training loop: sealed folders of arrays and JSON, the newest that verifies wins.

A checkpoint is staged, synced, sealed with the sizes and hashes of its files, renamed, and read back before an older
one goes; two are kept. Reading back costs about as much as hashing (0.3 s for 360 MB), against finding out after the
crash. A damaged checkpoint is named and left out, never used: each one can be read whole or not at all.
"""

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fullbake.core import storage
from fullbake.core.console import say, warn
from fullbake.core.errors import Fault, RecipeError

KEPT = 2
_NAME = re.compile(r"step-(\d{9})")
_CADENCE = re.compile(r"(\d+(?:\.\d+)?)(s|m|h)?")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True)
class Cadence:
    """How often to save: every so many steps, or every so many seconds (the other is None)."""

    steps: int | None = None
    seconds: float | None = None

    @classmethod
    def parse(cls, text: str) -> "Cadence":
        """`50` is steps; `30s`, `5m`, `1h` are times. Raises RecipeError for anything else."""
        found = _CADENCE.fullmatch(text.strip())
        if found and found[2] and float(found[1]) > 0:
            return cls(seconds=float(found[1]) * _SECONDS[found[2]])
        if found and not found[2] and found[1].isdigit() and int(found[1]) > 0:
            return cls(steps=int(found[1]))
        raise RecipeError(
            "checkpoint-every is neither steps nor a time",
            expected="a number of steps such as 50, or a time such as 30s, 5m, 1h",
            got=repr(text),
        )


@dataclass(frozen=True)
class Checkpoint:
    """One state of a loop. arrays: file stem -> its arrays by name. facts: JSON values. step: steps taken in all."""

    step: int
    arrays: Mapping[str, Mapping[str, np.ndarray]]
    facts: Mapping[str, Any]


@dataclass
class Checkpoints:
    """The checkpoints of one loop in one folder.

    identity: what a run must share to go on from them; stands in every manifest. writes: whether this process is the
    one that writes (rank 0).
    """

    folder: Path
    every: Cadence
    identity: str
    writes: bool = True
    _saved_at: float = field(default_factory=time.monotonic)

    def due(self, step: int) -> bool:
        """Whether it is time to save after so many steps."""
        if self.every.steps is not None:
            return step % self.every.steps == 0
        assert self.every.seconds is not None
        return time.monotonic() - self._saved_at >= self.every.seconds

    def save(self, checkpoint: Checkpoint) -> None:
        """Write, read back, and let the oldest go. Raises SpaceFault; what was saved before then still stands."""
        if self.writes:
            place = self.folder / f"step-{checkpoint.step:09d}"
            size = sum(array.nbytes for arrays in checkpoint.arrays.values() for array in arrays.values())
            with storage.staged(place, overwrite=True, needed=size + 1_000_000) as fresh:
                self._write(fresh, checkpoint)
            storage.verify(place)
            for old in self._folders()[:-KEPT]:
                storage.remove(old)
        self._saved_at = time.monotonic()

    def newest(self) -> Checkpoint | None:
        """The newest checkpoint that verifies, None where there is none. Each one passed over is named with its fault.

        Raises Fault where there are checkpoints and none of them can be used.
        """
        if self.writes:
            storage.sweep(self.folder)
        faults = []
        for place in reversed(self._folders()):
            try:
                checkpoint = self._read(place)
            except (Fault, OSError, ValueError, KeyError) as error:
                faults.append(f"{place.name}: {error}")
                warn(f"checkpoint {place} cannot be used, trying the one before it: {error}")
                continue
            if faults:
                say(f"fell back to the checkpoint at step {checkpoint.step:,}")
            return checkpoint
        if faults:
            raise Fault(
                "no checkpoint of this run can be used",
                where=str(self.folder),
                got="; ".join(faults),
                remedy="Pass --restart to train again from the start.",
            )
        return None

    def _write(self, fresh: Path, checkpoint: Checkpoint) -> None:
        for stem, arrays in checkpoint.arrays.items():
            storage.write_tensors(fresh / f"{stem}.safetensors", arrays)
        storage.write_json(fresh / "state.json", dict(checkpoint.facts))
        storage.seal(fresh, {"identity": self.identity, "step": checkpoint.step, "arrays": sorted(checkpoint.arrays)})

    def _read(self, place: Path) -> Checkpoint:
        about = storage.verify(place)
        if about["identity"] != self.identity or place.name != f"step-{about['step']:09d}":
            raise Fault("it belongs to another run or another step", where=str(place))
        arrays = {stem: storage.read_tensors(place / f"{stem}.safetensors") for stem in about["arrays"]}
        return Checkpoint(about["step"], arrays, storage.read_json(place / "state.json"))

    def _folders(self) -> list[Path]:
        """The checkpoints' folders, oldest first."""
        found = self.folder.iterdir() if self.folder.is_dir() else []
        return sorted(path for path in found if _NAME.fullmatch(path.name))
