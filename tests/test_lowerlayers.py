"""A base cut above its fixed layers gives and learns what the whole one does."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bases import FAMILIES
from rows import make_rows, train, weights

from fullbake.config.sections import HeadConfig
from fullbake.core.errors import BaseModelError
from fullbake.models import network
from fullbake.models.encoder import freeze_lowest, load_encoder, probe_inputs
from fullbake.training import finetuning
from fullbake.training.finetuning import find_cut, given_states, held_still, lower_states

Bases = Callable[..., Path]

CUT = ("bert", "distilbert", "roberta", "electra", "mpnet", "xlm-roberta", "deberta-v3", "modernbert")
"""Families that can be cut; DeBERTa v2 has a convolution behind its first layer."""


@pytest.mark.parametrize("layers", [0, 1, 2, 3])
@pytest.mark.parametrize("family", CUT)
def test_a_cut_base_gives_what_the_whole_one_does(bases: Bases, family: str, layers: int) -> None:
    base = bases(family, layers=3)
    model = network.build(base, HeadConfig(kind="linear"), ("a", "b"), seed=0)
    cut = find_cut(model, layers)
    assert cut is not None
    inputs = probe_inputs(model.base_model)
    states = lower_states(model, layers, inputs)
    assert states.shape == (2, 4, 32)
    freeze_lowest(model, layers)  # with them what all layers share, such as tables of relative positions
    upper = {name: p for name, p in model.named_parameters() if p.requires_grad}
    found = []
    for given in (None, states.detach()):
        model.zero_grad()
        logits = _logits(model, inputs, cut, given)
        logits.square().sum().backward()
        gradients = {name: p.grad.clone() for name, p in upper.items() if p.grad is not None}
        found.append((logits.detach(), gradients))
    torch.testing.assert_close(found[1][0], found[0][0], rtol=1e-4, atol=1e-5)
    assert any(f".{layers}." in name for name in found[1][1]) or layers == 3
    for name, gradient in found[1][1].items():
        torch.testing.assert_close(gradient, found[0][1][name], rtol=1e-3, atol=1e-4, msg=name)


def _logits(model: Any, inputs: dict[str, Any], cut: Any, states: torch.Tensor | None) -> torch.Tensor:
    if states is None:
        return torch.as_tensor(model(**inputs).logits)
    with given_states(model, cut, states):
        return torch.as_tensor(model(**inputs).logits)


def test_the_lower_layers_do_not_run(bases: Bases) -> None:
    model = load_encoder(bases("bert", layers=3))
    cut = find_cut(model, 2)
    assert cut is not None
    for part in (model.embeddings, *model.encoder.layer[:2]):
        part.register_forward_pre_hook(lambda *_: None)
        for inner in part.children():
            inner.register_forward_pre_hook(lambda *_: pytest.fail("a fixed part ran"))
    with given_states(model, cut, torch.zeros(2, 4, 32)):
        model(**probe_inputs(model))
    assert "forward" not in vars(model.embeddings)


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - set(CUT) - {"albert"}))
def test_a_family_that_cannot_be_cut_is_known(bases: Bases, family: str) -> None:
    assert find_cut(load_encoder(bases(family, layers=3)), 1) is None


def test_albert_and_too_many_layers_are_refused(bases: Bases) -> None:
    with pytest.raises(BaseModelError, match="cannot be told apart"):
        find_cut(load_encoder(bases("albert")), 1)
    with pytest.raises(BaseModelError, match="fewer layers"):
        find_cut(load_encoder(bases("bert")), 3)


def test_fixed_layers_run_without_dropout_while_the_rest_trains(bases: Bases) -> None:
    model = load_encoder(bases("bert", layers=3))
    inputs = probe_inputs(model)
    with held_still(model, 2):
        model.train()
        states = [lower_states(model, 2, inputs) for _ in range(2)]
        model.train()
        outputs = [model(**inputs).last_hidden_state for _ in range(2)]
    assert torch.equal(*states)
    assert not torch.allclose(*outputs)
    assert model.encoder.layer[2].training
    assert not model._forward_pre_hooks


@pytest.mark.parametrize(
    "fields",
    [
        {"head": "standard"},
        {"head": "mlp", "pooling": "mean"},
        {"head": "linear", "max_length": 16, "truncation": "windows"},
        {"head": "standard", "freeze_layers": 0, "padding": "max_length"},
    ],
)
@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta"])
def test_training_above_kept_states_is_training_the_whole(
    bases: Bases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str, fields: dict[str, Any]
) -> None:
    """Dropout is on: the fixed layers draw nothing, so what the others draw is the same."""
    given = {"freeze_layers": 1, "folds": 0, "learning_rate": 1e-3} | fields
    cut = train(bases(family), tmp_path, "finetune", **given)
    with monkeypatch.context() as patch:
        patch.setattr("fullbake.training.strategies.find_cut", lambda *_: None)
        whole = train(bases(family), tmp_path, "finetune", **given)
    ours, theirs = weights(cut), weights(whole)
    for name in theirs if fields["head"] != "mlp" else ():  # Adam walks where batch norm leaves a gradient of 0
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-3, atol=2e-4, msg=name)
    for entry, other in zip(cut.record.history, whole.record.history, strict=True):
        assert entry["train_loss"] == pytest.approx(other["train_loss"], rel=1e-3)
        assert entry["validation_loss"] == pytest.approx(other["validation_loss"], rel=1e-2)


def test_states_are_computed_once_for_all_runs(bases: Bases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fields: dict[str, Any] = {"freeze_layers": 1, "folds": 0}
    first = train(bases("bert"), tmp_path, "finetune", **fields)
    with monkeypatch.context() as patch:
        patch.setattr(finetuning, "lower_states", lambda *_: pytest.fail("the states are in the cache"))
        patch.setattr("fullbake.training.strategies.find_cut", lambda *_: finetuning.Cut(1, 0))
        again = train(bases("bert"), tmp_path, "finetune", **fields)
    for name, tensor in weights(first).items():
        assert torch.equal(tensor, weights(again)[name])


def test_half_precision_states_cost_half_the_room_and_little_else(bases: Bases, tmp_path: Path) -> None:
    fields: dict[str, Any] = {"freeze_layers": 1, "folds": 0, "epochs": 1}
    full, half = (
        train(bases("bert"), tmp_path, "finetune", cache_precision=kind, **fields) for kind in ("fp32", "fp16")
    )
    sizes = sorted(path.stat().st_size for path in tmp_path.rglob("rows.safetensors"))
    assert sizes[1] / sizes[0] == pytest.approx(2, rel=0.01)
    texts = [text for text, _ in make_rows()]
    np.testing.assert_allclose(full.predict_proba(texts), half.predict_proba(texts), atol=0.02)
