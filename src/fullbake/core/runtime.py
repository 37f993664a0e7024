"""The machine: device, precision, threads, memory, processes, versions, the cache folder.

This is the only module that reads environment variables, so that what a run depends on can be read here.
"""

import ctypes
import os
import platform
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs

if TYPE_CHECKING:
    import torch


_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # glibc's malloc.h

_SPINS = "1000"  # turns of a loop, some microseconds; the library's default is 300,000

LIBRARIES = ("fullbake", "torch", "transformers", "tokenizers", "accelerate", "scikit-learn", "numpy", "safetensors")
"""Libraries whose versions are recorded with every run and hashed into cache keys."""

OPTIONAL_LIBRARIES = ("accelerate",)
"""Libraries of that list that need not be installed. Training no longer uses accelerate, but its version was part of
the cache keys: if it is still installed, its version stays there, so that existing caches are found."""

SETTINGS = (
    *("FULLBAKE_CACHE_DIR", "FULLBAKE_FAST_KERNELS", "FULLBAKE_GPU_PIECES", "FULLBAKE_HOLD_MEMORY"),
    "FULLBAKE_RANK_TIMEOUT",
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_WAIT_POLICY", "TOKENIZERS_PARALLELISM"),
    *("HF_ENDPOINT", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"),
    *("CUDA_VISIBLE_DEVICES", "RANK", "WORLD_SIZE"),
    *("RAY_ADDRESS", "RAY_AUTH_MODE"),
)
"""Environment variables that change what fullbake does, or how fast. None of them holds a secret."""


def settings() -> dict[str, str]:
    """Return those of SETTINGS that are set, and their values."""
    return {name: os.environ[name] for name in SETTINGS if os.environ.get(name)}


def is_offline() -> bool:
    """Return True if the environment forbids requests to a hub."""
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    return any(os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE") for name in names)


_ACCELERATOR_FILES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/kfd", "/dev/dxg", "/dev/accel")
"""Files that the drivers of accelerators make on Linux: NVIDIA, AMD, WSL, others."""

_session_threads: list[int] = []
"""The number that `set_session_threads` was given last, as the only item."""


def cache_dir(override: str | Path | None = None) -> Path:
    """Return the folder of all caches: the override, FULLBAKE_CACHE_DIR, or the user's own cache folder."""
    chosen = override or os.environ.get("FULLBAKE_CACHE_DIR") or platformdirs.user_cache_dir("fullbake")
    return Path(chosen).expanduser()


def device() -> "torch.device":
    """Return the accelerator that torch finds (CUDA, MPS, ...), or the CPU."""
    import torch

    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return found or torch.device("cpu")


def may_have_accelerator() -> bool:
    """Return True if this machine shows an accelerator that torch might use. torch is not imported for it."""
    if "torch" in sys.modules:
        return device().type != "cpu"
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return False
    if platform.system() == "Darwin":
        return platform.machine() == "arm64"
    return any(os.path.exists(path) for path in _ACCELERATOR_FILES) or shutil.which("nvidia-smi") is not None


def uses_bf16(precision: str) -> bool:
    """Return True if training computes in bfloat16 where torch's autocast allows it.

    Args:
        precision: `fp32`, `bf16`, or `auto`: bf16 on a CUDA GPU that supports it, fp32 elsewhere.
    """
    import torch

    if precision == "auto":
        return device().type == "cuda" and torch.cuda.is_bf16_supported()
    return precision == "bf16"


def autocast(precision: str) -> AbstractContextManager[object]:
    """Return a context manager in which the forward pass computes in the given precision (see `uses_bf16`)."""
    import torch

    return torch.autocast(device().type, torch.bfloat16) if uses_bf16(precision) else nullcontext()


def threads() -> int:
    """Return the number of threads that torch computes with. Results repeat bit for bit only at an equal number."""
    import torch

    return torch.get_num_threads()


def set_threads(number: int) -> None:
    """Let torch compute with so many threads from now on."""
    import torch

    torch.set_num_threads(number)


def session_threads() -> int:
    """Return the number of threads that onnxruntime is to compute with.

    That is what `set_session_threads` was given, what the environment says, torch's number where torch is loaded, or
    the number of processors.
    """
    given = os.environ.get("OMP_NUM_THREADS", "")
    if _session_threads:
        return _session_threads[0]
    if given.isdecimal() and int(given):  # it may be a list of numbers, one for each level
        return int(given)
    return threads() if "torch" in sys.modules else count_processors()


def set_session_threads(number: int) -> None:
    """Let onnxruntime compute with so many threads in sessions that are made from now on."""
    _session_threads[:] = [number]


def threads_are_given() -> bool:
    """Return True if the environment says how many threads to compute with."""
    return any(os.environ.get(name) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"))


def limit_spinning() -> None:
    """Let a thread that waits for the others sleep soon, if torch is not loaded yet and the environment says nothing.

    A waiting thread of GNU's OpenMP first spins for about a millisecond. Beside a busy process the thread that it waits
    for may need that very processor. `benchmarks/busy_machine.py` measures what a shorter spin changes.
    """
    if "torch" not in sys.modules and not any(os.environ.get(name) for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")):
        os.environ["GOMP_SPINCOUNT"] = _SPINS


@contextmanager
def restored_threads() -> Iterator[None]:
    """After the block, let torch compute with as many threads as before it."""
    before = threads()
    try:
        yield
    finally:
        set_threads(before)


@contextmanager
def one_thread() -> Iterator[None]:
    """Within the block, let torch compute with one thread.

    For small work, such as a head on features: several threads gain nothing there, and beside a busy process they wait
    for each other far longer than they compute.
    """
    with restored_threads():
        set_threads(1)
        yield


def count_processors() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor_name() -> str:
    """Return the processor's name, as Linux or Python's platform module gives it."""
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        return names[0] if names else platform.processor()
    return platform.processor()


def disable_tokenizer_threads() -> None:
    """Limit the Rust tokenizer to one thread, for a process that is one of several."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


def fast_layers_enabled() -> bool:
    """Return True if the fast layers for the CPU may be used: unless FULLBAKE_FAST_KERNELS is 0."""
    return os.environ.get("FULLBAKE_FAST_KERNELS") != "0"


def gpu_layers_enabled() -> bool:
    """Return True if the fast layers for a GPU, which nobody has measured, may be used: if FULLBAKE_GPU_PIECES is 1."""
    return os.environ.get("FULLBAKE_GPU_PIECES") == "1" and fast_layers_enabled()


def on_linux() -> bool:
    """Return True on Linux, the only system on which the fast layers for the CPU have been measured."""
    return platform.system() == "Linux"


def release_memory() -> None:
    """Give freed buffers back to the system, if the C library can.

    Batches of varying lengths leave gaps in glibc's heap: without this, a process that trains for hours comes to hold
    several times the memory that it uses. A call takes some milliseconds.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)


def reset_peak_memory() -> None:
    """Start the count of `peak_memory` again, if the system can (Linux)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> int | None:
    """Return the most bytes of main memory that this process has held since the last reset, None if unknown.

    On systems that cannot reset the count, it is since the start of the process.
    """
    with suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmHWM:")).split()[1])
    try:
        import resource
    except ImportError:  # Windows
        return None
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def keep_freed_memory(library: Any = None) -> None:
    """Let freed buffers stay with the process, if FULLBAKE_HOLD_MEMORY is 1 and the C library is glibc.

    By default glibc gives large buffers back at once, and the system fills every page of the next one with zeros,
    which takes some percent of a training step. In return, memory goes back only at `release_memory`. The setting
    lasts for the rest of the process.

    Args:
        library: the C library, by default the one that this process has loaded.
    """
    library = library or (ctypes.CDLL(None) if os.name == "posix" else None)
    mallopt = getattr(library, "mallopt", None)
    if mallopt is not None and os.environ.get("FULLBAKE_HOLD_MEMORY") == "1":
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries, by name, as they are saved with every run."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            if name not in OPTIONAL_LIBRARIES:
                raise
    return found


def installed_of(names: Iterable[str]) -> dict[str, str]:
    """Return the versions of those libraries that are installed, by name."""
    found = {}
    for name in names:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def rank() -> int:
    """Return this process's number among those that train together, 0 if it is alone."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """Return the number of processes that train together, which torchrun and accelerate launch set."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def local_rank() -> int:
    """Return this process's number among those of its machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def local_world_size() -> int:
    """Return the number of processes of this machine that train together."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def torchrun_error_file() -> str | None:
    """Return the file from which torchrun, if it started this process, takes the reason of its end; None without."""
    return os.environ.get("TORCHELASTIC_ERROR_FILE") or None


def is_first_attempt() -> bool:
    """Return True if torchrun started this process for the first time, and would start it again if it fails."""
    most, done = (os.environ.get(f"TORCHELASTIC_{name}", "0") for name in ("MAX_RESTARTS", "RESTART_COUNT"))
    return int(most) > 0 and int(done) == 0


def meeting_point() -> tuple[str, str]:
    """Return host and port at which the processes that train together meet; empty where the launcher set none."""
    return os.environ.get("MASTER_ADDR", ""), os.environ.get("MASTER_PORT", "")


def rank_timeout() -> str:
    """Return for how long a process may be silent among those that train together, a duration such as `10m`."""
    return os.environ.get("FULLBAKE_RANK_TIMEOUT") or "10m"


def forbid_ray_usage_reports() -> None:
    """Let Ray send no reports of its use, unless the environment says otherwise. Call it before Ray is imported."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


def quiet_ray_backend() -> None:
    """Let the parts of Ray in C++ show fatal errors alone, unless the environment says otherwise.

    Ray Data makes them print an error for each pool of actors that means nothing for it. Call it before Ray starts.
    """
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")


def ray_reports_usage() -> bool:
    """Return True if the environment asks Ray to send reports of its use."""
    return os.environ.get("RAY_USAGE_STATS_ENABLED") != "0"


def ray_address() -> str | None:
    """Return the address of the Ray cluster that the environment names, None if it names none."""
    return os.environ.get("RAY_ADDRESS") or None


def ray_address_file() -> Path:
    """Return the file in which Ray notes the address of the cluster that was started on this machine last."""
    return Path(os.environ.get("RAY_TMPDIR") or "/tmp") / "ray" / "ray_current_cluster"


def ray_uses_tls() -> bool:
    """Return True if the environment says that Ray's connections are encrypted."""
    return os.environ.get("RAY_USE_TLS", "").lower() in ("1", "true")


def limit_ray_connecting() -> None:
    """Let Ray try once to connect to a cluster, instead of for about ten minutes, unless the environment says more."""
    os.environ.setdefault("RAY_gcs_server_port_wait_time_s", "1")
