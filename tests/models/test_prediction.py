"""What every engine shares: ids of texts, the order of results, and windows pooled text by text."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.rows import column, make_rows

from fullbake.config.sections import TokensConfig
from fullbake.models.encoding import Encoded, row_offsets
from fullbake.models.prediction import compute_rows, encode, of_texts, padded_lengths, pool_windows
from fullbake.models.tokenizer import load_tokenizer

Bases = Callable[..., Path]
TEXTS = [row[0] for row in make_rows(20)] + ["", "a"]
TOKENS = TokensConfig(max_length=40, token_budget=12)
LENGTHS = np.array([3, 7, 1, 4, 9, 2])


def encoded_rows(documents: np.ndarray | None = None) -> Encoded:
    """Rows of LENGTHS, each filled with its own number."""
    ids = np.repeat(np.arange(len(LENGTHS), dtype=np.int32), LENGTHS)
    return Encoded(ids, row_offsets(LENGTHS), documents=documents)


def test_list_and_arrow_column_give_the_same_ids(bases: Bases) -> None:
    tokenizer = load_tokenizer(bases("bert"))
    plain, arrow = encode(TEXTS, tokenizer, TOKENS), encode(column(TEXTS), tokenizer, TOKENS)
    assert np.array_equal(plain.input_ids, arrow.input_ids)
    assert np.array_equal(plain.offsets, arrow.offsets)


def test_results_are_in_the_order_of_the_rows_and_batches_are_longest_first() -> None:
    encoded, seen = encoded_rows(), []

    def compute(rows: np.ndarray) -> np.ndarray:
        seen.append(LENGTHS[rows].max() * len(rows))
        return np.stack([rows, LENGTHS[rows]], axis=1).astype(np.float32)

    found = compute_rows(compute, encoded, TOKENS, title="-")
    assert found.dtype == np.float32
    assert found.tolist() == [[float(row), float(length)] for row, length in enumerate(LENGTHS)]
    assert all(size <= 12 for size in seen)
    assert len(seen) > 2


def test_no_rows_give_no_results() -> None:
    none = Encoded(np.empty(0, np.int32), np.zeros(1, np.int64))
    assert compute_rows(lambda rows: np.ones((len(rows), 2), np.float32), none, TOKENS, title="-").shape == (0, 0)


def test_rows_take_max_length_where_all_are_padded_to_it() -> None:
    assert padded_lengths(encoded_rows(), TOKENS).tolist() == LENGTHS.tolist()
    padded = TOKENS.model_copy(update={"padding": "max_length"})
    assert padded_lengths(encoded_rows(), padded).tolist() == [40] * 6


def test_values_are_pooled_only_where_rows_are_windows() -> None:
    values = np.arange(12, dtype=np.float32).reshape(6, 2)
    assert of_texts(values, encoded_rows(), TOKENS) is values
    windows = of_texts(values, encoded_rows(np.array([0, 0, 1, 2, 2, 2])), TOKENS)
    assert windows.tolist() == [[1.0, 2.0], [4.0, 5.0], [8.0, 9.0]]


@pytest.mark.parametrize("how", ["mean", "max"])
def test_windows_are_pooled_text_by_text(how: Any) -> None:
    values = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    pooled = pool_windows(values, np.array([0, 1, 1, 1, 2, 2]), how)
    assert pooled.dtype == np.float32
    texts = [values[:1], values[1:4], values[4:]]
    np.testing.assert_allclose(pooled, [getattr(windows, how)(axis=0) for windows in texts], rtol=1e-6)
