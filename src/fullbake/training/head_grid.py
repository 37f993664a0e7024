"""Train many heads of one kind at once on the same features: a grid of rates, seeds and head settings.

The arithmetic of one small head takes less time than the calls around it. So the weights of all heads are stacked, one
array for each layer, and a step is one batched product for each layer. Each head keeps its own batch plan, dropout
(drawn from its seed and step), rate, weight decay, gradient norm, Adam moments, best epoch and patience, so it ends as
`frozen.fit_head` would train it, up to rounding. (Adam can amplify rounding where the true gradient is 0, such as that
of a bias below batch norm.) The heads' parameters are views of the stacked arrays.

The trade-off: there are no checkpoints, so a killed grid starts again (it takes seconds to minutes). Heads other than
chains of dense layers, batch norm, ReLU and dropout, and mixed precision, train one after another.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fullbake.core import rng, runtime, stopping, tracking
from fullbake.core.console import bar, say
from fullbake.core.errors import DeadlinePassed, DivergenceFault, Interrupted
from fullbake.models.encoder import parameter_groups
from fullbake.models.heads import output_layer
from fullbake.training.checkpoints import Checkpoints
from fullbake.training.frozen import FeatureRows, HeadSettings, LabeledFeatures, fit_head, head_plan
from fullbake.training.loop import ValidateFunction, divergence_fault, make_optimizer, rate_factor

_STACKABLE = (nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Dropout)
"""The layers that a stacked head may consist of."""

_MAY_DIFFER = ("learning_rate", "seed", "weight_decay")
"""Fields of the training section in which the heads of a grid may differ."""


@dataclass(frozen=True)
class TrainedHead:
    """The result of one head of a grid.

    Attributes:
        history: an entry for each epoch, as `loop.fit` gives it; `seconds` are the head's share of the grid's time.
        fault: why the head diverged, None if it did not. A diverged head is not usable.
    """

    history: list[dict[str, Any]]
    fault: DivergenceFault | None = None


@runtime.one_thread()
def train_heads(
    heads: Sequence[nn.Module],
    train: LabeledFeatures,
    validate: ValidateFunction,
    settings: Sequence[HeadSettings],
    checkpoints: Callable[[int], Checkpoints | None] = lambda _: None,
) -> list[TrainedHead]:
    """Train heads in place, each by its own settings, and leave each in eval mode with its best epoch's weights.

    Args:
        heads: built by `heads.build_head` with equal shapes, each initialized from its own seed.
        train: the training rows.
        validate: (head, epoch from 0) -> validation scores.
        settings: one for each head, with one learning rate. They may differ in rate, seed, weight decay, l2 and dropout
            (which the head itself applies).
        checkpoints: index of a head -> where it saves and resumes from, if the heads train one after another.

    Returns:
        A result for each head.

    Raises:
        ValueError: the settings differ in anything else.
    """
    _check_settings_agree(settings)
    device = runtime.device()
    for head in heads:
        head.to(device)
    if not _can_train_together(heads, settings[0]):
        return [
            _train_alone(head, train, validate, own, checkpoints(number))
            for number, (head, own) in enumerate(zip(heads, settings, strict=True))
        ]
    grid = _Grid(heads, train, validate, settings)
    grid.run()
    return [TrainedHead(head.entries(), head.fault) for head in grid.heads]


def _train_alone(
    head: nn.Module,
    train: LabeledFeatures,
    validate: ValidateFunction,
    settings: HeadSettings,
    checkpoints: Checkpoints | None,
) -> TrainedHead:
    try:
        return TrainedHead(fit_head(head, train, validate, settings, checkpoints))
    except DivergenceFault as fault:
        return TrainedHead([], fault)


def _check_settings_agree(settings: Sequence[HeadSettings]) -> None:
    def shared_fields(own: HeadSettings) -> dict[str, Any]:
        training = own.training.model_dump(exclude=set(_MAY_DIFFER))
        return training | own.head.model_dump(exclude={"l2", "dropout"}) | {"objective": own.objective}

    first = shared_fields(settings[0])
    for own in settings[1:]:
        differing = sorted(name for name, value in shared_fields(own).items() if value != first[name])
        if differing:
            raise ValueError(f"all heads of a grid need the same {', '.join(differing)}")


def _can_train_together(heads: Sequence[nn.Module], settings: HeadSettings) -> bool:
    stackable = all(
        isinstance(head, nn.Sequential) and all(isinstance(part, _STACKABLE) for part in head.children())
        for head in heads
    )
    plain = not runtime.uses_bf16(settings.training.precision) and settings.training.optimizer != "lbfgs"
    return len(heads) > 1 and stackable and plain


@dataclass
class _GridHead:
    """A head of the grid and the state of its training."""

    module: nn.Sequential
    settings: HeadSettings
    groups: list[dict[str, Any]]
    history: list[dict[str, Any]] = field(default_factory=list)
    best_metric: float = -math.inf
    best_epoch: int = 0
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    fault: DivergenceFault | None = None
    loss_sum: float = 0.0
    norm_sum: float = 0.0

    @property
    def rate(self) -> float:
        """The head's peak learning rate."""
        return self.settings.training.peak_rate

    @property
    def seed(self) -> int:
        """The seed of its batch plan and its dropout."""
        return self.settings.training.seed

    @property
    def dropout(self) -> nn.Dropout | None:
        """The layer that drops parts of the head's input, if it has one."""
        return next((part for part in self.module.children() if isinstance(part, nn.Dropout)), None)

    def record(self, entry: dict[str, Any]) -> None:
        """Keep an epoch's entry, and its weights if they are the best so far."""
        self.history.append(entry)
        if entry[self.settings.training.metric] > self.best_metric:
            self.best_metric, self.best_epoch = entry[self.settings.training.metric], entry["epoch"]
            self.best_weights = {name: tensor.detach().clone() for name, tensor in self.module.state_dict().items()}

    def is_done(self, epoch: int) -> bool:
        """Return True if the head stops after this epoch (from 1)."""
        training = self.settings.training
        patient = training.patience is None or epoch - self.best_epoch < training.patience
        return self.fault is not None or epoch == training.epochs or not patient

    def close(self) -> None:
        """Give the head its own memory in place of views, and its best weights."""
        for tensor in (*self.module.parameters(), *self.module.buffers()):
            tensor.grad, tensor.data = None, tensor.data.clone()
        if self.best_weights:
            self.module.load_state_dict(self.best_weights)
        self.module.eval()

    def entries(self) -> list[dict[str, Any]]:
        """Return the history, with `best` in each entry."""
        return [entry | {"best": entry["epoch"] == self.best_epoch} for entry in self.history]


class _Dense(torch.autograd.Function):
    """The dense layers of all heads as one batched product.

    The gradient of the weights overwrites the last one in place: new memory for twelve heads of 384 x 384 would take a
    third of the backward pass.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Return (heads, rows, out) for hidden (heads, rows, in), weight (heads, out, in) and bias (heads, out)."""
        ctx.save_for_backward(hidden, weight)
        ctx.into = weight.grad
        return torch.baddbmm(bias.unsqueeze(1), hidden, weight.transpose(1, 2))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, Tensor]:
        """Return the gradients of hidden and bias, and write that of weight into its place."""
        hidden, weight = ctx.saved_tensors
        torch.bmm(gradients[0].transpose(1, 2), hidden, out=ctx.into)
        below = torch.bmm(gradients[0], weight) if ctx.needs_input_grad[0] else None
        return below, None, gradients[0].sum(dim=1)


class _StackedHeads:
    """The weights of all heads: one array for each parameter and buffer, of which the heads' own are views."""

    def __init__(self, heads: Sequence[_GridHead]) -> None:
        self.heads, self.pattern = heads, heads[0].module
        modules = [head.module for head in heads]
        self.weights = {name: self._stacked(modules, name) for name, _ in self.pattern.named_parameters()}
        self.buffers = {
            name: self._concatenated(modules, name) for name, part in self.pattern.named_buffers() if part.ndim
        }
        self.output = f"{_name_of(self.pattern, output_layer(self.pattern))}.weight"
        self.l2: Tensor | None = None
        if heads[0].settings.head.kind == "mlp":
            amounts = [head.settings.head.l2 for head in heads]
            self.l2 = torch.tensor(amounts, device=self.weights[self.output].device).view(-1, 1, 1)

    def _stacked(self, heads: Sequence[nn.Module], name: str) -> Tensor:
        own = [head.get_parameter(name) for head in heads]
        whole = torch.stack([parameter.detach() for parameter in own]).requires_grad_()
        whole.grad = torch.zeros_like(whole)
        for number, parameter in enumerate(own):
            parameter.data, parameter.grad = whole.detach()[number], whole.grad[number]
        return whole

    def _concatenated(self, heads: Sequence[nn.Module], name: str) -> Tensor:
        own = [head.get_buffer(name) for head in heads]
        whole = torch.cat(own)
        for buffer, part in zip(own, whole.split(len(own[0])), strict=True):
            buffer.data = part
        return whole

    def forward(self, hidden: Tensor, noise: Tensor | None) -> Tensor:
        """Return the logits of all heads in training mode, (heads, rows, classes).

        Args:
            hidden: features, (heads, rows, width).
            noise: what dropout multiplies its input with, of the same shape; None without dropout.
        """
        for name, part in self.pattern.named_children():
            if isinstance(part, nn.Linear):
                hidden = _Dense.apply(  # type: ignore[no-untyped-call]
                    hidden, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
                )
            elif isinstance(part, nn.BatchNorm1d):
                hidden = self._normed(hidden, name, part)
            elif isinstance(part, nn.ReLU):
                hidden = functional.relu(hidden)
            elif noise is not None:
                hidden = hidden * noise
        return hidden

    def _normed(self, hidden: Tensor, name: str, part: nn.BatchNorm1d) -> Tensor:
        heads, rows, width = hidden.shape
        flat = hidden.transpose(0, 1).reshape(rows, heads * width)
        flat = functional.batch_norm(
            flat,
            self.buffers[f"{name}.running_mean"],
            self.buffers[f"{name}.running_var"],
            self.weights[f"{name}.weight"].flatten(),
            self.weights[f"{name}.bias"].flatten(),
            training=True,
            momentum=0.0 if part.momentum is None else part.momentum,
            eps=part.eps,
        )
        return flat.view(rows, heads, width).transpose(0, 1)

    def backward(self, losses: Tensor) -> None:
        """Compute all gradients.

        Args:
            losses: mean loss over each head's rows, (heads,), without the penalty.
        """
        for weight in self.weights.values():
            if weight.grad is not None and weight.ndim < 3:  # the gradients of dense layers are overwritten
                weight.grad.zero_()
        losses.sum().backward()
        if self.l2 is not None:
            output = self.weights[self.output]
            assert output.grad is not None
            output.grad += output.detach() * (2 * self.l2)

    def clip(self, longest: float | None) -> list[float]:
        """Scale each head's gradients down to a norm of at most `longest`, as torch's clip_grad_norm_ does for a model.

        Args:
            longest: None leaves the gradients as they are.

        Returns:
            Each head's norm before clipping.
        """
        gradients = [weight.grad for weight in self.weights.values() if weight.grad is not None]
        squares = [torch.linalg.vector_norm(gradient.flatten(1), dim=1).square() for gradient in gradients]
        norms = torch.stack(squares).sum(dim=0).sqrt()
        if longest is not None:
            scales = (longest / (norms + 1e-6)).clamp(max=1.0)
            if bool((scales < 1).any()):
                for gradient in gradients:
                    gradient *= scales.view(-1, *[1] * (gradient.ndim - 1))
        return [float(norm) for norm in norms.tolist()]


class _Grid:
    """Heads that train together, and the position of their loop."""

    def __init__(
        self,
        heads: Sequence[nn.Module],
        train: LabeledFeatures,
        validate: ValidateFunction,
        settings: Sequence[HeadSettings],
    ) -> None:
        self.heads = [_grid_head(head, own) for head, own in zip(heads, settings, strict=True)]
        self.train, self.validate = train, validate
        self.inputs, self.labels = FeatureRows(train), torch.from_numpy(train.row_labels).to(runtime.device())
        self.training, self.objective = settings[0].training, settings[0].objective
        self.optimizer = make_optimizer(self.training, [group for head in self.heads for group in head.groups])
        for head in self.heads:  # take the optimizer's own groups, which have all defaults filled in
            head.groups = [self.optimizer.param_groups.pop(0) | {"peak": head.rate} for _ in head.groups]
        self.taken, self.steps = 0, len(head_plan(train, settings[0], 0)) * self.training.epochs

    def run(self) -> None:
        """Train until every head is done, or until the deadline (see `core.stopping`).

        Raises:
            DeadlinePassed: the deadline passed before the first validation.
        """
        training = list(self.heads)
        try:
            for epoch in range(self.training.epochs):
                self._train_epoch(_StackedHeads(training), epoch)
                for head in training:
                    if head.is_done(epoch + 1):
                        head.close()
                training = [head for head in training if not head.is_done(epoch + 1)]
                if not training:
                    return
        except DeadlinePassed:
            self._end_early(training)

    def _end_early(self, training: Sequence[_GridHead]) -> None:
        """Close the heads that still train, with the best weights that were validated."""
        position = f"step {self.taken:,} of {self.steps:,}"
        if not all(head.history for head in training if head.fault is None):
            raise DeadlinePassed(f"the time was up at {position}, before the first validation")
        say(f"the time is up at {position}: the best weights that were validated are kept")
        for head in training:
            if head.history:
                head.history[-1]["stopped"] = f"the time was up at {position}"
            head.close()

    def _stop_if_asked(self) -> None:
        number, late = stopping.must_stop()
        if number:
            raise Interrupted(number, self.taken, None)
        if late:
            raise DeadlinePassed

    def _train_epoch(self, stack: _StackedHeads, epoch: int) -> None:
        started, orders = time.perf_counter(), self._orders(stack.heads, epoch)
        ends = np.cumsum([len(step.rows) for step in head_plan(self.train, stack.heads[0].settings, epoch)]).tolist()
        self.optimizer.param_groups = _merge_groups(stack.heads)
        for head in stack.heads:
            head.loss_sum = head.norm_sum = 0.0
            head.module.train()
        with bar(f"epoch {epoch + 1}/{self.training.epochs}, {len(stack.heads)} heads", ends[-1], "rows") as advance:
            for step, (start, end) in enumerate(zip([0, *ends], ends, strict=False)):
                self._stop_if_asked()
                losses, norms = self._take_step(stack, orders[:, start:end])
                self._add_up(stack.heads, losses, norms, end - start, (epoch, step))
                self.taken += 1
                self._note_step(stack.heads, losses)
                advance(end - start)
        seconds = max(time.perf_counter() - started, 1e-9)
        for head in stack.heads:
            _count_batches(head.module, len(ends))
            self._close_epoch(head, epoch, len(ends), seconds / len(stack.heads))
        self._say_epoch(stack.heads, epoch, seconds)

    def _orders(self, heads: Sequence[_GridHead], epoch: int) -> Tensor:
        """Return the rows of an epoch in the order of each head's batch plan, int64 (heads, rows)."""
        plans = {head.seed: head_plan(self.train, head.settings, epoch) for head in heads}
        orders = {seed: np.concatenate([step.rows for step in plan]) for seed, plan in plans.items()}
        return torch.from_numpy(np.stack([orders[head.seed] for head in heads])).to(self.labels.device)

    def _factor(self) -> float:
        return rate_factor(self.taken, self.steps, self.training.schedule, self.training.warmup)

    def _take_step(self, stack: _StackedHeads, rows: Tensor) -> tuple[list[float], list[float]]:
        """Take one step of every head.

        Args:
            rows: row indices, int64 (heads, rows).

        Returns:
            (mean loss of each head, norm of each head's gradients).
        """
        factor = self._factor()
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        logits = stack.forward(self.inputs[rows], _noise(stack.heads, self.taken, rows.shape[1], self.inputs))
        terms = self.objective.row_losses(logits.flatten(0, 1), self.labels[rows].flatten(0, 1))
        losses = terms.view(rows.shape).mean(dim=1)
        stack.backward(losses)
        norms = stack.clip(self.training.max_grad_norm)
        self.optimizer.step()
        return [float(loss) for loss in losses.tolist()], norms

    def _add_up(
        self,
        heads: Sequence[_GridHead],
        losses: Sequence[float],
        norms: Sequence[float],
        rows: int,
        position: tuple[int, int],
    ) -> None:
        """Add up losses and norms. A head whose loss is not finite gets a fault, which does not affect the others.

        Args:
            heads: the heads that train.
            losses, norms: of each head at this step.
            rows: rows of the step.
            position: epoch and step, from 0.
        """
        for head, loss, norm in zip(heads, losses, norms, strict=True):
            head.loss_sum += loss * rows
            head.norm_sum += norm if math.isfinite(norm) else 0.0
            if not math.isfinite(loss) and head.fault is None:
                head.fault = divergence_fault(*position, loss, head.rate * self._factor())

    def _close_epoch(self, head: _GridHead, epoch: int, steps: int, seconds: float) -> None:
        """Validate a head and record its epoch."""
        if head.fault is not None:
            return
        rows = len(self.labels)
        head.module.eval()
        entry = {
            "epoch": epoch + 1,
            "train_loss": head.loss_sum / rows,
            "gradient_norm": head.norm_sum / steps,
            "learning_rate": head.rate * self._factor(),
            "seconds": seconds,
            "rows_per_second": rows / seconds,
            **self.validate(head.module, epoch),
        }
        head.record(entry)
        with tracking.series(self._series_of(head)):
            tracking.note_epoch(self.taken, entry)

    def _note_step(self, heads: Sequence[_GridHead], losses: Sequence[float]) -> None:
        """Record the losses of a step, each under the name of its head."""
        if not tracking.is_recorded():
            return
        for head, loss in zip(heads, losses, strict=True):
            with tracking.series(self._series_of(head)):
                tracking.note_step(self.taken, loss, head.rate * self._factor())

    def _series_of(self, head: _GridHead) -> str:
        """Return the name of a head among those of the grid."""
        several = len({other.seed for other in self.heads}) > 1
        return f"rate-{head.rate:g}{f'-seed-{head.seed}' if several else ''}"

    def _say_epoch(self, heads: Sequence[_GridHead], epoch: int, seconds: float) -> None:
        """Log one line for all heads: the metric of each, with a star where it is the head's best so far."""
        metric, several = self.training.metric, len({head.seed for head in self.heads}) > 1
        scores = []
        for head in heads:
            if head.fault is None:
                star, seed = "*" if head.best_epoch == epoch + 1 else "", f" seed {head.seed}" if several else ""
                scores.append(f"{head.history[-1][metric]:.4f}{star} at {head.rate:g}{seed}")
        if scores:
            say(f"epoch {epoch + 1}/{self.training.epochs}  {metric} {', '.join(scores)}  {seconds:.1f} s")


def _grid_head(head: nn.Module, settings: HeadSettings) -> _GridHead:
    assert isinstance(head, nn.Sequential)
    training = settings.training
    head.requires_grad_(True)
    groups = parameter_groups(head, learning_rate=training.peak_rate, weight_decay=training.weight_decay)
    return _GridHead(head, settings, groups)


def _merge_groups(heads: Sequence[_GridHead]) -> list[dict[str, Any]]:
    """Return the optimizer groups of all heads, with groups of equal rate and decay merged: each costs a call."""
    merged: dict[tuple[float, float], dict[str, Any]] = {}
    for group in (group for head in heads for group in head.groups):
        known = merged.setdefault((group["peak"], group["weight_decay"]), group | {"params": []})
        known["params"] += group["params"]
    return list(merged.values())


def _noise(heads: Sequence[_GridHead], taken: int, rows: int, inputs: FeatureRows) -> Tensor | None:
    """Return what the dropout of each head multiplies its input with, (heads, rows, width), None without dropout.

    It is what the head would draw alone at this step, so heads of one seed and one dropout share the same noise.
    """
    if not any(head.dropout is not None and head.dropout.p for head in heads):
        return None
    drawn: dict[tuple[int, float], Tensor] = {}
    chosen = []
    for head in heads:
        assert head.dropout is not None
        kind = (head.seed, head.dropout.p)
        if kind not in drawn:
            rng.seed_step(head.seed, taken, 0)
            drawn[kind] = head.dropout(torch.ones(rows, inputs.values.shape[1], device=inputs.values.device))
        chosen.append(drawn[kind])
    return torch.stack(chosen)


def _count_batches(head: nn.Module, steps: int) -> None:
    """Advance BatchNorm's num_batches_tracked, which the stacked forward pass does not update."""
    for part in head.modules():
        if isinstance(part, nn.BatchNorm1d) and part.num_batches_tracked is not None:
            part.num_batches_tracked += steps


def _name_of(head: nn.Module, part: nn.Module) -> str:
    names: Iterator[str] = (name for name, module in head.named_modules() if module is part)
    return next(names)
