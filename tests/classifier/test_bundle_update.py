"""Files are added to a bundle as a whole: the folder holds the old bundle or the new one, whatever happens."""

import os
import shutil
from pathlib import Path

import pytest

from fullbake import Classifier
from fullbake.classifier import manifest
from fullbake.classifier.bundle_update import require_changeable, updated_bundle
from fullbake.core import storage
from fullbake.core.errors import BundleError, OutputError
from fullbake.core.hashing import hash_files
from fullbake.core.storage import MANIFEST_FILE

FIXTURE = Path(__file__).parents[1] / "fixtures" / "bundle_0_1_0"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A copy of an old bundle that a test may change."""
    return Path(shutil.copytree(FIXTURE, tmp_path / "bundle"))


def add(bundle: Path, content: bytes = b"words") -> None:
    with updated_bundle(bundle, without=("extra",), needed=0) as update:
        update.entries["note"] = {"size": len(content)}
        (update.folder / "extra").mkdir()
        storage.write_bytes(update.folder / "extra" / "file.bin", content)


def test_added_file_is_hashed_and_the_rest_stays(bundle: Path) -> None:
    before = hash_files(bundle)
    add(bundle)
    after = hash_files(bundle)
    assert after.keys() == before.keys() | {"extra/file.bin"}
    assert {name for name in before if after[name] != before[name]} == {MANIFEST_FILE}
    facts = manifest.read_manifest(bundle)
    assert facts["files"]["extra/file.bin"] == after["extra/file.bin"]
    assert facts["note"] == {"size": 5}
    assert "README.md" not in facts["files"]
    Classifier.load(bundle)


def test_second_time_replaces_what_the_first_added(bundle: Path) -> None:
    add(bundle)
    add(bundle, b"others")
    assert (bundle / "extra" / "file.bin").read_bytes() == b"others"
    manifest.verify_files(bundle, manifest.read_manifest(bundle)["files"])
    assert [path.name for path in bundle.parent.iterdir()] == ["bundle"]


def test_weights_are_linked_not_copied(bundle: Path) -> None:
    number = (bundle / "model.safetensors").stat().st_ino
    add(bundle)
    assert (bundle / "model.safetensors").stat().st_ino == number


def test_links_are_replaced_by_copies(bundle: Path, tmp_path: Path) -> None:
    (bundle / "model.safetensors").rename(tmp_path / "elsewhere")
    (bundle / "model.safetensors").symlink_to(tmp_path / "elsewhere")
    add(bundle)
    assert not (bundle / "model.safetensors").is_symlink()
    Classifier.load(bundle)


def test_copies_are_made_where_links_are_not_possible(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    add(bundle)
    Classifier.load(bundle)


@pytest.mark.parametrize("fault", [ValueError("words"), KeyboardInterrupt()])
def test_fault_leaves_the_bundle_as_it_was(fault: BaseException, bundle: Path) -> None:
    before = hash_files(bundle)

    def stop() -> None:
        with updated_bundle(bundle, without=(), needed=0) as update:
            storage.write_bytes(update.folder / "half", b"half a file")
            raise fault

    with pytest.raises(type(fault)):
        stop()
    assert hash_files(bundle) == before
    assert [path.name for path in bundle.parent.iterdir()] == ["bundle"]


def test_kill_before_any_step_leaves_a_whole_bundle(bundle: Path) -> None:
    """The process is stopped before each step that changes the disk; then the next start finds a whole bundle."""
    steps: list[str] = []
    with storage.observed(lambda operation, _: steps.append(operation)):
        add(bundle, b"first")
    for number in range(len(steps)):
        count = iter(range(10_000))

        def stop(*_: object, count: object = count, number: int = number) -> None:
            if next(count) == number:  # type: ignore[call-overload]
                raise SystemExit

        with pytest.raises(SystemExit), storage.observed(stop):
            add(bundle, f"try {number}".encode())
        storage.recover(bundle)
        files = manifest.read_manifest(bundle)["files"]
        manifest.verify_files(bundle, files)


def test_bundle_that_cannot_be_written_is_one_clear_error(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(bundle)
    for place in (bundle, Path()):
        with pytest.raises(OutputError, match="the bundle cannot be changed") as error:
            require_changeable(place)
        assert "Copy the bundle to another folder" in str(error.value)
    monkeypatch.chdir(bundle.parent)
    require_changeable(bundle)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(OutputError, match="write-protected"):
        require_changeable(bundle)


def test_folder_that_is_no_bundle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with (
        pytest.raises(BundleError, match="not a fullbake bundle"),
        updated_bundle(tmp_path / "empty", without=(), needed=0),
    ):
        pass
