"""The fast layers give the outputs and gradients of the plain ones, and leave a network as they found it."""

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
from fullbake.models.families import family_of
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

Bases = Callable[..., Path]
Gradients = dict[str, Tensor]
FAST = tuple(family for family in FAMILIES if family_of(family).fast is not None)
PLAIN = tuple(family for family in FAMILIES if family not in FAST)


def make_batch(*lengths: int) -> dict[str, Tensor]:
    """Return texts of these lengths, padded on the right with id 1 (RoBERTa tells padding from ids alone)."""
    tokens = max(lengths)
    mask = torch.arange(tokens) < torch.tensor(lengths)[:, None]
    ids = torch.arange(mask.numel()).reshape(mask.shape) % 60 + 5
    return {"input_ids": ids.where(mask, torch.tensor(1)), "attention_mask": mask.long()}


def make_batch_without_padding() -> dict[str, Tensor]:
    return {"input_ids": make_batch(14, 14, 14)["input_ids"]}


def outputs_and_gradients(
    model: Any, inputs: dict[str, Tensor], *, first_token: bool = False
) -> tuple[Tensor, Gradients]:
    """Return the hidden states (n, width) of the first tokens or of all text, and every weight's gradient."""
    model.zero_grad()
    hidden = model(**inputs).last_hidden_state
    read = hidden[:, 0] if first_token else hidden[inputs["attention_mask"].bool()]
    torch.manual_seed(0)
    (read * torch.randn(read.shape)).sum().backward()
    found = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    return read.detach(), {name: gradient.to_dense().clone() for name, gradient in found.items()}


def assert_close_gradients(found: Gradients, expected: Gradients) -> None:
    """Compare gradients up to rounding, which grows with the largest element."""
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        atol = 1e-6 * (1 + float(expected[name].abs().max()))
        torch.testing.assert_close(gradient, expected[name], rtol=1e-5, atol=atol, msg=name)


def changeable_state(network: nn.Module) -> list[tuple[Any, ...]]:
    """Return everything that the fast layers may change of a network."""
    return [
        (
            type(module),
            getattr(module, "sparse", None),
            getattr(getattr(module, "config", None), "_attn_implementation", 0),
        )
        for module in network.modules()
    ]


# Known classes

KNOWN = ("bert.BertLayer",)


@pytest.fixture
def layer() -> nn.Module:
    return BertLayer(BertConfig(hidden_size=8, num_attention_heads=2, intermediate_size=8))


def test_class_name_begins_with_its_package() -> None:
    assert family_name(BertLayer) == "bert.BertLayer"
    assert family_name(nn.Linear) == "torch.nn.modules.Linear"


def test_class_of_the_same_name_elsewhere_is_not_known() -> None:
    assert known_class(type("BertLayer", (nn.Module,), {"__module__": "somewhere.modeling_bert"})(), KNOWN) is None


def test_subclass_has_another_forward_and_stays_known(layer: nn.Module) -> None:
    before = layer.state_dict()
    assert known_class(layer, KNOWN) is BertLayer
    assert not is_subclassed(layer, KNOWN)
    layer.__class__ = subclass_with_forward(BertLayer, "Other", lambda self, states: states * 2)
    assert type(layer).__name__ == "OtherBertLayer"
    assert torch.equal(layer(torch.ones(1)), torch.tensor([2.0]))
    assert known_class(layer, KNOWN) is BertLayer
    assert is_subclassed(layer, KNOWN)
    assert layer.state_dict().keys() == before.keys()


def test_unknown_class_is_not_subclassed() -> None:
    assert not is_subclassed(nn.Linear(2, 2), KNOWN)


# The last layer for the first token alone


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("family", FAST)
def test_first_token_alone_equals_the_whole_layer(bases: Bases, family: str, padded: bool) -> None:
    model = load_encoder(bases(family))
    inputs = make_batch(14, 9, 3) if padded else make_batch_without_padding()
    whole, gradients = outputs_and_gradients(model, inputs, first_token=True)
    with fast_layers(model, first_token=True):
        assert model(**inputs).last_hidden_state.shape[1] == 1
        alone, others = outputs_and_gradients(model, inputs, first_token=True)
    torch.testing.assert_close(alone, whole, rtol=0, atol=1e-6)
    assert others.keys() == gradients.keys()
    for name, gradient in others.items():
        torch.testing.assert_close(gradient, gradients[name], rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize("family", PLAIN)
def test_unknown_layer_computes_all_tokens(bases: Bases, family: str) -> None:
    model, inputs = load_encoder(bases(family)), make_batch(14, 9, 3)
    whole = model(**inputs).last_hidden_state
    assert first_token_class(model) is None
    with fast_layers(model, first_token=True):
        assert torch.equal(model(**inputs).last_hidden_state, whole)


def test_layer_with_unknown_attention_computes_all_tokens(bases: Bases) -> None:
    model = load_encoder(bases("bert"))
    model.set_attn_implementation("eager")
    with fast_layers(model, first_token=True):
        assert model(**make_batch(14, 9, 3)).last_hidden_state.shape[1] == 14


def test_network_without_layers_has_no_first_token_class() -> None:
    assert first_token_class(nn.Linear(2, 2)) is None


@pytest.mark.parametrize("family", FAST)
def test_names_of_weights_stay(bases: Bases, family: str) -> None:
    model = load_encoder(bases(family))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with fast_layers(model, first_token=True):
        within = model.state_dict()
        model.load_state_dict(before)
    assert list(within) == list(before)
    assert all(torch.equal(within[name], tensor) for name, tensor in before.items())


# Packed batches


@pytest.mark.parametrize("first_token", [False, True])
@pytest.mark.parametrize("lengths", [(14, 9, 9, 3), (2, 7), (5, 5), (4,), (1, 1, 3)], ids=str)
@pytest.mark.parametrize("family", FAST)
def test_packed_batch_equals_the_padded_one(
    bases: Bases, family: str, lengths: tuple[int, ...], first_token: bool
) -> None:
    model, inputs = load_encoder(bases(family)), make_batch(*lengths)
    plain, gradients = outputs_and_gradients(model, inputs, first_token=first_token)
    with fast_layers(model, first_token=first_token, packed=True):
        packed, others = outputs_and_gradients(model, inputs, first_token=first_token)
    torch.testing.assert_close(packed, plain, rtol=0, atol=1e-6)
    assert_close_gradients(others, gradients)


@given(st.lists(st.integers(1, 12), min_size=1, max_size=6), st.booleans())
def test_packed_batch_of_any_lengths_equals_the_padded_one(bases: Bases, lengths: list[int], first_token: bool) -> None:
    model, inputs = load_encoder(bases("bert")), make_batch(*lengths)
    mask = inputs["attention_mask"].bool()
    with torch.inference_mode():
        plain = model(**inputs).last_hidden_state
        with fast_layers(model, first_token=first_token, packed=True):
            packed = model(**inputs).last_hidden_state
    if first_token:
        torch.testing.assert_close(packed[:, 0], plain[:, 0], rtol=0, atol=1e-6)
    else:
        assert packed.shape == plain.shape
        torch.testing.assert_close(packed[mask], plain[mask], rtol=0, atol=1e-6)


@pytest.mark.parametrize("family", FAST)
def test_packed_layers_see_no_padding(bases: Bases, family: str) -> None:
    model: Any = load_encoder(bases(family))
    seen: list[torch.Size] = []
    (stack, _) = packed_classes(model)[0]
    for layer in stack.layer:
        layer.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[:2]))
    with fast_layers(model, packed=True):
        hidden = model(**make_batch(14, 9, 9, 3)).last_hidden_state
    assert seen == [(1, 35), (1, 35)]
    assert not hidden[3, 3:].any()


@pytest.mark.parametrize("family", PLAIN)
def test_unknown_stack_runs_padded(bases: Bases, family: str) -> None:
    model = load_encoder(bases(family))
    with fast_layers(model):
        plain = model(**make_batch(14, 9, 3)).last_hidden_state
    assert not packed_classes(model)
    with fast_layers(model, packed=True):
        assert torch.equal(model(**make_batch(14, 9, 3)).last_hidden_state, plain)


@pytest.mark.parametrize("mask", ["left", "holes", "none", "empty"])
def test_mask_that_is_not_right_padding_runs_padded(bases: Bases, mask: str) -> None:
    model, inputs = load_encoder(bases("bert")), make_batch(6, 4, 4)
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


def test_attention_that_cannot_pack_runs_padded(bases: Bases) -> None:
    model = load_encoder(bases("bert"))
    model.set_attn_implementation("eager")
    plain = model(**make_batch(6, 4)).last_hidden_state
    with fast_layers(model, packed=True):
        assert torch.equal(model(**make_batch(6, 4)).last_hidden_state, plain)


@pytest.mark.parametrize("family", FAST)
def test_packed_dropout_is_repeatable_with_finite_gradients(bases: Bases, family: str) -> None:
    model = load_encoder(bases(family)).train()
    with fast_layers(model, packed=True):
        torch.manual_seed(3)
        one, gradients = outputs_and_gradients(model, make_batch(7, 5, 5))
        torch.manual_seed(3)
        other, again = outputs_and_gradients(model, make_batch(7, 5, 5))
    assert torch.equal(one, other)
    assert all(torch.equal(gradient, again[name]) for name, gradient in gradients.items())
    assert all(gradient.isfinite().all() for gradient in gradients.values())


# All of them together


@pytest.mark.parametrize("family", FAMILIES)
def test_network_is_restored_also_after_an_error(bases: Bases, family: str) -> None:
    model = load_encoder(bases(family))
    before = changeable_state(model)

    def fail_in_nested_blocks() -> None:
        with fast_layers(model, first_token=True):
            with fast_layers(model, first_token=True):
                within = changeable_state(model)
            assert changeable_state(model) == within != before
            raise KeyError

    with pytest.raises(KeyError):
        fail_in_nested_blocks()
    assert changeable_state(model) == before


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_without_dropout_equal_the_plain_ones(bases: Bases, family: str) -> None:
    model = load_encoder(bases(family))  # in eval mode
    _, plain = outputs_and_gradients(model, make_batch(14, 9, 3))
    with fast_layers(model):
        _, fast = outputs_and_gradients(model, make_batch(14, 9, 3))
    assert fast.keys() == plain.keys()
    for name, gradient in fast.items():
        torch.testing.assert_close(gradient, plain[name], rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize("family", FAMILIES)
def test_dropout_is_repeatable_for_every_family(bases: Bases, family: str) -> None:
    model = load_encoder(bases(family)).train()
    found = []
    with fast_layers(model):
        for _ in range(2):
            torch.manual_seed(3)
            found.append(outputs_and_gradients(model, make_batch(14, 9, 3))[1])
    first, again = found
    assert all(gradient.isfinite().all() for gradient in first.values())
    assert all(torch.equal(gradient, again[name]) for name, gradient in first.items())


@pytest.mark.parametrize("family", FAMILIES)
def test_language_model_has_the_plain_gradient_of_its_shared_table(bases: Bases, family: str) -> None:
    """The table of words is the output layer too: a sparse gradient is added to a dense one."""
    network: Any = load_language_model(bases(family), pairs=True, seed=0).network

    def table_gradient() -> Tensor:
        network.zero_grad()
        network.word_logits(network.hidden(make_batch(14, 9, 3))[0]).logsumexp(-1).sum().backward()
        table: Tensor = network.model.get_input_embeddings().weight
        assert table.grad is not None
        return table.grad.to_dense().clone()

    plain = table_gradient()
    with fast_layers(network):
        torch.testing.assert_close(table_gradient(), plain)


def test_environment_turns_fast_layers_off(bases: Bases, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FULLBAKE_FAST_KERNELS", "0")
    model = load_encoder(bases("bert"))
    before = changeable_state(model)
    with fast_layers(model, first_token=True):
        assert changeable_state(model) == before


def test_systems_other_than_linux_compute_the_first_token_alone_only(
    bases: Bases, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fullbake.core.runtime.on_linux", lambda: False)
    model = load_encoder(bases("bert"))
    with fast_layers(model, first_token=True):
        assert any(type(module) is nn.Dropout for module in model.modules())
        assert model.config._attn_implementation == "sdpa"
        assert model(**make_batch(14, 9, 3)).last_hidden_state.shape[1] == 1


def test_training_without_dropout_gives_the_plain_weights(
    bases: Bases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From texts to weights; what differs is rounding."""
    base = bases("bert", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    fast = weights(train(base, tmp_path, "finetune"))
    monkeypatch.setenv("FULLBAKE_FAST_KERNELS", "0")
    plain = weights(train(base, tmp_path, "finetune"))
    for name, tensor in fast.items():
        if not name.endswith("key.bias"):  # softmax ignores it: its gradient is rounding, which Adam makes large
            torch.testing.assert_close(tensor, plain[name], rtol=0, atol=2e-5, msg=name)


def test_bundle_trained_with_fast_layers_scores_the_same_without(
    bases: Bases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = train(bases("bert"), tmp_path, "finetune")
    trained.save(tmp_path / "bundle")
    fast = trained.logits(["a good movie", "bank card"])
    monkeypatch.setenv("FULLBAKE_FAST_KERNELS", "0")
    loaded = Classifier.load(tmp_path / "bundle")
    assert type(loaded.network).__module__.startswith("transformers.")
    plain = loaded.logits(["a good movie", "bank card"])
    torch.testing.assert_close(torch.from_numpy(plain), torch.from_numpy(fast))


# Compiling on a GPU


class FakeGpuNetwork(nn.Linear):
    """A network whose parameters claim to be on a GPU, and which notes how it is compiled."""

    compilations: list[dict[str, Any]]

    def parameters(self, recurse: bool = True) -> Any:
        yield type("OnGpu", (), {"device": torch.device("cuda")})()

    def compile(self, *_: Any, **options: Any) -> None:
        self.compilations.append(options)
        self._compiled_call_impl = "compiled"


@pytest.mark.parametrize("setting", ["", "1"])
def test_gpu_network_is_compiled_if_the_environment_says_so(setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FULLBAKE_GPU_PIECES", setting)
    network: Any = FakeGpuNetwork(2, 2)
    network.compilations = []
    with compiled_encoder(network):
        assert network._compiled_call_impl == ("compiled" if setting else None)
    assert network._compiled_call_impl is None
    assert network.compilations == ([{"dynamic": True}] if setting else [])


def test_nothing_is_compiled_on_the_cpu(bases: Bases, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FULLBAKE_GPU_PIECES", "1")
    model: Any = load_encoder(bases("bert"))
    with compiled_encoder(model):
        assert model._compiled_call_impl is None
