"""Plans have every row once, keep the token budget, and depend on nothing but their arguments."""

import itertools
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fullbake.models.batching import POOL_BATCHES, Step, balanced_row_weights, inference_plan, training_plan

LENGTHS = st.lists(st.integers(1, 600), max_size=200).map(lambda values: np.array(values, dtype=np.int64))
SIZES = st.integers(1, 40)
BUDGETS = st.integers(1, 5000)
SEEDS = st.integers(0, 2**64)
EPOCHS = st.integers(0, 50)


def plan(lengths, batch_size=16, seed=0, epoch=0, token_budget=2048, merge_last_single=False) -> list[Step]:
    return training_plan(
        np.asarray(lengths),
        batch_size=batch_size,
        seed=seed,
        epoch=epoch,
        token_budget=token_budget,
        merge_last_single=merge_last_single,
    )


def skewed(rows: int) -> np.ndarray:
    """Return lengths as comments have them: many short ones, a few at the limit."""
    return np.random.default_rng(0).lognormal(4, 1, rows).clip(3, 512).astype(np.int64)


def fits(lengths: np.ndarray, rows: np.ndarray, token_budget: int) -> bool:
    return len(rows) == 1 or len(rows) * lengths[rows].max() <= token_budget


def padding(lengths: np.ndarray, micro_batches: list[np.ndarray]) -> float:
    return sum(len(rows) * lengths[rows].max() for rows in micro_batches) / lengths.sum()


@given(LENGTHS, SIZES, SEEDS, EPOCHS, BUDGETS, st.booleans())
@settings(deadline=None)
def test_every_row_is_in_one_micro_batch_of_one_step(lengths, size, seed, epoch, budget, merge):
    steps = plan(lengths, size, seed, epoch, budget, merge)
    rows = np.concatenate([np.empty(0, np.int64), *(step.rows for step in steps)])
    assert sorted(rows.tolist()) == list(range(len(lengths)))
    assert rows.dtype == np.int64
    assert all(len(rows) for step in steps for rows in step.micro_batches)


@given(st.integers(0, 200), SIZES, st.booleans())
@settings(deadline=None)
def test_every_step_but_the_last_has_the_batch_size(rows, size, merge):
    sizes = [len(step.rows) for step in plan(np.ones(rows, int), size, merge_last_single=merge)]
    expected = [size] * (rows // size) + [rows % size] * bool(rows % size)
    if merge and rows % size == 1 and rows > size:
        expected[-2:] = [size + 1]
    assert sizes == expected


@given(LENGTHS, SIZES, SEEDS, BUDGETS)
@settings(deadline=None)
def test_micro_batches_keep_the_budget_longest_first(lengths, size, seed, budget):
    for step in plan(lengths, size, seed, token_budget=budget):
        assert all(fits(lengths, rows, budget) for rows in step.micro_batches)
        longest = [lengths[rows].max() for rows in step.micro_batches]
        assert longest == sorted(longest, reverse=True)


@given(LENGTHS, SIZES, SEEDS, EPOCHS, st.booleans())
@settings(deadline=None)
def test_budget_does_not_change_the_rows_of_a_step(lengths, size, seed, epoch, merge):
    def rows(budget: int) -> list[list[int]]:
        return [sorted(step.rows.tolist()) for step in plan(lengths, size, seed, epoch, budget, merge)]

    assert rows(1) == rows(2048) == rows(10**9)


@given(LENGTHS, SIZES, SEEDS, EPOCHS)
@settings(deadline=None)
def test_plan_depends_on_its_arguments_alone(lengths, size, seed, epoch):
    first = plan(lengths, size, seed, epoch)
    np.random.seed(1)
    for other in range(3):  # epochs planned in between change nothing
        plan(lengths, size, seed, other)
    again = plan(lengths, size, seed, epoch)
    assert [[rows.tolist() for rows in step.micro_batches] for step in first] == [
        [rows.tolist() for rows in step.micro_batches] for step in again
    ]


def test_plan_equals_that_of_older_versions():
    # stored numbers: a run that an older version began is resumed by this plan
    steps = plan(np.arange(1, 13), batch_size=4, seed=7, epoch=3)
    assert [step.rows.tolist() for step in steps] == [[0, 6, 7, 11], [1, 2, 4, 8], [3, 5, 9, 10]]


def test_every_seed_and_epoch_has_its_own_order():
    keys = [(seed, epoch) for seed in (0, 1, 5, 2**32, 2**32 + 5) for epoch in range(4)]
    orders = {tuple(np.concatenate([step.rows for step in plan(np.ones(64), 16, *key)])) for key in keys}
    assert len(orders) == len(keys)


def test_small_set_has_other_batches_each_epoch():
    lengths = np.arange(1, 161)  # as one sorted pool, all epochs would have the same ten batches
    epochs = [{frozenset(step.rows.tolist()) for step in plan(lengths, 16, epoch=epoch)} for epoch in range(5)]
    assert all(not one & other for one, other in itertools.combinations(epochs, 2))


def test_short_last_step_has_random_rows():
    lengths = np.arange(1, 100)
    last = [plan(lengths, 16, epoch=epoch)[-1].rows for epoch in range(200)]
    means = [lengths[rows].mean() for rows in last]
    assert {len(rows) for rows in last} == {3}
    assert np.mean(means) == pytest.approx(50, abs=4)  # the longest three would be 98


def test_plan_over_equal_lengths_is_a_plain_shuffle():
    # Which epoch's step a row falls in says nothing about its neighbor's.
    rows = np.array([np.concatenate([s.rows for s in plan(np.full(64, 512), 8, epoch=e)]) for e in range(400)])
    place = np.argsort(rows, axis=1) // 8
    together = (place[:, 0] == place[:, 1]).mean()
    assert together == pytest.approx(7 / 63, abs=0.05)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=9), st.integers(1, 200))
@settings(deadline=None, max_examples=60)
def test_split_into_micro_batches_is_the_cheapest_of_all(values, budget):
    lengths = np.sort(np.array(values))
    step = plan(lengths, batch_size=len(lengths), token_budget=budget)[0]

    def cost(sizes: list[int]) -> float:
        return sum(size + size * size / 64 / budget + budget / 32 for size in sizes)

    def ways(end: int) -> list[list[int]]:
        return (
            [[]]
            if end == 0
            else [
                [*way, (end - start) * int(lengths[end - 1])]
                for start in range(end)
                if end - start == 1 or (end - start) * lengths[end - 1] <= budget
                for way in ways(start)
            ]
        )

    got = cost([len(rows) * int(lengths[rows].max()) for rows in step.micro_batches])
    assert got == pytest.approx(min(map(cost, ways(len(lengths)))))


def test_texts_of_equal_length_are_split_evenly():
    step = plan(np.full(16, 140), batch_size=16, token_budget=2048)[0]
    assert [len(rows) for rows in step.micro_batches] == [8, 8]


@pytest.mark.parametrize("batch_size", [16, 32])
def test_plan_leaves_little_padding(batch_size):
    lengths = skewed(8000)
    shuffled = np.random.default_rng(1).permutation(8000)
    plain = [shuffled[start : start + batch_size] for start in range(0, 8000, batch_size)]
    micro_batches = [rows for step in plan(lengths, batch_size) for rows in step.micro_batches]
    assert padding(lengths, plain) > 3
    assert padding(lengths, micro_batches) < 1.06
    assert 8000 / batch_size > POOL_BATCHES  # more than one pool


def calls_of_planning(rows: int) -> int:
    """Return how many functions are called to plan so many rows, which no machine changes."""
    lengths, calls = skewed(rows), [0]

    def count(frame: object, event: str, argument: object) -> None:
        calls[0] += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        plan(lengths)
        inference_plan(lengths, token_budget=2048)
    finally:
        sys.setprofile(None)
    return calls[0]


def test_planning_works_by_batch_and_grows_with_the_rows_only_in_proportion():
    few, many = calls_of_planning(4_000), calls_of_planning(40_000)
    assert many < 40_000, "less than one call a row"
    assert many < 11 * few


@given(LENGTHS, BUDGETS)
@settings(deadline=None)
def test_inference_plan_has_every_row_once_longest_first_within_the_budget(lengths, budget):
    batches = inference_plan(lengths, token_budget=budget)
    rows = np.concatenate([np.empty(0, np.int64), *batches])
    assert sorted(rows.tolist()) == list(range(len(lengths)))
    assert (np.diff(lengths[rows]) <= 0).all()
    assert all(fits(lengths, batch, budget) for batch in batches)


@given(LENGTHS, BUDGETS, st.data())
@settings(deadline=None)
def test_inference_plan_depends_on_the_lengths_alone(lengths, budget, data):
    shuffle = np.array(data.draw(st.permutations(range(len(lengths)))), dtype=np.int64)
    sizes = [lengths[batch].tolist() for batch in inference_plan(lengths, token_budget=budget)]
    assert sizes == [
        lengths[shuffle][batch].tolist() for batch in inference_plan(lengths[shuffle], token_budget=budget)
    ]


def test_inference_plan_keeps_the_order_of_equal_lengths():
    batches = inference_plan(np.array([3, 5, 3, 5, 3]), token_budget=10)
    assert [batch.tolist() for batch in batches] == [[1, 3], [0, 2, 4]]


# Rows drawn by weight


def draw_rows(weights, seed=0, epoch=0):
    lengths = np.full(len(weights), 7)
    steps = training_plan(
        lengths, batch_size=8, seed=seed, epoch=epoch, token_budget=64, merge_last_single=False, weights=weights
    )
    return np.concatenate([step.rows for step in steps])


def test_rows_are_drawn_in_proportion_to_their_weights():
    weights = np.tile([1.0, 3.0], 5000)
    rows = draw_rows(weights)
    assert len(rows) == 10_000
    assert abs((rows % 2).mean() - 0.75) < 0.015  # three standard deviations


def test_row_of_weight_zero_is_never_drawn():
    weights = np.r_[np.zeros(50), np.ones(50)]
    assert draw_rows(weights).min() >= 50


def test_drawn_rows_depend_on_seed_and_epoch_alone():
    weights = np.arange(1.0, 101.0)
    assert np.array_equal(draw_rows(weights, 1, 2), draw_rows(weights, 1, 2))
    assert not np.array_equal(draw_rows(weights, 1, 2), draw_rows(weights, 1, 3))
    assert not np.array_equal(draw_rows(weights, 1, 2), draw_rows(weights, 2, 2))


def test_balanced_weights_are_equal_for_every_class():
    labels = np.repeat([0, 1, 2], [900, 90, 10])
    weights = balanced_row_weights(labels)
    np.testing.assert_allclose(np.bincount(labels, weights=weights), [1, 1, 1])


def test_balanced_weights_of_a_label_matrix_follow_the_rarest_label():
    labels = np.array([[1, 0], [1, 0], [1, 1], [0, 0]], dtype=np.uint8)
    np.testing.assert_allclose(balanced_row_weights(labels), [1 / 3, 1 / 3, 1, 1])


@given(st.lists(st.integers(1, 60), min_size=1, max_size=40).map(np.array), st.integers(60, 400), st.integers(0, 80))
def test_padding_of_a_batch_is_limited_where_an_engine_computes_it(lengths, budget, most) -> None:
    batches = inference_plan(lengths, token_budget=budget, most_padding=most)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    for rows in batches:
        assert len(rows) * lengths[rows].max() <= budget
        assert (lengths[rows].max() - lengths[rows]).sum() <= most
    unlimited = inference_plan(lengths, token_budget=budget)
    assert len(batches) >= len(unlimited)
    same = inference_plan(lengths, token_budget=budget, most_padding=10**6)
    assert [rows.tolist() for rows in same] == [rows.tolist() for rows in unlimited]
