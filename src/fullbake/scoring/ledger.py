"""The folder of scored shards: what was asked for, which shards are finished, and what was left by dead workers.

    OUT/part-0.csv            the scored rows of a shard, under its name in the input
    OUT/_manifest.json        bundle, options and input; at the end all shards with their rows and hashes
    OUT/_shards/part-0.csv.json   a finished shard: rows, hashes, size and time of the input, machine
    OUT/_attempts/            shards that a worker has begun: how often, its process and its machine
    OUT/_partial/             files that are being written

Programs that read folders of tables leave out names that start with `_`. A shard is finished when its file below
`_shards` is there: that is written last, after the scored rows. Two workers that score one shard write the same rows
under names of their own, and each renames its file into place, so either may win.
"""

import json
import os
import platform
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fullbake.core import storage
from fullbake.core.errors import OutputError
from fullbake.core.hashing import file_sha256
from fullbake.core.json_files import Shape, match_shape, parse_checked_json, read_checked_json
from fullbake.scoring.shards import InputShard

LEDGER_FORMAT: Final = 1
MANIFEST_NAME: Final = "_manifest.json"
_FACTS, _ATTEMPTS, _PARTIAL = "_shards", "_attempts", "_partial"

MOST_ATTEMPTS: Final = 4
"""A shard whose worker died so many times is not tried again: it may be what kills the workers."""

_MOST_MANIFEST_BYTES: Final = 2**31


class ShardFacts(Shape):
    """What is known of a finished shard."""

    name: str
    rows: int
    sha256: str
    """Of the scored rows."""

    bytes: int
    """Of the scored rows."""

    input_bytes: int
    input_changed: int
    input_sha256: str
    machine: str
    seconds: float
    warnings: list[str]


class BadShard(Shape):
    """A shard that could not be read."""

    name: str
    error: str
    machine: str


class WorkerFault(Shape):
    """Why a worker could not score a shard, where the shard is not to blame."""

    name: str
    fault: str
    machine: str
    trace: str


class _Manifest(Shape):
    format: int
    plan: dict[str, Any]
    state: str


@dataclass(frozen=True)
class Ledger:
    """A folder of scored shards."""

    folder: Path

    def output(self, shard: InputShard) -> Path:
        """Return the file of a shard's scored rows."""
        return self.folder / shard.output_name

    def _facts(self, shard: InputShard) -> Path:
        return self.folder / _FACTS / f"{shard.output_name}.json"

    def _attempts(self, shard: InputShard) -> Path:
        return self.folder / _ATTEMPTS / f"{shard.output_name}.txt"

    @contextmanager
    def partial(self) -> Iterator[Path]:
        """Provide a new folder for files that are being written; it is removed at the end."""
        folder = self.folder / _PARTIAL / uuid.uuid4().hex
        storage.make_folder(folder)
        try:
            yield folder
        finally:
            storage.remove_tree(folder)

    def clean(self) -> None:
        """Remove what workers that no longer run were writing, and what they had begun."""
        for name in (_PARTIAL, _ATTEMPTS):
            shutil.rmtree(self.folder / name, ignore_errors=True)

    def find_finished(self, shard: InputShard) -> ShardFacts | None:
        """Return the facts of a shard that is finished and has not changed since; None if it has to be scored."""
        with suppress(OSError, ValueError):
            facts = match_shape(ShardFacts, read_checked_json(self._facts(shard)))
            same = (facts.input_bytes, facts.input_changed) == (shard.size, shard.changed)
            if same and self.output(shard).stat().st_size == facts.bytes:
                return facts
        return None

    def begin(self, shard: InputShard) -> bool:
        """Note that a worker begins a shard; return False if too many have died of it."""
        path = self._attempts(shard)
        attempts = 0
        with suppress(OSError, ValueError, IndexError):
            attempts = int(path.read_text().split()[0])
        if attempts >= MOST_ATTEMPTS:
            return False
        storage.make_folder(path.parent)
        path.write_text(f"{attempts + 1} {os.getpid()} {platform.node()}\n")
        return True

    def end(self, shard: InputShard) -> None:
        """Note that the worker of a shard lived to its end."""
        self._attempts(shard).unlink(missing_ok=True)

    def withdraw(self, shard: InputShard) -> None:
        """Remove the scored rows of what a shard held before, if this folder has some."""
        noted = self._facts(shard)
        if noted.is_file():
            self.output(shard).unlink(missing_ok=True)
            noted.unlink()

    def find_orphans(self, shards: Iterable[InputShard]) -> list[str]:
        """Return the names of scored files whose shard is no longer in the input."""
        facts = self.folder / _FACTS
        names = {path.relative_to(facts).with_suffix("").as_posix() for path in facts.rglob("*.json")}
        return sorted(names - {shard.output_name for shard in shards})

    def publish(self, shard: InputShard, written: Path, facts: ShardFacts) -> None:
        """Put the scored rows of a shard in place, and note that it is finished.

        Args:
            shard: The shard.
            written: The file of its rows, in a folder of `partial`.
            facts: What is noted.
        """
        target, noted = self.output(shard), self._facts(shard)
        for folder in (target.parent, noted.parent):
            storage.make_folder(folder)
        draft = written.parent / "facts.json"
        storage.write_json(draft, facts.model_dump(mode="json"))
        for source, place in ((written, target), (draft, noted)):
            storage.sync_tree(source)
            source.replace(place)


def open_ledger(folder: Path, plan: Mapping[str, Any], *, overwrite: bool) -> Ledger:
    """Open a folder for the scored rows of a plan, and remove what dead workers left there.

    Args:
        folder: A new or an empty folder, or one that was written for the same plan.
        plan: Bundle, options and input, as JSON values.
        overwrite: Remove what fullbake wrote there before.

    Raises:
        OutputError: It holds something else, or was written by another bundle, with other options or for another input.
    """
    ledger = Ledger(folder)
    path = folder / MANIFEST_NAME
    if path.is_file() and overwrite:
        _remove_all(ledger)
    elif path.is_file():
        _check_plan(folder, _read_plan(path), json.loads(json.dumps(plan)))
    else:
        _require_empty(folder)
        storage.make_folder(folder)
    ledger.clean()
    _write_manifest(folder, {"plan": plan, "state": "unfinished"})
    return ledger


def close_ledger(
    ledger: Ledger, plan: Mapping[str, Any], shards: Iterable[ShardFacts], bad: Iterable[BadShard], versions: Any
) -> int:
    """Write the manifest of a finished run, and return the number of rows."""
    listed, faults = [one.model_dump(mode="json") for one in shards], [one.model_dump(mode="json") for one in bad]
    rows: int = sum(one["rows"] for one in listed)
    state = "finished but for bad shards" if faults else "finished"
    content = {"plan": plan, "state": state, "rows": rows, "shards": listed, "bad": faults, "versions": versions}
    _write_manifest(ledger.folder, content)
    return rows


def make_facts(
    shard: InputShard, written: Path, *, rows: int, input_sha256: str, machine: str, **more: Any
) -> ShardFacts:
    """Return the facts of a shard whose rows were just written. more: seconds and warnings."""
    return ShardFacts(
        name=shard.name,
        rows=rows,
        sha256=file_sha256(written),
        bytes=written.stat().st_size,
        input_bytes=shard.size,
        input_changed=shard.changed,
        input_sha256=input_sha256,
        machine=machine,
        **more,
    )


def parse_result(text: str) -> ShardFacts | BadShard | WorkerFault:
    """Read what a worker returned, which is JSON and is checked.

    Raises:
        ValueError: It is not what a worker returns.
    """
    content = parse_checked_json(text.encode())
    names = content if isinstance(content, dict) else {}
    if "fault" in names:
        return match_shape(WorkerFault, content)
    return match_shape(BadShard, content) if "error" in names else match_shape(ShardFacts, content)


def _write_manifest(folder: Path, content: Mapping[str, Any]) -> None:
    with storage.staged_file(folder / MANIFEST_NAME, overwrite=True) as fresh:
        storage.write_json(fresh, {"format": LEDGER_FORMAT, **content})


def _read_plan(path: Path) -> dict[str, Any]:
    try:
        found = match_shape(_Manifest, read_checked_json(path, most_bytes=_MOST_MANIFEST_BYTES))
    except (OSError, ValueError) as error:
        raise OutputError(
            "the manifest of this folder is damaged",
            where=str(path),
            got=str(error)[:200],
            remedy="Name another folder with --out, or remove this one.",
        ) from error
    return found.plan


def _check_plan(folder: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Raise OutputError if a folder was written for another plan."""
    before, now = _flat(old), _flat(new)
    changed = [name for name in (*now, *before) if before.get(name) != now.get(name)]
    if not changed:
        return
    named = list(dict.fromkeys(changed))[:3]
    raise OutputError(
        "this folder was written by another bundle"
        if any(name.startswith("bundle") for name in named)
        else "this folder was written for another input"
        if named == ["input"]
        else "this folder was written with other options",
        where=str(folder),
        expected=", ".join(_shown(name, before.get(name)) for name in named),
        got=", ".join(_shown(name, now.get(name)) for name in named),
        remedy="Name another folder with --out, or pass --overwrite to remove these rows and begin again.",
    )


def _shown(name: str, value: Any) -> str:
    """Return an entry of a plan in words. name: as `_flat` gives it."""
    word = name.removeprefix("options ").replace("_", "-") if name.startswith("options") else name
    if value is None:
        return f"no {word}"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"{word} {text if len(text) <= 80 else text[:77] + '...'}"


def _flat(plan: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of a plan and of the objects in it, by names such as `options top_k`."""
    found: dict[str, Any] = {}
    for name, value in plan.items():
        if isinstance(value, Mapping):
            found |= {f"{name} {inner}": own for inner, own in value.items()}
        else:
            found[name] = value
    return found


def _require_empty(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise OutputError("a file has this name", where=str(folder), remedy="Name a folder with --out.")
    held = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    if held:
        raise OutputError(
            "the folder holds something that is not of an earlier run of this command",
            where=str(folder),
            expected=f"a new or an empty folder, or one with {MANIFEST_NAME}",
            got=f"{len(held)} entries, among them {held[0]!r}",
            remedy="Name another folder with --out.",
        )


def _remove_all(ledger: Ledger) -> None:
    """Remove what an earlier run wrote, and nothing else."""
    facts = ledger.folder / _FACTS
    for path in sorted(facts.rglob("*.json")):
        written = ledger.folder / path.relative_to(facts).with_suffix("")
        written.unlink(missing_ok=True)
        with suppress(OSError):  # its folder holds something else, or is the output itself
            written.parent.rmdir()
    for name in (_FACTS, _PARTIAL, _ATTEMPTS):
        shutil.rmtree(ledger.folder / name, ignore_errors=True)
    (ledger.folder / MANIFEST_NAME).unlink()
