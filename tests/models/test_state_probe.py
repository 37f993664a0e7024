"""A base whose states depend on padding, on other texts, on chance or on nothing is refused, and others pass."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.bases import FAMILIES, make_tokenizer
from torch import Tensor, nn

from fullbake.core.errors import BaseModelError
from fullbake.models.encoder import load_encoder
from fullbake.models.state_probe import StateProbe
from fullbake.models.tokenizer import load_tokenizer

Bases = Callable[..., Path]


@pytest.mark.parametrize("family", FAMILIES)
def test_usual_families_pass(family: str, bases: Bases) -> None:
    probe = StateProbe(load_encoder(bases(family)), load_tokenizer(bases(family)), 128, "somewhere")
    probe.check_texts()
    assert probe.check_padding() < 1e-5
    assert probe.check_history() == 0


class Stub(nn.Module):
    """An encoder that adds the mean of a text's embeddings to each of them, unless a method is replaced."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.words = nn.Embedding(200, 8)
        self.config = SimpleNamespace(hidden_size=8, model_type="stub")
        self.kind = "short"

    def get_input_embeddings(self) -> nn.Embedding:
        return self.words

    def mix(self, states: Tensor, mask: Tensor) -> Tensor:
        weights = mask.unsqueeze(-1).float()
        return states + (states * weights).sum(1, keepdim=True) / weights.sum(1, keepdim=True)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **_: Any) -> Any:
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        return SimpleNamespace(last_hidden_state=self.mix(self.words(input_ids), mask))


class Random(Stub):
    def mix(self, states: Tensor, mask: Tensor) -> Tensor:
        return super().mix(states, mask) + torch.randn_like(states)


class Constant(Stub):
    def mix(self, states: Tensor, mask: Tensor) -> Tensor:
        return torch.zeros_like(states) + 1


class Alone(Stub):
    def mix(self, states: Tensor, mask: Tensor) -> Tensor:
        return states


class Padded(Stub):
    def mix(self, states: Tensor, mask: Tensor) -> Tensor:
        return states + states.mean(1, keepdim=True)


class Beside(Stub):
    def mix(self, states: Tensor, mask: Tensor) -> Tensor:
        return super().mix(states, mask) * len(states)


class Narrow(Stub):
    def mix(self, states: Tensor, mask: Tensor) -> Tensor:
        return states[..., :4]


class Infinite(Stub):
    def mix(self, states: Tensor, mask: Tensor) -> Tensor:
        return states / 0


class Broken(Stub):
    def mix(self, states: Tensor, mask: Tensor) -> Tensor:
        raise KeyError("its own\nwords")


class Forgetful(Stub):
    """It computes otherwise once it has seen a short text."""

    def mix(self, states: Tensor, mask: Tensor) -> Tensor:
        self.kind = "full" if states.shape[1] < 64 else self.kind
        return super().mix(states, mask) * (1 if self.kind == "full" else 2)


class Renamed(Stub):
    """Its attention changes for good, where no text of the probe shows it."""

    def mix(self, states: Tensor, mask: Tensor) -> Tensor:
        self.kind = "full" if states.shape[1] < 64 else self.kind
        return super().mix(states, mask)


def check_all(encoder: Any) -> None:
    probe = StateProbe(encoder, make_tokenizer("bert"), 128, "somewhere")
    probe.check_texts()
    probe.check_padding()
    probe.check_history()


def test_stub_passes() -> None:
    check_all(Stub().eval())


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Random, "other states for the same text each time"),
        (Constant, "the same states for every text"),
        (Alone, "reads each word by itself"),
        (Padded, "padding changes"),
        (Beside, "the other texts of a batch change"),
        (Narrow, r"shape \(1, 128, 8\)"),
        (Infinite, "not finite"),
        (Broken, "KeyError: 'its own"),
        (Forgetful, "earlier texts change"),
        (Renamed, "kind changed from 'short'"),
    ],
)
def test_base_is_refused_with_the_reason(kind: type[Stub], said: str) -> None:
    with pytest.raises(BaseModelError, match=said) as caught:
        check_all(kind().eval())
    assert "base 'somewhere', model type 'stub'" in str(caught.value)


def test_base_of_few_tokens_is_tried_on_what_it_takes(bases: Bases) -> None:
    folder = bases("bert", positions=6)
    probe = StateProbe(load_encoder(folder), load_tokenizer(folder), 6, "somewhere")
    probe.check_texts()
    assert len(probe.long) == 6
    assert probe.check_padding() < 1e-5
