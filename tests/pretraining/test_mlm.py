"""Sums of losses add up over parts of a batch; an evaluation set has the same text and masks every time."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.bases import FAMILIES
from helpers.corpora import load_tokenizer, make_documents, masking, phase, shard_of
from hypothesis import given, settings
from hypothesis import strategies as st

from fullbake.core.errors import DataError
from fullbake.core.rng import rng_stream
from fullbake.models.masked_lm import LanguageModel, load_language_model
from fullbake.pretraining.data_loader import MaskedBatch, build_examples, count_pairs, masked_batch
from fullbake.pretraining.examples import NO_PAIR
from fullbake.pretraining.mlm import (
    MASKINGS,
    EvalSet,
    MaskedLMLoss,
    draw_eval_set,
    evaluate_masked_lm,
    masked_lm_loss,
    standard_masking,
)


def batch_of(family: str, **settings: Any) -> tuple[MaskedBatch, int]:
    own = load_tokenizer(family)
    shard = shard_of(make_documents(8), own)
    small_phase = phase(own, 32)
    examples = build_examples(shard, shard.documents(), small_phase, "mlm+nsp", 0.5, rng_stream(0))
    rows = np.arange(len(examples))
    return masked_batch(shard, examples, small_phase, rows, masking(own, **settings), rng_stream(1)), own.pad_token_id


def sums(network: LanguageModel, batch: MaskedBatch, rows: list[int], pad_id: int) -> np.ndarray:
    with torch.no_grad():
        found: MaskedLMLoss = masked_lm_loss(network, batch, np.array(rows), pad_id)
    return np.array([found.word_loss.item(), found.pair_loss.item(), found.word_hits, found.pair_hits])


@pytest.fixture(scope="module")
def bert(bases: Callable[..., Path]) -> LanguageModel:
    return load_language_model(bases("bert"), pairs=True, seed=0).network


@settings(max_examples=25)
@given(st.data())
def test_sums_of_parts_add_up_to_the_batch(bert: LanguageModel, data: st.DataObject) -> None:
    batch, pad_id = batch_of("bert")
    rows = data.draw(st.permutations(range(len(batch.rows))))
    edge = data.draw(st.integers(1, len(rows) - 1))
    whole = sums(bert, batch, list(rows), pad_id)
    parts = sums(bert, batch, rows[:edge], pad_id) + sums(bert, batch, rows[edge:], pad_id)
    assert parts == pytest.approx(whole, rel=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_changes_no_sum(bases: Callable[..., Path], family: str) -> None:
    network = load_language_model(bases(family), pairs=True, seed=0).network
    batch, pad_id = batch_of(family)
    assert len(set(batch.encoded.lengths.tolist())) > 3
    rows = list(range(len(batch.rows)))
    alone = sum(sums(network, batch, [row], pad_id) for row in rows)
    assert sums(network, batch, rows, pad_id) == pytest.approx(alone, rel=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_row_without_a_masked_token_has_loss_zero_and_no_gradient(bases: Callable[..., Path], family: str) -> None:
    network = load_language_model(bases(family), pairs=False, seed=0).network
    batch, pad_id = batch_of(family, probability=0.0)
    found = masked_lm_loss(network, batch, np.arange(3), pad_id)
    assert (found.word_loss.item(), found.word_hits, found.pair_loss.item()) == (0, 0, 0)
    found.word_loss.backward()
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in network.parameters())


def test_hits_are_correct_predictions(bert: LanguageModel) -> None:
    batch, pad_id = batch_of("bert")
    pairs = int((batch.pair_labels != NO_PAIR).sum())
    rows = list(range(len(batch.rows)))
    _, _, words, _ = sums(bert, batch, rows, pad_id)
    assert 0 <= words < batch.chosen.sum()
    with torch.no_grad():
        before = [parameter.clone() for parameter in (bert.pair.output.weight, bert.pair.output.bias)]  # type: ignore[union-attr]
        bert.pair.output.weight.zero_()  # type: ignore[union-attr]
        bert.pair.output.bias.copy_(torch.tensor([0.0, 9.0]))  # type: ignore[union-attr]
    assert sums(bert, batch, rows, pad_id)[3] == (batch.pair_labels == 1).sum() < pairs
    with torch.no_grad():
        bert.pair.output.weight.copy_(before[0])  # type: ignore[union-attr]
        bert.pair.output.bias.copy_(before[1])  # type: ignore[union-attr]


def test_vocabulary_projection_runs_at_masked_tokens_only(bert: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    batch, pad_id = batch_of("bert")
    projected: list[int] = []
    original = bert.word_logits
    monkeypatch.setattr(bert, "word_logits", lambda states: projected.append(len(states)) or original(states))
    sums(bert, batch, list(range(len(batch.rows))), pad_id)
    assert projected == [batch.chosen.sum()]


# Evaluation sets

TEXTS = make_documents(30)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return load_tokenizer("bert")


@pytest.fixture(scope="module")
def network(bases: Callable[..., Path]) -> LanguageModel:
    return load_language_model(bases("bert"), pairs=True, seed=0).network


def eval_set(
    tokenizer: Any, parts: list[list[str]], objective: str = "mlm", length: int = 32, **options: Any
) -> EvalSet:
    shards = [shard_of(texts, tokenizer) for texts in parts]
    masks: Any = masking(tokenizer, **options.pop("masks", {}))
    named = [(shard, shard.documents()) for shard in shards]
    return draw_eval_set(named, phase(tokenizer, length), objective, masks, tokenizer.pad_token_id, **options)  # type: ignore[arg-type]


def ids_and_targets(drawn: EvalSet) -> list[tuple[list[int], list[int]]]:
    return [(batch.encoded.input_ids.tolist(), batch.targets.tolist()) for batch in drawn.batches]


def test_eval_set_is_the_same_each_time_and_masked_several_times(tokenizer: Any) -> None:
    one, two = (eval_set(tokenizer, [TEXTS]) for _ in range(2))
    assert ids_and_targets(one) == ids_and_targets(two)
    assert len(one.batches) == MASKINGS
    assert len({repr(ids) for ids, _ in ids_and_targets(one)}) == MASKINGS
    assert len({repr(targets) for _, targets in ids_and_targets(one)}) == 1
    assert one.masked_tokens == sum(batch.chosen.sum() for batch in one.batches) > 100


@pytest.mark.parametrize("objective", ["mlm", "mlm+nsp", "mlm+sop"])
def test_division_into_shards_changes_nothing(tokenizer: Any, objective: str) -> None:
    whole = eval_set(tokenizer, [TEXTS], objective)
    apart = eval_set(tokenizer, [TEXTS[:1], TEXTS[1:2], TEXTS[2:]], objective)
    assert ids_and_targets(whole) == ids_and_targets(apart)


def test_partners_come_from_other_shards_too(tokenizer: Any) -> None:
    apart = eval_set(tokenizer, [[text] for text in TEXTS], "mlm+nsp")
    labels = apart.batches[0].pair_labels
    assert (labels == 1).any()
    assert (labels == 0).any()


def test_only_the_named_documents_are_in_the_eval_set(tokenizer: Any) -> None:
    shard = shard_of(TEXTS, tokenizer)
    first, last = shard.documents()[4]
    drawn = draw_eval_set(
        [(shard, []), (shard, [(first, last)])], phase(tokenizer, 64), "mlm", masking(tokenizer), 0, maskings=1
    )
    expected = shard.input_ids[shard.sentence_ends[first] : shard.sentence_ends[last]].tolist()
    targets = [token for token in drawn.batches[0].targets.tolist() if token not in (2, 3)]
    assert targets == expected


def test_eval_set_has_at_least_one_masked_token_or_is_refused(tokenizer: Any) -> None:
    tiny = eval_set(tokenizer, [["Good."]], masks={"probability": 0.01})
    assert tiny.masked_tokens >= 1
    with pytest.raises(DataError, match="no word that could be masked"):
        eval_set(tokenizer, [["ẞ ẞ ẞ"]])


def test_scores_are_means_over_all_batches(tokenizer: Any, network: LanguageModel) -> None:
    drawn = eval_set(tokenizer, [TEXTS], "mlm+nsp")
    scores = evaluate_masked_lm(network, drawn, 10_000)
    with torch.no_grad():
        found = [masked_lm_loss(network, batch, np.arange(len(batch.rows)), drawn.pad_id) for batch in drawn.batches]
    tokens = drawn.masked_tokens
    pairs = sum(int((batch.pair_labels >= 0).sum()) for batch in drawn.batches)
    assert scores["mlm_loss"] == pytest.approx(sum(each.word_loss.item() for each in found) / tokens, rel=1e-5)
    assert scores["mlm_accuracy"] == sum(each.word_hits for each in found) / tokens
    assert scores["pair_loss"] == pytest.approx(sum(each.pair_loss.item() for each in found) / pairs, rel=1e-5)
    assert scores["pair_accuracy"] == sum(each.pair_hits for each in found) / pairs
    assert evaluate_masked_lm(network, drawn, 64) == pytest.approx(scores, rel=1e-5)


def test_pair_scores_exist_only_for_pairs(tokenizer: Any, network: LanguageModel) -> None:
    assert evaluate_masked_lm(network, eval_set(tokenizer, [TEXTS]), 500).keys() == {"mlm_loss", "mlm_accuracy"}


def test_evaluation_changes_neither_mode_nor_weights(tokenizer: Any, network: LanguageModel) -> None:
    drawn = eval_set(tokenizer, [TEXTS[:5]])
    network.train()
    try:
        first, second = (evaluate_masked_lm(network, drawn, 500) for _ in range(2))
        assert network.training
    finally:
        network.eval()
    assert first == second == evaluate_masked_lm(network, drawn, 500)
    assert not network.training


def test_standard_masking_ignores_the_settings_of_training(tokenizer: Any) -> None:
    masks = masking(tokenizer, probability=0.5, mask=1.0, random=0.0, whole_words=True)
    expected = replace(masks, probability=0.15, mask=0.8, random=0.1, whole_words=False)
    assert repr(standard_masking(masks)) == repr(expected)


def test_single_document_gives_rows_without_partners(tokenizer: Any) -> None:
    single = eval_set(tokenizer, [TEXTS[:1]], "mlm+nsp")
    assert (single.batches[0].pair_labels < 0).all()
    assert count_pairs([]) == {"true_pairs": 0, "false_pairs": 0, "rows_without_partner": 0}


@settings(max_examples=50)
@given(max_tokens=st.integers(1, 3_000))
def test_smaller_set_has_about_the_tokens_that_it_may_have(max_tokens: int) -> None:
    whole = small_set()
    smaller = whole.shrink(max_tokens)
    lengths = [batch.encoded.lengths for batch in smaller.batches]
    total = sum(batch.encoded.lengths.sum() for batch in whole.batches)
    longest = whole.batches[0].encoded.lengths.max()
    assert sum(map(sum, lengths)) <= max(max_tokens * 1.3, longest) or smaller is whole
    assert (smaller.masked_tokens == whole.masked_tokens) == (max_tokens >= total or smaller is whole)
    assert smaller.masked_tokens > 0
    for before, after in zip(whole.batches, smaller.batches, strict=False):
        for position, row in enumerate(after.rows.tolist()):
            places, _ = before.encoded.places(np.array([row]))
            own, _ = after.encoded.places(np.array([position]))
            assert np.array_equal(before.encoded.input_ids[places], after.encoded.input_ids[own])
            assert np.array_equal(before.targets[places], after.targets[own])
            assert np.array_equal(before.chosen[places], after.chosen[own])


@cache
def small_set() -> EvalSet:
    own = load_tokenizer("bert")
    shard = shard_of(make_documents(40), own)
    return draw_eval_set([(shard, shard.documents())], phase(own, 32), "mlm+nsp", masking(own), own.pad_token_id)
