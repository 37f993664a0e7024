"""Scores that sum to 1 in the digits in which they are written."""

from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fullbake.data.tables import format_values
from fullbake.evaluation.written_scores import round_to_sum


@given(st.lists(st.floats(-40, 40), min_size=2, max_size=30), st.integers(0, 2**32 - 1))
def test_the_written_scores_of_a_row_sum_to_1(logits: list[float], seed: int) -> None:
    shifted = np.exp(np.array([logits, np.random.default_rng(seed).permutation(logits)]) - max(logits))
    probabilities = shifted / shifted.sum(axis=1, keepdims=True)
    rounded = round_to_sum(probabilities)
    assert rounded.dtype == np.float32
    for row in rounded:
        assert sum(map(Decimal, format_values(row))) == 1
    assert np.abs(rounded - probabilities).max() <= 1.6e-7
    # the order stays, and so does the likeliest class
    assert (rounded[np.arange(2), probabilities.argmax(axis=1)] == rounded.max(axis=1)).all()


@pytest.mark.parametrize("row", [[1.0, 0.0], [1 / 3, 1 / 3, 1 / 3], [1e-9, 1 - 1e-9], [0.5, 0.5], [1 / 150] * 150])
def test_even_and_extreme_rows(row: list[float]) -> None:
    rounded = round_to_sum(np.array([row]))
    assert sum(map(Decimal, format_values(rounded[0]))) == 1
    assert (rounded >= 0).all()


def test_no_rows() -> None:
    assert round_to_sum(np.empty((0, 3))).shape == (0, 3)
