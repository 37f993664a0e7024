"""The loop does what a plain one does, resumes its position, and keeps the best epoch."""

import math
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fullbake.config.recipe import Recipe
from fullbake.config.sections import TrainingConfig
from fullbake.core import stopping
from fullbake.core.errors import DeadlinePassed, DivergenceFault, Interrupted
from fullbake.models.batching import Step
from fullbake.training.checkpoints import CheckpointInterval, Checkpoints
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


@pytest.mark.parametrize("longest", [0.1, None])
def test_it_trains_as_a_plain_loop_does(longest: float | None) -> None:
    """The reference: AdamW, clipping at 0.1 or none, warm-up and linear decay, the mean loss of each batch."""
    module, plain = linear(), linear()
    history = fit(module, work(module), config(epochs=2, warmup=0.5, max_grad_norm=longest))
    optimizer = torch.optim.AdamW(plain.parameters(), lr=0.1, weight_decay=0.0)
    for step in range(6):
        optimizer.param_groups[0]["lr"] = 0.1 * rate_factor(step, 6, "linear", 0.5)
        rows = plan(1)[step % 3].rows
        cross_entropy(plain(INPUTS[rows]), LABELS[rows]).backward()
        assert nn.utils.clip_grad_norm_(plain.parameters(), longest or math.inf) > 0.1
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


# Stopping early


def passes_after(calls: int) -> Any:
    """Return a deadline that has passed from its call number `calls` on."""
    seen: list[int] = []
    return lambda: seen.append(1) or len(seen) > calls


@pytest.mark.parametrize("steps", range(2, 8))
def test_a_deadline_keeps_the_best_weights_that_were_validated(steps: int) -> None:
    """An epoch has three steps; the deadline is asked after each step, also after the one that ends an epoch."""
    module, seen = linear(), []

    def validate(module: nn.Module, _: int) -> dict[str, float]:
        seen.append(module.weight.detach().clone())
        return validate_loss(module)

    with stopping.deadline(passes_after(steps)):
        history = fit(module, work(module, validate=validate), config(epochs=3))
    assert len(history) == (steps + 1) // 3
    assert [entry for entry in history if "stopped" in entry] == history[-1:]
    assert f"step {steps + 1} of 9" in history[-1]["stopped"]
    assert torch.equal(module.weight, seen[len(history) - 1])
    assert not module.training


def test_a_deadline_before_the_first_validation_has_no_result() -> None:
    module = linear()
    with stopping.deadline(passes_after(1)), pytest.raises(DeadlinePassed, match="step 2 of 6"):
        fit(module, work(module), config(epochs=2))


def test_a_deadline_after_the_last_step_changes_nothing() -> None:
    module, late = linear(), linear()
    history = fit(module, work(module), config(epochs=1))
    with stopping.deadline(passes_after(2)):
        assert len(fit(late, work(late), config(epochs=1))) == len(history)
    assert torch.equal(module.weight, late.weight)


def test_a_deadline_within_validation_keeps_the_earlier_epoch() -> None:
    module, late = linear(), []

    def validate(module: nn.Module, epoch: int) -> dict[str, float]:
        if epoch == 1:
            late.append(True)
        stopping.check()
        return validate_loss(module)

    with stopping.deadline(lambda: bool(late)):
        history = fit(module, work(module, validate=validate), config(epochs=3))
    assert [entry["epoch"] for entry in history] == [1]
    assert "step 6 of 9" in history[0]["stopped"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("epoch", [0, 1])
def test_a_signal_within_validation_saves_and_the_next_call_gives_the_same_bits(
    tmp_path: Path, number: int, epoch: int
) -> None:
    """Validation is left at its next batch; the resumed run repeats it and takes no step twice."""
    whole, stopped = linear(), linear()
    expected = fit(whole, work(whole), config(epochs=3))
    batches: list[int] = []

    def validate(module: nn.Module, current: int) -> dict[str, float]:
        if current == epoch:
            os.kill(os.getpid(), number)
        for batch in range(9):
            batches.append(batch)
            stopping.check()
        return validate_loss(module)

    checkpoints = Checkpoints(tmp_path, CheckpointInterval(steps=100), "run")
    with pytest.raises(Interrupted) as caught:
        fit(stopped, work(stopped, validate=validate), config(epochs=3), checkpoints)
    assert (caught.value.signal, caught.value.step) == (number, 3 * (epoch + 1))
    assert caught.value.saved == str(tmp_path)
    assert len(batches) == 9 * epoch + 1
    resumed, counted = linear(), []

    def step(*given: Any) -> Iterator[Tensor]:
        counted.append(1)
        return step_loss(*given)

    history = fit(resumed, replace(work(resumed), loss_fn=step), config(epochs=3), checkpoints)
    assert len(counted) == 9 - 3 * (epoch + 1)
    assert torch.equal(resumed.weight, whole.weight)
    timed = ("seconds", "rows_per_second", "tokens_per_second")
    for entry, other in zip(history, expected, strict=True):
        assert {**entry, **dict.fromkeys(timed)} == {**other, **dict.fromkeys(timed)}


def test_a_training_that_was_stopped_at_its_deadline_resumes(tmp_path: Path) -> None:
    whole, resumed = linear(), linear()
    fit(whole, work(whole), config(epochs=3))
    checkpoints = Checkpoints(tmp_path, CheckpointInterval(steps=100), "run")
    with stopping.deadline(passes_after(1)), pytest.raises(DeadlinePassed):
        fit(resumed, work(resumed), config(epochs=3), checkpoints)
    resumed = linear()
    with stopping.deadline(passes_after(3)):
        assert fit(resumed, work(resumed), config(epochs=3), checkpoints)[-1]["stopped"]
    resumed = linear()
    history = fit(resumed, work(resumed), config(epochs=3), checkpoints)
    assert torch.equal(resumed.weight, whole.weight)
    assert len(history) == 3


def test_the_speed_is_that_of_the_fastest_stretch_in_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of three steps is a stretch: 80, 20 and 8 tokens in 2, 1 and 4 seconds. 108 tokens in 24 rows."""
    module, tokens, now = linear(), (80, 20, 8), [0.0]
    taken = iter([0, 2, 0, 1, 0, 4])

    def tick() -> float:
        now[0] += next(taken)
        return now[0]

    monkeypatch.setattr("fullbake.training.loop.time.perf_counter", tick)
    counted = replace(work(module), tokens=108, step_tokens=lambda step: tokens[int(step.rows[0]) // 8])
    (entry,) = fit(module, counted, config(epochs=1))
    assert entry["tokens_per_second"] == pytest.approx(40)
    assert entry["rows_per_second"] == pytest.approx(40 * 24 / 108)
    assert entry["seconds"] == 7
