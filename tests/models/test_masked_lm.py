"""Losses equal those of transformers' own classes, and what is saved loads in them with nothing missing."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from helpers.bases import FAMILIES, make_base, model_type
from helpers.corpora import load_tokenizer, make_documents, masking, phase, shard_of
from safetensors.numpy import load_file, save_file

from fullbake.core.errors import BaseModelError
from fullbake.core.rng import rng_stream
from fullbake.models.collation import collate
from fullbake.models.families import family_of
from fullbake.models.masked_lm import (
    PAIR_FILE,
    LoadedLanguageModel,
    load_language_model,
    new_language_model,
    save_language_model,
)
from fullbake.models.sentence_folder import read_sentence_folder
from fullbake.pretraining.data_loader import MaskedBatch, build_examples, masked_batch
from fullbake.pretraining.examples import NO_PAIR
from fullbake.pretraining.mlm import MaskedLMLoss, masked_lm_loss

Bases = Callable[..., Path]
PRETRAINING = {
    family: getattr(transformers, names.model_class)
    for family in FAMILIES
    if (names := family_of(model_type(family)).pair_head) is not None
}
"""Family -> the class in transformers that has its masked-LM head and its pair head, if there is one."""

POOLED = ("bert", "roberta", "albert", "mpnet", "xlm-roberta")


@pytest.fixture
def saved(bases: Bases, tmp_path: Path) -> Callable[..., tuple[LoadedLanguageModel, Path]]:
    """Return `saved(family, pairs)`, which gives a base under its heads and the folder it was written to."""

    def save(family: str, pairs: bool) -> tuple[LoadedLanguageModel, Path]:
        loaded = load_language_model(bases(family), pairs=pairs, seed=3)
        save_language_model(loaded, tmp_path / "saved", bases(family))
        return loaded, tmp_path / "saved"

    return save


def batch_of(family: str, objective: str) -> tuple[MaskedBatch, int]:
    """Return a masked batch of rows of very different length, and the pad id."""
    own = load_tokenizer(family)
    shard = shard_of(make_documents(8), own)
    how = phase(own, 48)
    examples = build_examples(shard, shard.documents(), how, objective, 0.5, rng_stream(0))  # type: ignore[arg-type]
    rows = np.arange(len(examples))
    return masked_batch(shard, examples, how, rows, masking(own, probability=0.3), rng_stream(1)), own.pad_token_id


def inputs_of(batch: MaskedBatch, pad_id: int) -> dict[str, torch.Tensor]:
    """Return the batch as transformers takes it, with its labels: -100 where nothing is predicted."""
    rows = np.arange(len(batch.rows))
    inputs = collate(batch.encoded, rows, pad_id=pad_id)
    labels = torch.full_like(inputs["input_ids"], -100)
    for row, (start, end) in enumerate(zip(batch.encoded.offsets[:-1], batch.encoded.offsets[1:], strict=True)):
        chosen = torch.from_numpy(batch.chosen[start:end])
        labels[row, : end - start][chosen] = torch.from_numpy(batch.targets[start:end].astype(np.int64))[chosen]
    return inputs | {"labels": labels}


def losses_of(loaded: LoadedLanguageModel, batch: MaskedBatch, pad_id: int) -> MaskedLMLoss:
    """Return the summed losses of the whole batch, without gradients."""
    with torch.no_grad():
        return masked_lm_loss(loaded.network, batch, np.arange(len(batch.rows)), pad_id)


# Losses


@pytest.mark.parametrize("family", FAMILIES)
def test_masked_lm_loss_equals_transformers(saved: Any, family: str) -> None:
    loaded, folder = saved(family, False)
    batch, pad_id = batch_of(family, "mlm")
    found = losses_of(loaded, batch, pad_id)
    model = transformers.AutoModelForMaskedLM.from_pretrained(folder).eval()
    with torch.no_grad():
        expected = model(**inputs_of(batch, pad_id)).loss.item()
    assert found.word_loss.item() / batch.chosen.sum() == pytest.approx(expected, abs=1e-5)
    assert found.pair_loss.item() == 0


@pytest.mark.parametrize(("family", "objective"), [("bert", "mlm+nsp"), ("bert", "mlm+sop"), ("albert", "mlm+sop")])
def test_loss_with_pairs_equals_transformers(saved: Any, family: str, objective: str) -> None:
    loaded, folder = saved(family, True)
    batch, pad_id = batch_of(family, objective)
    pairs = (batch.pair_labels != NO_PAIR).sum()
    assert 0 < pairs < len(batch.rows)
    found = losses_of(loaded, batch, pad_id)
    own = found.word_loss.item() / batch.chosen.sum() + found.pair_loss.item() / pairs
    model, inputs = PRETRAINING[family].from_pretrained(folder).eval(), inputs_of(batch, pad_id)
    name = "next_sentence_label" if family == "bert" else "sentence_order_label"
    with torch.no_grad():
        expected = model(**inputs, **{name: torch.from_numpy(batch.pair_labels)}).loss.item()
    assert own == pytest.approx(expected, abs=1e-5)


def test_gradients_with_pairs_equal_transformers(saved: Any) -> None:
    loaded, folder = saved("bert", True)
    batch, pad_id = batch_of("bert", "mlm+nsp")
    found = masked_lm_loss(loaded.network, batch, np.arange(len(batch.rows)), pad_id)
    pairs = int((batch.pair_labels != NO_PAIR).sum())
    (found.word_loss / int(batch.chosen.sum()) + found.pair_loss / pairs).backward()
    model = transformers.BertForPreTraining.from_pretrained(folder).eval()
    labels = torch.from_numpy(batch.pair_labels)
    model(**inputs_of(batch, pad_id), next_sentence_label=labels).loss.backward()
    expected = {name: parameter.grad for name, parameter in model.named_parameters()}
    own = {name.removeprefix("model."): parameter.grad for name, parameter in loaded.network.named_parameters()}
    own["bert.pooler.dense.weight"] = own.pop("pair.dense.weight")
    own["cls.seq_relationship.weight"] = own.pop("pair.output.weight")
    for name in own.keys() & expected.keys():
        assert torch.allclose(own[name], expected[name], atol=1e-6), name
    assert len(own.keys() & expected.keys()) > len(expected) - 3


@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in PRETRAINING])
def test_families_without_a_pair_head_judge_pairs_from_the_first_token(saved: Any, family: str) -> None:
    loaded, _ = saved(family, True)
    batch, pad_id = batch_of(family, "mlm+nsp")
    pair = loaded.network.pair
    assert pair is not None
    inputs = inputs_of(batch, pad_id)
    inputs.pop("labels")
    with torch.no_grad():
        first = loaded.network.hidden(inputs)[:, 0]
        logits = pair.output(torch.tanh(pair.dense(first)))
    labels = torch.from_numpy(batch.pair_labels)
    expected = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
    assert losses_of(loaded, batch, pad_id).pair_loss.item() == pytest.approx(expected.item(), abs=1e-4)


# Saving


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("pairs", [False, True])
def test_saved_model_loads_with_nothing_missing(saved: Any, family: str, pairs: bool) -> None:
    loaded, folder = saved(family, pairs)
    classes = [transformers.AutoModel, transformers.AutoModelForMaskedLM]
    classes += [PRETRAINING[family]] if pairs and family in PRETRAINING else []
    for one in classes:
        _, info = one.from_pretrained(folder, output_loading_info=True)
        assert not info["missing_keys"]
        assert not info["mismatched_keys"]
    assert (folder / PAIR_FILE).is_file() == (pairs and family not in PRETRAINING)
    again = load_language_model(folder, pairs=pairs, seed=4)
    assert again.own_head
    assert again.own_pair == pairs
    for name, tensor in loaded.network.state_dict().items():
        assert torch.equal(tensor, again.network.state_dict()[name]), name


@pytest.mark.parametrize("family", FAMILIES)
def test_saved_encoder_is_the_trained_one(bases: Bases, family: str, tmp_path: Path) -> None:
    loaded = load_language_model(bases(family), pairs=False, seed=0)
    with torch.no_grad():
        for parameter in loaded.network.parameters():
            parameter.mul_(1.01)
    save_language_model(loaded, tmp_path / "saved", bases(family))
    ids = torch.arange(5, 15).reshape(1, 10)
    model = transformers.AutoModel.from_pretrained(tmp_path / "saved").eval()
    with torch.no_grad():
        assert torch.allclose(model(input_ids=ids).last_hidden_state, loaded.network.hidden({"input_ids": ids}))


@pytest.mark.parametrize("family", POOLED)
def test_pooler_that_is_not_trained_is_saved_unchanged(bases: Bases, saved: Any, family: str) -> None:
    _, folder = saved(family, False)
    before, after = (load_file(place / "model.safetensors") for place in (bases(family), folder))
    names = [name for name in before if "pooler" in name]
    assert names
    for name in names:
        (there,) = [other for other in after if other.endswith(name)]
        assert (before[name] == after[there]).all()


@pytest.mark.parametrize("family", PRETRAINING)
def test_pair_head_that_is_not_trained_is_saved_unchanged(bases: Bases, tmp_path: Path, family: str) -> None:
    first = load_language_model(bases(family), pairs=True, seed=0)
    save_language_model(first, tmp_path / "paired", bases(family))
    plain = load_language_model(tmp_path / "paired", pairs=False, seed=1)
    assert (plain.own_head, plain.own_pair) == (True, True)
    save_language_model(plain, tmp_path / "plain", tmp_path / "paired")
    _, info = PRETRAINING[family].from_pretrained(tmp_path / "plain", output_loading_info=True)
    assert not info["missing_keys"]
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("paired", "plain"))
    assert before.keys() == after.keys()
    assert all((before[name] == after[name]).all() for name in before)


def test_pair_head_in_a_file_of_its_own_is_saved_unchanged(bases: Bases, tmp_path: Path) -> None:
    save_language_model(load_language_model(bases("roberta"), pairs=True, seed=0), tmp_path / "a", None)
    save_language_model(load_language_model(tmp_path / "a", pairs=False, seed=1), tmp_path / "b", None)
    one, two = (load_file(tmp_path / name / PAIR_FILE) for name in "ab")
    assert one.keys() == two.keys()
    assert all((one[name] == two[name]).all() for name in one)


def test_base_without_pooler_is_saved_without_pooler(bases: Bases, tmp_path: Path) -> None:
    base = bases("bert", pooler=False)
    save_language_model(load_language_model(base, pairs=False, seed=0), tmp_path / "a", base)
    assert not [name for name in load_file(tmp_path / "a" / "model.safetensors") if "pooler" in name]


def make_sentence_base(base: Path, folder: Path, **files: str) -> Path:
    """Copy a base into a folder that pools by the mean; `files` are more files by their names without `.json`."""
    shutil.copytree(base, folder)
    types = {"": "Transformer", "parts/1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    modules = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in types.items()]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "parts" / "1_Pooling").mkdir(parents=True)
    (folder / "parts" / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    for name, content in files.items():
        (folder / f"{name}.json").write_text(content)
    return folder


@pytest.mark.parametrize(
    ("files", "length"),
    [
        ({"sentence_bert_config": '{"max_seq_length": 16}'}, 16),
        ({"sentence_roberta_config": '{"max_seq_length": 16}'}, 16),
        ({"sentence_bert_config": '{"transformer_task": "feature-extraction"}'}, 24),
        ({}, 24),
    ],
    ids=str,
)
def test_settings_of_a_sentence_folder_are_copied(
    files: dict[str, str], length: int, bases: Bases, tmp_path: Path
) -> None:
    """Old versions of sentence-transformers named the file of the length after the family, new ones write none."""
    base = make_sentence_base(bases("roberta"), tmp_path / "base", **files)
    tokenizer = json.loads((base / "tokenizer_config.json").read_text()) | {"model_max_length": 24}
    (base / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    save_language_model(load_language_model(base, pairs=False, seed=0), tmp_path / "new", base)
    (tmp_path / "new" / "tokenizer_config.json").write_text('{"model_max_length": 512}')  # as pretraining writes it
    found = read_sentence_folder(tmp_path / "new")
    assert (found.pooling, found.max_length) == ("mean", length)


def test_sentence_folder_that_points_elsewhere_is_refused_before_work(bases: Bases, tmp_path: Path) -> None:
    base = make_sentence_base(bases("bert"), tmp_path / "base")
    (base / "modules.json").write_text('[{"path": "../outside", "type": "sentence_transformers.models.Pooling"}]')
    with pytest.raises(BaseModelError, match="outside"):
        load_language_model(base, pairs=False, seed=0)


def test_layer_whose_weights_are_a_pickle_is_warned_of(
    bases: Bases, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base = make_sentence_base(bases("bert"), tmp_path / "base")
    modules = json.loads((base / "modules.json").read_text())
    modules.append({"path": "3_Dense", "type": "sentence_transformers.models.Dense"})
    (base / "modules.json").write_text(json.dumps(modules))
    (base / "3_Dense").mkdir()
    (base / "3_Dense" / "pytorch_model.bin").write_bytes(b"")
    save_language_model(load_language_model(base, pairs=False, seed=0), tmp_path / "new", base)
    assert "3_Dense of the base holds no model.safetensors" in caplog.text


# New heads


def test_missing_head_is_drawn_from_the_seed_and_tied_to_the_embeddings(bases: Bases) -> None:
    one, two, other = (load_language_model(bases("bert"), pairs=True, seed=seed) for seed in (0, 0, 1))
    assert not one.own_head
    assert not one.own_pair
    model: Any = one.network.model
    assert model.cls.predictions.decoder.weight is model.bert.embeddings.word_embeddings.weight
    names = ["model.cls.predictions.transform.dense.weight", "pair.output.weight"]
    for name in names:
        assert torch.equal(one.network.state_dict()[name], two.network.state_dict()[name])
        assert not torch.equal(one.network.state_dict()[name], other.network.state_dict()[name])
    ours = {id(parameter) for parameter in one.network.head_parameters()}
    assert id(model.bert.embeddings.word_embeddings.weight) not in ours
    assert id(model.cls.predictions.bias) in ours


def test_new_pair_head_of_bert_starts_from_the_pooler(bases: Bases) -> None:
    loaded = load_language_model(bases("bert"), pairs=True, seed=0)
    assert loaded.network.pair is not None
    pooler = load_file(bases("bert") / "model.safetensors")["pooler.dense.weight"]
    assert (loaded.network.pair.dense.weight.detach().numpy() == pooler).all()


def test_loading_does_not_change_torchs_generator(bases: Bases) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    load_language_model(bases("bert"), pairs=True, seed=0)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("family", ["bert", "albert", "roberta"])
def test_new_language_model_depends_on_the_seed_and_saves_whole(bases: Bases, family: str, tmp_path: Path) -> None:
    config = transformers.AutoConfig.from_pretrained(bases(family))
    one, two, other = (new_language_model(config, pairs=True, seed=seed) for seed in (0, 0, 1))
    states = [loaded.network.state_dict() for loaded in (one, two, other)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert any(not torch.equal(states[0][name], states[2][name]) for name in states[0])
    save_language_model(one, tmp_path / "new", None)
    _, info = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "new", output_loading_info=True)
    assert not info["missing_keys"]


def test_head_can_be_put_on_another_encoder(bases: Bases, tmp_path: Path) -> None:
    loaded = load_language_model(bases("bert"), pairs=False, seed=0)
    other = transformers.AutoModel.from_pretrained(make_base("bert", tmp_path / "other", seed=9)).eval()
    moved = loaded.network.with_encoder(other)
    ids = torch.arange(5, 15).reshape(1, 10)
    with torch.no_grad():
        states = other(input_ids=ids).last_hidden_state
        assert torch.equal(moved.hidden({"input_ids": ids}), states)
        assert torch.equal(moved.word_logits(states[0]), loaded.network.word_logits(states[0]))
    assert torch.equal(loaded.network.hidden({"input_ids": ids}), loaded.network.hidden({"input_ids": ids}))


def test_base_that_lacks_encoder_weights_is_refused(bases: Bases, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(bases("bert"), base)
    weights = load_file(base / "model.safetensors")
    weights.pop("encoder.layer.1.output.dense.weight")
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BaseModelError, match="lacks 1 of the weights"):
        load_language_model(base, pairs=False, seed=0)


def test_folder_without_weights_is_refused(bases: Bases, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(bases("bert"), base)
    (base / "model.safetensors").unlink()
    with pytest.raises(BaseModelError, match="the folder holds no weights"):
        load_language_model(base, pairs=False, seed=0)
