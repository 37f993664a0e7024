"""Every claim of the family table is true of the small random bases, and families without a record need none."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from helpers.bases import COPIED_FAMILIES, model_type
from helpers.bases import FAMILIES as TESTED_FAMILIES
from torch import nn
from transformers import AutoConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING, MODEL_FOR_PRETRAINING_MAPPING

from fullbake.models.encoder import load_encoder, load_standard
from fullbake.models.families import FAMILIES, Family, family_of
from fullbake.models.fast_layers import family_name, first_token_class, packed_classes
from fullbake.models.heads import pool
from fullbake.models.network import extract_head

Bases = Callable[..., Path]
ALL = (*TESTED_FAMILIES, *COPIED_FAMILIES)
IDS = torch.arange(5, 15).reshape(2, 5)


def record(family: str) -> Family:
    return family_of(model_type(family))


def names_of_weights(auto_class: Any, folder: Path) -> set[str]:
    """Return the names of the weights that a class has for a base's config."""
    with torch.device("meta"):
        return {*auto_class.from_config(AutoConfig.from_pretrained(folder)).state_dict()}


def test_every_record_is_tested() -> None:
    assert {*FAMILIES} <= {model_type(family) for family in ALL}


def test_unknown_family_has_the_defaults() -> None:
    assert family_of("no-such-family") == Family()


def test_table_loads_neither_torch_nor_transformers() -> None:
    code = "import sys, fullbake.models.families; print(*{'torch', 'transformers', 'numpy'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("family", ALL)
def test_shared_layers_have_the_weights_of_one_layer(family: str, bases: Bases) -> None:
    two, four = (
        sum(parameter.numel() for parameter in load_encoder(bases(family, layers=layers)).parameters())
        for layers in (2, 4)
    )
    assert (two == four) == record(family).shares_layers


@pytest.mark.parametrize("family", ALL)
def test_standard_head_reads_what_the_pooling_field_names(family: str, bases: Bases) -> None:
    model: Any = load_standard(bases(family), ["a", "b"], seed=0)
    field = record(family).pooling_field
    assert hasattr(model.config, field) or family != "modernbert"
    for pooling in ("cls", "mean") if hasattr(model.config, field) else ("cls",):
        setattr(model.config, field, pooling)
        with torch.no_grad():
            pooled = pool(model.base_model(IDS).last_hidden_state, None, pooling)
            torch.testing.assert_close(extract_head(model)(pooled), model(IDS).logits)


@pytest.mark.parametrize("family", ALL)
def test_pooler_is_a_bare_dense_layer_only_where_its_activation_is_named(family: str, bases: Bases) -> None:
    encoder: Any = load_encoder(bases(family), pooler=True)
    activation = record(family).pooler_activation
    assert isinstance(getattr(encoder, "pooler", None), nn.Linear) == (activation is not None)
    if activation is not None:
        with torch.no_grad():
            output = encoder(IDS)
            expected = getattr(encoder, activation)(encoder.pooler(output.last_hidden_state[:, 0]))
        torch.testing.assert_close(output.pooler_output, expected)


@pytest.mark.parametrize("family", ALL)
def test_pair_head_has_the_named_layers(family: str, bases: Bases) -> None:
    config, names = AutoConfig.from_pretrained(bases(family)), record(family).pair_head
    # ModernBERT has no class for pretraining: it is pretrained by its masked LM
    pretrained = MODEL_FOR_PRETRAINING_MAPPING.get(type(config), MODEL_FOR_MASKED_LM_MAPPING[type(config)])
    with torch.device("meta"):
        model = (getattr(transformers, names.model_class) if names else pretrained)(config)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if names is None:
        heads = {name: shape for name, shape in shapes.items() if "embeddings" not in name}
        assert (2, 32) not in heads.values(), "a pair head: write its record"
        return
    assert type(model) is pretrained
    assert (shapes[f"{names.dense}.weight"], shapes[f"{names.output}.weight"]) == ((32, 32), (2, 32))


@pytest.mark.parametrize("family", ALL)
def test_fast_classes_are_those_of_the_encoder(family: str, bases: Bases) -> None:
    encoder = load_encoder(bases(family, layers=3))
    classes = [family_name(type(module)) for module in encoder.modules()]
    fast = record(family).fast
    if fast is None:
        assert first_token_class(encoder) is None
        assert packed_classes(encoder) == []
    else:
        assert (classes.count(fast.layer), classes.count(fast.stack)) == (3, 1)
        layer = next(module for module in encoder.modules() if family_name(type(module)) == fast.layer)
        assert hasattr(layer.attention, "q_lin") == (fast.parts == "distilbert")
        assert first_token_class(encoder) is not None
