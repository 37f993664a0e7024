"""Batches of tensors equal what the tokenizer pads, and have no mask where nothing is padding."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.bases import FAMILIES
from helpers.tokens import TEXTS, encode

from fullbake.models.collation import collate
from fullbake.models.tokenizer import load_tokenizer

Bases = Callable[..., Path]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, bases: Bases) -> Path:
    return bases(request.param)


@pytest.fixture(scope="module")
def bert(bases: Bases) -> Any:
    return load_tokenizer(bases("bert"))


def test_batch_equals_what_the_tokenizer_pads(family):
    tokenizer = load_tokenizer(family)
    encoded = encode(tokenizer, TEXTS)
    order = np.array([5, 0, 3])
    chosen = [TEXTS[row] for row in order]
    for padding in ("longest", "max_length"):
        own = tokenizer(chosen, truncation=True, max_length=16, padding=padding, return_tensors="pt")
        batch = collate(encoded, order, pad_id=tokenizer.pad_token_id, padding=padding, max_length=16)
        assert batch.keys() == own.keys()
        assert all(torch.equal(batch[name], own[name]) for name in own)


def test_batch_without_padding_has_no_mask(bert):
    encoded = encode(bert, ["good", "bad", "good good"])
    assert "attention_mask" not in collate(encoded, np.array([0, 1]), pad_id=0)
    assert collate(encoded, np.array([0, 2]), pad_id=0)["attention_mask"].tolist() == [[1, 1, 1, 0], [1] * 4]
