"""Classifiers survive a round trip, their heads run without the encoder, and fingerprints follow the weights."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from helpers.bases import FAMILIES
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.functional import cross_entropy
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, pipeline

from fullbake.config.sections import HeadConfig
from fullbake.core.errors import BaseModelError, BundleError
from fullbake.models.encoder import load_encoder
from fullbake.models.heads import HEADS, POOLINGS, pool
from fullbake.models.network import (
    EncoderForTextClassification,
    build_network,
    build_on_meta_device,
    encoder_fingerprint,
    extract_head,
    features,
    load_network,
    stub_encoder,
)

Bases = Callable[..., Path]
LABELS = ["no", "yes", "maybe"]
KINDS = ("standard", "linear", "mlp")


def build(base: str | Path, kind: str = "mlp", *, seed: int = 1, **fields: Any) -> Any:
    """Return a classifier whose head has large weights and used batch norms, so that a difference shows."""
    model = build_network(base, HeadConfig.model_validate({"kind": kind, **fields}), LABELS, seed=seed)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in extract_head(model).parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.running_mean.uniform_(-1, 1, generator=generator)
                module.running_var.uniform_(0.5, 2, generator=generator)
    return model


def tokenize_two_texts(base: Path) -> dict[str, torch.Tensor]:
    """Return two texts of different length as the base's own tokenizer gives them."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    return dict(tokenizer(["good movie, I love it!", "bad"], padding=True, return_tensors="pt"))


# Building, saving and loading


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", KINDS)
def test_round_trip_through_the_auto_classes(family: str, kind: str, bases: Bases, tmp_path: Path) -> None:
    model, inputs = build(bases(family), kind), tokenize_two_texts(bases(family))
    assert not model.training
    model.save_pretrained(tmp_path)
    assert str(bases(family)) not in (tmp_path / "config.json").read_text()
    for again in (AutoModelForSequenceClassification.from_pretrained(tmp_path), load_network(tmp_path)):
        assert type(again) is type(model)
        assert not again.training
        assert again.config.id2label == dict(enumerate(LABELS))
        with torch.no_grad():
            assert torch.equal(again(**inputs).logits, model(**inputs).logits)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", KINDS)
def test_head_on_features_gives_the_logits_of_the_whole_model(family: str, kind: str, bases: Bases) -> None:
    model, inputs = build(bases(family), kind), tokenize_two_texts(bases(family))
    with torch.no_grad():
        logits = model(**inputs).logits
        alone = extract_head(model)(features(model, inputs))
    assert logits.std() > 0.05
    torch.testing.assert_close(alone, logits, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", KINDS)
def test_training_the_head_changes_the_model_and_not_its_encoder(family: str, kind: str, bases: Bases) -> None:
    model, inputs = build(bases(family), kind), tokenize_two_texts(bases(family))
    encoder = {name: tensor.clone() for name, tensor in model.base_model.state_dict().items()}
    with torch.no_grad():
        fixed, before = features(model, inputs), model(**inputs).logits
    head = extract_head(model).train()
    optimizer = torch.optim.SGD(head.parameters(), lr=0.1)
    cross_entropy(head(fixed), torch.tensor([0, 2])).backward()
    assert all(parameter.grad is not None for parameter in head.parameters())
    optimizer.step()
    model.eval()
    with torch.no_grad():
        after = model(**inputs).logits
        torch.testing.assert_close(extract_head(model)(fixed), after, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(after, before, atol=1e-3)
    untouched = {name for name in encoder if not name.startswith("pooler.")}
    assert all(torch.equal(model.base_model.state_dict()[name], encoder[name]) for name in untouched)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_parameter_belongs_to_head_or_encoder(family: str, bases: Bases) -> None:
    model = build(bases(family), "standard")
    encoder = {id(p) for name, p in model.base_model.named_parameters() if not name.startswith("pooler.")}
    head = {id(parameter) for parameter in extract_head(model).parameters()}
    assert not head & encoder
    assert head | encoder == {id(parameter) for parameter in model.parameters()}


@pytest.mark.parametrize("pooling", POOLINGS)
def test_features_are_the_pooled_last_hidden_states(pooling: str, bases: Bases) -> None:
    model, inputs = build(bases("bert"), "linear", pooling=pooling), tokenize_two_texts(bases("bert"))
    with torch.no_grad():
        hidden = load_encoder(bases("bert"))(**inputs).last_hidden_state
        torch.testing.assert_close(features(model, inputs), pool(hidden, inputs["attention_mask"], pooling))
        torch.testing.assert_close(model.classify(model.pooled(**inputs)), model(**inputs).logits)


def test_modernbert_head_that_pools_by_mean(bases: Bases) -> None:
    folder = bases("modernbert", classifier_pooling="mean")
    model, inputs = build(folder, "standard"), tokenize_two_texts(folder)
    with torch.no_grad():
        torch.testing.assert_close(extract_head(model)(features(model, inputs)), model(**inputs).logits)


def test_padding_does_not_change_a_texts_logits(bases: Bases) -> None:
    model, inputs = build(bases("bert"), pooling="cls+mean"), tokenize_two_texts(bases("bert"))
    length = int(inputs["attention_mask"][1].sum())
    alone = {name: tensor[1:, :length] for name, tensor in inputs.items() if name != "attention_mask"}
    with torch.no_grad():
        torch.testing.assert_close(model(**alone).logits, model(**inputs).logits[1:])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", KINDS)
def test_model_on_meta_device_has_the_shapes_of_the_real_one(family: str, kind: str, bases: Bases) -> None:
    model, head = build(bases(family), kind), HeadConfig.model_validate({"kind": kind})
    config = AutoConfig.from_pretrained(bases(family))
    bare = build_on_meta_device(config, head, LABELS)
    assert all(tensor.is_meta for tensor in bare.parameters())
    shapes = {name: tensor.shape for name, tensor in bare.state_dict().items()}
    assert shapes == {name: tensor.shape for name, tensor in model.state_dict().items()}


def test_loss_is_mean_cross_entropy(bases: Bases) -> None:
    model, inputs = build(bases("bert")), tokenize_two_texts(bases("bert"))
    labels = torch.tensor([2, 0])
    output = model(**inputs, labels=labels)
    torch.testing.assert_close(output.loss, cross_entropy(output.logits, labels))
    assert model(**inputs).loss is None


def test_head_depends_on_the_seed_alone(bases: Bases) -> None:
    before = torch.random.get_rng_state()
    models = [build_network(bases("bert"), HeadConfig.model_validate("mlp"), LABELS, seed=seed) for seed in (1, 1, 2)]
    assert torch.equal(torch.random.get_rng_state(), before)
    first, again, other = (model.head.output.weight for model in models)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_heads_in_a_model_start_glorot_uniform(kind: str, bases: Bases) -> None:
    model = build_network(bases("bert"), HeadConfig.model_validate(kind), LABELS, seed=0)
    for part in model.head.modules():
        if isinstance(part, nn.Linear):
            bound = (6 / (part.in_features + part.out_features)) ** 0.5
            assert 0.8 * bound < part.weight.abs().max() <= bound
            assert not part.bias.any()
        if isinstance(part, nn.BatchNorm1d):
            assert part.weight.eq(1).all()
            assert part.running_var.eq(1).all()
            assert not part.running_mean.any()


def test_encoder_equals_the_base_without_a_pooler(bases: Bases) -> None:
    model, reference = build(bases("bert")), load_encoder(bases("bert")).state_dict()
    state = model.encoder.state_dict()
    assert state.keys() == reference.keys()
    assert not any("pooler" in name for name in state)
    assert all(torch.equal(state[name], reference[name]) for name in state)


def test_width_and_pooling_default_to_those_of_the_base() -> None:
    config = build_on_meta_device(
        AutoConfig.for_model("bert", hidden_size=48), HeadConfig.model_validate("mlp"), LABELS
    ).config
    assert (config.width, config.pooling) == (48, "cls")
    demo = build_network("demo", HeadConfig.model_validate("linear"), LABELS, seed=0)
    assert demo.config.pooling == "mean"


@pytest.mark.parametrize("kind", KINDS)
def test_saved_model_runs_in_a_transformers_pipeline(kind: str, bases: Bases, tmp_path: Path) -> None:
    model = build(bases("bert"), kind)
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(bases("bert")).save_pretrained(tmp_path)
    answer = pipeline("text-classification", str(tmp_path), top_k=None)("good movie, I love it!")
    with torch.no_grad():
        inputs = AutoTokenizer.from_pretrained(bases("bert"))("good movie, I love it!", return_tensors="pt")
        probabilities = model(**inputs).logits.softmax(-1)[0]
    scores = {entry["label"]: entry["score"] for entry in answer[0]}
    assert scores == pytest.approx(dict(zip(LABELS, probabilities.tolist(), strict=True)), abs=1e-6)


def test_gradient_checkpointing_works(bases: Bases) -> None:
    model, inputs = build(bases("bert")).eval(), tokenize_two_texts(bases("bert"))
    model.activation_checkpointing_enable()
    model.train()
    model(**inputs, labels=torch.tensor([0, 1])).loss.backward()
    assert model.encoder.embeddings.word_embeddings.weight.grad is not None


@pytest.mark.parametrize("kind", KINDS)
def test_incomplete_weights_are_refused(kind: str, bases: Bases, tmp_path: Path) -> None:
    build(bases("bert"), kind).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    name = sorted(weights)[-1]
    for fault in ({name: torch.zeros(1, 1)}, {}):
        rest = {key: tensor for key, tensor in weights.items() if key != name}
        save_file(rest | fault, tmp_path / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(BundleError, match=f"does not fit config.json(.|\n)*{name}"):
            load_network(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(BundleError, match="holds no weights"):
        load_network(tmp_path)


@pytest.mark.parametrize(("field", "known"), [("pooling", POOLINGS), ("head", HEADS)])
def test_pooling_or_head_of_another_version_is_refused(
    field: str, known: tuple[str, ...], bases: Bases, tmp_path: Path
) -> None:
    build(bases("bert"), "linear").save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {field: "newer"}))
    with pytest.raises(BundleError, match=f"has no {field} 'newer'(.|\n)*one of {re.escape(', '.join(known))}"):
        load_network(tmp_path)
    (tmp_path / "fullbake.json").write_text('{"versions": {"fullbake": "9.1"}}')
    with pytest.raises(BundleError, match=r"written by fullbake 9\.1: install that version"):
        load_network(tmp_path)


def test_base_without_weights_is_refused(bases: Bases, tmp_path: Path) -> None:
    shutil.copy(bases("bert") / "config.json", tmp_path)
    with pytest.raises(BaseModelError, match="holds no weights"):
        build_network(tmp_path, HeadConfig.model_validate("mlp"), LABELS, seed=0)


class LastTokenHead(transformers.BertForSequenceClassification):
    """A classifier whose head reads the last token, which `features` does not compute."""

    def forward(self, input_ids: Any = None, attention_mask: Any = None, inputs_embeds: Any = None) -> Any:
        hidden = self.bert(input_ids, attention_mask=attention_mask, inputs_embeds=inputs_embeds)[0]
        return transformers.modeling_outputs.SequenceClassifierOutput(logits=self.classifier(hidden[:, -1]))


def test_head_that_reads_other_states_is_refused(bases: Bases) -> None:
    model = LastTokenHead.from_pretrained(bases("bert"), num_labels=3).train()
    with pytest.raises(BaseModelError, match="cannot run without its encoder"):
        extract_head(model)
    assert all(part.training for part in model.modules())


# The encoder stub


def masked_lm_and_classifier(folder: Path) -> dict[str, Any]:
    """Return the family's masked LM and its classifier over one encoder's weights, in eval mode."""
    classes = {
        "masked_lm": transformers.AutoModelForMaskedLM,
        "classifier": transformers.AutoModelForSequenceClassification,
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return {name: auto_class.from_pretrained(folder).eval() for name, auto_class in classes.items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_model_with_stub_gives_the_logits_of_the_model(bases: Bases, family: str) -> None:
    ids = torch.arange(5, 17).reshape(2, 6)
    for model in masked_lm_and_classifier(bases(family)).values():
        with torch.no_grad():
            expected = model(input_ids=ids).logits
            hidden = model.base_model(input_ids=ids).last_hidden_state
            found = stub_encoder(model)(inputs_embeds=hidden).logits
        assert torch.allclose(found, expected, atol=1e-6)


def test_model_with_stub_shares_the_models_weights(bases: Bases) -> None:
    model = masked_lm_and_classifier(bases("bert"))["masked_lm"]
    shell = stub_encoder(model)
    hidden = torch.zeros(1, 3, 32)
    before = shell(inputs_embeds=hidden).logits
    with torch.no_grad():
        model.cls.predictions.bias.add_(1.0)
    assert torch.allclose(shell(inputs_embeds=hidden).logits, before + 1)
    shell(inputs_embeds=hidden).logits.sum().backward()
    assert model.bert.embeddings.word_embeddings.weight.grad is not None  # the output layer is tied to it


def test_making_a_stub_leaves_the_model_unchanged(bases: Bases) -> None:
    model = masked_lm_and_classifier(bases("bert"))["masked_lm"]
    names = [name for name, _ in model.named_parameters()]
    stub_encoder(model)
    assert [name for name, _ in model.named_parameters()] == names
    assert isinstance(model.base_model, transformers.BertModel)


# Fingerprints


@pytest.mark.parametrize("family", ["bert", "distilbert", "albert", "modernbert"])
def test_fingerprint_is_the_same_under_every_head(family: str, bases: Bases) -> None:
    assert len({encoder_fingerprint(build(bases(family), kind, seed=len(kind))) for kind in KINDS}) == 1


def test_fingerprint_changes_with_weights_and_config(bases: Bases, tmp_path: Path) -> None:
    known = {encoder_fingerprint(build(bases("bert"), "linear"))}
    known.add(encoder_fingerprint(build(bases("bert", seed=1), "linear")))
    folder = Path(shutil.copytree(bases("bert"), tmp_path / "base"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_attention_heads": 2}))
    known.add(encoder_fingerprint(build(folder, "linear")))
    model = build(bases("bert"), "linear")
    with torch.no_grad():
        model.encoder.encoder.layer[1].output.dense.bias[0] += 1e-6
    known.add(encoder_fingerprint(model))
    assert len(known) == 4


def test_config_is_registered_with_transformers() -> None:
    assert AutoConfig.for_model("fullbake").model_type == "fullbake"
    assert EncoderForTextClassification.base_model_prefix == "encoder"
