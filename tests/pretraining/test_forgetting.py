"""Forgetting: nothing for a base that is as it was, something for one that was disturbed."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from helpers.bases import make_base
from helpers.rows import train

from fullbake.core.errors import BaseModelError, DataError
from fullbake.models.encoder import load_encoder
from fullbake.models.masked_lm import load_language_model, save_language_model
from fullbake.models.tokenizer import load_mlm_tokenizer
from fullbake.pretraining import forgetting
from fullbake.pretraining.forgetting import (
    corpus_tokenizer_of,
    general_text,
    make_masking,
    make_phase,
    open_probe,
    probe,
)

Bases = Callable[..., Path]


@pytest.fixture(scope="module")
def headed(bases: Bases, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base with a masked-LM head of its own."""
    folder: Path = tmp_path_factory.mktemp("headed") / "base"
    shutil.copytree(bases("bert"), folder)
    save_language_model(load_language_model(folder, pairs=False, seed=0), folder, None)
    return folder


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A little general text."""
    path: Path = tmp_path_factory.mktemp("text") / "general.txt"
    path.write_text("The man and the woman see the old house.\n\nNever go home without money.\n\nPlay the game.\n")
    return str(path)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where heads are kept; those trained here learn from few lessons."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forgetting, "HEAD_MASKINGS", 1)
        yield tmp_path_factory.mktemp("heads")


def disturbed(encoder: Any, by: float) -> Any:
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        for parameter in encoder.parameters():
            parameter.add_(torch.randn_like(parameter) * by)
    return encoder


def test_the_bundled_sentences_are_some_three_hundred() -> None:
    documents = list(general_text().read())
    assert sum(len(document.paragraphs) for document in documents) >= 250


def test_a_base_with_a_head_is_measured_with_it(headed: Path, text: str, tmp_path: Path) -> None:
    found = open_probe(headed, text=text, cache_dir=tmp_path)
    assert found.own_head
    assert not (tmp_path / "probes").exists()
    loss = found.measure(load_encoder(headed))["mlm_loss"]
    assert loss == pytest.approx(found.measure(load_encoder(headed))["mlm_loss"], abs=1e-6)
    assert found.measure(disturbed(load_encoder(headed), 0.3))["mlm_loss"] != pytest.approx(loss, abs=1e-3)


def test_nothing_is_forgotten_by_a_base_that_is_as_it_was(headed: Path, text: str, tmp_path: Path) -> None:
    found = probe(headed, text=text, cache_dir=tmp_path)
    assert found["forgotten"] == 0
    assert found["before"] == found["after"]
    assert found["own_head"]
    assert found["words"] > 5
    assert probe(headed, base=headed, text=text)["forgotten"] == 0


def test_a_new_base_of_a_line_with_heads_is_measured_with_its_own(headed: Path, text: str, tmp_path: Path) -> None:
    new = tmp_path / "new"
    shutil.copytree(headed, new)
    loaded = load_language_model(headed, pairs=False, seed=0)
    disturbed(loaded.network, 0.2)
    save_language_model(loaded, new, headed)
    found = probe(new, base=headed, text=text)
    assert found["forgotten"] != pytest.approx(0, abs=1e-3)
    assert found["after"] == pytest.approx(open_probe(new, text=text).measure(loaded.network.model.base_model))


def test_a_head_is_trained_once_for_a_base_that_has_none(bases: Bases, cache: Path, text: str) -> None:
    first = open_probe(bases("bert"), text=text, cache_dir=cache)
    assert not first.own_head
    fresh = load_language_model(bases("bert"), pairs=False, seed=0).network
    name = "cls.predictions.transform.dense.weight"
    assert not torch.equal(first.head.model.state_dict()[name], fresh.model.state_dict()[name])
    for name, tensor in load_encoder(bases("bert")).state_dict().items():
        assert torch.equal(first.head.model.state_dict()[f"bert.{name}"], tensor)
    (entry,) = [path for path in (cache / "probes").iterdir() if path.is_dir()]
    made = (entry / "head.safetensors").stat().st_mtime_ns
    again = open_probe(bases("bert"), text=text, cache_dir=cache)
    assert (entry / "head.safetensors").stat().st_mtime_ns == made
    encoder = load_encoder(bases("bert"))
    assert first.measure(encoder) == again.measure(encoder)


def test_what_a_classifier_forgot(bases: Bases, cache: Path, tmp_path: Path, text: str) -> None:
    base = bases("bert")
    for name, way in (("tuned", "finetune"), ("frozen", "frozen-linear")):
        (tmp_path / name).mkdir()
        train(base, tmp_path / name, way).save(tmp_path / name / "bundle")
    tuned, frozen = (probe(tmp_path / name / "bundle", text=text, cache_dir=cache) for name in ("tuned", "frozen"))
    assert tuned["base"] == str(base)
    assert tuned["forgotten"] != pytest.approx(0, abs=1e-4)
    assert frozen["forgotten"] == pytest.approx(0, abs=1e-6)


def test_general_text_without_text_is_refused(headed: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(DataError, match=r"empty\.txt: there is no text"):
        open_probe(headed, text=str(tmp_path / "empty.txt"))


# What a base's tokenizer says


def test_a_tokenizer_without_a_mask_token_is_refused(bases: Bases, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(bases("modernbert"), base)
    path = base / "tokenizer_config.json"
    path.write_text(path.read_text().replace('"mask_token": "[MASK]"', '"mask_token": null'))
    with pytest.raises(BaseModelError, match="has no mask token"):
        load_mlm_tokenizer(base)


@pytest.mark.parametrize("family", ["bert", "roberta", "deberta-v3"])
def test_what_is_read_off_a_tokenizer(bases: Bases, family: str) -> None:
    own = load_mlm_tokenizer(bases(family))
    how = make_masking(own, probability=0.3, whole_words=True)
    assert (how.probability, how.mask, how.random, how.whole_words) == (0.3, 0.8, 0.1, True)
    assert set(how.vocabulary.tolist()) == set(range(len(own))) - set(own.all_special_ids)
    assert own.convert_ids_to_tokens(how.mask_id) == own.mask_token
    assert corpus_tokenizer_of(own, "de").language == "de"
    found = make_phase(own, 7, 64)
    assert (found.steps, found.single.room, found.has_token_type_ids) == (7, 62, family == "bert")
    assert found.pair.room == 64 - (4 if family == "roberta" else 3)


def test_the_length_is_bounded_by_the_bases_positions(tmp_path: Path, text: str) -> None:
    short = make_base("bert", tmp_path / "short", positions=16)
    save_language_model(load_language_model(short, pairs=False, seed=0), short, None)
    found = open_probe(short, text=text)
    assert max(batch.encoded.lengths.max() for batch in found.eval_set.batches) <= 16
    assert isinstance(found.head.model, transformers.BertForMaskedLM)
