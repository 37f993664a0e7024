"""Ids, windows, pairs and batches equal those of the tokenizer itself, and wrong input is refused."""

import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from helpers.bases import FAMILIES
from helpers.tokens import TEXTS, encode, rows_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from fullbake.core.errors import DataError, RecipeError
from fullbake.models.encoding import (
    Encoded,
    count_tokens,
    ends_mask,
    pad_rows,
    report_unknown_tokens,
    row_offsets,
    tokenize,
    tokens_kept_at_ends,
    truncate_longest_first,
    window_bounds,
)
from fullbake.models.tokenizer import load_tokenizer

# Truncation as arithmetic on lengths

LENGTHS = st.lists(st.integers(0, 40), min_size=1, max_size=8).map(np.array)


def test_head_and_tail_shares_are_those_of_sun_et_al() -> None:
    assert tokens_kept_at_ends(510, "head+tail") == (128, 382)
    assert tokens_kept_at_ends(10, "head") == (10, 0)
    assert tokens_kept_at_ends(10, "tail") == (0, 10)


@given(LENGTHS, st.integers(0, 12), st.integers(0, 12))
def test_ends_mask_keeps_first_and_last_tokens(lengths: np.ndarray, first: int, last: int) -> None:
    kept = np.split(ends_mask(lengths, first, last), row_offsets(lengths)[1:-1])
    for length, row in zip(lengths, kept, strict=True):
        place = np.arange(length)
        assert row.tolist() == ((place < first) | (place >= length - last)).tolist()


@given(LENGTHS, st.integers(1, 12), st.data())
def test_windows_cover_a_text_and_share_the_stride(lengths: np.ndarray, room: int, data: st.DataObject) -> None:
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
def test_stride_as_long_as_the_window_is_refused(stride: int) -> None:
    with pytest.raises(RecipeError, match="--stride"):
        window_bounds(np.array([9]), 4, stride)


@given(st.integers(0, 30), st.integers(0, 30), st.integers(2, 20))
def test_longer_text_of_a_pair_is_cut_first(first: int, second: int, room: int) -> None:
    one, other = (int(kept[0]) for kept in truncate_longest_first(np.array([first]), np.array([second]), room))
    assert one + other == min(first + second, room)
    assert one <= first
    assert other <= second
    if min(first, second) <= room // 2:  # the shorter one is whole
        assert min(first, second) in (one, other)
    else:
        assert abs(one - other) <= 1


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, bases) -> Path:
    return bases(request.param)


@pytest.fixture(scope="module")
def bert(bases):
    return load_tokenizer(bases("bert"))


# The same ids as the tokenizer's own


@pytest.mark.parametrize(("truncation", "side"), [("head", "right"), ("tail", "left")])
@pytest.mark.parametrize("max_length", [4, 16, 512])
def test_ids_equal_the_tokenizers(family, truncation, side, max_length):
    own = AutoTokenizer.from_pretrained(family, truncation_side=side)
    expected = own(TEXTS, truncation=True, max_length=max_length)["input_ids"]
    assert rows_of(encode(load_tokenizer(family), TEXTS, max_length, truncation)) == expected


def test_head_and_tail_keeps_both_ends_of_a_text(family):
    tokenizer = load_tokenizer(family)
    whole, cut = (rows_of(encode(tokenizer, TEXTS, n, "head+tail")) for n in (512, 26))
    special = len(whole[0])  # the empty text
    before = tokenizer("good", return_special_tokens_mask=True)["special_tokens_mask"].index(0)
    head = round((26 - special) * 128 / 510)
    for long, short in zip(whole, cut, strict=True):
        if len(long) <= 26:
            assert short == long
        else:
            assert short == long[: before + head] + long[-(26 - before - head) :]


def test_head_and_tail_at_512_keeps_128_and_382_tokens(bert):
    text = " ".join(["good"] * 128 + ["bad"] * 1000 + ["happy"] * 382)
    ids = rows_of(encode(bert, [text], 512, "head+tail"))[0]
    good, happy = bert.convert_tokens_to_ids(["good", "happy"])
    assert ids == [bert.cls_token_id, *[good] * 128, *[happy] * 382, bert.sep_token_id]


@given(st.lists(st.text(max_size=60), max_size=6), st.integers(3, 40), st.sampled_from(["head", "tail"]))
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
def test_ids_of_any_text_equal_the_tokenizers(bert, texts, max_length, truncation):
    bert.truncation_side = "left" if truncation == "tail" else "right"
    expected = bert(texts, truncation=True, max_length=max_length)["input_ids"] if texts else []
    assert rows_of(encode(bert, texts, max_length, truncation)) == expected


def test_padded_rows_have_a_mask_and_padding_on_the_right(bert):
    encoded = encode(bert, ["good", "bad good good"])
    batch = pad_rows(encoded, np.array([0, 1]), pad_id=9, padding="max_length", max_length=6)
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 0]]
    assert batch["input_ids"][0, 3:].tolist() == [9, 9, 9]
    assert {values.dtype for values in batch.values()} == {np.dtype(np.int64)}


# Many texts


def test_arrow_column_and_list_give_the_same_ids(bert):
    column = pa.chunked_array([pa.array(TEXTS[:3], pa.large_string()), pa.array(TEXTS[3:], pa.large_string())])
    one, other = encode(bert, column), encode(bert, iter(TEXTS))
    assert rows_of(one) == rows_of(other)
    assert (one.input_ids.dtype, one.offsets.dtype) == (np.int32, np.int64)


def test_chunks_cover_every_text_and_report_progress(bert):
    texts = [f"{number} good" for number in range(600)] + ["never " * 200_000, "bad"]
    reported: list[int] = []
    encoded = encode(bert, texts, on_progress=reported.append)
    assert reported == [256, 256, 89, 1]
    assert rows_of(encoded) == bert(texts, truncation=True, max_length=16)["input_ids"]


def test_no_texts_give_no_rows(bert):
    encoded = encode(bert, [])
    assert (len(encoded), encoded.input_ids.size, encoded.lengths.size) == (0, 0, 0)


@given(st.lists(st.integers(0, 9), max_size=30), st.integers(1, 8))
def test_take_equals_indexing_a_list_of_rows(rows, limit):
    lengths = [3, 1, 4, 1, 5, 2, 6, 5, 3, 5]
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    ids = np.arange(offsets[-1], dtype=np.int32)
    encoded = Encoded(ids, offsets, (ids % 2).astype(np.uint8))
    taken = encoded.take(np.array(rows, dtype=np.int64))
    assert rows_of(taken) == [rows_of(encoded)[row] for row in rows]
    assert taken.lengths.tolist() == [lengths[row] for row in rows]
    assert taken.token_type_ids is not None
    assert (taken.token_type_ids == taken.input_ids % 2).all()


# What is refused


def test_length_without_room_for_text_is_refused(bert):
    with pytest.raises(RecipeError, match="2 special tokens"):
        encode(bert, ["good"], max_length=2)


@pytest.mark.parametrize("text", [None, 3, b"a"])
def test_error_for_a_value_that_is_no_text_names_its_place(bert, text):
    with pytest.raises(DataError, match="text 302: not a text"):
        encode(bert, [*["good"] * 301, text])


def test_error_for_a_null_names_its_place(bert):
    with pytest.raises(DataError, match="text 2: not a text"):
        encode(bert, pa.chunked_array([pa.array(["good", None], pa.large_string())]))


@pytest.mark.parametrize("text", ["\ud800", "good\udfff", "a\ud83d b"])
def test_error_for_half_a_surrogate_pair_names_its_place(bert, text):
    with pytest.raises(DataError, match=r"text 2: character \d is half of a surrogate pair"):
        encode(bert, ["good", text])


# Pairs and windows


def make_texts(count: int, seed: int) -> list[str]:
    """Return texts of 0 to 60 words, some of which are in no vocabulary."""
    words = "the a and we they new old last little long very never think see people world time way xyzzy Über".split()  # noqa: SIM905
    drawn = random.Random(seed)
    return [" ".join(drawn.choices(words, k=drawn.randint(0, 60))) for _ in range(count)]


@pytest.mark.parametrize("max_length", [16, 17, 40])
def test_pairs_equal_those_of_transformers(family, max_length):
    """Compare ids and segments with `truncation="longest_first"`."""
    tokenizer = load_tokenizer(family)
    one, other = make_texts(60, 1), make_texts(60, 2)
    got = tokenize(tokenizer, one, text_pair=other, max_length=max_length, truncation="head")
    theirs = tokenizer(one, other, truncation="longest_first", max_length=max_length, return_token_type_ids=True)
    assert [row.tolist() for row in np.split(got.input_ids, got.offsets[1:-1])] == theirs["input_ids"]
    if got.token_type_ids is not None:
        assert [row.tolist() for row in np.split(got.token_type_ids, got.offsets[1:-1])] == theirs["token_type_ids"]


def test_windows_equal_those_of_transformers(family):
    """Compare with `return_overflowing_tokens` and the same stride."""
    tokenizer = load_tokenizer(family)
    texts = make_texts(60, 3)
    got = tokenize(tokenizer, texts, max_length=20, truncation="windows", stride=5)
    theirs = tokenizer(texts, truncation=True, max_length=20, stride=5, return_overflowing_tokens=True)
    assert [row.tolist() for row in np.split(got.input_ids, got.offsets[1:-1])] == theirs["input_ids"]
    assert got.documents is not None
    assert got.documents.tolist() == theirs["overflow_to_sample_mapping"]


def test_of_documents_takes_all_windows_of_a_text(bases):
    tokenizer = load_tokenizer(bases("bert"))
    texts = make_texts(20, 4)
    whole = tokenize(tokenizer, texts, max_length=20, truncation="windows", stride=5)
    chosen = np.array([7, 2, 19])
    alone = tokenize(tokenizer, [texts[place] for place in chosen], max_length=20, truncation="windows", stride=5)
    taken = whole.of_documents(chosen)
    assert taken.documents is not None
    assert alone.documents is not None
    assert np.array_equal(taken.input_ids, alone.input_ids)
    assert np.array_equal(taken.offsets, alone.offsets)
    assert np.array_equal(taken.documents, alone.documents)


def test_of_documents_equals_take_without_windows(bases):
    tokenizer = load_tokenizer(bases("bert"))
    whole = tokenize(tokenizer, make_texts(9, 5), max_length=20, truncation="head")
    assert (whole.documents, len(whole)) == (None, 9)
    assert np.array_equal(whole.of_documents(np.array([3, 1])).input_ids, whole.take(np.array([3, 1])).input_ids)


def test_count_tokens_measures_the_share_of_unknown_tokens(bert):
    texts = ["good film", "good 好 film", "漢" * 70_000, ""]
    ids = [one for text in texts[:2] for one in bert(text, add_special_tokens=False)["input_ids"]]
    assert count_tokens(bert, texts[:2]).unknown_share == pytest.approx(ids.count(bert.unk_token_id) / len(ids))
    assert 0 < ids.count(bert.unk_token_id) < len(ids)
    assert count_tokens(bert, texts[2:]).unknown_share == 1  # a long text is estimated from its start
    assert count_tokens(bert, []).unknown_share == 0


def test_unknown_tokens_are_reported_and_warned_of_above_two_percent(bert, caplog):
    caplog.set_level("INFO")
    report_unknown_tokens(bert, ["good film"] * 5)
    assert caplog.messages == ["unknown tokens: 0.00%"]
    report_unknown_tokens(bert, ["good 好 film"])
    assert "are unknown to the base's tokenizer" in caplog.messages[-1]
    assert "--init random" in caplog.messages[-1]


def test_count_tokens_counts_whole_texts(bases):
    tokenizer = load_tokenizer(bases("bert"))
    texts = make_texts(12, 6)
    assert count_tokens(tokenizer, texts).lengths.tolist() == [len(ids) for ids in tokenizer(texts)["input_ids"]]


# Long texts

LONG_TEXTS = ["good film, never boring. " * 4000, "." * 70_000, "good", "a" * 70_000, " " * 70_000 + "bad"]


@pytest.mark.parametrize("truncation", ["head", "tail", "head+tail"])
def test_long_text_read_by_its_ends_has_the_ids_of_the_whole(family, truncation):
    tokenizer = load_tokenizer(family)
    by_ends = encode(tokenizer, LONG_TEXTS, 64, truncation)
    whole = encode(tokenizer, LONG_TEXTS, 64, truncation, long_text=1 << 30)
    assert rows_of(by_ends) == rows_of(whole)


@pytest.mark.parametrize("max_length", [64, 65])
def test_long_pairs_read_by_their_ends_have_the_ids_of_the_whole(bert, max_length):
    first, second = LONG_TEXTS, [*LONG_TEXTS[1:], LONG_TEXTS[0]]
    by_ends = encode(bert, first, max_length, text_pair=second)
    # compared with our own truncation: transformers' truncation of such a pair takes all memory
    whole = encode(bert, first, max_length, text_pair=second, long_text=1 << 30)
    assert rows_of(by_ends) == rows_of(whole)


def test_count_tokens_counts_long_texts(bert):
    assert count_tokens(bert, LONG_TEXTS).lengths.tolist() == [len(ids) for ids in bert(LONG_TEXTS)["input_ids"]]
