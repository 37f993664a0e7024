"""Set the config fields that change what a network returns, and refuse a config that leaves its computation open.

A config.json may ask for plain tuples in place of named outputs, or for an attention that another library computes.
Such a field says how somebody once called the model, not what its weights mean, so fullbake sets it. Other fields must
be decided before any text is read, such as how long every text has to be.
"""

from pathlib import Path
from typing import Any, Final

from transformers import PreTrainedConfig

from fullbake.core.errors import BaseModelError

_OUTPUTS: Final = {"return_dict": True, "output_hidden_states": False, "output_attentions": False}
"""Fields of every config -> the values under which a model returns what fullbake reads."""

_OFF: Final = {"chunk_size_feed_forward": 0, "add_cross_attention": False}
"""Fields of some configs -> the values that switch them off. The first saves memory where a text's length is a multiple
of it, and fails elsewhere; the second is for decoders."""

_UNUSED: Final = ("torchscript", "transformers_weights")
"""Fields that must not be there: one asks for plain tuples, one names another file of weights."""

_BIG_BIRD: Final = "big_bird"


def set_switches(config: PreTrainedConfig) -> None:
    """Set the fields of a config, and of a config inside it, that change what a network returns.

    BigBird's sparse attention becomes the full one: transformers changes to full attention for good as soon as one
    batch has short texts only, so that results would depend on earlier texts. X-MOD, which has layers for each
    language, gets its language named if it has only one.

    Args:
        config: Changed in place.
    """
    for name, value in _OUTPUTS.items():
        setattr(config, name, value)
    for name in _OFF.keys() & vars(config).keys():
        if hasattr(type(config), name):
            setattr(config, name, _OFF[name])
        else:  # a field that the family does not have
            del vars(config)[name]
    for name in _UNUSED:
        vars(config).pop(name, None)
    config._attn_implementation = None  # transformers then takes the best one that is installed
    if config.model_type == _BIG_BIRD:
        vars(config)["attention_type"] = "original_full"
    languages = getattr(config, "languages", None)
    if getattr(config, "default_language", "") is None and languages is not None and len(languages) == 1:
        vars(config)["default_language"] = str(next(iter(languages)))
    inner: Any = getattr(config, "encoder", None)
    if isinstance(inner, PreTrainedConfig):
        set_switches(inner)


def check_decided(place: Path | str, config: PreTrainedConfig) -> None:
    """Raise BaseModelError if a config leaves open what the base computes of a text.

    Args:
        place: The base, to name it in the error.
        config: Its config.
    """
    fields: Any = config
    if getattr(config, "use_lang_emb", False) and getattr(config, "n_langs", 1) > 1:
        raise BaseModelError(
            f"the base adds the embedding of a language to every token (n_langs {fields.n_langs}), and fullbake "
            "cannot name the language of a text",
            where=f"{place}, config.json",
            remedy="Choose a base that finds out the language by itself, such as XLM-R.",
        )
    if config.model_type == "nystromformer" and fields.num_landmarks != fields.segment_means_seq_len:
        raise BaseModelError(
            f"the base's approximate attention reads texts of exactly {fields.segment_means_seq_len} tokens "
            "(segment_means_seq_len), and one text changes the results of others in its batch",
            where=f"{place}, config.json",
            expected="num_landmarks equal to segment_means_seq_len, which computes full attention",
            got=f"num_landmarks {fields.num_landmarks}",
            remedy="Choose another base.",
        )
