"""Results come in the order of the texts, within the budget, and equal those of plain transformers."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.rows import make_rows

from fullbake.config.sections import HeadConfig, TokensConfig
from fullbake.models.inference import batch_inputs, logits_over, run_batches
from fullbake.models.network import build_network
from fullbake.models.prediction import encode
from fullbake.models.tokenizer import load_tokenizer

Bases = Callable[..., Path]
TEXTS = [row[0] for row in make_rows(20)] + ["", "a"]
TOKENS = TokensConfig(max_length=40, token_budget=100)


def test_results_come_in_the_order_of_the_texts(bases: Bases) -> None:
    """The forward pass returns each text's own length and second token."""
    tokenizer = load_tokenizer(bases("bert"))
    encoded = encode(TEXTS, tokenizer, TOKENS)

    def forward(inputs):
        lengths = inputs.get("attention_mask", torch.ones_like(inputs["input_ids"])).sum(dim=1)
        return torch.stack([lengths, inputs["input_ids"][:, 1]], dim=1).float()

    got = run_batches(
        forward, encoded, tokens=TOKENS, pad_id=tokenizer.pad_token_id, device=torch.device("cpu"), title="counting"
    )
    assert got.dtype == np.float32
    assert got[:, 0].tolist() == encoded.lengths.tolist()
    assert got[:, 1].tolist() == encoded.input_ids[encoded.offsets[:-1] + 1].tolist()


@pytest.mark.parametrize("padding", ["longest", "max_length"])
def test_batches_stay_within_the_budget(bases: Bases, padding: str) -> None:
    tokenizer = load_tokenizer(bases("bert"))
    tokens = TOKENS.model_copy(update={"padding": padding})
    encoded = encode(TEXTS, tokenizer, tokens)
    shapes = []

    def forward(inputs):
        shapes.append(tuple(inputs["input_ids"].shape))
        return torch.zeros(len(inputs["input_ids"]), 1)

    run_batches(forward, encoded, tokens=tokens, pad_id=tokenizer.pad_token_id, device=torch.device("cpu"), title="-")
    assert all(rows * length <= 100 for rows, length in shapes)
    assert sum(rows for rows, _ in shapes) == len(TEXTS)
    assert shapes == sorted(shapes, key=lambda shape: -shape[1])
    if padding == "max_length":
        assert {length for _, length in shapes} == {40}


def test_logits_equal_those_of_plain_transformers(bases: Bases) -> None:
    base = bases("bert")
    model = build_network(base, HeadConfig(kind="standard"), ("a", "b", "c"), seed=0)
    tokenizer = load_tokenizer(base)
    got = logits_over(model, encode(TEXTS, tokenizer, TOKENS), tokens=TOKENS, pad_id=tokenizer.pad_token_id)
    plain = tokenizer(TEXTS, padding=True, truncation=True, max_length=40, return_tensors="pt")
    with torch.no_grad():
        expected = model(**plain).logits.numpy()
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_batch_has_the_inputs_that_the_base_takes(bases: Bases) -> None:
    for family, names in {"bert": {"input_ids", "token_type_ids"}, "distilbert": {"input_ids"}}.items():
        tokenizer = load_tokenizer(bases(family))
        encoded = encode(["a good game"], tokenizer, TOKENS)
        inputs = batch_inputs(
            encoded, np.array([0]), tokens=TOKENS, pad_id=tokenizer.pad_token_id, device=torch.device("cpu")
        )
        assert set(inputs) - {"attention_mask"} == names
