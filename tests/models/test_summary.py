"""Summaries count parameters exactly, and their shapes agree with a real forward pass."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.bases import FAMILIES
from transformers import AutoModel, BertConfig, DistilBertConfig

from fullbake.config.sections import HeadConfig
from fullbake.core.errors import BaseModelError
from fullbake.models.network import build_network, extract_head
from fullbake.models.summary import list_layers, shapes_from_config, shapes_of_forward_pass, summarize

Bases = Callable[..., Path]
MLP = HeadConfig.model_validate("mlp")
STANDARD = HeadConfig.model_validate("standard")


@pytest.fixture
def distilbert(tmp_path: Path) -> Path:
    """Return a folder that holds DistilBERT's default config and nothing else."""
    DistilBertConfig().save_pretrained(tmp_path)
    return tmp_path


def test_parameters_of_distilbert_alone(distilbert: Path) -> None:
    assert summarize(distilbert).total == 66_362_880


def test_parameters_of_distilbert_finetuned_under_its_standard_head(distilbert: Path) -> None:
    summary = summarize(distilbert, way="finetune", head=STANDARD, num_labels=2)
    assert (summary.total, summary.trainable, summary.non_trainable) == (66_955_010, 66_955_010, 0)


def test_parameters_of_distilbert_frozen_under_an_mlp_head(distilbert: Path) -> None:
    summary = summarize(distilbert, way="frozen", head=MLP, num_labels=2)
    assert (summary.total, summary.trainable, summary.non_trainable) == (67_551_746, 1_185_794, 66_365_952)


def test_parameters_of_bert_alone() -> None:
    assert summarize(BertConfig()).total == 109_482_240
    large = BertConfig(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096)
    assert summarize(large).total == 335_141_888


def test_every_layer_has_a_row(distilbert: Path) -> None:
    rows = summarize(distilbert, way="frozen", head=MLP, num_labels=2).rows
    tokens = ("batch", "tokens", 768)
    assert [(row.name, row.shape) for row in rows[:7]] == [
        ("encoder.embeddings", tokens),
        *((f"encoder.transformer.layer.{layer}", tokens) for layer in range(6)),
    ]
    assert [(row.name, row.kind, row.shape, row.parameters, row.trainable) for row in rows[7:]] == [
        ("head.dropout", "Dropout", ("batch", 768), 0, 0),
        ("head.dense_1", "Linear", ("batch", 768), 590_592, 590_592),
        ("head.norm_1", "BatchNorm1d", ("batch", 768), 3_072, 1_536),
        ("head.relu_1", "ReLU", ("batch", 768), 0, 0),
        ("head.dense_2", "Linear", ("batch", 768), 590_592, 590_592),
        ("head.norm_2", "BatchNorm1d", ("batch", 768), 3_072, 1_536),
        ("head.relu_2", "ReLU", ("batch", 768), 0, 0),
        ("head.output", "Linear", ("batch", 2), 1_538, 1_538),
    ]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("head", [STANDARD, MLP], ids=["standard", "mlp"])
def test_totals_equal_those_of_the_model(family: str, head: HeadConfig, bases: Bases) -> None:
    model = build_network(bases(family), head, ["a", "b", "c"], seed=0)
    statistics = sum(tensor.numel() for name, tensor in model.named_buffers() if "running_" in name)
    everything = sum(parameter.numel() for parameter in model.parameters())
    finetuned = summarize(bases(family), way="finetune", head=head, num_labels=3)
    assert (finetuned.total, finetuned.trainable) == (everything + statistics, everything)
    frozen = summarize(bases(family), way="frozen", head=head, num_labels=3)
    assert frozen.total == finetuned.total
    assert frozen.trainable == sum(parameter.numel() for parameter in extract_head(model).parameters())


@pytest.mark.parametrize("family", FAMILIES)
def test_base_alone_counts_its_pooler(family: str, bases: Bases) -> None:
    reference = AutoModel.from_pretrained(bases(family))
    assert summarize(bases(family)).total == sum(parameter.numel() for parameter in reference.parameters())


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_runs_on_the_meta_device_and_ends_in_logits(family: str, bases: Bases) -> None:
    rows = {row.name: row for row in summarize(bases(family), way="finetune", num_labels=5).rows}
    dense = [row for row in rows.values() if row.kind == "Linear"]
    assert ("batch", 5) in [row.shape for row in dense]
    layers = [row.shape for name, row in rows.items() if name.rpartition(".")[2].isdigit()]
    assert layers
    assert set(layers) == {("batch", "tokens", 32)}


def test_shapes_from_the_config_agree_with_a_forward_pass(bases: Bases) -> None:
    for head in (STANDARD, MLP):
        model = build_network(bases("bert"), head, ["a", "b", "c"], seed=0).to("meta")
        layers = list_layers(model)
        assert shapes_of_forward_pass(model, layers) == shapes_from_config(model, layers)


def test_summary_allocates_no_weights() -> None:
    """A base of 10^12 parameters would not fit anywhere."""
    huge = BertConfig(vocab_size=10**6, hidden_size=10**6 // 10 * 12, num_hidden_layers=1, intermediate_size=8)
    assert summarize(huge).total > 10**12
    assert torch.get_default_device().type == "cpu"


def test_head_reads_the_width_that_the_pooling_gives() -> None:
    rows = {row.name: row for row in summarize("demo", way="frozen", head=MLP, num_labels=8).rows}
    assert rows["head.output"].shape == ("batch", 8)
    double = MLP.model_copy(update={"pooling": "cls+mean"})
    rows = {row.name: row for row in summarize("demo", way="frozen", head=double).rows}
    assert rows["head.dense_1"].parameters == 768 * 384 + 384


def test_base_with_a_pooling_that_is_not_offered_has_a_summary_where_the_head_does_not_read_it(
    bases: Bases, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    shutil.copytree(bases("bert"), base)
    (base / "modules.json").write_text('[{"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}]')
    (base / "1_Pooling").mkdir()
    (base / "1_Pooling" / "config.json").write_text('{"pooling_mode": "weightedmean"}')
    assert summarize(base, way="finetune", head=HeadConfig(kind="standard")).total
    assert summarize(base, way="frozen", head=HeadConfig(kind="linear", pooling="max")).total
    with pytest.raises(BaseModelError, match="weightedmean"):
        summarize(base, way="frozen", head=HeadConfig(kind="linear"))


def test_folder_that_is_no_base_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BaseModelError):
        summarize(tmp_path)
