"""A target is complete or as it was, after exceptions, kills at every step, a full disk, other processes."""

import errno
import json
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers.permissions import permissions_hold
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from safetensors.numpy import save_file

from fullbake.core import console, storage
from fullbake.core.errors import Fault, OutputError, SpaceFault


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def fill(folder: Path, version: str) -> None:
    storage.write_json(folder / "a.json", version)
    storage.write_tensors(folder / "b.safetensors", {"x": np.full(3, len(version))})


def version_of(folder: Path) -> str:
    """Return the version that a folder holds, which must be complete."""
    assert names(folder) == ["a.json", "b.safetensors"]
    version = storage.read_json(folder / "a.json")
    assert storage.read_tensors(folder / "b.safetensors")["x"].tolist() == [len(version)] * 3
    return version


def fail(target: Path, error: BaseException, *, overwrite: bool = False) -> None:
    """Fill a staging folder and raise."""
    with storage.staged(target, overwrite=overwrite) as folder:
        fill(folder, "new")
        raise error


# Staging


def test_a_folder_appears_complete_and_leaves_nothing_beside(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "target"
    with storage.staged(target) as folder:
        fill(folder, "one")
        assert not target.exists()
        assert [name for name in names(target.parent) if name.startswith(".target.")]
    assert version_of(target) == "one"
    assert names(target.parent) == ["target"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("overwrite", [False, True])
def test_an_exception_leaves_everything_as_it_was(tmp_path: Path, error: type[BaseException], overwrite: bool) -> None:
    target = tmp_path / "target"
    if overwrite:
        with storage.staged(target) as folder:
            fill(folder, "old")
    with pytest.raises(error):
        fail(target, error(), overwrite=overwrite)
    assert names(tmp_path) == (["target"] if overwrite else [])
    if overwrite:
        assert version_of(target) == "old"


def test_a_folder_that_holds_something_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(OutputError, match=r"already holds something.\n.*'mine.txt'.*--overwrite"):
        storage.require_vacant(tmp_path)
    with pytest.raises(OutputError), storage.staged(tmp_path):
        pytest.fail("the block ran")
    assert names(tmp_path) == ["mine.txt"]


def test_an_address_is_no_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for begin in (storage.staged, storage.staged_file):
        with pytest.raises(OutputError, match=r"s3://bucket/out.*not to addresses"), begin(Path("s3://bucket/out")):
            pass
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_is_used_and_overwrite_replaces_a_full_one(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    for version in ("one", "two"):
        with storage.staged(target, overwrite=version == "two") as folder:
            fill(folder, version)
        assert version_of(target) == version
    assert names(tmp_path) == ["target"]


def test_a_link_is_followed_and_kept(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with storage.staged(tmp_path / "link") as folder:
        fill(folder, "one")
    assert version_of(tmp_path / "real") == "one"
    assert (tmp_path / "link").is_symlink()


def test_folders_that_cannot_be_replaced_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = tmp_path / "work" / "inner"
    inner.mkdir(parents=True)
    (tmp_path / "file").write_text("x")
    monkeypatch.chdir(inner)
    for target in (Path("."), tmp_path / "work", Path("/proc")):
        with pytest.raises(OutputError, match="cannot be replaced as a whole"):
            storage.require_vacant(target, overwrite=True)
    with pytest.raises(OutputError, match="a file has this name"):
        storage.require_vacant(tmp_path / "file", overwrite=True)
    with pytest.raises(OutputError, match="cannot be made"), storage.staged(tmp_path / "file" / "target"):
        pytest.fail("the block ran")


def test_what_another_process_wrote_meanwhile_stays(tmp_path: Path) -> None:
    target = tmp_path / "target"

    def overtaken() -> None:
        with storage.staged(target) as folder:
            fill(folder, "mine")
            with storage.staged(target) as other:
                fill(other, "theirs")

    with pytest.raises(OutputError, match="another process wrote"):
        overtaken()
    assert version_of(target) == "theirs"
    assert names(tmp_path) == ["target"]


def test_a_file_appears_complete_and_is_overwritten_only_on_request(tmp_path: Path) -> None:
    target = tmp_path / "scored.csv"
    with storage.staged_file(target) as path:
        assert path.name == "scored.csv"
        path.write_text("one")
        assert not target.exists()
    with pytest.raises(OutputError, match="exists already"), storage.staged_file(target):
        pytest.fail("the block ran")

    def broken() -> None:
        with storage.staged_file(target, overwrite=True) as path:
            path.write_text("broken")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken()
    assert target.read_text() == "one"
    with storage.staged_file(target, overwrite=True) as path:
        path.write_text("two")
    assert target.read_text() == "two"
    with pytest.raises(Fault, match="nothing was written"), storage.staged_file(tmp_path / "none"):
        pass
    with pytest.raises(OutputError, match="a folder has this name"), storage.staged_file(tmp_path):
        pytest.fail("the block ran")
    assert names(tmp_path) == ["scored.csv"]


def test_files_get_the_mode_that_the_umask_asks_for(tmp_path: Path) -> None:
    with storage.staged(tmp_path / "target") as folder:
        fill(folder, "one")
    (tmp_path / "plain").touch()
    plain = (tmp_path / "plain").stat().st_mode
    assert {path.stat().st_mode for path in (tmp_path / "target").iterdir()} == {plain}


# Kills

CHILD = """
import os, signal, sys
from pathlib import Path
import numpy as np
from fullbake.core import storage

target, version, fatal_step = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
steps = 0

def stop(operation, path):
    global steps
    steps += 1
    if steps == fatal_step:
        if operation == "write":
            path.write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)

with storage.observed(stop), storage.staged(target, overwrite=True) as folder:
    storage.write_json(folder / "a.json", version)
    storage.write_tensors(folder / "b.safetensors", {"x": np.full(3, len(version))})
print(steps)
"""


def run_child(target: Path, version: str, fatal_step: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", CHILD, str(target), version, str(fatal_step)]
    return subprocess.run(command, capture_output=True, text=True)


def test_a_kill_at_any_step_leaves_the_old_or_the_new_version_complete(tmp_path: Path) -> None:
    target = tmp_path / "target"
    with storage.staged(target) as folder:
        fill(folder, "first")
    steps = int(run_child(target, "second!", 0).stdout)
    assert steps > 12
    found, between = [], []
    for fatal_step in range(1, steps + 1):
        before = version_of(target)
        after = f"v{fatal_step}".ljust(fatal_step + 4, "x")
        killed = run_child(target, after, fatal_step)
        assert killed.returncode == -signal.SIGKILL
        (leftover,) = [path for path in tmp_path.iterdir() if path.name != "target"] or [None]
        if not target.exists():  # killed between the two renames: both versions are complete in the leftover
            assert leftover is not None
            between = [version_of(leftover / part / "target") for part in ("old", "new")]
            assert between == [before, after]
        storage.recover(target)
        assert names(tmp_path) == ["target"]
        found.append({before: "old", after: "new"}[version_of(target)])
    assert found == sorted(found, reverse=True)  # old before the swap, new after it
    assert {"old", "new"} == set(found)
    assert between  # one of the kills came between the two renames


def test_an_interrupt_at_any_step_leaves_the_old_or_the_new_version_complete(tmp_path: Path) -> None:
    target = tmp_path / "target"
    with storage.staged(target) as folder:
        fill(folder, "old")

    def interrupted(fatal_step: int) -> int:
        steps: list[str] = []

        def stop(operation: str, path: Path) -> None:
            steps.append(operation)
            if len(steps) == fatal_step:
                raise KeyboardInterrupt

        with storage.observed(stop), storage.staged(target, overwrite=True) as folder:
            fill(folder, "new")
        return len(steps)

    found = []
    for fatal_step in range(1, interrupted(0) + 1):
        with storage.staged(target, overwrite=True) as folder:
            fill(folder, "old")
        with pytest.raises(KeyboardInterrupt):
            interrupted(fatal_step)
        found.append(version_of(target))  # without recovery: unlike a kill, an exception is cleaned up at once
        storage.recover(target)
        assert names(tmp_path) == ["target"]
    assert found == sorted(found, reverse=True)
    assert found.count("new") <= 6  # only after the rename: while its parents are synced and the old version is removed


def test_leftovers_of_dead_processes_are_removed_and_those_of_running_ones_kept(tmp_path: Path) -> None:
    target = tmp_path / "target"
    assert run_child(target, "dead", 5).returncode == -signal.SIGKILL
    (dead,) = names(tmp_path)
    with storage.staged(target) as outer:
        assert dead not in names(tmp_path)
        with pytest.raises(ZeroDivisionError):
            fail(target, ZeroDivisionError())
        fill(outer, "outer")
    assert version_of(target) == "outer"


def test_recover_all_removes_the_leftovers_of_every_name(tmp_path: Path) -> None:
    for name in ("step-1", "step-2"):
        assert run_child(tmp_path / name, "dead", 5).returncode == -signal.SIGKILL
    with storage.staged(tmp_path / "step-3") as folder:
        fill(folder, "alive")
        storage.recover_all(tmp_path)
        assert len(names(tmp_path)) == 1
    assert names(tmp_path) == ["step-3"]
    storage.recover_all(tmp_path / "none")


def test_recovery_keeps_two_versions_if_another_process_took_their_place(tmp_path: Path) -> None:
    holder = tmp_path / ".target.0123456789abcdef.partial"
    for part in ("new", "old"):
        (holder / part / "target").mkdir(parents=True)
    (tmp_path / "target").mkdir()
    storage.recover(tmp_path / "target")
    assert (holder / "old" / "target").is_dir()
    assert (holder / "new" / "target").is_dir()


def test_an_observer_sees_every_step_and_can_stop_it(tmp_path: Path) -> None:
    seen: list[tuple[str, str]] = []
    target = tmp_path / "target"
    with (
        storage.observed(lambda operation, path: seen.append((operation, path.name))),
        storage.staged(target) as folder,
    ):
        fill(folder, "one")
        (folder / "by-a-library").write_text("x")
    assert [operation for operation, _ in seen].count("write") == 2
    assert ("sync", "by-a-library") in seen
    renamed, synced = seen.index(("rename", "target")), seen.index(("sync", "a.json"))
    assert seen.index(("write", "a.json")) < synced < renamed
    assert seen[renamed + 1 :].count(("sync", tmp_path.name)) == 1

    def refuse(operation: str, path: Path) -> None:
        if operation == "rename":
            raise ZeroDivisionError

    with (
        pytest.raises(ZeroDivisionError),
        storage.observed(refuse),
        storage.staged(tmp_path / "other") as folder,
    ):
        fill(folder, "one")
    assert names(tmp_path) == ["target"]


# Space


def test_free_space_is_checked_before_writing(tmp_path: Path) -> None:
    message = r"no space for target.\nExpected 1,000.0 TB free; got .*Free .* on that disk"
    with pytest.raises(SpaceFault, match=message), storage.staged(tmp_path / "target", needed=10**15):
        pytest.fail("the block ran")
    assert names(tmp_path) == []
    storage.require_space(tmp_path / "not" / "yet" / "there", 1, "a byte")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk of 1 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a tmpfs is not permitted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("way", ["tensors", "bytes", "library"])
def test_a_disk_that_fills_up_keeps_the_last_version(small_disk: Path, way: str) -> None:
    target = small_disk / "target"
    with storage.staged(target) as folder:
        fill(folder, "old")

    def overfill() -> None:
        with storage.staged(target, overwrite=True) as folder:
            storage.write_bytes(folder / "first", b"x" * 500_000)
            if way == "tensors":
                storage.write_tensors(folder / "big", {"x": np.zeros(1_000_000)})
            elif way == "bytes":
                storage.write_bytes(folder / "big", b"x" * 2_000_000)
            else:
                save_file({"x": np.zeros(1_000_000)}, folder / "big")

    with pytest.raises(SpaceFault, match=r"the disk is full: target.*\nExpected room for.*free after writing"):
        overfill()
    assert version_of(target) == "old"
    assert names(small_disk) == ["target"]


def test_a_full_device_is_reported(tmp_path: Path) -> None:

    def overfill() -> None:
        with storage.staged(tmp_path / "target") as folder:
            (folder / "some").write_text("1234")
            Path("/dev/full").write_text("x" * 100_000)

    with pytest.raises(SpaceFault, match="more than 4 bytes"):
        overfill()


def test_other_errors_are_not_reported_as_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(PermissionError):
        fail(tmp_path / "target", PermissionError(errno.EACCES, "denied"))


@pytest.mark.parametrize(
    ("size", "words"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 KB"), (2_449_000, "2.4 MB"), (10**15, "1,000.0 TB")],
)
def test_sizes_in_words(size: int, words: str) -> None:
    assert console.format_size(size) == words


# Content


def test_json_is_readable_in_order_and_finite(tmp_path: Path) -> None:
    value = {"z": 1, "a": [0.1, None, "ß 中"], "é": {"nested": True}}
    storage.write_json(tmp_path / "x.json", value)
    text = (tmp_path / "x.json").read_text("utf-8")
    assert text.endswith("}\n")
    assert "ß 中" in text
    assert text.index('"z"') < text.index('"a"')
    assert storage.read_json(tmp_path / "x.json") == value
    for bad in (float("nan"), float("inf")):
        with pytest.raises(Fault, match="not a finite number"):
            storage.write_json(tmp_path / "bad.json", {"loss": bad})
    assert not (tmp_path / "bad.json").exists()


@pytest.mark.parametrize("content", [b"", b"{", b'{"a": NaN}', b"\xff\xfe{}"])
def test_broken_json_is_never_read(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(ValueError):
        storage.read_json(tmp_path / "x.json")
    with pytest.raises(FileNotFoundError):
        storage.read_json(tmp_path / "none.json")


DTYPES = st.sampled_from([np.float32, np.float64, np.float16, np.int64, np.int32, np.uint8, np.bool_])


@settings(deadline=None, max_examples=50)
@given(arrays.arrays(DTYPES, arrays.array_shapes(min_dims=0, min_side=0, max_dims=3, max_side=5)))
def test_arrays_are_read_as_they_were_written(tmp_path_factory: pytest.TempPathFactory, array: np.ndarray) -> None:
    path = tmp_path_factory.mktemp("tensors") / "x.safetensors"
    transposed = array.T
    storage.write_tensors(
        path, {"plain": array, "transposed": transposed, "strided": transposed[..., ::2] if array.ndim else array}
    )
    back = storage.read_tensors(path)
    for name, wanted in (("plain", array), ("transposed", transposed)):
        assert (back[name].dtype, back[name].shape) == (wanted.dtype, wanted.shape)
        np.testing.assert_array_equal(back[name], wanted)
    np.testing.assert_array_equal(back["strided"], transposed[..., ::2] if array.ndim else array)


def test_damaged_tensors_are_never_read(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    storage.write_tensors(path, {"x": np.arange(100)})
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="damaged"):
        storage.read_tensors(path)
    with pytest.raises(FileNotFoundError):
        storage.read_tensors(tmp_path / "none")


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    folder = tmp_path / "sealed"
    folder.mkdir()
    fill(folder, "one")
    storage.seal(folder, {"step": 3, "kind": "test"})
    return folder


def test_verifying_a_sealed_folder_returns_its_about(sealed: Path) -> None:
    assert storage.verify(sealed) == {"step": 3, "kind": "test"}
    assert storage.verify(sealed, contents=False) == {"step": 3, "kind": "test"}


@pytest.mark.parametrize("name", ["a.json", "b.safetensors", storage.SEAL_FILE])
@pytest.mark.parametrize("way", ["missing", "truncated", "one bit flipped", "empty"])
def test_any_damage_to_a_sealed_folder_is_named(sealed: Path, name: str, way: str) -> None:
    path = sealed / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    damaged = {"truncated": path.read_bytes()[:-2], "one bit flipped": bytes(content), "empty": b""}
    path.unlink() if way == "missing" else path.write_bytes(damaged[way])
    with pytest.raises(Fault, match=name):
        storage.verify(sealed)


def test_no_bit_of_a_manifest_may_flip(sealed: Path) -> None:
    path = sealed / storage.SEAL_FILE
    whole = path.read_bytes()
    meaning = json.loads(whole)
    for position in range(len(whole)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 2]) + whole[position + 1 :])
        try:
            about = storage.verify(sealed)
        except Fault:
            continue
        assert json.loads(path.read_bytes()) == meaning  # only white space changed
        assert about == meaning["about"]


def test_a_foreign_file_in_a_sealed_folder_is_named(sealed: Path) -> None:
    (sealed / "foreign").write_text("x")
    with pytest.raises(Fault, match="foreign is foreign"):
        storage.verify(sealed)


def test_many_processes_at_one_target_leave_one_whole_version(tmp_path: Path) -> None:
    code = textwrap.dedent("""
        import sys
        from pathlib import Path
        import numpy as np
        from fullbake.core import storage
        from fullbake.core.errors import OutputError
        target, mine = Path(sys.argv[1]), sys.argv[2]
        for turn in range(12):
            try:
                with storage.staged(target, overwrite=True) as folder:
                    storage.write_json(folder / "a.json", mine)
                    storage.write_tensors(folder / "b.safetensors", {"x": np.full(3, len(mine))})
            except OutputError:
                pass
    """)
    target = tmp_path / "target"
    children = [
        subprocess.Popen([sys.executable, "-c", code, str(target), "x" * size], stderr=subprocess.PIPE)
        for size in (3, 5, 7)
    ]
    outcomes = [(process.communicate(timeout=60)[1].decode(), process.returncode) for process in children]
    assert outcomes == [("", 0)] * 3
    assert set(version_of(target)) == {"x"}
    assert names(tmp_path) == ["target"]


# Locks

HOLDER = """
import sys, time
from fullbake.core.storage import sole_use
with sole_use(sys.argv[1], remedy="Wait."):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_target_has_one_user_at_a_time_and_a_killed_one_is_no_obstacle(tmp_path: Path) -> None:
    target, command = tmp_path / "new" / "out", [sys.executable, "-c", HOLDER]
    with subprocess.Popen([*command, str(target)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with (
            pytest.raises(OutputError, match=r"another process[\s\S]*Wait\."),
            storage.sole_use(target, remedy="Wait."),
        ):
            pytest.fail("two users")
        with storage.sole_use(tmp_path / "new" / "other", remedy=""):
            pass
        other.kill()
        other.wait()
    assert [path.name for path in target.parent.iterdir()] == [".out.lock"]
    with storage.sole_use(target, remedy=""):
        pass
    assert list(target.parent.iterdir()) == []


def test_a_lock_ends_with_its_block_also_by_an_exception(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), storage.sole_use(tmp_path / "out", remedy=""):
        raise KeyboardInterrupt
    with (
        storage.sole_use(tmp_path / "out", remedy=""),
        pytest.raises(OutputError, match="Wait"),
        storage.sole_use(tmp_path / "out", remedy="Wait."),
    ):
        pytest.fail("two users")
    assert list(tmp_path.iterdir()) == []


# Where one may not write


def make_file(target: Path) -> None:
    with storage.staged_file(target) as fresh:
        storage.write_bytes(fresh, b"x")


def make_bundle(target: Path) -> None:
    with storage.staged(target) as folder:
        fill(folder, "1")


def take_it(target: Path) -> None:
    with storage.sole_use(target, remedy=""):
        pass


@pytest.mark.parametrize("work", [make_file, make_bundle, take_it, storage.require_writable, storage.require_new_file])
@pytest.mark.parametrize("inside", [(), ("new", "folder")])
def test_a_folder_that_may_not_be_written_to_is_named(
    closed_folder: Path, work: Callable[[Path], None], inside: tuple[str, ...]
) -> None:
    target = closed_folder.joinpath(*inside, "target")
    with permissions_hold(), pytest.raises(OutputError) as caught:
        work(target)
    assert ".partial" not in str(caught.value)
    assert str(closed_folder) in str(caught.value)
    assert "Permission denied" in str(caught.value)
    assert list(closed_folder.iterdir()) == []


def test_what_the_system_refuses_is_said_in_plain_words(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError) as caught:
        tmp_path.read_bytes()
    explained = storage.explain_os_error(caught.value)
    assert isinstance(explained, OutputError)
    assert str(tmp_path) in str(explained)
    assert isinstance(storage.explain_os_error(OSError(errno.EDQUOT, "Disk quota exceeded", b"/x")), SpaceFault)
    assert storage.explain_os_error(OSError("a library's own words")) is None


def test_a_process_without_a_working_folder_can_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    storage.require_vacant(tmp_path / "m")
    make_bundle(tmp_path / "m")
    assert version_of(tmp_path / "m") == "1"


def test_json_keeps_names_that_are_no_text(tmp_path: Path) -> None:
    storage.write_json(tmp_path / "x.json", {"file": "\udcff.csv"})
    assert storage.read_json(tmp_path / "x.json") == {"file": "\udcff.csv"}
