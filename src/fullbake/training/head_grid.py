"""Many heads of one kind trained at once on the same features: a grid of rates, seeds and head settings.

A step of one small head is so little arithmetic that the calls around it take most of the time. Here the weights of all
heads stand in one array a layer, and a step is one batched product a layer for all of them. All else stays each head's
own: its rows (its seed's batch plan), its dropout (drawn from its seed and step, as if it were alone), rate, weight
decay, gradient norm, moments of Adam, best epoch and patience. So every head comes out as `freezing.fit_head` would
have trained it, up to the rounding of sums taken in another order. (What Adam makes of rounding can be large where the
true gradient is 0, as under a bias with batch norm above it: there no two ways of computing agree.)

The heads' own parameters are views of the arrays, so a head is scored, copied and saved as any other while it trains. A
head that stops early leaves the arrays at the end of the epoch. The price: there are no checkpoints on the way, a
killed grid starts again (it takes seconds to minutes); and what is no plain chain of dense layers, batch norm, ReLU and
dropout, or trains in mixed precision, trains in turn.
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

from fullbake.core import rng, runtime
from fullbake.core.console import bar, say
from fullbake.core.errors import DivergenceFault
from fullbake.models.encoder import parameter_groups
from fullbake.models.heads import output_layer
from fullbake.training.checkpoints import Checkpoints
from fullbake.training.frozen import FeatureRows, HeadSettings, LabeledFeatures, fit_head, head_plan
from fullbake.training.loop import ValidateFunction, describe_epoch, divergence_fault, make_optimizer, rate_factor

_CHAINED = (nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Dropout)

_OWN = ("learning_rate", "seed", "weight_decay")
"""Fields of the training section in which the heads of a grid may differ."""


@dataclass(frozen=True)
class TrainedHead:
    """What became of a head. history: an entry an epoch, as `loop.fit` gives it; `seconds` are the head's share of the
    grid's. fault: why it stopped before its end, None where it did not; such a head is left without use."""

    history: list[dict[str, Any]]
    fault: DivergenceFault | None = None


def train_heads(
    heads: Sequence[nn.Module],
    train: LabeledFeatures,
    validate: ValidateFunction,
    settings: Sequence[HeadSettings],
    checkpoints: Callable[[int], Checkpoints | None] = lambda _: None,
) -> list[TrainedHead]:
    """Train heads in place, each by its own settings; each is left in eval mode with its best epoch's weights.

    heads: built alike (`heads.build_head`), each drawn from its own seed. settings: one for each head, with one rate;
    they differ in rate, seed, weight decay, l2 and dropout alone (dropout is the head's own). validate: (head, epoch
    from 0) -> what chooses, as `freezing.train_head` has it. checkpoints: number of a head -> where it saves and goes
    on from, where heads train in turn.

    Raises ValueError where settings differ otherwise.
    """
    _check_alike(settings)
    device = runtime.device()
    for head in heads:
        head.to(device)
    if not _can_train_together(heads, settings[0]):
        return [
            _alone(head, train, validate, own, checkpoints(number))
            for number, (head, own) in enumerate(zip(heads, settings, strict=True))
        ]
    grid = _Grid(heads, train, validate, settings)
    grid.run()
    return [TrainedHead(cell.entries(), cell.fault) for cell in grid.cells]


def _alone(
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


def _check_alike(settings: Sequence[HeadSettings]) -> None:
    first = _common(settings[0])
    for own in settings[1:]:
        differing = sorted(name for name, value in _common(own).items() if value != first[name])
        if differing:
            raise ValueError(f"heads of one grid have to share {', '.join(differing)}")


def _common(settings: HeadSettings) -> dict[str, Any]:
    training = settings.training.model_dump(exclude=set(_OWN))
    return training | settings.head.model_dump(exclude={"l2", "dropout"}) | {"objective": settings.objective}


def _can_train_together(heads: Sequence[nn.Module], settings: HeadSettings) -> bool:
    chained = all(
        isinstance(head, nn.Sequential) and all(isinstance(part, _CHAINED) for part in head.children())
        for head in heads
    )
    plain = not runtime.uses_bf16(settings.training.precision) and settings.training.optimizer != "lbfgs"
    return len(heads) > 1 and chained and plain


@dataclass
class _GridHead:
    """A head in the grid and how it fares."""

    head: nn.Sequential
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
        """Its peak rate."""
        return self.settings.training.learning_rate[0]

    @property
    def seed(self) -> int:
        """Of its rows' order and its dropout."""
        return self.settings.training.seed

    @property
    def dropout(self) -> nn.Dropout | None:
        """What drops of its input."""
        return next((part for part in self.head.children() if isinstance(part, nn.Dropout)), None)

    def note(self, entry: dict[str, Any]) -> None:
        """Keep an epoch's entry, and its weights if they are the best."""
        self.history.append(entry)
        if entry[self.settings.training.metric] > self.best_metric:
            self.best_metric, self.best_epoch = entry[self.settings.training.metric], entry["epoch"]
            self.best_weights = {name: tensor.detach().clone() for name, tensor in self.head.state_dict().items()}

    def is_done(self, epoch: int) -> bool:
        """Whether it trains no further after this epoch (from 1)."""
        training = self.settings.training
        patient = training.patience is None or epoch - self.best_epoch < training.patience
        return self.fault is not None or epoch == training.epochs or not patient

    def close(self) -> None:
        """Give the head memory of its own, and its best weights."""
        for tensor in (*self.head.parameters(), *self.head.buffers()):
            tensor.grad, tensor.data = None, tensor.data.clone()
        if self.best_weights:
            self.head.load_state_dict(self.best_weights)
        self.head.eval()

    def entries(self) -> list[dict[str, Any]]:
        """The history, the chosen epoch marked."""
        return [entry | {"best": entry["epoch"] == self.best_epoch} for entry in self.history]


class _Dense(torch.autograd.Function):
    """A dense layer of each head. The gradient of the weights is written over the last one, not into new memory: at
    twelve heads of 384 x 384 that is a third of the backward pass."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """hidden: (heads, rows, in). weight: (heads, out, in). bias: (heads, out). Returns (heads, rows, out)."""
        ctx.save_for_backward(hidden, weight)
        ctx.into = weight.grad
        return torch.baddbmm(bias.unsqueeze(1), hidden, weight.transpose(1, 2))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, Tensor]:
        """gradients: of what `forward` gave."""
        hidden, weight = ctx.saved_tensors
        torch.bmm(gradients[0].transpose(1, 2), hidden, out=ctx.into)
        below = torch.bmm(gradients[0], weight) if ctx.needs_input_grad[0] else None
        return below, None, gradients[0].sum(dim=1)


class _StackedHeads:
    """The weights of heads, one array over all of them for each parameter and buffer; the heads' own are views."""

    def __init__(self, cells: Sequence[_GridHead]) -> None:
        self.cells, self.pattern = cells, cells[0].head
        heads = [cell.head for cell in cells]
        self.weights = {name: self._stacked(heads, name) for name, _ in self.pattern.named_parameters()}
        self.buffers = {name: self._joined(heads, name) for name, part in self.pattern.named_buffers() if part.ndim}
        self.output = f"{_name_of(self.pattern, output_layer(self.pattern))}.weight"
        self.l2: Tensor | None = None
        if cells[0].settings.head.kind == "mlp":
            amounts = [cell.settings.head.l2 for cell in cells]
            self.l2 = torch.tensor(amounts, device=self.weights[self.output].device).view(-1, 1, 1)

    def _stacked(self, heads: Sequence[nn.Module], name: str) -> Tensor:
        own = [head.get_parameter(name) for head in heads]
        whole = torch.stack([parameter.detach() for parameter in own]).requires_grad_()
        whole.grad = torch.zeros_like(whole)
        for number, parameter in enumerate(own):
            parameter.data, parameter.grad = whole.detach()[number], whole.grad[number]
        return whole

    def _joined(self, heads: Sequence[nn.Module], name: str) -> Tensor:
        own = [head.get_buffer(name) for head in heads]
        whole = torch.cat(own)
        for buffer, part in zip(own, whole.split(len(own[0])), strict=True):
            buffer.data = part
        return whole

    def forward(self, hidden: Tensor, noise: Tensor | None) -> Tensor:
        """Logits (heads, rows, classes) of features (heads, rows, width), in training. noise: what dropout multiplies
        its input with, of the same shape."""
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
        """Fill the gradients. losses: mean loss of each head's rows, (heads,), penalty left out."""
        for weight in self.weights.values():
            if weight.grad is not None and weight.ndim < 3:  # those of dense layers are written over
                weight.grad.zero_()
        losses.sum().backward()
        if self.l2 is not None:
            output = self.weights[self.output]
            assert output.grad is not None
            output.grad += output.detach() * (2 * self.l2)

    def clip(self, longest: float) -> list[float]:
        """Scale each head's gradients down to a norm of `longest`, as torch's clip_grad_norm_ does with a model's.
        Returns their norms before."""
        gradients = [weight.grad for weight in self.weights.values() if weight.grad is not None]
        squares = [torch.linalg.vector_norm(gradient.flatten(1), dim=1).square() for gradient in gradients]
        norms = torch.stack(squares).sum(dim=0).sqrt()
        scales = (longest / (norms + 1e-6)).clamp(max=1.0)
        if bool((scales < 1).any()):
            for gradient in gradients:
                gradient *= scales.view(-1, *[1] * (gradient.ndim - 1))
        return [float(norm) for norm in norms.tolist()]


class _Grid:
    """Heads that train together, and where they stand."""

    def __init__(
        self,
        heads: Sequence[nn.Module],
        train: LabeledFeatures,
        validate: ValidateFunction,
        settings: Sequence[HeadSettings],
    ) -> None:
        self.cells = [_grid_head(head, own) for head, own in zip(heads, settings, strict=True)]
        self.train, self.validate = train, validate
        self.inputs, self.labels = FeatureRows(train), torch.from_numpy(train.row_labels).to(runtime.device())
        self.training, self.objective = settings[0].training, settings[0].objective
        self.optimizer = make_optimizer(self.training, [group for cell in self.cells for group in cell.groups])
        for cell in self.cells:  # the optimizer's own: it fills in what a group leaves out
            cell.groups = [self.optimizer.param_groups.pop(0) | {"peak": cell.rate} for _ in cell.groups]
        self.taken, self.steps = 0, len(head_plan(train, settings[0], 0)) * self.training.epochs

    def run(self) -> None:
        """Train until every head is done."""
        training = list(self.cells)
        for epoch in range(self.training.epochs):
            self._train_epoch(_StackedHeads(training), epoch)
            for cell in training:
                if cell.is_done(epoch + 1):
                    cell.close()
            training = [cell for cell in training if not cell.is_done(epoch + 1)]
            if not training:
                return

    def _train_epoch(self, stack: _StackedHeads, epoch: int) -> None:
        started, orders = time.perf_counter(), self._orders(stack.cells, epoch)
        ends = np.cumsum([len(step.rows) for step in head_plan(self.train, stack.cells[0].settings, epoch)]).tolist()
        self.optimizer.param_groups = _joined(stack.cells)
        for cell in stack.cells:
            cell.loss_sum = cell.norm_sum = 0.0
            cell.head.train()
        with bar(f"epoch {epoch + 1}/{self.training.epochs}, {len(stack.cells)} heads", ends[-1], "rows") as advance:
            for step, (start, end) in enumerate(zip([0, *ends], ends, strict=False)):
                losses, norms = self._take_step(stack, orders[:, start:end])
                self._note(stack.cells, losses, norms, end - start, (epoch, step))
                self.taken += 1
                advance(end - start)
        seconds = max(time.perf_counter() - started, 1e-9) / len(stack.cells)
        for cell in stack.cells:
            _count_batches(cell.head, len(ends))
            self._close_epoch(cell, epoch, len(ends), seconds)

    def _orders(self, cells: Sequence[_GridHead], epoch: int) -> Tensor:
        """The rows of an epoch in the order of each head's steps, int64 (heads, rows)."""
        plans = {cell.seed: head_plan(self.train, cell.settings, epoch) for cell in cells}
        orders = {seed: np.concatenate([step.rows for step in plan]) for seed, plan in plans.items()}
        return torch.from_numpy(np.stack([orders[cell.seed] for cell in cells])).to(self.labels.device)

    def _factor(self) -> float:
        return rate_factor(self.taken, self.steps, self.training.schedule, self.training.warmup)

    def _take_step(self, stack: _StackedHeads, rows: Tensor) -> tuple[list[float], list[float]]:
        """One step of every head. rows: (heads, rows). Returns each one's mean loss, and norm of its gradients."""
        factor = self._factor()
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        logits = stack.forward(self.inputs[rows], _noise(stack.cells, self.taken, rows.shape[1], self.inputs))
        terms = self.objective.row_losses(logits.flatten(0, 1), self.labels[rows].flatten(0, 1))
        losses = terms.view(rows.shape).mean(dim=1)
        stack.backward(losses)
        norms = stack.clip(self.training.max_grad_norm)
        self.optimizer.step()
        return [float(loss) for loss in losses.tolist()], norms

    def _note(
        self,
        cells: Sequence[_GridHead],
        losses: Sequence[float],
        norms: Sequence[float],
        rows: int,
        place: tuple[int, int],
    ) -> None:
        """Add up losses and norms. A head whose loss is no number is out; no other one sees anything of it. place:
        epoch and step."""
        for cell, loss, norm in zip(cells, losses, norms, strict=True):
            cell.loss_sum += loss * rows
            cell.norm_sum += norm if math.isfinite(norm) else 0.0
            if not math.isfinite(loss) and cell.fault is None:
                cell.fault = divergence_fault(*place, loss, cell.rate * self._factor())

    def _close_epoch(self, cell: _GridHead, epoch: int, steps: int, seconds: float) -> None:
        """Validate a head and note its epoch."""
        if cell.fault is not None:
            return
        rows = len(self.labels)
        cell.head.eval()
        entry = {
            "epoch": epoch + 1,
            "train_loss": cell.loss_sum / rows,
            "gradient_norm": cell.norm_sum / steps,
            "learning_rate": cell.rate * self._factor(),
            "seconds": seconds,
            "rows_per_second": rows / seconds,
            **self.validate(cell.head, epoch),
        }
        cell.note(entry)
        told = describe_epoch(entry, self.training.epochs, self.training.metric)
        say(f"rate {cell.rate:g}, seed {cell.seed}: {told}{' *' if cell.best_epoch == epoch + 1 else ''}")


def _grid_head(head: nn.Module, settings: HeadSettings) -> _GridHead:
    assert isinstance(head, nn.Sequential)
    training = settings.training
    head.requires_grad_(True)
    groups = parameter_groups(head, learning_rate=training.learning_rate[0], weight_decay=training.weight_decay)
    return _GridHead(head, settings, groups)


def _joined(cells: Sequence[_GridHead]) -> list[dict[str, Any]]:
    """The optimizer groups of all heads, those of one rate and decay as one: each costs a call."""
    joined: dict[tuple[float, float], dict[str, Any]] = {}
    for group in (group for cell in cells for group in cell.groups):
        known = joined.setdefault((group["peak"], group["weight_decay"]), group | {"params": []})
        known["params"] += group["params"]
    return list(joined.values())


def _noise(cells: Sequence[_GridHead], taken: int, rows: int, inputs: FeatureRows) -> Tensor | None:
    """What the dropout of each head multiplies its input with, (heads, rows, width): what it would draw alone at this
    step. Heads of one seed and one share draw the same. None where nothing is dropped."""
    if not any(cell.dropout is not None and cell.dropout.p for cell in cells):
        return None
    drawn: dict[tuple[int, float], Tensor] = {}
    chosen = []
    for cell in cells:
        assert cell.dropout is not None
        kind = (cell.seed, cell.dropout.p)
        if kind not in drawn:
            rng.seed_step(cell.seed, taken, 0)
            drawn[kind] = cell.dropout(torch.ones(rows, inputs.values.shape[1], device=inputs.values.device))
        chosen.append(drawn[kind])
    return torch.stack(chosen)


def _count_batches(head: nn.Module, steps: int) -> None:
    """What batch norm counts by itself where it runs by itself."""
    for part in head.modules():
        if isinstance(part, nn.BatchNorm1d) and part.num_batches_tracked is not None:
            part.num_batches_tracked += steps


def _name_of(head: nn.Module, part: nn.Module) -> str:
    names: Iterator[str] = (name for name, module in head.named_modules() if module is part)
    return next(names)
