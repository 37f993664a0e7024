"""Hashes differ for whatever differs, and a folder's faults are named file by file."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fullbake.core import hashing
from fullbake.core.hashing import file_sha256, find_file_faults, fingerprint, hash_files, unchanged_file_sha256

LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


def typed(value: object) -> object:
    """Return what is equal only for values of equal types: for Python 1 == 1.0 == True, and 0.0 == -0.0."""
    if isinstance(value, list):
        return ("list", tuple(map(typed, value)))
    if isinstance(value, dict):
        return ("dict", tuple((key, typed(value[key])) for key in sorted(value)))
    return (type(value).__name__, repr(value))


@given(VALUES, VALUES)
def test_fingerprints_are_equal_exactly_if_values_are(left: object, right: object) -> None:
    assert (fingerprint(left) == fingerprint(right)) == (typed(left) == typed(right))
    assert fingerprint(left) == fingerprint(left)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (("ab", "c"), ("a", "bc")),
        (("a",), ("a", "")),
        ((["a"], "b"), (["a", "b"],)),
        ((1,), ("1",)),
        ((1,), (True,)),
        ((b"a",), ("a",)),
        (({"a": 1},), (["a", 1],)),
        ((np.zeros(4, np.float32),), (np.zeros((2, 2), np.float32),)),
        ((np.zeros(2, np.float32),), (np.zeros(1, np.float64),)),
        ((np.array([1, 2]),), (np.array([2, 1]),)),
    ],
)
def test_framing_is_unambiguous(left: tuple[object, ...], right: tuple[object, ...]) -> None:
    assert fingerprint(*left) != fingerprint(*right)


def test_fingerprints_do_not_depend_on_order_or_memory_layout() -> None:
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    grid = np.arange(6).reshape(2, 3)
    assert fingerprint(grid) == fingerprint(np.asfortranarray(grid))
    assert fingerprint([1, 2]) == fingerprint((1, 2))


def test_fingerprints_do_not_change_between_versions() -> None:
    value = fingerprint("text", 1, 2.5, None, True, b"x", [1, "a"], {"k": 3}, np.arange(3, dtype=np.int64))
    assert value == "08d40e3f93c42a1025ce216c5ba0074cd91886f387df1c85e9cd538f11a2cd02"


@pytest.mark.parametrize("part", [object(), {1: 2}, {1, 2}, np.array([object()]), np.int64(1), Path("a")])
def test_values_of_other_types_are_refused(part: object) -> None:
    with pytest.raises(TypeError, match="cannot fingerprint"):
        fingerprint("before", part)


def test_a_files_hash_is_sha256(tmp_path: Path) -> None:
    content = bytes(range(256)) * 10_000
    (tmp_path / "a").write_bytes(content)
    assert file_sha256(tmp_path / "a") == hashlib.sha256(content).hexdigest()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.json").write_text("{}")
    (tmp_path / "sub" / "b.bin").write_bytes(b"1234")
    return tmp_path


def test_a_whole_folder_has_no_fault(folder: Path) -> None:
    recorded = hash_files(folder)
    assert list(recorded) == ["a.json", "sub/b.bin"]
    assert recorded["sub/b.bin"] == {"size": 4, "sha256": hashlib.sha256(b"1234").hexdigest()}
    assert find_file_faults(folder, recorded) == []


def test_every_fault_is_named(folder: Path) -> None:
    recorded = hash_files(folder)
    (folder / "a.json").unlink()
    (folder / "sub" / "b.bin").write_bytes(b"1235")
    (folder / "c").write_text("new")
    faults = find_file_faults(folder, recorded)
    assert faults == ["a.json is missing", "sub/b.bin is damaged (its sha256 differs)", "c is foreign"]
    assert find_file_faults(folder, recorded, contents=False) == ["a.json is missing", "c is foreign"]
    (folder / "sub" / "b.bin").write_bytes(b"12")
    assert "sub/b.bin is damaged (2 bytes, 4 when it was written)" in find_file_faults(folder, recorded)


def test_optional_files_may_change_vanish_and_appear(folder: Path) -> None:
    recorded = hash_files(folder)
    (folder / "a.json").unlink()
    (folder / "history.png").write_text("new")
    (folder / "history.txt").write_text("new")
    assert find_file_faults(folder, recorded, optional=["a.json", "history.*"]) == []


def test_a_record_that_is_itself_damaged_counts_as_a_fault(folder: Path) -> None:
    recorded = hash_files(folder)
    recorded["a.json"]["sixe"] = recorded["a.json"].pop("size")
    assert find_file_faults(folder, recorded) == ["a.json is damaged (2 bytes, None when it was written)"]


def test_a_file_is_hashed_again_only_when_it_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[Path] = []
    monkeypatch.setattr(hashing, "file_sha256", lambda path: (hashed.append(path), file_sha256(path))[1])
    path = tmp_path / "a"
    path.write_bytes(b"one")
    assert unchanged_file_sha256(path) == unchanged_file_sha256(path) == hashlib.sha256(b"one").hexdigest()
    assert len(hashed) == 1
    path.write_bytes(b"two")
    os.utime(path, (1, 1))
    assert unchanged_file_sha256(path) == hashlib.sha256(b"two").hexdigest()


def test_stamp_of_a_file_changes_when_it_is_written_or_replaced(tmp_path: Path) -> None:
    file, other = tmp_path / "file", tmp_path / "other"
    assert hashing.file_stamp(file) is None
    file.write_text("one")
    first = hashing.file_stamp(file)
    assert first == hashing.file_stamp(file)
    file.write_text("three")
    second = hashing.file_stamp(file)
    other.write_text("three")
    os.utime(other, ns=(0, file.stat().st_mtime_ns))
    other.replace(file)
    assert len({first, second, hashing.file_stamp(file)}) == 3
