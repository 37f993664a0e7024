"""Which rows a split or a fold holds out: groups stay whole, labels keep their shares, seeds repeat."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fullbake.core.errors import DataError
from fullbake.data.partition import make_folds, split

SHARES = st.sampled_from([0.05, 0.1, 0.2, 0.3, 0.5, 0.8])


@st.composite
def pure_groups(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """(groups, labels): each group of one class, rows in any order."""
    classes = draw(st.integers(1, 5))
    sizes = draw(st.lists(st.tuples(st.integers(0, classes - 1), st.integers(1, 6)), min_size=2, max_size=40))
    groups = np.concatenate([np.full(size, at) for at, (_, size) in enumerate(sizes)])
    labels = np.concatenate([np.full(size, label) for label, size in sizes])
    order = np.random.Generator(np.random.PCG64(draw(st.integers(0, 9)))).permutation(len(groups))
    return groups[order] * 7 - 3, labels[order]


@settings(deadline=None)
@given(pure_groups(), SHARES, st.integers(0, 99))
def test_groups_stay_whole_and_each_class_is_on_both_sides_near_its_share(
    rows: tuple[np.ndarray, np.ndarray], share: float, seed: int
) -> None:
    groups, labels = rows
    kept, held = split(groups, labels, share, seed)
    np.testing.assert_array_equal(np.sort(np.concatenate([kept, held])), np.arange(len(groups)))
    assert (np.diff(kept) > 0).all()
    assert (np.diff(held) > 0).all()
    assert kept.dtype == held.dtype == np.int64
    assert not set(groups[kept]) & set(groups[held])
    for label in np.unique(labels):
        members = labels == label
        if len(set(groups[members])) == 1:
            assert label not in labels[held]
        else:
            assert label in labels[kept]
            assert label in labels[held]
            largest = np.unique(groups[members], return_counts=True)[1].max()
            assert abs((labels[held] == label).sum() - share * members.sum()) <= largest + 1


@settings(deadline=None)
@given(st.lists(st.integers(0, 3), min_size=2, max_size=60), SHARES, st.integers(0, 99))
def test_share_is_exact_without_duplicates(labels: list[int], share: float, seed: int) -> None:
    """Except where rounding would leave a class on one side."""
    names, counts = np.unique(labels, return_counts=True)
    _, held = split(np.arange(len(labels)), np.array(labels), share, seed)
    if (counts * share >= 1).all() and (counts * (1 - share) >= 1).all():
        assert abs(len(held) - share * len(labels)) <= 0.5 + 1e-9
    for name, count in zip(names, counts, strict=True):
        assert abs((np.array(labels)[held] == name).sum() - share * count) <= 1


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 3)), min_size=4, max_size=60), st.integers(0, 9))
def test_groups_of_several_classes_stay_whole(rows: list[tuple[int, int]], seed: int) -> None:
    groups, labels = np.array(rows).T
    if len(set(groups)) == 1:
        return
    kept, held = split(groups, labels, 0.3, seed)
    assert not set(groups[kept]) & set(groups[held])
    assert len(kept) + len(held) == len(rows)


def test_class_that_shares_groups_with_another_is_on_both_sides() -> None:
    groups = np.array([0, 0, 1, 1, 2, 3, 4, 5])
    labels = np.array([0, 1, 0, 1, 2, 2, 2, 2])
    for seed in range(20):
        kept, held = split(groups, labels, 0.2, seed)
        assert set(labels[kept]) == set(labels[held]) == {0, 1, 2}


def test_split_depends_on_its_seed_only() -> None:
    groups, labels = np.arange(200), np.arange(200) % 3
    first, again, other = (split(groups, labels, 0.2, seed)[1] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    np.random.seed(5)
    np.testing.assert_array_equal(split(groups, labels, 0.2, 1)[1], first)


def test_large_groups_are_held_out_as_often_as_their_share() -> None:
    groups = np.concatenate([np.repeat(np.arange(20), 3), np.arange(20, 160)])
    labels = np.zeros(200, dtype=np.int64)
    held = np.concatenate([split(groups, labels, 0.2, seed)[1] for seed in range(50)])
    assert 0.15 < (held < 60).sum() / (60 * 50) < 0.25


def test_many_small_classes_keep_the_share_of_all_rows() -> None:
    labels = np.repeat(np.arange(77), 7)
    _, held = split(np.arange(len(labels)), labels, 0.2, 0)
    assert len(held) == 108
    assert set(np.bincount(labels[held]).tolist()) == {1, 2}


def test_each_of_several_labels_a_row_is_on_both_sides() -> None:
    random = np.random.Generator(np.random.PCG64(0))
    labels = (random.random((1000, 6)) < [0.5, 0.3, 0.1, 0.05, 0.01, 0.004]).astype(np.int64)
    kept, held = split(np.arange(1000), labels, 0.2, 0)
    assert abs(len(held) - 200) < 30
    assert (labels[held].sum(axis=0) > 0).all()
    assert (labels[kept].sum(axis=0) > 0).all()
    np.testing.assert_allclose(labels[held].mean(axis=0), labels.mean(axis=0), atol=0.03)


@pytest.mark.parametrize("share", [0, 1, -0.2, 1.5])
def test_share_outside_0_and_1_is_refused(share: float) -> None:
    with pytest.raises(DataError, match="between 0 and 1"):
        split(np.arange(4), np.array([0, 0, 1, 1]), share, 0)


def test_rows_that_are_one_group_cannot_be_split() -> None:
    for groups in (np.zeros(5, dtype=np.int64), np.empty(0, dtype=np.int64)):
        with pytest.raises(DataError, match="all equal or nearly equal"):
            split(groups, np.zeros(len(groups), dtype=np.int64), 0.2, 0)


# Folds


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 2)), min_size=12, max_size=60), st.integers(2, 5))
@settings(deadline=None)
def test_each_row_is_in_one_fold_and_groups_stay_whole(rows: list[tuple[int, int]], count: int) -> None:
    groups, labels = np.array([group for group, _ in rows]), np.array([label for _, label in rows])
    if len(np.unique(groups)) < count:
        with pytest.raises(DataError, match="fewer different texts than folds"):
            make_folds(groups, labels, count, 0)
        return
    held = make_folds(groups, labels, count, 0)
    assert len(held) == count
    assert all(len(fold) for fold in held)
    assert sorted(np.concatenate(held).tolist()) == list(range(len(rows)))
    of_row = np.concatenate([np.full(len(fold), number) for number, fold in enumerate(held)])
    where = dict(zip(np.concatenate(held).tolist(), of_row.tolist(), strict=True))
    for group in np.unique(groups):
        assert len({where[row] for row in np.flatnonzero(groups == group)}) == 1


def test_eight_rows_of_a_class_are_spread_over_five_folds() -> None:
    labels = np.repeat([0, 1, 2], 8)
    held = make_folds(np.arange(24), labels, 5, 3)
    counts = np.array([np.bincount(labels[fold], minlength=3) for fold in held])
    assert counts.min() >= 1
    assert counts.max() <= 2


def test_shares_of_several_labels_a_row_are_kept() -> None:
    """By iterative stratification each label is within 0.01 of the share."""
    random = np.random.default_rng(0)
    labels = (random.random((4000, 6)) < [0.5, 0.3, 0.1, 0.05, 0.02, 0.3]).astype(np.uint8)
    _, held = split(np.arange(4000), labels, 0.2, 1)
    np.testing.assert_allclose(labels[held].sum(axis=0) / labels.sum(axis=0), 0.2, atol=0.01)
    assert np.array_equal(held, split(np.arange(4000), labels, 0.2, 1)[1])
