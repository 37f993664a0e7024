"""Ten common repositories of the hub, rebuilt small: their files, names of weights and tokenizer settings.

A repository has more than a base needs: weights of other frameworks, vocabularies beside tokenizer.json, heads of the
pretraining, buffers that older versions saved. Files of other frameworks are placeholders here: nothing reads them.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
import transformers
from safetensors.torch import save_file
from torch import Tensor

from helpers.bases import make_config, make_tokenizer

_OTHER_FRAMEWORKS: Final = ("pytorch_model.bin", "tf_model.h5", "flax_model.msgpack", "rust_model.ot")

_EVERYWHERE: Final = (".gitattributes", "README.md")


@dataclass(frozen=True)
class HubLayout:
    """What a repository has besides an encoder's weights.

    Attributes:
        family: as `helpers.bases` calls it.
        model: class in transformers whose weights are saved.
        files: further files, as placeholders.
        tokenizer: content of tokenizer_config.json, as it was written years ago.
        config: further fields of config.json.
        extra: shapes of further weights.
        renamed: ends of the names of weights, as older versions called them.
        bare: True if the encoder's weights have no prefix.
    """

    family: str
    model: str
    files: tuple[str, ...] = ()
    tokenizer: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    renamed: Mapping[str, str] = field(default_factory=dict)
    bare: bool = False


_POSITIONS: Final = (1, 512)

HUB_LAYOUTS: Final[Mapping[str, HubLayout]] = {
    "bert": HubLayout(
        "bert",
        "BertForPreTraining",
        files=("vocab.txt", "model.onnx", "LICENSE", "coreml/fill-mask/model.mlmodel", *_OTHER_FRAMEWORKS),
        tokenizer={"do_lower_case": True, "model_max_length": 512},
        config={"position_embedding_type": "absolute", "gradient_checkpointing": False, "transformers_version": "4.6"},
        extra={"bert.embeddings.position_ids": _POSITIONS},
        renamed={"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"},
    ),
    "distilbert": HubLayout(
        "distilbert",
        "DistilBertForMaskedLM",
        files=("vocab.txt", "map.jpeg", "LICENSE", *_OTHER_FRAMEWORKS),
        tokenizer={"do_lower_case": True, "model_max_length": 512},
        config={"tie_weights_": True, "seq_classif_dropout": 0.2, "sinusoidal_pos_embds": False},
    ),
    "roberta": HubLayout(
        "roberta",
        "RobertaForMaskedLM",
        files=("dict.txt", "merges.txt", "vocab.json", *_OTHER_FRAMEWORKS),
        tokenizer={"model_max_length": 512},
        extra={"roberta.embeddings.position_ids": (1, 514)},
    ),
    "xlm-roberta": HubLayout(
        "xlm-roberta",
        "XLMRobertaForMaskedLM",
        files=("sentencepiece.bpe.model", "onnx/model.onnx", "onnx/sentencepiece.bpe.model", *_OTHER_FRAMEWORKS),
        tokenizer={"model_max_length": 512},
        extra={"roberta.embeddings.position_ids": (1, 514), "roberta.pooler.dense.weight": (32, 32)},
    ),
    "deberta-v3": HubLayout(
        "deberta-v3",
        "DebertaV2ForMaskedLM",
        files=("spm.model", "pytorch_model.generator.bin", "generator_config.json", *_OTHER_FRAMEWORKS),
        tokenizer={"do_lower_case": False, "vocab_type": "spm"},
        extra={
            "deberta.embeddings.word_embeddings._weight": (8, 32),
            "deberta.embeddings.position_embeddings.weight": (512, 32),
            "lm_predictions.lm_head.dense.weight": (32, 32),
            "mask_predictions.dense.weight": (32, 32),
        },
    ),
    "albert": HubLayout(
        "albert",
        "AlbertForPreTraining",
        files=("spiece.model", *_OTHER_FRAMEWORKS),
        tokenizer={"do_lower_case": True, "model_max_length": 512},
        extra={"albert.embeddings.position_ids": _POSITIONS},
    ),
    "electra": HubLayout(
        "electra",
        "ElectraForPreTraining",
        files=("vocab.txt", *_OTHER_FRAMEWORKS),
        tokenizer={"do_lower_case": True, "model_max_length": 512},
        extra={"electra.embeddings.position_ids": _POSITIONS},
    ),
    "mpnet": HubLayout(
        "mpnet",
        "MPNetForMaskedLM",
        files=("vocab.txt", *_OTHER_FRAMEWORKS),
        tokenizer={"do_lower_case": True, "model_max_length": 512},
        extra={"mpnet.embeddings.position_ids": (1, 514)},
    ),
    "modernbert": HubLayout(
        "modernbert",
        "ModernBertForMaskedLM",
        files=("onnx/model.onnx", "onnx/model_int8.onnx", "pytorch_model.bin"),
        tokenizer={
            "model_max_length": 512,
            "clean_up_tokenization_spaces": True,
            "tokenizer_class": "PreTrainedTokenizerFast",
            "cls_token": "[CLS]",
            "mask_token": "[MASK]",
            "pad_token": "[PAD]",
            "sep_token": "[SEP]",
            "unk_token": "[UNK]",
            "model_input_names": ["input_ids", "attention_mask"],
        },
    ),
    "sentence-transformers": HubLayout(
        "bert",
        "BertModel",
        files=("vocab.txt", "train_script.py", "data_config.json", "onnx/model.onnx", "openvino/openvino_model.xml"),
        tokenizer={"do_lower_case": True, "tokenizer_class": "BertTokenizer", "model_max_length": 512},
        extra={"embeddings.position_ids": _POSITIONS},
        bare=True,
    ),
}
"""Name of the layout -> the layout."""


def make_hub_layout(name: str, folder: Path) -> Path:
    """Write a repository of this layout into a folder, and return the folder."""
    layout = HUB_LAYOUTS[name]
    tokenizer = make_tokenizer(layout.family)
    tokenizer.model_max_length = 512
    tokenizer.save_pretrained(folder)
    (folder / "tokenizer_config.json").write_text(json.dumps(dict(layout.tokenizer)))
    names = {f"{token}_token": getattr(tokenizer, f"{token}_token") for token in ("cls", "mask", "pad", "sep", "unk")}
    (folder / "special_tokens_map.json").write_text(json.dumps(names))
    _write_weights(layout, tokenizer, folder)
    for path in (folder / file for file in (*_EVERYWHERE, *layout.files)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}" if path.suffix == ".json" else "placeholder\n")
    if name == "sentence-transformers":
        _write_sentence_settings(folder)
    return folder


def _write_weights(layout: HubLayout, tokenizer: Any, folder: Path) -> None:
    config = make_config(layout.family, tokenizer, hidden_size=32, layers=2, positions=512)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = getattr(transformers, layout.model)(config)
    config.architectures = [layout.model]
    config.save_pretrained(folder)
    value = json.loads((folder / "config.json").read_text()) | dict(layout.config)
    (folder / "config.json").write_text(json.dumps(value))
    tensors: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        ending = next((end for end in layout.renamed if name.endswith(end)), "")
        tensors[name.removesuffix(ending) + layout.renamed.get(ending, "")] = tensor.clone()
    for name, shape in layout.extra.items():
        tensors[name] = torch.arange(shape[1]).reshape(shape) if "position_ids" in name else torch.ones(shape)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _write_sentence_settings(folder: Path) -> None:
    """Write what sentence-transformers has beside an encoder, and a tokenizer.json that pads and truncates."""
    kinds = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
    modules = [
        {"idx": place, "name": str(place), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for place, (kind, path) in enumerate(kinds.items())
    ]
    pooling = {"word_embedding_dimension": 32, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
    versions = {"__version__": {"sentence_transformers": "2.0.0", "transformers": "4.6.1", "pytorch": "1.8.1"}}
    files = {
        "modules.json": modules,
        "1_Pooling/config.json": pooling,
        "sentence_bert_config.json": {"max_seq_length": 256, "do_lower_case": False},
        "config_sentence_transformers.json": versions,
    }
    for name, value in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(value))
    own = json.loads((folder / "tokenizer.json").read_text())
    own["truncation"] = {"direction": "Right", "max_length": 128, "strategy": "LongestFirst", "stride": 0}
    own["padding"] = {"strategy": {"Fixed": 128}, "direction": "Right", "pad_to_multiple_of": None}
    own["padding"] |= {"pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"}
    (folder / "tokenizer.json").write_text(json.dumps(own))
