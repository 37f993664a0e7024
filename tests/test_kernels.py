from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from bases import FAMILIES
from rows import train, weights
from torch import nn

from fullbake import Classifier
from fullbake.models.encoder import load_encoder
from fullbake.models.fast_layers import compiled, fast_kernels
from fullbake.models.masked_lm import load_language_model

Bases = Callable[..., Path]


def state_of(network: nn.Module) -> list[tuple[Any, ...]]:
    """All that the pieces may change of a network."""
    return [
        (
            type(module),
            getattr(module, "sparse", None),
            getattr(getattr(module, "config", None), "_attn_implementation", 0),
        )
        for module in network.modules()
    ]


def batch() -> dict[str, torch.Tensor]:
    ids = torch.arange(5, 47).reshape(3, 14)
    return {"input_ids": ids, "attention_mask": (torch.arange(14) < torch.tensor([[14], [9], [3]])).long()}


def gradients(network: Any) -> dict[str, torch.Tensor]:
    network.zero_grad()
    torch.manual_seed(0)
    hidden = network(**batch()).last_hidden_state
    (hidden * torch.randn(hidden.shape) * batch()["attention_mask"][..., None]).sum().backward()
    found = {name: parameter.grad for name, parameter in network.named_parameters() if parameter.grad is not None}
    return {name: gradient.to_dense() for name, gradient in found.items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_all_is_put_back_also_after_a_fault(bases: Bases, family: str) -> None:
    model = load_encoder(bases(family))
    before = state_of(model)
    with pytest.raises(KeyError):
        _fail_within(model)
    assert state_of(model) == before


def _fail_within(model: nn.Module) -> None:
    before = state_of(model)
    with fast_kernels(model, first_token=True):
        with fast_kernels(model, first_token=True):
            within = state_of(model)
        assert state_of(model) == within != before
        raise KeyError


@pytest.mark.parametrize("family", FAMILIES)
def test_without_dropout_gradients_are_the_plain_ones(bases: Bases, family: str) -> None:
    model = load_encoder(bases(family))  # in eval mode
    plain = gradients(model)
    with fast_kernels(model):
        fast = gradients(model)
    assert fast.keys() == plain.keys()
    for name, gradient in fast.items():
        torch.testing.assert_close(gradient, plain[name], rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_trains_with_them(bases: Bases, family: str) -> None:
    model = load_encoder(bases(family)).train()
    with fast_kernels(model):
        first, again = gradients(model), gradients(model)
    assert all(gradient.isfinite().all() for gradient in first.values())
    assert all(torch.equal(gradient, again[name]) for name, gradient in first.items())


@pytest.mark.parametrize("family", FAMILIES)
def test_they_work_within_a_language_model(bases: Bases, family: str) -> None:
    """Its table of words is its output layer too: a gradient of some rows joins a whole one."""
    network: Any = load_language_model(bases(family), pairs=True, seed=0).network

    def table_gradient() -> torch.Tensor:
        network.zero_grad()
        network.word_logits(network.hidden(batch())[0]).logsumexp(-1).sum().backward()
        table: torch.Tensor = network.model.get_input_embeddings().weight
        assert table.grad is not None
        return table.grad.to_dense().clone()

    plain = table_gradient()
    with fast_kernels(network):
        torch.testing.assert_close(table_gradient(), plain)


def test_the_environment_keeps_them_out(bases: Bases, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FULLBAKE_FAST_KERNELS", "0")
    model = load_encoder(bases("bert"))
    before = state_of(model)
    with fast_kernels(model, first_token=True):
        assert state_of(model) == before


def test_elsewhere_the_first_token_alone_is_left(bases: Bases, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fullbake.core.runtime.on_linux", lambda: False)
    model = load_encoder(bases("bert"))
    with fast_kernels(model, first_token=True):
        assert any(type(module) is nn.Dropout for module in model.modules())
        assert model.config._attn_implementation == "sdpa"
        assert model(**batch()).last_hidden_state.shape[1] == 1


def test_training_without_dropout_is_the_plain_one(
    bases: Bases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From text to weights: what differs is rounding."""
    still = bases("bert", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    fast = weights(train(still, tmp_path, "finetune"))
    monkeypatch.setenv("FULLBAKE_FAST_KERNELS", "0")
    plain = weights(train(still, tmp_path, "finetune"))
    for name, tensor in fast.items():
        if not name.endswith("key.bias"):  # softmax does not see it: its gradient is rounding, which Adam makes large
            torch.testing.assert_close(tensor, plain[name], rtol=0, atol=2e-5, msg=name)


def test_a_bundle_trained_with_them_scores_the_same_without(
    bases: Bases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = train(bases("bert"), tmp_path, "finetune")
    trained.save(tmp_path / "bundle")
    with_them = trained.logits(["a good movie", "bank card"])
    monkeypatch.setenv("FULLBAKE_FAST_KERNELS", "0")
    loaded = Classifier.load(tmp_path / "bundle")
    assert type(loaded.network).__module__.startswith("transformers.")
    torch.testing.assert_close(
        torch.from_numpy(loaded.logits(["a good movie", "bank card"])), torch.from_numpy(with_them)
    )


class Gpu(nn.Linear):
    """A network that says it stands on a GPU, and notes how it is compiled."""

    compilations: list[dict[str, Any]]

    def parameters(self, recurse: bool = True) -> Any:
        yield type("OnGpu", (), {"device": torch.device("cuda")})()

    def compile(self, *_: Any, **options: Any) -> None:
        self.compilations.append(options)
        self._compiled_call_impl = "compiled"


@pytest.mark.parametrize("asked", ["", "1"])
def test_on_a_gpu_training_is_compiled_where_that_is_asked_for(asked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FULLBAKE_GPU_PIECES", asked)
    network: Any = Gpu(2, 2)
    network.compilations = []
    with compiled(network):
        assert network._compiled_call_impl == ("compiled" if asked else None)
    assert network._compiled_call_impl is None
    assert network.compilations == ([{"dynamic": True}] if asked else [])


def test_nothing_is_compiled_on_the_cpu(bases: Bases, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FULLBAKE_GPU_PIECES", "1")
    model: Any = load_encoder(bases("bert"))
    with compiled(model):
        assert model._compiled_call_impl is None
