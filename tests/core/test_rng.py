"""Random numbers that are the same tomorrow: what they are today is written here."""

import numpy as np
from helpers.corpora import binomial
from hypothesis import given
from hypothesis import strategies as st

from fullbake.core.rng import random_below, random_permutation, random_uniform, rng_stream


def test_the_same_on_every_machine_and_in_every_version() -> None:
    assert random_uniform(rng_stream(0), 3).tolist() == UNIFORM
    assert [random_below(rng_stream(7, 1, 2), limit) for limit in (10, 1000, 2**40)] == BELOW
    assert random_permutation(rng_stream(1), 8).tolist() == PERMUTATION


UNIFORM = [0.6369616873214543, 0.2697867137638703, 0.04097352393619469]
BELOW = [4, 478, 526550782361]
PERMUTATION = [2, 4, 7, 5, 0, 6, 3, 1]


@given(st.integers(0, 2**32), st.lists(st.integers(0, 2**62), max_size=3))
def test_a_path_always_gives_the_same_stream(seed: int, path: list[int]) -> None:
    assert rng_stream(seed, *path).random_raw(4).tolist() == rng_stream(seed, *path).random_raw(4).tolist()


def test_every_path_has_a_stream_of_its_own() -> None:
    paths = [(), (0,), (1,), (0, 0), (0, 1), (1, 0), (2**40,)]
    assert len({int(rng_stream(0, *path).random_raw()) for path in paths}) == len(paths)


@given(st.integers(0, 2**32), st.integers(1, 2**62))
def test_below_its_limit(seed: int, limit: int) -> None:
    assert 0 <= random_below(rng_stream(seed), limit) < limit


def test_below_takes_every_number_alike() -> None:
    random = rng_stream(3)
    counts = np.bincount([random_below(random, 5) for _ in range(10_000)])
    assert all(count / 10_000 == binomial(0.2, 10_000) for count in counts)


@given(st.integers(0, 2**32), st.integers(0, 200))
def test_permutations_are_permutations(seed: int, size: int) -> None:
    assert sorted(random_permutation(rng_stream(seed), size).tolist()) == list(range(size))


def test_uniform_numbers_fill_their_interval() -> None:
    drawn = random_uniform(rng_stream(5), 10_000)
    assert drawn.min() >= 0
    assert drawn.max() < 1
    assert all((drawn < edge).mean() == binomial(edge, 10_000) for edge in (0.1, 0.5, 0.9))
