"""A head without its encoder gives what the whole model gives, with the model's own weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from bases import FAMILIES

from fullbake.models.network import without_encoder


def models(folder: Path) -> dict[str, Any]:
    """The family's masked LM and its classifier over one encoder's weights, in eval mode."""
    classes = {"words": transformers.AutoModelForMaskedLM, "labels": transformers.AutoModelForSequenceClassification}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return {name: family.from_pretrained(folder).eval() for name, family in classes.items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_head_alone_gives_what_the_model_gives(bases: Callable[..., Path], family: str) -> None:
    ids = torch.arange(5, 17).reshape(2, 6)
    for model in models(bases(family)).values():
        with torch.no_grad():
            expected = model(input_ids=ids).logits
            hidden = model.base_model(input_ids=ids).last_hidden_state
            found = without_encoder(model)(inputs_embeds=hidden).logits
        assert torch.allclose(found, expected, atol=1e-6)


def test_its_weights_are_the_models_own(bases: Callable[..., Path]) -> None:
    model = models(bases("bert"))["words"]
    shell = without_encoder(model)
    hidden = torch.zeros(1, 3, 32)
    before = shell(inputs_embeds=hidden).logits
    with torch.no_grad():
        model.cls.predictions.bias.add_(1.0)
    assert torch.allclose(shell(inputs_embeds=hidden).logits, before + 1)
    shell(inputs_embeds=hidden).logits.sum().backward()
    assert model.bert.embeddings.word_embeddings.weight.grad is not None  # the output layer is tied to it


def test_the_model_itself_is_as_it_was(bases: Callable[..., Path]) -> None:
    model = models(bases("bert"))["words"]
    names = [name for name, _ in model.named_parameters()]
    without_encoder(model)
    assert [name for name, _ in model.named_parameters()] == names
    assert isinstance(model.base_model, transformers.BertModel)
