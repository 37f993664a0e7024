"""The manifest is checked with small files of any content: no model is needed."""

import json
from pathlib import Path

import numpy as np
import pytest

from fullbake.classifier.manifest import (
    BUNDLE_FORMAT,
    MANIFEST_FILE,
    UNHASHED_FILES,
    read_manifest,
    relative_difference,
    sign_manifest,
    verify_files,
)
from fullbake.core import storage
from fullbake.core.errors import BundleError
from fullbake.core.hashing import hash_files

FILES = {"weights": b"0123456789", "config.json": b"{}"}
ENTRIES = {"label_names": ["food", "Geld für\u2028alle"], "columns": {"text": "text"}}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A folder with two small files and a manifest that is right."""
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    manifest = {"format": BUNDLE_FORMAT, **ENTRIES, "files": hash_files(tmp_path)}
    storage.write_json(tmp_path / MANIFEST_FILE, sign_manifest(manifest))
    return tmp_path


def edit(folder: Path, **entries: object) -> None:
    """Change entries of fullbake.json, and leave its own sha256 as it was."""
    storage.write_json(folder / MANIFEST_FILE, storage.read_json(folder / MANIFEST_FILE) | entries)


def test_entries_are_read_as_they_were_written(bundle: Path) -> None:
    entries = read_manifest(bundle)
    assert {name: facts["size"] for name, facts in entries.pop("files").items()} == {"weights": 10, "config.json": 2}
    assert entries == ENTRIES


def test_signature_depends_on_every_entry_but_not_on_their_order() -> None:
    signed = sign_manifest(ENTRIES)
    assert sign_manifest(dict(reversed(ENTRIES.items())))["sha256"] == signed["sha256"]
    assert sign_manifest(signed) == signed
    assert sign_manifest(ENTRIES | {"columns": {"text": "body"}})["sha256"] != signed["sha256"]


def test_edited_manifest_is_refused(bundle: Path) -> None:
    edit(bundle, columns={"text": "body"})
    with pytest.raises(BundleError, match=r"fullbake\.json is damaged \(its own sha256 differs\)"):
        read_manifest(bundle)


def test_other_format_version_is_refused(bundle: Path) -> None:
    edit(bundle, format=99, versions={"fullbake": "9.9.0"})
    with pytest.raises(BundleError, match=r"another format version(?s:.*)got 99(?s:.*)fullbake 9\.9\.0"):
        read_manifest(bundle)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff\xfe"])
def test_manifest_that_cannot_be_read_is_refused(bundle: Path, content: bytes) -> None:
    (bundle / MANIFEST_FILE).write_bytes(content)
    with pytest.raises(BundleError, match=r"fullbake\.json is damaged"):
        read_manifest(bundle)


def test_path_that_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such folder"):
        read_manifest(tmp_path / "nowhere")
    with pytest.raises(BundleError, match=r"a folder without fullbake\.json"):
        read_manifest(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(BundleError, match="got a file"):
        read_manifest(tmp_path / "file")


def test_intact_files_pass_with_or_without_the_files_that_are_not_hashed(bundle: Path) -> None:
    recorded = read_manifest(bundle)["files"]
    verify_files(bundle, recorded)
    for name in UNHASHED_FILES:
        (bundle / name).touch()
    verify_files(bundle, recorded)


def test_every_file_that_differs_is_named(bundle: Path) -> None:
    recorded = read_manifest(bundle)["files"]
    (bundle / "weights").write_bytes(b"0123456780")
    (bundle / "config.json").unlink()
    (bundle / "notes.txt").touch()
    with pytest.raises(BundleError) as raised:
        verify_files(bundle, recorded)
    for fault in ("weights is damaged", "config.json is missing", "notes.txt is foreign"):
        assert fault in str(raised.value)


def test_difference_is_relative_to_the_largest_expected_logit() -> None:
    expected = np.array([[4.0, -8.0]])
    assert relative_difference(expected, expected) == 0
    assert relative_difference(expected, np.array([[4.0, -8.4]])) == pytest.approx(0.05)
    assert relative_difference(expected, np.array([4.0, -8.0])) == float("inf")
    assert np.isnan(relative_difference(expected, np.array([[np.nan, 0.0]])))


def test_manifest_is_plain_json(bundle: Path) -> None:
    """Other programs can read it."""
    assert json.loads((bundle / MANIFEST_FILE).read_bytes())["label_names"] == ENTRIES["label_names"]
