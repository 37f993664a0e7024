"""Carry a trained classifier within a pickle as the files of its bundle, not as Python objects.

Loading checks every hash and the logits of the probe texts, as for a bundle on disk. What is not needed to predict,
such as plots, is left out. The price is one save and one load for each copy of a fitted estimator.
"""

import tempfile
from pathlib import Path, PurePosixPath
from typing import Any, Final

import numpy as np

from fullbake.classifier.model import Classifier
from fullbake.core.errors import BundleError

PACKED_FORMAT: Final = 1
"""The version of the packed form."""

_LEFT_OUT: Final = (".png", ".md")


def pack_bundle(classifier: Classifier) -> dict[str, Any]:
    """Return the files of a classifier's bundle: `format`, and `files` with the bytes of each as a uint8 array."""
    with tempfile.TemporaryDirectory(prefix="fullbake-pack-") as parent:
        folder = Path(parent) / "bundle"
        classifier.save(folder)
        kept = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix not in _LEFT_OUT)
        files = {path.relative_to(folder).as_posix(): np.fromfile(path, np.uint8) for path in kept}
    return {"format": PACKED_FORMAT, "files": files}


def unpack_bundle(packed: dict[str, Any]) -> Classifier:
    """Return the classifier that `pack_bundle` packed.

    Raises:
        BundleError: The form is not known, or the bundle is damaged or gives other logits than when it was saved.
    """
    if packed.get("format") != PACKED_FORMAT:
        raise BundleError(
            "this fitted estimator was pickled by another version of fullbake",
            expected=f"format {PACKED_FORMAT}",
            got=repr(packed.get("format"))[:40],
            remedy="Load it with the version that wrote it, save estimator.classifier_ as a bundle, and load that.",
        )
    with tempfile.TemporaryDirectory(prefix="fullbake-unpack-", ignore_cleanup_errors=True) as parent:
        folder = Path(parent) / "bundle"
        for name, content in packed["files"].items():
            _check_name(name)
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(np.asarray(content, dtype=np.uint8).tobytes())
        return Classifier.load(folder)


def _check_name(name: str) -> None:
    """Raise BundleError for a name that would be written outside the folder."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name or "\0" in name:
        raise BundleError(
            "a pickled estimator names a file outside its bundle",
            got=repr(name)[:80],
            remedy="Do not load this file: fullbake did not write it.",
        )
