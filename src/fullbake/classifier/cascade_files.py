"""The folder of a cascade: two whole bundles, `student` and `teacher`, and `cascade.json`.

cascade.json holds the threshold from which the student answers, and the hashes of both bundles' fullbake.json, which
hold the hashes of their files. The bundles are inside the folder rather than referred to, so that it can be copied to
another machine, and so that neither can change without the threshold.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field

from fullbake.classifier.manifest import COPY_AGAIN_REMEDY, explain_faults, sign_manifest
from fullbake.core import runtime, storage
from fullbake.core.errors import BundleError
from fullbake.core.hashing import file_sha256
from fullbake.core.json_files import Shape, ShapeFault, match_shape, read_checked_json
from fullbake.core.storage import MANIFEST_FILE
from fullbake.evaluation.agreement import CascadeThreshold, describe_threshold

CASCADE_FILE: Final = "cascade.json"

CASCADE_FORMAT: Final = 1
"""Version of the format of cascade.json."""

TEACHER: Final = "teacher"

MEMBERS: Final = ("student", TEACHER)
"""The folders of the two bundles within a cascade."""

SaveFunction = Callable[[Path], object]
"""Writes a bundle into a folder that does not exist yet."""


class _Threshold(Shape):
    margin: float | None
    rows: Annotated[int, Field(ge=0, lt=2**53)]
    answered: Annotated[int, Field(ge=0, lt=2**53)]
    disagreements: Annotated[int, Field(ge=0, lt=2**53)]
    bound: Annotated[float, Field(ge=0, le=1)]
    agreement: Annotated[float, Field(gt=0, lt=1)]


class _Members(Shape):
    student: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    teacher: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _CascadeFacts(Shape):
    format: int
    threshold: _Threshold
    members: _Members
    sha256: str


def is_cascade(folder: str | Path) -> bool:
    """Return True if a folder is a cascade."""
    return (Path(folder) / CASCADE_FILE).is_file()


def read_cascade(folder: Path) -> CascadeThreshold:
    """Return the threshold of a cascade, after a check that it was chosen for these two bundles.

    The bundles' own files are checked when they are loaded.

    Args:
        folder: A folder that `write_cascade` wrote.

    Raises:
        BundleError: cascade.json is damaged, or a bundle is missing or another one.
    """
    with explain_faults(folder, CASCADE_FILE):
        content = read_checked_json(folder / CASCADE_FILE)
        found = match_shape(_CascadeFacts, content)
        if found.format != CASCADE_FORMAT:
            raise ShapeFault("format", str(CASCADE_FORMAT), str(found.format)[:40])
        if content != sign_manifest(content):
            raise ShapeFault("sha256", "the sha256 of its other entries", "another one")
    for name in MEMBERS:
        manifest = folder / name / MANIFEST_FILE
        if not manifest.is_file() or file_sha256(manifest) != getattr(found.members, name):
            raise BundleError(
                f"the {name} is not the one that the threshold of this cascade was chosen for",
                where=str(folder / name),
                remedy=f"{COPY_AGAIN_REMEDY} Or make the cascade again: fullbake cascade STUDENT TEACHER.",
            )
    facts = found.threshold
    return CascadeThreshold(facts.margin, facts.rows, facts.answered, facts.disagreements, facts.bound, facts.agreement)


def write_cascade(
    target: Path, members: Mapping[str, SaveFunction], threshold: CascadeThreshold, *, needed: int, overwrite: bool
) -> None:
    """Write a cascade atomically: `target` holds the complete cascade, or what it held before.

    Args:
        target: The folder.
        members: What writes the bundles `student` and `teacher`.
        threshold: From which margin on the student answers.
        needed: Bytes of both bundles.
        overwrite: Replace what `target` holds.

    Raises:
        OutputError: `target` holds something, and `overwrite` is False.
        SpaceFault: The disk has too little space.
    """
    with storage.staged(target, overwrite=overwrite, needed=needed + 1_000_000) as folder:
        for name in MEMBERS:
            members[name](folder / name)
        content = {
            "format": CASCADE_FORMAT,
            "threshold": asdict(threshold),
            "members": {name: file_sha256(folder / name / MANIFEST_FILE) for name in MEMBERS},
            "versions": runtime.versions(),
        }
        storage.write_json(folder / CASCADE_FILE, sign_manifest(content))
        storage.write_bytes(folder / "README.md", _card(threshold).encode())


def _card(threshold: CascadeThreshold) -> str:
    return (
        "# A cascade\n\nThe classifier in `student` answers a text where it is sure enough, the one in `teacher` all "
        "others. Each has its own card.\n\nOn texts that neither was trained on, "
        f"{describe_threshold(threshold)}.\n\n```python\nfrom fullbake import Classifier\n\n"
        'classifier = Classifier.load("this folder")\nclassifier.predict(["a text", "another"])\n```\n'
    )
