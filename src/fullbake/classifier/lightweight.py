"""Score a few texts with a bundle without transformers: the forward passes of BERT and DistilBERT in plain torch.

Importing transformers' model classes takes seconds, for any model; the few texts of one command take much less. The
price is a second implementation of two families. So a bundle is scored here only if its probe texts give the logits
that were saved with it. For everything else (other families, pairs, windows, an accelerator) `lightweight_scores`
returns None, and the caller uses `Classifier`. Texts are computed one by one, so there is no padding and no mask.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from tokenizers import Tokenizer
from tokenizers.normalizers import BertNormalizer
from torch import Tensor
from torch.nn import functional

from fullbake.classifier import manifest
from fullbake.classifier.plain_config import is_plain_config
from fullbake.config.problems import problem_named
from fullbake.config.sections import TokensConfig
from fullbake.core.json_files import match_shape
from fullbake.core.runtime import device
from fullbake.evaluation.decisions import Decision
from fullbake.models import base_files
from fullbake.models.encoding import Encoded, tokenize
from fullbake.models.families import WeightNames, family_of
from fullbake.models.heads import build_head, build_projection, pool
from fullbake.models.tokenizer_safety import TokenizerFacts

TensorDict = dict[str, Tensor]


@dataclass(frozen=True)
class TextScores:
    """Probabilities of texts, and the rule that makes labels of them."""

    decision: Decision
    probabilities: np.ndarray
    """float64 (texts, classes)."""


def lightweight_scores(folder: Path, texts: Sequence[str]) -> TextScores | None:
    """Score single texts with the bundle in `folder`.

    Args:
        folder: The bundle.
        texts: The texts.

    Returns:
        The scores, or None if this bundle must be scored by `Classifier`.

    Raises:
        BundleError: The bundle differs from what was saved.
        DataError: A text is not a string.
    """
    facts = manifest.read_manifest(folder)
    with manifest.explain_faults(folder, _CONFIG):
        config = base_files.read_settings(folder / _CONFIG, _CONFIG)
    if not _is_supported(facts, config) or device().type != "cpu":
        return None
    manifest.verify_files(folder, facts["files"])
    tokenizer_facts = manifest.check_contents(folder, facts, facts["files"])
    manifest.read_seen(folder)
    try:
        bundle = _Bundle(folder, facts, config, tokenizer_facts)
        return _scores(bundle, texts)
    except _DOUBTS:
        return None


_CONFIG: Final = "config.json"

_DOUBTS: Final = (
    AssertionError,
    AttributeError,
    IndexError,
    LookupError,
    OverflowError,
    RuntimeError,
    SafetensorError,
    TypeError,
    ValueError,
)
"""What a bundle raises here that is not as this module expects it. `Classifier` then says what is wrong, or scores."""


@dataclass(frozen=True)
class _Bundle:
    """A bundle whose files were found right."""

    folder: Path
    facts: dict[str, Any]
    config: dict[str, Any]
    tokenizer: TokenizerFacts


def _is_supported(facts: dict[str, Any], config: dict[str, Any]) -> bool:
    """Return True if the texts, the family, the activation, the pooling and the head are implemented here."""
    if facts["columns"]["text_pair"] is not None or facts["tokens"]["truncation"] == "windows":
        return False
    return is_plain_config(config) and family_of(_encoder_config(config)["model_type"]).weights is not None


def _encoder_config(config: dict[str, Any]) -> dict[str, Any]:
    inner: dict[str, Any] = config["encoder"] if config["model_type"] == "fullbake" else config
    return inner


def _scores(bundle: _Bundle, texts: Sequence[str]) -> TextScores | None:
    """Return the scores of the texts, or None if the bundle's probe gives other logits than its own."""
    network = _read_network(bundle)
    if network is None:
        return None
    tokens = TokensConfig.model_validate(bundle.facts["tokens"])
    _require_fit(network, bundle, tokens)
    tokenizer = _read_tokenizer(bundle.folder)
    logits = _checked_logits(
        network, bundle, _encode(tokenizer, manifest.probe_settings(tokens), manifest.probe_texts())
    )
    if logits is None:
        return None
    encoded = _encode(tokenizer, tokens, texts)
    facts = bundle.facts
    decision = Decision.from_json(facts["thresholds"], problem_named(facts["problem_type"]), facts["label_names"])
    return TextScores(decision, decision.problem.probabilities(logits(encoded)))


def _require_fit(network: "_Network", bundle: _Bundle, tokens: TokensConfig) -> None:
    """Raise ValueError unless config.json, weights, tokenizer and fullbake.json fit together."""
    config, names = network.config, network.names
    width = config[names.width]
    sizes = {
        "word_embeddings": (config["vocab_size"], width),
        "position_embeddings": (config["max_position_embeddings"], width),
        "token_type_embeddings": (config.get("type_vocab_size"), width),
    }
    found = {name: network.shape(f"embeddings.{name}.weight") for name in sizes}
    if config.get("type_vocab_size") is None:
        del sizes["token_type_embeddings"]
        found = {name: shape for name, shape in found.items() if shape is not None}
    inner = network.shape(f"{names.layer.format(0)}{names.dense[4]}.weight")
    rows = min(config["max_position_embeddings"], tokens.max_length or 0)
    fits = found == sizes and inner == (config[names.inner], width) and rows == tokens.max_length
    if not fits or bundle.tokenizer.highest_id >= config["vocab_size"]:
        raise ValueError("config.json, the weights and the tokenizer do not fit together")


LightweightLogits = Callable[[Encoded], np.ndarray]
"""Encoded texts -> logits (texts, classes)."""


def _checked_logits(network: "_Network", bundle: _Bundle, probe: Encoded) -> LightweightLogits | None:
    """Return the function that computes logits, if the probe texts give the ids and logits of the bundle; else None."""

    def logits(encoded: Encoded) -> np.ndarray:
        with torch.inference_mode():
            return torch.cat([network.logits(ids, types) for ids, types in _rows(encoded)]).numpy()

    longest = network.config["max_position_embeddings"]
    stored = manifest.read_probe(bundle.folder, labels=len(bundle.facts["label_names"]), max_length=longest)
    expected = stored.pop("logits")
    if not manifest.has_same_ids(stored, probe):
        return None
    got = logits(Encoded(**stored))
    if not network.weights.all_used():
        return None  # what is left over is refused by `Classifier`
    return logits if manifest.relative_difference(expected, got) <= manifest.TOLERANCE else None


def _rows(encoded: Encoded) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the token ids and the segment ids of each row, (1, tokens) each."""
    types = encoded.token_type_ids
    for start, end in zip(encoded.offsets, encoded.offsets[1:], strict=False):
        ids = torch.from_numpy(encoded.input_ids[None, start:end].astype(np.int64))
        own = None if types is None else torch.from_numpy(types[None, start:end].astype(np.int64))
        yield ids, torch.zeros_like(ids) if own is None else own


@dataclass(frozen=True)
class _MinimalTokenizer:
    """The attributes of a tokenizer that `tokenize` reads."""

    backend_tokenizer: Tokenizer
    model_input_names: tuple[str, ...]


def _read_tokenizer(folder: Path) -> _MinimalTokenizer:
    """Return a bundle's tokenizer. Raise ValueError if transformers might make another one of its settings."""
    name = "tokenizer_config.json"
    settings = match_shape(base_files.TokenizerSettings, base_files.read_settings(folder / name, name))
    backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
    for number, token in (settings.added_tokens_decoder or {}).items():
        if backend.token_to_id(_content(token)) != int(number):
            raise ValueError("a token of the settings has another id in tokenizer.json")
    added = {token.content for token in backend.get_added_tokens_decoder().values()}
    if not all(_content(token) in added for token in settings.named_tokens()):
        raise ValueError("the settings name a token that tokenizer.json lacks, or has as a usual one")
    if settings.padding_side is None or settings.truncation_side is None or not _agree(settings, backend.normalizer):
        raise ValueError("the tokenizer's settings are not those of a bundle")
    if settings.model_input_names is None or settings.pad_token is None or settings.tokenizer_class not in _CLASSES:
        raise ValueError("the tokenizer's settings are not those of a bundle")
    return _MinimalTokenizer(backend, tuple(settings.model_input_names))


_CLASSES: Final = (
    *("BertTokenizer", "BertTokenizerFast", "DistilBertTokenizer", "DistilBertTokenizerFast"),
    *("PreTrainedTokenizerFast", "TokenizersBackend", "RobertaTokenizer", "RobertaTokenizerFast"),
)
"""Tokenizer classes that bundles of the families of this module have."""


def _agree(settings: base_files.TokenizerSettings, normalizer: Any) -> bool:
    """Return True if the settings ask for the normalizer of tokenizer.json, as BERT's class builds one of them."""
    if not isinstance(normalizer, BertNormalizer):
        return True
    asked = settings.do_lower_case is not False, settings.tokenize_chinese_chars is not False, settings.strip_accents
    return asked == (normalizer.lowercase, normalizer.handle_chinese_chars, normalizer.strip_accents)


def _content(token: base_files.TokenWord) -> str:
    found = token.get("content") if isinstance(token, dict) else token
    if not isinstance(found, str):
        raise ValueError("a token of the settings is no text")
    return found


def _encode(tokenizer: Any, tokens: TokensConfig, texts: Sequence[str]) -> Encoded:
    assert tokens.max_length is not None
    return tokenize(tokenizer, texts, max_length=tokens.max_length, truncation=tokens.truncation, prompt=tokens.prompt)


# Networks


class _Weights:
    """Tensors by name, which notes the names that were asked for."""

    def __init__(self, tensors: TensorDict) -> None:
        self._tensors = tensors
        self._used: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def __getitem__(self, name: str) -> Tensor:
        tensor = self._tensors[name]
        self._used.add(name)
        return tensor

    def below(self, prefix: str) -> TensorDict:
        """Return the tensors whose names start with a prefix, by the rest of their names."""
        return {name.removeprefix(prefix): self[name] for name in self._tensors if name.startswith(prefix)}

    def all_used(self) -> bool:
        """Return True if every tensor was asked for."""
        return self._used == self._tensors.keys()


@dataclass(frozen=True)
class _Network:
    """An encoder and its head."""

    names: WeightNames
    config: dict[str, Any]
    """config.json of the encoder."""

    weights: _Weights
    prefix: str
    """Prefix of the encoder's weights."""

    head: Callable[[Tensor], Tensor]
    """Last hidden states (1, tokens, width) -> logits (1, classes)."""

    def logits(self, ids: Tensor, types: Tensor) -> Tensor:
        """Compute the logits (1, classes) of one text. ids, types: (1, tokens)."""
        return self.head(self._hidden(ids, types))

    def _hidden(self, ids: Tensor, types: Tensor) -> Tensor:
        hidden = self._embedded(ids, types)
        for number in range(self.config[self.names.depth]):
            hidden = self._layer(hidden, self.names.layer.format(number))
        return hidden

    def _embedded(self, ids: Tensor, types: Tensor) -> Tensor:
        summed = self._of("embeddings.word_embeddings.weight")[ids]
        summed = summed + self._of("embeddings.position_embeddings.weight")[: ids.shape[1]]
        if f"{self.prefix}embeddings.token_type_embeddings.weight" in self.weights:
            summed = summed + self._of("embeddings.token_type_embeddings.weight")[types]
        return self._norm(summed, "embeddings.LayerNorm")

    def _layer(self, hidden: Tensor, layer: str) -> Tensor:
        query, key, value, output, inner, outer = (layer + name for name in self.names.dense)
        q, k, v = (self._split_heads(self._dense(hidden, name)) for name in (query, key, value))
        mixed = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        after, last = (layer + name for name in self.names.norms)
        hidden = self._norm(hidden + self._dense(mixed, output), after)
        return self._norm(hidden + self._dense(functional.gelu(self._dense(hidden, inner)), outer), last)

    def _split_heads(self, states: Tensor) -> Tensor:
        """Reshape (1, tokens, width) to (1, heads, tokens, width of a head)."""
        heads = states.view(*states.shape[:2], self.config[self.names.heads], -1)
        return heads.transpose(1, 2)

    def _dense(self, inputs: Tensor, name: str) -> Tensor:
        return functional.linear(inputs, self._of(f"{name}.weight"), self._of(f"{name}.bias"))

    def _norm(self, inputs: Tensor, name: str) -> Tensor:
        epsilon = self.config.get("layer_norm_eps", 1e-12)  # DistilBERT's is not in its config
        shape = inputs.shape[-1:]
        return functional.layer_norm(inputs, shape, self._of(f"{name}.weight"), self._of(f"{name}.bias"), epsilon)

    def _of(self, name: str) -> Tensor:
        return self.weights[self.prefix + name]

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Return the shape of one of the encoder's weights, None if there is none of this name."""
        return tuple(self._of(name).shape) if self.prefix + name in self.weights else None


def _read_network(bundle: _Bundle) -> _Network | None:
    """Return the network, or None if its weights are in several files."""
    config, inner = bundle.config, _encoder_config(bundle.config)
    names = family_of(inner["model_type"]).weights
    if names is None or not (bundle.folder / "model.safetensors").is_file():
        return None
    weights = _Weights(load_file(bundle.folder / "model.safetensors"))
    if config is not inner:
        return _Network(names, inner, weights, "encoder.", _own_head(config, weights))
    return _Network(names, inner, weights, f"{inner['model_type']}.", _standard_head(names, weights))


def _own_head(config: dict[str, Any], weights: _Weights) -> Callable[[Tensor], Tensor]:
    state = weights.below("head.")
    classes, width = state["output.weight"].shape[0], config["width"]
    inputs = next(tensor for tensor in state.values() if tensor.ndim == 2).shape[1]
    if config["head"] == "mlp" and state["dense_1.weight"].shape != (width, inputs):
        raise ValueError("the head's width is not that of config.json")  # it would be built before it is compared
    head = build_head(config["head"], inputs, classes, dropout=0.0, layers=config["layers"], width=width)
    head.load_state_dict(state)
    head.eval()
    projection = build_projection(config.get("projection", ()))
    if projection is None:
        return lambda hidden: head(pool(hidden, None, config["pooling"]))
    projection.load_state_dict(weights.below("projection."))
    return lambda hidden: head(projection(pool(hidden, None, config["pooling"])))


def _standard_head(names: WeightNames, weights: _Weights) -> Callable[[Tensor], Tensor]:
    dense, activate = names.head_dense, torch.tanh if names.head_activation == "tanh" else functional.relu

    def head(hidden: Tensor) -> Tensor:
        pooled = activate(functional.linear(hidden[:, 0], weights[f"{dense}.weight"], weights[f"{dense}.bias"]))
        return functional.linear(pooled, weights["classifier.weight"], weights["classifier.bias"])

    return head
