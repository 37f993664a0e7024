"""Parameters of the encoder that transformers would leave out are refused; heads, poolers and buffers are not."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.bases import FAMILIES, make_base
from safetensors.numpy import load_file, save_file
from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification

from fullbake.core.errors import BaseModelError
from fullbake.models.encoder import load_encoder
from fullbake.models.weight_checks import find_left_out_parameters, refuse_integer_weights, refuse_left_out

Bases = Callable[..., Path]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("head", [AutoModelForMaskedLM, AutoModelForSequenceClassification])
def test_names_of_heads_are_no_parameters_of_the_encoder(family: str, head: type, bases: Bases) -> None:
    folder = bases(family)
    whole, encoder = head.from_pretrained(folder), load_encoder(folder)  # type: ignore[attr-defined]
    own = {f"{encoder.base_model_prefix}.{name}" for name in encoder.state_dict()}
    assert find_left_out_parameters(encoder, set(whole.state_dict()) - own) == []


@pytest.mark.parametrize(
    "name",
    [
        *("cls.predictions.bias", "cls.seq_relationship.weight", "classifier.weight", "lm_head.dense.weight"),
        *("bert.pooler.dense.weight", "pooler.dense.weight"),
        *("bert.embeddings.position_ids", "embeddings.position_ids", "embeddings.token_type_ids"),
        *("bert.encoder.layer.0.attention.self.rotary_emb.inv_freq",),
        *("bert.embeddings.word_embeddings._weight", "embeddings.word_embeddings._weight"),
    ],
)
def test_what_checkpoints_hold_beside_their_encoder_is_left_out(name: str, bases: Bases) -> None:
    encoder = load_encoder(bases("bert"))
    assert find_left_out_parameters(encoder, [name]) == []
    refuse_left_out("somewhere", encoder, [name])


@pytest.mark.parametrize(
    "name",
    [
        *("bert.encoder.layer.2.output.dense.weight", "encoder.layer.2.output.dense.weight"),
        *("bert.encoder.layer.0.attention.self.distance_embedding.weight", "embeddings.task_embeddings.weight"),
        "bert.embeddings.task_embeddings._weight",
    ],
)
def test_parameters_of_the_encoder_are_refused(name: str, bases: Bases) -> None:
    with pytest.raises(BaseModelError, match="does not ask for") as caught:
        refuse_left_out("somewhere", load_encoder(bases("bert")), ["cls.predictions.bias", name])
    assert name in str(caught.value)
    assert "holds 1 weights" in str(caught.value)


@pytest.mark.parametrize(("family", "field"), [("bert", "num_hidden_layers"), ("distilbert", "n_layers")])
def test_layers_beyond_those_of_the_config_are_refused(family: str, field: str, tmp_path: Path) -> None:
    folder = make_base(family, tmp_path / "base", layers=4)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {field: 2}))
    with pytest.raises(BaseModelError, match="in 2 layers"):
        load_encoder(folder)


def test_integer_weights_are_refused_and_integer_buffers_are_not(bases: Bases, tmp_path: Path) -> None:
    file = shutil.copy(bases("bert") / "model.safetensors", tmp_path)
    arrays = load_file(file)
    refuse_integer_weights([file])
    save_file(arrays | {"embeddings.position_ids": np.arange(8)}, file)
    refuse_integer_weights([file])
    name = "encoder.layer.0.output.dense.weight"
    save_file(arrays | {name: arrays[name].astype(np.int8)}, file)
    with pytest.raises(BaseModelError, match=r"1 of the base's weights are no floats") as caught:
        refuse_integer_weights([file])
    assert "I8" in str(caught.value)
    (tmp_path / "damaged").write_bytes(b"no safetensors")
    refuse_integer_weights([tmp_path / "damaged", tmp_path / "absent"])  # whoever loads them says so
