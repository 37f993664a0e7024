"""Round probabilities to the digits in which they are written, so that those of a row still sum to 1."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from fullbake.config.problems import Probabilities

DECIMALS: Final = 7
"""Decimal places of a written score. Each number with so many, up to 1, is a float32 of its own, so that a file of
texts and a file of float32 hold the same scores."""


def round_to_sum(probabilities: Probabilities) -> NDArray[np.float32]:
    """Round the probabilities of exclusive classes so that those of each row sum to 1 in the decimals written.

    Each is rounded down, and the units that are missing go to the largest remainders (of equals, to the lower id).

    Args:
        probabilities: (rows, classes), each row sums to 1.

    Returns:
        float32 (rows, classes), multiples of 1e-7.
    """
    unit = 10**DECIMALS
    exact = np.asarray(probabilities, dtype=np.float64) * unit
    floors = np.floor(exact)
    missing = unit - floors.sum(axis=1).astype(np.int64)
    order = np.argsort(floors - exact, axis=1, kind="stable")
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.arange(order.shape[1])[None, :], axis=1)
    units = floors + (ranks < missing[:, None])
    rounded: NDArray[np.float32] = (units / unit).astype(np.float32)
    return rounded
