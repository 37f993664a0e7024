"""Tiny bases of every family of transformers that could be a text encoder, for the sweep of `tests/admission`.

Most families take the same handful of sizes under a few names. What differs is in `_SPECIAL`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from transformers import AutoConfig
from transformers.models.auto import modeling_auto

from helpers.bases import make_encoder, make_tokenizer

_names: Any = modeling_auto

_SIZES: Final[Mapping[str, Any]] = {
    "hidden_size": 32,
    "emb_dim": 32,
    "dim": 32,
    "d_model": 32,
    "d_latents": 32,
    "pooler_hidden_size": 32,
    "embedding_size": 16,
    "embedding_rank": 16,
    "intermediate_size": 64,
    "hidden_dim": 64,
    "d_inner": 64,
    "feed_forward_size": 64,
    "num_hidden_layers": 2,
    "n_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "n_heads": 4,
    "n_head": 4,
    "head_dim": 8,
    "d_head": 8,
    "max_position_embeddings": 130,
    "sliding_window": 16,
    "local_attention": 16,
    "attention_window": 8,
}
"""Field -> its size in a tiny base. A family takes the fields that its config has."""

_SPECIAL: Final[Mapping[str, Mapping[str, Any]]] = {
    "big_bird": {"block_size": 16, "max_position_embeddings": 512},
    "convbert": {"embedding_size": 32, "head_ratio": 2, "conv_kernel_size": 3},
    "deberta": {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
    "esm": {"position_embedding_type": "rotary"},
    "flaubert": {"gelu_activation": True},
    "funnel": {"block_sizes": [1, 1], "block_repeats": [1, 1], "num_decoder_layers": 1},
    "jina_embeddings_v3": {"lora_adaptations": ["classification"], "lora_rank": 2},
    "luke": {"entity_vocab_size": 8, "entity_emb_size": 16},
    "mobilebert": {
        "embedding_size": 16,
        "intra_bottleneck_size": 16,
        "true_hidden_size": 16,
        "num_feedforward_networks": 2,
    },
    "nystromformer": {"num_landmarks": 8, "segment_means_seq_len": 8, "conv_kernel_size": 3},
    "perceiver": {
        "num_latents": 8,
        "num_self_attends_per_block": 1,
        "num_self_attention_heads": 4,
        "num_cross_attention_heads": 4,
    },
    "reformer": {
        "attn_layers": ["local", "lsh"],
        "axial_pos_embds_dim": [16, 16],
        "axial_pos_shape": [16, 8],
        "max_position_embeddings": 128,
        "attention_head_size": 8,
        "local_attn_chunk_length": 8,
        "lsh_attn_chunk_length": 8,
        "num_buckets": 2,
        "is_decoder": False,
    },
    "rembert": {"input_embedding_size": 16, "output_embedding_size": 32},
    "roc_bert": {
        "pronunciation_embed_dim": 8,
        "pronunciation_vocab_size": 8,
        "shape_embed_dim": 8,
        "shape_vocab_size": 8,
    },
    "roformer": {"embedding_size": 16},
    "squeezebert": {"embedding_size": 32},
    "xlm": {"n_langs": 1, "use_lang_emb": False},
    "xmod": {"languages": ["en_XX", "de_DE"], "default_language": "en_XX", "adapter_reduction_factor": 2},
}
"""Family -> config fields that it needs besides `_SIZES`."""

_LIKE_ROBERTA: Final = ("camembert", "data2vec-text", "ibert", "longformer", "luke", "mpnet", "xmod")
"""Families that count positions from the padding id + 1, or start texts with <s>, besides those named after RoBERTa."""


def text_families() -> list[str]:
    """Return every family with a masked LM or a classifier form, as config.json calls it."""
    masked, classifying = (
        set(mapping)
        for mapping in (
            _names.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
            _names.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
        )
    )
    return sorted((masked | classifying) & set(_names.MODEL_MAPPING_NAMES))


def other_families() -> list[str]:
    """Return every family that AutoModel maps and `text_families` leaves out: images, sound, bare decoders."""
    return sorted(set(_names.MODEL_MAPPING_NAMES) - set(text_families()))


def write_family_config(family: str, folder: Path) -> Path:
    """Write a config into a folder, and return the folder: a tiny one if the family has a masked LM and a classifier
    form, else its default."""
    both = (_names.MODEL_FOR_MASKED_LM_MAPPING_NAMES, _names.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES)
    tiny = all(family in mapping for mapping in both)
    (make_family_config(family) if tiny else AutoConfig.for_model(family)).save_pretrained(folder)
    return folder


def make_family_config(family: str) -> Any:
    """Return the config of a tiny base of the family, for the tokenizer that `make_family_base` writes."""
    tokenizer = make_tokenizer(_tokenizer_family(family))
    known = AutoConfig.for_model(family)
    fields = {name: size for name, size in _SIZES.items() if hasattr(known, name) and name not in _aliases(known)}
    fields |= {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    ends = {"bos_token_id": tokenizer.cls_token_id, "eos_token_id": tokenizer.sep_token_id}
    ends |= {"cls_token_id": tokenizer.cls_token_id, "sep_token_id": tokenizer.sep_token_id}
    fields |= {name: value for name, value in ends.items() if hasattr(known, name)}
    if hasattr(known, "layer_types"):
        fields["layer_types"] = None
    if family == "funnel":
        fields.pop("num_hidden_layers")
    return AutoConfig.for_model(family, **(fields | dict(_SPECIAL.get(family, {}))))


def make_family_base(family: str, folder: Path) -> Path:
    """Write a tiny base of the family with random weights and a tokenizer into a folder, and return the folder."""
    make_tokenizer(_tokenizer_family(family)).save_pretrained(folder)
    make_encoder(make_family_config(family), 0).save_pretrained(folder)
    return folder


def _tokenizer_family(family: str) -> str:
    return "roberta" if "roberta" in family or family in _LIKE_ROBERTA else "bert"


def _aliases(config: Any) -> set[str]:
    """Return names that a config has for other fields, such as `hidden_size` for DistilBERT's `dim`."""
    return set(getattr(type(config), "attribute_map", {}))
