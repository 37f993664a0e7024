from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.rows import column, make_rows
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import softmax
from sklearn.metrics import f1_score, log_loss

from fullbake.config.problems import SINGLE_LABEL, problem_named
from fullbake.config.sections import HeadConfig, TokensConfig
from fullbake.evaluation.metrics import validation_scores
from fullbake.models import network
from fullbake.models.inference import batch_inputs, encode, logits_over, run_batches
from fullbake.models.tokenizer import load_tokenizer

Bases = Callable[..., Path]
TEXTS = [row[0] for row in make_rows(20)] + ["", "a"]
TOKENS = TokensConfig(max_length=40, token_budget=100)


def test_results_come_in_the_order_of_the_texts(bases: Bases) -> None:
    """The forward pass hands back each text's own length and second token."""
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


def test_sequence_and_arrow_column_give_the_same_ids(bases: Bases) -> None:
    tokenizer = load_tokenizer(bases("bert"))
    plain, arrow = encode(TEXTS, tokenizer, TOKENS), encode(column(TEXTS), tokenizer, TOKENS)
    assert np.array_equal(plain.input_ids, arrow.input_ids)
    assert np.array_equal(plain.offsets, arrow.offsets)


def test_logits_are_those_of_a_plain_transformers_pass(bases: Bases) -> None:
    base = bases("bert")
    model = network.build_network(base, HeadConfig(kind="standard"), ("a", "b", "c"), seed=0)
    tokenizer = load_tokenizer(base)
    got = logits_over(model, encode(TEXTS, tokenizer, TOKENS), tokens=TOKENS, pad_id=tokenizer.pad_token_id)
    plain = tokenizer(TEXTS, padding=True, truncation=True, max_length=40, return_tensors="pt")
    with torch.no_grad():
        expected = model(**plain).logits.numpy()
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_inputs_hold_what_the_base_takes(bases: Bases) -> None:
    for family, names in {"bert": {"input_ids", "token_type_ids"}, "distilbert": {"input_ids"}}.items():
        tokenizer = load_tokenizer(bases(family))
        encoded = encode(["a good game"], tokenizer, TOKENS)
        inputs = batch_inputs(
            encoded, np.array([0]), tokens=TOKENS, pad_id=tokenizer.pad_token_id, device=torch.device("cpu")
        )
        assert set(inputs) - {"attention_mask"} == names


LOGITS = arrays(np.float32, (4, 3), elements=st.floats(-1e4, 1e4, width=32))


@given(LOGITS)
def test_probabilities_are_scipys(logits: np.ndarray) -> None:
    chances = problem_named(SINGLE_LABEL).probabilities(logits)
    assert chances.dtype == np.float64
    np.testing.assert_allclose(chances, softmax(logits.astype(np.float64), axis=1), atol=1e-12)
    np.testing.assert_allclose(chances.sum(axis=1), 1, atol=1e-12)


def test_judge_is_scikit_learns() -> None:
    logits = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    labels = np.arange(50) % 3
    told = validation_scores(logits, labels, "f1_macro")
    assert told["validation_loss"] == pytest.approx(log_loss(labels, problem_named(SINGLE_LABEL).probabilities(logits)))
    assert told["f1_macro"] == pytest.approx(f1_score(labels, logits.argmax(axis=1), average="macro"))


def test_judge_stays_finite_where_the_right_class_has_no_chance() -> None:
    told = validation_scores(np.array([[0, 1e5], [0, -1e5]], dtype=np.float32), np.array([0, 0]), "accuracy")
    assert np.isfinite(told["validation_loss"])
    assert told["accuracy"] == 0.5
