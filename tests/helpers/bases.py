"""Small bases with random weights, one folder per encoder family, built without a hub.

A folder holds what a real one does: config.json, model.safetensors, tokenizer.json, tokenizer_config.json.
The vocabularies are composed, not trained (the trainers' tie-breaking is not fixed between runs), so the same
call gives the same bytes.
"""

import string
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast

FAMILIES = (
    "bert",
    "distilbert",
    "roberta",
    "electra",
    "albert",
    "deberta-v2",
    "deberta-v3",
    "modernbert",
    "mpnet",
    "xlm-roberta",
)
"""Families that tests run through."""

COPIED_FAMILIES = ("camembert",)
"""Families that `make_base` knows too. transformers copies their code from another one, so only
`tests/models/test_families.py` takes them."""

WORDS = """
the a an and or not is are was be to of in on at for with from by this that it you he she we they my
your his her their our i me him them us what who why how when where which there here no yes good bad
great poor happy sad love hate like want need know think see say go come make take give find get use
work play read write run walk talk look day night time year man woman people world life hand part
child eye place week case point home water room money story movie film book game team music food
price market bank card account phone game city country news sport never always very really just only
also more most than then now new old first last long little own other right big high
""".split()  # noqa: SIM905

_BERT_SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_ROBERTA_SPECIALS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")

_OFFSET_POSITIONS = ("roberta", "xlm-roberta", "camembert", "mpnet")
"""Families that count positions from the padding id + 1, so their config states two more than a text can have."""


def make_base(
    family: str,
    folder: Path,
    *,
    hidden_size: int = 32,
    layers: int = 2,
    positions: int = 512,
    pooler: bool = True,
    seed: int = 0,
    **overrides: Any,
) -> Path:
    """Write a random-weight base of a family into a folder.

    Args:
        family: One of FAMILIES or COPIED_FAMILIES.
        folder: Where to write; it is made if it does not exist.
        hidden_size: Width of the token vectors.
        layers: Number of layers.
        positions: Longest text in tokens, special ones included.
        pooler: Whether the weights hold a pooler, if the family's base has one.
        seed: Of the random weights.
        **overrides: Further config fields, named as the config names them.

    Returns:
        The folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer(family)
    tokenizer.model_max_length = positions
    tokenizer.save_pretrained(folder)
    config = make_config(family, tokenizer, hidden_size=hidden_size, layers=layers, positions=positions, **overrides)
    encoder = make_encoder(config, seed)
    if not pooler and getattr(encoder, "pooler", None) is not None:
        encoder.pooler = None
    encoder.save_pretrained(folder)
    return folder


def make_other_base(kind: str, folder: Path, *, tokenizer: str = "roberta", **fields: Any) -> Path:
    """Write a random-weight base of a family that is none of FAMILIES into a folder, and return the folder.

    Args:
        kind: The family, as config.json calls it.
        folder: Where to write.
        tokenizer: The family whose tokenizer it gets, one of FAMILIES.
        **fields: Further config fields, named as the config names them.
    """
    own = make_tokenizer(tokenizer)
    own.save_pretrained(folder)
    known = _sizes(kind, 32, 2) | {"vocab_size": len(own), "max_position_embeddings": 130}
    known |= {"pad_token_id": own.pad_token_id, "bos_token_id": own.cls_token_id, "eos_token_id": own.sep_token_id}
    make_encoder(AutoConfig.for_model(kind, **(known | fields)), 0).save_pretrained(folder)
    return folder


def make_encoder(config: Any, seed: int) -> Any:
    """Return the bare encoder of a config. Biases and norms are random too, so no fault hides behind a 0 or a 1."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        encoder = AutoModel.from_config(config)
        with torch.no_grad():
            for parameter in encoder.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.05)
    return encoder


def make_config(family: str, tokenizer: Any, *, hidden_size: int, layers: int, positions: int, **overrides: Any) -> Any:
    """Return a small config of the family that fits the tokenizer. Arguments as in `make_base`."""
    fields = _sizes(family, hidden_size, layers)
    fields["vocab_size"] = len(tokenizer)
    fields["max_position_embeddings"] = positions + 2 * (family in _OFFSET_POSITIONS)
    fields["pad_token_id"] = tokenizer.pad_token_id
    fields |= _family_fields(family, tokenizer, hidden_size)
    return AutoConfig.for_model(model_type(family), **(fields | overrides))


def model_type(family: str) -> str:
    """Return what config.json calls the family: DeBERTa v3 is version 2 with other settings."""
    return "deberta-v2" if family == "deberta-v3" else family


def _sizes(family: str, hidden_size: int, layers: int) -> dict[str, Any]:
    if family == "distilbert":
        return {"dim": hidden_size, "hidden_dim": 2 * hidden_size, "n_layers": layers, "n_heads": 4}
    return {
        "hidden_size": hidden_size,
        "intermediate_size": 2 * hidden_size,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
    }


def _family_fields(family: str, tokenizer: Any, hidden_size: int) -> dict[str, Any]:
    ends = {"bos_token_id": tokenizer.cls_token_id, "eos_token_id": tokenizer.sep_token_id}
    relative = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False}
    relative |= {"position_buckets": 16, "norm_rel_ebd": "layer_norm", "share_att_key": True}
    special: dict[str, dict[str, Any]] = {
        "roberta": ends | {"type_vocab_size": 1},
        "xlm-roberta": ends | {"type_vocab_size": 1},
        "camembert": ends | {"type_vocab_size": 1},
        "mpnet": ends,
        "electra": {"embedding_size": hidden_size // 2},
        "albert": ends | {"embedding_size": hidden_size // 2},
        "deberta-v2": relative | {"conv_kernel_size": 3, "conv_act": "gelu"},
        "deberta-v3": relative,
        "modernbert": ends
        | {
            "cls_token_id": tokenizer.cls_token_id,
            "sep_token_id": tokenizer.sep_token_id,
            "local_attention": 16,
        },
    }
    return special.get(family, {})


def make_tokenizer(family: str) -> Any:
    """Return the family's own tokenizer class over a composed vocabulary of letters and the words in WORDS."""
    if family in ("bert", "electra"):
        return transformers.BertTokenizer(vocab=_wordpiece_vocabulary(_BERT_SPECIALS))
    if family == "distilbert":
        vocab = _wordpiece_vocabulary(_BERT_SPECIALS)
        return transformers.BertTokenizer(vocab=vocab, model_input_names=["input_ids", "attention_mask"])
    if family == "mpnet":
        return transformers.MPNetTokenizer(vocab=_wordpiece_vocabulary(("<s>", "<pad>", "</s>", "[UNK]", "<mask>")))
    if family == "roberta":
        vocab, merges = _byte_pairs(_ROBERTA_SPECIALS)
        return transformers.RobertaTokenizer(vocab=vocab, merges=merges)
    if family == "modernbert":
        return _make_modernbert_tokenizer()
    if family == "albert":
        return transformers.AlbertTokenizer(vocab=_unigram_pieces(("<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]")))
    if family in ("xlm-roberta", "camembert"):
        return transformers.XLMRobertaTokenizer(vocab=_unigram_pieces(_ROBERTA_SPECIALS))
    if family in ("deberta-v2", "deberta-v3"):
        pieces = _unigram_pieces(("[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"))
        return transformers.DebertaV2Tokenizer(vocab=pieces, unk_id=3, do_lower_case=False)
    raise ValueError(f"no such family: {family}. There is: {', '.join(FAMILIES + COPIED_FAMILIES)}.")


def _words() -> list[str]:
    return sorted(set(WORDS))


def _wordpiece_vocabulary(specials: tuple[str, ...]) -> dict[str, int]:
    characters = string.ascii_lowercase + string.digits + string.punctuation
    pieces = [*specials, *characters, *(f"##{character}" for character in characters)]
    pieces += [word for word in _words() if len(word) > 1]
    pieces += [f"##{ending}" for ending in ("ing", "ed", "ly", "er", "es")]
    return {piece: index for index, piece in enumerate(pieces)}


def _unigram_pieces(specials: tuple[str, ...]) -> list[tuple[str, float]]:
    """Return (piece, log probability) of special tokens, characters and words."""
    characters = string.ascii_letters + string.digits + string.punctuation
    pieces = [(piece, 0.0) for piece in specials] + [("▁", -3.0)]
    pieces += [(character, -6.0) for character in characters]
    return pieces + [(f"▁{word}", -2.0) for word in _words()]


def _byte_pairs(specials: tuple[str, ...]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Return a vocabulary of the 256 bytes, and merges that build each word from the left, leading space first."""
    pieces = [*specials, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    merges: dict[tuple[str, str], None] = {}
    for word in _words():
        built = "Ġ"
        for letter in word:
            merges[built, letter] = None
            built += letter
    pieces += dict.fromkeys("".join(pair) for pair in merges)
    return {piece: index for index, piece in enumerate(pieces)}, list(merges)


def _make_modernbert_tokenizer() -> Any:
    vocab, merges = _byte_pairs(_BERT_SPECIALS)
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:0 [SEP]:0",
        special_tokens=[(name, vocab[name]) for name in ("[CLS]", "[SEP]")],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_input_names=["input_ids", "attention_mask"],
    )
