import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fullbake.core.errors import RecipeError
from fullbake.models.encoding import kept_ends, longest_first, offsets_of, window_bounds, within_ends

LENGTHS = st.lists(st.integers(0, 40), min_size=1, max_size=8).map(np.array)


def test_head_and_tail_of_sun_et_al() -> None:
    assert kept_ends(510, "head+tail") == (128, 382)
    assert kept_ends(10, "head") == (10, 0)
    assert kept_ends(10, "tail") == (0, 10)


@given(LENGTHS, st.integers(0, 12), st.integers(0, 12))
def test_the_ends_that_stay(lengths: np.ndarray, first: int, last: int) -> None:
    kept = np.split(within_ends(lengths, first, last), offsets_of(lengths)[1:-1])
    for length, row in zip(lengths, kept, strict=True):
        place = np.arange(length)
        assert row.tolist() == ((place < first) | (place >= length - last)).tolist()


@given(LENGTHS, st.integers(1, 12), st.data())
def test_windows_cover_a_text_and_share_their_stride(lengths: np.ndarray, room: int, data: st.DataObject) -> None:
    stride = data.draw(st.integers(0, room - 1))
    documents, starts, ends = window_bounds(lengths, room, stride)
    assert np.unique(documents).tolist() == list(range(len(lengths)))
    for text, length in enumerate(lengths):
        own = documents == text
        assert set().union(*(range(a, b) for a, b in zip(starts[own], ends[own], strict=True))) == set(range(length))
        assert (ends[own] - starts[own] <= room).all()
        assert (ends[own][:-1] - starts[own][1:] == stride).all()
        assert length > room or own.sum() == 1


@pytest.mark.parametrize("stride", [4, -1])
def test_a_stride_without_progress_is_refused(stride: int) -> None:
    with pytest.raises(RecipeError, match="--stride"):
        window_bounds(np.array([9]), 4, stride)


@given(st.integers(0, 30), st.integers(0, 30), st.integers(2, 20))
def test_of_a_pair_the_longer_gives_way(first: int, second: int, room: int) -> None:
    one, other = (int(kept[0]) for kept in longest_first(np.array([first]), np.array([second]), room))
    assert one + other == min(first + second, room)
    assert one <= first
    assert other <= second
    if min(first, second) <= room // 2:  # the shorter one is whole
        assert min(first, second) in (one, other)
    else:
        assert abs(one - other) <= 1
