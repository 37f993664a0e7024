"""A base under its masked-LM head, and under a head that judges pairs: what further pretraining trains and saves.

The masked-LM head is the family's own class in transformers, run over gathered states (`standins`), so that the
vocabulary projection is paid at the masked positions only. The pair head is BERT's: a dense layer with tanh on the
first token, then two outputs. In BERT and ALBERT it is the pooler and the NSP or SOP head, under their own names;
families that have none get it in a file beside, `pair_head.safetensors`.

Whatever of the base this training does not touch (a pooler under plain `mlm`) is carried through to what is saved.
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
from fullbake.core.errors import BaseModelError
from fullbake.models.encoder import (
    check_weights,
    load_encoder_and_missing,
    read_json_settings,
    refuse_missing,
    seeded_initialization,
)
from fullbake.models.network import stub_encoder
from fullbake.models.pretrained import explain_load_errors, load_config, quiet_transformers, resolve_base

_auto: Any = modeling_auto

PAIR_FILE: Final = "pair_head.safetensors"

_PAIR_HOMES: Final = {
    "bert": (transformers.BertForPreTraining, "bert.pooler.dense", "cls.seq_relationship"),
    "albert": (transformers.AlbertForPreTraining, "albert.pooler", "sop_classifier.classifier"),
}
"""Model type -> the class that holds a pair head, and the names of its dense and output layers."""


class PairHead(nn.Module):
    """First tokens' states (rows, width) -> logits (rows, 2): 0, the pair stood so in the text; 1, it did not."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.output = nn.Linear(width, 2)

    def forward(self, first: Tensor) -> Tensor:
        """(rows, width) -> (rows, 2)."""
        logits: Tensor = self.output(torch.tanh(self.dense(first)))
        return logits


class LanguageModel(nn.Module):
    """An encoder that fills masked words and, where it has a pair head, judges pairs.

    model: the family's ...ForMaskedLM. pair: None where pairs are not judged.
    """

    _words: Any
    _encoder: Any

    def __init__(self, model: PreTrainedModel, pair: PairHead | None) -> None:
        super().__init__()
        self.model, self.pair = model, pair
        # unregistered: their parameters are the model's
        object.__setattr__(self, "_words", stub_encoder(model))
        object.__setattr__(self, "_encoder", model.base_model)

    @property
    def config(self) -> PreTrainedConfig:
        """The base's."""
        return self.model.config

    def hidden(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Model inputs (batch, tokens) -> last hidden states (batch, tokens, width)."""
        states: Tensor = self._encoder(**inputs).last_hidden_state
        return states

    def word_logits(self, states: Tensor) -> Tensor:
        """Hidden states of some tokens (n, width) -> logits (n, vocabulary)."""
        logits: Tensor = self._words(inputs_embeds=states.unsqueeze(0)).logits[0]
        return logits

    def pair_logits(self, hidden: Tensor) -> Tensor:
        """(batch, tokens, width) -> (batch, 2)."""
        assert self.pair is not None
        logits: Tensor = self.pair(hidden[:, 0])
        return logits

    def over(self, encoder: nn.Module) -> "LanguageModel":
        """This very masked-LM head, table of words and all, put on another encoder. It shares both."""
        other = LanguageModel(self.model, None)
        object.__setattr__(other, "_encoder", encoder)
        return other.eval()

    def head_parameters(self) -> list[nn.Parameter]:
        """The masked-LM head's own, without the embedding table that it shares."""
        shared = {id(parameter) for parameter in self.model.base_model.parameters()}
        return [parameter for parameter in self.model.parameters() if id(parameter) not in shared]


@dataclass(frozen=True, eq=False)
class LoadedLanguageModel:
    """A base ready to be pretrained.

    own_head, own_pair: whether its masked-LM head and its pair head came with it or start from nothing. carried: what
    it holds besides, by the name it is saved under.
    """

    network: LanguageModel
    own_head: bool
    own_pair: bool
    carried: dict[str, Tensor]


def load_language_model(base: str | Path, *, pairs: bool, seed: int) -> LoadedLanguageModel:
    """A base under its masked-LM head, fp32, in eval mode; what it lacks above the encoder is drawn from `seed`.

    pairs: give it a pair head too. Raises BaseModelError as `load_encoder` does, and where the family's head cannot be
    run apart from its encoder.
    """
    place, config = resolve_base(base), load_config(base)
    if isinstance(place, Path):
        check_weights(place)
    with seeded_initialization(seed):
        model, missing = _from_pretrained(_auto.MODEL_FOR_MASKED_LM_MAPPING[type(config)], place, config)
        prefix = f"{model.base_model_prefix}."
        refuse_missing(place, {name for name in missing if name.startswith(prefix)})
        carried = _carried(place, config, model)
        pair = _pair_head(model, carried) if pairs else None
    own_pair = _pair_names(config)[1] + ".weight" in carried
    network = LanguageModel(model, pair).eval()
    _check_words(network)
    return LoadedLanguageModel(network, not missing, own_pair, carried)


def new_language_model(config: PreTrainedConfig, *, pairs: bool, seed: int) -> LoadedLanguageModel:
    """A model of this config with random weights, drawn from `seed`."""
    with seeded_initialization(seed):
        model = _auto.MODEL_FOR_MASKED_LM_MAPPING[type(config)](config)
        pair = _pair_head(model, {}) if pairs else None
    network = LanguageModel(model.eval(), pair).eval()
    _check_words(network)
    return LoadedLanguageModel(network, False, False, {})


def save_language_model(loaded: LoadedLanguageModel, folder: Path, base: str | Path | None) -> None:
    """Write config.json, model.safetensors and, for families without a place for it, the pair head.

    base: what it was made from: a sentence-transformers folder's own settings (which pooling) are copied.
    """
    network, config = loaded.network, loaded.network.config
    state = _once_each(network.model) | loaded.carried
    names = _pair_names(config)
    if network.pair is not None:
        state |= _named(network.pair, names)
    beside = {name: state.pop(name) for name in list(state) if name.startswith(PAIR_FILE)}
    whole = _PAIR_HOMES.get(config.model_type)
    held = whole is not None and names[1] + ".weight" in state
    with quiet_transformers():
        network.model.save_pretrained(folder, state_dict=state)
    config.architectures = [whole[0].__name__ if held and whole else type(network.model).__name__]
    config.save_pretrained(folder)
    if beside:
        arrays = {name.partition("/")[2]: tensor.cpu().numpy() for name, tensor in beside.items()}
        storage.write_tensors(folder / PAIR_FILE, arrays)
    if base is not None:
        _copy_pooling(resolve_base(base), folder)


def _from_pretrained(family: Any, place: Path | str, config: PreTrainedConfig) -> tuple[Any, set[str]]:
    with explain_load_errors(place), quiet_transformers():
        model, info = family.from_pretrained(
            place,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    return model, set(info["missing_keys"])


def _carried(place: Path | str, config: PreTrainedConfig, model: Any) -> dict[str, Tensor]:
    """What the base holds that its masked LM does not: a pooler, a pair head."""
    found: dict[str, Tensor] = {}
    encoder, missing = load_encoder_and_missing(place, load_config(place), pooler=True)
    for name, tensor in encoder.state_dict().items():
        if name.startswith("pooler.") and name not in missing:
            found[f"{model.base_model_prefix}.{name}"] = tensor.clone()
    if config.model_type in _PAIR_HOMES:
        family, _, output = _PAIR_HOMES[config.model_type]
        whole, lacking = _from_pretrained(family, place, load_config(place))
        parts = {name: tensor for name, tensor in whole.state_dict().items() if name.startswith(f"{output}.")}
        found |= {name: tensor.clone() for name, tensor in parts.items() if name not in lacking}
    elif isinstance(place, Path) and (place / PAIR_FILE).is_file():
        stored = storage.read_tensors(place / PAIR_FILE)
        found |= {f"{PAIR_FILE}/{name}": torch.from_numpy(array) for name, array in stored.items()}
    return found


def _pair_names(config: PreTrainedConfig) -> tuple[str, str]:
    """Where the pair head's two layers are kept."""
    _, dense, output = _PAIR_HOMES.get(config.model_type, (None, f"{PAIR_FILE}/dense", f"{PAIR_FILE}/output"))
    return dense, output


def _pair_head(model: Any, carried: Mapping[str, Tensor]) -> PairHead:
    """New as the family draws new layers, with what the base knows of it."""
    head = PairHead(model.config.hidden_size)
    head.apply(model._init_weights)
    for layer, name in zip((head.dense, head.output), _pair_names(model.config), strict=True):
        for part in ("weight", "bias"):
            if f"{name}.{part}" in carried:
                getattr(layer, part).data.copy_(carried[f"{name}.{part}"])
    return head


def _named(head: PairHead, names: tuple[str, str]) -> dict[str, Tensor]:
    layers = zip((head.dense, head.output), names, strict=True)
    return {f"{name}.{part}": getattr(layer, part).detach() for layer, name in layers for part in ("weight", "bias")}


def _once_each(model: PreTrainedModel) -> dict[str, Tensor]:
    """The weights, tied ones once: under the encoder's name for them, or the first."""
    state, prefix = model.state_dict(), f"{model.base_model_prefix}."
    names = sorted(state, key=lambda name: not name.startswith(prefix))
    seen: dict[int, str] = {}
    return {name: state[name] for name in names if seen.setdefault(state[name].data_ptr(), name) == name}


def _copy_pooling(place: Path | str, folder: Path) -> None:
    """What says how a sentence-transformers base is pooled."""
    modules = read_json_settings(place, "modules.json")
    if modules is None:
        return
    storage.write_json(folder / "modules.json", modules)
    for name in [str(module.get("path", "")) for module in modules]:
        settings = read_json_settings(place, f"{name}/config.json") if _is_plain(name) else None
        if settings is not None:
            (folder / name).mkdir(exist_ok=True)
            storage.write_json(folder / name / "config.json", settings)


def _is_plain(name: str) -> bool:
    """Whether it names a folder, and none outside."""
    return name not in ("", ".", "..") and Path(name).name == name


def _check_words(network: LanguageModel) -> None:
    """Run a probe of 1 x 4 tokens both ways."""
    ids = torch.arange(5, 9).reshape(1, 4) % network.config.vocab_size
    whole: Any = network.model
    with torch.no_grad():
        expected = whole(input_ids=ids).logits[0]
        apart = network.word_logits(network.hidden({"input_ids": ids})[0])
    if apart.shape != expected.shape or not np.allclose(apart.numpy(), expected.numpy(), rtol=1e-4, atol=1e-5):
        raise BaseModelError(
            f"the masked-LM head of model type {network.config.model_type!r} cannot be run apart from its encoder",
            remedy="Choose a base of another architecture for further pretraining.",
        )
