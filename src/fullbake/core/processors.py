"""How many threads to compute with: as many as processors are free when the work begins.

The threads of one calculation wait for each other at its end. If one of them shares its processor with another process,
all of them are as slow as that one: two threads beside one busy process on two processors take twice as long as one
thread. So `--threads auto` leaves out the processors that other processes keep busy. The trade-off: it looks once, at
the start, because results repeat bit for bit only with an equal number of threads.
"""

import os
import platform
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, Literal

from fullbake.core import runtime
from fullbake.core.console import say, warn
from fullbake.core.errors import RecipeError

ThreadSetting = int | Literal["auto"]
"""How many threads to compute with; `auto` takes as many as processors are free."""

SAMPLE_SECONDS: Final = 0.5
"""For how long other processes are watched at least."""

_OLDEST_SAMPLE: Final = 10.0
"""A sample that began earlier than this many seconds ago may describe processes that have ended."""

_BUSY_COLUMNS: Final = (0, 1, 2, 5, 6, 7)
"""Columns of a processor's line in /proc/stat that count as busy: user, nice, system, irq, softirq, steal. Processes of
low priority count, because Linux divides the time between sessions first: one in another terminal does not give way."""


@dataclass(frozen=True)
class Processors:
    """The processors of this machine, as this process sees them."""

    usable: int
    """Processors that this process may use."""
    busy: float
    """How many of them other processes keep busy."""

    @property
    def free(self) -> int:
        """How many are free, at least 1. A processor that is busy less than half of the time counts as free."""
        return max(1, int(self.usable - self.busy + 0.5))


@dataclass(frozen=True)
class _Sample:
    """Seconds of processor time that were used up to a moment, by all processes and by this one."""

    moment: float
    machine: float | None
    group: float | None
    own: float


def parse_threads(text: str) -> ThreadSetting:
    """Read the value of --threads.

    Raises:
        RecipeError: it is neither a number above 0 nor `auto`.
    """
    word = text.strip().lower()
    if word == "auto":
        return "auto"
    if word.isdecimal() and int(word):
        return int(word)
    raise RecipeError(
        "this is not a number of threads",
        where="--threads",
        expected="a number such as 2, or auto",
        got=repr(text),
        remedy="auto takes as many threads as processors are free.",
    )


def use_threads(setting: ThreadSetting, *, recorded: int | None = None) -> int:
    """Let torch compute with this number of threads from now on, and return the number.

    A line says so if they are fewer than the processors.

    Args:
        setting: the number, or `auto`. An accelerator, OMP_NUM_THREADS, and a launcher that starts several processes
            decide for themselves under `auto`.
        recorded: the number that the unfinished run which is to be resumed computes with. `auto` takes it, because
            only an equal number gives equal bits.
    """
    most = _default_threads()
    if setting != "auto":
        _warn_of_more(setting, count_usable())
        return _set(setting)
    if recorded is not None:
        if recorded != runtime.threads():
            say(f"computing with {_threads(recorded)}, as the unfinished run did")
        return _set(recorded)
    if runtime.threads_are_given() or runtime.world_size() > 1 or runtime.device().type != "cpu":
        return runtime.threads()
    return _set(_count_free(most))


def use_session_threads(setting: ThreadSetting, *, few_texts: bool = False) -> int:
    """Let onnxruntime compute with this number of threads in sessions that are made from now on, and return the number.

    torch is not imported.

    Args:
        setting: the number, or `auto`. OMP_NUM_THREADS decides for itself under `auto`.
        few_texts: True if the work takes less time than watching other processes: `auto` then takes all processors.
    """
    usable = count_usable()
    if setting != "auto":
        _warn_of_more(setting, usable)
        number = setting
    elif runtime.threads_are_given():
        number = runtime.session_threads()
    else:
        number = usable if few_texts else _count_free(usable)
    runtime.set_session_threads(number)
    return number


def _warn_of_more(setting: int, usable: int) -> None:
    if setting > usable:
        warn(f"--threads {setting}: there are {usable} processors, and more threads than processors are slower")


def _count_free(most: int) -> int:
    """Return how many processors are free, at most `most`. A line says so if they are fewer than the processors."""
    found = measure()
    number = min(most, found.free)
    if number < found.usable and found.free < found.usable:
        say(
            f"computing with {_threads(number)} on {found.usable} processors, because other processes keep "
            f"{found.busy:.1f} of them busy (--threads {min(most, found.usable)} takes all)"
        )
    return number


def _threads(number: int) -> str:
    return "1 thread" if number == 1 else f"{number} threads"


def _set(number: int) -> int:
    _default_threads()
    runtime.set_threads(number)
    return number


@cache
def _default_threads() -> int:
    """Return the number of threads that torch chose when it was loaded."""
    return runtime.threads()


# Measuring

_first: list[_Sample] = []
"""The sample that `begin_measuring` took, as the only item."""


def begin_measuring() -> None:
    """Take a first sample. If `measure` is called some seconds later, it needs no time of its own."""
    _first[:] = [_take_sample()]


def measure(sleep: Callable[[float], None] = time.sleep) -> Processors:
    """Return how many processors there are and how many of them other processes keep busy.

    It takes half a second, or no time if `begin_measuring` was called up to ten seconds ago.

    Args:
        sleep: waits so many seconds.
    """
    since = _first.pop() if _first else None
    if since is None or not SAMPLE_SECONDS <= time.monotonic() - since.moment <= _OLDEST_SAMPLE:
        since = _take_sample()
        sleep(SAMPLE_SECONDS)
    return Processors(count_usable(), _busy(since, _take_sample()))


def _busy(before: _Sample, after: _Sample) -> float:
    """Return how many processors other processes kept busy between two samples."""
    if before.machine is None or after.machine is None:
        return _load()
    seconds, own = max(after.moment - before.moment, 1e-3), after.own - before.own
    busy = max(0.0, (after.machine - before.machine - own) / seconds)
    quota = _quota()
    if quota is None or before.group is None or after.group is None:
        return busy
    # The quota is shared within the container only, and processes outside may first take what is beyond it.
    in_group = max(0.0, (after.group - before.group - own) / seconds)
    return max(in_group, busy - (runtime.count_processors() - quota))


def _load() -> float:
    """Return how many processes wanted to run in the last minute, on average; 0 on Windows, which does not say."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def count_usable() -> int:
    """Return the number of processors that this process may use, within the quota of its container."""
    quota = _quota()
    processors = runtime.count_processors()
    return processors if quota is None else max(1, min(processors, int(quota + 0.5)))


INT8_FLAGS: Final = {
    "avx512_vnni": "AVX-512 VNNI",
    "avx_vnni": "AVX-VNNI",
    "amx_int8": "AMX",
    "asimddp": "ARM dot products",
    "i8mm": "ARM 8-bit matrix products",
}
"""What Linux calls the instructions that multiply bytes into 32-bit sums -> their names."""


def int8_instructions(cpuinfo: Path = Path("/proc/cpuinfo")) -> tuple[str, ...] | None:
    """Return the instructions for 8-bit products that this processor has; None if the system does not say.

    Without any of them int8 is about as fast as fp32, or slower.

    Args:
        cpuinfo: where Linux shows what the processor can do.
    """
    flags = processor_flags(cpuinfo)
    return None if flags is None else tuple(name for flag, name in INT8_FLAGS.items() if flag in flags)


def processor_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str] | None:
    """Return all that the processor can do, as Linux calls it; None if the system does not say.

    Args:
        cpuinfo: where Linux shows it.
    """
    try:
        lines = cpuinfo.read_text("utf-8", "replace").splitlines()
    except OSError:
        return None
    listed = (line.partition(":")[2].split() for line in lines if line.lower().startswith(("flags", "features")))
    first = next(listed, None)
    return None if first is None else frozenset(first)


def _take_sample() -> _Sample:
    return _Sample(time.monotonic(), _machine_seconds(), _group_seconds(), time.process_time())


def _machine_seconds(stat: Path = Path("/proc/stat")) -> float | None:
    """Return the seconds for which the processors of this process were busy since the machine started, None if
    unknown."""
    if platform.system() != "Linux":
        return None
    with suppress(OSError, ValueError, IndexError):
        allowed = {f"cpu{number}" for number in os.sched_getaffinity(0)}
        lines = [line.split() for line in stat.read_text().splitlines() if line.startswith("cpu")]
        ticks = sum(int(line[1 + at]) for line in lines if line[0] in allowed for at in _BUSY_COLUMNS)
        return float(ticks) / os.sysconf("SC_CLK_TCK")
    return None


_CGROUPS: Final = Path("/sys/fs/cgroup")


def _quota(root: Path = _CGROUPS) -> float | None:
    """Return the processors that the container may use together, None without a quota.

    Args:
        root: where the system shows the settings of control groups; in a container those of the container itself.
    """
    with suppress(OSError, ValueError):  # version 2
        most, period = (root / "cpu.max").read_text().split()
        return None if most == "max" else int(most) / int(period)
    with suppress(OSError, ValueError):  # version 1
        most, period = ((root / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return int(most) / int(period) if int(most) > 0 else None
    return None


def _group_seconds(root: Path = _CGROUPS) -> float | None:
    """Return the seconds of processor time that the processes of the container have used, None if unknown."""
    with suppress(OSError, ValueError, StopIteration):
        lines = (root / "cpu.stat").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("usage_usec")).split()[1]) / 1e6
    with suppress(OSError, ValueError):
        return int((root / "cpuacct" / "cpuacct.usage").read_text()) / 1e9
    return None
