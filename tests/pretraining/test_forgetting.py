"""Forgetting is zero for an unchanged base and not zero for a changed one."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from helpers.bases import make_base
from helpers.rows import train

from fullbake.core import runtime
from fullbake.core.errors import BaseModelError, DataError
from fullbake.models.encoder import load_encoder
from fullbake.models.masked_lm import load_language_model, save_language_model
from fullbake.models.tokenizer import load_mlm_tokenizer
from fullbake.pretraining.forgetting import (
    corpus_tokenizer_of,
    general_text,
    has_trained_head,
    make_masking,
    make_phase,
    open_probe,
    probe,
)

Bases = Callable[..., Path]


@pytest.fixture(scope="module")
def base_with_head(bases: Bases, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base that has a masked-LM head."""
    folder: Path = tmp_path_factory.mktemp("with_head") / "base"
    shutil.copytree(bases("bert"), folder)
    save_language_model(load_language_model(folder, pairs=False, seed=0), folder, None)
    return folder


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file with little general text."""
    path: Path = tmp_path_factory.mktemp("text") / "general.txt"
    path.write_text("The man and the woman see the old house.\n\nNever go home without money.\n\nPlay the game.\n")
    return str(path)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache for all tests here, so that the head of a base is trained once."""
    folder: Path = tmp_path_factory.mktemp("heads")
    return folder


def disturbed(encoder: Any, by: float) -> Any:
    """Add random noise to all weights in place."""
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        for parameter in encoder.parameters():
            parameter.add_(torch.randn_like(parameter) * by)
    return encoder


def test_about_three_hundred_sentences_are_bundled() -> None:
    documents = list(general_text().read())
    assert sum(len(document.paragraphs) for document in documents) >= 250


def test_base_with_a_head_is_measured_with_it(base_with_head: Path, text: str, tmp_path: Path) -> None:
    found = open_probe(base_with_head, text=text, cache_dir=tmp_path)
    assert found.own_head
    assert not (tmp_path / "probes").exists()
    loss = found.measure(load_encoder(base_with_head))["mlm_loss"]
    assert loss == pytest.approx(found.measure(load_encoder(base_with_head))["mlm_loss"], abs=1e-6)
    assert found.measure(disturbed(load_encoder(base_with_head), 0.3))["mlm_loss"] != pytest.approx(loss, abs=1e-3)


def test_unchanged_base_has_forgotten_nothing(base_with_head: Path, text: str, tmp_path: Path) -> None:
    found = probe(base_with_head, text=text, cache_dir=tmp_path)
    assert found["forgotten"] == 0
    assert found["before"] == found["after"]
    assert found["own_head"]
    assert found["words"] > 5
    assert probe(base_with_head, base=base_with_head, text=text)["forgotten"] == 0


def test_new_base_is_measured_with_its_own_head_if_the_old_base_had_one(
    base_with_head: Path, text: str, tmp_path: Path
) -> None:
    new = tmp_path / "new"
    shutil.copytree(base_with_head, new)
    loaded = load_language_model(base_with_head, pairs=False, seed=0)
    disturbed(loaded.network, 0.2)
    save_language_model(loaded, new, base_with_head)
    found = probe(new, base=base_with_head, text=text)
    assert found["forgotten"] != pytest.approx(0, abs=1e-3)
    assert found["after"] == pytest.approx(open_probe(new, text=text).measure(loaded.network.model.base_model))


def test_head_is_trained_once_for_a_base_that_has_none(bases: Bases, cache: Path, text: str) -> None:
    assert not has_trained_head(bases("bert"), cache)
    first = open_probe(bases("bert"), text=text, cache_dir=cache)
    assert has_trained_head(bases("bert"), cache)
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


def test_finetuned_classifier_forgets_and_frozen_one_does_not(
    bases: Bases, cache: Path, tmp_path: Path, text: str
) -> None:
    base = bases("bert")
    for name, way in (("tuned", "finetune"), ("frozen", "frozen-linear")):
        (tmp_path / name).mkdir()
        train(base, tmp_path / name, way).save(tmp_path / name / "bundle")
    tuned, frozen = (probe(tmp_path / name / "bundle", text=text, cache_dir=cache) for name in ("tuned", "frozen"))
    assert tuned["base"] == str(base)
    assert tuned["forgotten"] != pytest.approx(0, abs=1e-4)
    assert frozen["forgotten"] == pytest.approx(0, abs=1e-6)


def test_empty_file_of_general_text_is_refused(base_with_head: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(DataError, match=r"empty\.txt: there is no text"):
        open_probe(base_with_head, text=str(tmp_path / "empty.txt"))


# What is read from a tokenizer


def test_tokenizer_without_a_mask_token_is_refused(bases: Bases, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(bases("modernbert"), base)
    path = base / "tokenizer_config.json"
    path.write_text(path.read_text().replace('"mask_token": "[MASK]"', '"mask_token": null'))
    with pytest.raises(BaseModelError, match="has no mask token"):
        load_mlm_tokenizer(base)


@pytest.mark.parametrize("family", ["bert", "roberta", "deberta-v3"])
def test_masking_and_phase_of_a_tokenizer(bases: Bases, family: str) -> None:
    own = load_mlm_tokenizer(bases(family))
    made = make_masking(own, probability=0.3, whole_words=True)
    assert (made.probability, made.mask, made.random, made.whole_words) == (0.3, 0.8, 0.1, True)
    assert set(made.vocabulary.tolist()) == set(range(len(own))) - set(own.all_special_ids)
    assert own.convert_ids_to_tokens(made.mask_id) == own.mask_token
    assert corpus_tokenizer_of(own, "de").language == "de"
    found = make_phase(own, 7, 64)
    assert (found.steps, found.single.room, found.has_token_type_ids) == (7, 62, family == "bert")
    assert found.pair.room == 64 - (4 if family == "roberta" else 3)


def test_rows_are_no_longer_than_the_base_can_read(tmp_path: Path, text: str) -> None:
    short = make_base("bert", tmp_path / "short", positions=16)
    save_language_model(load_language_model(short, pairs=False, seed=0), short, None)
    found = open_probe(short, text=text)
    assert max(batch.encoded.lengths.max() for batch in found.eval_set.batches) <= 16
    assert isinstance(found.head.model, transformers.BertForMaskedLM)


def test_trained_head_does_not_depend_on_the_threads_or_the_language_of_the_run(
    bases: Bases, tmp_path: Path, text: str
) -> None:
    heads = []
    with runtime.restored_threads():
        for number, language in ((1, "en"), (2, "de")):
            runtime.set_threads(number)
            found = open_probe(bases("bert"), text=text, cache_dir=tmp_path / language, language=language)
            heads.append([parameter.detach().clone() for parameter in found.head.head_parameters()])
            assert runtime.threads() == number
    assert all(torch.equal(one, other) for one, other in zip(*heads, strict=True))
