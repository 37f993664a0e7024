"""Refuse bases whose files say by themselves that fullbake cannot use them: adapters, quantized weights, no language.

Each check reads small JSON files alone, so it runs before any weight is read.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fullbake.core import storage
from fullbake.core.errors import BaseModelError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

ADAPTER_FILE: Final = "adapter_config.json"
"""The file in which PEFT describes an adapter (LoRA and its kin)."""

_QUANTIZATION_FIELDS: Final = ("quantization_config", "compression_config")
"""Fields of config.json under which quantized weights are described. The second is the older name."""

_AUTO_CLASSES: Final = {
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "TOKEN_CLS": "AutoModelForTokenClassification",
    "QUESTION_ANS": "AutoModelForQuestionAnswering",
}
"""PEFT's name of a task -> the class that its adapter was trained in. All other tasks: AutoModel."""


def refuse_adapter(place: Path | str, file: Path | None) -> None:
    """Raise BaseModelError if a base is an adapter, or has one beside its weights.

    transformers would load the adapter's own base in its place, or change the weights, where peft is installed.

    Args:
        place: The base, for the error.
        file: Its ADAPTER_FILE, None if it has none.
    """
    if file is None:
        return
    try:
        settings = storage.read_json(file)
    except (OSError, ValueError):
        settings = None
    settings = settings if isinstance(settings, dict) else {}
    base = str(settings.get("base_model_name_or_path") or "BASE")
    model = _AUTO_CLASSES.get(str(settings.get("task_type")), "AutoModel")
    raise BaseModelError(
        f"the base is an adapter, or has one beside it ({ADAPTER_FILE}); fullbake reads whole models only",
        where=f"base '{place}'",
        expected="config.json, model.safetensors and tokenizer.json, with the adapter merged into the weights",
        got=f"an adapter of kind {settings.get('peft_type')!r} for {base!r}",
        remedy="Merge it once in Python with peft: "
        f"model = PeftModel.from_pretrained({model}.from_pretrained({base!r}), {str(place)!r}); "
        "model.merge_and_unload().save_pretrained('merged'); then copy the tokenizer's files into that folder and pass "
        f"--base merged. If the adapter is not wanted, remove {ADAPTER_FILE} from a copy of the folder.",
    )


def refuse_quantized(place: Path | str, raw: Mapping[str, Any]) -> None:
    """Raise BaseModelError if config.json describes quantized weights.

    fullbake computes and trains in 32-bit floats. Some quantized weights would be read as plain numbers in silence.

    Args:
        place: The base, for the error.
        raw: The content of config.json.
    """
    named = next((field for field in _QUANTIZATION_FIELDS if raw.get(field) is not None), None)
    if named is None:
        return
    settings = raw[named]
    method = settings.get("quant_method") if isinstance(settings, dict) else None
    raise BaseModelError(
        "the base is quantized, and fullbake trains and reads whole weights only",
        where=f"base '{place}', config.json, {named}",
        expected="weights of 16 or 32 bit floats",
        got=f"quantization by {method!r}" if method else "a quantization without a name",
        remedy="Use the model that this one was quantized from. If the weights are floats all the same, remove "
        f"{named} from config.json in a copy of the folder.",
    )


def refuse_unnamed_language(place: Path | str, config: "PreTrainedConfig") -> None:
    """Raise BaseModelError if a base has parts for several languages (X-MOD) and does not say which one to use.

    Args:
        place: The base, for the error.
        config: The base's config.
    """
    languages = list(getattr(config, "languages", None) or ())
    named = getattr(config, "default_language", None)
    if not languages or named in languages or not hasattr(config, "default_language"):
        return
    raise BaseModelError(
        f"the base has weights for {len(languages)} languages, and its config.json does not say which ones to use",
        where=f"base '{place}', config.json, default_language",
        expected=f"one of {', '.join(map(str, languages[:12]))}{', ...' if len(languages) > 12 else ''}",
        got=repr(named),
        remedy=f'Set it in a copy of the folder, such as "default_language": "{languages[0]}".',
    )
