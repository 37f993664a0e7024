"""fullbake.models.network: A head without its encoder gives what the whole model gives, with the model's own weights; the joined model, its round trips, and heads apart from their encoders, by family."""

import json
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
from fullbake.models.heads import pool
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
            found = stub_encoder(model)(inputs_embeds=hidden).logits
        assert torch.allclose(found, expected, atol=1e-6)


def test_its_weights_are_the_models_own(bases: Callable[..., Path]) -> None:
    model = models(bases("bert"))["words"]
    shell = stub_encoder(model)
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
    stub_encoder(model)
    assert [name for name, _ in model.named_parameters()] == names
    assert isinstance(model.base_model, transformers.BertModel)


Bases = Callable[..., Path]
LABELS = ["no", "yes", "maybe"]
KINDS = ("standard", "linear", "mlp")


def make(base: str | Path, kind: str = "mlp", *, seed: int = 1, **fields: Any) -> Any:
    model = build_network(base, HeadConfig.model_validate({"kind": kind, **fields}), LABELS, seed=seed)
    return enliven(model)


def enliven(model: Any) -> Any:
    """Head weights far from zero, and batch norm with a past: so that a difference shows."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in extract_head(model).parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.running_mean.uniform_(-1, 1, generator=generator)
                module.running_var.uniform_(0.5, 2, generator=generator)
    return model


def batch(base: Path) -> dict[str, torch.Tensor]:
    """Two texts of different length, as the base's tokenizer gives them."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    return dict(tokenizer(["good movie, I love it!", "bad"], padding=True, return_tensors="pt"))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", KINDS)
def test_round_trip_through_the_auto_classes(family: str, kind: str, bases: Bases, tmp_path: Path) -> None:
    model, inputs = make(bases(family), kind), batch(bases(family))
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
def test_head_on_features_is_the_whole_model(family: str, kind: str, bases: Bases) -> None:
    model, inputs = make(bases(family), kind), batch(bases(family))
    with torch.no_grad():
        logits = model(**inputs).logits
        apart = extract_head(model)(features(model, inputs))
    assert logits.std() > 0.05
    torch.testing.assert_close(apart, logits, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", KINDS)
def test_training_the_head_trains_the_model_and_nothing_else(family: str, kind: str, bases: Bases) -> None:
    model, inputs = make(bases(family), kind), batch(bases(family))
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
def test_every_parameter_is_the_heads_or_the_encoders(family: str, bases: Bases) -> None:
    model = make(bases(family), "standard")
    encoder = {id(p) for name, p in model.base_model.named_parameters() if not name.startswith("pooler.")}
    head = {id(parameter) for parameter in extract_head(model).parameters()}
    assert not head & encoder
    assert head | encoder == {id(parameter) for parameter in model.parameters()}


@pytest.mark.parametrize("pooling", ["cls", "mean", "max", "cls+mean"])
def test_features_are_the_encoders_last_layer_pooled(pooling: str, bases: Bases) -> None:
    model, inputs = make(bases("bert"), "linear", pooling=pooling), batch(bases("bert"))
    with torch.no_grad():
        hidden = load_encoder(bases("bert"))(**inputs).last_hidden_state
        torch.testing.assert_close(features(model, inputs), pool(hidden, inputs["attention_mask"], pooling))
        torch.testing.assert_close(model.classify(model.pooled(**inputs)), model(**inputs).logits)


def test_a_modernbert_that_pools_by_mean(bases: Bases) -> None:
    folder = bases("modernbert", classifier_pooling="mean")
    model, inputs = make(folder, "standard"), batch(folder)
    with torch.no_grad():
        torch.testing.assert_close(extract_head(model)(features(model, inputs)), model(**inputs).logits)


def test_a_padded_text_scores_as_alone(bases: Bases) -> None:
    model, inputs = make(bases("bert"), pooling="cls+mean"), batch(bases("bert"))
    length = int(inputs["attention_mask"][1].sum())
    alone = {name: tensor[1:, :length] for name, tensor in inputs.items() if name != "attention_mask"}
    with torch.no_grad():
        torch.testing.assert_close(model(**alone).logits, model(**inputs).logits[1:])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", KINDS)
def test_skeleton_has_the_shapes_of_the_model(family: str, kind: str, bases: Bases) -> None:
    model, head = make(bases(family), kind), HeadConfig.model_validate({"kind": kind})
    config = AutoConfig.from_pretrained(bases(family))
    bare = build_on_meta_device(config, head, LABELS)
    assert all(tensor.is_meta for tensor in bare.parameters())
    shapes = {name: tensor.shape for name, tensor in bare.state_dict().items()}
    assert shapes == {name: tensor.shape for name, tensor in model.state_dict().items()}


def test_loss_is_the_mean_cross_entropy(bases: Bases) -> None:
    model, inputs = make(bases("bert")), batch(bases("bert"))
    labels = torch.tensor([2, 0])
    output = model(**inputs, labels=labels)
    torch.testing.assert_close(output.loss, cross_entropy(output.logits, labels))
    assert model(**inputs).loss is None


def test_the_head_is_drawn_from_the_seed_alone(bases: Bases) -> None:
    before = torch.random.get_rng_state()
    models = [build_network(bases("bert"), HeadConfig.model_validate("mlp"), LABELS, seed=seed) for seed in (1, 1, 2)]
    assert torch.equal(torch.random.get_rng_state(), before)
    first, again, other = (model.head.output.weight for model in models)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_our_heads_start_glorot_uniform_in_the_model_too(kind: str, bases: Bases) -> None:
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


def test_the_encoder_is_the_base_and_has_no_pooler(bases: Bases) -> None:
    model, reference = make(bases("bert")), load_encoder(bases("bert")).state_dict()
    state = model.encoder.state_dict()
    assert state.keys() == reference.keys()
    assert not any("pooler" in name for name in state)
    assert all(torch.equal(state[name], reference[name]) for name in state)


def test_width_and_pooling_follow_the_base_unless_given() -> None:
    config = build_on_meta_device(
        AutoConfig.for_model("bert", hidden_size=48), HeadConfig.model_validate("mlp"), LABELS
    ).config
    assert (config.width, config.pooling) == (48, "cls")
    demo = build_network("demo", HeadConfig.model_validate("linear"), LABELS, seed=0)
    assert demo.config.pooling == "mean"


@pytest.mark.parametrize("kind", KINDS)
def test_pipelines_run(kind: str, bases: Bases, tmp_path: Path) -> None:
    model = make(bases("bert"), kind)
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(bases("bert")).save_pretrained(tmp_path)
    answer = pipeline("text-classification", str(tmp_path), top_k=None)("good movie, I love it!")
    with torch.no_grad():
        inputs = AutoTokenizer.from_pretrained(bases("bert"))("good movie, I love it!", return_tensors="pt")
        chances = model(**inputs).logits.softmax(-1)[0]
    scores = {entry["label"]: entry["score"] for entry in answer[0]}
    assert scores == pytest.approx(dict(zip(LABELS, chances.tolist(), strict=True)), abs=1e-6)


def test_gradients_can_be_checkpointed(bases: Bases) -> None:
    model, inputs = make(bases("bert")).eval(), batch(bases("bert"))
    model.activation_checkpointing_enable()
    model.train()
    model(**inputs, labels=torch.tensor([0, 1])).loss.backward()
    assert model.encoder.embeddings.word_embeddings.weight.grad is not None


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_whole_is_refused(kind: str, bases: Bases, tmp_path: Path) -> None:
    make(bases("bert"), kind).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    name = sorted(weights)[-1]
    for fault in ({name: torch.zeros(1, 1)}, {}):
        rest = {key: tensor for key, tensor in weights.items() if key != name}
        save_file(rest | fault, tmp_path / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(BundleError, match=f"does not fit config.json(.|\n)*{name}"):
            load_network(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(BundleError, match="cannot be read"):
        load_network(tmp_path)


def test_a_base_without_weights_is_refused(bases: Bases, tmp_path: Path) -> None:
    shutil.copy(bases("bert") / "config.json", tmp_path)
    with pytest.raises(BaseModelError, match="holds no weights"):
        build_network(tmp_path, HeadConfig.model_validate("mlp"), LABELS, seed=0)


class OddHead(transformers.BertForSequenceClassification):
    """A family whose head reads what no features of ours hold: the last token."""

    def forward(self, input_ids: Any = None, attention_mask: Any = None, inputs_embeds: Any = None) -> Any:
        hidden = self.bert(input_ids, attention_mask=attention_mask, inputs_embeds=inputs_embeds)[0]
        return transformers.modeling_outputs.SequenceClassifierOutput(logits=self.classifier(hidden[:, -1]))


def test_a_head_that_reads_something_else_is_refused(bases: Bases) -> None:
    model = OddHead.from_pretrained(bases("bert"), num_labels=3).train()
    with pytest.raises(BaseModelError, match="cannot be run apart"):
        extract_head(model)
    assert all(part.training for part in model.modules())


# Fingerprints


@pytest.mark.parametrize("family", ["bert", "distilbert", "albert", "modernbert"])
def test_a_base_has_one_fingerprint_under_every_head(family: str, bases: Bases) -> None:
    assert len({encoder_fingerprint(make(bases(family), kind, seed=len(kind))) for kind in KINDS}) == 1


def test_another_weight_or_config_gives_another_fingerprint(bases: Bases, tmp_path: Path) -> None:
    known = {encoder_fingerprint(make(bases("bert"), "linear"))}
    known.add(encoder_fingerprint(make(bases("bert", seed=1), "linear")))
    folder = Path(shutil.copytree(bases("bert"), tmp_path / "base"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_attention_heads": 2}))
    known.add(encoder_fingerprint(make(folder, "linear")))
    model = make(bases("bert"), "linear")
    with torch.no_grad():
        model.encoder.encoder.layer[1].output.dense.bias[0] += 1e-6
    known.add(encoder_fingerprint(model))
    assert len(known) == 4


def test_class_is_registered() -> None:
    assert AutoConfig.for_model("fullbake").model_type == "fullbake"
    assert EncoderForTextClassification.base_model_prefix == "encoder"
