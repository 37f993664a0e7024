"""Gauges: the same masked text at every reading, so that what differs is the model."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from corpora import load_tokenizer, make_documents, masking, phase, shard_of

from fullbake.core.errors import DataError
from fullbake.models.masked_lm import LanguageModel, load_language_model
from fullbake.pretraining.data_loader import pair_facts
from fullbake.pretraining.mlm import MASKINGS, Gauge, draw_gauge, guess, plain, read_gauge

TEXTS = make_documents(30)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return load_tokenizer("bert")


@pytest.fixture(scope="module")
def network(bases: Callable[..., Path]) -> LanguageModel:
    return load_language_model(bases("bert"), pairs=True, seed=0).network


def gauge(tokenizer: Any, parts: list[list[str]], objective: str = "mlm", length: int = 32, **options: Any) -> Gauge:
    shards = [shard_of(texts, tokenizer) for texts in parts]
    how: Any = masking(tokenizer, **options.pop("masks", {}))
    named = [(shard, shard.documents()) for shard in shards]
    return draw_gauge(named, phase(tokenizer, length), objective, how, tokenizer.pad_token_id, **options)  # type: ignore[arg-type]


def tokens(of: Gauge) -> list[tuple[list[int], list[int]]]:
    return [(batch.encoded.input_ids.tolist(), batch.targets.tolist()) for batch in of.batches]


def test_the_same_each_time_and_masked_several_times(tokenizer: Any) -> None:
    one, two = (gauge(tokenizer, [TEXTS]) for _ in range(2))
    assert tokens(one) == tokens(two)
    assert len(one.batches) == MASKINGS
    assert len({repr(ids) for ids, _ in tokens(one)}) == MASKINGS
    assert len({repr(targets) for _, targets in tokens(one)}) == 1
    assert one.words == sum(batch.chosen.sum() for batch in one.batches) > 100


@pytest.mark.parametrize("objective", ["mlm", "mlm+nsp", "mlm+sop"])
def test_how_the_text_lies_in_shards_does_not_matter(tokenizer: Any, objective: str) -> None:
    whole = gauge(tokenizer, [TEXTS], objective)
    apart = gauge(tokenizer, [TEXTS[:1], TEXTS[1:2], TEXTS[2:]], objective)
    assert tokens(whole) == tokens(apart)


def test_partners_come_from_other_shards_too(tokenizer: Any) -> None:
    apart = gauge(tokenizer, [[text] for text in TEXTS], "mlm+nsp")
    labels = apart.batches[0].pair_labels
    assert (labels == 1).any()
    assert (labels == 0).any()


def test_only_the_named_sentences_are_read(tokenizer: Any) -> None:
    shard = shard_of(TEXTS, tokenizer)
    first, last = shard.documents()[4]
    drawn = draw_gauge(
        [(shard, []), (shard, [(first, last)])], phase(tokenizer, 64), "mlm", masking(tokenizer), 0, maskings=1
    )
    expected = shard.input_ids[shard.sentence_ends[first] : shard.sentence_ends[last]].tolist()
    targets = [token for token in drawn.batches[0].targets.tolist() if token not in (2, 3)]
    assert targets == expected


def test_there_is_always_a_word_to_guess(tokenizer: Any) -> None:
    tiny = gauge(tokenizer, [["Good."]], masks={"probability": 0.01})
    assert tiny.words >= 1
    with pytest.raises(DataError, match="no word to guess"):
        gauge(tokenizer, [["ẞ ẞ ẞ"]])


def test_what_is_read(tokenizer: Any, network: LanguageModel) -> None:
    of = gauge(tokenizer, [TEXTS], "mlm+nsp")
    read = read_gauge(network, of, 10_000)
    with torch.no_grad():
        found = [guess(network, batch, np.arange(len(batch.rows)), of.pad_id) for batch in of.batches]
    pairs = sum(int((batch.pair_labels >= 0).sum()) for batch in of.batches)
    assert read["mlm_loss"] == pytest.approx(sum(each.word_loss.item() for each in found) / of.words, rel=1e-5)
    assert read["mlm_accuracy"] == sum(each.word_hits for each in found) / of.words
    assert read["pair_loss"] == pytest.approx(sum(each.pair_loss.item() for each in found) / pairs, rel=1e-5)
    assert read["pair_accuracy"] == sum(each.pair_hits for each in found) / pairs
    assert read_gauge(network, of, 64) == pytest.approx(read, rel=1e-5)


def test_pairs_are_judged_only_where_there_are_some(tokenizer: Any, network: LanguageModel) -> None:
    assert read_gauge(network, gauge(tokenizer, [TEXTS]), 500).keys() == {"mlm_loss", "mlm_accuracy"}


def test_reading_leaves_the_mode_and_the_weights_alone(tokenizer: Any, network: LanguageModel) -> None:
    of = gauge(tokenizer, [TEXTS[:5]])
    network.train()
    try:
        first, second = (read_gauge(network, of, 500) for _ in range(2))
        assert network.training
    finally:
        network.eval()
    assert first == second == read_gauge(network, of, 500)
    assert not network.training


def test_gauges_mask_alike_whatever_training_does(tokenizer: Any) -> None:
    how = masking(tokenizer, probability=0.5, mask=1.0, random=0.0, whole_words=True)
    expected = replace(how, probability=0.15, mask=0.8, random=0.1, whole_words=False)
    assert repr(plain(how)) == repr(expected)


def test_pair_facts_of_a_single_document(tokenizer: Any) -> None:
    lonely = gauge(tokenizer, [TEXTS[:1]], "mlm+nsp")
    assert (lonely.batches[0].pair_labels < 0).all()
    assert pair_facts([]) == {"true_pairs": 0, "false_pairs": 0, "rows_without_partner": 0}
