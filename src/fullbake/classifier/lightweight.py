"""Score a few texts with a bundle without transformers: the forward passes of BERT and DistilBERT in plain torch.

Importing transformers' model classes takes seconds, for any model; the few texts of one command take much less. The
price is a second implementation of two families. So a bundle is scored here only if its probe texts give the logits
that were saved with it. For everything else (other families, pairs, windows, an accelerator) `lightweight_scores`
returns None, and the caller uses `Classifier`. Texts are computed one by one, so there is no padding and no mask.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional

from fullbake.classifier import manifest
from fullbake.config.problems import problem_named
from fullbake.config.sections import TokensConfig
from fullbake.core import storage
from fullbake.core.runtime import device
from fullbake.evaluation.decisions import Decision
from fullbake.models.encoding import Encoded, tokenize
from fullbake.models.families import WeightNames, family_of
from fullbake.models.heads import HEADS, POOLINGS, build_head, build_projection, pool

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
    if facts["columns"]["text_pair"] is not None or facts["tokens"]["truncation"] == "windows":
        return None
    if device().type != "cpu" or (network := _network(folder)) is None:
        return None
    manifest.verify_files(folder, facts["files"])
    logits = _checked_logits(network, folder)
    if logits is None:
        return None
    encoded = _encode(folder, TokensConfig.model_validate(facts["tokens"]), texts)
    decision = Decision.from_json(facts["thresholds"], problem_named(facts["problem_type"]), facts["label_names"])
    return TextScores(decision, decision.problem.probabilities(logits(encoded)))


LightweightLogits = Callable[[Encoded], np.ndarray]
"""Encoded texts -> logits (texts, classes)."""


def _checked_logits(network: "_Network", folder: Path) -> LightweightLogits | None:
    """Return the function that computes logits, if the probe texts give the logits saved in the bundle; else None."""

    def logits(encoded: Encoded) -> np.ndarray:
        with torch.inference_mode():
            return torch.cat([network.logits(ids, types) for ids, types in _rows(encoded)]).numpy()

    stored = storage.read_tensors(folder / "probe.safetensors")
    expected = stored.pop("logits")
    try:
        got = logits(Encoded(**stored))
    except (KeyError, RuntimeError):  # the weights have other names or shapes than this module expects
        return None
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


def _encode(folder: Path, tokens: TokensConfig, texts: Sequence[str]) -> Encoded:
    backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer: Any = _MinimalTokenizer(backend, tuple(_read(folder, "tokenizer_config.json")["model_input_names"]))
    assert tokens.max_length is not None
    return tokenize(tokenizer, texts, max_length=tokens.max_length, truncation=tokens.truncation, prompt=tokens.prompt)


def _read(folder: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / name).read_text("utf-8"))
    return found


# Networks


@dataclass(frozen=True)
class _Network:
    """An encoder and its head."""

    names: WeightNames
    config: dict[str, Any]
    """config.json of the encoder."""

    weights: TensorDict
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


def _network(folder: Path) -> _Network | None:
    """Return the network, or None if its family, activation, pooling or head is not implemented here."""
    config = _read(folder, "config.json")
    ours = config.get("model_type") == "fullbake"
    inner = config["encoder"] if ours else config
    names = family_of(inner.get("model_type", "")).weights
    if names is None or inner.get(names.activation) != "gelu":
        return None
    if ours and (config["pooling"] not in POOLINGS or config["head"] not in HEADS):
        return None  # a newer version wrote it; `Classifier` raises the error
    if not (folder / "model.safetensors").is_file():
        return None  # the weights are in several files, or damaged
    weights = load_file(folder / "model.safetensors")
    if ours:
        return _Network(names, inner, weights, "encoder.", _own_head(config, weights))
    prefix = f"{inner['model_type']}."
    return _Network(names, inner, weights, prefix, _standard_head(names, weights))


def _own_head(config: dict[str, Any], weights: TensorDict) -> Callable[[Tensor], Tensor]:
    state = _below("head.", weights)
    classes, width = state["output.weight"].shape[0], config["width"]
    inputs = next(tensor for tensor in state.values() if tensor.ndim == 2).shape[1]
    head = build_head(config["head"], inputs, classes, dropout=0.0, layers=config["layers"], width=width)
    head.load_state_dict(state)
    head.eval()
    projection = build_projection(config.get("projection", ()))
    if projection is None:
        return lambda hidden: head(pool(hidden, None, config["pooling"]))
    projection.load_state_dict(_below("projection.", weights))
    return lambda hidden: head(projection(pool(hidden, None, config["pooling"])))


def _below(prefix: str, weights: TensorDict) -> TensorDict:
    return {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}


def _standard_head(names: WeightNames, weights: TensorDict) -> Callable[[Tensor], Tensor]:
    dense, activate = names.head_dense, torch.tanh if names.head_activation == "tanh" else functional.relu

    def head(hidden: Tensor) -> Tensor:
        pooled = activate(functional.linear(hidden[:, 0], weights[f"{dense}.weight"], weights[f"{dense}.bias"]))
        return functional.linear(pooled, weights["classifier.weight"], weights["classifier.bias"])

    return head
