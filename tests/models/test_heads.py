"""Heads compute their definition and start as stated; output layers are found, penalized and divided."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.bases import FAMILIES
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.nn import functional

from fullbake.models.encoder import load_standard
from fullbake.models.heads import (
    POOLINGS,
    build_head,
    divide_logits,
    fold_scaler,
    l2_penalty,
    output_layer,
    pool,
    pooled_width,
)

# Pooling


DEFINITIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "cls": lambda words: words[0],
    "mean": lambda words: words.mean(0),
    "max": lambda words: words.max(0).values,
}
"""Pooling -> its plainest form: the token vectors of one text without padding, (tokens, width), to (width,)."""


def reference_pool(hidden: torch.Tensor, lengths: list[int], kind: str) -> torch.Tensor:
    """Pool one text at a time, without its padding."""
    texts = [vectors[:length] for vectors, length in zip(hidden, lengths, strict=True)]
    return torch.stack([torch.cat([DEFINITIONS[part](words) for part in kind.split("+")]) for words in texts])


def test_every_pooling_has_its_definition_in_this_file() -> None:
    assert {part for kind in POOLINGS for part in kind.split("+")} == set(DEFINITIONS)


@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    kind=st.sampled_from(POOLINGS),
    seed=st.integers(0, 99),
)
def test_pool_ignores_padding(lengths: list[int], kind: str, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn((len(lengths), 10, 4), generator=generator)
    mask = (torch.arange(10) < torch.tensor(lengths)[:, None]).long()
    pooled = pool(hidden, mask, kind)
    assert pooled.shape == (len(lengths), pooled_width(4, kind))
    torch.testing.assert_close(pooled, reference_pool(hidden, lengths, kind))


@pytest.mark.parametrize("kind", POOLINGS)
def test_pool_without_mask_reads_all_tokens(kind: str) -> None:
    hidden = torch.randn((3, 6, 4), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(pool(hidden, None, kind), pool(hidden, torch.ones(3, 6), kind))


# Heads


def make_head(kind: str = "mlp", *, layers: int = 2, dropout: float = 0.15) -> nn.Sequential:
    torch.manual_seed(0)
    return build_head(kind, 24, 3, dropout=dropout, layers=layers, width=16)


def test_mlp_has_dropout_once_then_blocks_then_output() -> None:
    kinds = [(name, type(part).__name__) for name, part in make_head().named_children()]
    assert kinds == [
        ("dropout", "Dropout"),
        ("dense_1", "Linear"),
        ("norm_1", "BatchNorm1d"),
        ("relu_1", "ReLU"),
        ("dense_2", "Linear"),
        ("norm_2", "BatchNorm1d"),
        ("relu_2", "ReLU"),
        ("output", "Linear"),
    ]
    assert make_head().dropout.p == 0.15


def test_linear_has_one_dense_layer() -> None:
    assert [name for name, _ in make_head("linear").named_children()] == ["output"]
    assert make_head("linear").output.weight.shape == (3, 24)


def test_mlp_logits_equal_the_formula() -> None:
    module = make_head().eval()
    for norm in (module.norm_1, module.norm_2):
        norm.running_mean.uniform_(-1, 1)
        norm.running_var.uniform_(0.5, 2)
    features = torch.randn(5, 24)
    hidden = features
    for dense, norm in ((module.dense_1, module.norm_1), (module.dense_2, module.norm_2)):
        hidden = hidden @ dense.weight.T + dense.bias
        hidden = (hidden - norm.running_mean) / torch.sqrt(norm.running_var + 1e-5) * norm.weight + norm.bias
        hidden = functional.relu(hidden)
    expected = hidden @ module.output.weight.T + module.output.bias
    torch.testing.assert_close(module(features), expected)


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_dense_layers_start_glorot_uniform(kind: str) -> None:
    torch.manual_seed(0)
    module = build_head(kind, 400, 300, dropout=0.1, layers=1, width=500)
    for part in module.modules():
        if isinstance(part, nn.Linear):
            bound = (6 / (part.in_features + part.out_features)) ** 0.5
            assert part.weight.abs().max() <= bound
            assert part.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)
            assert not part.bias.any()


def test_same_seed_gives_the_same_head() -> None:
    assert torch.equal(make_head().output.weight, make_head().output.weight)


def test_l2_penalty_is_the_sum_of_squared_output_weights_alone() -> None:
    module = make_head()
    penalty = l2_penalty(module)
    assert penalty.item() == pytest.approx((module.output.weight.detach().numpy() ** 2).sum(), rel=1e-6)
    penalty.backward()
    torch.testing.assert_close(module.output.weight.grad, 2 * module.output.weight.detach())
    assert module.output.bias.grad is None
    assert module.dense_1.weight.grad is None


@given(
    classes=st.integers(2, 5),
    width=st.integers(1, 8),
    seed=st.integers(0, 999),
    scale=st.floats(1e-3, 1e3),
)
def test_folded_layer_gives_the_same_scores(classes: int, width: int, seed: int, scale: float) -> None:
    draw = np.random.default_rng(seed)
    weight, bias = draw.normal(size=(classes, width)), draw.normal(size=classes)
    mean, spread = draw.normal(size=width) * scale, (draw.random(width) + 0.1) * scale
    features = draw.normal(size=(6, width)) * scale
    folded_weight, folded_bias = fold_scaler(weight, bias, mean, spread)
    expected = ((features - mean) / spread) @ weight.T + bias
    np.testing.assert_allclose(features @ folded_weight.T + folded_bias, expected, rtol=1e-9, atol=1e-9)


def test_a_feature_of_infinite_scale_is_left_out() -> None:
    weight, bias = np.array([[2.0, 3.0]]), np.array([1.0])
    folded_weight, folded_bias = fold_scaler(weight, bias, np.array([5.0, 1e30]), np.array([2.0, np.inf]))
    assert folded_weight.tolist() == [[1.0, 0.0]]
    assert folded_bias.tolist() == [-4.0]


def test_folded_layer_equals_scikit_learns_pipeline() -> None:
    draw = np.random.default_rng(0)
    features, labels = draw.normal(3, 5, size=(60, 4)), np.arange(60) % 3
    scaler = StandardScaler().fit(features)
    fitted = LogisticRegression().fit(scaler.transform(features), labels)
    weight, bias = fold_scaler(fitted.coef_, fitted.intercept_, scaler.mean_, scaler.scale_)
    expected = fitted.decision_function(scaler.transform(features))
    np.testing.assert_allclose(features @ weight.T + bias, expected)


def test_output_layer_of_a_head_is_its_last() -> None:
    module = make_head()
    assert output_layer(module) is module.output


@pytest.mark.parametrize("family", FAMILIES)
def test_dividing_the_output_layer_divides_the_logits(family: str, bases: Callable[..., Path]) -> None:
    model = load_standard(bases(family), ["a", "b", "c"], seed=0)
    ids = torch.arange(5, 15).reshape(2, 5)
    with torch.no_grad():
        before = model(ids).logits
        divide_logits(model, 2.5)
        torch.testing.assert_close(model(ids).logits, before / 2.5)
