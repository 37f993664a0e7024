"""The folder of a comparison: what it is of, who works in it, and whether it may be gone on with."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from filelock import FileLock, Timeout

from fullbake.core import storage
from fullbake.core.errors import OutputError
from fullbake.training import checkpoints

ABOUT: Final = "comparison.json"


@contextmanager
def opened(folder: Path, identity: Mapping[str, Any], *, restart: bool) -> Iterator[None]:
    """The folder, held while the block runs: empty, of this comparison, or emptied where `restart` says so.

    identity: what the comparison is of, JSON values, among them `recipes` by name, which may grow. Raises OutputError
    where the folder holds something else, naming what differs, or another process works in it.
    """
    place = folder.resolve()
    place.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(place.with_name(f".{place.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise OutputError(
            "another process is running a comparison here", where=str(folder), remedy="Name another --out."
        ) from error
    try:
        _enter(folder, identity, restart)
        yield
    finally:
        lock.release()
        Path(lock.lock_file).unlink(missing_ok=True)


def _enter(folder: Path, identity: Mapping[str, Any], restart: bool) -> None:
    known = _known(folder)
    if known is None:
        storage.require_vacant(folder)
    elif restart:
        storage.remove(folder)
        known = None
    else:
        _refuse_other(folder, known, identity)
    recipes = {**(known or {}).get("recipes", {}), **identity["recipes"]}
    with storage.staged_file(folder / ABOUT, overwrite=True) as fresh:
        storage.write_json(fresh, {**identity, "recipes": recipes})


def _known(folder: Path) -> dict[str, Any] | None:
    try:
        known = storage.read_json(folder / ABOUT)
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _refuse_other(folder: Path, known: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    both = set(known.get("recipes", {})) & set(now["recipes"])
    sides = [
        {**side, "recipes": {name: recipe for name, recipe in side.get("recipes", {}).items() if name in both}}
        for side in (known, now)
    ]
    there, here = sides
    found = checkpoints.differences(there, here)
    if found:
        raise OutputError(
            "the folder holds a comparison of something else",
            where=str(folder),
            got="; ".join(found[:6]) + ("; and more" if len(found) > 6 else ""),
            remedy="Name another --out, set back what differs, or pass --restart to throw that comparison away.",
        )
