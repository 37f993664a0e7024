"""The pace is that of the fastest stretch."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fullbake.training.pace import STRETCHES_KEPT, Pace


def pace_of(steps: list[tuple[float, float]]) -> Pace:
    pace = Pace()
    for units, seconds in steps:
        pace.add(units, seconds)
    return pace


def test_before_the_first_step_it_is_unknown() -> None:
    assert Pace().per_second is None


def test_of_a_few_short_steps_it_is_the_mean() -> None:
    assert pace_of([(10, 0.1), (30, 0.3)]).per_second == pytest.approx(100)


def test_a_pause_does_not_count() -> None:
    """A busy process took the processors in every step but those of two seconds."""
    slow, fast = [(10, 1.0)] * 5, [(10, 0.1)] * 20
    assert pace_of(slow + fast + slow).per_second == pytest.approx(100, rel=0.2)


def test_one_fast_step_is_no_stretch() -> None:
    """A step of short texts is fast; its stretch holds other steps too."""
    assert pace_of([(100, 0.1), (10, 0.9), (20, 1.0)]).per_second == pytest.approx(110)


def test_a_machine_that_became_slower_is_noticed() -> None:
    assert pace_of([(100, 1.0)] + [(10, 1.0)] * STRETCHES_KEPT).per_second == pytest.approx(10)


@given(st.lists(st.tuples(st.floats(1, 1e6), st.floats(1e-3, 10)), min_size=1, max_size=50))
def test_it_is_within_the_speeds_of_the_steps(steps: list[tuple[float, float]]) -> None:
    speeds = [units / seconds for units, seconds in steps]
    found = pace_of(steps).per_second
    assert found is not None
    assert min(speeds) * (1 - 1e-9) <= found <= max(speeds) * (1 + 1e-9)
