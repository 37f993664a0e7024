"""Files that are either whole or absent: staged, synced, hashed, renamed.

Everything that a user could lose is written in a hidden folder beside its target, `.NAME.<unique>.partial`, synced, and
renamed into place. A kill at any moment leaves the target as it was, or complete. The hidden folder holds `lock` (a
running process holds it, so that leftovers of dead processes can be recognized and removed), `new/NAME` and, during an
overwrite, `old/NAME`. Trade-off: no portable call swaps two folders, so an overwrite is two renames. After a kill
between them both versions are complete in the hidden folder, and `recover` moves the new one into place.

Every step that changes the disk is reported to the observers of `observed`, so that a test can stop the process before
each step. Content is safetensors and JSON, never pickle.
"""

import errno
import json
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from fullbake.core.console import format_size
from fullbake.core.errors import Error, Fault, OutputError, SpaceFault
from fullbake.core.hashing import find_file_faults, fingerprint, hash_files
from fullbake.core.json_files import describe_kind, read_checked_json
from fullbake.core.mistyped_paths import find_address

SEAL_FILE = "manifest.json"
"""The file that `seal` writes and `verify` reads."""

_CLOSED_FOLDER = "the folder around it cannot be written to"

Observer = Callable[[str, Path], None]
"""Called with an operation (make, write, sync, rename or remove) and the path it is about to touch."""

_observers: list[Observer] = []


@contextmanager
def observed(observer: Observer) -> Iterator[None]:
    """Within the block, call `observer` before every step that changes the disk; it may raise to stop the step.

    Files that libraries write into a staging folder are reported when they are synced.
    """
    _observers.append(observer)
    try:
        yield
    finally:
        _observers.remove(observer)


def _notify_observers(operation: str, path: Path) -> None:
    for observer in tuple(_observers):
        observer(operation, path)


# Staging


@contextmanager
def staged(target: str | Path, *, overwrite: bool = False, needed: int = 0) -> Iterator[Path]:
    """Provide an empty folder that becomes `target` when the block ends without an exception.

    On any exception, KeyboardInterrupt too, the folder is removed and the target is as before.

    Args:
        target: the folder to make.
        overwrite: replace the old folder. It is moved aside only once the new one is complete and synced, and removed
            after the new one is in place.
        needed: bytes that the disk must have free at the start.

    Yields:
        The folder to write into.

    Raises:
        OutputError: the target holds something, or is a file, a mount point, or contains the working or home folder.
        SpaceFault: the disk is full, before or while writing.
    """
    require_vacant(target, overwrite=overwrite)
    place = Path(target).resolve()
    with hidden_folder(place, needed) as fresh:
        make_folder(fresh)
        yield fresh
        sync_tree(fresh)
        publish(fresh, place, overwrite=overwrite)


@contextmanager
def staged_file(target: str | Path, *, overwrite: bool = False, needed: int = 0) -> Iterator[Path]:
    """Provide a path with the target's name; the file that the block writes there becomes the target.

    Otherwise it is like `staged`. Overwriting a file is a single rename.

    Args:
        target: the file to make.
        overwrite: replace the old file.
        needed: bytes that the disk must have free at the start.

    Yields:
        The path to write to. There is no file yet.

    Raises:
        OutputError: the target is a folder, or a file while `overwrite` is false.
        SpaceFault: the disk is full, before or while writing.
        Fault: the block wrote no file.
    """
    require_new_file(target, overwrite=overwrite)
    place = Path(target).resolve()
    with hidden_folder(place, needed) as fresh:
        yield fresh
        if not fresh.is_file():
            raise Fault("nothing was written", where=str(target), expected="one file", got="none")
        sync_tree(fresh)
        _rename(fresh, place)


@contextmanager
def hidden_folder(place: Path, needed: int = 0) -> Iterator[Path]:
    """Provide `new/NAME` in a locked hidden folder beside `place`, and remove the hidden folder at the end.

    This is the lower half of `staged`; a direct caller has to sync and rename (`sync_tree`, `publish`).

    Args:
        place: the final path, resolved.
        needed: bytes that the disk must have free at the start.

    Yields:
        The path to write to. There is nothing yet.

    Raises:
        OutputError: the folder of `place` cannot be made.
        SpaceFault: the disk is full, before or while writing.
    """
    make_folder(place.parent)
    recover(place)
    require_space(place.parent, needed, place.name)
    holder, lock = _hold(place)
    try:
        make_folder(holder / "new")
        with translate_full_disk(holder, place, needed):
            yield holder / "new" / place.name
    finally:
        try:
            _close(holder, place)
        finally:
            lock.release()


@contextmanager
def sole_use(target: str | Path, *, remedy: str) -> Iterator[None]:
    """Keep other processes from working on `target` while the block runs.

    The lock is a hidden file beside the target, `.NAME.lock`. The system releases it when the process ends, however it
    ends, so that the file of a dead process is no obstacle.

    Args:
        target: the file or folder, which need not exist.
        remedy: whole sentences that say what to do if another process works on it.

    Raises:
        OutputError: another process works on it, or the folder around it cannot be made or written to.
    """
    place = Path(target).resolve()
    make_folder(place.parent)
    lock = FileLock(place.with_name(f".{place.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise OutputError("another process is working on this output", where=str(target), remedy=remedy) from error
    except OSError as error:
        raise _refused(error, _CLOSED_FOLDER, target) from error
    try:
        yield
    finally:
        with suppress(OSError):  # before the release: afterwards it may be the lock of another process
            Path(lock.lock_file).unlink()
        lock.release()


def recover(target: str | Path) -> None:
    """Remove what dead processes left beside `target`, and finish an overwrite that one of them had begun."""
    place = Path(target).resolve()
    pattern = re.compile(rf"\.{re.escape(place.name)}\.[0-9a-f]{{16}}\.partial")
    for holder in [path for path in _listing(place.parent) if pattern.fullmatch(path.name)]:
        lock = FileLock(holder / "lock")
        with suppress(Timeout, OSError):  # its process still runs, or it belongs to another user
            lock.acquire(timeout=0)
            try:
                _close(holder, place)
            finally:
                lock.release()


_OR_OVERWRITE = "Name another folder, or pass --overwrite: it is removed once the new one is complete."


def require_vacant(target: str | Path, *, overwrite: bool = False, remedy: str = _OR_OVERWRITE) -> None:
    """Raise the OutputError that `staged` would raise. Call it before long work whose result goes to `target`.

    Args:
        target: The folder.
        overwrite: It may hold something.
        remedy: What to do if it does; another one for a command without --overwrite.
    """
    require_local(target)
    place = Path(target).resolve()
    if place.exists() and not place.is_dir():
        raise OutputError("a file has this name", where=str(target), remedy="Name another folder.")
    if os.path.ismount(place) or any(home.is_relative_to(place) for home in _homes()):
        raise OutputError(
            "this folder cannot be replaced as a whole",
            where=str(target),
            expected="a folder that is not a mount point and does not contain the working or the home folder",
            remedy=f"Name a new folder inside it, such as {Path(target) / 'bundle'}.",
        )
    names = [path.name for path in _listing(place)]
    if names and not overwrite:
        raise OutputError(
            "the folder already holds something",
            where=str(target),
            expected="a new or an empty folder",
            got=f"{len(names)} entries, among them {min(names)!r}",
            remedy=remedy,
        )


def require_new_file(target: str | Path, *, overwrite: bool = False) -> None:
    """Raise the error that `staged_file` would raise. Call it before long work whose result goes to `target`.

    Raises:
        OutputError: the target is a folder, or a file while `overwrite` is false; or its folder cannot be written to.
        SpaceFault: the disk is full.
    """
    require_local(target)
    place = Path(target).resolve()
    if place.is_dir() or (place.exists() and not overwrite):
        raise OutputError(
            "a folder has this name" if place.is_dir() else "the file exists already",
            where=str(target),
            remedy="Name another file." if place.is_dir() else "Name another file, or pass --overwrite.",
        )
    require_writable(target)


def require_local(target: str | Path) -> None:
    """Raise OutputError if a target is an address such as s3://bucket/folder, which would make folders of its words."""
    address = find_address(target)
    if address is not None:
        raise OutputError(
            "fullbake writes to folders that this machine sees, not to addresses",
            where=address,
            remedy="Name a folder, and copy it when it is complete with the program of your store, such as "
            "aws s3 sync, gcloud storage rsync or rclone; or mount the store as a folder.",
        )


def require_writable(target: str | Path) -> None:
    """Raise the error that writing `target` would raise because of the folder around it. Call it before long work.

    A file without a name is made there, because permissions alone do not say it: root may write everywhere but on a
    read-only file system.

    Raises:
        OutputError: the folder, or the nearest one above that exists, cannot be written to.
        SpaceFault: the disk is full.
    """
    require_local(target)
    try:
        with tempfile.TemporaryFile(dir=_nearest(Path(target).resolve().parent)) as file:
            file.write(b"0")
    except OSError as error:
        raise _refused(error, _CLOSED_FOLDER, target) from error


def explain_os_error(error: OSError) -> Error | None:
    """Return the error that says in plain words what the system refused, None if it names no reason of its own."""
    if error.errno is None or error.strerror is None:
        return None
    return _refused(error, "the system refuses to read or write this", error.filename, remedy=None)


def _refused(
    error: OSError,
    what: str,
    where: str | Path | bytes | int | None,
    remedy: str | None = "Name a folder that you may write to.",
) -> Error:
    """Return what to raise in place of an OSError: SpaceFault if the disk is full, else OutputError."""
    place = None if where is None else os.fsdecode(where) if isinstance(where, bytes) else str(where)
    if _means_full(error):
        return SpaceFault(
            "the disk is full",
            where=place,
            got=error.strerror,
            remedy="Free some space, or name a folder on another disk.",
        )
    return OutputError(what, where=place, got=error.strerror or str(error), remedy=remedy)


def _homes() -> list[Path]:
    """Return the working folder and the home folder, if the process has them."""
    found = []
    for folder in (Path.cwd, Path.home):
        with suppress(OSError, RuntimeError):  # deleted meanwhile; a user without a home
            found.append(folder())
    return found


def recover_all(folder: str | Path) -> None:
    """Call `recover` for every name in `folder`, for folders whose names vary, such as caches and checkpoints."""
    matches = [re.fullmatch(r"\.(.+)\.[0-9a-f]{16}\.partial", path.name) for path in _listing(Path(folder))]
    for name in {match[1] for match in matches if match}:
        recover(Path(folder) / name)


def require_space(folder: str | Path, needed: int, what: str) -> None:
    """Raise SpaceFault if the disk of `folder` has less than `needed` bytes free for `what`."""
    free = shutil.disk_usage(_nearest(Path(folder))).free
    if free < needed:
        raise SpaceFault(
            f"there is no space for {what}",
            where=str(folder),
            expected=f"{format_size(needed)} free",
            got=format_size(free),
            remedy=f"Free {format_size(needed - free)} on that disk, or name a folder on another one.",
        )


def _hold(place: Path) -> tuple[Path, FileLock]:
    """Make a hidden folder and return it with its lock."""
    while True:  # another process may remove the folder as long as it is not locked
        holder = place.with_name(f".{place.name}.{uuid.uuid4().hex[:16]}.partial")
        _make_folder(holder, _CLOSED_FOLDER, place)
        lock = FileLock(holder / "lock")
        try:
            lock.acquire(timeout=0)
        except (Timeout, FileNotFoundError):
            continue
        except OSError as error:
            remove_tree(holder)
            raise _refused(error, _CLOSED_FOLDER, place) from error
        return holder, lock


def publish(fresh: Path, place: Path, *, overwrite: bool = False) -> None:
    """Rename `new/NAME`, which must be synced, to `place`.

    Args:
        fresh: the path of `new/NAME` in a hidden folder.
        place: the final path.
        overwrite: move what is at `place` to `old/NAME` first.

    Raises:
        OutputError: there is a folder with content at `place`, and it may not be overwritten.
    """
    aside = fresh.parent.with_name("old") / place.name
    try:
        if overwrite and place.exists():
            make_folder(aside.parent)
            with suppress(FileNotFoundError):  # another process moved it first
                _rename(place, aside)
        _rename(fresh, place)
    except BaseException as error:
        if aside.exists() and not place.exists():
            _rename(aside, place)
        if not isinstance(error, OSError) or error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        remove_tree(aside)  # the old version was to be replaced anyway, and another process has replaced it
        raise OutputError(
            "another process wrote here meanwhile", where=str(place), remedy="Name another folder."
        ) from error


def _close(holder: Path, place: Path) -> None:
    """Remove the hidden folder. If it holds an old and a new version, move the new one into place first."""
    fresh, aside = holder / "new" / place.name, holder / "old" / place.name
    if fresh.exists() and aside.exists():
        if place.exists():
            return  # another process has written there since: keep both versions for their owner to look at
        _rename(fresh, place)
    remove_tree(holder)


def sync_tree(path: Path) -> None:
    """Sync a file or a folder with all that is in it, the deepest first.

    Files also get the access bits of the folder around, because safetensors 0.8 makes its files readable by their owner
    alone, whatever the umask.
    """
    mode = path.parent.stat().st_mode & 0o666
    for file in sorted(path.rglob("*"), reverse=True) if path.is_dir() else ():
        _sync(file, mode)
    _sync(path, mode)


def _sync(path: Path, mode: int = 0) -> None:
    _notify_observers("sync", path)
    if path.is_file():
        path.chmod(path.stat().st_mode | mode)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, if they do not exist.

    Raises:
        OutputError: that is not possible.
        SpaceFault: the disk is full.
    """
    _make_folder(folder, "the folder cannot be made", folder)


def _make_folder(folder: Path, what: str, where: Path) -> None:
    """Make a folder and those above it. An error says `what` of `where`."""
    try:
        if folder.is_dir():
            return
        _notify_observers("make", folder)
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _refused(error, what, where) from error


def _rename(source: Path, target: Path) -> None:
    _notify_observers("rename", target)
    source.replace(target)
    for folder in {source.parent, target.parent}:
        _sync(folder)


def remove_tree(folder: Path) -> None:
    """Remove a folder with all that is in it; what cannot be removed is left for the next start."""
    _notify_observers("remove", folder)
    shutil.rmtree(folder, ignore_errors=True)


def _listing(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _nearest(folder: Path) -> Path:
    return next(path for path in (folder, *folder.resolve().parents) if path.exists())


@contextmanager
def translate_full_disk(holder: Path, place: Path, needed: int) -> Iterator[None]:
    """Raise SpaceFault for whatever exception a full disk causes within the block.

    Args:
        holder: the folder that the block writes to.
        place: the final path.
        needed: expected size in bytes of all that the block writes.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, SpaceFault) or not _means_full(error):
            raise
        written = sum(path.stat().st_size for path in holder.rglob("*") if path.is_file())
        raise SpaceFault(
            f"the disk is full: {place.name} could not be written",
            where=str(place.parent),
            expected=f"room for {format_size(needed) if needed > written else f'more than {format_size(written)}'}",
            got=f"{format_size(shutil.disk_usage(place.parent).free)} free after writing {format_size(written)}",
            remedy="What was there before is untouched. Free some space, or name a folder on another disk.",
        ) from error


def _means_full(error: BaseException | None) -> bool:
    """Return True if a full disk or quota caused `error`.

    Errors from the Rust part of safetensors carry no errno, so that their text has to be searched.
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if re.search(r"No space left on device|Disk quota exceeded", str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


# Content


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file: UTF-8, indented by two spaces, keys in the given order, a newline at the end.

    Raises:
        Fault: the value holds NaN or an infinity, which JSON cannot hold.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False)
    except ValueError as error:
        raise Fault("a value is not a finite number", where=str(path), expected="JSON", got=str(error)) from error
    # Half of a surrogate pair, as in a file name that is not UTF-8, becomes an escape of JSON.
    write_bytes(path, f"{text}\n".encode("utf-8", "backslashreplace"))


def read_json(path: Path) -> Any:
    """Read what `write_json` wrote.

    Raises:
        OSError, ValueError: the file is missing or damaged; the caller knows what it is and how to say so.
    """

    def refuse(literal: str) -> None:
        raise ValueError(f"{literal} is not JSON")

    return json.loads(path.read_bytes(), parse_constant=refuse)


MANIFEST_FILE = "fullbake.json"
"""The file in which a bundle, or a base that fullbake made, describes itself."""


def read_manifest_file(folder: str | Path) -> dict[str, Any] | None:
    """Read the fullbake.json of a bundle or a base. Only its syntax and its size are checked, not its shape.

    Args:
        folder: The bundle or the base.

    Returns:
        Its content, or None if the folder has no such file.

    Raises:
        ValueError: The file is not JSON, or holds no object.
    """
    path = Path(folder) / MANIFEST_FILE
    if not path.is_file():
        return None
    found = read_checked_json(path)
    if not isinstance(found, dict):
        raise ValueError(f"an object is expected, not {type(found).__name__}")
    return found


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file of these bytes."""
    _notify_observers("write", path)
    path.write_bytes(content)


def write_tensors(path: Path, tensors: Mapping[str, NDArray[Any]]) -> None:
    """Write a safetensors file of numpy arrays by name, of any shape and memory order."""
    from safetensors.numpy import save_file

    _notify_observers("write", path)
    # safetensors copies an array's memory without a look at its strides: a transposed array would come back scrambled.
    save_file({name: np.asarray(array, order="C") for name, array in tensors.items()}, path)


def read_tensors(path: Path) -> dict[str, NDArray[Any]]:
    """Read what `write_tensors` wrote.

    Raises:
        OSError: the file is missing.
        ValueError: it is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    kind = describe_kind(path)
    if kind is not None:
        raise ValueError(f"{path} is {kind}, not a plain file")
    try:
        return dict(load_file(path))
    except (SafetensorError, KeyError, TypeError, AttributeError, OverflowError) as error:  # types that numpy lacks
        raise ValueError(f"{path} is damaged: {error!s:.300}") from error


def seal(folder: Path, about: Mapping[str, Any]) -> None:
    """Write the manifest of a folder: `about`, the sizes and hashes of all files, and the manifest's own hash.

    Call it last, when all other files are written.

    Args:
        folder: the folder to seal.
        about: JSON values by name, which `verify` gives back.
    """
    files = hash_files(folder)
    manifest = {"about": dict(about), "files": files}
    write_json(folder / SEAL_FILE, manifest | {"sha256": fingerprint(_canonical(manifest))})


def verify(folder: Path, *, contents: bool = True) -> dict[str, Any]:
    """Check a sealed folder and return its `about`.

    Args:
        folder: the folder to check.
        contents: check the hashes of all files; without it only the manifest's own hash and the files' sizes.

    Raises:
        Fault: names every file that is missing, damaged or foreign.
    """
    manifest = _read_manifest(folder)
    faults = _manifest_faults(manifest) or find_file_faults(
        folder, manifest["files"], optional=[SEAL_FILE], contents=contents
    )
    if faults:
        raise Fault("the folder is damaged", where=str(folder), got="; ".join(faults))
    about: dict[str, Any] = manifest["about"]
    return about


def _read_manifest(folder: Path) -> Any:
    try:
        return read_json(folder / SEAL_FILE)
    except (OSError, ValueError) as error:
        raise Fault("the folder is damaged", where=str(folder), got=f"{SEAL_FILE}: {error}") from error


def _manifest_faults(manifest: Any) -> list[str]:
    keys = {"about", "files", "sha256"}
    if isinstance(manifest, dict) and manifest.keys() == keys:
        signed = {key: manifest[key] for key in ("about", "files")}
        if manifest["sha256"] == fingerprint(_canonical(signed)):
            return []
    return [f"{SEAL_FILE} is damaged (its own sha256 differs)"]


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
