"""What a config.json says of how a model was once called changes nothing; what it leaves open is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from helpers.bases import FAMILIES, make_other_base
from helpers.rows import train

from fullbake import Classifier
from fullbake.core import storage
from fullbake.core.errors import BaseModelError
from fullbake.models.encoder import load_encoder
from fullbake.models.masked_lm import load_language_model
from fullbake.models.network import encoder_fingerprint
from fullbake.models.pretrained import load_config
from fullbake.models.switches import check_decided, set_switches

Bases = Callable[..., Path]
IDS = torch.arange(5, 29).reshape(2, 12)
SWITCHES = {
    "return_dict": False,
    "output_hidden_states": True,
    "output_attentions": True,
    "torchscript": True,
    "attn_implementation": "eager",
    "chunk_size_feed_forward": 5,
    "add_cross_attention": True,
}


def change_config(base: Path, folder: Path, **fields: Any) -> Path:
    """Copy a base into a folder with other fields in its config.json."""
    shutil.copytree(base, folder)
    config = json.loads((folder / "config.json").read_text())
    storage.write_json(folder / "config.json", config | fields)
    return folder


@pytest.mark.parametrize("family", FAMILIES)
def test_switches_in_the_config_change_nothing(family: str, bases: Bases, tmp_path: Path) -> None:
    switched = change_config(bases(family), tmp_path / "base", **SWITCHES)
    found, expected = load_encoder(switched), load_encoder(bases(family))
    with torch.no_grad():
        output = found(IDS)
        assert torch.equal(output.last_hidden_state, expected(IDS).last_hidden_state)
    assert output.hidden_states is None
    assert encoder_fingerprint(found) == encoder_fingerprint(expected)
    load_language_model(switched, pairs=True, seed=0)


def test_attention_of_a_library_that_is_missing_is_not_asked_for(bases: Bases, tmp_path: Path) -> None:
    switched = change_config(bases("bert"), tmp_path / "base", attn_implementation="flash_attention_2")
    assert load_encoder(switched).config._attn_implementation == "sdpa"


@pytest.mark.parametrize("name", ["frozen-linear", "finetune"])
def test_classifier_on_a_base_with_switches_survives_a_round_trip(name: str, bases: Bases, tmp_path: Path) -> None:
    switched = change_config(bases("bert"), tmp_path / "base", **SWITCHES)
    classifier = train(switched, tmp_path, name)
    classifier.save(tmp_path / "bundle")
    again = Classifier.load(tmp_path / "bundle")
    assert (again.logits(["good food"]) == classifier.logits(["good food"])).all()
    config = json.loads((tmp_path / "bundle" / "config.json").read_text())
    assert all(
        part.get("return_dict", True) and "torchscript" not in part for part in (config, config.get("encoder", {}))
    )


def test_switches_of_a_config_inside_another_are_set() -> None:
    from fullbake.models.network import EncoderHeadConfig

    inner = transformers.BertConfig(return_dict=False, output_hidden_states=True)
    config = EncoderHeadConfig(inner, return_dict=False)
    set_switches(config)
    assert (config.return_dict, config.encoder.return_dict, config.encoder.output_hidden_states) == (True, True, False)


def test_earlier_texts_do_not_change_big_bird(tmp_path: Path) -> None:
    fields = {"block_size": 2, "num_random_blocks": 1, "attention_type": "block_sparse"}
    encoder = load_encoder(make_other_base("big_bird", tmp_path, **fields))
    long = torch.arange(5, 105)[None]
    with torch.no_grad():
        before = encoder(long).last_hidden_state
        encoder(IDS)
        assert torch.equal(encoder(long).last_hidden_state, before)


XMOD = {"type_vocab_size": 1, "languages": ("en_XX", "de_DE")}


def test_xmod_runs_with_the_language_that_its_config_names(tmp_path: Path) -> None:
    base = make_other_base("xmod", tmp_path / "base", default_language="de_DE", **XMOD)
    english = change_config(base, tmp_path / "english", default_language="en_XX")
    with torch.no_grad():
        states = [load_encoder(place)(IDS).last_hidden_state for place in (base, english)]
    assert not torch.allclose(*states, atol=1e-3)
    classifier = train(base, tmp_path)
    classifier.save(tmp_path / "bundle")
    assert (Classifier.load(tmp_path / "bundle").logits(["good food"]) == classifier.logits(["good food"])).all()


def test_only_language_of_xmod_is_taken(tmp_path: Path) -> None:
    base = make_other_base("xmod", tmp_path, type_vocab_size=1, languages=("de_DE",))
    assert load_config(base).default_language == "de_DE"
    assert load_encoder(base)(IDS).last_hidden_state.shape == (2, 12, 32)


def test_landmarks_that_ask_for_one_length_are_refused(tmp_path: Path) -> None:
    fields = {"num_landmarks": 4, "segment_means_seq_len": 64, "conv_kernel_size": 3}
    base = make_other_base("nystromformer", tmp_path, **fields)
    with pytest.raises(BaseModelError, match="texts of exactly 64 tokens"):
        load_config(base)
    storage.write_json(base / "config.json", storage.read_json(base / "config.json") | {"num_landmarks": 64})
    load_config(base)


def test_language_that_each_token_needs_is_refused() -> None:
    config = transformers.XLMConfig(n_langs=2, use_lang_emb=True)
    with pytest.raises(BaseModelError, match="embedding of a language"):
        check_decided("base", config)
    check_decided("base", transformers.XLMConfig(n_langs=1))
    check_decided("base", transformers.XLMConfig(n_langs=17, use_lang_emb=False))
