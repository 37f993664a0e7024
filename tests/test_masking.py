"""Which tokens have to be guessed: never special ones, whole words together, and in the shares that were asked."""

import numpy as np
import pytest
from corpora import binomial
from hypothesis import given
from hypothesis import strategies as st

from fullbake.core.rng import source
from fullbake.pretraining.examples import Masked, Masking, mask_tokens

MASK, SPECIAL, UNKNOWN = 4, 2, 1
VOCABULARY = np.arange(5, 1000, dtype=np.int32)


def masking(probability: float = 0.15, mask: float = 0.8, random: float = 0.1, whole_words: bool = False) -> Masking:
    return Masking(probability, mask, random, whole_words, MASK, VOCABULARY)


def text(count: int, word: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(ids, word starts, special): rows of 20 tokens with a special one at either end, words of so many tokens."""
    random = np.random.Generator(np.random.PCG64(seed))
    ids = random.choice(VOCABULARY, count).astype(np.int32)
    place = np.arange(count) % 20
    special = (place == 0) | (place == 19)
    ids[special] = SPECIAL
    return ids, (place - 1) % word == 0, special


def run(whole_words: bool, *, word: int = 3, count: int = 400_000, **shares: float) -> tuple[np.ndarray, Masked]:
    ids, starts, special = text(count, word)
    return ids, mask_tokens(ids, starts, special, masking(whole_words=whole_words, **shares), source(1))


@given(st.data())
def test_what_may_never_happen(data: st.DataObject) -> None:
    ids = np.array(data.draw(st.lists(st.integers(0, 999), min_size=1, max_size=60)), np.int32)
    flags = st.lists(st.booleans(), min_size=len(ids), max_size=len(ids))
    starts, special = np.array(data.draw(flags)), np.array(data.draw(flags))
    starts[0] = True
    whole = data.draw(st.booleans())
    how = masking(data.draw(st.floats(0, 1)), whole_words=whole)
    found = mask_tokens(ids, starts, special, how, source(data.draw(st.integers(0, 99))))
    held = special | ~np.isin(ids, VOCABULARY)
    assert not found.chosen[held].any()
    assert (found.input_ids[~found.chosen] == ids[~found.chosen]).all()
    assert np.isin(found.input_ids[found.chosen], [MASK, *VOCABULARY]).all()
    if whole:
        units = np.cumsum(starts | held)
        for unit in set(units.tolist()):
            chosen = found.chosen[(units == unit) & ~held]
            assert chosen.all() or not chosen.any()


@pytest.mark.parametrize("whole_words", [False, True])
def test_the_share_that_is_chosen(whole_words: bool) -> None:
    ids, found = run(whole_words)
    words = (ids != SPECIAL).sum() / (3 if whole_words else 1)
    assert found.chosen.sum() / (ids != SPECIAL).sum() == binomial(0.15, words)


@pytest.mark.parametrize("whole_words", [False, True])
@pytest.mark.parametrize("shares", [(0.8, 0.1), (1.0, 0.0), (0.0, 1.0), (0.5, 0.25), (0.0, 0.0)])
def test_what_becomes_of_it(whole_words: bool, shares: tuple[float, float]) -> None:
    ids, found = run(whole_words, mask=shares[0], random=shares[1])
    before, after = ids[found.chosen], found.input_ids[found.chosen]
    draws = len(before) / (3 if whole_words else 1)
    assert (after == MASK).mean() == binomial(shares[0], draws)
    changed = (after != MASK) & (after != before)
    assert changed.mean() == binomial(shares[1] * (1 - 1 / len(VOCABULARY)), draws)


def test_a_word_has_one_fate_and_tokens_have_each_their_own() -> None:
    for whole_words in (True, False):
        _, found = run(whole_words)
        body = np.arange(400_000).reshape(-1, 20)[:, 1:19].reshape(-1, 3)
        masked = (found.input_ids == MASK)[body]
        if whole_words:
            assert (masked.all(axis=1) | ~masked.any(axis=1)).all()
        else:
            alone = found.chosen[body].all(axis=1)
            assert masked[alone].all(axis=1).mean() == binomial(0.8**3, int(alone.sum()))


def test_random_tokens_are_of_the_whole_vocabulary_and_no_special_ones() -> None:
    _, found = run(False, mask=0.0, random=1.0)
    drawn = found.input_ids[found.chosen]
    assert set(drawn.tolist()) == set(VOCABULARY.tolist())
    assert (drawn < 500).mean() == binomial((500 - 5) / len(VOCABULARY), len(drawn))


def test_special_tokens_that_stand_in_the_text_itself_are_left_alone() -> None:
    ids = np.array([SPECIAL, 10, SPECIAL, UNKNOWN, MASK, 11, SPECIAL], np.int32)
    special = np.array([True, *[False] * 5, True])
    found = mask_tokens(ids, np.ones(7, bool), special, masking(1.0, 1.0, 0.0), source(0))
    assert found.chosen.tolist() == [False, True, False, False, False, True, False]


def test_the_same_stream_the_same_masks() -> None:
    ids, starts, special = text(2000, 3)
    one, two, other = (mask_tokens(ids, starts, special, masking(), source(seed)).input_ids for seed in (1, 1, 2))
    assert (one == two).all()
    assert (one != other).any()
