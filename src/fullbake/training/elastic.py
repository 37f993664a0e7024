"""What lets a run continue with another number of processes, and what it says about it.

The rows of a step depend on the seed and the number of the step alone; the processes divide them. So a checkpoint fits
any number of processes. What differs is dropout, which each process draws for its own rows, and the order in which
numbers are added: the same run on another number of processes has other bits. The history says from which step on.

All processes must see the same data, libraries and checkpoints. That is compared before training, by name: a process
that trains on other rows would not fail, it would only spoil the result.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from fullbake.core import ranks, runtime
from fullbake.core.console import warn
from fullbake.core.errors import Error, OutputError
from fullbake.training.checkpoints import Checkpoint, Checkpoints, UnfinishedRun, list_differences

MOST_DIFFERENCES: Final = 8
"""So many differences between two processes are listed."""


def check_same_on_all_ranks(facts: Mapping[str, Any]) -> None:
    """Refuse a training whose processes do not work on the same thing. All processes have to call.

    Args:
        facts: what the run is, JSON values by name; see `Job.facts`.

    Raises:
        Error: names the process, its machine, and what differs: data, recipe, base, threads, versions.
    """
    for rank, found in enumerate(ranks.gather_json(dict(facts))):
        if rank == 0:
            first = found
        differences = list_differences(first, found, words=("in process 0", f"in process {rank}"))
        if differences:
            more = len(differences) - MOST_DIFFERENCES
            listed = [*differences[:MOST_DIFFERENCES], *([f"{more} more"] if more > 0 else [])]
            raise Error(
                "the processes of this training do not work on the same thing",
                where=f"{ranks.process_name(rank)}, and {ranks.process_name(0)}",
                expected="the same recipe, rows, base, threads and versions everywhere",
                got="; ".join(listed),
                remedy="Give every machine the same files and packages, and the same --threads.",
            )


def check_folder_is_shared(run: UnfinishedRun) -> None:
    """Warn if a process does not see the folder of the unfinished run. All processes have to call.

    Args:
        run: the run, whose folder rank 0 has made.
    """
    ranks.wait_for_ranks()
    blind = [rank for rank, sees in enumerate(ranks.gather_json(run.is_described())) if not sees]
    if blind:
        warn(
            f"{', '.join(map(ranks.process_name, blind))}: {run.folder} is not there, so a run that loses process 0 "
            "cannot be resumed. Choose an --out on a folder that all machines share"
        )


def check_all_ranks_see(found: bool, folder: Path) -> None:
    """Refuse a cache that only some processes share. All processes have to call.

    Args:
        found: whether this process sees what process 0 has put into the cache.
        folder: the cache.

    Raises:
        OutputError: some see it, and some do not.
    """
    seen = ranks.gather_json(found)
    if any(seen) and not all(seen):
        blind = [ranks.process_name(rank) for rank, sees in enumerate(seen) if not sees]
        raise OutputError(
            "the machines of this training do not share the cache",
            where=str(folder),
            got=f"{', '.join(blind)} cannot see what another process has put there",
            remedy="Pass --cache-dir with a folder that all machines share, or set FULLBAKE_CACHE_DIR.",
        )


def newest_of_all_ranks(checkpoints: Checkpoints) -> Checkpoint | None:
    """Return the newest checkpoint, which must be the same for all processes. All processes have to call.

    Args:
        checkpoints: those of one training.

    Raises:
        OutputError: the processes see different checkpoints.
        Fault: as `Checkpoints.newest`.
    """
    if runtime.world_size() == 1:
        return checkpoints.newest()
    if runtime.rank() == 0:
        checkpoints.recover()  # before anyone reads
    ranks.wait_for_ranks()
    newest = checkpoints.newest()
    steps = ranks.gather_json(None if newest is None else newest.step)
    if len(set(steps)) == 1:
        return newest
    other = next(rank for rank, step in enumerate(steps) if step != steps[0])
    raise OutputError(
        "the processes of this training see different checkpoints",
        where=str(checkpoints.folder),
        expected="one folder that all machines share",
        got=f"{_describe_step(steps[0])} in {ranks.process_name(0)}, {_describe_step(steps[other])} in "
        f"{ranks.process_name(other)}",
        remedy="Choose an --out on a shared folder, or pass --restart to train from the start.",
    )


def _describe_step(step: int | None) -> str:
    return "no checkpoint" if step is None else f"step {step:,}"


def note_ranks(known: list[list[int]], step: int, count: int) -> None:
    """Note the number of processes with which a training continues, and warn if it is another one.

    Args:
        known: [step, number of processes from there on] of a checkpoint; gets an entry if the number is another one.
            Empty if the checkpoint does not say.
        step: optimizer steps taken so far.
        count: how many processes there are now.
    """
    if known and known[-1][1] == count:
        return
    if known:
        warn(describe_change(step, known[-1][1], count))
    known.append([step, count])


def describe_change(step: int, before: int, now: int) -> str:
    """Return the sentence, without its full stop, that says where the number of processes changed."""
    return (
        f"from step {step + 1:,} on {_processes(now)} in place of {before}: the rows of each step are the same, but "
        "the bits may differ from those of a run without this change"
    )


def ranks_of_epoch(known: Sequence[Sequence[int]], first: int, last: int) -> dict[str, Any]:
    """Return what an entry of the history says of processes: nothing if there was one all the time.

    Args:
        known: [step, number of processes from there on].
        first: optimizer steps taken before the epoch.
        last: optimizer steps taken at its end.

    Returns:
        `ranks` (how many took its last step), and `ranks_changed` if the number changed within the epoch or right
        before it: a list of `from_step` (from 1), `before`, `now` and `note`.
    """
    if [count for _, count in known] == [1]:
        return {}
    changes = [
        {"from_step": step + 1, "before": before, "now": now, "note": describe_change(step, before, now)}
        for (_, before), (step, now) in pairwise(known)
        if first <= step < last
    ]
    return {"ranks": next(count for step, count in reversed(known) if step < last)} | (
        {"ranks_changed": changes} if changes else {}
    )


def changes_in(history: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return all changes of the number of processes that a history notes, in order."""
    return [change for entry in history for change in entry.get("ranks_changed", ())]


def _processes(count: int) -> str:
    return "1 process" if count == 1 else f"{count} processes"
