"""Axes hold their values, and their ticks are round, apart, and say where they are."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fullbake.comparison.svg import linear_axis, log_axis, near_axis, share_axis, whole_axis

numbers = st.floats(-1e6, 1e6).map(lambda value: round(value, 4))


@given(st.lists(numbers, min_size=1, max_size=8), st.integers(2, 8))
def test_a_linear_axis_holds_its_values_between_ticks_that_are_true(values: list[float], count: int) -> None:
    axis = linear_axis("x", values, count)
    assert axis.low < min(values) <= max(values) < axis.high
    assert all(0 < axis.share(value) < 1 for value in values)
    assert 1 <= len(axis.ticks) <= count + 2
    names = [name for _, name in axis.ticks]
    assert len(set(names)) == len(names)
    step = (axis.high - axis.low) / count
    assert all(math.isclose(float(name.replace("−", "-")), value, abs_tol=step / 100) for value, name in axis.ticks)


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ([0.0, 1.0], ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        ([0.61, 0.74], ["0.625", "0.650", "0.675", "0.700", "0.725"]),
        ([-0.1, 0.2], ["−0.1", "0.0", "0.1", "0.2"]),
        ([3.0], ["2.85", "2.90", "2.95", "3.00", "3.05", "3.10"]),
    ],
)
def test_ticks_are_round(values: list[float], names: list[str]) -> None:
    assert [name for _, name in linear_axis("x", values).ticks] == names


def test_what_lies_far_off_does_not_stretch_an_axis() -> None:
    axis = near_axis("x", [0.6, 0.8], [0.5, 0.03])
    assert axis.low < 0.5 < 0.6
    assert axis.low > 0.4
    assert near_axis("x", [], [0.03, 0.3]).low < 0.03


@pytest.mark.parametrize("last", [1, 2, 10, 100])
def test_epochs_are_whole(last: int) -> None:
    axis = whole_axis("epoch", [1, last])
    assert all(value == int(name) for value, name in axis.ticks)
    assert axis.ticks[0][0] == 1
    assert len(axis.ticks) <= 8


@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=5))
def test_equal_factors_lie_equally_far_apart(values: list[float]) -> None:
    axis = log_axis("x", values, [(value, "") for value in values])
    assert len(axis.ticks) == len(values)
    low, high = axis.share(min(values)), axis.share(max(values))
    assert axis.share(math.sqrt(min(values)) * math.sqrt(max(values))) == pytest.approx((low + high) / 2, abs=1e-6)


def test_shares_go_from_nothing_to_all() -> None:
    axis = share_axis("recall")
    assert [axis.share(value) for value in (0, 0.25, 1)] == [0, 0.25, 1]
