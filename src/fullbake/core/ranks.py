"""Processes that train together (ranks): join, add up, compare, and name the one that is missing.

torchrun, accelerate launch or Ray start the processes; `runtime.rank` and `runtime.world_size` read what they set.
Every function here is called by all processes, in the same order. One process alone does nothing here.

Two kinds of waiting. An exchange of tensors belongs to a step, so a process that does not answer within
FULLBAKE_RANK_TIMEOUT (10 minutes) ends the training with its name. `wait_for_ranks` waits for work that only one
process does, which may take hours (a corpus is built): it goes by a sign of life that a thread of every process gives,
and waits as long as there is one.
"""

import atexit
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from fullbake.core import runtime
from fullbake.core.console import activity, parse_duration
from fullbake.core.errors import Fault, RecipeError

if TYPE_CHECKING:
    import numpy as np
    import torch

SIGN_OF_LIFE: Final = 2.0
"""Seconds between two signs of life of a process."""

LONGEST_SILENCE: Final = 60.0
"""Seconds without a sign of life after which a process that others wait for counts as lost."""

GRACE: Final = 5.0
"""Seconds in which every living process notices that an exchange failed."""


@dataclass
class _Group:
    """What a process knows of the others.

    Attributes:
        store: Key-value store of all processes.
        names: The name of each process for messages, in the order of ranks.
        waits: How many times `wait_for_ranks` was called.
    """

    store: Any
    names: list[str]
    waits: int = 0


_joined: list[_Group] = []
"""The group of this process, as the only item."""


def join_ranks() -> None:
    """Join the process group of all ranks, if there is more than one.

    Call this before any of the functions below; further calls change nothing.

    Raises:
        RecipeError: the launcher says no address at which they meet.
        Fault: not all processes came within the timeout.
    """
    if runtime.world_size() == 1 or _joined:
        return
    import torch.distributed

    if torch.cuda.is_available():
        torch.cuda.set_device(runtime.local_rank())
    with _named_loss(), activity("waiting for the other processes"):
        store = _fresh_store()
        if not torch.distributed.is_initialized():
            # Scores are summed as CPU tensors, gradients on the device where they are: both need a backend.
            torch.distributed.init_process_group(
                "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
                store=store,
                rank=runtime.rank(),
                world_size=runtime.world_size(),
                timeout=timedelta(seconds=timeout_seconds()),
            )
        names = _exchange_json(f"process {runtime.rank()} on {socket.gethostname()} (process id {os.getpid()})")
    _joined.append(_Group(store, names))
    _start_signs_of_life(store)


def _check_meeting_point() -> None:
    """Raise RecipeError if there is no address to meet at: torch would look for one until the timeout."""
    host, port = runtime.meeting_point()
    if not host or not port.isdecimal() or not 0 < int(port) < 65_536:
        raise RecipeError(
            "the processes of this training have no address at which they meet",
            where="MASTER_ADDR and MASTER_PORT",
            expected="a host, and a port from 1 to 65535; torchrun and accelerate launch set both",
            got=f"{host!r} and {port!r}",
            remedy="torchrun --master-port 0 takes a free port only together with --rdzv-backend c10d; "
            "on one machine torchrun --standalone does the same.",
        )


def _fresh_store() -> Any:
    """Return a key-value store of all processes that holds nothing yet.

    torchrun may keep one store over restarts (pytorch issue 135712). A process would find the address of one that is
    dead there, and fail. So the processes agree on a prefix first: each writes a word drawn at random, rank 0 collects
    the words under a prefix, and all confirm that their own word is among them.
    """
    import torch.distributed
    from torch.distributed.distributed_c10d import _get_default_store

    distributed: Any = torch.distributed
    if distributed.is_initialized():  # by Ray
        store: Any = _get_default_store()
    else:
        _check_meeting_point()
        store, _, _ = next(distributed.rendezvous("env://", timeout=timedelta(seconds=timeout_seconds())))
    mine, size = os.urandom(8).hex(), runtime.world_size()
    prefix = mine if runtime.rank() == 0 else ""
    store.set(f"fullbake/word-{runtime.rank()}", mine)
    until = time.monotonic() + timeout_seconds()
    while time.monotonic() < until:
        if runtime.rank() == 0:
            words = [_read(store, f"fullbake/word-{rank}") for rank in range(size)]
            store.set("fullbake/words", " ".join([prefix, *words[1:]]))
            if all(_read(store, f"fullbake/seen-{rank}") == prefix + words[rank] for rank in range(1, size)):
                store.set("fullbake/agreed", prefix)
                break
        else:
            prefix, *words = _read(store, "fullbake/words").split(" ")
            if len(words) >= runtime.rank() and words[runtime.rank() - 1] == mine:
                store.set(f"fullbake/seen-{runtime.rank()}", prefix + mine)
                if _read(store, "fullbake/agreed") == prefix:
                    break
        time.sleep(0.02)
    else:
        raise RuntimeError(
            "not all processes came together (where machines come and go, torchrun needs the environment variable "
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1)"
        )
    return distributed.PrefixStore(f"fullbake/{prefix}", store)


def _read(store: Any, key: str) -> str:
    """Return the value of a key, "" if there is none yet. The store itself would wait for it."""
    return store.get(key).decode() if store.check([key]) else ""


def timeout_seconds() -> float:
    """Return for how many seconds a process may be silent in an exchange.

    Raises:
        RecipeError: FULLBAKE_RANK_TIMEOUT is no duration.
    """
    return parse_duration(runtime.rank_timeout(), "FULLBAKE_RANK_TIMEOUT")


def process_name(rank: int) -> str:
    """Return what messages call a process, such as `process 1 on node7 (process id 4711)`.

    Args:
        rank: Its number, from 0.
    """
    return _joined[0].names[rank] if _joined else f"process {rank}"


def sum_over_ranks(tensor: "torch.Tensor") -> "torch.Tensor":
    """Add up the tensors of all processes, in place, and return the sum."""
    if runtime.world_size() > 1:
        import torch.distributed

        with _named_loss():
            torch.distributed.all_reduce(tensor)
    return tensor


def begin_sum(tensor: "torch.Tensor") -> Callable[[], None]:
    """Begin to add up the tensors of all processes in place. Return the function that waits until it is done."""
    import torch.distributed

    with _named_loss():
        work: Any = torch.distributed.all_reduce(tensor, async_op=True)

    def finish() -> None:
        with _named_loss():
            work.wait()

    return finish


def sum_arrays_over_ranks(array: "np.ndarray") -> "np.ndarray":
    """Add up the arrays of all processes and return the sum."""
    import torch

    total: np.ndarray = sum_over_ranks(torch.from_numpy(array)).numpy()
    return total


def true_on_all_ranks(mine: bool) -> bool:
    """Return True if `mine` is true in every process."""
    import torch

    return int(sum_over_ranks(torch.tensor(int(mine)))) == runtime.world_size()


def gather_json(value: Any) -> list[Any]:
    """Return the JSON values of all processes, in the order of ranks. No pickle is exchanged."""
    if runtime.world_size() == 1:
        return [value]
    with _named_loss():
        return _exchange_json(value)


def _exchange_json(value: Any) -> list[Any]:
    import torch
    import torch.distributed

    mine = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
    sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(runtime.world_size())]
    torch.distributed.all_gather(sizes, torch.tensor([len(mine)]))
    longest = int(max(sizes))
    padded = [torch.zeros(longest, dtype=torch.uint8) for _ in sizes]
    torch.distributed.all_gather(padded, torch.nn.functional.pad(mine, (0, longest - len(mine))))
    return [json.loads(bytes(row[: int(size)].tolist())) for row, size in zip(padded, sizes, strict=True)]


def wait_for_ranks() -> None:
    """Wait until every process has made this call, however long one of them works before it.

    Raises:
        Fault: one of them gives no sign of life any more.
    """
    if runtime.world_size() == 1:
        return
    import torch.distributed

    group = _joined[0]
    group.waits += 1
    with _named_loss():
        _wait_in_store(group, f"wait-{group.waits}")
        torch.distributed.barrier()  # so that the process that keeps the store leaves last


def _wait_in_store(group: _Group, place: str) -> None:
    group.store.add(f"{place}-{runtime.rank()}", 1)
    missing, pause = [rank for rank in range(runtime.world_size()) if rank != runtime.rank()], 0.001
    signs = {rank: (-1, time.monotonic()) for rank in missing}
    allowed = min(LONGEST_SILENCE, timeout_seconds())
    while missing := [rank for rank in missing if not group.store.check([f"{place}-{rank}"])]:
        for rank in missing:
            count = group.store.add(_life_key(rank), 0)
            if count != signs[rank][0]:
                signs[rank] = count, time.monotonic()
            elif time.monotonic() - signs[rank][1] > allowed:
                raise RuntimeError(f"no sign of life for {allowed:.0f} seconds")
        time.sleep(pause)
        pause = min(2 * pause, 0.5)


# Who is lost


@contextmanager
def _named_loss() -> Iterator[None]:
    """Within the block, turn torch's error about a lost process into one that names the process."""
    try:
        yield
    except RuntimeError as error:  # torch has no narrower class for gloo's errors
        raise _lost(error) from error


def _lost(error: RuntimeError) -> Fault:
    missing = [process_name(rank) for rank in _find_silent()]
    who = ", ".join(missing) if missing else "a process that trains with this one"
    answer = "do not answer" if len(missing) > 1 else "does not answer"
    return Fault(
        f"{who} {answer}, so this process cannot continue",
        expected=f"an answer within {timeout_seconds():g} seconds (FULLBAKE_RANK_TIMEOUT)",
        got=str(error).partition("\n")[0],
        remedy="Look for its own error above or in its log. The same command resumes from the newest checkpoint, also "
        "with fewer or more processes; torchrun --max-restarts 3 and fullbake train --on ray start it again by "
        "themselves.",
    )


def _find_silent() -> list[int]:
    """Return the processes that have not noticed the failure after the grace: each that is alive does so too."""
    if not _joined:
        return []
    store, others = _joined[0].store, [rank for rank in range(runtime.world_size()) if rank != runtime.rank()]
    until, silent = time.monotonic() + GRACE, list[int]()
    with suppress(RuntimeError):  # the store is lost with the process that kept it: what was seen last counts
        store.add(f"noticed-{runtime.rank()}", 1)
        silent = others
        while time.monotonic() < until and silent:
            time.sleep(0.1)
            silent = [rank for rank in silent if not store.check([f"noticed-{rank}"])]
    return silent


def _life_key(rank: int) -> str:
    return f"alive-{rank}"


def _start_signs_of_life(store: Any) -> None:
    ended = threading.Event()

    def give_signs() -> None:
        with suppress(RuntimeError):  # the store is lost, and with it the training
            while not ended.wait(SIGN_OF_LIFE):
                store.add(_life_key(runtime.rank()), 1)

    thread = threading.Thread(target=give_signs, daemon=True, name="fullbake-sign-of-life")
    thread.start()

    def end() -> None:
        ended.set()
        thread.join(SIGN_OF_LIFE)

    atexit.register(end)
