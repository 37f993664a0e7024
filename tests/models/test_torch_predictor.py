"""The fast layers lie in a copy of the modules; many threads score with it as one does."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.rows import make_rows

from fullbake.config.sections import HeadConfig, TokensConfig
from fullbake.models.inference import logits_over
from fullbake.models.network import build_network, features
from fullbake.models.prediction import encode
from fullbake.models.tokenizer import load_tokenizer
from fullbake.models.torch_predictor import TorchPredictor, copy_for_inference

Bases = Callable[..., Path]
TEXTS = [*(text for text, _ in make_rows(24, seed=2)), "", "game " * 60]
TOKENS = TokensConfig(max_length=48, token_budget=256)


def classifier(base: Path, kind: str = "linear", pooling: str | None = "mean") -> tuple[Any, Any]:
    """Return a network on a base, and its tokenizer."""
    head = HeadConfig(kind=kind, pooling=pooling)  # type: ignore[arg-type]
    return build_network(base, head, ("a", "b", "c"), seed=0), load_tokenizer(base)


@pytest.mark.parametrize(
    ("family", "kind", "pooling"),
    [
        ("bert", "linear", "cls"),
        ("distilbert", "standard", None),
        ("roberta", "mlp", "mean"),
        ("albert", "linear", "max"),
    ],
)
def test_logits_have_the_bits_of_a_network_with_the_layers_swapped_in(bases: Bases, family, kind, pooling) -> None:
    network, tokenizer = classifier(bases(family), kind, pooling)
    predictor = TorchPredictor(network, tokenizer.pad_token_id)
    encoded = encode(TEXTS, tokenizer, TOKENS)
    expected = logits_over(network, encoded, tokens=TOKENS, pad_id=tokenizer.pad_token_id)
    assert np.array_equal(predictor.logits(encoded, TOKENS), expected)


def test_pooled_is_what_the_head_reads(bases: Bases) -> None:
    network, tokenizer = classifier(bases("bert"))
    encoded = encode(TEXTS[:1], tokenizer, TOKENS)
    found = TorchPredictor(network, tokenizer.pad_token_id).pooled(encoded, TOKENS)
    ids = torch.from_numpy(encoded.input_ids[None].astype(np.int64))
    with torch.no_grad():
        np.testing.assert_allclose(found, features(network, {"input_ids": ids}), atol=1e-6)


def test_network_itself_stays_as_transformers_built_it(bases: Bases) -> None:
    network, tokenizer = classifier(bases("bert"), pooling="cls")
    before = [type(module) for module in network.modules()]
    predictor = TorchPredictor(network, tokenizer.pad_token_id)
    predictor.logits(encode(TEXTS, tokenizer, TOKENS), TOKENS)
    assert predictor.network is network
    assert [type(module) for module in network.modules()] == before
    assert network.config.encoder._attn_implementation == "sdpa"


def test_copy_shares_every_weight(bases: Bases) -> None:
    network, tokenizer = classifier(bases("bert"))
    fast = copy_for_inference(network)
    own = dict(fast.named_parameters())
    assert all(own[name] is parameter for name, parameter in network.named_parameters())
    encoded = encode(TEXTS[:3], tokenizer, TOKENS)
    predictor = TorchPredictor(network, tokenizer.pad_token_id)
    with torch.no_grad():
        network.head.output.weight.zero_()
        network.head.output.bias.fill_(2.0)
    assert (predictor.logits(encoded, TOKENS) == 2.0).all()


@pytest.mark.parametrize(("family", "pooling"), [("bert", "cls"), ("roberta", "mean"), ("modernbert", "cls")])
def test_eight_threads_get_the_bits_of_one(bases: Bases, family: str, pooling: str) -> None:
    network, tokenizer = classifier(bases(family), pooling=pooling)
    predictor = TorchPredictor(network, tokenizer.pad_token_id)

    def score(texts: list[str]) -> np.ndarray:
        return predictor.logits(encode(texts, tokenizer, TOKENS), TOKENS)

    parts = [TEXTS[start : start + 5] for start in range(0, len(TEXTS), 5)] * 8
    alone = [score(part) for part in parts]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(score, parts))
    assert all(np.array_equal(one, other) for one, other in zip(alone, together, strict=True))
