"""fullbake.models.heads: what the heads compute, how they start, and what is done to output layers."""

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
from fullbake.models.heads import build_head, fold_scaler, l2_penalty, output_layer


def head(kind: str = "mlp", *, layers: int = 2, dropout: float = 0.15) -> nn.Sequential:
    torch.manual_seed(0)
    return build_head(kind, 24, 3, dropout=dropout, layers=layers, width=16)


def test_mlp_is_dropout_once_then_blocks_then_output() -> None:
    kinds = [(name, type(part).__name__) for name, part in head().named_children()]
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
    assert head().dropout.p == 0.15


def test_linear_is_one_dense_layer() -> None:
    assert [name for name, _ in head("linear").named_children()] == ["output"]
    assert head("linear").output.weight.shape == (3, 24)


def test_mlp_computes_its_definition() -> None:
    module = head().eval()
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


def test_the_seed_decides() -> None:
    assert torch.equal(head().output.weight, head().output.weight)


def test_l2_is_the_sum_of_squared_output_weights_alone() -> None:
    module = head()
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
def test_fold_scaler_gives_the_same_scores(classes: int, width: int, seed: int, scale: float) -> None:
    draw = np.random.default_rng(seed)
    weight, bias = draw.normal(size=(classes, width)), draw.normal(size=classes)
    mean, spread = draw.normal(size=width) * scale, (draw.random(width) + 0.1) * scale
    features = draw.normal(size=(6, width)) * scale
    folded_weight, folded_bias = fold_scaler(weight, bias, mean, spread)
    expected = ((features - mean) / spread) @ weight.T + bias
    np.testing.assert_allclose(features @ folded_weight.T + folded_bias, expected, rtol=1e-9, atol=1e-9)


def test_fold_scaler_matches_scikit_learn() -> None:
    draw = np.random.default_rng(0)
    features, labels = draw.normal(3, 5, size=(60, 4)), np.arange(60) % 3
    scaler = StandardScaler().fit(features)
    fitted = LogisticRegression().fit(scaler.transform(features), labels)
    weight, bias = fold_scaler(fitted.coef_, fitted.intercept_, scaler.mean_, scaler.scale_)
    expected = fitted.decision_function(scaler.transform(features))
    np.testing.assert_allclose(features @ weight.T + bias, expected)


def test_output_layer_of_our_heads() -> None:
    module = head()
    assert output_layer(module) is module.output


@pytest.mark.parametrize("family", FAMILIES)
def test_output_layer_of_standard_models(family: str, bases: Callable[..., Path]) -> None:
    """Dividing that layer by a temperature divides the logits."""
    model = load_standard(bases(family), ["a", "b", "c"], seed=0)
    ids = torch.arange(5, 15).reshape(2, 5)
    with torch.no_grad():
        before = model(ids).logits
        layer = output_layer(model)
        for parameter in layer.parameters():
            parameter.div_(2.5)
        torch.testing.assert_close(model(ids).logits, before / 2.5)
