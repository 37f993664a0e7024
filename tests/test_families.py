import pytest
import torch
from torch import nn
from transformers import BertConfig
from transformers.models.bert.modeling_bert import BertLayer

from fullbake.models.fast_layers import family_name, is_subclassed, known_class, subclass

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
    layer.__class__ = subclass(BertLayer, "Other", lambda self, states: states * 2)
    assert type(layer).__name__ == "OtherBertLayer"
    assert torch.equal(layer(torch.ones(1)), torch.tensor([2.0]))
    assert known_class(layer, KNOWN) is BertLayer
    assert is_subclassed(layer, KNOWN)
    assert layer.state_dict().keys() == before.keys()


def test_what_is_not_known_has_no_subclass() -> None:
    assert not is_subclassed(nn.Linear(2, 2), KNOWN)
