"""Adapters, quantized weights and a language that nobody names are refused by what a base's JSON files say."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import XmodConfig

from fullbake.core.errors import BaseModelError
from fullbake.models.config_checks import ADAPTER_FILE, refuse_adapter, refuse_quantized, refuse_unnamed_language


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"peft_type": "LORA", "base_model_name_or_path": "them/their-base"}, "AutoModel.from_pretrained('them/their-"),
        ({"peft_type": "LORA", "task_type": "SEQ_CLS"}, "AutoModelForSequenceClassification.from_pretrained('BASE')"),
        ([1, 2], "merge_and_unload"),
        (None, "merge_and_unload"),
    ],
)
def test_error_for_adapter_says_how_to_merge_it(settings: Any, said: str, tmp_path: Path) -> None:
    file = tmp_path / ADAPTER_FILE
    file.write_text("{" if settings is None else json.dumps(settings))
    with pytest.raises(BaseModelError, match="adapter") as caught:
        refuse_adapter(tmp_path, file)
    assert said in str(caught.value)


def test_base_without_adapter_passes(tmp_path: Path) -> None:
    refuse_adapter(tmp_path, None)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "'gptq'"),
        ({"quantization_config": {"bits": 4}}, "without a name"),
        ({"quantization_config": "nf4"}, "without a name"),
        ({"compression_config": {"quant_method": "compressed-tensors"}}, "compression_config"),
    ],
)
def test_quantized_config_is_refused(raw: dict[str, Any], said: str) -> None:
    with pytest.raises(BaseModelError, match="quantized") as caught:
        refuse_quantized("somewhere", raw)
    assert said in str(caught.value)


def test_config_without_quantization_passes() -> None:
    refuse_quantized("somewhere", {"quantization_config": None, "model_type": "bert"})


@pytest.mark.parametrize("named", [None, "fr_XX"])
def test_language_must_be_one_of_the_base(named: str | None) -> None:
    config = XmodConfig(languages=["en_XX", "de_DE"], default_language=named)
    with pytest.raises(BaseModelError, match="2 languages") as caught:
        refuse_unnamed_language("somewhere", config)
    assert "default_language" in str(caught.value)
    assert "en_XX, de_DE" in str(caught.value)


def test_named_language_passes() -> None:
    refuse_unnamed_language("somewhere", XmodConfig(languages=["en_XX", "de_DE"], default_language="de_DE"))
