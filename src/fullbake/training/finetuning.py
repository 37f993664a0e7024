"""Layers that stay fixed: what they give is computed once, kept on disk, and each step runs the layers above alone.

A fixed layer is a fixed function of the text: it runs without dropout, whether its output is kept or not. (Noise there
would teach layers that cannot learn nothing, and would have to be drawn anew each epoch; what the layers above drop is
untouched.) So nothing but time hangs on whether a base can be cut.

Bases are cut by structure: embeddings and all that comes before the list of layers, then the layers in turn. While the
upper part runs, the parts below stand in their places and hand the kept states through, so masks, positions and
whatever else a family's own code does around its layers are its own. A probe compares the cut base with the whole one;
a family whose code does more between its layers than hand states on (a convolution after the first, in DeBERTa v2) runs
whole.

Way 2: the base's weights train, under the standard head or a head of ours.

Cuts of a batch go forward and backward one after another. Only a head with batch norm must see the pooled vectors of
the whole batch at once: then the graph of all cuts is held until the batch's one backward pass, which costs their
memory. Where the lowest layers stay fixed and a base can be cut above them, their kept states stand for them in every
forward pass, of training and of validation.
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
from fullbake.models.encoder import eval_mode, freeze_lowest, lowest_layers, parameter_groups, probe_inputs
from fullbake.models.encoding import Encoded, window_rows
from fullbake.models.fast_layers import compiled_encoder, fast_layers
from fullbake.models.heads import l2_penalty
from fullbake.models.inference import batch_inputs, logits_over, padded_lengths, pool_windows, run_batches
from fullbake.models.network import extract_head, features, reads_first_token
from fullbake.training.checkpoints import Checkpoints
from fullbake.training.features import FeatureExtraction, Features, extract_features, gather_token_states
from fullbake.training.loop import TrainingWork, ValidateFunction, fit
from fullbake.training.losses import TrainingLoss


@dataclass(frozen=True)
class SplitPoint:
    """Where a base is cut. layers: how many of them are below. values: how many a layer gives in a tuple that begins
    with its states, as some families' do; 0 where it gives the states alone."""

    layers: int
    values: int


class _SplitReached(Exception):  # noqa: N818  (nothing went wrong)
    """The states were taken: the layers above need not run."""


@contextmanager
def frozen_layers(model: nn.Module, layers: int | None) -> Iterator[None]:
    """Within the block, embeddings and the lowest `layers` layers run without dropout also where the model trains.
    None: all train as ever."""
    if layers is None:
        yield
        return
    below, lowest = lowest_layers(model, layers)

    def quieten(*_: object) -> None:
        for part in (*below, *lowest):
            if part.training:
                part.eval()

    encoder: Any = model.base_model
    hook = encoder.register_forward_pre_hook(quieten)
    try:
        yield
    finally:
        hook.remove()


def find_split_point(model: nn.Module, layers: int) -> SplitPoint | None:
    """Where `model` can be cut above its lowest `layers` layers (0: above the embeddings), None where it has to run
    whole. Raises BaseModelError for more layers than there are, and for a base whose layers are one."""
    lowest = lowest_layers(model, layers)[1]
    encoder: Any = model.base_model
    inputs, values = probe_inputs(encoder), [0]

    def note(_: nn.Module, __: object, output: object) -> None:
        values[0] = len(output) if isinstance(output, tuple) else 0

    with eval_mode(encoder), torch.no_grad(), ExitStack() as stack:
        if lowest:
            stack.callback(lowest[0].register_forward_hook(note).remove)
        whole = encoder(**inputs).last_hidden_state
        cut = SplitPoint(layers, values[0])
        try:
            with starting_from_states(model, cut, states_below_split(model, layers, inputs)):
                above = encoder(**inputs).last_hidden_state
        except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError):
            return None
    seen = inputs["attention_mask"].bool()
    return cut if torch.allclose(above[seen], whole[seen], rtol=1e-4, atol=1e-5) else None


def states_below_split(model: nn.Module, layers: int, inputs: Mapping[str, Tensor]) -> Tensor:
    """What goes into the layer above the lowest `layers`: (batch, tokens) inputs -> (batch, tokens, width)."""
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
def starting_from_states(model: nn.Module, cut: SplitPoint, states: Tensor) -> Iterator[None]:
    """Within the block `model` does not run what is below the cut: `states` (batch, tokens, width) stand for it.

    Its inputs are as ever; of them the token ids are looked at for their shape alone.
    """
    below, lowest = lowest_layers(model, cut.layers)
    output = (states, *[None] * (cut.values - 1)) if cut.values else states
    with ExitStack() as stack:
        for part in below:
            stack.callback(_stand_in(part, states))
        for part in lowest:
            stack.callback(_stand_in(part, output))
        yield


def _stand_in(part: nn.Module, output: object) -> Callable[[], object]:
    """Let a part give `output`, whatever it is given. Returns what takes that back."""
    vars(part)["forward"] = lambda *_, **__: output
    return lambda: vars(part).pop("forward", None)


def stored_states_below_split(
    model: nn.Module,
    cut: SplitPoint,
    encode: Callable[[], Encoded],
    *,
    key: str,
    cache: Cache,
    tokens: TokensConfig,
    pad_id: int,
    precision: CachePrecision,
) -> Features | None:
    """The states of all tokens below the cut, from the cache or by one pass in eval mode; None where the cache cannot
    hold them, or several processes train and it does not know them.

    encode: gives the tokenized texts; called only where the cache does not know `key`.
    """
    model.to(device()).eval()
    whole: Any = model
    asked = FeatureExtraction(
        lambda inputs: states_below_split(model, cut.layers, inputs),
        whole.base_model.config.hidden_size,
        key,
        f"states below layer {cut.layers + 1}",
        tokens,
        pad_id,
        every_token=True,
        precision=precision,
    )
    with fast_layers(model):
        return extract_features(asked, encode, cache)


@dataclass(frozen=True)
class LabeledTexts:
    """Tokenized texts with their labels: ids int64 (texts,), or 0 and 1 (texts, classes).

    states: what the layers that stay fixed give for each row of ids, None where they run in every pass.
    """

    encoded: Encoded
    labels: np.ndarray
    states: Features | None = None

    @property
    def row_labels(self) -> np.ndarray:
        """The label of each row of ids: of the text itself, or of the one that it is a window of."""
        return self.labels if self.encoded.documents is None else self.labels[self.encoded.documents]

    def take(self, texts: np.ndarray) -> "LabeledTexts":
        """These texts, with all their windows."""
        documents = self.encoded.documents
        rows = texts if documents is None else window_rows(documents, texts)[0]
        states = None if self.states is None else self.states.take(rows)
        return LabeledTexts(self.encoded.of_documents(texts), self.labels[texts], states)


@dataclass(frozen=True)
class FinetuneSettings:
    """What fine-tuning is told: sections of the recipe (one rate, max_length a number), the tokenizer's pad id, what
    the loss is, and where the base is cut if states are kept."""

    head: HeadConfig
    training: TrainingConfig
    tokens: TokensConfig
    pad_id: int
    objective: TrainingLoss
    cut: SplitPoint | None = None


def finetune(
    network: nn.Module,
    train: LabeledTexts,
    validate: ValidateFunction,
    tuning: FinetuneSettings,
    checkpoints: Checkpoints | None = None,
    *,
    last_epoch: int | None = None,
) -> list[dict[str, Any]]:
    """Train `network` in place; it is left with the weights of the best epoch, in eval mode.

    validate: gives what chooses, after each epoch. checkpoints: where to save and go on from. last_epoch: where to stop
    on the way. Returns the history (see `loop.fit`).
    """
    network.to(device())
    if tuning.training.freeze_layers is not None:
        freeze_lowest(network, tuning.training.freeze_layers)
    work = _work(network, train, validate, tuning, last_epoch)
    still = frozen_layers(network, tuning.training.freeze_layers)
    with still, _fast_kernels(network, tuning), compiled_encoder(network):
        return fit(network, work, tuning.training, checkpoints)


def finetuned_logits(network: nn.Module, part: LabeledTexts, tuning: FinetuneSettings) -> np.ndarray:
    """The logits of a part's texts, float32 (texts, classes), while a network trains."""
    if part.states is None:
        return logits_over(
            network, part.encoded, tokens=tuning.tokens, pad_id=tuning.pad_id, title="validating", shared=True
        )

    def forward(inputs: Mapping[str, Tensor]) -> Tensor:
        with _above(network, inputs, tuning) as given:
            logits: Tensor = network(**given).logits
            return logits

    with _fast_kernels(network, tuning):
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


def _fast_kernels(network: nn.Module, tuning: FinetuneSettings) -> AbstractContextManager[None]:
    """Kept states stand for layers that see padding, and a partly frozen base draws the same masks with and without
    them: it does not run packed."""
    packed = tuning.training.freeze_layers is None
    return fast_layers(network, first_token=reads_first_token(network), packed=packed)


def _work(
    network: nn.Module,
    train: LabeledTexts,
    validate: ValidateFunction,
    tuning: FinetuneSettings,
    last_epoch: int | None,
) -> TrainingWork:
    training, labels = tuning.training, train.row_labels
    return TrainingWork(
        plan=lambda epoch: _plan(train, tuning, epoch),
        loss_fn=lambda module, step, share: _losses(module, len(step.rows), share, train, labels, tuning),
        validate=validate,
        groups=parameter_groups(
            network,
            learning_rate=training.learning_rate[0],
            weight_decay=training.weight_decay,
            layer_decay=training.layer_decay,
        ),
        rows=len(labels),
        tokens=int(train.encoded.lengths.sum()),
        penalty=(lambda module: tuning.head.l2 * l2_penalty(extract_head(module)))
        if tuning.head.kind == "mlp"
        else None,
        shared=tuning.head.kind != "mlp",  # batch norm needs the whole batch in one place
        last_epoch=last_epoch,
    )


def _plan(train: LabeledTexts, tuning: FinetuneSettings, epoch: int) -> list[Step]:
    return training_plan(
        padded_lengths(train.encoded, tuning.tokens),
        batch_size=tuning.training.batch_size * tuning.training.gradient_accumulation,
        seed=tuning.training.seed,
        epoch=epoch,
        token_budget=tuning.tokens.token_budget,
        merge_last_single=tuning.head.kind == "mlp",
        weights=balanced_row_weights(train.row_labels) if tuning.training.sampling == "balanced" else None,
    )


def _losses(
    module: nn.Module, count: int, share: Step, train: LabeledTexts, labels: np.ndarray, tuning: FinetuneSettings
) -> Iterator[Tensor]:
    """The loss over the `count` rows of a step: cut by cut, or once for all where the head has batch norm."""
    loss = tuning.objective.loss
    if tuning.head.kind == "mlp":
        pooled = torch.cat([_pooled(module, cut, train, tuning) for cut in share.cuts])
        yield loss(extract_head(module)(pooled), _on_device(labels[share.rows])) / count
        return
    for cut in share.cuts:
        with _above(module, _inputs(cut, train, tuning), tuning) as given:
            logits = module(**given).logits
        yield loss(logits, _on_device(labels[cut])) / count


def _pooled(module: nn.Module, cut: np.ndarray, train: LabeledTexts, tuning: FinetuneSettings) -> Tensor:
    with _above(module, _inputs(cut, train, tuning), tuning) as given:
        return features(module, given)


_STATES = "states"
"""What kept states are called beside a network's own inputs."""


@contextmanager
def _above(module: nn.Module, inputs: Mapping[str, Tensor], tuning: FinetuneSettings) -> Iterator[dict[str, Tensor]]:
    """The inputs without kept states; where there were any, `module` runs above the cut within the block."""
    given = dict(inputs)
    states = given.pop(_STATES, None)
    if states is None:
        yield given
        return
    assert tuning.cut is not None
    with starting_from_states(module, tuning.cut, states):
        yield given


def _inputs(rows: np.ndarray, part: LabeledTexts, tuning: FinetuneSettings) -> dict[str, Tensor]:
    inputs = batch_inputs(part.encoded, rows, tokens=tuning.tokens, pad_id=tuning.pad_id, device=device())
    if part.states is not None:
        width = inputs["input_ids"].shape[1]
        inputs[_STATES] = gather_token_states(part.states, rows, part.encoded.lengths[rows], width).to(device())
    return inputs


def _on_device(labels: np.ndarray) -> Tensor:
    return torch.from_numpy(labels).to(device())
