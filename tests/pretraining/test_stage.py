"""Further pretraining from end to end: from files to a folder, as a stage of a recipe, with a new vocabulary."""

import json
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.bases import make_config, make_tokenizer
from helpers.corpora import make_documents, source_of
from helpers.rows import dataset, make_rows, recipe, write_csv

from fullbake import Classifier, Recipe, adapt, evaluate, further_pretrain
from fullbake.config.pretraining import PretrainingConfig
from fullbake.core import storage
from fullbake.core.errors import BaseModelError, DataError, Interrupted, OutputError
from fullbake.core.hashing import file_sha256
from fullbake.data.splits import divide
from fullbake.models.encoder import load_encoder
from fullbake.models.tokenizer import load_tokenizer
from fullbake.pretraining.documents import DocumentSource
from fullbake.pretraining.forgetting import probe
from fullbake.pretraining.stage import base_with_vocabulary, stage_base
from fullbake.training.checkpoints import Checkpoints

TEXTS = make_documents(30)


Bases = Callable[..., Path]
STAGE = PretrainingConfig(objective="mlm+nsp", steps=6, max_length=32, batch_size=8, learning_rate=1e-3, evaluations=2)
SHORT = "objective=mlm;steps=4;max_length=32;batch_size=8;learning_rate=1e-3;evaluations=2"


def text_file(folder: Path, count: int = 30) -> Path:
    path = folder / "corpus.txt"
    path.write_text("\n\n".join(text.replace(". ", ".\n") for text in make_documents(count)))
    return path


def test_new_base_trains_like_any_other(bases: Bases, tmp_path: Path) -> None:
    out = tmp_path / "new"
    about = further_pretrain(bases("bert"), text_file(tmp_path), out, stage=STAGE, cache_dir=tmp_path / "cache")
    assert about == json.loads((out / "fullbake.json").read_text())
    assert not out.with_name("new.unfinished").exists()
    classifier = adapt(recipe(out), dataset(tmp_path), cache_dir=tmp_path / "cache")
    assert classifier.record.facts["further_pretraining"]["steps"] == 6
    assert classifier.stamps == []


def test_foreign_output_folder_is_never_overwritten(bases: Bases, tmp_path: Path) -> None:
    out = tmp_path / "new"
    out.mkdir()
    (out / "mine").write_text("x")
    with pytest.raises(OutputError):
        further_pretrain(bases("bert"), text_file(tmp_path), out, stage=STAGE, cache_dir=tmp_path / "cache")
    with pytest.raises(DataError, match="there is no corpus"):
        further_pretrain(bases("bert"), [], tmp_path / "other", stage=STAGE)


@pytest.mark.parametrize("after", [1, 4])
def test_interrupted_and_resumed_run_gives_the_same_bits(
    bases: Bases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    corpus, cache = text_file(tmp_path), tmp_path / "cache"

    def run(out: Path) -> str:
        further_pretrain(bases("bert"), corpus, out, stage=STAGE, cache_dir=cache, checkpoint_every="1")
        return file_sha256(out / "model.safetensors")

    whole = run(tmp_path / "whole")
    save = Checkpoints.save

    def save_and_stop(self: Checkpoints, checkpoint: Any) -> None:
        save(self, checkpoint)
        if checkpoint.step == after:
            raise Interrupted(signal.SIGTERM, after, None)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", save_and_stop)
        with pytest.raises(Interrupted):
            run(tmp_path / "cut")
    assert run(tmp_path / "cut") == whole


def test_keep_out_texts_are_removed_or_declared_in_every_score(
    bases: Bases, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = make_rows(40)
    corpus, test = write_csv(tmp_path / "all.csv", rows), write_csv(tmp_path / "test.csv", rows[:7])
    cache, base = tmp_path / "cache", bases("bert")
    clean = further_pretrain(base, corpus, tmp_path / "a", stage=STAGE, keep_out=[test], cache_dir=cache)
    assert clean["corpus"]["held_back_documents"] == 7
    assert clean["transductive"] is False
    stage = STAGE.model_copy(update={"transductive": True})
    transductive = further_pretrain(base, corpus, tmp_path / "b", stage=stage, keep_out=[test], cache_dir=cache)
    assert transductive["corpus"]["documents"] == clean["corpus"]["documents"] + 7
    assert transductive["transductive"] is True
    assert "they stay in the corpus (--transductive)" in caplog.text
    classifier = adapt(recipe(tmp_path / "b"), dataset(tmp_path), out=tmp_path / "bundle", cache_dir=cache)
    scores = evaluate(Classifier.load(tmp_path / "bundle"), dataset(tmp_path))
    assert scores["stamps"] == classifier.stamps
    assert "--transductive" in scores["stamps"][0]
    assert "were used in further pretraining" in (tmp_path / "bundle" / "README.md").read_text()


@pytest.mark.parametrize("way", ["frozen-linear", "finetune"])
def test_recipe_runs_stage_and_way_together(bases: Bases, tmp_path: Path, way: str) -> None:
    chosen = recipe(bases("bert"), way, further_pretraining=SHORT, test=0.2)
    classifier = adapt(chosen, dataset(tmp_path), out=tmp_path / "bundle", cache_dir=tmp_path / "cache")
    facts = Classifier.load(tmp_path / "bundle").record.facts
    assert facts["further_pretraining"]["steps"] == 4
    assert facts["recipe"]["base"] == str(bases("bert"))
    assert Recipe.load(tmp_path / "bundle").stage == chosen.stage
    assert facts["run"] == classifier.record.facts["run"]
    if way == "frozen-linear":
        plain = load_encoder(bases("bert")).state_dict()
        name = "encoder.layer.0.attention.self.query.weight"
        assert not torch.equal(classifier.network.base_model.state_dict()[name], plain[name])


def test_stage_reads_the_training_part_only_and_runs_once(
    bases: Bases, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    chosen = recipe(bases("bert"), further_pretraining=SHORT, test=0.2)
    parts = divide(dataset(tmp_path), chosen.data)
    first = stage_base(chosen, parts, tmp_path / "cache")
    assert storage.read_json(first / "fullbake.json")["corpus"]["documents"] == len(parts.train)
    assert stage_base(chosen, parts, tmp_path / "cache") == first
    assert "found in the cache" in caplog.text
    held = replace(parts, train=replace(parts.train, indices=parts.train.indices[:-3]))
    assert stage_base(chosen, held, tmp_path / "cache") != first


def test_texts_of_other_parts_are_removed_from_the_files_of_a_stage(bases: Bases, tmp_path: Path) -> None:
    rows = make_rows(60)
    every = write_csv(tmp_path / "every.csv", rows)
    chosen = recipe(bases("bert"), further_pretraining=f"{SHORT};corpus={every}", test=0.2)
    parts = divide(dataset(tmp_path), chosen.data)
    about = storage.read_json(stage_base(chosen, parts, tmp_path / "cache") / "fullbake.json")
    others = 60 - len(parts.train)
    assert about["corpus"]["held_back_documents"] == others
    assert about["corpus"]["documents"] == 2 * len(parts.train)


# A vocabulary for a base that has none


def make_bare_base(folder: Path, size: int = 200) -> Path:
    """Return a base that is a config.json alone, with a vocabulary of so many tokens."""
    config = make_config("bert", make_tokenizer("bert"), hidden_size=32, layers=2, positions=64)
    config.vocab_size = size
    config.save_pretrained(folder)
    return folder


def test_base_with_a_tokenizer_is_used_unchanged(bases: Callable[..., Path], tmp_path: Path) -> None:
    base = bases("bert")
    assert base_with_vocabulary(base, [source_of(TEXTS)], tmp_path) == str(base)
    assert base_with_vocabulary("owner/name", [source_of(TEXTS)], tmp_path) == "owner/name"


def test_vocabulary_is_trained_once_on_the_text(tmp_path: Path) -> None:
    base, read = make_bare_base(tmp_path / "bare"), []
    whole = source_of(TEXTS)
    counted = DocumentSource(whole.name, whole.fingerprint, lambda: read.append(1) or whole.read())  # type: ignore[func-returns-value]
    place = base_with_vocabulary(base, [counted], tmp_path / "cache")
    assert base_with_vocabulary(base, [counted], tmp_path / "cache") == place
    assert read == [1, 1]  # once for the characters, once for the pieces
    tokenizer = load_tokenizer(place)
    assert 100 < len(tokenizer) <= 200
    ids: Any = tokenizer(TEXTS[0])["input_ids"]
    assert tokenizer.unk_token_id not in ids
    assert (ids[0], ids[-1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id)
    assert tokenizer.mask_token == "[MASK]"
    assert json.loads((Path(place) / "config.json").read_text())["vocab_size"] == len(tokenizer)


def test_vocabulary_is_the_same_every_time(tmp_path: Path) -> None:
    base = make_bare_base(tmp_path / "bare", 120)
    places = [base_with_vocabulary(base, [source_of(TEXTS)], tmp_path / name) for name in "abc"]
    first, *others = (load_tokenizer(place).get_vocab() for place in places)
    assert all(vocabulary == first for vocabulary in others)


def test_vocabulary_covers_the_letters_of_its_text(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    letters = [chr(0x4E00 + number) for number in range(2_000)]  # twice as many as the library's own limit
    texts = ["".join(letters[start : start + 20]) for start in range(0, 2_000, 20)] * 2
    place = base_with_vocabulary(make_bare_base(tmp_path / "bare", 3_000), [source_of(texts)], tmp_path / "cache")
    tokenizer = load_tokenizer(place)
    ids: Any = tokenizer(texts)["input_ids"]
    assert sum(row.count(tokenizer.unk_token_id) for row in ids) <= 0.0005 * sum(map(len, ids)) + 1
    assert f"{len(tokenizer):,} of 3,000 pieces were made" in caplog.text
    assert json.loads((Path(place) / "config.json").read_text())["vocab_size"] == len(tokenizer) < 2_100


def test_vocabulary_without_text_or_too_small_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no text to learn a vocabulary from"):
        base_with_vocabulary(make_bare_base(tmp_path / "a"), [source_of([])], tmp_path / "cache")
    with pytest.raises(BaseModelError, match=r"(?s)too small for the characters.*Expected at least \d\d"):
        base_with_vocabulary(make_bare_base(tmp_path / "b", 8), [source_of(TEXTS)], tmp_path / "cache")


def test_base_from_random_weights_has_nothing_to_forget(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    base, out = make_bare_base(tmp_path / "bare"), tmp_path / "new"
    stage = STAGE.model_copy(update={"init": "random"})
    about = further_pretrain(base, text_file(tmp_path), out, stage=stage, cache_dir=tmp_path / "cache")
    assert about["forgotten"] is None
    assert "general_mlm_loss" not in about["start"] | about["history"][-1]
    assert "nothing to forget" in caplog.text
    with pytest.raises(BaseModelError, match="trained from random weights"):
        probe(out)
    asked = stage.model_copy(update={"probe_text": str(text_file(tmp_path))})
    about = further_pretrain(base, text_file(tmp_path), tmp_path / "b", stage=asked, cache_dir=tmp_path / "cache")
    assert about["forgotten"] is not None
