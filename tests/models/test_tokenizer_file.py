"""The ids of a text are those of tokenizer.json, and a vocabulary has what it must have."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.bases import COPIED_FAMILIES, FAMILIES, make_tokenizer
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from fullbake.core.errors import BaseModelError
from fullbake.models.tokenizer import load_tokenizer, load_tokenizer_and_note
from fullbake.models.tokenizer_file import (
    PROBE_TEXTS,
    describe_case,
    describe_unknown,
    refuse_ids_beyond_table,
)

Bases = Callable[..., Path]


def copy_base(base: Path, folder: Path) -> Path:
    return Path(shutil.copytree(base, folder / "copy"))


def change(file: Path, **fields: Any) -> None:
    """Set fields of a JSON file; None removes a field."""
    value = json.loads(file.read_text()) | fields
    file.write_text(json.dumps({name: field for name, field in value.items() if field is not None}))


def ids_of_file(folder: Path) -> list[list[int]]:
    own = Tokenizer.from_file(str(folder / "tokenizer.json"))
    own.no_padding()
    own.no_truncation()
    return [encoding.ids for encoding in own.encode_batch(list(PROBE_TEXTS))]


def ids_of(tokenizer: Any) -> list[list[int]]:
    return [encoding.ids for encoding in tokenizer.backend_tokenizer.encode_batch(list(PROBE_TEXTS))]


@pytest.mark.parametrize("family", FAMILIES + COPIED_FAMILIES)
def test_tokenizers_of_all_families_are_those_of_their_file(family: str, bases: Bases) -> None:
    tokenizer, note = load_tokenizer_and_note(bases(family))
    assert note is None
    assert ids_of(tokenizer) == ids_of_file(bases(family))


def test_lost_normalizer_is_taken_from_the_file(bases: Bases, tmp_path: Path) -> None:
    folder = copy_base(bases("roberta"), tmp_path)
    lower = {"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "Lowercase"}]}
    change(folder / "tokenizer.json", normalizer=lower)
    tokenizer, note = load_tokenizer_and_note(folder)
    assert "tokenizer.json as it is" in str(note)
    assert ids_of(tokenizer) == ids_of_file(folder)
    assert tokenizer.mask_token == "<mask>"
    assert tokenizer.pad_token_id == 1
    tokenizer.save_pretrained(tmp_path / "saved")
    shutil.copy(folder / "config.json", tmp_path / "saved")
    again, note = load_tokenizer_and_note(tmp_path / "saved")
    assert note is None
    assert ids_of(again) == ids_of_file(folder)


def test_padding_and_truncation_of_the_file_are_switched_off(bases: Bases, tmp_path: Path) -> None:
    folder = copy_base(bases("bert"), tmp_path)
    cut = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    pad = {"strategy": {"Fixed": 20}, "direction": "Left", "pad_to_multiple_of": None, "pad_id": 0}
    change(folder / "tokenizer.json", truncation=cut, padding=pad | {"pad_type_id": 0, "pad_token": "[PAD]"})
    tokenizer, note = load_tokenizer_and_note(folder)
    assert note is None
    assert ids_of(tokenizer) == ids_of(load_tokenizer(bases("bert")))


def test_special_token_beside_the_file_is_no_other_tokenizer(bases: Bases, tmp_path: Path) -> None:
    folder = copy_base(bases("bert"), tmp_path)
    change(folder / "tokenizer_config.json", bos_token="<start>")
    tokenizer, note = load_tokenizer_and_note(folder)
    assert note is None
    assert ids_of(tokenizer) == ids_of_file(folder)


def test_error_for_missing_unknown_token_names_it(tmp_path: Path) -> None:
    vocabulary = {piece: number for number, piece in enumerate(["[PAD]", "[CLS]", "[SEP]", "good", "bad"])}
    write_word_pieces(tmp_path, models.WordPiece(vocabulary, unk_token="[UNK]"))
    with pytest.raises(BaseModelError, match=r"unknown token '\[UNK\]'"):
        load_tokenizer(tmp_path)


def write_word_pieces(folder: Path, model: Any) -> None:
    own = Tokenizer(model)
    own.pre_tokenizer = pre_tokenizers.Whitespace()
    own.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    PreTrainedTokenizerFast(tokenizer_object=own, pad_token="[PAD]").save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", "vocab_size": 9}))


def test_letters_that_are_dropped_are_noted(bases: Bases, tmp_path: Path) -> None:
    vocabulary = {piece: number for number, piece in enumerate(["[PAD]", "[CLS]", "[SEP]", "a", "b", "c", "d"])}
    write_word_pieces(tmp_path, models.BPE(vocabulary, []))
    assert "drops letters that it does not know, such as '𐎀𐎁𐎂'" in str(describe_unknown(load_tokenizer(tmp_path)))
    assert describe_unknown(load_tokenizer(bases("bert"))) is None
    assert describe_unknown(load_tokenizer(bases("roberta"))) is None


def test_ids_beyond_the_table_are_refused() -> None:
    tokenizer = make_tokenizer("bert")
    rows = len(tokenizer)
    refuse_ids_beyond_table(tokenizer, rows, "somewhere")
    tokenizer.add_tokens(["goodish", "baddish"])
    with pytest.raises(BaseModelError, match="2 ids beyond") as caught:
        refuse_ids_beyond_table(tokenizer, rows, "somewhere")
    assert "'goodish', 'baddish'" in str(caught.value)
    assert "resize_token_embeddings" in str(caught.value)


def test_id_that_only_a_post_processor_gives_is_refused() -> None:
    tokenizer = make_tokenizer("bert")
    template = {"single": "[CLS] $A [SEP]", "special_tokens": [("[CLS]", 9_000), ("[SEP]", 3)]}
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(**template)
    with pytest.raises(BaseModelError, match="up to 9,000"):
        refuse_ids_beyond_table(tokenizer, len(tokenizer), "somewhere")


@pytest.mark.parametrize("family", FAMILIES)
def test_usual_vocabularies_fit_their_case(family: str, bases: Bases) -> None:
    assert describe_case(load_tokenizer(bases(family))) is None


def test_capitals_under_a_lowercasing_normalizer_are_noted() -> None:
    tokenizer = make_tokenizer("bert")
    cased = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    words = [word.capitalize() for word in ("good", "bad", "film", "book", "city")]
    vocabulary = tokenizer.get_vocab() | {word: len(tokenizer) + number for number, word in enumerate(words)}
    cased.model = models.WordPiece(vocabulary, unk_token="[UNK]")
    both = PreTrainedTokenizerFast(tokenizer_object=cased, unk_token="[UNK]")
    assert "5 of its" in str(describe_case(both))


def test_capitals_that_a_vocabulary_lacks_are_noted() -> None:
    tokenizer = make_tokenizer("bert")
    tokenizer.backend_tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    assert '"do_lower_case": true' in str(describe_case(tokenizer))
