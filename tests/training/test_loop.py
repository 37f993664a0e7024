"""The loop does what a plain one does, resumes its position, and keeps the best epoch."""

import math
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fullbake.config.recipe import Recipe
from fullbake.config.sections import TrainingConfig
from fullbake.core.errors import DivergenceFault
from fullbake.models.batching import Step
from fullbake.training.loop import TrainingWork, fit, rate_factor

INPUTS = torch.randn(24, 5, generator=torch.Generator().manual_seed(0))
LABELS = (INPUTS[:, 0] > 0).long()


def config(**overrides: object) -> TrainingConfig:
    return Recipe.load("finetune", base="demo", **overrides).training


def plan(micro_batches: int) -> list[Step]:
    """Three steps of eight rows, each in this number of micro-batches."""
    return [Step(tuple(np.split(np.arange(8) + 8 * step, micro_batches))) for step in range(3)]


def step_loss(module: nn.Module, step: Step, share: Step) -> Iterator[Tensor]:
    for rows in share.micro_batches:
        yield cross_entropy(module(INPUTS[rows]), LABELS[rows], reduction="sum") / len(step.rows)


def validate_loss(module: nn.Module, _: int = 0) -> dict[str, float]:
    with torch.no_grad():
        loss = cross_entropy(module(INPUTS), LABELS).item()
    return {"validation_loss": loss, "f1_macro": -loss}


def work(module: nn.Module, micro_batches: int = 1, rate: float = 0.1, validate=validate_loss) -> TrainingWork:
    groups = [{"params": list(module.parameters()), "lr": rate, "weight_decay": 0.0}]
    return TrainingWork(lambda epoch: plan(micro_batches), step_loss, validate, groups, 24, 240)


def linear() -> nn.Linear:
    torch.manual_seed(1)
    return nn.Linear(5, 2)


def test_training_lowers_the_loss_and_returns_its_history() -> None:
    module = linear()
    before = validate_loss(module)["validation_loss"]
    history = fit(module, work(module), config(epochs=4))
    assert [entry["epoch"] for entry in history] == [1, 2, 3, 4]
    assert validate_loss(module)["validation_loss"] < before
    assert not module.training
    assert all({"train_loss", "learning_rate", "tokens_per_second", "seconds"} <= set(entry) for entry in history)


def test_micro_batches_change_only_rounding() -> None:
    whole, divided = linear(), linear()
    fit(whole, work(whole, micro_batches=1), config())
    fit(divided, work(divided, micro_batches=4), config())
    torch.testing.assert_close(whole.weight, divided.weight, rtol=1e-5, atol=1e-6)


def test_it_trains_as_a_plain_loop_does() -> None:
    """The reference: AdamW, clipping at 0.1, warm-up and linear decay, the mean loss of each batch."""
    module, plain = linear(), linear()
    history = fit(module, work(module), config(epochs=2, warmup=0.5, max_grad_norm=0.1))
    optimizer = torch.optim.AdamW(plain.parameters(), lr=0.1, weight_decay=0.0)
    for step in range(6):
        optimizer.param_groups[0]["lr"] = 0.1 * rate_factor(step, 6, "linear", 0.5)
        rows = plan(1)[step % 3].rows
        cross_entropy(plain(INPUTS[rows]), LABELS[rows]).backward()
        assert nn.utils.clip_grad_norm_(plain.parameters(), 0.1) > 0.1
        optimizer.step()
        optimizer.zero_grad()
    assert history[-1]["best"]
    torch.testing.assert_close(module.weight, plain.weight, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_precision_is_that_of_the_forward_pass_not_of_the_weights(precision: str, dtype: torch.dtype) -> None:
    module, seen = linear(), set()
    module.register_forward_hook(lambda module, _, output: seen.add(output.dtype) if module.training else None)
    fit(module, work(module), config(epochs=1, precision=precision))
    assert seen == {dtype}
    assert module.weight.dtype == torch.float32


def test_the_weights_of_the_best_epoch_are_kept() -> None:
    """Epoch 2 has the best score: the module has its weights at the end."""
    module, seen = linear(), []

    def validate(module: nn.Module, _: int) -> dict[str, float]:
        seen.append(module.weight.detach().clone())
        return {"validation_loss": 1.0, "f1_macro": [0.1, 0.9, 0.5][len(seen) - 1]}

    history = fit(module, work(module, validate=validate), config(epochs=3))
    assert torch.equal(module.weight, seen[1])
    assert not torch.equal(seen[1], seen[2])
    assert [entry["best"] for entry in history] == [False, True, False]


def test_patience_stops_training() -> None:
    module = linear()
    flat = work(module, validate=lambda module, _: {"validation_loss": 1.0, "f1_macro": 0.5})
    assert len(fit(module, flat, config(epochs=9, patience=2))) == 3


def test_a_loss_that_is_not_finite_is_reported() -> None:
    module = linear()
    with torch.no_grad():
        module.weight[0, 0] = math.nan
    with pytest.raises(DivergenceFault, match=r"epoch 1, step 1.*finite"):
        fit(module, work(module), config())


def test_penalty_is_added_to_the_mean_loss() -> None:
    free, penalized = linear(), linear()
    fit(free, work(free), config(epochs=5))
    base = work(penalized)
    fit(
        penalized,
        TrainingWork(
            base.plan, base.loss_fn, base.validate, base.groups, 24, 240, lambda m: 5 * m.weight.square().sum()
        ),
        config(epochs=5),
    )
    assert penalized.weight.norm() < 0.7 * free.weight.norm()


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_the_rate_rises_then_follows_its_schedule(schedule: str) -> None:
    factors = [rate_factor(step, 100, schedule, 0.1) for step in range(101)]
    assert all(low < high for low, high in pairwise(factors[:10]))
    assert factors[10] == 1
    assert all(high >= low for high, low in pairwise(factors[10:]))
    assert factors[100] == (1 if schedule == "constant" else pytest.approx(0, abs=1e-9))


def test_without_warmup_the_rate_starts_at_its_peak() -> None:
    assert rate_factor(0, 10, "linear", 0) == 1
