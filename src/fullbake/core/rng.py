"""Random numbers that repeat bit for bit, after a kill or years later.

They come from the raw words of numpy's SeedSequence and PCG64 alone, because numpy promises that these streams do not
change between versions. The methods of its Generator carry no such promise.
"""

import random

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]
"""Whole numbers int64 (n,), such as row indices."""


def rng_stream(seed: int, *path: int) -> np.random.PCG64:
    """Return an independent random stream for a seed and a path of numbers.

    Args:
        seed: the recipe's seed.
        path: numbers that say what the stream is for, such as an epoch, a step, a part of the work.
    """
    return np.random.PCG64(np.random.SeedSequence(seed, spawn_key=path))


def random_uniform(stream: np.random.PCG64, size: int) -> npt.NDArray[np.float64]:
    """Return `size` numbers in [0, 1), float64 (size,), with 53 random bits each."""
    words: npt.NDArray[np.uint64] = stream.random_raw(size)
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53


def random_below(stream: np.random.PCG64, limit: int) -> int:
    """Return one whole number from 0 to limit - 1."""
    return int(stream.random_raw()) * limit >> 64


def random_permutation(stream: np.random.PCG64, size: int) -> Ids:
    """Return the numbers 0 to size - 1 in random order, int64 (size,)."""
    return np.argsort(stream.random_raw(size), kind="stable")


def seed_everything(seed: int) -> None:
    """Seed Python, numpy and torch (all devices), so that initialization and dropout repeat."""
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seed torch's generators for one optimizer step of one process.

    Dropout is thus a pure function of (seed, step, rank), so resuming at a step needs no saved random state.
    """
    import torch

    torch.manual_seed(int(np.random.SeedSequence(seed, spawn_key=(step, rank)).generate_state(1, np.uint64)[0] >> 1))
