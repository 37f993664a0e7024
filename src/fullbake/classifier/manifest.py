"""What a bundle says of itself: `fullbake.json` and the files' hashes, checked without knowing any model class."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from fullbake.core import hashing, storage
from fullbake.core.errors import BundleError

BUNDLE_FORMAT = 1
MANIFEST_FILE = "fullbake.json"
UNHASHED_FILES = ("history.json", "history.png", "reliability.png", "labels.png", "README.md")
"""Files that may be edited or removed."""

TOLERANCE = 1e-3
"""Largest difference between probe logits, over their scale, that rounding between machines explains in fp32."""


COPY_AGAIN_REMEDY = "Copy the bundle again from where it was whole, or train it again."


def sign_manifest(manifest: dict[str, Any]) -> dict[str, Any]:
    """The manifest with a sha256 of its own, over all its other entries."""
    content = {name: value for name, value in manifest.items() if name != "sha256"}
    return content | {"sha256": hashing.fingerprint(json.dumps(content, sort_keys=True))}


def read_manifest(folder: Path) -> dict[str, Any]:
    """`fullbake.json` without its format, checked against its own sha256; `files` are the hashes of the rest. Raises
    BundleError."""
    path = folder / MANIFEST_FILE
    if not path.is_file():
        raise BundleError(
            "this is no fullbake bundle",
            where=str(folder),
            expected=f"a folder with {MANIFEST_FILE}, as `fullbake train --out` writes it",
            got=_describe_path(folder),
        )
    try:
        facts = storage.read_json(path)
        found = facts["format"]
    except (ValueError, TypeError, KeyError) as error:
        raise BundleError(
            f"{MANIFEST_FILE} is damaged", where=str(folder), got=str(error), remedy=COPY_AGAIN_REMEDY
        ) from error
    if found != BUNDLE_FORMAT:
        raise BundleError(
            "this bundle is of another format version",
            where=str(path),
            expected=str(BUNDLE_FORMAT),
            got=str(found),
            remedy=f"It was written by fullbake {facts.get('versions', {}).get('fullbake')}: install that version.",
        )
    if facts != sign_manifest(facts):
        raise BundleError(
            f"{MANIFEST_FILE} is damaged (its own sha256 differs)", where=str(folder), remedy=COPY_AGAIN_REMEDY
        )
    return {name: value for name, value in facts.items() if name not in ("format", "sha256")}


def _describe_path(folder: Path) -> str:
    if folder.is_dir():
        return f"a folder without {MANIFEST_FILE}"
    return "a file" if folder.exists() else "no such folder"


def verify_files(folder: Path, recorded: dict[str, Any]) -> None:
    """Raise BundleError where a file is not what its hash says."""
    faults = hashing.find_file_faults(folder, recorded, optional=(MANIFEST_FILE, *UNHASHED_FILES))
    if faults:
        raise BundleError(
            f"the bundle is not what was saved: {'; '.join(faults)}", where=str(folder), remedy=COPY_AGAIN_REMEDY
        )


def relative_difference(expected: np.ndarray, got: np.ndarray) -> float:
    """The largest difference between probe logits, over the scale of those that were saved."""
    scale = max(float(np.abs(expected).max()), 1e-6)
    return float(np.abs(got - expected).max()) / scale if got.shape == expected.shape else float("inf")
