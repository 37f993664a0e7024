"""Words of texts in many scripts, and the tokens that each of them is made of."""

import itertools
from typing import Any

import numpy as np
import pytest
from helpers.counting import light_tokenizer
from hypothesis import given
from hypothesis import strategies as st

from fullbake.config.sections import TokensConfig
from fullbake.models.encoding import tokenize
from fullbake.models.words import find_words, tokenize_words

TOKENIZER = light_tokenizer()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The keeper's well-known save", ["The", "keeper's", "well-known", "save"]),
        ("3.14% of 1,000 x_y (yes!)", ["3.14", "%", "of", "1,000", "x_y", "(", "yes", "!)"]),
        ("😀👍🏽 ok", ["😀👍🏽", "ok"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("می‌خواهم بروم", ["می‌خواهم", "بروم"]),
        ("안녕 여러분", ["안녕", "여러분"]),
        ("我爱北京。", ["我爱北京", "。"]),
        ("สวัสดีครับ", ["สวัสดีครับ"]),
        (" \n\t", []),
    ],
)
def test_words_of_many_scripts(text: str, words: list[str]) -> None:
    assert [text[start:end] for start, end, _ in find_words(text)] == words


def test_only_scripts_without_spaces_may_be_divided() -> None:
    assert [divisible for *_, divisible in find_words("film 好坏 ไทย かな 한국")] == [False, True, True, True, False]


def test_words_without_spaces_are_divided_as_the_tokenizer_does() -> None:
    found = tokenize_words(TOKENIZER, TokensConfig(max_length=16), "the 好坏 film")
    assert found.words.tolist() == [[0, 0, 3], [0, 4, 5], [0, 5, 6], [0, 7, 11]]
    assert found.word_of.tolist() == [-1, 0, 1, 2, 3, -1]


def test_words_of_a_pair_know_their_text() -> None:
    found = tokenize_words(TOKENIZER, TokensConfig(max_length=16), "good film", "bad")
    assert found.words.tolist() == [[0, 0, 4], [0, 5, 9], [1, 0, 3]]
    assert found.word_of.tolist() == [-1, 0, 1, -1, 2, -1]


def test_a_word_of_several_tokens_is_one_word() -> None:
    found = tokenize_words(TOKENIZER, TokensConfig(max_length=16), "film's end")
    assert found.words.tolist() == [[0, 0, 6], [0, 7, 10]]
    assert found.word_of.tolist() == [-1, 0, 0, 0, 1, -1]


@pytest.mark.parametrize(
    ("truncation", "unread"), [("head", "is bad"), ("tail", "the good"), ("head+tail", "good film"), ("windows", None)]
)
def test_what_is_not_read_is_known(truncation: Any, unread: str | None) -> None:
    text = "the good film is bad"
    found = tokenize_words(TOKENIZER, TokensConfig(max_length=5, truncation=truncation), text)
    assert [text[start:end] for _, start, end in found.unread] == ([] if unread is None else [unread])
    assert len(found.words) == (5 if unread is None else 3)


pieces = st.lists(
    st.sampled_from(["good", "bad ", " the", "film's", "好", "坏", "\u0301", "ไท", "!", " ", "😀", "x\x00y"])
)
texts = pieces.map("".join) | st.text(max_size=20).filter(lambda text: text.isprintable() or not text)


@given(
    texts,
    st.none() | texts,
    st.sampled_from(["head", "tail", "head+tail", "windows"]),
    st.none() | st.just("query: "),
    st.integers(8, 14),
)
def test_ids_are_those_of_prediction(text: str, second: str | None, cut: Any, prompt: str | None, length: int) -> None:
    cut = cut if second is None else "head"
    tokens = TokensConfig(max_length=length, truncation=cut, stride=1 if cut == "windows" else None, prompt=prompt)
    found = tokenize_words(TOKENIZER, tokens, text, second)
    pair = None if second is None else [second]
    plain = tokenize(
        TOKENIZER, [text], max_length=length, truncation=cut, stride=tokens.stride or 0, text_pair=pair, prompt=prompt
    )
    assert found.encoded.input_ids.tolist() == plain.input_ids.tolist()
    assert found.encoded.offsets.tolist() == plain.offsets.tolist()
    assert np.array_equal(found.encoded.token_type_ids, plain.token_type_ids)
    assert len(found.word_of) == len(plain.input_ids)
    # Words are in order, do not overlap, and each has a token that is read.
    spans = [tuple(word) for word in found.words.tolist()]
    assert spans == sorted(spans)
    assert all(one[0] < two[0] or one[2] <= two[1] for one, two in itertools.pairwise(spans))
    assert set(found.word_of.tolist()) >= set(range(len(spans)))
