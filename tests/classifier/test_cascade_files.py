"""The folder of a cascade: what is written is read, and what was changed is refused."""

import json
from pathlib import Path

import pytest

from fullbake.classifier.cascade_files import CASCADE_FILE, is_cascade, read_cascade, write_cascade
from fullbake.classifier.manifest import sign_manifest
from fullbake.core.errors import BundleError, OutputError
from fullbake.evaluation.agreement import CascadeThreshold

THRESHOLD = CascadeThreshold(1.25, 400, 250, 1, 0.0118, 0.98)


def write_member(folder: Path) -> None:
    folder.mkdir()
    (folder / "fullbake.json").write_text(f'{{"name": "{folder.name}"}}')


def write(folder: Path, threshold: CascadeThreshold = THRESHOLD, *, overwrite: bool = False) -> Path:
    members = {"student": write_member, "teacher": write_member}
    write_cascade(folder, members, threshold, needed=1_000, overwrite=overwrite)
    return folder


def change(folder: Path, *, signed: bool, **entries: object) -> None:
    path = folder / CASCADE_FILE
    content = json.loads(path.read_text()) | entries
    path.write_text(json.dumps(sign_manifest(content) if signed else content))


def test_threshold_is_read_as_written(tmp_path):
    folder = write(tmp_path / "cascade")
    assert is_cascade(folder)
    assert read_cascade(folder) == THRESHOLD
    assert "62.5%" in (folder / "README.md").read_text()


def test_cascade_without_threshold(tmp_path):
    none = CascadeThreshold(None, 20, 0, 0, 0.0, 0.99)
    assert read_cascade(write(tmp_path / "cascade", none)) == none


def test_other_folders_are_no_cascade(tmp_path):
    assert not is_cascade(tmp_path)
    assert not is_cascade(tmp_path / "nothing")


def test_occupied_folder_is_kept(tmp_path):
    folder = write(tmp_path / "cascade")
    with pytest.raises(OutputError):
        write(folder)
    write(folder, overwrite=True)


def test_member_that_changed_is_refused(tmp_path):
    folder = write(tmp_path / "cascade")
    (folder / "student" / "fullbake.json").write_text("{}")
    with pytest.raises(BundleError, match="the student is not the one"):
        read_cascade(folder)


def test_missing_member_is_refused(tmp_path):
    folder = write(tmp_path / "cascade")
    (folder / "teacher" / "fullbake.json").unlink()
    with pytest.raises(BundleError, match="the teacher is not the one"):
        read_cascade(folder)


def test_changed_threshold_is_refused(tmp_path):
    folder = write(tmp_path / "cascade")
    threshold = json.loads((folder / CASCADE_FILE).read_text())["threshold"]
    change(folder, signed=False, threshold=threshold | {"margin": 0.0})
    with pytest.raises(BundleError, match=r"cascade\.json"):
        read_cascade(folder)


@pytest.mark.parametrize(
    "entries",
    [
        {"format": 2},
        {"threshold": None},
        {"threshold": {"margin": "low"}},
        {"members": {"student": "x"}},
        {"members": 7},
    ],
)
def test_entries_of_another_shape_are_refused(tmp_path, entries):
    folder = write(tmp_path / "cascade")
    change(folder, signed=True, **entries)
    with pytest.raises(BundleError, match=r"cascade\.json"):
        read_cascade(folder)


@pytest.mark.parametrize("content", [b"", b"[1]", b"{", b"\xff\xfe"])
def test_damaged_file_is_refused(tmp_path, content):
    folder = write(tmp_path / "cascade")
    (folder / CASCADE_FILE).write_bytes(content)
    with pytest.raises(BundleError, match=r"cascade\.json"):
        read_cascade(folder)
