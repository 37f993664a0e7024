"""Random numbers that are the same tomorrow: SeedSequence's and PCG64's raw words alone.

These are the parts of numpy's random module whose streams are promised not to change between versions; its Generator's
methods may. Whatever has to repeat bit for bit after a kill, or years later, draws from here.
"""

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]


def source(seed: int, *path: int) -> np.random.PCG64:
    """A stream of its own for every seed and path of numbers (an epoch, a step, a part of the work)."""
    return np.random.PCG64(np.random.SeedSequence(seed, spawn_key=path))


def uniform(random: np.random.PCG64, size: int) -> npt.NDArray[np.float64]:
    """(size,) numbers in [0, 1), of 53 bits."""
    words: npt.NDArray[np.uint64] = random.random_raw(size)
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53


def below(random: np.random.PCG64, limit: int) -> int:
    """One whole number from 0 to limit - 1."""
    return int(random.random_raw()) * limit >> 64


def permutation(random: np.random.PCG64, size: int) -> Ids:
    """0 to size - 1 in random order."""
    return np.argsort(random.random_raw(size), kind="stable")
