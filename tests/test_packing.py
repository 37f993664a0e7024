from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from bases import FAMILIES
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fullbake.models.encoder import load_encoder
from fullbake.models.fast_layers import fast_kernels, packed_classes

Bases = Callable[..., Path]
KNOWN = ("bert", "distilbert", "roberta", "xlm-roberta", "electra")
UNKNOWN = tuple(sorted({*FAMILIES} - {*KNOWN}))


def batch(*lengths: int) -> dict[str, Tensor]:
    """Texts of these lengths, padded with id 1 (RoBERTa's tells padding from ids alone)."""
    tokens = max(lengths)
    mask = torch.arange(tokens) < torch.tensor(lengths)[:, None]
    ids = torch.arange(5, 5 + mask.numel()).reshape(mask.shape) % 60 + 5
    return {"input_ids": ids.where(mask, torch.tensor(1)), "attention_mask": mask.long()}


def states(model: Any, inputs: dict[str, Tensor], *, first: bool = False) -> tuple[Tensor, dict[str, Tensor]]:
    """Hidden states where there is text, and what they give every weight for a gradient."""
    model.zero_grad()
    hidden = model(**inputs).last_hidden_state
    seen = hidden[:, 0] if first else hidden[inputs["attention_mask"].bool()]
    torch.manual_seed(0)
    (seen * torch.randn(seen.shape)).sum().backward()
    found = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    return seen.detach(), {name: gradient.to_dense().clone() for name, gradient in found.items()}


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("lengths", [(14, 9, 9, 3), (2, 7), (5, 5), (4,), (1, 1, 3)], ids=str)
@pytest.mark.parametrize("family", KNOWN)
def test_outputs_and_gradients_are_the_padded_ones(
    bases: Bases, family: str, lengths: tuple[int, ...], first: bool
) -> None:
    model, inputs = load_encoder(bases(family)), batch(*lengths)
    plain, gradients = states(model, inputs, first=first)
    with fast_kernels(model, first_token=first, packed=True):
        packed, others = states(model, inputs, first=first)
    torch.testing.assert_close(packed, plain, rtol=0, atol=1e-6)
    assert others.keys() == gradients.keys()
    for name, gradient in others.items():
        scale = float(gradients[name].abs().max())
        torch.testing.assert_close(gradient, gradients[name], rtol=1e-5, atol=1e-6 * (1 + scale), msg=name)


@given(st.lists(st.integers(1, 12), min_size=1, max_size=6), st.booleans())
def test_any_lengths_score_as_padded(bases: Bases, lengths: list[int], first: bool) -> None:
    model, inputs = load_encoder(bases("bert")), batch(*lengths)
    mask = inputs["attention_mask"].bool()
    with torch.inference_mode():
        plain = model(**inputs).last_hidden_state
        with fast_kernels(model, first_token=first, packed=True):
            packed = model(**inputs).last_hidden_state
    if first:
        torch.testing.assert_close(packed[:, 0], plain[:, 0], rtol=0, atol=1e-6)
    else:
        assert packed.shape == plain.shape
        torch.testing.assert_close(packed[mask], plain[mask], rtol=0, atol=1e-6)


@pytest.mark.parametrize("family", KNOWN)
def test_layers_see_no_padding(bases: Bases, family: str) -> None:
    model: Any = load_encoder(bases(family))
    seen: list[torch.Size] = []
    (stack, _) = packed_classes(model)[0]
    for layer in stack.layer:
        layer.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[:2]))
    with fast_kernels(model, packed=True):
        hidden = model(**batch(14, 9, 9, 3)).last_hidden_state
    assert seen == [(1, 35), (1, 35)]
    assert not hidden[3, 3:].any()


@pytest.mark.parametrize("family", UNKNOWN)
def test_stacks_that_are_not_known_run_as_ever(bases: Bases, family: str) -> None:
    model = load_encoder(bases(family))
    with fast_kernels(model):
        plain = model(**batch(14, 9, 3)).last_hidden_state
    assert not packed_classes(model)
    with fast_kernels(model, packed=True):
        assert torch.equal(model(**batch(14, 9, 3)).last_hidden_state, plain)


@pytest.mark.parametrize("mask", ["left", "holes", "none", "empty"])
def test_other_masks_run_as_ever(bases: Bases, mask: str) -> None:
    model, inputs = load_encoder(bases("bert")), batch(6, 4, 4)
    if mask == "left":
        inputs["attention_mask"] = inputs["attention_mask"].flip(1)
    elif mask == "holes":
        inputs["attention_mask"][0, 2] = 0
    elif mask == "empty":
        inputs["attention_mask"][1] = 0
    else:
        del inputs["attention_mask"]
    with fast_kernels(model):
        plain = model(**inputs).last_hidden_state
    with fast_kernels(model, packed=True):
        assert torch.equal(model(**inputs).last_hidden_state, plain)


def test_an_attention_that_knows_no_packing_runs_as_ever(bases: Bases) -> None:
    model = load_encoder(bases("bert"))
    model.set_attn_implementation("eager")
    plain = model(**batch(6, 4)).last_hidden_state
    with fast_kernels(model, packed=True):
        assert torch.equal(model(**batch(6, 4)).last_hidden_state, plain)


@pytest.mark.parametrize("family", KNOWN)
def test_dropout_is_repeatable_and_keeps_rows_apart(bases: Bases, family: str) -> None:
    model = load_encoder(bases(family)).train()
    with fast_kernels(model, packed=True):
        torch.manual_seed(3)
        one, gradients = states(model, batch(7, 5, 5))
        torch.manual_seed(3)
        other, again = states(model, batch(7, 5, 5))
    assert torch.equal(one, other)
    assert all(torch.equal(gradient, again[name]) for name, gradient in gradients.items())
    assert all(gradient.isfinite().all() for gradient in gradients.values())
