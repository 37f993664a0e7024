"""A vocabulary of one's own, for a base that is a config and nothing else."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bases import make_config, make_tokenizer
from corpora import make_documents, source_of

from fullbake.core.errors import BaseModelError, DataError
from fullbake.models.tokenizer import load_tokenizer
from fullbake.pretraining.documents import Source
from fullbake.pretraining.stage import with_vocabulary

TEXTS = make_documents(30)


def bare(folder: Path, size: int = 200) -> Path:
    config = make_config("bert", make_tokenizer("bert"), hidden_size=32, layers=2, positions=64)
    config.vocab_size = size
    config.save_pretrained(folder)
    return folder


def test_a_base_with_a_tokenizer_stays_as_it_is(bases: Callable[..., Path], tmp_path: Path) -> None:
    base = bases("bert")
    assert with_vocabulary(base, [source_of(TEXTS)], tmp_path) == str(base)
    assert with_vocabulary("owner/name", [source_of(TEXTS)], tmp_path) == "owner/name"


def test_the_vocabulary_comes_from_the_text_once(tmp_path: Path) -> None:
    base, read = bare(tmp_path / "bare"), []
    whole = source_of(TEXTS)
    counted = Source(whole.name, whole.fingerprint, lambda: read.append(1) or whole.read())  # type: ignore[func-returns-value]
    place = with_vocabulary(base, [counted], tmp_path / "cache")
    assert with_vocabulary(base, [counted], tmp_path / "cache") == place
    assert read == [1]
    tokenizer = load_tokenizer(place)
    assert 100 < len(tokenizer) <= 200
    ids: Any = tokenizer(TEXTS[0])["input_ids"]
    assert tokenizer.unk_token_id not in ids
    assert (ids[0], ids[-1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id)
    assert tokenizer.mask_token == "[MASK]"
    assert json.loads((Path(place) / "config.json").read_text())["vocab_size"] == 200


def test_no_text_and_too_little_room_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no text to learn a vocabulary from"):
        with_vocabulary(bare(tmp_path / "a"), [source_of([])], tmp_path / "cache")
    with pytest.raises(BaseModelError, match="too small for the characters"):
        with_vocabulary(bare(tmp_path / "b", 8), [source_of(TEXTS)], tmp_path / "cache")
