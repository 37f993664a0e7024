"""The ids of a prompt are those that every prompted text starts with."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fullbake.core.errors import RecipeError
from fullbake.models.encoding import count_tokens, tokenize
from fullbake.models.prompts import prompt_ids, without_prompt
from fullbake.models.tokenizer import load_tokenizer

TEXTS = ["good food", "", "a game"]


@pytest.mark.parametrize("family", ["bert", "roberta", "xlm-roberta", "albert"])
def test_short_texts_have_the_ids_of_prompt_and_text_together(family: str, bases: Callable[..., Path]) -> None:
    tokenizer = load_tokenizer(bases(family))
    found = tokenize(tokenizer, TEXTS, max_length=64, truncation="tail", prompt="query: ")
    expected = [ids for text in TEXTS for ids in tokenizer("query: " + text)["input_ids"]]
    assert found.input_ids.tolist() == expected
    assert prompt_ids(tokenizer, "query: ")
    assert prompt_ids(tokenizer, "") == []


def test_pairs_have_the_prompt_before_the_first_text(bases: Callable[..., Path]) -> None:
    tokenizer = load_tokenizer(bases("bert"))
    found = tokenize(tokenizer, ["good"], text_pair=["bad"], max_length=64, truncation="head", prompt="query: ")
    expected = tokenizer("query: good", "bad")
    assert found.input_ids.tolist() == expected["input_ids"]
    assert found.token_type_ids.tolist() == expected["token_type_ids"]


def test_prompt_counts_as_tokens_and_must_leave_room(bases: Callable[..., Path]) -> None:
    tokenizer = load_tokenizer(bases("bert"))
    plain, prompted = count_tokens(tokenizer, ["good"]), count_tokens(tokenizer, ["good"], "the game ")
    assert prompted.lengths[0] == plain.lengths[0] + 2
    with pytest.raises(RecipeError, match="--prompt"):
        tokenize(tokenizer, ["good"], max_length=4, truncation="head", prompt="the good game ")


def test_first_ids_of_every_text_are_left_out() -> None:
    flat, counts = without_prompt(np.arange(6, dtype=np.int32), np.array([3, 1, 2]), 1)
    assert (flat.tolist(), counts.tolist()) == ([1, 2, 5], [2, 0, 1])
