"""fullbake.models.fast_layers: ."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.bases import FAMILIES
from helpers.rows import train, weights
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import BertConfig
from transformers.models.bert.modeling_bert import BertLayer

from fullbake import Classifier
from fullbake.models.encoder import load_encoder
from fullbake.models.fast_layers import (
    compiled_encoder,
    family_name,
    fast_layers,
    first_token_class,
    is_subclassed,
    known_class,
    packed_classes,
    subclass_with_forward,
)
from fullbake.models.masked_lm import load_language_model

KNOWN = ("bert.BertLayer",)


def test_a_class_of_transformers_goes_by_family_and_name() -> None:
    assert family_name(BertLayer) == "bert.BertLayer"
    assert family_name(nn.Linear) == "torch.nn.modules.Linear"


def test_a_class_of_the_same_name_elsewhere_is_not_known() -> None:
    assert known_class(type("BertLayer", (nn.Module,), {"__module__": "somewhere.modeling_bert"})(), KNOWN) is None


@pytest.fixture
def layer() -> nn.Module:
    return BertLayer(BertConfig(hidden_size=8, num_attention_heads=2, intermediate_size=8))


def test_a_subclass_computes_otherwise_and_is_still_known(layer: nn.Module) -> None:
    before = layer.state_dict()
    assert known_class(layer, KNOWN) is BertLayer
    assert not is_subclassed(layer, KNOWN)
    layer.__class__ = subclass_with_forward(BertLayer, "Other", lambda self, states: states * 2)
    assert type(layer).__name__ == "OtherBertLayer"
    assert torch.equal(layer(torch.ones(1)), torch.tensor([2.0]))
    assert known_class(layer, KNOWN) is BertLayer
    assert is_subclassed(layer, KNOWN)
    assert layer.state_dict().keys() == before.keys()


def test_what_is_not_known_has_no_subclass() -> None:
    assert not is_subclassed(nn.Linear(2, 2), KNOWN)


Bases = Callable[..., Path]
PLAIN_FAMILIES = ("bert", "distilbert", "roberta", "xlm-roberta", "electra")
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
@pytest.mark.parametrize("family", PLAIN_FAMILIES)
def test_outputs_and_gradients_are_the_whole_layers(bases: Bases, family: str, padded: bool) -> None:
    model, inputs = load_encoder(bases(family)), batch(padded)
    whole, gradients = firsts(model, inputs)
    with fast_layers(model, first_token=True):
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
    with fast_layers(model, first_token=True):
        assert torch.equal(model(**inputs).last_hidden_state, whole)


@pytest.mark.parametrize("family", PLAIN_FAMILIES)
def test_the_names_of_weights_stay(bases: Bases, family: str) -> None:
    model = load_encoder(bases(family))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with fast_layers(model, first_token=True):
        within = model.state_dict()
        model.load_state_dict(before)
    assert list(within) == list(before)
    assert all(torch.equal(within[name], tensor) for name, tensor in before.items())


def test_an_attention_that_is_not_known_runs_whole(bases: Bases) -> None:
    model = load_encoder(bases("bert"))
    model.set_attn_implementation("eager")
    with fast_layers(model, first_token=True):
        assert model(**batch(padded=True)).last_hidden_state.shape[1] == 14


def test_a_network_without_layers_is_left_alone() -> None:
    assert first_token_class(nn.Linear(2, 2)) is None


PACKED_FAMILIES = ("bert", "distilbert", "roberta", "xlm-roberta", "electra")
UNPACKED_FAMILIES = tuple(sorted({*FAMILIES} - {*PACKED_FAMILIES}))


def packed_batch(*lengths: int) -> dict[str, Tensor]:
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
@pytest.mark.parametrize("family", PACKED_FAMILIES)
def test_outputs_and_gradients_are_the_padded_ones(
    bases: Bases, family: str, lengths: tuple[int, ...], first: bool
) -> None:
    model, inputs = load_encoder(bases(family)), packed_batch(*lengths)
    plain, gradients = states(model, inputs, first=first)
    with fast_layers(model, first_token=first, packed=True):
        packed, others = states(model, inputs, first=first)
    torch.testing.assert_close(packed, plain, rtol=0, atol=1e-6)
    assert others.keys() == gradients.keys()
    for name, gradient in others.items():
        scale = float(gradients[name].abs().max())
        torch.testing.assert_close(gradient, gradients[name], rtol=1e-5, atol=1e-6 * (1 + scale), msg=name)


@given(st.lists(st.integers(1, 12), min_size=1, max_size=6), st.booleans())
def test_any_lengths_score_as_padded(bases: Bases, lengths: list[int], first: bool) -> None:
    model, inputs = load_encoder(bases("bert")), packed_batch(*lengths)
    mask = inputs["attention_mask"].bool()
    with torch.inference_mode():
        plain = model(**inputs).last_hidden_state
        with fast_layers(model, first_token=first, packed=True):
            packed = model(**inputs).last_hidden_state
    if first:
        torch.testing.assert_close(packed[:, 0], plain[:, 0], rtol=0, atol=1e-6)
    else:
        assert packed.shape == plain.shape
        torch.testing.assert_close(packed[mask], plain[mask], rtol=0, atol=1e-6)


@pytest.mark.parametrize("family", PACKED_FAMILIES)
def test_layers_see_no_padding(bases: Bases, family: str) -> None:
    model: Any = load_encoder(bases(family))
    seen: list[torch.Size] = []
    (stack, _) = packed_classes(model)[0]
    for layer in stack.layer:
        layer.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[:2]))
    with fast_layers(model, packed=True):
        hidden = model(**packed_batch(14, 9, 9, 3)).last_hidden_state
    assert seen == [(1, 35), (1, 35)]
    assert not hidden[3, 3:].any()


@pytest.mark.parametrize("family", UNPACKED_FAMILIES)
def test_stacks_that_are_not_known_run_as_ever(bases: Bases, family: str) -> None:
    model = load_encoder(bases(family))
    with fast_layers(model):
        plain = model(**packed_batch(14, 9, 3)).last_hidden_state
    assert not packed_classes(model)
    with fast_layers(model, packed=True):
        assert torch.equal(model(**packed_batch(14, 9, 3)).last_hidden_state, plain)


@pytest.mark.parametrize("mask", ["left", "holes", "none", "empty"])
def test_other_masks_run_as_ever(bases: Bases, mask: str) -> None:
    model, inputs = load_encoder(bases("bert")), packed_batch(6, 4, 4)
    if mask == "left":
        inputs["attention_mask"] = inputs["attention_mask"].flip(1)
    elif mask == "holes":
        inputs["attention_mask"][0, 2] = 0
    elif mask == "empty":
        inputs["attention_mask"][1] = 0
    else:
        del inputs["attention_mask"]
    with fast_layers(model):
        plain = model(**inputs).last_hidden_state
    with fast_layers(model, packed=True):
        assert torch.equal(model(**inputs).last_hidden_state, plain)


def test_an_attention_that_knows_no_packing_runs_as_ever(bases: Bases) -> None:
    model = load_encoder(bases("bert"))
    model.set_attn_implementation("eager")
    plain = model(**packed_batch(6, 4)).last_hidden_state
    with fast_layers(model, packed=True):
        assert torch.equal(model(**packed_batch(6, 4)).last_hidden_state, plain)


@pytest.mark.parametrize("family", PACKED_FAMILIES)
def test_dropout_is_repeatable_and_keeps_rows_apart(bases: Bases, family: str) -> None:
    model = load_encoder(bases(family)).train()
    with fast_layers(model, packed=True):
        torch.manual_seed(3)
        one, gradients = states(model, packed_batch(7, 5, 5))
        torch.manual_seed(3)
        other, again = states(model, packed_batch(7, 5, 5))
    assert torch.equal(one, other)
    assert all(torch.equal(gradient, again[name]) for name, gradient in gradients.items())
    assert all(gradient.isfinite().all() for gradient in gradients.values())


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


def padded_batch() -> dict[str, torch.Tensor]:
    ids = torch.arange(5, 47).reshape(3, 14)
    return {"input_ids": ids, "attention_mask": (torch.arange(14) < torch.tensor([[14], [9], [3]])).long()}


def gradients(network: Any) -> dict[str, torch.Tensor]:
    network.zero_grad()
    torch.manual_seed(0)
    hidden = network(**padded_batch()).last_hidden_state
    (hidden * torch.randn(hidden.shape) * padded_batch()["attention_mask"][..., None]).sum().backward()
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
    with fast_layers(model, first_token=True):
        with fast_layers(model, first_token=True):
            within = state_of(model)
        assert state_of(model) == within != before
        raise KeyError


@pytest.mark.parametrize("family", FAMILIES)
def test_without_dropout_gradients_are_the_plain_ones(bases: Bases, family: str) -> None:
    model = load_encoder(bases(family))  # in eval mode
    plain = gradients(model)
    with fast_layers(model):
        fast = gradients(model)
    assert fast.keys() == plain.keys()
    for name, gradient in fast.items():
        torch.testing.assert_close(gradient, plain[name], rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_trains_with_them(bases: Bases, family: str) -> None:
    model = load_encoder(bases(family)).train()
    with fast_layers(model):
        first, again = gradients(model), gradients(model)
    assert all(gradient.isfinite().all() for gradient in first.values())
    assert all(torch.equal(gradient, again[name]) for name, gradient in first.items())


@pytest.mark.parametrize("family", FAMILIES)
def test_they_work_within_a_language_model(bases: Bases, family: str) -> None:
    """Its table of words is its output layer too: a gradient of some rows joins a whole one."""
    network: Any = load_language_model(bases(family), pairs=True, seed=0).network

    def table_gradient() -> torch.Tensor:
        network.zero_grad()
        network.word_logits(network.hidden(padded_batch())[0]).logsumexp(-1).sum().backward()
        table: torch.Tensor = network.model.get_input_embeddings().weight
        assert table.grad is not None
        return table.grad.to_dense().clone()

    plain = table_gradient()
    with fast_layers(network):
        torch.testing.assert_close(table_gradient(), plain)


def test_the_environment_keeps_them_out(bases: Bases, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FULLBAKE_FAST_KERNELS", "0")
    model = load_encoder(bases("bert"))
    before = state_of(model)
    with fast_layers(model, first_token=True):
        assert state_of(model) == before


def test_elsewhere_the_first_token_alone_is_left(bases: Bases, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fullbake.core.runtime.on_linux", lambda: False)
    model = load_encoder(bases("bert"))
    with fast_layers(model, first_token=True):
        assert any(type(module) is nn.Dropout for module in model.modules())
        assert model.config._attn_implementation == "sdpa"
        assert model(**padded_batch()).last_hidden_state.shape[1] == 1


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
    with compiled_encoder(network):
        assert network._compiled_call_impl == ("compiled" if asked else None)
    assert network._compiled_call_impl is None
    assert network.compilations == ([{"dynamic": True}] if asked else [])


def test_nothing_is_compiled_on_the_cpu(bases: Bases, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FULLBAKE_GPU_PIECES", "1")
    model: Any = load_encoder(bases("bert"))
    with compiled_encoder(model):
        assert model._compiled_call_impl is None
