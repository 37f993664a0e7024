"""A base at work: load its weights, know its pooling, freeze it, and give its parameters rates by depth.

transformers does the loading; this module holds it to three rules that it does not keep by itself. Every
weight of the encoder comes from the base: what is missing or of another size is an error, never a random
tensor and a line in a log. Weights are fp32, whatever the checkpoint was stored in, and never pickles. And
the head of a `standard` model is always new, also when the base carries a classifier of somebody else's.

Layers are found by structure (the list of `num_hidden_layers` blocks), not by a table of families: a family
nobody thought of works, or is refused with a reason.
"""

import inspect
import json
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.models.auto import modeling_auto
from transformers.utils.hub import cached_file

from fullbake.core.errors import BaseModelError
from fullbake.models.heads import POOLINGS
from fullbake.models.pretrained import explain_load_errors, list_folder, load_config, quiet_transformers, resolve_base

_auto: Any = transformers
_classes: Any = modeling_auto

_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


# Loading its weights


def load_encoder(base: str | Path, *, pooler: bool = False) -> PreTrainedModel:
    """The base as `AutoModel` has it, in fp32 and eval mode, every weight from the base.

    pooler: whether to keep a pooler where the family's base has one; features are taken before it, so only
    `standard` heads ask for it. Raises BaseModelError when weights are missing, of another size, unreadable,
    or pickles.
    """
    place, config = resolve_base(base), load_config(base)
    encoder, missing = load_encoder_and_missing(place, config, pooler=pooler)
    refuse_missing(place, missing)
    return encoder


def load_standard(base: str | Path, label_names: Sequence[str], *, seed: int) -> PreTrainedModel:
    """The base under its architecture's own classifier head, as AutoModelForSequenceClassification has it.

    In eval mode. The head is new and drawn from `seed`; a pooler belongs to the head: the base's own is the
    start where it has one, and a UserWarning says so where it has not.
    """
    place, config = resolve_base(base), load_config(base)
    family: Any = _classes.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(config)]
    with torch.device("meta"), quiet_transformers():
        pooled = getattr(family(config).base_model, "pooler", None) is not None
    with seeded_initialization(seed):
        encoder, missing = load_encoder_and_missing(place, config, pooler=pooled)
        refuse_missing(place, {name for name in missing if not name.startswith("pooler.")})
        if missing:
            warnings.warn(f"{place} holds no pooler; the standard head's starts from random weights", stacklevel=2)
        return model_around_encoder(encoder, family, config_with_labels(config, label_names))


@contextmanager
def seeded_initialization(seed: int) -> Iterator[None]:
    """New weights inside are drawn from `seed`; torch's own generator is as before afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # the CPU's alone: torch.manual_seed would reach every GPU
        yield


def config_with_labels(config: PreTrainedConfig, label_names: Sequence[str]) -> PreTrainedConfig:
    """The same config, told the label names in the order of their ids, and that a text has exactly one."""
    config.id2label = dict(enumerate(label_names))
    config.label2id = {name: index for index, name in enumerate(label_names)}
    config.problem_type = "single_label_classification"
    return config


def model_around_encoder(encoder: PreTrainedModel, family: Any, config: PreTrainedConfig) -> PreTrainedModel:
    """A model of the class `family` over the encoder's weights; the rest is new, from torch's current seed.

    family: a PreTrainedModel class that keeps the encoder under its `base_model_prefix`.
    """
    prefix = family.base_model_prefix
    state = {f"{prefix}.{name}": tensor for name, tensor in encoder.state_dict().items()}
    model: PreTrainedModel
    with quiet_transformers():
        model, info = family.from_pretrained(
            None, config=config, state_dict=state, dtype=torch.float32, output_loading_info=True
        )
    refuse_missing(str(config.name_or_path), {key for key in info["missing_keys"] if key.startswith(f"{prefix}.")})
    return model


def load_encoder_and_missing(
    place: Path | str, config: PreTrainedConfig, *, pooler: bool
) -> tuple[PreTrainedModel, set[str]]:
    """The encoder, and the names of weights that the base does not hold."""
    if isinstance(place, Path):
        check_weights(place)
    with explain_load_errors(place), quiet_transformers():
        encoder, info = _auto.AutoModel.from_pretrained(
            place,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # so that they are reported below, not raised as a page of text
            output_loading_info=True,
            **pooler_kwargs(config, pooler),
        )
    _refuse_mismatched(place, info["mismatched_keys"])
    return encoder, set(info["missing_keys"])


def pooler_kwargs(config: PreTrainedConfig, pooler: bool) -> dict[str, bool]:
    """What the family's base class is told about its pooler: nothing, where it has none to leave out."""
    options = inspect.signature(_classes.MODEL_MAPPING[type(config)].__init__).parameters
    return {"add_pooling_layer": pooler} if "add_pooling_layer" in options else {}


def check_weights(folder: Path) -> None:
    """Raise BaseModelError where a folder holds no safetensors weights."""
    if any((folder / name).is_file() for name in _WEIGHTS):
        return
    pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
    if pickles:
        raise BaseModelError(
            "the weights are pickles, which can run any code when read; fullbake reads safetensors only",
            where=str(folder / pickles[0]),
            expected="model.safetensors",
            remedy="If you trust their source, convert them in Python: AutoModel.from_pretrained(FOLDER)"
            ".save_pretrained(NEW_FOLDER) writes safetensors; copy the tokenizer's files beside them.",
        )
    raise BaseModelError(
        "the folder holds no weights", where=str(folder), expected="model.safetensors", got=list_folder(folder)
    )


def refuse_missing(place: Path | str, missing: set[str]) -> None:
    """Raise BaseModelError where any weight is missing."""
    if missing:
        raise BaseModelError(
            f"the base lacks {len(missing)} of the weights that its config.json asks for",
            where=str(place),
            expected=", ".join(sorted(missing)[:3]) + (", ..." if len(missing) > 3 else ""),
            remedy="The folder is incomplete, or config.json belongs to another model. Fetch the base again.",
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


# Which pooling


def standard_pooling(config: PreTrainedConfig) -> str:
    """What the architecture's own head reads: the first token, or what a ModernBERT's config says."""
    return str(getattr(config, "classifier_pooling", "cls"))


def default_pooling(base: str | Path) -> str:
    """The pooling that a sentence-transformers base names, else `cls`.

    Raises BaseModelError when it names one that is not offered here (weighted mean, last token).
    """
    place = resolve_base(base)
    modules = read_json_settings(place, "modules.json") or []
    paths = [module.get("path", "") for module in modules if str(module.get("type", "")).endswith(".Pooling")]
    if not paths:
        return "cls"
    settings = read_json_settings(place, f"{paths[0]}/config.json") or {}
    named = "+".join(sorted(_named_poolings(settings)))
    if named in POOLINGS:
        return named
    raise BaseModelError(
        "the base names a pooling that fullbake does not offer",
        where=f"{place}, {paths[0]}/config.json",
        expected=", ".join(POOLINGS),
        got=named or "none",
        remedy="Choose one with --pooling.",
    )


def _named_poolings(settings: dict[str, Any]) -> Iterable[str]:
    if "pooling_mode" in settings:  # sentence-transformers 5.3 and later: a name, or a list of them
        modes = settings["pooling_mode"]
        return [modes] if isinstance(modes, str) else modes
    switches = [name.removeprefix("pooling_mode_") for name, on in settings.items() if on is True]
    return [name.removesuffix("_tokens").removesuffix("_token") for name in switches if name != "include_prompt"]


def read_json_settings(place: Path | str, name: str) -> Any:
    """A JSON file of a base, None where it has no such file."""
    path: str | Path | None = place / name if isinstance(place, Path) else None
    if path is None:
        path = cached_file(
            place,
            name,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
            _raise_exceptions_for_gated_repo=False,
        )
    if path is None or not Path(path).is_file():
        return None
    try:
        return json.loads(Path(path).read_text("utf-8"))
    except ValueError as error:
        raise BaseModelError("no valid JSON", where=str(path), got=str(error)) from error


# Depth: freezing and learning rates by layer


def freeze_all(model: nn.Module) -> None:
    """No parameter trains. Dropout stays as it is: eval mode is the caller's."""
    model.requires_grad_(False)


def freeze_lowest(model: nn.Module, layers: int) -> None:
    """Hold the embeddings and the lowest `layers` layers of a model's encoder fixed (0: the embeddings
    alone).

    Raises BaseModelError for ALBERT, whose layers are one, and for more layers than there are.
    """
    _, count = _find_layers(_encoder_of(model))
    _check_count(layers, count)
    depths = parameter_depths(model)
    for name, parameter in model.named_parameters():
        if depths[name] <= layers:
            parameter.requires_grad_(False)


def lowest_layers(model: nn.Module, layers: int | None) -> tuple[list[nn.Module], list[nn.Module]]:
    """(what comes before the layers of a model's encoder, the lowest `layers` of them; None: all), in their order.

    Raises BaseModelError as `freeze_lowest` does.
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
            "there are fewer layers than are to be frozen",
            where="freeze_layers",
            expected=f"0 to {count}",
            got=str(layers),
        )


def probe_inputs(model: Any) -> dict[str, Tensor]:
    """A batch of 2 x 4 tokens, one of them padding, for comparing two ways to compute the same."""
    place = next(model.parameters()).device
    ids = torch.arange(5, 13, device=place).reshape(2, 4) % model.config.vocab_size
    return {"input_ids": ids, "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]], device=place)}


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Within the block the model is in eval mode; afterwards each part is as it was."""
    modes = {part: part.training for part in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode


def parameter_depths(model: nn.Module) -> dict[str, int]:
    """Parameter name -> depth: 0 embeddings, 1 to L the layers from below, L + 1 what lies above (pooler,
    head).

    What all layers share (relative position embeddings) counts as embeddings.
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
        child = inner.split(".")[0]
        return count + 1 if child in order and order.index(child) > order.index(holder) else 0

    return {name: depth(name) for name, _ in model.named_parameters()}


def _encoder_of(model: nn.Module) -> Any:
    return getattr(model, "base_model", model)


def _find_layers(encoder: Any) -> tuple[str, int]:
    """Name of the list of layers within the encoder, and how many there are."""
    config = encoder.config
    count = config.num_hidden_layers
    if not hasattr(config, "num_hidden_groups"):  # ALBERT's: one group of weights runs as every layer
        for name, module in encoder.named_modules():
            if isinstance(module, nn.ModuleList) and len(module) == count:
                return name, count
    raise BaseModelError(
        "the base's layers cannot be told apart",
        where=f"model type {config.model_type!r}",
        expected=f"{count} layers with weights of their own",
        remedy="Leave out freeze_layers and layer_decay for this base.",
    )


def parameter_groups(
    model: nn.Module, *, learning_rate: float, weight_decay: float, layer_decay: float = 1.0
) -> list[dict[str, Any]]:
    """Optimizer groups over the parameters that train: `params`, `lr`, `weight_decay`.

    Biases and norms (every parameter of one dimension) are not decayed. Head, pooler and top layer have the
    full rate, each layer below `layer_decay` times that of the layer above it, the embeddings that of the
    lowest layer times `layer_decay` (Sun et al. 2019, section 5.3.3). Raises BaseModelError for ALBERT when
    layer_decay is not 1.
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
