"""A base's tokenizer is loaded without its file's padding, saved for plain transformers, or refused with a reason."""

import contextlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.bases import FAMILIES
from helpers.tokens import TEXTS, encode, rows_of
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from fullbake.core.errors import BaseModelError
from fullbake.models.collation import collate
from fullbake.models.tokenizer import (
    count_special_tokens,
    load_mlm_tokenizer,
    load_tokenizer,
    set_defaults,
    token_pieces,
    warn_of_unknown_tokens,
)

# Settings


def test_padding_and_truncation_in_the_file_are_switched_off(bases, tmp_path):
    folder = copy_with_padding(bases("bert"), tmp_path)
    assert len(AutoTokenizer.from_pretrained(folder).backend_tokenizer.encode("good").ids) == 20
    tokenizer = load_tokenizer(folder)
    assert rows_of(encode(tokenizer, ["good", "never " * 40], 512)) == [
        tokenizer("good")["input_ids"],
        tokenizer("never " * 40)["input_ids"],
    ]
    tokenizer.save_pretrained(tmp_path / "saved")
    saved = json.loads((tmp_path / "saved/tokenizer.json").read_text())
    assert (saved["padding"], saved["truncation"]) == (None, None)
    assert "max_length" not in json.loads((tmp_path / "saved/tokenizer_config.json").read_text())


def copy_with_padding(base: Path, target: Path) -> Path:
    folder = target / "padded"
    shutil.copytree(base, folder)
    file = json.loads((folder / "tokenizer.json").read_text())
    file["truncation"] = {"direction": "Right", "max_length": 20, "strategy": "LongestFirst", "stride": 0}
    file["padding"] = {
        "strategy": {"Fixed": 20},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "[PAD]",
    }
    (folder / "tokenizer.json").write_text(json.dumps(file))
    return folder


def test_calling_the_tokenizer_in_between_changes_no_ids(bases):
    bert = load_tokenizer(bases("bert"))
    before = rows_of(encode(bert, TEXTS))
    bert("never " * 40, truncation=True, max_length=5, padding="max_length")
    assert rows_of(encode(bert, TEXTS)) == before


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("truncation", "plain"), [("head", "head"), ("tail", "tail"), ("head+tail", "head")])
def test_saved_tokenizer_truncates_the_same_in_plain_transformers(bases, family, tmp_path, truncation, plain):
    tokenizer = load_tokenizer(bases(family))
    tokenizer("good", truncation=True, max_length=5, padding="max_length")
    tokenizer.padding_side = "left"
    set_defaults(tokenizer, max_length=9, truncation=truncation, has_token_type_ids=False)
    tokenizer.save_pretrained(tmp_path)
    plainly = AutoTokenizer.from_pretrained(tmp_path)
    own = plainly(TEXTS, truncation=True, padding=True, return_tensors="pt")
    encoded = encode(load_tokenizer(tmp_path), TEXTS, 9, plain)
    batch = collate(encoded, np.arange(len(TEXTS)), pad_id=tokenizer.pad_token_id)
    assert batch.keys() == own.keys() == {"input_ids", "attention_mask"}
    assert all(torch.equal(batch[name], own[name]) for name in own)


def test_transformers_pipeline_scores_long_texts_the_same(bases, tmp_path):
    base = bases("distilbert", positions=32)
    tokenizer = load_tokenizer(base)
    set_defaults(tokenizer, max_length=32, truncation="head", has_token_type_ids=False)
    tokenizer.save_pretrained(tmp_path)
    model = AutoModelForSequenceClassification.from_pretrained(base).eval()
    model.save_pretrained(tmp_path)
    batch = collate(encode(tokenizer, ["never " * 400], 32), np.array([0]), pad_id=tokenizer.pad_token_id)
    with torch.inference_mode():
        expected = model(**batch).logits.softmax(-1).max().item()
    plain = pipeline("text-classification", str(tmp_path), device="cpu")
    assert plain("never " * 400, truncation=True)[0]["score"] == pytest.approx(expected, abs=1e-6)


def test_segments_are_given_if_tokenizer_and_model_have_them(bases, tmp_path):
    for family, has, expected in [("bert", True, True), ("bert", False, False), ("roberta", True, False)]:
        tokenizer = load_tokenizer(bases(family))
        set_defaults(tokenizer, max_length=16, truncation="head", has_token_type_ids=has)
        tokenizer.save_pretrained(tmp_path / family)
        for one in (tokenizer, load_tokenizer(tmp_path / family)):
            encoded = encode(one, TEXTS)
            assert (encoded.token_type_ids is not None) is expected
    types = encode(load_tokenizer(bases("bert")), TEXTS).token_type_ids
    assert types is not None
    assert types.dtype == np.uint8
    assert not types.any()


@pytest.mark.parametrize("family", FAMILIES)
def test_special_tokens_are_counted_on_both_sides(bases, family):
    tokenizer = load_tokenizer(bases(family))
    before, after = count_special_tokens(tokenizer)
    (row,) = rows_of(encode(tokenizer, ["good"]))
    alone = tokenizer("good", add_special_tokens=False)["input_ids"]
    assert row[before : len(row) - after] == alone


def test_masked_lm_tokenizer_truncates_at_the_bases_positions(bases):
    assert load_mlm_tokenizer(bases("roberta", positions=32)).model_max_length == 32


# Tokenizers that are refused


@pytest.mark.parametrize("family", FAMILIES)
def test_base_without_a_tokenizer_is_refused(bases, tmp_path, family):
    shutil.copy(bases(family) / "config.json", tmp_path)
    with pytest.raises(BaseModelError, match=r"tokenizer\.json"):
        load_tokenizer(tmp_path)


def test_incomplete_vocabulary_is_refused(bases, tmp_path):
    shutil.copy(bases("roberta") / "config.json", tmp_path)
    (tmp_path / "vocab.json").write_text('{"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "a": 4, "<mask>": 5}')
    with pytest.raises(BaseModelError, match="tokenizer"):
        load_tokenizer(tmp_path)


def test_vocabulary_file_is_enough_if_a_fast_tokenizer_can_be_made_from_it(bases, tmp_path):
    shutil.copy(bases("bert") / "config.json", tmp_path)
    own = load_tokenizer(bases("bert"))
    (tmp_path / "vocab.txt").write_text("\n".join(sorted(own.get_vocab(), key=own.get_vocab().get)))
    assert rows_of(encode(load_tokenizer(tmp_path), TEXTS)) == rows_of(encode(own, TEXTS))


def test_slow_tokenizer_is_refused(bases, tmp_path):
    shutil.copy(bases("bert") / "config.json", tmp_path)
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a"]))
    (tmp_path / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "BertJapaneseTokenizer", "word_tokenizer_type": "basic"}'
    )
    with pytest.raises(BaseModelError, match="no fast version"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("content", ["", "{", '{"version": "1.0"}', "[]", "\x00"])
def test_damaged_tokenizer_file_is_refused(bases, tmp_path, content):
    shutil.copy(bases("bert") / "config.json", tmp_path)
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(BaseModelError):
        load_tokenizer(tmp_path)


def copy_with_change(base: Path, target: Path, change) -> Path:
    folder = target / "edited"
    shutil.copytree(base, folder)
    file = json.loads((folder / "tokenizer.json").read_text())
    change(file)
    (folder / "tokenizer.json").write_text(json.dumps(file))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    return folder


def test_tokenizer_without_padding_token_is_refused(bases, tmp_path):
    folder = copy_with_change(bases("bert"), tmp_path, lambda file: None)
    with pytest.raises(BaseModelError, match="no padding token"):
        load_tokenizer(folder)


def test_tokenizer_without_special_tokens_is_refused(bases, tmp_path):
    folder = copy_with_change(bases("bert"), tmp_path, lambda file: file.update(post_processor=None))
    (folder / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]"}'
    )
    with pytest.raises(BaseModelError, match="special tokens"):
        load_tokenizer(folder)


def test_code_in_a_base_is_never_run(bases, tmp_path):
    shutil.copytree(bases("bert"), tmp_path / "base")
    (tmp_path / "base/code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Own: pass\n")
    (tmp_path / "base/tokenizer_config.json").write_text(
        '{"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["code.Own", null]}, "pad_token": "[PAD]"}'
    )
    with contextlib.suppress(BaseModelError):
        load_tokenizer(tmp_path / "base")
    assert not (tmp_path / "ran").exists()


def test_missing_folder_and_unreachable_hub_are_refused(tmp_path):
    with pytest.raises(BaseModelError, match="folder"):
        load_tokenizer(tmp_path / "missing")
    with pytest.raises(BaseModelError, match="hub"):
        load_tokenizer("no-such/base")


def test_tokenizer_without_mask_token_is_refused_for_masked_lm(bases, tmp_path):
    folder = copy_with_change(bases("bert"), tmp_path, lambda file: None)
    (folder / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]"}'
    )
    with pytest.raises(BaseModelError, match="no mask token"):
        load_mlm_tokenizer(folder)


@pytest.mark.parametrize(("share", "warned"), [(0.0, False), (0.02, False), (0.0201, True), (1.0, True)])
def test_unknown_tokens_are_warned_of_above_two_percent(share, warned):
    warning = warn_of_unknown_tokens(share)
    assert (warning is not None) == warned
    assert warning is None or warning.startswith(f"{share:.1%} of the tokens are unknown")


class _Vocabulary:
    def __init__(self, *tokens: str) -> None:
        self.tokens, self.all_special_ids = tokens, [0]

    def get_vocab(self) -> dict[str, int]:
        return {token: number for number, token in enumerate(self.tokens)}


@pytest.mark.parametrize(
    "tokens",
    [
        ("[CLS]", "play", "##ing", "the"),
        ("<s>", "\u0120play", "ing", "\u0120the"),
        ("<s>", "\u2581play", "ing", "\u2581the"),
    ],
)
def test_pieces_say_where_words_begin_in_every_kind_of_tokenizer(tokens):
    assert token_pieces(_Vocabulary(*tokens), 6) == ["", " play", "ing", " the", "", ""]
    assert token_pieces(_Vocabulary(*tokens), 3) == ["", " play", "ing"]
