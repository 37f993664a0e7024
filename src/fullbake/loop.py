"""The one training loop: encoders, heads and (later) the masked LM all train here.

A step is one optimizer step over the rows that the batch plan gave it. The loss function yields the *sum* of the loss over
rows, cut by cut; the loop divides by the rows of the whole step, so that cutting changes nothing but rounding.
The best epoch's weights are held in memory (one more copy of the trained weights) and put back at the end.
Devices and precision are accelerate's; its batching, scheduler and state saving are not used (see docs/design.md).
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from fullbake.batches import Step
from fullbake.config import TrainingConfig
from fullbake.errors import DivergenceFault
from fullbake.progress import bar, say
from fullbake.runtime import mixed_precision


Plan = Callable[[int], Sequence[Step]]
"""Epoch, from 0 -> its steps; the number of steps is the same for every epoch."""

LossFunction = Callable[[nn.Module, Step], Iterator[Tensor]]
"""(module, step) -> the loss summed over rows, one scalar for each cut, to be run backward before the next is asked for."""

Validation = Callable[[nn.Module], dict[str, float]]
"""Module in eval mode -> figures of the validation part, among them `validation_loss` and the selecting metric."""


@dataclass(frozen=True)
class Work:
    """What one call of `fit` trains on.

    plan, loss_fn, validate: see the types. groups: torch parameter groups with their own `lr` and `weight_decay`.
    lengths: tokens of each row, int64 (rows,). penalty: module -> scalar added to the mean loss of every step, or None.
    """

    plan: Plan
    loss_fn: LossFunction
    validate: Validation
    groups: list[dict[str, Any]]
    lengths: np.ndarray
    penalty: Callable[[nn.Module], Tensor] | None = None


@dataclass
class _Best:
    """The best epoch so far and its weights."""

    metric: float = -math.inf
    epoch: int = 0
    weights: dict[str, Tensor] = field(default_factory=dict)


def fit(module: nn.Module, work: Work, config: TrainingConfig) -> list[dict[str, float]]:
    """Train `module` in place and leave it, in eval mode, with the weights of the epoch that validation liked best.

    Returns the history, an entry an epoch: epoch (from 1), train_loss (mean over rows, penalty left out), learning_rate
    (the first group's, at the end), seconds, tokens_per_second, and what `work.validate` gave. The chosen epoch's entry
    has `best` true. Raises DivergenceFault where the loss is no finite number.
    """
    accelerator = Accelerator(mixed_precision=mixed_precision(config.precision))
    optimizer = make_optimizer(config, work.groups)
    module, optimizer = accelerator.prepare(module, optimizer)
    steps = len(work.plan(0))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: rate_factor(step, steps * config.epochs, config.schedule, config.warmup)
    )
    best, history = _Best(), []
    for epoch in range(config.epochs):
        entry = {"epoch": epoch + 1, **_train_epoch(accelerator, module, optimizer, schedule, work, config, epoch)}
        module.eval()
        entry |= work.validate(accelerator.unwrap_model(module))
        history.append(entry)
        _keep_if_best(best, entry, accelerator.unwrap_model(module), config.metric)
        say(describe(entry, config.epochs, config.metric, chosen=best.epoch == epoch + 1))
        if config.patience is not None and epoch + 1 - best.epoch >= config.patience:
            say(f"stopped early: no better {config.metric} for {config.patience} epochs")
            break
    accelerator.unwrap_model(module).load_state_dict(best.weights)
    for entry in history:
        entry["best"] = entry["epoch"] == best.epoch
    return history


def _train_epoch(
    accelerator: Accelerator,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    work: Work,
    config: TrainingConfig,
    epoch: int,
) -> dict[str, float]:
    module.train()
    steps = work.plan(epoch)
    started, loss_sum, rows = time.perf_counter(), 0.0, 0
    with bar(f"epoch {epoch + 1}/{config.epochs}", len(work.lengths), "rows") as advance:
        for number, step in enumerate(steps):
            loss = _take_step(accelerator, module, optimizer, work, config.max_grad_norm, step)
            if not math.isfinite(loss):
                raise _diverged(epoch, number, loss, optimizer)
            schedule.step()
            loss_sum, rows = loss_sum + loss, rows + len(step.rows)
            advance(len(step.rows))
    seconds = time.perf_counter() - started
    return {
        "train_loss": loss_sum / rows,
        "learning_rate": schedule.get_last_lr()[0],
        "seconds": seconds,
        "tokens_per_second": float(work.lengths.sum()) / seconds,
    }


def _take_step(
    accelerator: Accelerator,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    work: Work,
    max_grad_norm: float,
    step: Step,
) -> float:
    """One optimizer step. Returns the loss summed over the step's rows."""
    total = 0.0
    with accelerator.autocast():
        for loss in work.loss_fn(module, step):
            accelerator.backward(loss / len(step.rows))
            total += loss.item()
        if work.penalty is not None:
            accelerator.backward(work.penalty(module))
    accelerator.clip_grad_norm_([p for group in work.groups for p in group["params"]], max_grad_norm)
    optimizer.step()
    optimizer.zero_grad()
    return total


def make_optimizer(config: TrainingConfig, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """Adam (Kingma & Ba 2015) or AdamW (Loshchilov & Hutter 2019) over groups that carry their own rate and decay."""
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.optimizer]
    return kind(groups, fused=True)


def rate_factor(step: int, steps: int, schedule: str, warmup: float) -> float:
    """Share of the peak rate at an optimizer step (from 0): rises through the warm-up, then decays to 0 at `steps`."""
    rising = math.ceil(warmup * steps)
    if step < rising:
        return (step + 1) / (rising + 1)
    left = (steps - step) / max(1, steps - rising)
    if schedule == "linear":
        return max(0.0, left)
    return 0.5 * (1 + math.cos(math.pi * (1 - max(0.0, left)))) if schedule == "cosine" else 1.0


def _keep_if_best(best: _Best, entry: dict[str, float], module: nn.Module, metric: str) -> None:
    if entry[metric] > best.metric:
        best.metric, best.epoch = entry[metric], int(entry["epoch"])
        best.weights = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def describe(entry: dict[str, float], epochs: int, metric: str, chosen: bool) -> str:
    """An epoch's line: losses, metric, rate, tokens/s."""
    losses = f"train loss {entry['train_loss']:.4f}  validation loss {entry['validation_loss']:.4f}"
    return (
        f"epoch {entry['epoch']}/{epochs}  {losses}  {metric} {entry[metric]:.4f}{' *' if chosen else '  '}"
        f"  rate {entry['learning_rate']:.2e}  {entry['tokens_per_second']:,.0f} tokens/s  {entry['seconds']:.1f} s"
    )


def _diverged(epoch: int, number: int, loss: float, optimizer: torch.optim.Optimizer) -> DivergenceFault:
    return DivergenceFault(
        "the training loss is no longer a finite number",
        where=f"epoch {epoch + 1}, step {number + 1}",
        got=str(loss),
        remedy=f"Lower --learning-rate (it stood at {optimizer.param_groups[0]['lr']:.1e}) or raise --warmup.",
    )
