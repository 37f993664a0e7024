"""Token ids are those of tokenizer.json where transformers would build another tokenizer, and the run says so."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.rows import train
from tokenizers import Tokenizer

from fullbake import Classifier
from fullbake.models.prediction import encode

Bases = Callable[..., Path]

LOWERS = {"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "Lowercase"}]}
KEEPS_CASE = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None}

TEXTS = ["GOOD Food and bad GAMES", "Ｆｕｌｌ width ｇｏｏｄ", "café NAÏVE", "中文 😀"]


@pytest.mark.parametrize(
    ("family", "normalizer"), [("roberta", LOWERS), ("bert", KEEPS_CASE | {"lowercase": False})], ids=["lower", "cased"]
)
def test_bundle_and_run_give_the_ids_of_the_file(
    family: str, normalizer: dict[str, Any], bases: Bases, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base = Path(shutil.copytree(bases(family), tmp_path / "base"))
    value = json.loads((base / "tokenizer.json").read_text())
    (base / "tokenizer.json").write_text(json.dumps(value | {"normalizer": normalizer}))
    if family == "bert":
        (base / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    train(base, tmp_path).save(tmp_path / "out")
    assert "fullbake uses tokenizer.json as it is" in caplog.text
    own = Tokenizer.from_file(str(base / "tokenizer.json"))
    own.no_padding()
    own.no_truncation()
    classifier = Classifier.load(tmp_path / "out")
    expected = [token for text in TEXTS for token in own.encode(text).ids]
    assert encode(TEXTS, classifier.tokenizer, classifier.tokens).input_ids.tolist() == expected
    saved = Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    assert [token for text in TEXTS for token in saved.encode(text).ids] == expected
