"""Check a bundle's fullbake.json and the hashes of its files.

Knows files and arrays, but no model class, so that the lightweight path can use it without transformers.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from fullbake.core import hashing, storage
from fullbake.core.errors import BundleError
from fullbake.core.storage import MANIFEST_FILE

BUNDLE_FORMAT = 1
"""Version of the bundle format."""

UNHASHED_FILES = ("history.json", "history.png", "reliability.png", "labels.png", "README.md")
"""Files that users may edit or remove; they are not hashed."""

TOLERANCE = 1e-3
"""Largest difference between probe logits, relative to their scale, that fp32 rounding explains."""

COPY_AGAIN_REMEDY = "Copy the bundle again from an intact copy, or train it again."


def sign_manifest(manifest: dict[str, Any]) -> dict[str, Any]:
    """Return the manifest with the entry `sha256`, computed over all its other entries."""
    content = {name: value for name, value in manifest.items() if name != "sha256"}
    return content | {"sha256": hashing.fingerprint(json.dumps(content, sort_keys=True))}


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read fullbake.json and check its format and its own sha256.

    Args:
        folder: The bundle.

    Returns:
        Its entries but for `format` and `sha256`. The entry `files` has the hashes of the other files.

    Raises:
        BundleError: The folder is no bundle, the file is damaged, or its format is of another version.
    """
    try:
        facts = storage.read_manifest_file(folder)
        found = None if facts is None else facts["format"]
    except (OSError, ValueError, KeyError) as error:
        raise BundleError(
            f"{MANIFEST_FILE} is damaged", where=str(folder), got=str(error), remedy=COPY_AGAIN_REMEDY
        ) from error
    if facts is None:
        raise BundleError(
            "this is not a fullbake bundle",
            where=str(folder),
            expected=f"a folder with {MANIFEST_FILE}, as `fullbake train --out` writes it",
            got=_describe_path(folder),
        )
    if found != BUNDLE_FORMAT:
        raise BundleError(
            "this bundle has another format version",
            where=str(folder / MANIFEST_FILE),
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
    """Say what is found in place of a bundle."""
    if folder.is_dir():
        return f"a folder without {MANIFEST_FILE}"
    return "a file" if folder.exists() else "no such folder"


def verify_files(folder: Path, recorded: dict[str, Any]) -> None:
    """Check the files of a bundle against their recorded sizes and hashes.

    Args:
        folder: The bundle.
        recorded: Size and sha256 of each file, by name.

    Raises:
        BundleError: A file is missing, damaged or foreign.
    """
    faults = hashing.find_file_faults(folder, recorded, optional=(MANIFEST_FILE, *UNHASHED_FILES))
    if faults:
        raise BundleError(
            f"the bundle differs from what was saved: {'; '.join(faults)}", where=str(folder), remedy=COPY_AGAIN_REMEDY
        )


def relative_difference(expected: np.ndarray, got: np.ndarray) -> float:
    """Return the largest difference between two arrays of probe logits, relative to the largest expected logit."""
    scale = max(float(np.abs(expected).max()), 1e-6)
    return float(np.abs(got - expected).max()) / scale if got.shape == expected.shape else float("inf")
