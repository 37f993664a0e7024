"""A base under its masked-LM head and, where pairs are judged, under a pair head: what further pretraining trains.

The masked-LM head is the family's own class in transformers, run over the states of the masked positions alone
(`network.stub_encoder`), so that the large projection onto the vocabulary is paid for these only. The pair head is
BERT's: a dense layer with tanh on the first token, then two outputs. Families that have such a head keep it under its
own names (`families`); for the others it is saved in a file of its own, `pair_head.safetensors`.

Weights of the base that this training does not touch (a pooler under plain `mlm`) are copied to what is saved.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import transformers
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.models.auto import modeling_auto

from fullbake.core import storage
from fullbake.core.console import warn
from fullbake.core.errors import BaseModelError
from fullbake.models.encoder import (
    load_encoder_and_missing,
    refuse_missing,
    seeded_initialization,
)
from fullbake.models.families import family_of
from fullbake.models.network import stub_encoder
from fullbake.models.pretrained import (
    explain_load_errors,
    find_base_file,
    load_config,
    quiet_transformers,
    read_json_settings,
    resolve_base,
)
from fullbake.models.projection import find_missing_weights
from fullbake.models.sentence_folder import MODULES_FILE, SETTINGS_FILES, read_length_file, read_sentence_folder
from fullbake.models.weight_files import WEIGHTS_FILE, check_weights

_auto: Any = modeling_auto

PAIR_FILE: Final = "pair_head.safetensors"
"""Name of the file that holds the pair head of a family without a place for it."""


# The network


class PairHead(nn.Module):
    """Judges pairs of texts: class 0 if the second text followed the first in the document, class 1 if not.

    Args:
        width: Of the hidden states.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.output = nn.Linear(width, 2)

    def forward(self, first: Tensor) -> Tensor:
        """Compute logits of the first tokens' states: (rows, width) -> (rows, 2)."""
        logits: Tensor = self.output(torch.tanh(self.dense(first)))
        return logits


class LanguageModel(nn.Module):
    """An encoder that fills masked words and, if it has a pair head, judges pairs of texts.

    Args:
        model: The family's ...ForMaskedLM.
        pair: The pair head, or None.
    """

    _head_on_states: Any
    _encoder: Any

    def __init__(self, model: PreTrainedModel, pair: PairHead | None) -> None:
        super().__init__()
        self.model, self.pair = model, pair
        # unregistered, so that their parameters are not listed twice: they are the model's
        object.__setattr__(self, "_head_on_states", stub_encoder(model))
        object.__setattr__(self, "_encoder", model.base_model)

    @property
    def config(self) -> PreTrainedConfig:
        """The base's config."""
        return self.model.config

    def hidden(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Run the encoder: model inputs (batch, tokens) -> last hidden states (batch, tokens, width)."""
        states: Tensor = self._encoder(**inputs).last_hidden_state
        return states

    def word_logits(self, states: Tensor) -> Tensor:
        """Run the masked-LM head on some tokens: hidden states (n, width) -> logits (n, vocabulary)."""
        logits: Tensor = self._head_on_states(inputs_embeds=states.unsqueeze(0)).logits[0]
        return logits

    def pair_logits(self, hidden: Tensor) -> Tensor:
        """Run the pair head: last hidden states (batch, tokens, width) -> logits (batch, 2)."""
        assert self.pair is not None
        logits: Tensor = self.pair(hidden[:, 0])
        return logits

    def with_encoder(self, encoder: nn.Module) -> "LanguageModel":
        """Return a language model of this masked-LM head, its embedding table included, on another encoder.

        Nothing is copied: it shares its weights with both.
        """
        other = LanguageModel(self.model, None)
        object.__setattr__(other, "_encoder", encoder)
        return other.eval()

    def head_parameters(self) -> list[nn.Parameter]:
        """Return the masked-LM head's own parameters, without the embedding table that it shares."""
        shared = {id(parameter) for parameter in self.model.base_model.parameters()}
        return [parameter for parameter in self.model.parameters() if id(parameter) not in shared]


# Loading and saving


@dataclass(frozen=True, eq=False)
class LoadedLanguageModel:
    """A language model to train, and where its parts came from."""

    network: LanguageModel

    own_head: bool
    """True if the masked-LM head came with the base; False if it starts from random weights."""

    own_pair: bool
    """The same of the pair head."""

    carried: dict[str, Tensor]
    """Further weights of the base, by the name under which they are saved."""


def load_language_model(base: str | Path, *, pairs: bool, seed: int) -> LoadedLanguageModel:
    """Load a base under its masked-LM head. What the base lacks above its encoder is drawn from `seed`.

    Args:
        base: `demo`, a folder, or a hub id.
        pairs: Whether to add a pair head.
        seed: Of the heads that the base lacks.

    Returns:
        The language model, in fp32 and eval mode.

    Raises:
        BaseModelError: As for `encoder.load_encoder` and `sentence_folder.read_sentence_folder`; or the family's head
            cannot run without its encoder.
    """
    place, config = resolve_base(base), load_config(base)
    check_weights(place)
    read_sentence_folder(base)  # what cannot be copied later is refused now
    with seeded_initialization(seed):
        model, missing = _load_class(_auto.MODEL_FOR_MASKED_LM_MAPPING[type(config)], place, config)
        prefix = f"{model.base_model_prefix}."
        refuse_missing(place, {name for name in missing if name.startswith(prefix)})
        carried = _load_other_weights(place, config, model)
        pair = _build_pair_head(model, carried) if pairs else None
    own_pair = _pair_layer_names(config)[1] + ".weight" in carried
    network = LanguageModel(model, pair).eval()
    _check_masked_lm_head(network)
    return LoadedLanguageModel(network, not missing, own_pair, carried)


def new_language_model(config: PreTrainedConfig, *, pairs: bool, seed: int) -> LoadedLanguageModel:
    """Build a language model with random weights.

    Args:
        config: Of the base to build.
        pairs: Whether to add a pair head.
        seed: All weights are drawn from it.

    Raises:
        BaseModelError: The family's head cannot run without its encoder.
    """
    with seeded_initialization(seed):
        model = _auto.MODEL_FOR_MASKED_LM_MAPPING[type(config)](config)
        pair = _build_pair_head(model, {}) if pairs else None
    network = LanguageModel(model.eval(), pair).eval()
    _check_masked_lm_head(network)
    return LoadedLanguageModel(network, False, False, {})


def save_language_model(loaded: LoadedLanguageModel, folder: Path, base: str | Path | None) -> None:
    """Write config.json, model.safetensors and, for a family without a place for it, the pair head.

    Args:
        loaded: The language model.
        folder: Where to write.
        base: What it was made from. The settings of a sentence-transformers folder are copied; None copies
            nothing.
    """
    network, config = loaded.network, loaded.network.config
    state = _state_without_ties(network.model) | loaded.carried
    names = _pair_layer_names(config)
    if network.pair is not None:
        layers = zip((network.pair.dense, network.pair.output), names, strict=True)
        state |= {
            f"{name}.{part}": getattr(layer, part).detach() for layer, name in layers for part in ("weight", "bias")
        }
    in_pair_file = {name: state.pop(name) for name in list(state) if name.startswith(PAIR_FILE)}
    home = family_of(config.model_type).pair_head
    holds_pair_head = home is not None and names[1] + ".weight" in state
    with quiet_transformers():
        network.model.save_pretrained(folder, state_dict=state)
    config.architectures = [home.model_class if home and holds_pair_head else type(network.model).__name__]
    config.save_pretrained(folder)
    if in_pair_file:
        arrays = {name.partition("/")[2]: tensor.cpu().numpy() for name, tensor in in_pair_file.items()}
        storage.write_tensors(folder / PAIR_FILE, arrays)
    if base is not None:
        _copy_sentence_settings(base, folder)


def _load_class(model_class: Any, place: Path | str, config: PreTrainedConfig) -> tuple[Any, set[str]]:
    """Load a base into a class, and return the names of the weights that the base lacks."""
    with explain_load_errors(place), quiet_transformers():
        model, info = model_class.from_pretrained(
            place,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    missing = set(info["missing_keys"])
    with torch.no_grad():
        for name in missing:
            # some families (Longformer) leave the bias of a new head as whatever was in memory
            if name.endswith(".bias"):
                model.get_parameter(name).zero_()
    return model, missing


def _load_other_weights(place: Path | str, config: PreTrainedConfig, model: Any) -> dict[str, Tensor]:
    """Return the base's weights that its masked LM does not have: a pooler, a pair head."""
    found: dict[str, Tensor] = {}
    encoder, missing = load_encoder_and_missing(place, load_config(place), pooler=True)
    for name, tensor in encoder.state_dict().items():
        if name.startswith("pooler.") and name not in missing:
            found[f"{model.base_model_prefix}.{name}"] = tensor.clone()
    home = family_of(config.model_type).pair_head
    if home is not None:
        whole, lacking = _load_class(getattr(transformers, home.model_class), place, load_config(place))
        parts = {name: tensor for name, tensor in whole.state_dict().items() if name.startswith(f"{home.output}.")}
        found |= {name: tensor.clone() for name, tensor in parts.items() if name not in lacking}
    elif isinstance(place, Path) and (place / PAIR_FILE).is_file():
        stored = storage.read_tensors(place / PAIR_FILE)
        found |= {f"{PAIR_FILE}/{name}": torch.from_numpy(array) for name, array in stored.items()}
    return found


def _pair_layer_names(config: PreTrainedConfig) -> tuple[str, str]:
    """Return the names under which the pair head's dense and output layers are saved."""
    home = family_of(config.model_type).pair_head
    return (home.dense, home.output) if home else (f"{PAIR_FILE}/dense", f"{PAIR_FILE}/output")


def _build_pair_head(model: Any, carried: Mapping[str, Tensor]) -> PairHead:
    """Build a pair head: new weights as the family draws them, replaced by those that the base has."""
    head = PairHead(model.config.hidden_size)
    head.apply(model._init_weights)
    for layer, name in zip((head.dense, head.output), _pair_layer_names(model.config), strict=True):
        for part in ("weight", "bias"):
            if f"{name}.{part}" in carried:
                getattr(layer, part).data.copy_(carried[f"{name}.{part}"])
    return head


def _state_without_ties(model: PreTrainedModel) -> dict[str, Tensor]:
    """Return the weights, each tied one once: under the encoder's name for it, or else its first name."""
    state, prefix = model.state_dict(), f"{model.base_model_prefix}."
    names = sorted(state, key=lambda name: not name.startswith(prefix))
    seen: dict[int, str] = {}
    return {name: state[name] for name in names if seen.setdefault(state[name].data_ptr(), name) == name}


def _copy_sentence_settings(base: str | Path, folder: Path) -> None:
    """Copy what a sentence-transformers base says besides its encoder: pooling, layers, prompts, length."""
    place, found = resolve_base(base), read_sentence_folder(base)
    if not found.modules:
        return
    storage.write_json(folder / MODULES_FILE, read_json_settings(place, MODULES_FILE))
    subfolders = [module.path for module in found.modules if module.path]
    for name in (*SETTINGS_FILES, *(f"{subfolder}/config.json" for subfolder in subfolders)):
        settings = read_json_settings(place, name)
        if settings is not None:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            storage.write_json(folder / name, settings)
    if found.max_length is not None:  # the new tokenizer's file names the longest text that the encoder takes
        name, settings = read_length_file(place)
        storage.write_json(folder / name, dict(settings) | {"max_seq_length": found.max_length})
    for subfolder in subfolders:
        weights = find_base_file(place, f"{subfolder}/{WEIGHTS_FILE}")
        if weights is not None:
            (folder / subfolder).mkdir(parents=True, exist_ok=True)
            storage.write_bytes(folder / subfolder / WEIGHTS_FILE, weights.read_bytes())
    for subfolder in find_missing_weights(base):
        warn(f"{subfolder} of the base holds no {WEIGHTS_FILE}, so the new base lacks this layer's weights")


def _check_masked_lm_head(network: LanguageModel) -> None:
    """Raise BaseModelError if the head on hidden states gives other logits than the whole model for 1 x 4 tokens."""
    ids = torch.arange(5, 9).reshape(1, 4) % network.config.vocab_size
    whole: Any = network.model
    with torch.no_grad():
        expected = whole(input_ids=ids).logits[0]
        alone = network.word_logits(network.hidden({"input_ids": ids})[0])
    if alone.shape != expected.shape or not np.allclose(alone.numpy(), expected.numpy(), rtol=1e-4, atol=1e-5):
        raise BaseModelError(
            f"the masked-LM head of model type {network.config.model_type!r} cannot run without its encoder",
            remedy="Choose a base of another architecture for further pretraining.",
        )
