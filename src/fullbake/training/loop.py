"""The one training loop: encoders, heads and the masked LM all train here.

A step is one optimizer step over the rows that the batch plan gave it. The loss function yields its parts cut by cut,
each divided by the count of the whole step (rows, or masked tokens), so that neither cuts nor processes change
anything but rounding. Everything random is a pure function of (seed, step, rank), so going on after a kill is: load
the newest checkpoint and take the next step. The best epoch's weights are held in memory (one more copy of the
trained weights).

Of accelerate we use devices, precision and the meeting of processes. Not its data-parallel wrap: it averages over
processes that all ran the same number of equal batches, and ours take unequal shares in several cuts; one sum of the
gradients at the end of the step is plainer and exact.
"""

import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fullbake.config.sections import TrainingConfig
from fullbake.core import rng, runtime
from fullbake.core.console import bar, say
from fullbake.core.errors import DivergenceFault, Interrupted
from fullbake.models.batching import Step
from fullbake.training.checkpoints import Checkpoint, Checkpoints

EpochPlan = Callable[[int], Sequence[Step]]
"""Epoch, from 0 -> its steps; as many in every epoch, unless `Work.steps` says otherwise."""

StepLoss = Callable[[nn.Module, Step, Step], Iterator[Tensor]]
"""(module, step, this process's share of it) -> parts of the step's mean loss, a scalar for each cut of the share, to
be run backward before the next is asked for. Over all cuts of all shares they add up to the mean over the step."""

ValidateFunction = Callable[[nn.Module, int], dict[str, Any]]
"""(module in eval mode, epoch from 0) -> figures that choose, among them `validation_loss` and the selecting metric;
JSON values, kept in the history."""

StepWatcher = Callable[[Sequence[dict[str, Any]]], str | None]
"""The history so far -> why training has to end here, None to go on. The reason is kept in its last entry, as
`diverged`."""


@dataclass(frozen=True)
class TrainingWork:
    """What one call of `fit` trains on.

    plan, loss_fn, validate: see the types. groups: torch parameter groups with their own `lr` and `weight_decay`.
    rows: how many there are. tokens: in all rows together, None where rows are features. penalty: module -> scalar
    added to the mean loss of every step, or None. shared: whether processes take shares of each step; if not, each
    does all of it. last_epoch: stop after this one (from 1) on the way to all of them, None to go on. steps: of all
    epochs together, None where each has as many as the first. told: entry of the history -> its line, None for
    `describe`. epoch_name: what an epoch is called. watch: see the type. salvage: where the loss goes bad, stop and
    keep the best weights so far in place of raising.
    """

    plan: EpochPlan
    loss_fn: StepLoss
    validate: ValidateFunction
    groups: list[dict[str, Any]]
    rows: int
    tokens: int | None = None
    penalty: Callable[[nn.Module], Tensor] | None = None
    shared: bool = True
    last_epoch: int | None = None
    steps: int | None = None
    told: Callable[[dict[str, Any]], str] | None = None
    epoch_name: str = "epoch"
    watch: StepWatcher = lambda _: None
    salvage: bool = False


@dataclass
class _State:
    """Where the loop stands, apart from arrays. epoch, step: the next to run. taken: optimizer steps in all. The sums
    are of the epoch under way."""

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


COOLDOWN = 0.2
"""Share of the steps after warm-up in which `1-sqrt` takes the rate down."""


class _Training:
    """A module, its optimizer and where they stand."""

    def __init__(
        self, module: nn.Module, work: TrainingWork, config: TrainingConfig, checkpoints: Checkpoints | None
    ) -> None:
        self.module, self.work, self.config, self.checkpoints = module, work, config, checkpoints
        self.optimizer = make_optimizer(config, work.groups)
        self.peaks = [group["lr"] for group in self.optimizer.param_groups]
        self.parameters = [parameter for group in work.groups for parameter in group["params"]]
        self.steps = work.steps or len(work.plan(0)) * config.epochs
        self.best_weights: dict[str, Tensor] = {}
        self.state = _State()

    def run(self, stopped: Callable[[], int]) -> None:
        """Train to the end, from where the state stands. stopped: gives the signal that asks to stop, 0 for none."""
        while not self.state.finished:
            self._train_epoch(stopped)
            self._close_epoch()
            self._maybe_save(_agreed_signal(stopped()), force=self.state.finished)

    def _train_epoch(self, stopped: Callable[[], int]) -> None:
        state = self.state
        self.module.train()
        with bar(f"{self.work.epoch_name} {state.epoch + 1}/{self.config.epochs}", self.work.rows, "rows") as advance:
            advance(state.row_sum)
            steps = self.work.plan(state.epoch)
            for step in steps[state.step :]:
                started = time.perf_counter()
                loss = self._take_step(step)
                state.step, state.taken = state.step + 1, state.taken + 1
                state.loss_sum += loss * len(step.rows)
                state.row_sum += len(step.rows)
                state.seconds += time.perf_counter() - started
                advance(len(step.rows))
                if state.step < len(steps):  # the end of an epoch saves after validation
                    self._maybe_save(_agreed_signal(stopped()))

    def _take_step(self, step: Step) -> float:
        """One optimizer step. Returns the step's mean loss."""
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = peak * self._factor(self.state.taken)
        rank, ranks = (runtime.rank(), runtime.world_size()) if self.work.shared else (0, 1)
        rng.seed_step(self.config.seed, self.state.taken, rank)
        loss = self._backward(step, step.share(rank, ranks), penalized=rank == 0)
        if ranks > 1:
            loss = float(runtime.sum_over_ranks(torch.tensor(loss, dtype=torch.float64)))
            _sum_gradients(self.parameters)
        if not math.isfinite(loss):
            raise divergence_fault(self.state.epoch, self.state.step, loss, self.optimizer.param_groups[0]["lr"])
        norm = float(nn.utils.clip_grad_norm_(self.parameters, self.config.max_grad_norm))
        self.state.norm_sum += norm if math.isfinite(norm) else 0.0
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss

    def _backward(self, step: Step, share: Step, *, penalized: bool) -> float:
        """Gradients of the step's mean loss, as far as this share goes. Returns its part of that loss."""
        total = 0.0
        with runtime.autocast(self.config.precision):
            for loss in self.work.loss_fn(self.module, step, share):
                loss.backward()
                _fill_gradients(self.parameters)
                total += loss.item()
            if self.work.penalty is not None and penalized:
                self.work.penalty(self.module).backward()
        return total

    def _factor(self, step: int) -> float:
        return rate_factor(step, self.steps, self.config.schedule, self.config.warmup)

    def _close_epoch(self) -> None:
        """Validate, note the epoch, keep its weights if they are the best, and move to the next."""
        state, metric = self.state, self.config.metric
        self.module.eval()
        entry = self._entry() | self.work.validate(self.module, state.epoch)
        state.history.append(entry)
        reason = self.work.watch(state.history)
        if reason is not None:
            entry["diverged"] = reason
        if entry[metric] > state.best_metric:
            state.best_metric, state.best_epoch = entry[metric], state.epoch + 1
            self.best_weights = {name: tensor.detach().clone() for name, tensor in self.module.state_dict().items()}
        told = self.work.told(entry) if self.work.told else describe_epoch(entry, self.config.epochs, metric)
        say(f"{told}{' *' if state.best_epoch == state.epoch + 1 else ''}")
        state.epoch, state.step = state.epoch + 1, 0
        state.loss_sum, state.row_sum, state.norm_sum, state.seconds = 0.0, 0, 0.0, 0.0
        last = self.work.last_epoch or self.config.epochs
        state.finished = state.epoch == last or "diverged" in entry or self._out_of_patience()
        runtime.release_memory()

    def _entry(self) -> dict[str, Any]:
        state, seconds = self.state, max(self.state.seconds, 1e-9)
        speed = {"rows_per_second": state.row_sum / seconds}
        if self.work.tokens is not None:
            speed["tokens_per_second"] = self.work.tokens / seconds
        return {
            "epoch": state.epoch + 1,
            "train_loss": state.loss_sum / state.row_sum,
            "gradient_norm": state.norm_sum / state.step,
            "learning_rate": self.peaks[0] * self._factor(self.state.taken),
            "seconds": state.seconds,
            **speed,
        }

    def _out_of_patience(self) -> bool:
        patience = self.config.patience
        if patience is None or self.state.epoch - self.state.best_epoch < patience:
            return False
        say(f"stopped early: no better {self.config.metric} for {patience} epochs")
        return True

    def _maybe_save(self, asked: int, *, force: bool = False) -> None:
        """Save where it is time to, or where a signal asks to stop; then stop."""
        if self.checkpoints is not None and (asked or force or self._agreed(self.checkpoints.due(self.state.taken))):
            self.checkpoints.save(
                Checkpoint(self.state.taken, self._arrays(), asdict(self.state) | {"best_metric": self._best()})
            )
            runtime.wait_for_ranks()
        if asked:
            raise Interrupted(asked, self.state.taken, str(self.checkpoints.folder) if self.checkpoints else None)

    def _agreed(self, due: bool) -> bool:
        """Rank 0's clock decides for all."""
        if runtime.world_size() == 1:
            return due
        mine = due and runtime.rank() == 0
        return bool(runtime.sum_over_ranks(torch.tensor(int(mine))))

    def _best(self) -> float | None:
        return self.state.best_metric if self.state.best_epoch else None

    def _arrays(self) -> dict[str, dict[str, np.ndarray]]:
        """What a checkpoint holds: weights, optimizer moments, and the best epoch's weights."""
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
        """Stand where the checkpoint was made."""
        facts = dict(checkpoint.facts)
        if facts["best_metric"] is None:
            facts["best_metric"] = -math.inf
        self.state = _State(**facts)
        self.module.load_state_dict(_tensors(checkpoint.arrays["model"]))
        self.best_weights = _tensors(checkpoint.arrays["best"])
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _tensors(checkpoint.arrays["optimizer"]).items():
            number, moment = name.split(".")
            moments.setdefault(int(number), {})[moment] = tensor
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})
        say(f"going on after step {checkpoint.step:,} of {self.steps:,}")


def fit(
    module: nn.Module, work: TrainingWork, config: TrainingConfig, checkpoints: Checkpoints | None = None
) -> list[dict[str, Any]]:
    """Train `module` in place and leave it, in eval mode, with the weights of the epoch that validation liked best.

    checkpoints: where to save and go on from; None saves nothing. With it, SIGINT and SIGTERM end the step, save, and
    raise Interrupted.

    Returns the history, an entry an epoch: epoch (from 1), train_loss (mean over rows, penalty left out), gradient_norm
    (mean over steps, before clipping), learning_rate (the first group's, at the end), seconds, rows_per_second,
    tokens_per_second where rows are texts, and what `work.validate` gave. The chosen epoch's entry has `best` true.
    Raises DivergenceFault where the loss is no finite number, SpaceFault where a checkpoint finds no space.
    """
    runtime.keep_freed_memory()
    training = _Training(module, work, config, checkpoints)
    newest = None if checkpoints is None else checkpoints.newest()
    if newest is not None:
        training.resume(newest)
    try:
        _run(training)
    except DivergenceFault as fault:
        if not (work.salvage and training.best_weights):
            raise
        training.state.history[-1]["diverged"] = str(fault)
    module.load_state_dict(training.best_weights)
    module.eval()
    state = training.state
    return [entry | {"best": entry["epoch"] == state.best_epoch} for entry in state.history]


def _run(training: _Training) -> None:
    """Where there are checkpoints, a signal ends a step and not the process."""
    if training.checkpoints is None:
        training.run(lambda: 0)
        return
    with runtime.deferred_signals() as stopped:
        training.run(stopped)


def divergence_fault(epoch: int, step: int, loss: float, rate: float) -> DivergenceFault:
    """The fault of a loss that is no finite number. epoch, step: from 0. rate: what it stood at."""
    return DivergenceFault(
        "the training loss is no longer a finite number",
        where=f"epoch {epoch + 1}, step {step + 1}",
        got=str(loss),
        remedy=f"Lower --learning-rate (it stood at {rate:.1e}) or raise --warmup.",
    )


def make_optimizer(config: TrainingConfig, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """Adam (Kingma & Ba 2015) or AdamW (Loshchilov & Hutter 2019) over groups that carry their own rate and decay."""
    kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
    return kind(groups, fused=True)


def rate_factor(step: int, steps: int, schedule: str, warmup: float) -> float:
    """Share of the peak rate at an optimizer step (from 0): rises through the warm-up, then decays to 0 at `steps`."""
    rising = math.ceil(warmup * steps)
    if step < rising:
        return (step + 1) / (rising + 1)
    left = max(0.0, (steps - step) / max(1, steps - rising))
    shapes = {"linear": left, "cosine": 0.5 * (1 + math.cos(math.pi * (1 - left))), "constant": 1.0}
    if schedule == "1-sqrt":  # constant, then down in the last fifth (Hägele et al. 2024, arXiv 2405.18392)
        shapes[schedule] = 1 - math.sqrt(max(0.0, 1 - left / COOLDOWN))
    return shapes[schedule]


def describe_epoch(entry: dict[str, Any], epochs: int, metric: str) -> str:
    """An epoch's line: losses, metric, rate, speed."""
    losses = f"train loss {entry['train_loss']:.4f}  validation loss {entry['validation_loss']:.4f}"
    unit = "tokens" if "tokens_per_second" in entry else "rows"
    speed = f"{entry[f'{unit}_per_second']:,.0f} {unit}/s"
    return (
        f"epoch {entry['epoch']}/{epochs}  {losses}  {metric} {entry[metric]:.4f}"
        f"  rate {entry['learning_rate']:.2e}  {speed}  {entry['seconds']:.1f} s"
    )


def _agreed_signal(noted: int) -> int:
    """The signal that asks to stop, known to all processes where one of them noted it; 0 for none."""
    anywhere = runtime.sum_over_ranks(torch.tensor(float(noted)))
    return noted or (signal.SIGTERM if anywhere else 0)


def _fill_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Gradients of some rows alone become whole ones, which clipping and optimizers ask for; the next cut's rows are
    then added in place."""
    for parameter in parameters:
        if parameter.grad is not None and parameter.grad.is_sparse:
            parameter.grad = parameter.grad.to_dense()


def _sum_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Each parameter's gradient becomes the sum over all processes, in one message; a process with no rows adds
    zeros."""
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = runtime.sum_over_ranks(torch.cat([gradient.ravel() for gradient in gradients]))
    for gradient, summed in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(summed.view_as(gradient))


def _tensors(arrays: Any) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
