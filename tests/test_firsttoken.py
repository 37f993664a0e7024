from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fullbake.models.encoder import load_encoder
from fullbake.models.fast_layers import fast_kernels, first_token_class

Bases = Callable[..., Path]
KNOWN = ("bert", "distilbert", "roberta", "xlm-roberta", "electra")
UNKNOWN = ("albert", "deberta-v2", "deberta-v3", "modernbert", "mpnet")


def batch(padded: bool) -> dict[str, Tensor]:
    ids = torch.arange(5, 47).reshape(3, 14)
    mask = {"attention_mask": (torch.arange(14) < torch.tensor([[14], [9], [3]])).long()} if padded else {}
    return {"input_ids": ids} | mask


def firsts(model: Any, inputs: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """The first tokens' vectors, and what they give every weight for a gradient."""
    model.zero_grad()
    hidden = model(**inputs).last_hidden_state[:, 0]
    torch.manual_seed(0)
    (hidden * torch.randn(hidden.shape)).sum().backward()
    found = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    return hidden.detach(), {name: gradient.to_dense().clone() for name, gradient in found.items()}


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("family", KNOWN)
def test_outputs_and_gradients_are_the_whole_layers(bases: Bases, family: str, padded: bool) -> None:
    model, inputs = load_encoder(bases(family)), batch(padded)
    whole, gradients = firsts(model, inputs)
    with fast_kernels(model, first_token=True):
        assert model(**inputs).last_hidden_state.shape[1] == 1
        alone, others = firsts(model, inputs)
    torch.testing.assert_close(alone, whole, rtol=0, atol=1e-6)
    assert others.keys() == gradients.keys()
    for name, gradient in others.items():
        torch.testing.assert_close(gradient, gradients[name], rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize("family", UNKNOWN)
def test_unknown_layers_run_whole(bases: Bases, family: str) -> None:
    model, inputs = load_encoder(bases(family)), batch(padded=True)
    whole = model(**inputs).last_hidden_state
    assert first_token_class(model) is None
    with fast_kernels(model, first_token=True):
        assert torch.equal(model(**inputs).last_hidden_state, whole)


@pytest.mark.parametrize("family", KNOWN)
def test_the_names_of_weights_stay(bases: Bases, family: str) -> None:
    model = load_encoder(bases(family))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with fast_kernels(model, first_token=True):
        within = model.state_dict()
        model.load_state_dict(before)
    assert list(within) == list(before)
    assert all(torch.equal(within[name], tensor) for name, tensor in before.items())


def test_an_attention_that_is_not_known_runs_whole(bases: Bases) -> None:
    model = load_encoder(bases("bert"))
    model.set_attn_implementation("eager")
    with fast_kernels(model, first_token=True):
        assert model(**batch(padded=True)).last_hidden_state.shape[1] == 14


def test_a_network_without_layers_is_left_alone() -> None:
    assert first_token_class(nn.Linear(2, 2)) is None
