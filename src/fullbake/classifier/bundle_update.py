"""Add files to a saved bundle, as a whole: the folder holds the old bundle or the new one, never something between.

The new bundle is staged beside the old one with hard links to the files that stay, so large weights are not copied, and
then takes its place.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fullbake.classifier import manifest
from fullbake.classifier.manifest import BUNDLE_FORMAT, sign_manifest
from fullbake.core import hashing, storage
from fullbake.core.errors import OutputError
from fullbake.core.storage import MANIFEST_FILE


@dataclass
class BundleUpdate:
    """A bundle that is being written anew."""

    folder: Path
    """Where the new bundle is staged. It holds the files that stay; the block writes its own beside them."""

    entries: dict[str, Any] = field(default_factory=dict)
    """Entries of fullbake.json that the block sets; the others stay."""


def require_changeable(bundle: Path) -> None:
    """Raise the error that `updated_bundle` would raise because of where the bundle is. Call it before long work.

    Raises:
        BundleError: There is no such folder.
        OutputError: The bundle cannot be written.
    """
    if not bundle.exists():
        manifest.read_manifest(bundle)  # it says so, and names a folder with nearly this name
    try:
        storage.require_vacant(bundle, overwrite=True)
        storage.require_writable(bundle)
    except OutputError as error:
        raise _unwritable(bundle, error.got or error.what) from error
    if not os.access(bundle, os.W_OK):
        raise _unwritable(bundle, "the folder is write-protected")


def _unwritable(bundle: Path, reason: str) -> OutputError:
    return OutputError(
        "the bundle cannot be changed",
        where=str(bundle),
        expected="a folder that may be replaced as a whole, in a folder that may be written to",
        got=reason,
        remedy="Copy the bundle to another folder, and name the copy.",
    )


@contextmanager
def updated_bundle(bundle: Path, *, without: tuple[str, ...], needed: int) -> Iterator[BundleUpdate]:
    """Provide a staged copy of a bundle that takes the bundle's place when the block ends without an exception.

    On any exception the bundle is as before.

    Args:
        bundle: The bundle, whose files were found right.
        without: Names of files and folders that the copy leaves out, because the block writes them anew.
        needed: Bytes that the disk must have free for what the block writes.

    Yields:
        The copy.

    Raises:
        BundleError: It is no bundle.
        OutputError: The bundle cannot be written.
        SpaceFault: The disk is full.
    """
    require_changeable(bundle)
    facts = manifest.read_manifest(bundle)
    recorded = facts.pop("files")
    kept = {name: file for name, file in _files_of(bundle, recorded).items() if name.split("/")[0] not in without}
    with storage.staged(bundle, overwrite=True, needed=needed) as fresh:
        for name, file in kept.items():
            _link(file, fresh / name)
        update = BundleUpdate(fresh)
        yield update
        files = {name: recorded[name] for name in kept if name in recorded}
        files |= {
            name: written
            for name, written in hashing.hash_files(fresh).items()
            if name not in kept and name not in (MANIFEST_FILE, *manifest.UNHASHED_FILES)
        }
        content = {"format": BUNDLE_FORMAT, **facts, **update.entries, "files": dict(sorted(files.items()))}
        storage.write_json(fresh / MANIFEST_FILE, sign_manifest(content))


def _files_of(bundle: Path, recorded: dict[str, Any]) -> dict[str, Path]:
    """Return the files of a bundle by name: those that are recorded, and those that users may edit."""
    optional = [name for name in manifest.UNHASHED_FILES if (bundle / name).is_file()]
    return {name: bundle / name for name in (*recorded, *optional)}


def _link(source: Path, target: Path) -> None:
    """Give a file a second name, or copy it where that is not possible: another user's file, or a link itself."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if not source.is_symlink() and source.stat().st_uid == os.geteuid():
        try:
            os.link(source, target)
            return
        except OSError:  # a file system without hard links
            pass
    shutil.copyfile(source, target)
