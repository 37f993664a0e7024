"""Encoder and head as one transformers model, and one interface to the features and the head of any classifier.

A `standard` head is the architecture's own class. The heads `linear` and `mlp` are `EncoderForTextClassification`, an
ordinary PreTrainedModel with its own config, so `save_pretrained`, `from_pretrained`, the Auto classes and pipelines
work; importing this module registers it with them.

Training on frozen features needs a `standard` head without its encoder, which every family builds differently. So the
model's own forward pass runs over an encoder stub that returns given hidden states (`stub_encoder`), and a probe
compares the result with the whole model: an unknown family is exact or refused.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast

import torch
import transformers
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling, SequenceClassifierOutput

from fullbake.config.problems import MULTI_LABEL, SINGLE_LABEL, ProblemType
from fullbake.config.sections import HeadConfig
from fullbake.core import storage
from fullbake.core.errors import BaseModelError, BundleError, Error
from fullbake.core.hashing import fingerprint
from fullbake.models.base_files import check_base_files
from fullbake.models.encoder import (
    config_with_labels,
    default_pooling,
    encoder_inputs,
    eval_mode,
    load_encoder,
    load_standard,
    model_around_encoder,
    pooler_kwargs,
    probe_inputs,
    read_weights,
    resolve_head,
    seeded_initialization,
    standard_pooling,
    takes_global_attention,
)
from fullbake.models.families import family_of
from fullbake.models.heads import HEADS, POOLINGS, build_head, build_projection, init_dense, pool, pooled_width
from fullbake.models.pretrained import first_line, quiet_transformers
from fullbake.models.projection import load_projection, projection_fingerprint
from fullbake.models.static_encoder import StaticEncoder, StaticEncoderConfig
from fullbake.models.switches import set_switches
from fullbake.models.weight_files import check_weights, refuse_adapter_beside

_auto: Any = transformers


# The model of our heads


class EncoderHeadConfig(PreTrainedConfig):
    """Config of an EncoderForTextClassification.

    Args:
        encoder: The base's own config, or a dict of it.
        pooling: What the head reads, one of `heads.POOLINGS`.
        head: `linear` or `mlp`.
        dropout: As in `heads.build_head`; `layers` and `width` too.
        projection: Dense layers between pooling and head, as `heads.build_projection` takes them.
        **kwargs: What every transformers config holds, label names among it.
    """

    model_type = "fullbake"
    sub_configs = {"encoder": transformers.AutoConfig}  # noqa: RUF012  (transformers declares it so)

    def __init__(
        self,
        encoder: PreTrainedConfig | dict[str, Any] | None = None,
        *,
        pooling: str = "cls",
        head: str = "linear",
        dropout: float = 0.0,
        layers: int = 0,
        width: int = 0,
        projection: Sequence[dict[str, Any]] = (),
        **kwargs: Any,
    ) -> None:
        if isinstance(encoder, dict):
            encoder = cast(PreTrainedConfig, _auto.AutoConfig.for_model(**encoder))
        # transformers builds configs without arguments, to compare them with their defaults
        self.encoder: Any = encoder if encoder is not None else _auto.BertConfig()
        self.pooling, self.head = pooling, head
        self.dropout, self.layers, self.width = dropout, layers, width
        self.projection = list(projection)
        super().__init__(**kwargs)


def head_width(config: EncoderHeadConfig) -> int:
    """Return the width of what the head of an EncoderForTextClassification reads."""
    if config.projection:
        return int(config.projection[-1]["out_features"])
    return pooled_width(config.encoder.hidden_size, config.pooling)


_LOSSES: Final[Mapping[str, Callable[[Tensor, Tensor], Tensor]]] = {
    SINGLE_LABEL: cross_entropy,
    MULTI_LABEL: lambda logits, labels: binary_cross_entropy_with_logits(logits, labels.float()),
}
"""Problem type in the config -> the mean loss that plain transformers code gets from a loaded model."""


class EncoderForTextClassification(PreTrainedModel):
    """An encoder without a pooler, a pooling with the base's dense layers if any, and a `linear` or `mlp` head."""

    config_class = EncoderHeadConfig
    base_model_prefix = "encoder"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = True  # an encoder that cannot do it refuses it itself
    _supports_flash_attn = True

    def __init__(self, config: EncoderHeadConfig) -> None:
        super().__init__(config)
        nested = config.encoder
        self.encoder = _auto.AutoModel.from_config(nested, **pooler_kwargs(nested, False))
        self.projection = build_projection(config.projection)
        self.head = build_head(
            config.head,
            head_width(config),
            config.num_labels or 0,
            dropout=config.dropout,
            layers=config.layers,
            width=config.width,
        )
        self.post_init()  # type: ignore[no-untyped-call]

    def pooled(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """Compute what the head reads.

        Args:
            input_ids: (batch, tokens).
            attention_mask: (batch, tokens), 1 on text; None means that there is no padding.
            token_type_ids: (batch, tokens), the segment of each token.

        Returns:
            (batch, width).
        """
        inputs = {"attention_mask": attention_mask, "token_type_ids": token_type_ids}
        given = {"input_ids": input_ids} | {name: tensor for name, tensor in inputs.items() if tensor is not None}
        hidden = self.encoder(**encoder_inputs(self.encoder, given, self.config.pooling)).last_hidden_state
        pooled = pool(hidden, attention_mask, self.config.pooling)
        return pooled if self.projection is None else cast(Tensor, self.projection(pooled))

    def classify(self, pooled: Tensor) -> Tensor:
        """Run the head: (batch, width) -> logits (batch, classes)."""
        logits: Tensor = self.head(pooled)
        return logits

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> SequenceClassifierOutput:
        """Compute logits, and the mean loss if labels are given.

        Args:
            input_ids: (batch, tokens).
            attention_mask: (batch, tokens), 1 on text; None means that there is no padding.
            token_type_ids: (batch, tokens), the segment of each token.
            labels: Ids (batch,) for cross entropy; or a label matrix of 0 and 1, (batch, classes), for binary cross
                entropy, if the config's problem_type says multi-label.

        Returns:
            logits (batch, classes), and loss (a scalar) or None.
        """
        logits = self.classify(self.pooled(input_ids, attention_mask, token_type_ids))
        problem_type = self.config.problem_type or SINGLE_LABEL
        loss = None if labels is None else _LOSSES[problem_type](logits, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits)

    def _init_weights(self, module: nn.Module) -> None:
        # called by transformers for modules outside the encoder that no checkpoint filled
        super()._init_weights(module)  # type: ignore[no-untyped-call]
        init_dense(module)


_auto.AutoConfig.register(StaticEncoderConfig.model_type, StaticEncoderConfig, exist_ok=True)
_auto.AutoModel.register(StaticEncoderConfig, StaticEncoder, exist_ok=True)
_auto.AutoConfig.register(EncoderHeadConfig.model_type, EncoderHeadConfig, exist_ok=True)
_auto.AutoModelForSequenceClassification.register(EncoderHeadConfig, EncoderForTextClassification, exist_ok=True)


# Building and loading


def build_network(
    base: str | Path,
    head: HeadConfig,
    label_names: Sequence[str],
    *,
    problem_type: ProblemType = SINGLE_LABEL,
    seed: int,
) -> PreTrainedModel:
    """Build a classifier to train: the base's encoder under a new head.

    Args:
        base: `demo`, a folder, or a hub id.
        head: The head's section of the recipe. Without a pooling it gets the base's default.
        label_names: In the order of their ids.
        problem_type: Goes into the config, where plain transformers reads which function turns logits into scores.
        seed: The head is drawn from it.

    Returns:
        The classifier, in fp32 and eval mode.

    Raises:
        BaseModelError: As for `encoder.load_encoder`.
    """
    head = resolve_head(base, head)
    model = (
        load_standard(base, label_names, seed=seed)
        if head.kind == "standard"
        else _build_with_our_head(base, head, label_names, seed)
    )
    model.config.problem_type = problem_type
    return model


def _build_with_our_head(base: str | Path, head: HeadConfig, label_names: Sequence[str], seed: int) -> PreTrainedModel:
    encoder = load_encoder(base)
    pooling = head.pooling or default_pooling(base)
    projection = load_projection(base, pooling, encoder.config.hidden_size)
    layers = () if projection is None else projection.layers
    config = _config_of_our_head(encoder.config, head, pooling, label_names, layers)
    with seeded_initialization(seed):
        model: Any = model_around_encoder(encoder, EncoderForTextClassification, config)
    if projection is not None:
        model.projection.load_state_dict(projection.weights)
    return cast(PreTrainedModel, model)


def base_fingerprint(base: str | Path) -> str:
    """Return the sha256, in hex, of the weights that a base brings: its encoder, and its dense layers if it has any.

    Args:
        base: `demo`, a folder, or a hub id.
    """
    encoder, dense = encoder_fingerprint(load_encoder(base)), projection_fingerprint(base)
    return encoder if dense is None else fingerprint(encoder, dense)


def build_on_meta_device(
    config: PreTrainedConfig,
    head: HeadConfig,
    label_names: Sequence[str],
    *,
    pooling: str = "cls",
    projection: Sequence[dict[str, Any]] = (),
) -> PreTrainedModel:
    """Build the classifier of `build_network` on the meta device: names and shapes, no weights.

    Args:
        config: The base's config.
        head: The head's section of the recipe.
        label_names: In the order of their ids.
        pooling: Used if `head` names none.
        projection: Dense layers between pooling and head.
    """
    model: PreTrainedModel
    with torch.device("meta"), quiet_transformers():
        if head.kind == "standard":
            labeled = config_with_labels(copy.deepcopy(config), label_names)
            model = _auto.AutoModelForSequenceClassification.from_config(labeled)
        else:
            own = _config_of_our_head(config, head, head.pooling or pooling, label_names, projection)
            model = EncoderForTextClassification(own)
    return model


def _config_of_our_head(
    config: PreTrainedConfig,
    head: HeadConfig,
    pooling: str,
    label_names: Sequence[str],
    projection: Sequence[dict[str, Any]],
) -> EncoderHeadConfig:
    nested = copy.deepcopy(config)
    nested.name_or_path = ""  # it would carry the folder's place on this machine into every saved model
    width = head.width or nested.hidden_size
    own = EncoderHeadConfig(
        nested,
        pooling=pooling,
        head=head.kind,
        dropout=head.dropout,
        layers=head.layers,
        width=width,
        projection=projection,
    )
    config_with_labels(own, label_names)
    return own


def load_network(folder: str | Path) -> PreTrainedModel:
    """Load a saved classifier, whichever head it has.

    Args:
        folder: With config.json and model.safetensors.

    Returns:
        The classifier, in fp32 and eval mode.

    Raises:
        BundleError: The files cannot be read, the weights are not safetensors files inside the folder, the config names
            a pooling or a head that this version lacks, or the weights do not fit the config.
    """
    try:
        model, info = _read_network(Path(folder))
    except BaseModelError as error:
        raise BundleError(error.what, where=error.where, expected=error.expected, got=error.got) from error
    except Error:
        raise
    except Exception as error:  # values of other types than it expects make transformers raise whatever Python does
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise BundleError("the model cannot be read", where=str(folder), got=reason[:300]) from error
    if isinstance(model, EncoderForTextClassification):
        _check_known(folder, "pooling", model.config.pooling, POOLINGS)
        _check_known(folder, "head", model.config.head, HEADS)
    missing = sorted([*info["missing_keys"], *(name for name, *_ in info["mismatched_keys"])])
    left_over = sorted(info["unexpected_keys"])
    if missing or left_over:
        raise BundleError(
            "model.safetensors does not fit config.json",
            where=str(folder),
            expected=f"a weight {missing[0]!r} of the size that config.json asks for"
            if missing
            else "no weight that config.json does not ask for",
            got=None if missing else f"{left_over[0]!r:.120}",
            remedy="Copy the bundle again from its source, or train it again.",
        )
    return model


def _read_network(folder: Path) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Return a saved classifier, and what transformers says of its weights."""
    check_base_files(folder)
    refuse_adapter_beside(folder)
    check_weights(folder)
    with quiet_transformers():
        config = _auto.AutoConfig.from_pretrained(folder, trust_remote_code=False)
        set_switches(config)
        return read_weights(_auto.AutoModelForSequenceClassification, folder, config)


def _check_known(folder: str | Path, field: str, word: str, known: Sequence[str]) -> None:
    """Raise BundleError if a field of config.json holds a word that this version does not know."""
    if word in known:
        return
    writer = (storage.read_manifest_file(folder) or {}).get("versions", {}).get("fullbake")
    raise BundleError(
        f"this version of fullbake has no {field} {word!r}",
        where=str(Path(folder) / "config.json"),
        expected=f"one of {', '.join(known)}",
        remedy="Install the version of fullbake that wrote this folder."
        if writer is None
        else f"The bundle was written by fullbake {writer}: install that version.",
    )


# Features and heads of any classifier


def features(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    """Compute what a classifier's head reads, before any pooler. `extract_head(model)` turns it into logits.

    Args:
        model: A classifier with any head.
        inputs: input_ids, and attention_mask and token_type_ids where the batch has them; each (batch, tokens).

    Returns:
        (batch, width).
    """
    if isinstance(model, EncoderForTextClassification):
        return model.pooled(**inputs)
    whole: Any = model
    pooling = standard_pooling(whole.config)
    hidden = whole.base_model(**encoder_inputs(whole.base_model, inputs, pooling)).last_hidden_state
    return pool(hidden, inputs.get("attention_mask"), pooling)


def features_width(model: nn.Module) -> int:
    """Return the width of what `features` computes."""
    whole: Any = model
    if isinstance(model, EncoderForTextClassification):
        return head_width(whole.config)
    return pooled_width(whole.base_model.config.hidden_size, pooling_of(whole))


def reads_first_token(model: nn.Module) -> bool:
    """Return True if the classifier's head reads the first token's vector and no other."""
    return pooling_of(model) == "cls"


def pooling_of(model: Any) -> str:
    """Return the pooling that a classifier's head reads, see `encoder.standard_pooling`."""
    if isinstance(model, EncoderForTextClassification):
        return str(model.config.pooling)
    return standard_pooling(model.config)


def extract_head(model: nn.Module) -> nn.Module:
    """Return a classifier's head as a module: features (rows, width) -> logits (rows, classes).

    Its parameters are the classifier's own, so training the head trains the classifier.

    Raises:
        BaseModelError: The family's standard head reads something other than what `features` computes.
    """
    if isinstance(model, EncoderForTextClassification):
        return model.head
    head = StandardHead(model)
    _check_standard_head(model, head)
    return head


def copy_head(model: PreTrainedModel) -> PreTrainedModel:
    """Return a classifier with a copy of the head, which shares its encoder with `model`.

    Args:
        model: An EncoderForTextClassification.
    """
    assert isinstance(model, EncoderForTextClassification)
    twin = copy.copy(model)
    twin._modules = dict(model._modules) | {"head": copy.deepcopy(model.head)}
    return twin


_FIELDS_WITHOUT_EFFECT = frozenset(
    (
        "_name_or_path",
        "architectures",
        "dtype",
        "id2label",
        "label2id",
        "problem_type",
        "transformers_version",
    )
)
"""Config fields that change no feature."""


def encoder_fingerprint(model: nn.Module) -> str:
    """Return the sha256, in hex, of what a model's features depend on besides pooling: config and weights.

    A pooler is left out, since features are taken before it: a base has the same fingerprint under every head.

    Args:
        model: An encoder, or a model with one.
    """
    encoder: Any = getattr(model, "base_model", model)
    config = {name: value for name, value in encoder.config.to_dict().items() if name not in _FIELDS_WITHOUT_EFFECT}
    weights = {name: tensor for name, tensor in encoder.state_dict().items() if not name.startswith("pooler.")}
    arrays = {name: tensor.detach().float().cpu().numpy() for name, tensor in weights.items()}
    return fingerprint(config, encoder.config._attn_implementation, arrays)


class StandardHead(nn.Module):
    """The head of a `standard` classifier without its encoder. Its parameters are the classifier's own."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.shell = stub_encoder(model)
        self.takes_global_attention = takes_global_attention(model.base_model.config)

    def forward(self, features: Tensor) -> Tensor:
        """Compute logits: (rows, width) -> (rows, classes)."""
        states, given = features.unsqueeze(1), {}
        if self.takes_global_attention:  # Longformer's classifier would make this mask of the token ids
            given["global_attention_mask"] = states.new_ones(states.shape[:2])
        logits: Tensor = self.shell(inputs_embeds=states, **given).logits
        return logits


def _check_standard_head(model: Any, head: nn.Module) -> None:
    """Raise BaseModelError if the head on features gives other logits than the whole model for a probe."""
    inputs = probe_inputs(model)
    reason = "other logits"
    with eval_mode(model), torch.no_grad():
        expected = model(**inputs).logits
        try:
            alone = head(features(model, inputs))
            if alone.shape == expected.shape and torch.allclose(alone, expected, rtol=1e-4, atol=1e-5):
                return
        except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            reason = first_line(error)
    raise BaseModelError(
        f"the standard head of model type {model.config.model_type!r} cannot run without its encoder",
        expected="the logits of the whole model",
        got=reason,
        remedy="Use --way finetune with this head, or --head linear or --head mlp with --way frozen.",
    )


# The encoder stub


def stub_encoder(model: Any) -> Any:
    """Return a shallow copy of a model whose encoder returns the hidden states that it is given.

    The copy's parameters are the model's own. Call it with `inputs_embeds`, last hidden states (rows, tokens, width),
    in place of `input_ids`.

    Args:
        model: A transformers model of any head: classifier or masked LM.
    """
    shell = copy.copy(model)
    parts = {model.base_model_prefix: _EncoderStub(model.base_model)}
    shell._modules = {name: parts.get(name, part) for name, part in model._modules.items()}
    return shell


class _EncoderStub(nn.Module):
    """Takes the place of an encoder: returns the states that it is given, and runs the pooler on them."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.pooler = getattr(encoder, "pooler", None)
        activation = family_of(encoder.config.model_type).pooler_activation
        self.activation = None if activation is None else getattr(encoder, activation)
        # some heads read the embedding table; unregistered, since it is the encoder's
        object.__setattr__(self, "embeddings", getattr(encoder, "embeddings", None))

    def forward(self, *_: Any, inputs_embeds: Tensor, **__: Any) -> BaseModelOutputWithPooling:
        """Return the states (rows, tokens, width), and the pooler's output where there is a pooler."""
        output: Any = BaseModelOutputWithPooling(
            last_hidden_state=inputs_embeds, pooler_output=self._pool(inputs_embeds)
        )
        output.global_attentions = None  # Longformer's models read it
        return cast(BaseModelOutputWithPooling, output)

    def _pool(self, hidden: Tensor) -> Tensor | None:
        # a masked-LM head is given no token where none is masked; there is nothing to pool then
        if self.pooler is None or hidden.shape[1] == 0:
            return None
        pooled: Tensor
        pooled = self.pooler(hidden) if self.activation is None else self.activation(self.pooler(hidden[:, 0]))
        return pooled
