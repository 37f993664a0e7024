"""The manifest is checked with small files of any content: no model is needed."""

import json
from pathlib import Path

import numpy as np
import pytest

from fullbake.classifier.manifest import (
    BUNDLE_FORMAT,
    MANIFEST_FILE,
    REQUIRED_FILES,
    UNHASHED_FILES,
    explain_faults,
    has_same_ids,
    read_manifest,
    relative_difference,
    sign_manifest,
    verify_files,
)
from fullbake.core import storage
from fullbake.core.errors import BaseModelError, BundleError, RecipeError
from fullbake.core.hashing import hash_files
from fullbake.core.json_files import ShapeFault
from fullbake.models.encoding import Encoded

FILES = {"weights": b"0123456789", **dict.fromkeys(REQUIRED_FILES, b"{}")}
OLD = json.loads((Path(__file__).parents[1] / "fixtures" / "bundle_0_1_0_multilabel" / MANIFEST_FILE).read_bytes())
ENTRIES = {name: value for name, value in OLD.items() if name not in ("format", "sha256", "files")}


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
    assert {name: facts["size"] for name, facts in entries.pop("files").items()} == {
        name: len(content) for name, content in FILES.items()
    }
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


def test_a_file_that_the_code_reads_must_be_recorded(bundle: Path) -> None:
    files = hash_files(bundle)
    (bundle / "tokenizer.json").unlink()
    del files["tokenizer.json"]
    storage.write_json(bundle / MANIFEST_FILE, sign_manifest({"format": BUNDLE_FORMAT, **ENTRIES, "files": files}))
    with pytest.raises(BundleError, match=r"files: fullbake\.json cannot be used(?s:.*)an entry for tokenizer\.json"):
        read_manifest(bundle)


@pytest.mark.parametrize("version", [True, 1.0, "1", None, [1], {"a": 1}, 10**30])
def test_a_format_that_only_looks_like_one_is_refused(bundle: Path, version: object) -> None:
    storage.write_json(
        bundle / MANIFEST_FILE, sign_manifest({**ENTRIES, "format": version, "versions": [], "files": {}})
    )
    with pytest.raises(BundleError, match="another format version"):
        read_manifest(bundle)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff\xfe", b"[" * 100_000, b'{"format": NaN}'])
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


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ShapeFault("a.b", "a number", "'x'"), r"a\.b: config\.json cannot be used"),
        (BaseModelError("no padding token"), "no padding token"),
        (RecipeError("a field is wrong"), "a field is wrong"),
        (OSError("Input/output error"), r"config\.json of the bundle cannot be read"),
        (ValueError("x" * 1_000), r"config\.json of the bundle cannot be read"),
    ],
)
def test_faults_of_a_file_become_errors_of_the_bundle(error: Exception, words: str, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=words) as raised, explain_faults(tmp_path, "config.json"):
        raise error
    assert len(str(raised.value)) < 700


def test_ids_of_the_probe_texts_are_compared_with_the_segments() -> None:
    stored = {"input_ids": np.array([1, 2, 3]), "offsets": np.array([0, 1, 3])}
    types = np.zeros(3, np.int64)
    assert has_same_ids(stored, Encoded(**stored))
    assert has_same_ids(stored | {"token_type_ids": types}, Encoded(**stored, token_type_ids=types))
    assert not has_same_ids(stored, Encoded(**stored, token_type_ids=types))
    assert not has_same_ids(stored | {"token_type_ids": types}, Encoded(**stored))
    assert not has_same_ids(stored, Encoded(np.array([1, 2, 4]), stored["offsets"]))


def test_difference_is_relative_to_the_largest_expected_logit() -> None:
    expected = np.array([[4.0, -8.0]])
    assert relative_difference(expected, expected) == 0
    assert relative_difference(expected, np.array([[4.0, -8.4]])) == pytest.approx(0.05)
    assert relative_difference(expected, np.array([4.0, -8.0])) == float("inf")
    assert np.isnan(relative_difference(expected, np.array([[np.nan, 0.0]])))


def test_manifest_is_plain_json(bundle: Path) -> None:
    """Other programs can read it."""
    assert json.loads((bundle / MANIFEST_FILE).read_bytes())["label_names"] == ENTRIES["label_names"]
