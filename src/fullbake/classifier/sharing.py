"""Make a copy of a bundle that may leave this machine: to a hub, or to a tracker.

`seen.safetensors` stays behind unless it is asked for: its hashes of the training texts tell whoever has them whether a
text that they guess was among those. Paths of folders of this machine, which nobody else can use, become their last
part. The copy's fullbake.json is signed anew, so that it loads and is checked as any bundle.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from fullbake.classifier.cascade_files import CASCADE_FILE, MEMBERS, is_cascade, read_cascade
from fullbake.classifier.manifest import (
    BUNDLE_FORMAT,
    SEEN_FILE,
    UNHASHED_FILES,
    read_manifest,
    sign_manifest,
    verify_files,
)
from fullbake.core import storage
from fullbake.core.hashing import file_sha256
from fullbake.core.json_files import read_checked_json
from fullbake.core.storage import MANIFEST_FILE


@dataclass(frozen=True)
class SharedCopy:
    """A copy of a bundle or a cascade, whose files are links to those of the original: made to be sent, not used."""

    folder: Path

    files: dict[str, int]
    """The bytes of each file, by its name within the folder."""

    left_out: tuple[str, ...]
    """Files of the original that the copy lacks."""

    facts: dict[str, Any]
    """The entries of its fullbake.json; of a cascade those of its teacher."""


def copy_for_sharing(bundle: Path, folder: Path, *, seen: bool = False) -> SharedCopy:
    """Make a copy of a bundle or a cascade without what should not leave this machine.

    Args:
        bundle: The folder.
        folder: Where the copy is made; an empty folder.
        seen: Keep the hashes of the training texts.

    Raises:
        BundleError: It is no bundle, or is damaged.
    """
    if not is_cascade(bundle):
        facts, left_out = _copy_bundle(bundle, folder, seen)
        return SharedCopy(folder, _sizes(folder), left_out, facts)
    read_cascade(bundle)
    missing: list[str] = []
    for name in MEMBERS:  # the teacher is the last
        facts, left_out = _copy_bundle(bundle / name, folder / name, seen)
        missing += [f"{name}/{one}" for one in left_out]
    content = read_checked_json(bundle / CASCADE_FILE)
    members = {name: file_sha256(folder / name / MANIFEST_FILE) for name in MEMBERS}
    storage.write_json(folder / CASCADE_FILE, sign_manifest(content | {"members": members}))
    if (bundle / "README.md").is_file():
        shutil.copyfile(bundle / "README.md", folder / "README.md")
    return SharedCopy(folder, _sizes(folder), tuple(missing), facts)


def _copy_bundle(bundle: Path, folder: Path, seen: bool) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Copy one bundle. Return the entries of its new fullbake.json, and the files that were left out."""
    facts = read_manifest(bundle)
    recorded = facts.pop("files")
    verify_files(bundle, recorded)
    left_out = () if seen or SEEN_FILE not in recorded else (SEEN_FILE,)
    kept = {name: entry for name, entry in recorded.items() if name not in left_out}
    for name in (*kept, *(name for name in UNHASHED_FILES if (bundle / name).is_file())):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        os.symlink((bundle / name).resolve(), target)
    facts = _without_own_paths(facts)
    storage.write_json(
        folder / MANIFEST_FILE, sign_manifest({"format": BUNDLE_FORMAT, **facts, "files": dict(sorted(kept.items()))})
    )
    card = folder / "README.md"
    if card.is_symlink():
        text = _card_without_folders(card.read_text("utf-8", "replace"), bundle)
        card.unlink()
        card.write_text(text, "utf-8")
    return facts, left_out


def _sizes(folder: Path) -> dict[str, int]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}


def _without_own_paths(facts: dict[str, Any]) -> dict[str, Any]:
    """Return the entries of fullbake.json with the last part of each path that the recipe or a pretraining names.

    Other entries stay as they are: a label may look like a path.
    """
    recipe = dict(facts["recipe"])
    for name in ("base", "further_pretraining"):
        recipe[name] = _without_folders(recipe.get(name))
    data = recipe.get("data") or {}
    recipe["data"] = data | {name: _without_folders(data[name]) for name in ("validation", "test") if name in data}
    return facts | {"recipe": recipe, "further_pretraining": _without_folders(facts.get("further_pretraining"))}


def _without_folders(value: Any) -> Any:
    """Return JSON values in which the path of a file or folder from the root is its last part alone."""
    if isinstance(value, dict):
        return {name: _without_folders(own) for name, own in value.items()}
    if isinstance(value, list):
        return [_without_folders(own) for own in value]
    return last_part(value) if isinstance(value, str) else value


def last_part(value: str) -> str:
    """Return the last part of an absolute path, and any other text as it is."""
    for kind in (PurePosixPath, PureWindowsPath):
        path = kind(value)
        if path.is_absolute() and path.name and "\n" not in value:
            return path.name
    return value


def _card_without_folders(text: str, bundle: Path) -> str:
    """Return a model card without the absolute paths that the bundle's facts name."""
    base = (read_manifest(bundle).get("recipe") or {}).get("base")
    return text.replace(base, last_part(base)) if isinstance(base, str) else text
