"""Saved classifiers that tests change on purpose."""

from pathlib import Path

from fullbake.classifier.manifest import MANIFEST_FILE, sign_manifest
from fullbake.core import storage
from fullbake.core.hashing import hash_files


def update_manifest(folder: Path) -> None:
    """Make a bundle's fullbake.json agree with its files as they are now."""
    manifest = storage.read_json(folder / MANIFEST_FILE)
    files = {name: facts for name, facts in hash_files(folder).items() if name in manifest["files"]}
    storage.write_json(folder / MANIFEST_FILE, sign_manifest(manifest | {"files": files}))
