"""Masks have the set shares and never touch special tokens; rows hold every token once, and labels are true."""

from itertools import pairwise

import numpy as np
import pytest
from helpers.corpora import binomial
from hypothesis import given, settings
from hypothesis import strategies as st

from fullbake.core.rng import rng_stream
from fullbake.pretraining.examples import (
    FALSE_PAIR,
    NO_PAIR,
    TRUE_PAIR,
    Examples,
    MaskedTokens,
    Masking,
    Span,
    make_chunk_examples,
    make_pair_examples,
    mask_tokens,
)

# Masking

MASK, SPECIAL, UNKNOWN = 4, 2, 1
VOCABULARY = np.arange(5, 1000, dtype=np.int32)


def masking(probability: float = 0.15, mask: float = 0.8, random: float = 0.1, whole_words: bool = False) -> Masking:
    return Masking(probability, mask, random, whole_words, MASK, VOCABULARY)


def text(count: int, word: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (ids, word starts, special): rows of 20 tokens with a special one at both ends, words of `word` tokens."""
    random = np.random.Generator(np.random.PCG64(seed))
    ids = random.choice(VOCABULARY, count).astype(np.int32)
    place = np.arange(count) % 20
    special = (place == 0) | (place == 19)
    ids[special] = SPECIAL
    return ids, (place - 1) % word == 0, special


def mask_random_text(
    whole_words: bool, *, word: int = 3, count: int = 400_000, **shares: float
) -> tuple[np.ndarray, MaskedTokens]:
    ids, starts, special = text(count, word)
    return ids, mask_tokens(ids, starts, special, masking(whole_words=whole_words, **shares), rng_stream(1))


@given(st.data())
def test_masking_never_touches_special_tokens_or_splits_words(data: st.DataObject) -> None:
    ids = np.array(data.draw(st.lists(st.integers(0, 999), min_size=1, max_size=60)), np.int32)
    flags = st.lists(st.booleans(), min_size=len(ids), max_size=len(ids))
    starts, special = np.array(data.draw(flags)), np.array(data.draw(flags))
    starts[0] = True
    whole = data.draw(st.booleans())
    drawn = masking(data.draw(st.floats(0, 1)), whole_words=whole)
    found = mask_tokens(ids, starts, special, drawn, rng_stream(data.draw(st.integers(0, 99))))
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
def test_share_of_chosen_tokens_is_the_probability(whole_words: bool) -> None:
    ids, found = mask_random_text(whole_words)
    words = (ids != SPECIAL).sum() / (3 if whole_words else 1)
    assert found.chosen.sum() / (ids != SPECIAL).sum() == binomial(0.15, words)


@pytest.mark.parametrize("whole_words", [False, True])
@pytest.mark.parametrize("shares", [(0.8, 0.1), (1.0, 0.0), (0.0, 1.0), (0.5, 0.25), (0.0, 0.0)])
def test_shares_of_masked_random_and_unchanged_tokens(whole_words: bool, shares: tuple[float, float]) -> None:
    ids, found = mask_random_text(whole_words, mask=shares[0], random=shares[1])
    before, after = ids[found.chosen], found.input_ids[found.chosen]
    draws = len(before) / (3 if whole_words else 1)
    assert (after == MASK).mean() == binomial(shares[0], draws)
    changed = (after != MASK) & (after != before)
    assert changed.mean() == binomial(shares[1] * (1 - 1 / len(VOCABULARY)), draws)


def test_whole_words_share_one_draw_and_tokens_have_their_own() -> None:
    for whole_words in (True, False):
        _, found = mask_random_text(whole_words)
        body = np.arange(400_000).reshape(-1, 20)[:, 1:19].reshape(-1, 3)
        masked = (found.input_ids == MASK)[body]
        if whole_words:
            assert (masked.all(axis=1) | ~masked.any(axis=1)).all()
        else:
            alone = found.chosen[body].all(axis=1)
            assert masked[alone].all(axis=1).mean() == binomial(0.8**3, int(alone.sum()))


def test_random_tokens_come_from_the_whole_vocabulary_without_special_ones() -> None:
    _, found = mask_random_text(False, mask=0.0, random=1.0)
    drawn = found.input_ids[found.chosen]
    assert set(drawn.tolist()) == set(VOCABULARY.tolist())
    assert (drawn < 500).mean() == binomial((500 - 5) / len(VOCABULARY), len(drawn))


def test_special_tokens_inside_the_text_are_never_chosen() -> None:
    ids = np.array([SPECIAL, 10, SPECIAL, UNKNOWN, MASK, 11, SPECIAL], np.int32)
    special = np.array([True, *[False] * 5, True])
    found = mask_tokens(ids, np.ones(7, bool), special, masking(1.0, 1.0, 0.0), rng_stream(0))
    assert found.chosen.tolist() == [False, True, False, False, False, True, False]


def test_same_random_stream_gives_the_same_masks() -> None:
    ids, starts, special = text(2000, 3)
    one, two, other = (mask_tokens(ids, starts, special, masking(), rng_stream(seed)).input_ids for seed in (1, 1, 2))
    assert (one == two).all()
    assert (one != other).any()


# Rows

DOCUMENTS = st.lists(st.lists(st.integers(1, 12), min_size=1, max_size=12), min_size=2, max_size=12)


def lay_out(documents: list[list[int]]) -> tuple[np.ndarray, list[Span]]:
    """Return (sentence_ends, documents) of documents, each given as the numbers of tokens of its sentences."""
    ends = np.cumsum([0, *(length for document in documents for length in document)])
    edges = np.cumsum([0, *map(len, documents)]).tolist()
    return ends, list(pairwise(edges))


def owner(documents: list[list[int]], place: int) -> int:
    """Return the number of the document that a token belongs to."""
    return int(np.searchsorted(np.cumsum([sum(document) for document in documents]), place, side="right"))


def rows(examples: Examples) -> list[tuple[tuple[int, int], tuple[int, int], int]]:
    return [
        ((head[0], head[1]), (tail[0], tail[1]), label)
        for (head, tail), label in zip(examples.spans.tolist(), examples.labels.tolist(), strict=True)
    ]


@given(DOCUMENTS, st.integers(1, 30))
def test_chunks_hold_every_token_once_and_cross_no_document(documents: list[list[int]], room: int) -> None:
    ends, spans = lay_out(documents)
    found = make_chunk_examples(ends, spans, room)
    flat = [place for (start, end), _, _ in rows(found) for place in range(start, end)]
    assert flat == list(range(ends[-1]))
    assert (found.lengths > 0).all()
    assert (found.lengths <= room).all()
    assert (found.labels == NO_PAIR).all()
    assert all(owner(documents, start) == owner(documents, end - 1) for (start, end), _, _ in rows(found))


@given(DOCUMENTS, st.integers(12, 30))
def test_chunks_hold_as_many_whole_sentences_as_fit(documents: list[list[int]], room: int) -> None:
    ends, spans = lay_out(documents)
    found = rows(make_chunk_examples(ends, spans, room))
    assert {edge for span, _, _ in found for edge in span} <= set(ends.tolist())
    for (start, end), ((_, after), _, _) in zip([row[0] for row in found], found[1:], strict=False):
        following = int(ends[np.searchsorted(ends, end) + 1])
        assert owner(documents, start) != owner(documents, end) or following - start > room
        assert after > end


def test_long_sentence_becomes_several_rows() -> None:
    ends, spans = lay_out([[3, 25, 3]])
    assert [span for span, _, _ in rows(make_chunk_examples(ends, spans, 10))] == [
        (0, 3),
        (3, 13),
        (13, 23),
        (23, 28),
        (28, 31),
    ]


def test_only_the_named_sentences_are_read() -> None:
    ends, _ = lay_out([[2, 2, 2, 2]])
    assert [span for span, _, _ in rows(make_chunk_examples(ends, [(1, 3)], 10))] == [(2, 6)]


# Pairs. If sentences have one token, no pair is too long, so nothing is cut and all tokens can be counted.


@settings(max_examples=200)
@given(DOCUMENTS, st.integers(2, 30), st.sampled_from(["nsp", "sop"]), st.integers(0, 99), st.sampled_from([0, 0.1, 1]))
def test_every_pair_is_what_its_label_says(
    documents: list[list[int]], room: int, objective: str, seed: int, short: float
) -> None:
    ends, spans = lay_out(documents)
    found = make_pair_examples(ends, spans, room, objective=objective, short_probability=short, random=rng_stream(seed))  # type: ignore[arg-type]
    assert (found.lengths <= room).all()
    for head, tail, label in rows(found):
        assert head[0] < head[1]
        if label == NO_PAIR:
            assert tail == (0, 0)
            continue
        assert tail[0] < tail[1]
        same = owner(documents, head[0]) == owner(documents, tail[0])
        if objective == "nsp":
            assert same == (label == TRUE_PAIR)
            assert label == FALSE_PAIR or head[1] <= tail[0]
        else:
            assert same
            assert (head[1] <= tail[0]) == (label == TRUE_PAIR)
            assert (tail[1] <= head[0]) == (label == FALSE_PAIR)


@given(st.lists(st.integers(1, 40), min_size=2, max_size=10), st.integers(2, 20), st.integers(0, 99))
def test_sentences_replaced_by_a_random_partner_are_used_in_the_next_row(
    sizes: list[int], room: int, seed: int
) -> None:
    documents = [[1] * size for size in sizes]
    ends, spans = lay_out(documents)
    found = make_pair_examples(ends, spans, room, objective="nsp", short_probability=0.1, random=rng_stream(seed))
    read = [span for head, tail, label in rows(found) for span in ([head, tail] if label == TRUE_PAIR else [head])]
    assert [place for span in read for place in range(*span)] == list(range(ends[-1]))


@given(st.lists(st.integers(1, 40), min_size=1, max_size=10), st.integers(2, 20), st.integers(0, 99))
def test_swapped_pairs_hold_every_token_once(sizes: list[int], room: int, seed: int) -> None:
    ends, spans = lay_out([[1] * size for size in sizes])
    found = make_pair_examples(ends, spans, room, objective="sop", short_probability=0.1, random=rng_stream(seed))
    for head, tail, label in rows(found):
        assert label == NO_PAIR or {head[1] == tail[0], tail[1] == head[0]} == {True, False}
    assert sorted(place for head, tail, _ in rows(found) for span in (head, tail) for place in range(*span)) == list(
        range(ends[-1])
    )


@pytest.mark.parametrize("objective", ["nsp", "sop"])
def test_half_of_the_pairs_are_false_in_any_corpus(objective: str) -> None:
    for documents in ([[1] * 40] * 600, [[5, 4]] * 6000, [[9]] * 3000 + [[2, 3, 4]] * 4000):
        ends, spans = lay_out(documents)
        found = make_pair_examples(ends, spans, 16, objective=objective, short_probability=0.1, random=rng_stream(1))  # type: ignore[arg-type]
        count = int((found.labels != NO_PAIR).sum())
        assert count > 1500
        assert found.random_share == binomial(0.5, count)


def test_random_partners_come_from_every_other_document() -> None:
    documents = [[1] * 300] * 20
    ends, spans = lay_out(documents)
    found = make_pair_examples(ends, spans, 10, objective="nsp", short_probability=0, random=rng_stream(2))
    partners = [
        (owner(documents, head[0]), owner(documents, tail[0]))
        for head, tail, label in rows(found)
        if label == FALSE_PAIR
    ]
    assert {other for _, other in partners} == set(range(20))
    starts = [tail[0] // 30 % 10 for _, tail, label in rows(found) if label == FALSE_PAIR]
    assert set(starts) == set(range(10))


@pytest.mark.parametrize("short", [0.0, 0.1, 0.6])
def test_set_share_of_pairs_is_shorter(short: float) -> None:
    room, documents = 40, [[1] * 4000] * 40
    ends, spans = lay_out(documents)
    found = make_pair_examples(ends, spans, room, objective="sop", short_probability=short, random=rng_stream(3))
    shorter = found.lengths < room
    expected = short * (room - 2) / (room - 1)  # one of the lengths drawn is the full one
    assert shorter.mean() == binomial(expected, len(found)) if short else shorter.sum() <= len(documents)
    if short:
        assert set(found.lengths.tolist()) >= set(range(2, room + 1))


def test_too_long_pair_loses_tokens_at_both_ends_of_its_longer_segment() -> None:
    ends, spans = lay_out([[30, 4]] * 200)
    found = make_pair_examples(ends, spans, 20, objective="sop", short_probability=0, random=rng_stream(4))
    assert (found.lengths == 20).all()
    lost = [(min(head, tail)[0] % 34, max(head, tail)) for head, tail, _ in rows(found)]
    assert all(end - start == 4 for _, (start, end) in lost)
    front = np.array([start for start, _ in lost])
    assert front.mean() == pytest.approx(7, abs=5 * (14 / 4 / 200) ** 0.5)


def test_single_sentence_is_a_row_without_a_partner() -> None:
    ends, spans = lay_out([[3], [3], [25]])
    found = make_pair_examples(ends, spans, 10, objective="nsp", short_probability=0, random=rng_stream(0))
    assert (found.labels == NO_PAIR).all()
    assert found.lengths.tolist() == [3, 3, 10, 10, 5]
    assert np.isnan(found.random_share)


def test_same_random_stream_gives_the_same_rows() -> None:
    ends, spans = lay_out([[1, 2, 3, 4]] * 20)
    one, two, other = (
        rows(make_pair_examples(ends, spans, 8, objective="nsp", short_probability=0.1, random=rng_stream(seed)))
        for seed in (1, 1, 2)
    )
    assert one == two != other
