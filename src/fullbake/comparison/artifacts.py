"""What is stored of the trials of a comparison, so that it continues wherever it was stopped.

Finished trials are stored as sealed folders of JSON and arrays, each put in place by one rename and verified when read.
An artifact carries the identity of everything it depends on. One with another identity, or a damaged one, is ignored
and made again.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fullbake.core import storage
from fullbake.core.console import warn
from fullbake.core.errors import Fault, one_line

ArtifactKind = Literal["trained", "weights", "scored", "probed"]
"""What is stored of a trial: `trained` (its validation results), `weights` (until the comparison is done), and of the
chosen trials `scored` (test logits) and `probed` (what the encoder forgot)."""

_ARRAYS = "arrays.safetensors"


@dataclass(frozen=True)
class Artifact:
    """The content of a sealed folder."""

    facts: Mapping[str, Any]
    """JSON values."""
    arrays: Mapping[str, np.ndarray]
    """By name."""


@dataclass(frozen=True)
class ArtifactStore:
    """The artifacts of all trials, in one folder."""

    root: Path

    def folder(self, trial_id: str) -> Path:
        """Return the folder with all artifacts of a trial."""
        return self.root / trial_id

    def read(self, trial_id: str, kind: ArtifactKind, identity: str) -> Artifact | None:
        """Return an artifact; None if there is none with this identity. Warn if it is damaged."""
        folder = self.root / trial_id / kind
        if not folder.is_dir():
            return None
        try:
            seal = storage.verify(folder)
            arrays = storage.read_tensors(folder / _ARRAYS)
        except (Fault, OSError, ValueError) as fault:
            warn(f"trial {trial_id} is damaged on disk and will be run again: {one_line(fault)}")
            return None
        return Artifact(seal["facts"], arrays) if seal["identity"] == identity else None

    def write(self, trial_id: str, kind: ArtifactKind, identity: str, artifact: Artifact) -> None:
        """Store an artifact in place of the one that is there."""
        with storage.staged(self.root / trial_id / kind, overwrite=True) as folder:
            storage.write_tensors(folder / _ARRAYS, artifact.arrays)
            storage.seal(folder, {"identity": identity, "facts": dict(artifact.facts)})

    def remove(self, trial_id: str, kind: ArtifactKind) -> None:
        """Remove an artifact, if there is one."""
        if (self.root / trial_id / kind).is_dir():
            storage.remove_tree(self.root / trial_id / kind)
