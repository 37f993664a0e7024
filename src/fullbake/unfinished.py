"""The folder beside the output that holds a run until it is done: `NAME.unfinished`.

Nothing half-made ever stands under the output's own name. `run.json` says what the run is (recipe, data, processes,
threads, library versions); going on from its checkpoints is refused where any of that differs, naming what does.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fullbake.checkpoints import Cadence, Checkpoints
from fullbake.core import storage
from fullbake.core.console import say, warn
from fullbake.core.errors import OutputError
from fullbake.core.hashing import fingerprint

RUN = "run.json"


Resume = Literal["auto", "require", "anyway", "restart"]
"""What to do about an unfinished run: go on if it is the same, refuse to start anew, go on though something differs, or
throw it away."""


@dataclass(frozen=True)
class Unfinished:
    """A run under way. folder: where its checkpoints lie. identity: what they must belong to."""

    folder: Path
    identity: str
    every: Cadence
    writes: bool

    def checkpoints(self, name: str) -> Checkpoints:
        """The checkpoints of one loop of the run. name: which loop, such as `rate-5e-05`."""
        return Checkpoints(self.folder / name, self.every, self.identity, self.writes)

    def close(self) -> None:
        """The run is done and its result saved: remove what was kept for going on."""
        if self.writes:
            storage.remove(self.folder)


def folder_beside(out: str | Path) -> Path:
    """Where a run that will be saved as `out` is kept until then."""
    out = Path(out).resolve()
    return out.with_name(f"{out.name}.unfinished")


def is_saved(out: str | Path) -> bool:
    """Whether `out` holds the finished bundle of the very run that still lies beside it: only cleaning was left to
    do."""
    try:
        bundle, run = storage.read_json(Path(out) / "fullbake.json"), storage.read_json(folder_beside(out) / RUN)
    except (OSError, ValueError):
        return False
    return isinstance(bundle, dict) and bundle.get("run") == fingerprint(run)


def only_cleaning_left(out: str | Path, facts: Mapping[str, Any]) -> bool:
    """Whether that is so for the run that is asked for now."""
    return is_saved(out) and not differences(_read(folder_beside(out)), facts)


def clean(out: str | Path, *, writes: bool) -> None:
    """Remove the folder of a run whose bundle is saved."""
    if writes:
        storage.remove(folder_beside(out))


def open_run(out: str | Path, facts: Mapping[str, Any], every: Cadence, resume: Resume, *, writes: bool) -> Unfinished:
    """The unfinished run of `out`: the one that lies there, or a new one.

    facts: what the run is, JSON values by name. every: how often to save. writes: whether this process is the one
    that writes. Raises OutputError where the run that lies there is another one, or where one is required and there
    is none.
    """
    folder = folder_beside(out)
    if resume == "restart" and writes:
        storage.remove(folder)
    known = None if resume == "restart" or not _has_checkpoints(folder) else _read(folder)
    if known is None and resume == "require":
        raise OutputError(
            "there is no unfinished run to go on with", where=str(folder), remedy="Leave --resume out to start one."
        )
    if known is None:
        known = dict(facts)
        _begin(folder, known, writes)
    else:
        _compare(folder, known, facts, resume == "anyway")
        say(f"going on with the unfinished run in {folder}")
    return Unfinished(folder, fingerprint(known), every, writes)


def _has_checkpoints(folder: Path) -> bool:
    """Whether there is anything to go on from; a run that ended before its first save (or diverged) is no hindrance."""
    return next(folder.glob("*/step-*"), None) is not None


def _begin(folder: Path, facts: Mapping[str, Any], writes: bool) -> None:
    if writes:
        with storage.staged_file(folder / RUN, overwrite=True) as fresh:
            storage.write_json(fresh, facts)


def _read(folder: Path) -> dict[str, Any] | None:
    try:
        known = storage.read_json(folder / RUN)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise _unreadable(folder, str(error)) from error
    if not isinstance(known, dict):
        raise _unreadable(folder, type(known).__name__)
    return known


def _unreadable(folder: Path, got: str) -> OutputError:
    return OutputError(
        "the unfinished run's own description is damaged",
        where=str(folder / RUN),
        got=got,
        remedy="Pass --restart to throw that run away and train from the start.",
    )


def _compare(folder: Path, known: Mapping[str, Any], facts: Mapping[str, Any], anyway: bool) -> None:
    found = differences(known, facts)
    if not found:
        return
    if anyway:
        warn(f"going on although this differs (--resume-anyway): {'; '.join(found)}")
        return
    raise OutputError(
        "an unfinished run of something else lies beside the output",
        where=str(folder),
        got="; ".join(found),
        remedy="Pass --restart to throw it away, --resume-anyway to go on with its weights all the same, or name "
        "another --out. Set back what differs and it goes on by itself.",
    )


def differences(known: Any, now: Any, place: str = "") -> list[str]:
    """What differs, as `recipe.training.epochs: 3 there, 5 now`."""
    if isinstance(known, Mapping) and isinstance(now, Mapping):
        names = [*known, *(name for name in now if name not in known)]
        return [
            difference
            for name in names
            for difference in differences(known.get(name), now.get(name), f"{place}.{name}".lstrip("."))
        ]
    return [] if known == now else [f"{place}: {_short(known)} there, {_short(now)} now"]


def _short(value: Any) -> str:
    text = str(value)
    return f"{text[:12]}..." if re.fullmatch(r"[0-9a-f]{64}", text) else text
