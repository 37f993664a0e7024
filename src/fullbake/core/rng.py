"""Random numbers that are the same tomorrow: SeedSequence's and PCG64's raw words alone.

These are the parts of numpy's random module whose streams are promised not to change between versions; its Generator's
methods may. Whatever has to repeat bit for bit after a kill, or years later, draws from here.
"""

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]


def rng_stream(seed: int, *path: int) -> np.random.PCG64:
    """A stream of its own for every seed and path of numbers (an epoch, a step, a part of the work)."""
    return np.random.PCG64(np.random.SeedSequence(seed, spawn_key=path))


def random_uniform(random: np.random.PCG64, size: int) -> npt.NDArray[np.float64]:
    """(size,) numbers in [0, 1), of 53 bits."""
    words: npt.NDArray[np.uint64] = random.random_raw(size)
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53


def random_below(random: np.random.PCG64, limit: int) -> int:
    """One whole number from 0 to limit - 1."""
    return int(random.random_raw()) * limit >> 64


def random_permutation(random: np.random.PCG64, size: int) -> Ids:
    """0 to size - 1 in random order."""
    return np.argsort(random.random_raw(size), kind="stable")


def seed_everything(seed: int) -> None:
    """Seed Python, numpy and torch (all devices), so that initialization and dropout repeat."""
    import random

    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seed torch's generators for one optimizer step of one process.

    Dropout is thus a pure function of (seed, step, rank): going on at step k needs no saved random state.
    """
    import torch

    torch.manual_seed(int(np.random.SeedSequence(seed, spawn_key=(step, rank)).generate_state(1, np.uint64)[0] >> 1))
