"""Say whether a bundle's config.json holds nothing that transformers might refuse or compute differently.

The lightweight path computes a bundle without transformers, so it must not score what transformers would refuse. Each
field that BERT and DistilBERT have is known here, with the values under which the plain forward pass is theirs. A
config with any other field or value takes the slower path, which is right for all.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from fullbake.models.heads import HEADS, POOLINGS

_DTYPES: Final = ("float32", "float16", "bfloat16", "float64")
_FEW: Final = 100_000


def _is_share(value: object) -> bool:
    return type(value) in (int, float) and 0 <= value <= 1  # type: ignore[operator]


def _is_word(value: object) -> bool:
    return value is None or isinstance(value, str)


def _is_words(value: object) -> bool:
    return value is None or (isinstance(value, list) and all(isinstance(word, str) for word in value))


def _is_switch(value: object) -> bool:
    return value is None or type(value) is bool


def _is_size(value: object) -> bool:
    return type(value) is int and value > 0


def _is_small(value: object) -> bool:
    return type(value) is float and 0 <= value <= 100


def _is_id(value: object) -> bool:
    return value is None or (type(value) is int and value >= 0)


def _is(*allowed: object) -> Callable[[object], bool]:
    return lambda value: any(type(value) is type(one) and value == one for one in allowed)


_SHARED: Final[Mapping[str, Callable[[object], bool]]] = {
    "_name_or_path": _is_word,
    "architectures": _is_words,
    "chunk_size_feed_forward": _is(0),
    "dtype": _is(None, *_DTYPES),
    "id2label": lambda value: isinstance(value, dict) and all(isinstance(name, str) for name in value.values()),
    "is_encoder_decoder": _is(False),
    "label2id": lambda value: isinstance(value, dict) and all(type(number) is int for number in value.values()),
    "model_type": _is("bert", "distilbert", "fullbake"),
    "output_attentions": _is_switch,
    "output_hidden_states": _is_switch,
    "problem_type": _is(None, "single_label_classification", "multi_label_classification"),
    "return_dict": _is_switch,
    "transformers_version": _is_word,
}
"""Field of every config -> whether a value is a usual one."""

_ENCODER: Final[Mapping[str, Callable[[object], bool]]] = {
    **_SHARED,
    "activation": _is("gelu"),
    "add_cross_attention": _is(False),
    "attention_dropout": _is_share,
    "attention_probs_dropout_prob": _is_share,
    "bos_token_id": _is_id,
    "classifier_dropout": lambda value: value is None or _is_share(value),
    "dim": _is_size,
    "dropout": _is_share,
    "eos_token_id": _is_id,
    "gradient_checkpointing": _is_switch,
    "hidden_act": _is("gelu"),
    "hidden_dim": _is_size,
    "hidden_dropout_prob": _is_share,
    "hidden_size": _is_size,
    "initializer_range": _is_small,
    "intermediate_size": _is_size,
    "is_decoder": _is(False),
    "layer_norm_eps": _is_small,
    "max_position_embeddings": _is_size,
    "n_heads": _is_size,
    "n_layers": _is_size,
    "num_attention_heads": _is_size,
    "num_hidden_layers": _is_size,
    "pad_token_id": _is_id,
    "position_embedding_type": _is("absolute"),
    "qa_dropout": _is_share,
    "seq_classif_dropout": _is_share,
    "sinusoidal_pos_embds": _is(False),
    "tie_word_embeddings": lambda value: type(value) is bool,
    "tie_weights_": lambda value: type(value) is bool,
    "type_vocab_size": _is_size,
    "use_cache": lambda value: type(value) is bool,
    "vocab_size": _is_size,
}

_OWN: Final[Mapping[str, Callable[[object], bool]]] = {
    **_SHARED,
    "dropout": _is_share,
    "encoder": lambda value: isinstance(value, dict) and _holds(value, _ENCODER),
    "head": _is(*HEADS),
    "layers": lambda value: type(value) is int and 0 <= value < _FEW,
    "pooling": _is(*POOLINGS),
    "projection": lambda value: isinstance(value, list),
    "width": lambda value: type(value) is int and 0 <= value < _FEW,
}


def is_plain_config(config: Mapping[str, Any]) -> bool:
    """Return True if all fields of a bundle's config.json, and of the encoder in it, are known with usual values.

    Args:
        config: The content of config.json, within the limits of `base_files.check_config`.
    """
    own = config.get("model_type") == "fullbake"
    inner = config.get("encoder") if own else config
    if not _holds(config, _OWN if own else _ENCODER) or not isinstance(inner, Mapping):
        return False
    if inner.get("model_type") not in ("bert", "distilbert"):
        return False
    padding, tokens = inner.get("pad_token_id") or 0, inner.get("vocab_size", 0)
    return bool(padding < tokens)  # torch refuses one beyond the table


def _holds(fields: Mapping[str, Any], known: Mapping[str, Callable[[object], bool]]) -> bool:
    return all(name in known and known[name](value) for name, value in fields.items())
