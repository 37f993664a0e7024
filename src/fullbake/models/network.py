"""A model's head without its encoder: the family's own forward over a stand-in that hands given states through.

Every family builds its heads differently; so nothing here knows one, and whoever uses a head this way compares it with
the whole model once.

Encoder and head as one transformers model, and one way to ask any classifier for its features and its
head.

A `standard` head is the architecture's own class. Any other head is `EncoderForTextClassification`: an
ordinary PreTrainedModel with its own config, so `save_pretrained`, `from_pretrained`, the Auto classes and
pipelines work; importing this module registers it with them.

Frozen features of a `standard` model need its head apart from its encoder, which every family builds
differently. Instead of a table of families, `head_of` runs the family's own forward over a stand-in for the
encoder (`standins`); a probe compares it with the whole model, so an unknown family is
exact or refused.
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
from fullbake.core.errors import BaseModelError, BundleError
from fullbake.core.hashing import fingerprint
from fullbake.models.encoder import (
    config_with_labels,
    default_pooling,
    eval_mode,
    load_encoder,
    load_standard,
    model_around_encoder,
    pooler_kwargs,
    probe_inputs,
    seeded_initialization,
    standard_pooling,
)
from fullbake.models.heads import build_head, init_dense, pool, pooled_width
from fullbake.models.pretrained import READ_FAULTS, first_line, quiet_transformers


def stub_encoder(model: Any) -> Any:
    """The model with its encoder replaced. Call it with `inputs_embeds`, last hidden states (rows, tokens, width), in
    place of `input_ids`. Its parameters are the model's own."""
    shell = copy.copy(model)
    parts = {model.base_model_prefix: _EncoderStub(model.base_model)}
    shell._modules = {name: parts.get(name, part) for name, part in model._modules.items()}
    return shell


class _EncoderStub(nn.Module):
    """Stands in for an encoder: its last hidden state is what it was given, and its pooler works on that."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.pooler = getattr(encoder, "pooler", None)
        self.activation = getattr(encoder, "pooler_activation", None)
        # some heads read the embedding table; unregistered, since it is the encoder's
        object.__setattr__(self, "embeddings", getattr(encoder, "embeddings", None))

    def forward(self, *_: Any, inputs_embeds: Tensor, **__: Any) -> BaseModelOutputWithPooling:
        return BaseModelOutputWithPooling(last_hidden_state=inputs_embeds, pooler_output=self._pool(inputs_embeds))

    def _pool(self, hidden: Tensor) -> Tensor | None:
        if self.pooler is None:
            return None
        pooled: Tensor
        # ALBERT's pooler is a bare dense layer
        pooled = self.pooler(hidden) if self.activation is None else self.activation(self.pooler(hidden[:, 0]))
        return pooled


_auto: Any = transformers


class EncoderHeadConfig(PreTrainedConfig):
    """What an EncoderForTextClassification is made of.

    encoder: the base's own config, or a dict of it. pooling, head, dropout, layers, width: as in `build`. The
    rest, label names among it, is what every transformers config holds.
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
        **kwargs: Any,
    ) -> None:
        if isinstance(encoder, dict):
            encoder = cast(PreTrainedConfig, _auto.AutoConfig.for_model(**encoder))
        self.encoder: Any = encoder if encoder is not None else _auto.BertConfig()
        self.pooling, self.head = pooling, head
        self.dropout, self.layers, self.width = dropout, layers, width
        super().__init__(**kwargs)


_LOSSES: Final[Mapping[str, Callable[[Tensor, Tensor], Tensor]]] = {
    SINGLE_LABEL: cross_entropy,
    MULTI_LABEL: lambda logits, labels: binary_cross_entropy_with_logits(logits, labels.float()),
}
"""The mean loss that plain transformers code gets from a loaded model, by the problem type in its config."""


class EncoderForTextClassification(PreTrainedModel):
    """An encoder, a pooling and a head of ours. The encoder has no pooler of its own."""

    config_class = EncoderHeadConfig
    base_model_prefix = "encoder"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = True  # what the encoder cannot do, it refuses itself
    _supports_flash_attn = True

    def __init__(self, config: EncoderHeadConfig) -> None:
        super().__init__(config)
        nested = config.encoder
        self.encoder = _auto.AutoModel.from_config(nested, **pooler_kwargs(nested, False))
        self.head = build_head(
            config.head,
            pooled_width(nested.hidden_size, config.pooling),
            config.num_labels or 0,
            dropout=config.dropout,
            layers=config.layers,
            width=config.width,
        )
        self.post_init()  # type: ignore[no-untyped-call]

    def pooled(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """What the head reads: (batch, tokens) inputs -> (batch, width). No mask means no padding."""
        inputs = {"attention_mask": attention_mask, "token_type_ids": token_type_ids}
        given = {name: tensor for name, tensor in inputs.items() if tensor is not None}
        hidden = self.encoder(input_ids=input_ids, **given).last_hidden_state
        return pool(hidden, attention_mask, self.config.pooling)

    def classify(self, pooled: Tensor) -> Tensor:
        """(batch, width) -> logits (batch, classes)."""
        logits: Tensor = self.head(pooled)
        return logits

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> SequenceClassifierOutput:
        """Logits (batch, classes), and the mean loss where labels are given: ids (batch,) under cross entropy, or 0 and
        1 (batch, classes) under binary cross entropy, as the config's problem_type says."""
        logits = self.classify(self.pooled(input_ids, attention_mask, token_type_ids))
        loss = None if labels is None else self._loss(logits, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits)

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return _LOSSES[self.config.problem_type or SINGLE_LABEL](logits, labels)

    def _init_weights(self, module: nn.Module) -> None:
        # called by transformers for modules outside the encoder that no checkpoint filled
        super()._init_weights(module)  # type: ignore[no-untyped-call]
        init_dense(module)


_auto.AutoConfig.register(EncoderHeadConfig.model_type, EncoderHeadConfig, exist_ok=True)
_auto.AutoModelForSequenceClassification.register(EncoderHeadConfig, EncoderForTextClassification, exist_ok=True)


# Making and loading


def build_network(
    base: str | Path,
    head: HeadConfig,
    label_names: Sequence[str],
    *,
    problem_type: ProblemType = SINGLE_LABEL,
    seed: int,
) -> PreTrainedModel:
    """A classifier to train: the base's encoder under a new head drawn from `seed`, fp32, in eval mode.

    A head without a pooling gets the base's default. problem_type: goes into the config, from where plain transformers
    takes the function that makes scores of logits. Raises BaseModelError as `load_encoder` does.
    """
    model = (
        load_standard(base, label_names, seed=seed)
        if head.kind == "standard"
        else _build_joined(base, head, label_names, seed)
    )
    model.config.problem_type = problem_type
    return model


def _build_joined(base: str | Path, head: HeadConfig, label_names: Sequence[str], seed: int) -> PreTrainedModel:
    encoder = load_encoder(base)
    pooling = head.pooling or default_pooling(base)
    config = _joined_config(encoder.config, head, pooling, label_names)
    with seeded_initialization(seed):
        return model_around_encoder(encoder, EncoderForTextClassification, config)


def build_on_meta_device(
    config: PreTrainedConfig, head: HeadConfig, label_names: Sequence[str], *, pooling: str = "cls"
) -> PreTrainedModel:
    """The classifier that `build` would make, on the meta device: shapes and names, no weights.

    pooling: that of a head which names none.
    """
    model: PreTrainedModel
    with torch.device("meta"), quiet_transformers():
        if head.kind == "standard":
            labelled = config_with_labels(copy.deepcopy(config), label_names)
            model = _auto.AutoModelForSequenceClassification.from_config(labelled)
        else:
            joined = _joined_config(config, head, head.pooling or pooling, label_names)
            model = EncoderForTextClassification(joined)
    return model


def _joined_config(
    config: PreTrainedConfig, head: HeadConfig, pooling: str, label_names: Sequence[str]
) -> EncoderHeadConfig:
    nested = copy.deepcopy(config)
    nested.name_or_path = ""  # it would carry the folder's place on this machine into every saved model
    width = head.width or nested.hidden_size
    joined = EncoderHeadConfig(
        nested, pooling=pooling, head=head.kind, dropout=head.dropout, layers=head.layers, width=width
    )
    config_with_labels(joined, label_names)
    return joined


def load_network(folder: str | Path) -> PreTrainedModel:
    """A saved classifier of either kind, fp32, in eval mode; raises BundleError where it is not whole."""
    try:
        with quiet_transformers():
            model, info = _auto.AutoModelForSequenceClassification.from_pretrained(
                folder,
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=False,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    except READ_FAULTS as error:
        raise BundleError("the model cannot be read", where=str(folder), got=first_line(error)) from error
    faults = [*info["missing_keys"], *(name for name, *_ in info["mismatched_keys"])]
    if faults:
        raise BundleError(
            "model.safetensors does not fit config.json",
            where=str(folder),
            expected=f"a weight {sorted(faults)[0]!r} of the size that config.json asks for",
            remedy="Copy the bundle again from where it was whole, or train it again.",
        )
    return cast(PreTrainedModel, model)


# Features and heads of any classifier


def features(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    """What the model's head reads, before any pooler: (batch, tokens) inputs -> (batch, width).

    inputs: input_ids, and attention_mask and token_type_ids where the batch has them. `head_of(model)` gives
    the logits.
    """
    if isinstance(model, EncoderForTextClassification):
        return model.pooled(**inputs)
    whole: Any = model
    hidden = whole.base_model(**inputs).last_hidden_state
    return pool(hidden, inputs.get("attention_mask"), standard_pooling(whole.config))


def features_width(model: nn.Module) -> int:
    """Width of what `features` gives."""
    whole: Any = model
    return pooled_width(whole.base_model.config.hidden_size, _pooling_of(whole))


def reads_first_token(model: nn.Module) -> bool:
    """Whether the model's head reads the first token's vector and no other."""
    return _pooling_of(model) == "cls"


def _pooling_of(model: Any) -> str:
    own = isinstance(model, EncoderForTextClassification)
    return str(model.config.pooling) if own else standard_pooling(model.config)


def extract_head(model: nn.Module) -> nn.Module:
    """The model's head as a module of its own: features (rows, width) -> logits (rows, classes).

    Its parameters are the model's own, so training it trains the model. Raises BaseModelError for a family
    whose standard head reads something else than `features` gives.
    """
    if isinstance(model, EncoderForTextClassification):
        return model.head
    head = StandardHead(model)
    _check_standard_head(model, head)
    return head


def copy_head(model: PreTrainedModel) -> PreTrainedModel:
    """The model under a copy of its head of ours: the two share their encoder."""
    assert isinstance(model, EncoderForTextClassification)
    twin = copy.copy(model)
    twin._modules = dict(model._modules) | {"head": copy.deepcopy(model.head)}
    return twin


_NOT_OF_FEATURES = frozenset(
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
    """sha256 hex of what a model's features depend on besides pooling: the encoder's config and weights.

    A pooler is left out, as features are taken before it: a base has one fingerprint under every head.
    """
    encoder: Any = getattr(model, "base_model", model)
    config = {name: value for name, value in encoder.config.to_dict().items() if name not in _NOT_OF_FEATURES}
    weights = {name: tensor for name, tensor in encoder.state_dict().items() if not name.startswith("pooler.")}
    arrays = {name: tensor.detach().float().cpu().numpy() for name, tensor in weights.items()}
    return fingerprint(config, encoder.config._attn_implementation, arrays)


class StandardHead(nn.Module):
    """The head of a `standard` model apart from its encoder."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.shell = stub_encoder(model)

    def forward(self, features: Tensor) -> Tensor:
        """(rows, width) -> logits (rows, classes)."""
        logits: Tensor = self.shell(inputs_embeds=features.unsqueeze(1)).logits
        return logits


def _check_standard_head(model: Any, head: nn.Module) -> None:
    """Run a probe both ways."""
    inputs = probe_inputs(model)
    reason = "other logits"
    with eval_mode(model), torch.no_grad():
        expected = model(**inputs).logits
        try:
            apart = head(features(model, inputs))
            if apart.shape == expected.shape and torch.allclose(apart, expected, rtol=1e-4, atol=1e-5):
                return
        except (AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
            reason = first_line(error)
    raise BaseModelError(
        f"the standard head of model type {model.config.model_type!r} cannot be run apart from its encoder",
        got=reason,
        remedy="Take way finetune with this head, or head linear or mlp with way frozen.",
    )
