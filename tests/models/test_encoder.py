"""Encoders load whole, pool by definition, and freeze and learn by depth, for every family."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from helpers.bases import FAMILIES, model_type
from safetensors.torch import load_file, save_file
from torch import nn

from fullbake.core.errors import BaseModelError
from fullbake.models.encoder import (
    default_pooling,
    freeze_all,
    freeze_lowest,
    load_encoder,
    load_standard,
    parameter_depths,
    parameter_groups,
    pooler_kwargs,
    standard_pooling,
)
from fullbake.models.families import family_of
from fullbake.models.pretrained import load_config

Bases = Callable[..., Path]
IDS = torch.arange(5, 15).reshape(2, 5)
LAYERED = tuple(family for family in FAMILIES if not family_of(model_type(family)).shares_layers)


def copy_base(folder: Path, target: Path) -> Path:
    return Path(shutil.copytree(folder, target / "base"))


def rewrite_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> Path:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


# Loading


@pytest.mark.parametrize("family", FAMILIES)
def test_encoder_equals_what_transformers_loads(family: str, bases: Bases) -> None:
    reference = transformers.AutoModel.from_pretrained(bases(family))
    encoder = load_encoder(bases(family))
    assert type(encoder) is type(reference)
    assert not encoder.training
    pooler = getattr(encoder, "pooler", None)
    if pooler is not None:
        # A class without `add_pooling_layer` (SqueezeBertModel) always runs its pooler, so it cannot be taken out.
        # That is harmless: features are the last hidden states, which no pooler changes, as is compared below.
        assert pooler_kwargs(encoder.config, False) == {}
        for parameter in pooler.parameters():
            nn.init.zeros_(parameter)
    with torch.no_grad():
        assert torch.equal(encoder(IDS).last_hidden_state, reference(IDS).last_hidden_state)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_become_fp32(dtype: torch.dtype, bases: Bases, tmp_path: Path) -> None:
    transformers.AutoModel.from_pretrained(bases("bert"), dtype=dtype).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] != "float32"
    for model in (load_encoder(tmp_path), load_standard(tmp_path, ["a", "b"], seed=0)):
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_pooler_is_kept_on_request(bases: Bases) -> None:
    assert load_encoder(bases("bert"), pooler=True).pooler is not None
    assert load_encoder(bases("distilbert"), pooler=True).base_model_prefix == "distilbert"


def test_missing_weights_are_named(bases: Bases, tmp_path: Path) -> None:
    name = "encoder.layer.1.output.dense.weight"
    folder = rewrite_weights(copy_base(bases("bert"), tmp_path), lambda weights: weights.pop(name))
    for load in (load_encoder, lambda base: load_standard(base, ["a", "b"], seed=0)):
        with pytest.raises(BaseModelError, match=name):
            load(folder)


def test_weights_of_another_size_are_named(bases: Bases, tmp_path: Path) -> None:
    name = "encoder.layer.1.output.dense.weight"
    folder = copy_base(bases("bert"), tmp_path)
    rewrite_weights(folder, lambda weights: weights.update({name: torch.zeros(32, 60)}))
    with pytest.raises(BaseModelError, match=r"layer\.1\.output.*\n.*\(32, 64\); got \(32, 60\)"):
        load_encoder(folder)


def test_config_deeper_than_the_weights_is_refused(bases: Bases, tmp_path: Path) -> None:
    folder = copy_base(bases("roberta"), tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with pytest.raises(BaseModelError, match="lacks 16 of the weights"):
        load_encoder(folder)


def test_pickle_error_says_how_to_convert(bases: Bases, tmp_path: Path) -> None:
    folder = copy_base(bases("bert"), tmp_path)
    (folder / "model.safetensors").unlink()
    with pytest.raises(BaseModelError, match=r"holds no weights"):
        load_encoder(folder)
    (folder / "pytorch_model.bin").write_bytes(b"not even read")
    with pytest.raises(BaseModelError, match=r"pytorch_model\.bin: the weights are pickles(.|\n)*save_pretrained"):
        load_encoder(folder)


def test_truncated_weights_file_is_refused(bases: Bases, tmp_path: Path) -> None:
    folder = copy_base(bases("bert"), tmp_path)
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BaseModelError, match="cannot be read"):
        load_encoder(folder)


@pytest.mark.parametrize("family", FAMILIES)
def test_standard_model_has_the_bases_encoder_and_the_labels(family: str, bases: Bases) -> None:
    model = load_standard(bases(family), ["no", "yes", "maybe"], seed=3)
    reference = transformers.AutoModelForSequenceClassification.from_pretrained(bases(family), num_labels=3)
    assert type(model) is type(reference)
    assert not model.training
    loaded, expected = model.base_model.state_dict(), reference.base_model.state_dict()
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[name], expected[name]) for name in loaded)
    assert model.config.id2label == {0: "no", 1: "yes", 2: "maybe"}
    assert model.config.label2id == {"no": 0, "yes": 1, "maybe": 2}
    assert model.config.problem_type == "single_label_classification"


def test_standard_head_depends_on_the_seed_alone(bases: Bases) -> None:
    before = torch.random.get_rng_state()
    first, again, other = (load_standard(bases("roberta"), ["a", "b"], seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(first.classifier.dense.weight, again.classifier.dense.weight)
    assert not torch.equal(first.classifier.dense.weight, other.classifier.dense.weight)


@pytest.mark.parametrize("labels", [["a", "b"], ["a", "b", "c"]])
def test_classifier_in_the_base_is_replaced(labels: list[str], bases: Bases, tmp_path: Path) -> None:
    theirs = load_standard(bases("roberta"), ["old", "older"], seed=1)
    with torch.no_grad():
        theirs.classifier.out_proj.bias.fill_(9.0)
    theirs.save_pretrained(tmp_path)
    ours = load_standard(tmp_path, labels, seed=1)
    assert ours.classifier.out_proj.bias.tolist() == [0.0] * len(labels)
    assert torch.equal(
        ours.base_model.embeddings.word_embeddings.weight, theirs.base_model.embeddings.word_embeddings.weight
    )


def test_base_without_pooler_gives_a_warning(bases: Bases) -> None:
    folder = bases("bert", pooler=False)
    assert load_encoder(folder).pooler is None
    with pytest.warns(UserWarning, match="holds no pooler"):
        model = load_standard(folder, ["a", "b"], seed=0)
    assert model.base_model.pooler.dense.weight.std() > 0
    with pytest.raises(BaseModelError, match=r"pooler\.dense"):
        load_encoder(folder, pooler=True)


# Pooling


def write_pooling_settings(folder: Path, settings: dict[str, Any]) -> Path:
    modules = [
        {"idx": 0, "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    (folder / "1_Pooling").mkdir()
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(settings))
    return folder


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True, "include_prompt": True}, "mean"),
        ({"pooling_mode_max_tokens": True}, "max"),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}, "cls+mean"),
        ({"pooling_mode": "mean", "embedding_dimension": 32, "include_prompt": True}, "mean"),
        ({"pooling_mode": ["mean", "cls"]}, "cls+mean"),
    ],
)
def test_sentence_transformers_base_names_its_pooling(settings: dict[str, Any], expected: str, tmp_path: Path) -> None:
    assert default_pooling(write_pooling_settings(tmp_path, settings)) == expected


@pytest.mark.parametrize("settings", [{"pooling_mode": "weightedmean"}, {"pooling_mode_lasttoken": True}], ids=str)
def test_unknown_pooling_is_refused(settings: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match="--pooling"):
        default_pooling(write_pooling_settings(tmp_path, settings))


def test_default_pooling_of_other_bases_is_cls(bases: Bases) -> None:
    assert default_pooling(bases("bert")) == "cls"
    assert default_pooling("no-such-hub-id") == "cls"


def test_default_pooling_of_demo_is_mean() -> None:
    assert default_pooling("demo") == "mean"


def test_standard_pooling_is_cls_unless_the_config_names_one() -> None:
    assert standard_pooling(transformers.BertConfig()) == "cls"
    assert standard_pooling(transformers.ModernBertConfig(classifier_pooling="mean")) == "mean"


# Depth


@pytest.mark.parametrize("family", LAYERED)
def test_depths_follow_the_forward_pass(family: str, bases: Bases) -> None:
    """A change of the parameters at depth d changes the output of layer d and above, and nothing below."""
    model = load_encoder(bases(family, layers=3))
    depths = parameter_depths(model)
    assert set(depths.values()) >= {0, 1, 2, 3}
    with torch.no_grad():
        before = model(IDS, output_hidden_states=True).hidden_states
        for depth in (1, 2, 3):
            changed = load_encoder(bases(family, layers=3))
            for name, parameter in changed.named_parameters():
                if depths[name] == depth:
                    parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
            after = changed(IDS, output_hidden_states=True).hidden_states
            same = [torch.equal(old, new) for old, new in zip(before, after, strict=True)]
            assert same == [layer < depth for layer in range(4)]


@pytest.mark.parametrize("family", LAYERED)
def test_freeze_lowest_stops_embeddings_and_lowest_layers(family: str, bases: Bases) -> None:
    model = load_standard(bases(family), ["a", "b"], seed=0)
    depths = parameter_depths(model)
    for layers in (0, 1, 2):
        freeze_lowest(model, layers)
        for name, parameter in model.named_parameters():
            assert parameter.requires_grad == (depths[name] > layers), name
    assert not model.get_input_embeddings().weight.requires_grad


def test_freezing_too_many_layers_is_refused(bases: Bases) -> None:
    with pytest.raises(BaseModelError, match="0 to 2; got 3"):
        freeze_lowest(load_encoder(bases("bert")), 3)


def test_albert_refuses_freezing_and_layer_decay(bases: Bases) -> None:
    model = load_standard(bases("albert"), ["a", "b"], seed=0)
    with pytest.raises(BaseModelError, match="share their weights"):
        freeze_lowest(model, 1)
    with pytest.raises(BaseModelError, match="--layer-decay"):
        parameter_groups(model, learning_rate=1e-3, weight_decay=0.1, layer_decay=0.9)
    assert len(parameter_groups(model, learning_rate=1e-3, weight_decay=0.1)) == 2


def test_freeze_all_leaves_nothing_to_train(bases: Bases) -> None:
    model = load_standard(bases("bert"), ["a", "b"], seed=0)
    freeze_all(model)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert parameter_groups(model, learning_rate=1e-3, weight_decay=0.1) == []


def biases_and_norms(model: nn.Module) -> set[int]:
    """Return the ids of biases and of norms' parameters, found by the modules' types."""
    found = set()
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if name == "bias" or "Norm" in type(module).__name__:
                found.add(id(parameter))
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_biases_and_norms_are_not_decayed(family: str, bases: Bases) -> None:
    model = load_standard(bases(family), ["a", "b"], seed=0)
    groups = parameter_groups(model, learning_rate=1e-3, weight_decay=0.1)
    by_decay = {group["weight_decay"]: {id(parameter) for parameter in group["params"]} for group in groups}
    assert by_decay[0.0] == biases_and_norms(model)
    assert by_decay[0.0] | by_decay[0.1] == {id(parameter) for parameter in model.parameters()}
    assert {group["lr"] for group in groups} == {1e-3}


def test_layer_decay_lowers_the_rate_layer_by_layer(bases: Bases) -> None:
    model = load_standard(bases("bert", layers=3), ["a", "b"], seed=0)
    groups = parameter_groups(model, learning_rate=1.0, weight_decay=0.1, layer_decay=0.5)
    rates = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    layers = model.base_model.encoder.layer
    assert rates[id(model.classifier.weight)] == 1.0
    assert rates[id(model.base_model.pooler.dense.weight)] == 1.0
    assert [rates[id(layer.output.dense.weight)] for layer in layers] == [0.25, 0.5, 1.0]
    assert rates[id(model.base_model.embeddings.word_embeddings.weight)] == 0.125
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    torch.optim.AdamW(groups)


def test_parameter_groups_of_a_head_without_encoder() -> None:
    head = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    groups = parameter_groups(head, learning_rate=1e-2, weight_decay=0.1)
    assert {group["weight_decay"]: len(group["params"]) for group in groups} == {0.1: 2, 0.0: 4}


def test_demo_loads() -> None:
    assert load_config("demo").model_type == "bert"
    encoder = load_encoder("demo")
    assert encoder.get_input_embeddings().weight.shape == (30522, 384)
