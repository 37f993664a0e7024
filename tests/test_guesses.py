"""Sums of losses: over any parts of a batch they add up to the same, and padding counts for nothing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bases import FAMILIES
from corpora import load_tokenizer, make_documents, masking, phase, shard_of
from hypothesis import given, settings
from hypothesis import strategies as st

from fullbake.core.rng import source
from fullbake.models.masked_lm import LanguageModel, load_language_model
from fullbake.pretraining.data_loader import Batch, build_examples, masked_batch
from fullbake.pretraining.examples import NO_PAIR
from fullbake.pretraining.mlm import Guesses, guess


def batch_of(family: str, **settings: Any) -> tuple[Batch, int]:
    own = load_tokenizer(family)
    shard = shard_of(make_documents(8), own)
    how = phase(own, 32)
    examples = build_examples(shard, shard.documents(), how, "mlm+nsp", 0.5, source(0))
    rows = np.arange(len(examples))
    return masked_batch(shard, examples, how, rows, masking(own, **settings), source(1)), own.pad_token_id


def figures(network: LanguageModel, batch: Batch, rows: list[int], pad_id: int) -> np.ndarray:
    with torch.no_grad():
        found: Guesses = guess(network, batch, np.array(rows), pad_id)
    return np.array([found.word_loss.item(), found.pair_loss.item(), found.word_hits, found.pair_hits])


@pytest.fixture(scope="module")
def bert(bases: Callable[..., Path]) -> LanguageModel:
    return load_language_model(bases("bert"), pairs=True, seed=0).network


@settings(max_examples=25)
@given(st.data())
def test_parts_add_up(bert: LanguageModel, data: st.DataObject) -> None:
    batch, pad_id = batch_of("bert")
    rows = data.draw(st.permutations(range(len(batch.rows))))
    edge = data.draw(st.integers(1, len(rows) - 1))
    whole = figures(bert, batch, list(rows), pad_id)
    parts = figures(bert, batch, rows[:edge], pad_id) + figures(bert, batch, rows[edge:], pad_id)
    assert parts == pytest.approx(whole, rel=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_alone_and_padded_add_up(bases: Callable[..., Path], family: str) -> None:
    network = load_language_model(bases(family), pairs=True, seed=0).network
    batch, pad_id = batch_of(family)
    assert len(set(batch.encoded.lengths.tolist())) > 3
    rows = list(range(len(batch.rows)))
    alone = sum(figures(network, batch, [row], pad_id) for row in rows)
    assert figures(network, batch, rows, pad_id) == pytest.approx(alone, rel=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_row_without_a_masked_token_costs_nothing(bases: Callable[..., Path], family: str) -> None:
    network = load_language_model(bases(family), pairs=False, seed=0).network
    batch, pad_id = batch_of(family, probability=0.0)
    found = guess(network, batch, np.arange(3), pad_id)
    assert (found.word_loss.item(), found.word_hits, found.pair_loss.item()) == (0, 0, 0)
    found.word_loss.backward()
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in network.parameters())


def test_hits_are_right_guesses(bert: LanguageModel) -> None:
    batch, pad_id = batch_of("bert")
    pairs = int((batch.pair_labels != NO_PAIR).sum())
    rows = list(range(len(batch.rows)))
    _, _, words, _ = figures(bert, batch, rows, pad_id)
    assert 0 <= words < batch.chosen.sum()
    with torch.no_grad():
        before = [parameter.clone() for parameter in (bert.pair.output.weight, bert.pair.output.bias)]  # type: ignore[union-attr]
        bert.pair.output.weight.zero_()  # type: ignore[union-attr]
        bert.pair.output.bias.copy_(torch.tensor([0.0, 9.0]))  # type: ignore[union-attr]
    assert figures(bert, batch, rows, pad_id)[3] == (batch.pair_labels == 1).sum() < pairs
    with torch.no_grad():
        bert.pair.output.weight.copy_(before[0])  # type: ignore[union-attr]
        bert.pair.output.bias.copy_(before[1])  # type: ignore[union-attr]


def test_the_vocabulary_is_asked_at_masked_tokens_alone(bert: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    batch, pad_id = batch_of("bert")
    asked: list[int] = []
    original = bert.word_logits
    monkeypatch.setattr(bert, "word_logits", lambda states: asked.append(len(states)) or original(states))
    figures(bert, batch, list(range(len(batch.rows))), pad_id)
    assert asked == [batch.chosen.sum()]
