"""The one training loop: encoders, heads and masked language models all train here.

A step is one optimizer step over the rows that the batch plan gives it. The loss function yields the loss of one
micro-batch after another, each divided by the count of the whole step (rows, or masked tokens), so that micro-batches
and processes change only the rounding. Everything random is a pure function of (seed, step, rank): to resume, load the
newest checkpoint and take the next step. The best epoch's weights are held in memory, one more copy of what trains.

Processes take unequal shares of a step, so gradients are added up by `gradient_exchange`, not averaged by torch's
DistributedDataParallel. A checkpoint may be resumed by fewer or more processes: the rows of each step stay the same.
Dropout and the rounding of sums do not, so the history notes where the number changed.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fullbake.config.sections import TrainingConfig
from fullbake.core import ranks, rng, runtime, stopping, tracking
from fullbake.core.console import bar, say
from fullbake.core.errors import DeadlinePassed, DivergenceFault, Interrupted
from fullbake.models.batching import Step
from fullbake.training.checkpoints import Checkpoint, Checkpoints
from fullbake.training.elastic import newest_of_all_ranks, note_ranks, ranks_of_epoch
from fullbake.training.gradient_exchange import GradientExchange
from fullbake.training.pace import Pace

EpochPlan = Callable[[int], Sequence[Step]]
"""Epoch (from 0) -> its steps. Every epoch has the same number of steps, unless `TrainingWork.steps` is given."""

StepLoss = Callable[[nn.Module, Step, Step], Iterator[Tensor]]
"""(module, step, this process's share of it) -> parts of the step's mean loss, a scalar for each micro-batch.

The loop runs each one backward before it asks for the next. Over all micro-batches of all shares they add up to the
mean over the step. There are as many as the share has micro-batches, or fewer."""

ValidateFunction = Callable[[nn.Module, int], dict[str, Any]]
"""(module in eval mode, epoch from 0) -> validation scores, among them `validation_loss` and the metric that selects.

They are JSON values and become part of the history."""

StepWatcher = Callable[[Sequence[dict[str, Any]]], str | None]
"""The history so far -> the reason why training must end now, None to continue.

The reason is kept in the last entry as `diverged`."""


@dataclass(frozen=True)
class TrainingWork:
    """What one call of `fit` trains on."""

    plan: EpochPlan
    """The steps of each epoch."""

    loss_fn: StepLoss
    """The loss of a step."""

    validate: ValidateFunction
    """The validation scores after each epoch."""

    groups: list[dict[str, Any]]
    """torch parameter groups, each with its own `lr` and `weight_decay`."""

    rows: int
    """Rows of an epoch."""

    tokens: int | None = None
    """Tokens of all rows together, None if the rows are features."""

    penalty: Callable[[nn.Module], Tensor] | None = None
    """Module -> scalar that is added to the mean loss of every step."""

    shared: bool = True
    """Whether each process takes a share of each step. If not, every process does the whole step."""

    last_epoch: int | None = None
    """Stop after this epoch (from 1), although the schedule is that of all epochs. None runs all of them."""

    steps: int | None = None
    """Steps of all epochs together, None if each epoch has as many as the first."""

    describe: Callable[[dict[str, Any]], str] | None = None
    """Entry of the history -> its line in the log, None for `describe_epoch`."""

    epoch_name: str = "epoch"
    """What the progress bar calls an epoch."""

    watch: StepWatcher = lambda _: None
    """Looks at the history after each epoch and may end the training."""

    step_tokens: Callable[[Step], int] | None = None
    """Tokens of a step's rows, None if the rows are features. The pace is measured in them."""

    keep_best_on_divergence: bool = False
    """If the loss is no longer finite, stop and keep the best weights so far, in place of raising."""


@dataclass
class _State:
    """The position of the loop, apart from arrays. Its field names are the keys of a checkpoint's state.json.

    Attributes:
        epoch, step: the next to run, both from 0.
        taken: optimizer steps taken so far, over all epochs.
        loss_sum, row_sum, norm_sum, seconds: sums over the steps of the current epoch.
        best_metric, best_epoch: of the best epoch (from 1) so far; 0 before the first.
        history: an entry for each finished epoch.
        finished: whether training has ended.
        ranks: [optimizer steps taken, number of processes from there on], one entry for each number.
    """

    epoch: int = 0
    step: int = 0
    taken: int = 0
    loss_sum: float = 0.0
    row_sum: int = 0
    norm_sum: float = 0.0
    seconds: float = 0.0
    best_metric: float = -math.inf
    best_epoch: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    finished: bool = False
    ranks: list[list[int]] = field(default_factory=list)


COOLDOWN = 0.2
"""Share of the steps after warm-up over which the schedule `1-sqrt` decays the rate."""


class _Training:
    """A module, its optimizer, and the position of the loop."""

    def __init__(
        self, module: nn.Module, work: TrainingWork, config: TrainingConfig, checkpoints: Checkpoints | None
    ) -> None:
        self.module, self.work, self.config, self.checkpoints = module, work, config, checkpoints
        self.optimizer = make_optimizer(config, work.groups)
        self.peaks = [group["lr"] for group in self.optimizer.param_groups]
        self.parameters = [parameter for group in work.groups for parameter in group["params"]]
        self.steps = work.steps or len(work.plan(0)) * config.epochs
        self.best_weights: dict[str, Tensor] = {}
        self.rank, self.ranks = (runtime.rank(), runtime.world_size()) if work.shared else (0, 1)
        trained = {id(parameter) for parameter in self.parameters}
        self.exchange = (
            GradientExchange([parameter for parameter in module.parameters() if id(parameter) in trained])
            if self.ranks > 1
            else None
        )
        self.state = _State(ranks=[[0, self.ranks]])
        self.pace = Pace()

    def run(self) -> None:
        """Train from the current position to the end, to a signal, or to the deadline.

        Raises:
            DeadlinePassed: the deadline passed before anything was validated.
        """
        try:
            while not self.state.finished:
                self._train_epoch()
                self._close_epoch()
                self._save_or_stop(force=self.state.finished)
        except DeadlinePassed:
            self._end_early()

    def _train_epoch(self) -> None:
        state = self.state
        self.module.train()
        steps, size, self.pace = self.work.plan(state.epoch), self.work.step_tokens or _count_rows, Pace()
        total, unit = self.work.rows, "rows"
        if self.work.step_tokens is not None:
            total, unit = sum(size(step) for step in steps), "tokens"
        with bar(f"{self.work.epoch_name} {state.epoch + 1}/{self.config.epochs}", total, unit) as advance:
            advance(sum(size(step) for step in steps[: state.step]))
            for step in steps[state.step :]:
                started = time.perf_counter()
                loss = self._take_step(step)
                state.step, state.taken = state.step + 1, state.taken + 1
                stopping.note_progress(state.taken / self.steps)
                tracking.note_step(state.taken, loss, self.optimizer.param_groups[0]["lr"])
                state.loss_sum += loss * len(step.rows)
                state.row_sum += len(step.rows)
                seconds = time.perf_counter() - started
                state.seconds += seconds
                self.pace.add(size(step), seconds)
                advance(size(step))
                if state.step < len(steps):  # the end of an epoch saves after validation
                    self._save_or_stop()

    def _take_step(self, step: Step) -> float:
        """Take one optimizer step and return the mean loss over its rows."""
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = peak * self._factor(self.state.taken)
        rng.seed_step(self.config.seed, self.state.taken, self.rank)
        loss = self._backward(step, step.share(self.rank, self.ranks), penalized=self.rank == 0)
        if self.exchange is not None:
            self.exchange.close()
            loss = float(ranks.sum_over_ranks(torch.tensor(loss, dtype=torch.float64)))
        if not math.isfinite(loss):
            raise divergence_fault(self.state.epoch, self.state.step, loss, self.optimizer.param_groups[0]["lr"])
        norm = float(_clip_gradients(self.parameters, self.config.max_grad_norm))
        self.state.norm_sum += norm if math.isfinite(norm) else 0.0
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss

    def _backward(self, step: Step, share: Step, *, penalized: bool) -> float:
        """Add this share's part of the gradients of the step's mean loss, and return its part of that loss."""
        total, left = 0.0, len(share.micro_batches)
        with runtime.autocast(self.config.precision):
            for loss in self.work.loss_fn(self.module, step, share):
                left -= 1
                if self.exchange is not None and not left and self.work.penalty is None:
                    self.exchange.open()
                loss.backward()
                _make_gradients_dense(self.parameters)
                total += loss.item()
            if self.work.penalty is not None and penalized:
                self.work.penalty(self.module).backward()
        return total

    def _factor(self, step: int) -> float:
        return rate_factor(step, self.steps, self.config.schedule, self.config.warmup)

    def _close_epoch(self) -> None:
        """Validate, record the epoch, keep its weights if they are the best so far, and move to the next epoch."""
        state, metric = self.state, self.config.metric
        entry = self._entry() | self._validate() | ranks_of_epoch(state.ranks, state.taken - state.step, state.taken)
        state.history.append(entry)
        tracking.note_epoch(state.taken, entry)
        reason = self.work.watch(state.history)
        if reason is not None:
            entry["diverged"] = reason
        if entry[metric] > state.best_metric:
            state.best_metric, state.best_epoch = entry[metric], state.epoch + 1
            self.best_weights = {name: tensor.detach().clone() for name, tensor in self.module.state_dict().items()}
        describe = self.work.describe
        line = describe(entry) if describe else describe_epoch(entry, self.config.epochs, metric)
        say(f"{line}{' *' if state.best_epoch == state.epoch + 1 else ''}")
        state.epoch, state.step = state.epoch + 1, 0
        state.loss_sum, state.row_sum, state.norm_sum, state.seconds = 0.0, 0, 0.0, 0.0
        last = self.work.last_epoch or self.config.epochs
        state.finished = state.epoch == last or "diverged" in entry or self._out_of_patience()
        runtime.release_memory()

    def _validate(self) -> dict[str, Any]:
        """Return the validation scores. If validation is interrupted, a resumed run starts with it."""
        self.module.eval()
        try:
            with stopping.interruptible():
                return self.work.validate(self.module, self.state.epoch)
        except Interrupted as stop:
            self._save()
            raise self._interrupted(stop.signal) from None

    def _entry(self) -> dict[str, Any]:
        state = self.state
        return {
            "epoch": state.epoch + 1,
            "train_loss": state.loss_sum / state.row_sum,
            "gradient_norm": state.norm_sum / state.step,
            "learning_rate": self.peaks[0] * self._factor(self.state.taken),
            "seconds": state.seconds,
            **self._speed(),
        }

    def _speed(self) -> dict[str, float]:
        """Return the rows and tokens per second in the fastest stretch of the epoch.

        Where rows have tokens, the speed is measured in them: a stretch of short texts has many rows.
        """
        state, work = self.state, self.work
        units = work.tokens if work.tokens is not None and work.step_tokens is not None else state.row_sum
        # There is no stretch where a resumed run had only to validate.
        per_second = self.pace.per_second or units / max(state.seconds, 1e-9)
        rows = per_second * state.row_sum / units
        return {"rows_per_second": rows} | (
            {} if work.tokens is None else {"tokens_per_second": rows * work.tokens / state.row_sum}
        )

    def _out_of_patience(self) -> bool:
        patience = self.config.patience
        if patience is None or self.state.epoch - self.state.best_epoch < patience:
            return False
        say(f"stopped early: {self.config.metric} has not improved for {patience} epochs")
        return True

    def _save_or_stop(self, *, force: bool = False) -> None:
        """Save a checkpoint if it is time to. If a signal asks to stop, save and raise Interrupted.

        Args:
            force: save in any case. Training is done then, so that its deadline no longer matters.

        Raises:
            DeadlinePassed: the deadline has passed.
        """
        number, late = stopping.must_stop()
        if number or force or (self.checkpoints is not None and self._save_is_due(self.checkpoints)):
            self._save()
        if number:
            raise self._interrupted(number)
        if late and not force:
            raise DeadlinePassed

    def _save(self) -> None:
        if self.checkpoints is None:
            return
        tracking.settle()  # a resumed run does not take the steps before its checkpoint again
        facts = asdict(self.state) | {"best_metric": self._best()}
        self.checkpoints.save(Checkpoint(self.state.taken, self._arrays(), facts))
        ranks.wait_for_ranks()

    def _interrupted(self, number: int) -> Interrupted:
        return Interrupted(number, self.state.taken, None if self.checkpoints is None else str(self.checkpoints.folder))

    def _end_early(self) -> None:
        """End at the deadline. A checkpoint is saved, so that the same training may resume with more time."""
        self._save()
        position = f"step {self.state.taken:,} of {self.steps:,}"
        if not self.best_weights:
            raise DeadlinePassed(f"the time was up at {position}, before the first validation")
        epoch = f"{self.work.epoch_name} {self.state.best_epoch}"
        say(f"the time is up at {position}: the weights of {epoch}, the best that were validated, are kept")
        self.state.history[-1]["stopped"] = f"the time was up at {position}"

    def _save_is_due(self, checkpoints: Checkpoints) -> bool:
        """Return the answer of rank 0, whose clock decides for all processes."""
        due = checkpoints.due(self.state.taken)
        if runtime.world_size() == 1:
            return due
        return bool(ranks.sum_over_ranks(torch.tensor(int(due and runtime.rank() == 0))))

    def _best(self) -> float | None:
        return self.state.best_metric if self.state.best_epoch else None

    def _arrays(self) -> dict[str, dict[str, np.ndarray]]:
        """Return the arrays of a checkpoint: weights, optimizer moments, and the best epoch's weights."""
        moments = {
            f"{number}.{name}": tensor
            for number, values in self.optimizer.state_dict()["state"].items()
            for name, tensor in values.items()
        }
        parts = {"model": self.module.state_dict(), "optimizer": moments, "best": self.best_weights}
        return {
            part: {name: t.detach().cpu().numpy() for name, t in tensors.items()} for part, tensors in parts.items()
        }

    def resume(self, checkpoint: Checkpoint) -> None:
        """Restore the position, the weights and the optimizer of a checkpoint."""
        facts = dict(checkpoint.facts)
        if facts["best_metric"] is None:
            facts["best_metric"] = -math.inf
        self.state = _State(**facts)
        note_ranks(self.state.ranks, self.state.taken, self.ranks)
        self.module.load_state_dict(_tensors(checkpoint.arrays["model"]))
        self.best_weights = _tensors(checkpoint.arrays["best"])
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _tensors(checkpoint.arrays["optimizer"]).items():
            number, moment = name.split(".")
            moments.setdefault(int(number), {})[moment] = tensor
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})
        say(f"resumed after step {checkpoint.step:,} of {self.steps:,}")


def fit(
    module: nn.Module, work: TrainingWork, config: TrainingConfig, checkpoints: Checkpoints | None = None
) -> list[dict[str, Any]]:
    """Train `module` in place and leave it, in eval mode, with the weights of the epoch of the best validation score.

    Args:
        module: what trains, on its device.
        work: its rows, loss and validation.
        config: the training section of the recipe, with one learning rate.
        checkpoints: where to save and to resume from; None saves nothing. With it, SIGINT and SIGTERM let the current
            step, or batch of validation, finish, save, and raise Interrupted.

    Returns:
        The history, one entry for each epoch: epoch (from 1), train_loss (mean over rows, without the penalty),
        gradient_norm (mean over steps, before clipping), learning_rate (of the first group, at the end), seconds,
        rows_per_second and, if the rows are texts, tokens_per_second (both in the fastest stretch, see `Pace`), and
        what `work.validate` gave. The entry of the best epoch has `best` true. If a deadline (see `stopping.deadline`)
        ended training, the last entry says so under `stopped`.

    Raises:
        DeadlinePassed: the deadline passed before the first validation was done.
        DivergenceFault: the loss is not a finite number.
        SpaceFault: there is no space for a checkpoint.
        Interrupted: a signal asked to stop.
    """
    runtime.keep_freed_memory()
    training = _Training(module, work, config, checkpoints)
    newest = None if checkpoints is None else newest_of_all_ranks(checkpoints)
    if newest is not None:
        training.resume(newest)
    try:
        # With checkpoints a signal ends the step, not the process, so that it can save.
        with nullcontext() if checkpoints is None else stopping.deferred_signals():
            training.run()
    except DivergenceFault as fault:
        if not (work.keep_best_on_divergence and training.best_weights):
            raise
        training.state.history[-1]["diverged"] = str(fault)
    finally:
        if training.exchange is not None:
            training.exchange.remove()
    module.load_state_dict(training.best_weights)
    module.eval()
    state = training.state
    return [entry | {"best": entry["epoch"] == state.best_epoch} for entry in state.history]


def divergence_fault(epoch: int, step: int, loss: float, rate: float) -> DivergenceFault:
    """Return the fault to raise for a loss that is not a finite number.

    Args:
        epoch, step: where it happened, both from 0.
        loss: its value.
        rate: the learning rate at that step.
    """
    return DivergenceFault(
        "the training loss is no longer a finite number",
        where=f"epoch {epoch + 1}, step {step + 1}",
        got=str(loss),
        remedy=f"Lower --learning-rate (it was {rate:.1e} at that step) or raise --warmup.",
    )


def make_optimizer(config: TrainingConfig, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """Return Adam (Kingma & Ba 2015) or AdamW (Loshchilov & Hutter 2019), as the training section says.

    Args:
        config: the training section.
        groups: torch parameter groups, each with its own `lr` and `weight_decay`.
    """
    kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
    return kind(groups, fused=True)


def rate_factor(step: int, steps: int, schedule: str, warmup: float) -> float:
    """Return the learning rate of an optimizer step as a share of the peak rate.

    It rises during the warm-up, then decays to 0 at `steps`.

    Args:
        step: the optimizer step, from 0.
        steps: all optimizer steps of the training.
        schedule: `linear`, `cosine`, `constant` or `1-sqrt`.
        warmup: share of the steps that the warm-up takes.
    """
    rising = math.ceil(warmup * steps)
    if step < rising:
        return (step + 1) / (rising + 1)
    left = max(0.0, (steps - step) / max(1, steps - rising))
    shapes = {"linear": left, "cosine": 0.5 * (1 + math.cos(math.pi * (1 - left))), "constant": 1.0}
    if schedule == "1-sqrt":  # constant, then down in the last fifth (Hägele et al. 2024, arXiv 2405.18392)
        shapes[schedule] = 1 - math.sqrt(max(0.0, 1 - left / COOLDOWN))
    return shapes[schedule]


def describe_epoch(entry: dict[str, Any], epochs: int, metric: str) -> str:
    """Return the line in the log for an epoch: losses, metric, learning rate, speed.

    Args:
        entry: the epoch's entry of the history.
        epochs: how many epochs there are.
        metric: the metric that selects.
    """
    losses = f"train loss {entry['train_loss']:.4f}  validation loss {entry['validation_loss']:.4f}"
    unit = "tokens" if "tokens_per_second" in entry else "rows"
    speed = f"{entry[f'{unit}_per_second']:,.0f} {unit}/s"
    return (
        f"epoch {entry['epoch']}/{epochs}  {losses}  {metric} {entry[metric]:.4f}"
        f"  rate {entry['learning_rate']:.2e}  {speed}  {entry['seconds']:.1f} s"
    )


def _count_rows(step: Step) -> int:
    return len(step.rows)


def _make_gradients_dense(parameters: Sequence[nn.Parameter]) -> None:
    """Make the sparse gradients of embedding tables dense, which clipping and the optimizers need; those of the next
    micro-batch are then added in place."""
    for parameter in parameters:
        if parameter.grad is not None and parameter.grad.is_sparse:
            parameter.grad = parameter.grad.to_dense()


def _clip_gradients(parameters: Sequence[nn.Parameter], longest: float | None) -> Tensor:
    """Scale the gradients down to a norm of at most `longest`, if that is not None. Return their norm before that."""
    if longest is not None:
        return nn.utils.clip_grad_norm_(parameters, longest)
    return nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])


def _tensors(arrays: Any) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
