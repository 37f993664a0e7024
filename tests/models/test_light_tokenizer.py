"""The light tokenizer gives the ids of the one that transformers makes, or the bundle is refused."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.bases import FAMILIES
from helpers.rows import make_rows

from fullbake.config.sections import TokensConfig
from fullbake.core import storage
from fullbake.core.errors import BundleError
from fullbake.models.light_tokenizer import read_light_tokenizer
from fullbake.models.prediction import encode
from fullbake.models.tokenizer import load_tokenizer, set_defaults
from fullbake.models.tokenizer_file import PROBE_TEXTS

Bases = Callable[..., Path]
TEXTS = [
    *PROBE_TEXTS,
    *(text for text, _ in make_rows(6)),
    "",
    "İ ǆ ﬀ \u200b\ufeff x\x00y 𝔘𝔫𝔦",
    "[MASK] <mask> [SEP]</s>",
]


@pytest.fixture(scope="module")
def saved(bases: Bases, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folders with a tokenizer as a bundle has it; tests must not change them."""
    made: dict[str, Path] = {}

    def folder(family: str) -> Path:
        if family not in made:
            tokenizer = load_tokenizer(bases(family))
            set_defaults(tokenizer, max_length=48, truncation="head", has_token_type_ids=family == "bert")
            made[family] = tmp_path_factory.mktemp(family)
            tokenizer.save_pretrained(made[family])
        return made[family]

    return folder


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_ids_are_those_of_transformers(saved: Callable[[str], Path], family: str, pairs: bool) -> None:
    folder = saved(family)
    light, whole = read_light_tokenizer(folder), load_tokenizer(folder)
    tokens = TokensConfig(max_length=48)
    second = TEXTS[::-1] if pairs else None
    one, other = encode(TEXTS, light, tokens, second), encode(TEXTS, whole, tokens, second)
    assert np.array_equal(one.input_ids, other.input_ids)
    assert np.array_equal(one.offsets, other.offsets)
    assert (one.token_type_ids is None) == (other.token_type_ids is None)
    assert one.token_type_ids is None or np.array_equal(one.token_type_ids, other.token_type_ids)
    assert light.pad_token_id == whole.pad_token_id


@pytest.mark.parametrize(
    ("change", "got"),
    [
        ({"tokenizer_class": "MadeUpTokenizer"}, "the class MadeUpTokenizer"),
        ({"tokenizer_class": None}, "the class None"),
        ({"do_lower_case": False}, "do_lower_case"),
        ({"strip_accents": True}, "strip_accents"),
        ({"tokenize_chinese_chars": False}, "tokenize_chinese_chars"),
        ({"mask_token": "[NEW]"}, "a special token '[NEW]'"),
        ({"extra_special_tokens": ["food"]}, "a special token 'food'"),
        ({"additional_special_tokens": [{"content": 3}]}, "a special token 'None'"),
        ({"added_tokens_decoder": {"2": {"content": "[PAD]"}}}, "a token with the id 2"),
        ({"pad_token": None}, "no padding token"),
        ({"padding_side": None}, "no padding_side"),
        ({"model_input_names": None}, "model_input_names"),
    ],
)
def test_settings_that_transformers_would_apply_are_refused(
    saved: Callable[[str], Path], tmp_path: Path, change: dict[str, Any], got: str
) -> None:
    folder = Path(shutil.copytree(saved("bert"), tmp_path / "bundle"))
    settings = storage.read_json(folder / "tokenizer_config.json")
    storage.write_json(folder / "tokenizer_config.json", settings | change)
    with pytest.raises(BundleError) as caught:
        read_light_tokenizer(folder)
    assert got in (caught.value.got or "")
    assert "--engine torch" in str(caught.value)


def test_padding_and_truncation_of_the_file_are_switched_off(saved: Callable[[str], Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(saved("bert"), tmp_path / "bundle"))
    backend = read_light_tokenizer(folder).backend_tokenizer
    backend.enable_truncation(4)
    backend.enable_padding(length=30)
    backend.save(str(folder / "tokenizer.json"))
    light = read_light_tokenizer(folder)
    assert light.backend_tokenizer.padding is None
    assert light.backend_tokenizer.truncation is None
