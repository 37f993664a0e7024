"""Checkpoints of a training loop, and the folder beside the output that holds them until the run is done.

A checkpoint is a sealed folder of arrays and JSON. It is staged, synced, sealed with the sizes and hashes of its files,
renamed, and verified before an older one is removed; two are kept. Verifying takes about as long as hashing (0.3 s for
360 MB), in return damage is found while an older checkpoint exists. A damaged one is reported and never used.

The folder is `NAME.unfinished`, so that nothing incomplete is ever found under the output's own name. Its `run.json`
says what the run is (recipe, data, processes, threads, library versions). To resume is refused if any of that differs,
except the number of processes (`elastic` says why).
"""

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, get_args

import numpy as np

from fullbake.core import storage
from fullbake.core.console import parse_duration, say, warn
from fullbake.core.errors import Fault, OutputError, RecipeError, one_line
from fullbake.core.hashing import fingerprint

CHECKPOINTS_KEPT = 2
"""Checkpoints of one loop that are kept, the newest ones."""

_NAME = re.compile(r"step-(\d{9})")


@dataclass(frozen=True)
class CheckpointInterval:
    """How often to save: every `steps` optimizer steps, or every `seconds`. The other one is None."""

    steps: int | None = None
    seconds: float | None = None

    @classmethod
    def parse(cls, value: str | int) -> "CheckpointInterval":
        """Read the value of --checkpoint-every.

        Args:
            value: a number of steps such as `50`, or a duration such as `30s`, `5m`, `1h30m`.

        Raises:
            RecipeError: it is neither.
        """
        text = str(value)
        if re.fullmatch(r"\d*[1-9]\d*", text.strip()):
            return cls(steps=int(text))
        try:
            return cls(seconds=parse_duration(text, "--checkpoint-every"))
        except RecipeError:
            raise RecipeError(
                "this is neither a number of steps nor a duration",
                where="--checkpoint-every",
                expected="steps such as 50, or a duration such as 30s, 5m or 1h",
                got=repr(text),
            ) from None


@dataclass(frozen=True)
class Checkpoint:
    """The state of a loop after a step.

    Attributes:
        step: optimizer steps taken so far.
        arrays: file stem -> arrays by name, such as `model` -> weights.
        facts: JSON values by name.
    """

    step: int
    arrays: Mapping[str, Mapping[str, np.ndarray]]
    facts: Mapping[str, Any]


@dataclass
class Checkpoints:
    """The checkpoints of one loop in one folder.

    Attributes:
        folder: where they are.
        every: how often to save.
        identity: fingerprint of the run, which is part of every manifest; only a run of the same identity may resume.
        writes: whether this process is the one that writes (rank 0).
        clock: returns the time in seconds.
    """

    folder: Path
    every: CheckpointInterval
    identity: str
    writes: bool = True
    clock: Callable[[], float] = time.monotonic
    _saved_at: float = field(init=False)

    def __post_init__(self) -> None:
        self._saved_at = self.clock()

    def due(self, step: int) -> bool:
        """Return True if it is time to save after this number of steps."""
        if self.every.steps is not None:
            return step % self.every.steps == 0
        assert self.every.seconds is not None
        return self.clock() - self._saved_at >= self.every.seconds

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint, verify it, and remove the oldest.

        Raises:
            SpaceFault: the disk is full. The earlier checkpoints are still there.
        """
        if self.writes:
            place = self.folder / f"step-{checkpoint.step:09d}"
            size = sum(array.nbytes for arrays in checkpoint.arrays.values() for array in arrays.values())
            with storage.staged(place, overwrite=True, needed=size + 1_000_000) as fresh:
                self._write(fresh, checkpoint)
            storage.verify(place)
            for old in self._folders()[:-CHECKPOINTS_KEPT]:
                storage.remove_tree(old)
        self._saved_at = self.clock()

    def recover(self) -> None:
        """Remove what dead processes left among the checkpoints. Processes that do not write do nothing."""
        if self.writes:
            storage.recover_all(self.folder)

    def newest(self) -> Checkpoint | None:
        """Return the newest checkpoint that is not damaged, None if there are no checkpoints.

        Each damaged one is reported in a warning.

        Raises:
            Fault: there are checkpoints, but all are damaged or of another run.
        """
        self.recover()
        faults = []
        for place in reversed(self._folders()):
            try:
                checkpoint = self._read(place)
            except (Fault, OSError, ValueError, KeyError) as error:
                reason = one_line(error)
                faults.append(f"{place.name}: {reason}")
                warn(f"checkpoint {place} cannot be used, the one before it is tried: {reason}")
                continue
            if faults:
                say(f"using the older checkpoint of step {checkpoint.step:,}")
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
        """Return the folders of the checkpoints, the oldest first."""
        found = self.folder.iterdir() if self.folder.is_dir() else []
        return sorted(path for path in found if _NAME.fullmatch(path.name))


RUN_FILE = "run.json"
"""The file of an unfinished run that says what the run is."""

CHANGEABLE_FACTS: Final = ("processes",)
"""Facts of a run that may be others when it is resumed."""

ResumeMode = Literal["auto", "require", "anyway", "restart"]


def check_resume_mode(word: object) -> None:
    """Raise RecipeError if the word is no resume mode."""
    if word not in get_args(ResumeMode):
        raise RecipeError(
            "there is no such mode of resuming",
            where="resume",
            expected=", ".join(get_args(ResumeMode)),
            got=repr(word),
        )


"""What to do about an unfinished run: resume it if it is the same run (`auto`), refuse to start a new one (`require`),
resume it although something differs (`anyway`), or delete it and start again (`restart`)."""


@dataclass(frozen=True)
class UnfinishedRun:
    """A run that is not done yet.

    Attributes:
        folder: holds its checkpoints.
        identity: fingerprint of what the run is.
        every: how often to save.
        writes: whether this process is the one that writes.
    """

    folder: Path
    identity: str
    every: CheckpointInterval
    writes: bool

    def checkpoints(self, name: str) -> Checkpoints:
        """Return the checkpoints of one loop of the run.

        Args:
            name: which loop, such as `rate-5e-05`; also the name of its folder.
        """
        return Checkpoints(self.folder / name, self.every, self.identity, self.writes)

    def is_described(self) -> bool:
        """Return True if this process sees the folder with the file that says what the run is."""
        try:
            return fingerprint(_read(self.folder)) == self.identity
        except OutputError:
            return False

    def close(self) -> None:
        """Remove the folder. Call this when the run is done and its result is saved."""
        if self.writes:
            storage.remove_tree(self.folder)


def unfinished_folder(out: str | Path) -> Path:
    """Return the folder that holds the run of `out` until it is done: `OUT.unfinished`."""
    out = Path(out).resolve()
    return out.with_name(f"{out.name}.unfinished")


@contextmanager
def sole_run(out: str | Path, *, writes: bool) -> Iterator[None]:
    """Keep other runs from working on the same output, and on the unfinished run beside it, while the block runs.

    Args:
        out: the output folder.
        writes: whether this process is the one that writes; others do nothing.

    Raises:
        OutputError: another run is working on it.
    """
    if not writes:
        yield
        return
    remedy = "Wait until that run ends, or pass another --out. A lock ends with its process: nothing has to be deleted."
    with storage.sole_use(out, remedy=remedy):
        yield


def recorded_threads(out: str | Path) -> int | None:
    """Return the number of threads that the unfinished run of `out` computes with, None if there is none to resume.

    Raises:
        OutputError: the file that describes the unfinished run is damaged.
    """
    return threads_in(unfinished_folder(out))


def threads_in(folder: Path, identity: str | None = None) -> int | None:
    """Return the number of threads of the unfinished run in `folder`, None if there is none to resume.

    Args:
        folder: where the run saves its checkpoints.
        identity: only a run of this identity is resumed; None accepts any.
    """
    known = _read(folder) if _has_checkpoints(folder) else None
    if known is None or (identity is not None and known.get("identity") != identity):
        return None
    threads = known.get("threads")
    return threads if isinstance(threads, int) else None


def begin_run(folder: Path, identity: str, threads: int) -> None:
    """Note identity and number of threads of a run that begins in `folder`. A run to be resumed keeps its own.

    Checkpoints of a run of another identity are removed: nobody can resume them any more.

    Args:
        folder: where the run saves its checkpoints; of a run that `open_unfinished_run` does not describe.
        identity: fingerprint of what the run is.
        threads: the number.
    """
    if _has_checkpoints(folder):
        if (_read(folder) or {}).get("identity") == identity:
            return
        storage.remove_tree(folder)
    with storage.staged_file(folder / RUN_FILE, overwrite=True) as fresh:
        storage.write_json(fresh, {"identity": identity, "threads": threads})


def is_saved(out: str | Path) -> bool:
    """Return True if `out` is the finished result of the unfinished run beside it, which was only not removed yet."""
    try:
        bundle = storage.read_manifest_file(out)
        run = storage.read_json(unfinished_folder(out) / RUN_FILE)
    except (OSError, ValueError):
        return False
    return bundle is not None and bundle.get("run") == fingerprint(run)


def only_cleanup_left(out: str | Path, facts: Mapping[str, Any]) -> bool:
    """Return True if `out` already holds the finished result of this exact run, so that only the unfinished run beside
    it must be removed.

    Args:
        out: the output folder.
        facts: what the run of now is, JSON values by name.
    """
    return is_saved(out) and not _other_facts(_read(unfinished_folder(out)) or {}, facts)


def saved_run(out: str | Path, *, writes: bool) -> UnfinishedRun:
    """Return the unfinished run of `out`, whose result is saved, so that it can be closed.

    Args:
        out: the output folder.
        writes: whether this process is the one that writes.
    """
    folder = unfinished_folder(out)
    return UnfinishedRun(folder, fingerprint(_read(folder)), CheckpointInterval(), writes)


def remove_unfinished(out: str | Path, *, writes: bool) -> None:
    """Remove the unfinished run of `out`, whose result is saved.

    Args:
        out: the output folder.
        writes: whether this process is the one that writes; others do nothing.
    """
    if writes:
        storage.remove_tree(unfinished_folder(out))


def open_unfinished_run(
    out: str | Path, facts: Mapping[str, Any], every: CheckpointInterval, resume: ResumeMode, *, writes: bool
) -> UnfinishedRun:
    """Open the unfinished run of `out`: the one that is there, or a new one.

    Args:
        out: the output folder.
        facts: what the run is, JSON values by name; see `Job.facts`.
        every: how often to save.
        resume: what to do about an unfinished run that is there.
        writes: whether this process is the one that writes.

    Raises:
        OutputError: the run that is there is another one, or one is required and there is none.
    """
    folder = unfinished_folder(out)
    if resume == "restart" and writes:
        storage.remove_tree(folder)
    known = None if resume == "restart" or not _has_checkpoints(folder) else _read(folder)
    if known is None and resume == "require":
        raise OutputError(
            "there is no unfinished run to resume", where=str(folder), remedy="Leave out --resume to start a new one."
        )
    if known is None:
        known = dict(facts)
        if writes:
            with storage.staged_file(folder / RUN_FILE, overwrite=True) as fresh:
                storage.write_json(fresh, known)
    else:
        _check_same_run(folder, known, facts, resume == "anyway")
        say(f"resuming the unfinished run in {folder}")
    return UnfinishedRun(folder, fingerprint(known), every, writes)


def _has_checkpoints(folder: Path) -> bool:
    """Return True if there is anything to resume from. A run that ended before its first save may be replaced."""
    return next(folder.glob("*/step-*"), None) is not None


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
        "the file that describes the unfinished run is damaged",
        where=str(folder / RUN_FILE),
        got=got,
        remedy="Pass --restart to delete that run and train from the start.",
    )


def _check_same_run(folder: Path, known: Mapping[str, Any], facts: Mapping[str, Any], anyway: bool) -> None:
    found = _other_facts(known, facts)
    if not found:
        return
    if anyway:
        warn(f"resuming although this differs (--resume-anyway): {'; '.join(found)}")
        return
    raise OutputError(
        "there is an unfinished run of something else beside the output",
        where=str(folder),
        got="; ".join(found),
        remedy="Undo what differs to resume that run. Or pass --restart to delete it, --resume-anyway to resume it "
        "nevertheless, or another --out.",
    )


def _other_facts(known: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return the differences that keep a run from being resumed."""
    there, here = ({name: facts[name] for name in facts if name not in CHANGEABLE_FACTS} for facts in (known, now))
    return list_differences(there, here)


def list_differences(known: Any, now: Any, place: str = "", *, words: tuple[str, str] = ("there", "now")) -> list[str]:
    """Return what differs between two JSON values, such as `recipe.training.epochs: 3 there, 5 now`.

    Args:
        known: the value of the earlier run.
        now: the value of this run.
        place: the dotted name of the value, empty for the whole.
        words: what the two sides are called.
    """
    if isinstance(known, Mapping) and isinstance(now, Mapping):
        names = [*known, *(name for name in now if name not in known)]
        return [
            difference
            for name in names
            for difference in list_differences(
                known.get(name), now.get(name), f"{place}.{name}".lstrip("."), words=words
            )
        ]
    return [] if known == now else [f"{place}: {_short(known)} {words[0]}, {_short(now)} {words[1]}"]


def _short(value: Any) -> str:
    text = str(value)
    return f"{text[:12]}..." if re.fullmatch(r"[0-9a-f]{64}", text) else text
