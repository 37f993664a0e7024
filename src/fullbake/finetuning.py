"""Way 2: the base's weights train, under the standard head or a head of ours.

Cuts of a batch go forward and backward one after another. Only a head with batch norm must see the pooled vectors of
the whole batch at once: then the graph of all cuts is held until the batch's one backward pass, which costs their
memory.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fullbake.batches import Step, training_plan
from fullbake.checkpoints import Checkpoints
from fullbake.config import HeadConfig, TokensConfig, TrainingConfig
from fullbake.encoder import freeze_lowest, parameter_groups
from fullbake.heads import l2_penalty
from fullbake.inference import inputs_for, judge, logits_over, padded_lengths
from fullbake.loop import Work, fit
from fullbake.network import features, head_of
from fullbake.runtime import device
from fullbake.tokens import Encoded


@dataclass(frozen=True)
class Labelled:
    """Tokenized texts with their labels. labels: int64 (texts,)."""

    encoded: Encoded
    labels: np.ndarray


@dataclass(frozen=True)
class Tuning:
    """What fine-tuning is told: sections of the recipe (one rate, max_length a number) and the tokenizer's pad id."""

    head: HeadConfig
    training: TrainingConfig
    tokens: TokensConfig
    pad_id: int


def finetune(
    network: nn.Module,
    train: Labelled,
    validation: Labelled,
    tuning: Tuning,
    checkpoints: Checkpoints | None = None,
) -> tuple[list[dict[str, float]], np.ndarray]:
    """Train `network` in place; it is left with the weights of the best epoch, in eval mode.

    checkpoints: where to save and go on from. Returns the history (see `loop.fit`) and the validation logits, float32
    (texts, classes), of those weights.
    """
    network.to(device())
    if tuning.training.freeze_layers is not None:
        freeze_lowest(network, tuning.training.freeze_layers)
    history = fit(network, _work(network, train, validation, tuning), tuning.training, checkpoints)
    return history, _logits(network, validation, tuning)


def _work(network: nn.Module, train: Labelled, validation: Labelled, tuning: Tuning) -> Work:
    training = tuning.training
    return Work(
        plan=lambda epoch: _plan(train, tuning, epoch),
        loss_fn=lambda module, step: _losses(module, step, train, tuning),
        validate=lambda module: judge(_logits(module, validation, tuning), validation.labels, training.metric),
        groups=parameter_groups(
            network,
            learning_rate=training.learning_rate[0],
            weight_decay=training.weight_decay,
            layer_decay=training.layer_decay,
        ),
        rows=len(train.labels),
        tokens=int(train.encoded.lengths.sum()),
        penalty=(lambda module: tuning.head.l2 * l2_penalty(head_of(module))) if tuning.head.kind == "mlp" else None,
        shared=tuning.head.kind != "mlp",  # batch norm needs the whole batch in one place
    )


def _plan(train: Labelled, tuning: Tuning, epoch: int) -> list[Step]:
    return training_plan(
        padded_lengths(train.encoded, tuning.tokens),
        batch_size=tuning.training.batch_size * tuning.training.gradient_accumulation,
        seed=tuning.training.seed,
        epoch=epoch,
        token_budget=tuning.tokens.token_budget,
        merge_last_single=tuning.head.kind == "mlp",
    )


def _losses(module: nn.Module, step: Step, train: Labelled, tuning: Tuning) -> Iterator[Tensor]:
    """Cross entropy summed over rows: cut by cut, or once for the whole step where the head has batch norm."""
    if tuning.head.kind == "mlp":
        pooled = torch.cat([features(module, _inputs(cut, train, tuning)) for cut in step.cuts])
        yield _summed_loss(head_of(module)(pooled), train.labels[step.rows])
        return
    for cut in step.cuts:
        yield _summed_loss(module(**_inputs(cut, train, tuning)).logits, train.labels[cut])


def _inputs(rows: np.ndarray, train: Labelled, tuning: Tuning) -> dict[str, Tensor]:
    return inputs_for(train.encoded, rows, tokens=tuning.tokens, pad_id=tuning.pad_id, device=device())


def _summed_loss(logits: Tensor, labels: np.ndarray) -> Tensor:
    return cross_entropy(logits.float(), torch.from_numpy(labels).to(logits.device), reduction="sum")


def _logits(module: nn.Module, part: Labelled, tuning: Tuning) -> np.ndarray:
    return logits_over(
        module, part.encoded, tokens=tuning.tokens, pad_id=tuning.pad_id, title="validating", shared=True
    )
