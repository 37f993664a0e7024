"""Load a base's weights, find its pooling, freeze it, and group its parameters by depth.

transformers does the loading; this module adds three rules that it does not keep by itself. Every weight of the encoder
comes from the base: a missing or mismatched weight is an error, never a random tensor. Weights are fp32, whatever type
they were stored in, and never pickles. The head of a `standard` model is always new, also where the base has one.

Layers are found by structure (the list of `num_hidden_layers` blocks), not by a table of families, so a family that
nobody thought of works or is refused with a reason.
"""

import functools
import inspect
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal

import torch
import transformers
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.models.auto import modeling_auto

from fullbake.config.problems import SINGLE_LABEL
from fullbake.config.sections import HeadConfig
from fullbake.core.errors import BaseModelError
from fullbake.models.families import family_of
from fullbake.models.heads import POOLINGS
from fullbake.models.pretrained import (
    explain_load_errors,
    load_config,
    quiet_transformers,
    resolve_base,
)
from fullbake.models.sentence_folder import read_sentence_folder
from fullbake.models.weight_checks import refuse_left_out
from fullbake.models.weight_files import check_weights, list_weights, refuse_more_than_stored

_auto: Any = transformers
_classes: Any = modeling_auto

# Loading weights


def load_encoder(base: str | Path, *, pooler: bool = False) -> PreTrainedModel:
    """Load a base as `AutoModel` does, with every weight from the base.

    Args:
        base: `demo`, a folder, or a hub id.
        pooler: Whether to keep the pooler, if the family's base has one. Features are taken before it, so only
            `standard` heads need it.

    Returns:
        The encoder, in fp32 and eval mode.

    Raises:
        BaseModelError: Weights are missing, of another size, unreadable, or pickles.
    """
    place, config = resolve_base(base), load_config(base)
    encoder, missing = load_encoder_and_missing(place, config, pooler=pooler)
    refuse_missing(place, missing)
    return encoder


def load_standard(base: str | Path, label_names: Sequence[str], *, seed: int) -> PreTrainedModel:
    """Load a base under a new classifier head of its own architecture (AutoModelForSequenceClassification).

    A pooler belongs to the head. It starts from the base's pooler; where the base holds none, it starts from random
    weights and a UserWarning says so.

    Args:
        base: `demo`, a folder, or a hub id.
        label_names: In the order of their ids.
        seed: The new head is drawn from it.

    Returns:
        The classifier, in fp32 and eval mode.

    Raises:
        BaseModelError: As for `load_encoder`.
    """
    place, config = resolve_base(base), load_config(base)
    model_class: Any = _classes.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(config)]
    with explain_load_errors(place), torch.device("meta"), quiet_transformers():
        pooled = getattr(model_class(config).base_model, "pooler", None) is not None
    with seeded_initialization(seed):
        encoder, missing = load_encoder_and_missing(place, config, pooler=pooled)
        refuse_missing(place, {name for name in missing if not name.startswith("pooler.")})
        if missing:
            warnings.warn(f"{place} holds no pooler; the standard head's starts from random weights", stacklevel=2)
        return model_around_encoder(encoder, model_class, config_with_labels(config, label_names))


@contextmanager
def seeded_initialization(seed: int) -> Iterator[None]:
    """Draw new weights within the block from `seed`, and restore torch's generator afterwards.

    Yields:
        Nothing.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # the CPU's alone: torch.manual_seed would reach every GPU
        yield


def config_with_labels(config: PreTrainedConfig, label_names: Sequence[str]) -> PreTrainedConfig:
    """Write label names, in the order of their ids, and the problem type into a config, and return it."""
    config.id2label = dict(enumerate(label_names))
    config.label2id = {name: index for index, name in enumerate(label_names)}
    config.problem_type = SINGLE_LABEL
    return config


def model_around_encoder(encoder: PreTrainedModel, model_class: Any, config: PreTrainedConfig) -> PreTrainedModel:
    """Build a model that has the encoder's weights; the rest is drawn from torch's current seed.

    Args:
        encoder: The encoder whose weights are taken.
        model_class: A PreTrainedModel class that keeps its encoder under its `base_model_prefix`.
        config: Of the new model.

    Raises:
        BaseModelError: The class asks for encoder weights that the encoder does not have.
    """
    prefix = model_class.base_model_prefix
    state = {f"{prefix}.{name}": tensor for name, tensor in encoder.state_dict().items()}
    model: PreTrainedModel
    with quiet_transformers():
        model, info = model_class.from_pretrained(
            None, config=config, state_dict=state, dtype=torch.float32, output_loading_info=True
        )
    refuse_missing(str(config.name_or_path), {key for key in info["missing_keys"] if key.startswith(f"{prefix}.")})
    return model


def load_encoder_and_missing(
    place: Path | str, config: PreTrainedConfig, *, pooler: bool
) -> tuple[PreTrainedModel, set[str]]:
    """Load an encoder whose base may lack weights.

    Args:
        place: The base, as `resolve_base` returns it.
        config: As `load_config` returns it.
        pooler: Whether to keep the pooler, if the family's base has one.

    Returns:
        The encoder in fp32, and the names of the weights that the base does not hold.

    Raises:
        BaseModelError: Weights are of another size, unreadable, or pickles, or the encoder leaves some of its own out.
    """
    check_weights(place)
    with explain_load_errors(place), quiet_transformers():
        encoder, info = read_weights(_auto.AutoModel, place, config, **pooler_kwargs(config, pooler))
    _refuse_mismatched(place, info["mismatched_keys"])
    refuse_left_out(place, encoder, info["unexpected_keys"])
    return encoder, set(info["missing_keys"])


def read_weights(
    auto_class: Any, place: Path | str, config: PreTrainedConfig, **options: bool
) -> tuple[Any, dict[str, Any]]:
    """Load a model in fp32 from safetensors. What does not fit is reported, not raised.

    Args:
        auto_class: One of transformers' classes such as AutoModel.
        place: A base, as `resolve_base` returns it, or a bundle.
        config: Of the model.
        **options: Further arguments of the model's class.

    Returns:
        The model, and what transformers says of its weights: `missing_keys`, `unexpected_keys`, `mismatched_keys`.

    Raises:
        BaseModelError: The config asks for far more weights than a folder holds.
    """
    if isinstance(place, Path):
        with torch.device("meta"):
            skeleton = auto_class.from_config(config, **options)
        refuse_more_than_stored(place, skeleton)
    model, info = auto_class.from_pretrained(
        place,
        config=config,
        dtype=torch.float32,
        use_safetensors=True,
        trust_remote_code=False,
        ignore_mismatched_sizes=True,  # else a page of text is raised
        output_loading_info=True,
        **options,
    )
    return model, info


def pooler_kwargs(config: PreTrainedConfig, pooler: bool) -> dict[str, bool]:
    """Return the keyword arguments that give the family's base class a pooler or none; {} if it has no choice."""
    options = inspect.signature(_classes.MODEL_MAPPING[type(config)].__init__).parameters
    return {"add_pooling_layer": pooler} if "add_pooling_layer" in options else {}


def refuse_missing(place: Path | str, missing: set[str]) -> None:
    """Raise BaseModelError if the set of missing weights is not empty."""
    if missing:
        raise BaseModelError(
            f"the base lacks {len(missing)} of the weights that its config.json asks for",
            where=str(place),
            expected=", ".join(sorted(missing)[:3]) + (", ..." if len(missing) > 3 else ""),
            got=list_weights(place) if isinstance(place, Path) else None,
            remedy="The folder is incomplete, or config.json belongs to another model. Fetch the base again; if the "
            "names begin with the name of another model or of a wrapper (`module.`), save the model itself again.",
        )


def _refuse_mismatched(place: Path | str, mismatched: Any) -> None:
    if mismatched:
        name, found, asked = sorted(mismatched, key=str)[0]
        raise BaseModelError(
            f"{len(mismatched)} of the base's weights have another size than its config.json asks for",
            where=f"{place}, {name}",
            expected=str(tuple(asked)),
            got=str(tuple(found)),
            remedy="config.json and weights belong to different models. Fetch the base again.",
        )


# Finding the pooling


_POOLING_NAMES: Final = {"bos": "cls"}
"""Names that a family has for one of our poolings (EuroBERT)."""


def standard_pooling(config: PreTrainedConfig) -> str:
    """Return the pooling that the architecture's own head reads: `cls`, unless the config names another one.

    A name that is none of `heads.POOLINGS` means that the head reads the states of all tokens, as under EuroBERT's
    `late`.
    """
    named = str(getattr(config, family_of(config.model_type).pooling_field, "cls"))
    return _POOLING_NAMES.get(named, named)


def check_frozen_standard_head(base: str | Path) -> None:
    """Raise BaseModelError if a base's standard head cannot run on one vector of each text, which way `frozen` stores.

    Args:
        base: `demo`, a folder, or a hub id.
    """
    config = load_config(base)
    pooling = standard_pooling(config)
    if pooling not in POOLINGS:
        raise BaseModelError(
            f"the standard head of this base reads the states of all tokens (pooling {pooling!r}), and way frozen "
            "stores one vector of each text",
            where=f"base '{base}'",
            expected=f"one of {', '.join(POOLINGS)}",
            remedy="Pass --head linear or --head mlp with --way frozen, or take --way finetune.",
        )


def takes_global_attention(config: PreTrainedConfig) -> bool:
    """Return True if an encoder attends locally and lets its caller name tokens that see all others (Longformer)."""
    return "global_attention_mask" in _forward_arguments(_classes.MODEL_MAPPING[type(config)])


@functools.cache  # they are asked for at every batch
def _forward_arguments(model_class: Any) -> frozenset[str]:
    return frozenset(inspect.signature(model_class.forward).parameters)


def encoder_inputs(encoder: Any, inputs: Mapping[str, Tensor], pooling: str) -> dict[str, Tensor]:
    """Return what an encoder is given for a batch, where its states are pooled in a certain way.

    The first token of an encoder with local attention sees the whole text only under global attention, which the
    family's own classifier gives it too (Beltagy et al. 2020, arXiv 2004.05150).

    Args:
        encoder: A bare encoder.
        inputs: input_ids, and attention_mask and token_type_ids where the batch has them; each (batch, tokens).
        pooling: What reads the states, such as `cls`.
    """
    given = dict(inputs)
    if "cls" in pooling.split("+") and takes_global_attention(encoder.config):
        given["global_attention_mask"] = torch.zeros_like(given["input_ids"])
        given["global_attention_mask"][:, 0] = 1
    return given


def default_pooling(base: str | Path) -> str:
    """Return the pooling that a sentence-transformers base names, or `cls` for other bases.

    Args:
        base: `demo`, a folder, or a hub id.

    Raises:
        BaseModelError: The base names a pooling that fullbake does not offer (weighted mean, last token).
    """
    folder = read_sentence_folder(base)
    if not folder.poolings:
        return "cls"
    if folder.pooling is None:
        raise BaseModelError(
            "the base names a pooling that fullbake does not offer",
            where=f"base '{base}'",
            expected=", ".join(POOLINGS),
            got=" and ".join(folder.poolings),
            remedy="Choose one with --pooling.",
        )
    return folder.pooling


def default_head(base: str | Path) -> Literal["linear", "standard"]:
    """Return the head for fine-tuning a base where the user names none.

    A base that names its pooling was trained through it: a linear layer on it starts from good features, while a
    standard head would put a new random pooler between (docs/results.md has the figures).

    Args:
        base: `demo`, a folder, or a hub id.
    """
    return "standard" if read_sentence_folder(base).pooling is None else "linear"


def resolve_head(base: str | Path, head: HeadConfig) -> HeadConfig:
    """Return the head's section with `auto` replaced by `default_head`, or by `linear` where it names a pooling.

    Args:
        base: `demo`, a folder, or a hub id.
        head: the section of a recipe of way `finetune`.
    """
    if head.kind != "auto":
        return head
    kind = default_head(base) if head.pooling is None else "linear"
    return head.model_copy(update={"kind": kind})


# Comparing two ways to compute the same


def probe_inputs(model: Any) -> dict[str, Tensor]:
    """Return a batch of 2 x 4 tokens, one of them padding, on the model's device."""
    place = next(model.parameters()).device
    ids = torch.arange(5, 13, device=place).reshape(2, 4) % model.config.vocab_size
    return {"input_ids": ids, "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]], device=place)}


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Put a model into eval mode within the block, and restore every part's mode afterwards.

    Yields:
        Nothing.
    """
    modes = {part: part.training for part in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode


# Freezing, and learning rates by depth


def freeze_all(model: nn.Module) -> None:
    """Stop every parameter from training. Dropout is not changed: use `model.eval()` for that."""
    model.requires_grad_(False)


def freeze_lowest(model: nn.Module, layers: int) -> None:
    """Stop the embeddings and the lowest layers of a model's encoder from training.

    Args:
        model: An encoder, or a model with one.
        layers: How many layers to freeze; 0 freezes the embeddings alone.

    Raises:
        BaseModelError: The family shares one group of weights between its layers (ALBERT), or has fewer layers.
    """
    _, count = _find_layers(_encoder_of(model))
    _check_count(layers, count)
    depths = parameter_depths(model)
    for name, parameter in model.named_parameters():
        if depths[name] <= layers:
            parameter.requires_grad_(False)


def lowest_layers(model: nn.Module, layers: int | None) -> tuple[list[nn.Module], list[nn.Module]]:
    """Return the lower part of a model's encoder.

    Args:
        model: An encoder, or a model with one.
        layers: How many layers to return; None returns all.

    Returns:
        The modules before the layers (embeddings), and the lowest layers, both in the order in which they run.

    Raises:
        BaseModelError: As for `freeze_lowest`.
    """
    encoder = _encoder_of(model)
    path, count = _find_layers(encoder)
    _check_count(layers or 0, count)
    names = [name for name, _ in encoder.named_children()]
    below = names[: names.index(path.split(".")[0])]
    return [encoder.get_submodule(name) for name in below], list(encoder.get_submodule(path))[:layers]


def _check_count(layers: int, count: int) -> None:
    if not 0 <= layers <= count:
        raise BaseModelError(
            "the base has fewer layers than are to be frozen",
            where="--freeze-layers",
            expected=f"0 to {count}",
            got=str(layers),
        )


def parameter_depths(model: nn.Module) -> dict[str, int]:
    """Return the depth of every parameter, by its name.

    Depth 0 is the embeddings and what all layers share (relative position embeddings), 1 to L are the layers from
    below, and L + 1 is what lies above them (pooler, head).

    Raises:
        BaseModelError: The family shares one group of weights between its layers (ALBERT).
    """
    encoder = _encoder_of(model)
    path, count = _find_layers(encoder)
    prefix = next(name for name, module in model.named_modules() if module is encoder)
    order = [name for name, _ in encoder.named_children()]
    holder = path.split(".")[0]

    def depth(name: str) -> int:
        if prefix and not name.startswith(f"{prefix}."):
            return count + 1
        inner = name.removeprefix(f"{prefix}.") if prefix else name
        if inner.startswith(f"{path}."):
            return int(inner.removeprefix(f"{path}.").split(".")[0]) + 1
        # a part of the encoder beside the layers: above them if it comes after them
        child = inner.split(".")[0]
        return count + 1 if child in order and order.index(child) > order.index(holder) else 0

    return {name: depth(name) for name, _ in model.named_parameters()}


def _encoder_of(model: nn.Module) -> Any:
    return getattr(model, "base_model", model)


def _find_layers(encoder: Any) -> tuple[str, int]:
    """Return the name of the list of layers within the encoder, and how many layers there are."""
    config = encoder.config
    count = config.num_hidden_layers
    if not family_of(config.model_type).shares_layers:
        for name, module in encoder.named_modules():
            if isinstance(module, nn.ModuleList) and len(module) == count:
                return name, count
    raise BaseModelError(
        "the base's layers share their weights, or cannot be found",
        where=f"model type {config.model_type!r}",
        expected=f"{count} layers with weights of their own",
        remedy="Leave out --freeze-layers and --layer-decay for this base.",
    )


def parameter_groups(
    model: nn.Module, *, learning_rate: float, weight_decay: float, layer_decay: float = 1.0
) -> list[dict[str, Any]]:
    """Group the parameters that train, for an optimizer.

    Biases and norms (every parameter of one dimension) get no weight decay. Head, pooler and top layer get the full
    rate, each layer below `layer_decay` times the rate of the layer above it, and the embeddings `layer_decay` times
    that of the lowest layer (Sun et al. 2019, section 5.3.3).

    Args:
        model: Any module; only layer_decay other than 1 needs an encoder in it.
        learning_rate: Peak rate of the top.
        weight_decay: Of all parameters with more than one dimension.
        layer_decay: Above 0, at most 1.

    Returns:
        Groups with `params`, `lr` and `weight_decay`.

    Raises:
        BaseModelError: layer_decay is not 1 and the family shares one group of weights between its layers (ALBERT).
    """
    depths = parameter_depths(model) if layer_decay != 1 else {}
    top = _find_layers(_encoder_of(model))[1] if depths else 0
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            rate = learning_rate * layer_decay ** max(0, top - depths.get(name, top))
            decay = weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
    return [{"params": params, "lr": rate, "weight_decay": decay} for (rate, decay), params in groups.items()]
