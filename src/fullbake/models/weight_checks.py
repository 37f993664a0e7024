"""Refuse weights that transformers would leave out or misread in silence.

transformers reports a parameter that a file holds and the model does not ask for, and loads the rest: an encoder of
four layers under a config that says two would train as half of itself. Which names are the encoder's is found by its
structure, so that heads, poolers and buffers, which fullbake leaves out on purpose, are not refused.
"""

import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError, safe_open

from fullbake.core.errors import BaseModelError

_BUFFERS: Final = ("position_ids", "token_type_ids", "inv_freq", "masked_bias", "version")
"""Last parts of names of buffers that older versions of transformers saved and newer ones compute."""

_FLOATS: Final = ("F16", "BF16", "F32", "F64")
"""Types of safetensors that fullbake reads as weights."""


def find_left_out_parameters(encoder: Any, unexpected: Iterable[str]) -> list[str]:
    """Return the names of the encoder's parameters among those that a checkpoint holds and the encoder lacks.

    Args:
        encoder: The encoder, as transformers built it from config.json.
        unexpected: Names as they stand in the checkpoint, with the prefix of a whole model (`bert.`) or without.

    Returns:
        The names that are neither of a head, nor of a pooler, nor of a buffer, sorted.
    """
    children = {name for name, _ in encoder.named_children()}
    buffers = {_without_numbers(name) for name, _ in encoder.named_buffers()}
    parameters = {name for name, _ in encoder.named_parameters()}
    prefix = f"{encoder.base_model_prefix}."

    def belongs(name: str) -> bool:
        inner = name.removeprefix(prefix)
        parts = inner.split(".")
        if any(part.startswith("pooler") for part in parts) or parts[-1] in _BUFFERS:
            return False
        if _without_numbers(inner) in buffers:
            return False
        # DeBERTa v3 was trained with a copy of its embeddings, `_weight`, whose sum is saved as `weight`.
        if parts[-1] == "_weight" and inner.removesuffix("_weight") + "weight" in parameters:
            return False
        # A head's name never starts with the encoder's prefix. Without prefixes it starts with a part of its own.
        return inner != name or parts[0] in children

    return sorted(name for name in unexpected if belongs(name))


def _without_numbers(name: str) -> str:
    return re.sub(r"(?<=\.)\d+(?=\.)", "0", name)


def refuse_left_out(place: Path | str, encoder: Any, unexpected: Collection[str]) -> None:
    """Raise BaseModelError if a base holds parameters of its encoder that its config.json does not ask for.

    Args:
        place: The base, for the error.
        encoder: The encoder that was loaded.
        unexpected: Names that transformers found in the weights and did not use.
    """
    left_out = find_left_out_parameters(encoder, unexpected)
    if not left_out:
        return
    layers = len({match.group() for name in left_out if (match := re.match(r".*?\.\d+\.", name))})
    raise BaseModelError(
        f"the base holds {len(left_out)} weights of its encoder that its config.json does not ask for"
        + (f", in {layers} layers" if layers else ""),
        where=f"base '{place}'",
        expected="an encoder that uses all of its weights",
        got=", ".join(left_out[:3]) + (", ..." if len(left_out) > 3 else ""),
        remedy="config.json belongs to another model, or asks for fewer layers or other position embeddings "
        "(num_hidden_layers, position_embedding_type) than the weights have, or this version of transformers no "
        "longer has these parts. Restore config.json, or load the model in Python as you want it and save it "
        "with save_pretrained: what it saves is what it uses.",
    )


def refuse_integer_weights(files: Iterable[Path]) -> None:
    """Raise BaseModelError if weights are stored as integers or 8-bit floats, as quantized models store them.

    transformers would read their integers as the weights' values. Only the headers of the files are read.

    Args:
        files: The safetensors files of a base.
    """
    for path in files:
        try:
            with safe_open(path, framework="numpy") as file:
                types = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118 (no mapping)
        except (OSError, SafetensorError):
            continue  # whoever loads the weights says what is wrong with the file
        wrong = {name: kind for name, kind in types.items() if name.endswith((".weight", ".bias"))}
        wrong = {name: kind for name, kind in wrong.items() if kind not in _FLOATS}
        if wrong:
            name, kind = min(wrong.items())
            raise BaseModelError(
                f"{len(wrong)} of the base's weights are no floats of 16 or 32 bits; the base is quantized",
                where=f"{path}, {name}",
                expected=f"one of {', '.join(_FLOATS)}",
                got=kind,
                remedy="Use the model that this one was quantized from.",
            )
