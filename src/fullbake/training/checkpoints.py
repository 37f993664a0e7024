"""Checkpoints of a training loop: sealed folders of arrays and JSON, the newest that verifies wins.

A checkpoint is staged, synced, sealed with the sizes and hashes of its files, renamed, and read back before an older
one goes; two are kept. Reading back costs about as much as hashing (0.3 s for 360 MB), against finding out after the
crash. A damaged checkpoint is named and left out, never used: each one can be read whole or not at all.

The folder beside the output that holds a run until it is done: `NAME.unfinished`.

Nothing half-made ever stands under the output's own name. `run.json` says what the run is (recipe, data, processes,
threads, library versions); going on from its checkpoints is refused where any of that differs, naming what does.
"""

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fullbake.core import storage
from fullbake.core.console import parse_duration, say, warn
from fullbake.core.errors import Fault, OutputError, RecipeError
from fullbake.core.hashing import fingerprint

CHECKPOINTS_KEPT = 2
_NAME = re.compile(r"step-(\d{9})")


@dataclass(frozen=True)
class CheckpointInterval:
    """How often to save: every so many steps, or every so many seconds (the other is None)."""

    steps: int | None = None
    seconds: float | None = None

    @classmethod
    def parse(cls, text: str) -> "CheckpointInterval":
        """`50` is steps; `30s`, `5m`, `1h` are times. Raises RecipeError for anything else."""
        if re.fullmatch(r"\d*[1-9]\d*", text.strip()):
            return cls(steps=int(text))
        try:
            return cls(seconds=parse_duration(text))
        except ValueError:
            raise RecipeError(
                "this is neither a number of steps nor a duration",
                where="--checkpoint-every",
                expected="steps such as 50, or a duration such as 30s, 5m or 1h",
                got=repr(text),
            ) from None


@dataclass(frozen=True)
class Checkpoint:
    """One state of a loop. arrays: file stem -> its arrays by name. facts: JSON values. step: steps taken in all."""

    step: int
    arrays: Mapping[str, Mapping[str, np.ndarray]]
    facts: Mapping[str, Any]


@dataclass
class Checkpoints:
    """The checkpoints of one loop in one folder.

    identity: what a run must share to go on from them; stands in every manifest. writes: whether this process is the
    one that writes (rank 0).
    """

    folder: Path
    every: CheckpointInterval
    identity: str
    writes: bool = True
    _saved_at: float = field(default_factory=time.monotonic)

    def due(self, step: int) -> bool:
        """Whether it is time to save after so many steps."""
        if self.every.steps is not None:
            return step % self.every.steps == 0
        assert self.every.seconds is not None
        return time.monotonic() - self._saved_at >= self.every.seconds

    def save(self, checkpoint: Checkpoint) -> None:
        """Write, read back, and let the oldest go. Raises SpaceFault; what was saved before then still stands."""
        if self.writes:
            place = self.folder / f"step-{checkpoint.step:09d}"
            size = sum(array.nbytes for arrays in checkpoint.arrays.values() for array in arrays.values())
            with storage.staged(place, overwrite=True, needed=size + 1_000_000) as fresh:
                self._write(fresh, checkpoint)
            storage.verify(place)
            for old in self._folders()[:-CHECKPOINTS_KEPT]:
                storage.remove_tree(old)
        self._saved_at = time.monotonic()

    def newest(self) -> Checkpoint | None:
        """The newest checkpoint that verifies, None where there is none. Each one passed over is named with its fault.

        Raises Fault where there are checkpoints and none of them can be used.
        """
        if self.writes:
            storage.recover_all(self.folder)
        faults = []
        for place in reversed(self._folders()):
            try:
                checkpoint = self._read(place)
            except (Fault, OSError, ValueError, KeyError) as error:
                faults.append(f"{place.name}: {error}")
                warn(f"checkpoint {place} cannot be used, trying the one before it: {error}")
                continue
            if faults:
                say(f"fell back to the checkpoint at step {checkpoint.step:,}")
            return checkpoint
        if faults:
            raise Fault(
                "no checkpoint of this run can be used",
                where=str(self.folder),
                got="; ".join(faults),
                remedy="Pass --restart to train again from the start.",
            )
        return None

    def _write(self, fresh: Path, checkpoint: Checkpoint) -> None:
        for stem, arrays in checkpoint.arrays.items():
            storage.write_tensors(fresh / f"{stem}.safetensors", arrays)
        storage.write_json(fresh / "state.json", dict(checkpoint.facts))
        storage.seal(fresh, {"identity": self.identity, "step": checkpoint.step, "arrays": sorted(checkpoint.arrays)})

    def _read(self, place: Path) -> Checkpoint:
        about = storage.verify(place)
        if about["identity"] != self.identity or place.name != f"step-{about['step']:09d}":
            raise Fault("it belongs to another run or another step", where=str(place))
        arrays = {stem: storage.read_tensors(place / f"{stem}.safetensors") for stem in about["arrays"]}
        return Checkpoint(about["step"], arrays, storage.read_json(place / "state.json"))

    def _folders(self) -> list[Path]:
        """The checkpoints' folders, oldest first."""
        found = self.folder.iterdir() if self.folder.is_dir() else []
        return sorted(path for path in found if _NAME.fullmatch(path.name))


RUN_FILE = "run.json"


ResumeMode = Literal["auto", "require", "anyway", "restart"]
"""What to do about an unfinished run: go on if it is the same, refuse to start anew, go on though something differs, or
throw it away."""


@dataclass(frozen=True)
class UnfinishedRun:
    """A run under way. folder: where its checkpoints lie. identity: what they must belong to."""

    folder: Path
    identity: str
    every: CheckpointInterval
    writes: bool

    def checkpoints(self, name: str) -> Checkpoints:
        """The checkpoints of one loop of the run. name: which loop, such as `rate-5e-05`."""
        return Checkpoints(self.folder / name, self.every, self.identity, self.writes)

    def close(self) -> None:
        """The run is done and its result saved: remove what was kept for going on."""
        if self.writes:
            storage.remove_tree(self.folder)


def unfinished_folder(out: str | Path) -> Path:
    """Where a run that will be saved as `out` is kept until then."""
    out = Path(out).resolve()
    return out.with_name(f"{out.name}.unfinished")


def is_saved(out: str | Path) -> bool:
    """Whether `out` holds the finished bundle of the very run that still lies beside it: only cleaning was left to
    do."""
    try:
        bundle, run = (
            storage.read_json(Path(out) / "fullbake.json"),
            storage.read_json(unfinished_folder(out) / RUN_FILE),
        )
    except (OSError, ValueError):
        return False
    return isinstance(bundle, dict) and bundle.get("run") == fingerprint(run)


def only_cleanup_left(out: str | Path, facts: Mapping[str, Any]) -> bool:
    """Whether that is so for the run that is asked for now."""
    return is_saved(out) and not list_differences(_read(unfinished_folder(out)), facts)


def remove_unfinished(out: str | Path, *, writes: bool) -> None:
    """Remove the folder of a run whose bundle is saved."""
    if writes:
        storage.remove_tree(unfinished_folder(out))


def open_unfinished_run(
    out: str | Path, facts: Mapping[str, Any], every: CheckpointInterval, resume: ResumeMode, *, writes: bool
) -> UnfinishedRun:
    """The unfinished run of `out`: the one that lies there, or a new one.

    facts: what the run is, JSON values by name. every: how often to save. writes: whether this process is the one
    that writes. Raises OutputError where the run that lies there is another one, or where one is required and there
    is none.
    """
    folder = unfinished_folder(out)
    if resume == "restart" and writes:
        storage.remove_tree(folder)
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
    return UnfinishedRun(folder, fingerprint(known), every, writes)


def _has_checkpoints(folder: Path) -> bool:
    """Whether there is anything to go on from; a run that ended before its first save (or diverged) is no hindrance."""
    return next(folder.glob("*/step-*"), None) is not None


def _begin(folder: Path, facts: Mapping[str, Any], writes: bool) -> None:
    if writes:
        with storage.staged_file(folder / RUN_FILE, overwrite=True) as fresh:
            storage.write_json(fresh, facts)


def _read(folder: Path) -> dict[str, Any] | None:
    try:
        known = storage.read_json(folder / RUN_FILE)
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
        where=str(folder / RUN_FILE),
        got=got,
        remedy="Pass --restart to throw that run away and train from the start.",
    )


def _compare(folder: Path, known: Mapping[str, Any], facts: Mapping[str, Any], anyway: bool) -> None:
    found = list_differences(known, facts)
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


def list_differences(known: Any, now: Any, place: str = "") -> list[str]:
    """What differs, as `recipe.training.epochs: 3 there, 5 now`."""
    if isinstance(known, Mapping) and isinstance(now, Mapping):
        names = [*known, *(name for name in now if name not in known)]
        return [
            difference
            for name in names
            for difference in list_differences(known.get(name), now.get(name), f"{place}.{name}".lstrip("."))
        ]
    return [] if known == now else [f"{place}: {_short(known)} there, {_short(now)} now"]


def _short(value: Any) -> str:
    text = str(value)
    return f"{text[:12]}..." if re.fullmatch(r"[0-9a-f]{64}", text) else text
