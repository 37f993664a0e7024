"""The machine: device, precision, threads, seeds, versions, the cache folder.

The only place that reads environment variables, so that what a run depends on can be read here.
"""

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

if TYPE_CHECKING:
    import torch

LIBRARIES = ("fullbake", "torch", "transformers", "tokenizers", "accelerate", "scikit-learn", "numpy", "safetensors")


def cache_dir(override: str | Path | None = None) -> Path:
    """Where features are kept: the override, FULLBAKE_CACHE_DIR, or the user's own cache folder."""
    chosen = override or os.environ.get("FULLBAKE_CACHE_DIR") or platformdirs.user_cache_dir("fullbake")
    return Path(chosen).expanduser()


def device() -> "torch.device":
    """The accelerator that torch finds (CUDA, MPS, ...), or the CPU."""
    import torch

    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return found or torch.device("cpu")


def mixed_precision(precision: str) -> str:
    """`auto`, `fp32` or `bf16` -> what accelerate calls it: bf16 by itself only on a GPU that has it."""
    import torch

    if precision == "auto":
        has_bf16 = device().type == "cuda" and torch.cuda.is_bf16_supported()
        return "bf16" if has_bf16 else "no"
    return {"fp32": "no", "bf16": "bf16"}[precision]


def seed_everything(seed: int) -> None:
    """Seed Python, numpy and torch (all devices), so that initialization and dropout repeat."""
    from accelerate.utils import set_seed

    set_seed(seed)


def threads() -> int:
    """Threads torch computes with. Results repeat bit for bit only at an equal number."""
    import torch

    return torch.get_num_threads()


def versions() -> dict[str, str]:
    """Python's and the libraries' versions, as saved with every run."""
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in LIBRARIES}
