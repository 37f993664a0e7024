"""The rows that recipes judge differently: where a choice between them shows, and often where a label is doubtful."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


def rank_disagreements(
    predictions: Mapping[str, NDArray[Any]], labels: NDArray[Any], most: int | None = None
) -> NDArray[np.int64]:
    """Positions of the rows that not all recipes judge alike, the most disputed first.

    predictions: by recipe, of one model each: ids (rows,), or 0 and 1 (rows, labels). labels: the truth, alike. most:
    how many at most. Most disputed is the row whose commonest answer has the fewest recipes behind it; of equals, the
    one where right and wrong are the most even; of equals, the earlier.
    """
    if not predictions:
        return np.empty(0, dtype=np.int64)
    answers = np.stack([_as_rows(own) for own in predictions.values()])  # (recipes, rows, labels or 1)
    backing = _same(answers[:, None], answers[None]).sum(axis=0).max(axis=0)
    right = _same(answers, _as_rows(labels)[None]).sum(axis=0)
    disputed = np.flatnonzero(backing < len(answers))
    uneven = np.abs(2 * right - len(answers))
    order = np.lexsort((disputed, uneven[disputed], backing[disputed]))
    ranked: NDArray[np.int64] = disputed[order][:most]
    return ranked


def _as_rows(ids: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(ids).reshape(len(ids), -1)


def _same(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.bool_]:
    same: NDArray[np.bool_] = (a == b).all(axis=-1)
    return same
