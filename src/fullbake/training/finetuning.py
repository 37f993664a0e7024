"""Way `finetune`: the base's weights train, under the standard head or a head of ours.

The micro-batches of a step run one after another. Only a head with batch norm needs the pooled vectors of the whole
step at once; then the graphs of all micro-batches stay in memory until one backward pass.

Frozen layers run without dropout, so their output is a fixed function of the text: it is computed once, kept on disk,
and each step runs only the layers above. During a forward pass the modules below return the stored states, so that a
family's own code for masks and positions still runs. A probe compares this with the whole base; families whose code
does more between layers (DeBERTa v2 has a convolution after the first) run as a whole: equal results, more time.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fullbake.config.fields import CachePrecision
from fullbake.config.sections import HeadConfig, TokensConfig, TrainingConfig
from fullbake.core.cache import Cache
from fullbake.core.runtime import device
from fullbake.models.batching import Step, balanced_row_weights, training_plan
from fullbake.models.encoder import (
    eval_mode,
    freeze_lowest,
    lowest_layers,
    parameter_groups,
    probe_inputs,
    takes_global_attention,
)
from fullbake.models.encoding import Encoded, window_rows
from fullbake.models.fast_layers import compiled_encoder, fast_layers
from fullbake.models.heads import l2_penalty
from fullbake.models.inference import batch_inputs, logits_over, run_batches
from fullbake.models.network import extract_head, features, reads_first_token
from fullbake.models.prediction import padded_lengths, pool_windows
from fullbake.training.checkpoints import Checkpoints
from fullbake.training.features import FeatureExtraction, Features, extract_features, gather_token_states
from fullbake.training.loop import TrainingWork, ValidateFunction, fit
from fullbake.training.losses import TrainingLoss


@dataclass(frozen=True)
class SplitPoint:
    """Where a base is split into frozen layers and the layers above.

    Attributes:
        layers: number of layers below the split.
        tuple_size: length of the tuple that a layer returns, whose first item is its states, in some families; 0 if a
            layer returns its states alone.
    """

    layers: int
    tuple_size: int


class _SplitReached(Exception):  # noqa: N818  (it is no error)
    """Ends a forward pass at the split, so that the layers above do not run."""


@contextmanager
def frozen_layers(model: nn.Module, layers: int | None) -> Iterator[None]:
    """Within the block, run the embeddings and the lowest layers without dropout, also while the model trains.

    Args:
        model: the network.
        layers: how many layers are frozen; None changes nothing.
    """
    if layers is None:
        yield
        return
    below, lowest = lowest_layers(model, layers)

    def switch_to_eval(*_: object) -> None:
        for part in (*below, *lowest):
            if part.training:
                part.eval()

    encoder: Any = model.base_model
    hook = encoder.register_forward_pre_hook(switch_to_eval)
    try:
        yield
    finally:
        hook.remove()


def find_split_point(model: nn.Module, layers: int) -> SplitPoint | None:
    """Return where `model` can be split above its lowest layers, None if it has to run as a whole.

    It is tried on probe inputs: the split model has to give the states of the whole one.

    Args:
        model: the network.
        layers: number of layers below the split; 0 splits above the embeddings.

    Raises:
        BaseModelError: the base has fewer layers, or all its layers share their weights.
    """
    lowest = lowest_layers(model, layers)[1]
    encoder: Any = model.base_model
    if takes_global_attention(encoder.config):
        return None  # its states are padded to its window, and its layers get more than the states
    inputs, tuple_sizes = probe_inputs(encoder), [0]

    def record(_: nn.Module, __: object, output: object) -> None:
        tuple_sizes[0] = len(output) if isinstance(output, tuple) else 0

    with eval_mode(encoder), torch.no_grad(), ExitStack() as stack:
        if lowest:
            stack.callback(lowest[0].register_forward_hook(record).remove)
        whole = encoder(**inputs).last_hidden_state
        split = SplitPoint(layers, tuple_sizes[0])
        try:
            with starting_from_states(model, split, states_below_split(model, layers, inputs)):
                above = encoder(**inputs).last_hidden_state
        except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError):
            return None  # the family's code needs more from the layers below than their states
    attended = inputs["attention_mask"].bool()
    return split if torch.allclose(above[attended], whole[attended], rtol=1e-4, atol=1e-5) else None


def states_below_split(model: nn.Module, layers: int, inputs: Mapping[str, Tensor]) -> Tensor:
    """Return the input of the layer above the lowest `layers` layers, (batch, tokens, hidden).

    Args:
        model: the network.
        layers: number of layers below the split.
        inputs: model inputs, (batch, tokens) each.
    """
    encoder: Any = model.base_model
    taken: list[Tensor] = []

    def take(_: nn.Module, given: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        taken.append(given[0] if given else named["hidden_states"])
        raise _SplitReached

    def take_last(_: nn.Module, __: object, output: Any) -> None:
        taken.append(output[0] if isinstance(output, tuple) else output)
        raise _SplitReached

    whole = lowest_layers(model, None)[1]
    if layers < len(whole):
        hook = whole[layers].register_forward_pre_hook(take, with_kwargs=True)
    else:
        hook = whole[-1].register_forward_hook(take_last)
    try:
        encoder(**inputs)
    except _SplitReached:
        pass
    finally:
        hook.remove()
    return taken[0]


@contextmanager
def starting_from_states(model: nn.Module, split: SplitPoint, states: Tensor) -> Iterator[None]:
    """Within the block, use `states` as the output of the layers below the split, which do not run.

    The model takes its usual inputs, but of the token ids only the shape matters.

    Args:
        model: the network.
        split: where it is split.
        states: (batch, tokens, hidden), in the order of the inputs.
    """
    below, lowest = lowest_layers(model, split.layers)
    output = (states, *[None] * (split.tuple_size - 1)) if split.tuple_size else states
    with ExitStack() as stack:
        for part in below:
            stack.callback(_replace_output(part, states))
        for part in lowest:
            stack.callback(_replace_output(part, output))
        yield


def _replace_output(part: nn.Module, output: object) -> Callable[[], object]:
    """Let a module return `output` for any input. Return the function that undoes this."""
    vars(part)["forward"] = lambda *_, **__: output
    return lambda: vars(part).pop("forward", None)


def stored_states_below_split(
    model: nn.Module,
    split: SplitPoint,
    encode: Callable[[], Encoded],
    *,
    key: str,
    cache: Cache,
    tokens: TokensConfig,
    pad_id: int,
    precision: CachePrecision,
) -> Features | None:
    """Return the states of all tokens below the split, from the cache or by one pass in eval mode.

    Args:
        model: the network.
        split: where it is split.
        encode: returns the rows of token ids. It is called only if the cache does not know `key`.
        key: the cache key.
        cache: where the states are kept.
        tokens: the recipe's section on tokens.
        pad_id: id of the padding token.
        precision: in which states are stored.

    Returns:
        None if the cache cannot hold the states, or if several processes train and the cache does not know them.
    """
    model.to(device()).eval()
    untyped: Any = model
    extraction = FeatureExtraction(
        lambda inputs: states_below_split(model, split.layers, inputs),
        untyped.base_model.config.hidden_size,
        key,
        f"states below layer {split.layers + 1}",
        tokens,
        pad_id,
        every_token=True,
        precision=precision,
    )
    with fast_layers(model):
        return extract_features(extraction, encode, cache)


@dataclass(frozen=True)
class LabeledTexts:
    """Tokenized texts with their labels.

    Attributes:
        encoded: rows of token ids, one or (with windows) more for each text.
        labels: class ids int64 (texts,), or a label matrix of 0 and 1 (texts, labels).
        states: output of the frozen layers for each row of ids, None if they run in every pass.
    """

    encoded: Encoded
    labels: np.ndarray
    states: Features | None = None

    @property
    def row_labels(self) -> np.ndarray:
        """The labels of each row of ids: those of the text that the row is, or is a window of."""
        return self.labels if self.encoded.documents is None else self.labels[self.encoded.documents]

    def take(self, texts: np.ndarray) -> "LabeledTexts":
        """Return these texts (indices) with all their windows."""
        documents = self.encoded.documents
        rows = texts if documents is None else window_rows(documents, texts)[0]
        states = None if self.states is None else self.states.take(rows)
        return LabeledTexts(self.encoded.of_documents(texts), self.labels[texts], states)


@dataclass(frozen=True)
class FinetuneSettings:
    """How a network is fine-tuned.

    Attributes:
        head: the recipe's section on the head.
        training: the recipe's section on training, with one learning rate.
        tokens: the recipe's section on tokens, with max_length filled in.
        pad_id: id of the padding token.
        objective: the loss.
        split: where the base is split, if the states below are stored.
    """

    head: HeadConfig
    training: TrainingConfig
    tokens: TokensConfig
    pad_id: int
    objective: TrainingLoss
    split: SplitPoint | None = None


def finetune(
    network: nn.Module,
    train: LabeledTexts,
    validate: ValidateFunction,
    tuning: FinetuneSettings,
    checkpoints: Checkpoints | None = None,
    *,
    last_epoch: int | None = None,
) -> list[dict[str, Any]]:
    """Train `network` in place and leave it with the weights of the best epoch, in eval mode.

    Args:
        network: the base with its head.
        train: the training rows.
        validate: (network, epoch from 0) -> validation scores.
        tuning: how the network is fine-tuned.
        checkpoints: where to save and to resume from; None saves nothing.
        last_epoch: the epoch (from 1) to stop after, None for all.

    Returns:
        The history, see `loop.fit`.
    """
    network.to(device())
    if tuning.training.freeze_layers is not None:
        freeze_lowest(network, tuning.training.freeze_layers)
    work = _training_work(network, train, validate, tuning, last_epoch)
    frozen = frozen_layers(network, tuning.training.freeze_layers)
    with frozen, _fast_layers(network, tuning), compiled_encoder(network):
        return fit(network, work, tuning.training, checkpoints)


def finetuned_logits(network: nn.Module, part: LabeledTexts, tuning: FinetuneSettings) -> np.ndarray:
    """Return the logits of a part's texts, float32 (texts, classes), by a network that is being fine-tuned.

    Args:
        network: the base with its head.
        part: the texts.
        tuning: how the network is fine-tuned.
    """
    if part.states is None:
        return logits_over(
            network, part.encoded, tokens=tuning.tokens, pad_id=tuning.pad_id, title="validating", shared=True
        )

    def forward(inputs: Mapping[str, Tensor]) -> Tensor:
        with _above_split(network, inputs, tuning) as model_inputs:
            logits: Tensor = network(**model_inputs).logits
            return logits

    with _fast_layers(network, tuning):
        rows = run_batches(
            forward,
            part.encoded,
            tokens=tuning.tokens,
            pad_id=tuning.pad_id,
            device=device(),
            title="validating",
            shared=True,
            inputs_of=lambda rows: _inputs(rows, part, tuning),
        )
    documents = part.encoded.documents
    return rows if documents is None else pool_windows(rows, documents, tuning.tokens.window_pooling)


def _fast_layers(network: nn.Module, tuning: FinetuneSettings) -> AbstractContextManager[None]:
    # A base with frozen layers does not run packed (without padding): stored states are padded, and dropout has to draw
    # the same masks with stored states and without.
    packed = tuning.training.freeze_layers is None
    return fast_layers(network, first_token=reads_first_token(network), packed=packed)


def _training_work(
    network: nn.Module,
    train: LabeledTexts,
    validate: ValidateFunction,
    tuning: FinetuneSettings,
    last_epoch: int | None,
) -> TrainingWork:
    training, labels = tuning.training, train.row_labels

    def plan(epoch: int) -> list[Step]:
        return training_plan(
            padded_lengths(train.encoded, tuning.tokens),
            batch_size=training.step_rows,
            seed=training.seed,
            epoch=epoch,
            token_budget=tuning.tokens.token_budget,
            merge_last_single=tuning.head.kind == "mlp",
            weights=balanced_row_weights(labels) if training.sampling == "balanced" else None,
        )

    return TrainingWork(
        plan=plan,
        loss_fn=lambda module, step, share: _losses(module, len(step.rows), share, train, labels, tuning),
        validate=validate,
        groups=parameter_groups(
            network,
            learning_rate=training.peak_rate,
            weight_decay=training.weight_decay,
            layer_decay=training.layer_decay,
        ),
        rows=len(labels),
        tokens=int(train.encoded.lengths.sum()),
        step_tokens=lambda step: int(train.encoded.lengths[step.rows].sum()),
        penalty=(lambda module: tuning.head.l2 * l2_penalty(extract_head(module)))
        if tuning.head.kind == "mlp"
        else None,
        shared=tuning.head.kind != "mlp",  # batch norm needs the whole batch in one place
        last_epoch=last_epoch,
    )


def _losses(
    module: nn.Module, count: int, share: Step, train: LabeledTexts, labels: np.ndarray, tuning: FinetuneSettings
) -> Iterator[Tensor]:
    """Yield the loss of each micro-batch divided by `count`, the rows of the whole step.

    A head with batch norm has to see all rows of the step at once: then there is one loss for all micro-batches.
    """
    loss = tuning.objective.loss
    if tuning.head.kind == "mlp":
        pooled = []
        for rows in share.micro_batches:
            with _above_split(module, _inputs(rows, train, tuning), tuning) as model_inputs:
                pooled.append(features(module, model_inputs))
        yield loss(extract_head(module)(torch.cat(pooled)), _on_device(labels[share.rows])) / count
        return
    for rows in share.micro_batches:
        with _above_split(module, _inputs(rows, train, tuning), tuning) as model_inputs:
            logits = module(**model_inputs).logits
        yield loss(logits, _on_device(labels[rows])) / count


_STATES = "states"
"""The name of stored states among a network's inputs."""


@contextmanager
def _above_split(
    module: nn.Module, inputs: Mapping[str, Tensor], tuning: FinetuneSettings
) -> Iterator[dict[str, Tensor]]:
    """Yield the inputs without stored states. If there were any, `module` starts from them within the block."""
    model_inputs = dict(inputs)
    states = model_inputs.pop(_STATES, None)
    if states is None:
        yield model_inputs
        return
    assert tuning.split is not None
    with starting_from_states(module, tuning.split, states):
        yield model_inputs


def _inputs(rows: np.ndarray, part: LabeledTexts, tuning: FinetuneSettings) -> dict[str, Tensor]:
    inputs = batch_inputs(part.encoded, rows, tokens=tuning.tokens, pad_id=tuning.pad_id, device=device())
    if part.states is not None:
        width = inputs["input_ids"].shape[1]
        inputs[_STATES] = gather_token_states(part.states, rows, part.encoded.lengths[rows], width).to(device())
    return inputs


def _on_device(labels: np.ndarray) -> Tensor:
    return torch.from_numpy(labels).to(device())
