"""Way 2: the base's weights train, under the standard head or a head of ours.

Cuts of a batch go forward and backward one after another. Only a head with batch norm must see the pooled vectors of
the whole batch at once: then the graph of all cuts is held until the batch's one backward pass, which costs their
memory. Where the lowest layers stay fixed and a base can be cut above them, their kept states stand for them in every
forward pass, of training and of validation.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fullbake.checkpoints import Checkpoints
from fullbake.config.sections import HeadConfig, TokensConfig, TrainingConfig
from fullbake.core.runtime import device
from fullbake.loop import Validation, Work, fit
from fullbake.losses import Objective
from fullbake.lowerlayers import Cut, given_states, held_still
from fullbake.models.batching import Step, balanced_row_weights, training_plan
from fullbake.models.encoder import freeze_lowest, parameter_groups
from fullbake.models.encoding import Encoded, windows_of
from fullbake.models.fast_layers import compiled, fast_kernels
from fullbake.models.heads import l2_penalty
from fullbake.models.inference import inputs_for, logits_over, padded_lengths, pool_windows, run_over
from fullbake.models.network import features, head_of, reads_first_token
from fullbake.passes import Stored, gathered


@dataclass(frozen=True)
class Labelled:
    """Tokenized texts with their labels: ids int64 (texts,), or 0 and 1 (texts, classes).

    states: what the layers that stay fixed give for each row of ids, None where they run in every pass.
    """

    encoded: Encoded
    labels: np.ndarray
    states: Stored | None = None

    @property
    def row_labels(self) -> np.ndarray:
        """The label of each row of ids: of the text itself, or of the one that it is a window of."""
        return self.labels if self.encoded.documents is None else self.labels[self.encoded.documents]

    def take(self, texts: np.ndarray) -> "Labelled":
        """These texts, with all their windows."""
        documents = self.encoded.documents
        rows = texts if documents is None else windows_of(documents, texts)[0]
        states = None if self.states is None else self.states.take(rows)
        return Labelled(self.encoded.of_documents(texts), self.labels[texts], states)


@dataclass(frozen=True)
class Tuning:
    """What fine-tuning is told: sections of the recipe (one rate, max_length a number), the tokenizer's pad id, what
    the loss is, and where the base is cut if states are kept."""

    head: HeadConfig
    training: TrainingConfig
    tokens: TokensConfig
    pad_id: int
    objective: Objective
    cut: Cut | None = None


def finetune(
    network: nn.Module,
    train: Labelled,
    validate: Validation,
    tuning: Tuning,
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
    still = held_still(network, tuning.training.freeze_layers)
    with still, _fast_kernels(network, tuning), compiled(network):
        return fit(network, work, tuning.training, checkpoints)


def finetuned_logits(network: nn.Module, part: Labelled, tuning: Tuning) -> np.ndarray:
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
        rows = run_over(
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


def _fast_kernels(network: nn.Module, tuning: Tuning) -> AbstractContextManager[None]:
    """Kept states stand for layers that see padding, and a partly frozen base draws the same masks with and without
    them: it does not run packed."""
    packed = tuning.training.freeze_layers is None
    return fast_kernels(network, first_token=reads_first_token(network), packed=packed)


def _work(network: nn.Module, train: Labelled, validate: Validation, tuning: Tuning, last_epoch: int | None) -> Work:
    training, labels = tuning.training, train.row_labels
    return Work(
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
        penalty=(lambda module: tuning.head.l2 * l2_penalty(head_of(module))) if tuning.head.kind == "mlp" else None,
        shared=tuning.head.kind != "mlp",  # batch norm needs the whole batch in one place
        last_epoch=last_epoch,
    )


def _plan(train: Labelled, tuning: Tuning, epoch: int) -> list[Step]:
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
    module: nn.Module, count: int, share: Step, train: Labelled, labels: np.ndarray, tuning: Tuning
) -> Iterator[Tensor]:
    """The loss over the `count` rows of a step: cut by cut, or once for all where the head has batch norm."""
    loss = tuning.objective.loss
    if tuning.head.kind == "mlp":
        pooled = torch.cat([_pooled(module, cut, train, tuning) for cut in share.cuts])
        yield loss(head_of(module)(pooled), _on_device(labels[share.rows])) / count
        return
    for cut in share.cuts:
        with _above(module, _inputs(cut, train, tuning), tuning) as given:
            logits = module(**given).logits
        yield loss(logits, _on_device(labels[cut])) / count


def _pooled(module: nn.Module, cut: np.ndarray, train: Labelled, tuning: Tuning) -> Tensor:
    with _above(module, _inputs(cut, train, tuning), tuning) as given:
        return features(module, given)


_STATES = "states"
"""What kept states are called beside a network's own inputs."""


@contextmanager
def _above(module: nn.Module, inputs: Mapping[str, Tensor], tuning: Tuning) -> Iterator[dict[str, Tensor]]:
    """The inputs without kept states; where there were any, `module` runs above the cut within the block."""
    given = dict(inputs)
    states = given.pop(_STATES, None)
    if states is None:
        yield given
        return
    assert tuning.cut is not None
    with given_states(module, tuning.cut, states):
        yield given


def _inputs(rows: np.ndarray, part: Labelled, tuning: Tuning) -> dict[str, Tensor]:
    inputs = inputs_for(part.encoded, rows, tokens=tuning.tokens, pad_id=tuning.pad_id, device=device())
    if part.states is not None:
        width = inputs["input_ids"].shape[1]
        inputs[_STATES] = gathered(part.states, rows, part.encoded.lengths[rows], width).to(device())
    return inputs


def _on_device(labels: np.ndarray) -> Tensor:
    return torch.from_numpy(labels).to(device())
