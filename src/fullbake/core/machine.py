"""What the machine has: vector instructions, memory, folders of caches, accelerators, and whether a hub answers.

Nothing here changes anything, needs a library that may be missing, or waits for a network longer than two seconds.
What a system does not say is None.
"""

import os
import shutil
import threading
import time
import urllib.error
import urllib.request
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from fullbake.core import processors, runtime, storage
from fullbake.core.errors import OutputError, one_line

VECTOR_INSTRUCTIONS: Final = (
    *("avx", "fma", "avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16"),
    *("asimd", "asimddp", "i8mm", "bf16", "sve", "sve2"),
)
"""Instructions that speed up what encoders compute, as Linux calls them: of x86, then of ARM."""

HUB_ANSWER_SECONDS: Final = 2.0
"""For how long the hub may take to answer."""

_WALK_SECONDS: Final = 2.0
"""For how long the files of a cache are counted."""


@dataclass(frozen=True)
class FolderFacts:
    """What is known of a folder of a cache."""

    name: str
    path: str
    exists: bool
    size: int
    """Bytes of its files."""
    complete: bool
    """False if there was no time to count all files."""
    free: int | None
    """Free bytes of its disk."""
    writable: bool


@dataclass(frozen=True)
class HubFacts:
    """Whether models can be fetched."""

    endpoint: str | None
    """The address, None if no library fetches models."""
    mirror: bool
    """True if HF_ENDPOINT names the address."""
    state: str
    """`reachable`, `unreachable`, `offline` (asked for) or `unused`."""
    detail: str


def vector_instructions(cpuinfo: Path = Path("/proc/cpuinfo")) -> tuple[str, ...] | None:
    """Return those of VECTOR_INSTRUCTIONS that the processor has, None if the system does not say."""
    flags = processors.processor_flags(cpuinfo)
    return None if flags is None else tuple(word for word in VECTOR_INSTRUCTIONS if word in flags)


def memory(meminfo: Path = Path("/proc/meminfo"), groups: Path = Path("/sys/fs/cgroup")) -> dict[str, int | None]:
    """Return the bytes of main memory: `total`, `available`, and the `limit` of the container, None if unknown."""
    found: dict[str, int | None] = {"total": None, "available": None, "limit": None}
    with suppress(OSError, ValueError, IndexError):
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
        for key, name in (("total", "MemTotal"), ("available", "MemAvailable")):
            found[key] = 1024 * int(lines[name].split()[0])
    if found["total"] is None and hasattr(os, "sysconf"):
        with suppress(OSError, ValueError):
            found["total"] = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):
            limit = int((groups / name).read_text())
            found["limit"] = limit if found["total"] is None or limit < found["total"] else None
            break
    return found


def cache_folders(cache_dir: str | Path | None = None) -> list[FolderFacts]:
    """Return the facts of fullbake's caches and of the folder that models are downloaded to.

    Args:
        cache_dir: Folder of fullbake's caches; None for the default.
    """
    folders = [("fullbake", runtime.cache_dir(cache_dir))]
    with suppress(Exception):  # whatever is wrong with a library that is not needed here
        from huggingface_hub import constants

        folders.append(("models", Path(constants.HF_HUB_CACHE)))
    return [_folder_facts(name, path) for name, path in folders]


def _folder_facts(name: str, path: Path) -> FolderFacts:
    size, complete = _measure_files(path)
    above = next((one for one in (path, *path.absolute().parents) if one.is_dir()), None)
    free = None
    with suppress(OSError):
        free = None if above is None else shutil.disk_usage(above).free
    try:
        storage.require_writable(path / "entry")
        writable = True
    except (OutputError, OSError):
        writable = False
    return FolderFacts(name, str(path), path.is_dir(), size, complete, free, writable)


def _measure_files(path: Path) -> tuple[int, bool]:
    """Return (bytes of all files of a folder, whether all were counted in time). Links count as nothing."""
    total, deadline = 0, time.monotonic() + _WALK_SECONDS
    for folder, _, files in os.walk(path):
        for name in files:
            with suppress(OSError):
                total += os.lstat(os.path.join(folder, name)).st_size
        if time.monotonic() > deadline:
            return total, False
    return total, True


def accelerators() -> dict[str, Any]:
    """Return what torch says of itself and of the accelerators, JSON values.

    `error` says why torch cannot be imported; without torch there is only `installed: False`.
    """
    try:
        import torch
    except ModuleNotFoundError as error:
        if error.name == "torch":
            return {"installed": False}
        return {"installed": True, "error": one_line(error)}
    except Exception as error:  # a broken installation raises whatever its parts raise
        return {"installed": True, "error": f"{type(error).__name__}: {one_line(error)}"[:300]}
    found: dict[str, Any] = {
        "installed": True,
        "cuda": torch.version.cuda,
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }
    try:
        found["device"] = runtime.device().type
        found["gpus"] = [_gpu(torch, number) for number in range(torch.cuda.device_count())]
    except Exception as error:  # a driver that does not fit
        found |= {"device": "cpu", "gpus": [], "error": f"{type(error).__name__}: {one_line(error)}"[:300]}
    return found


def _gpu(torch: Any, number: int) -> dict[str, Any]:
    about = torch.cuda.get_device_properties(number)
    return {"name": about.name, "memory": about.total_memory, "capability": f"{about.major}.{about.minor}"}


def has_nvidia_driver() -> bool:
    """Return True if an NVIDIA driver is loaded on this Linux machine."""
    return Path("/proc/driver/nvidia/version").exists()


def ask_hub(seconds: float = HUB_ANSWER_SECONDS) -> HubFacts:
    """Ask the hub, or its mirror, for an answer. It sends no token and no name of a model.

    Args:
        seconds: How long to wait, name resolution included.
    """
    named = runtime.settings().get("HF_ENDPOINT")
    endpoint = named or _default_endpoint()
    if endpoint is None:
        return HubFacts(None, False, "unused", "huggingface_hub is not installed, so that nothing is fetched")
    if runtime.is_offline():
        return HubFacts(endpoint, named is not None, "offline", "HF_HUB_OFFLINE forbids to ask; local files are used")
    answers: list[tuple[str, str]] = []
    # Name resolution knows no timeout, so a thread asks, which nobody waits for any longer.
    asking = threading.Thread(target=lambda: answers.append(_answer(endpoint, seconds)), daemon=True)
    asking.start()
    asking.join(seconds)
    state, detail = answers[0] if answers else ("unreachable", f"no answer within {seconds:g} s")
    return HubFacts(endpoint, named is not None, state, detail)


def _default_endpoint() -> str | None:
    try:
        from huggingface_hub import constants
    except Exception:  # missing or broken, which the list of libraries says
        return None
    return str(constants.ENDPOINT)


def _answer(endpoint: str, seconds: float) -> tuple[str, str]:
    if not endpoint.startswith(("http://", "https://")):
        return "unreachable", "HF_ENDPOINT is no address that begins with https:// or http://"
    started = time.monotonic()
    try:
        request = urllib.request.Request(endpoint, method="HEAD")
        with urllib.request.urlopen(request, timeout=seconds):
            pass
    except urllib.error.HTTPError as error:  # it answers, if only with a refusal
        error.close()
        if error.code == 407:
            return "unreachable", "the proxy asks for a name and a password"
    except Exception as error:  # urllib passes on what sockets, TLS and proxies raise
        return "unreachable", one_line(error)[:200]
    return "reachable", f"answered in {time.monotonic() - started:.1f} s"


def to_json(facts: FolderFacts | HubFacts) -> dict[str, Any]:
    """Return facts as JSON values."""
    return asdict(facts)
