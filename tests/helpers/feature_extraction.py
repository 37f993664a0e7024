"""A feature extraction whose network only counts. It is a module of its own so that a spawned process can import it."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fullbake.config.sections import TokensConfig
from fullbake.core.cache import Cache
from fullbake.models.encoding import Encoded, row_offsets
from fullbake.training.features import FeatureExtraction, extract_features

TOKENS = TokensConfig(max_length=16, token_budget=12)


def encoded(rows: list[list[int]], types: list[list[int]] | None = None) -> Encoded:
    """Rows of token ids, and of segment ids if there are any."""
    flat = np.array([token for row in rows for token in row], np.int32)
    segments = None if types is None else np.array([kind for row in types for kind in row], np.uint8)
    return Encoded(flat, row_offsets(np.array([len(row) for row in rows])), segments)


ROWS = [[1, 5, 2], [1, 2], [1, 5, 2], [1, 7, 8, 9, 2], [1, 2], [1, 6, 2]]


class Counting:
    """A network that counts its rows: ids -> (ids, ids squared) of every token, or of the second one."""

    def __init__(self, dies_at: int | None = None) -> None:
        self.rows, self.calls, self.dies_at = 0, 0, dies_at

    def states(self, inputs: Mapping[str, Tensor]) -> Tensor:
        self.calls += 1
        if self.calls == self.dies_at:
            raise KeyboardInterrupt
        ids = inputs["input_ids"].float()
        self.rows += len(ids)
        return torch.stack([ids, ids.square()], dim=2)

    def pooled(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return self.states(inputs)[:, 1]


def extraction_by(network: Counting, every_token: bool = False, **fields: Any) -> FeatureExtraction:
    """Extraction by the counting network, under the key `k`."""
    forward = network.states if every_token else network.pooled
    return replace(FeatureExtraction(forward, 2, "k", "features", TOKENS, 0, every_token), **fields)


def extract_into_queue(folder: Path, results: Any) -> None:
    """Extract features in a process of its own: put (rows computed, vectors) into a queue."""
    network = Counting()
    found = extract_features(extraction_by(network), lambda: encoded(ROWS * 50), Cache(folder, 10**6))
    results.put((network.rows, None if found is None else found.vectors.tolist()))
