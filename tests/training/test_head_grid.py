"""Heads that train together end as heads that train alone: the reference is `fit_head`, head by head."""

import copy
import logging
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fullbake.config.sections import HeadConfig, TrainingConfig
from fullbake.core import runtime, stopping
from fullbake.core.errors import DeadlinePassed, DivergenceFault
from fullbake.evaluation.metrics import validation_scores
from fullbake.models.heads import build_head
from fullbake.training.frozen import HeadSettings, LabeledFeatures, fit_head, head_logits
from fullbake.training.head_grid import train_heads
from fullbake.training.losses import make_training_loss

NAMES = ("a", "b", "c")
WIDTH = 12
METRIC = "neg_log_loss"
EXACT = ("epoch", "train_loss", "gradient_norm", "learning_rate", "validation_loss", METRIC, "best")


def labeled_noise(
    rows: int, seed: int, multi_label: bool = False, dtype: type[np.floating[Any]] = np.float32
) -> LabeledFeatures:
    """Rows of noise whose labels depend on the first columns."""
    random = np.random.default_rng(seed)
    values = random.standard_normal((rows, WIDTH)).astype(np.float32)
    scores = values[:, :3] + random.standard_normal((rows, 3))
    labels = (scores > 0.5).astype(np.uint8) if multi_label else scores.argmax(axis=1)
    return LabeledFeatures(values.astype(dtype), labels)


def settings_of(kind: str, labels: np.ndarray, changes: dict[str, Any], **fields: Any) -> HeadSettings:
    own = dict(changes)
    head = HeadConfig(kind=kind, width=8, layers=2, l2=own.pop("l2", 0.01), dropout=own.pop("dropout", 0.0))  # type: ignore[arg-type]
    given = {"optimizer": "adam", "batch_size": 8, "epochs": 5, "metric": METRIC, "precision": "fp32"} | fields | own
    training = TrainingConfig(**given)
    return HeadSettings(
        head, training, OBJECTIVES.setdefault(str((labels.shape, fields)), make_training_loss(training, labels, NAMES))
    )


OBJECTIVES: dict[str, Any] = {}
GRID: list[dict[str, Any]] = [
    {"learning_rate": 1e-3, "seed": 0},
    {"learning_rate": 1e-2, "seed": 0, "l2": 0.3},
    {"learning_rate": 1e-1, "seed": 1, "weight_decay": 0.1},
    {"learning_rate": 3e-2, "seed": 2, "l2": 0.0},
]


def new_head(kind: str, settings: HeadSettings) -> nn.Sequential:
    torch.manual_seed(settings.training.seed)
    head = settings.head
    return build_head(kind, WIDTH, 3, dropout=head.dropout, layers=head.layers, width=8).to(runtime.device())


def together_and_alone(
    kind: str, grid: list[dict[str, Any]], dtype: torch.dtype = torch.float64, multi_label: bool = False, **fields: Any
) -> tuple[list[Any], list[Any]]:
    """Train heads together, and copies of them one by one. Return both with their histories.

    By default in float64: a bias below a batch norm has a true gradient of 0, but in float32 Adam takes steps along
    what rounding leaves of it, also if a head trains alone, and the running mean that cancels them lags behind.
    """
    numbers: type[np.floating[Any]] = np.float64 if dtype == torch.float64 else np.float32
    train, held = (labeled_noise(rows, seed, multi_label, numbers) for seed, rows in enumerate((61, 40)))
    settings = [settings_of(kind, train.labels, changes, **fields) for changes in grid]

    def validate(module: nn.Module, _: int) -> dict[str, Any]:
        return validation_scores(head_logits(module, held), held.labels, METRIC)

    heads = [new_head(kind, own).to(dtype) for own in settings]
    alone = copy.deepcopy(heads)
    trained = train_heads(heads, train, validate, settings)
    histories = [fit_head(head, train, validate, own) for head, own in zip(alone, settings, strict=True)]
    return list(zip(heads, trained, strict=True)), list(zip(alone, histories, strict=True))


def assert_alike(together: list[Any], alone: list[Any], names: tuple[str, ...] = EXACT, rel: float = 1e-5) -> None:
    for (head, trained), (other, history) in zip(together, alone, strict=True):
        assert trained.fault is None
        assert not head.training
        for entry, expected in zip(trained.history, history, strict=True):
            assert entry.keys() == expected.keys()
            for name in names:
                assert entry[name] == pytest.approx(expected[name], rel=rel), name
        ours, theirs = head.state_dict(), other.state_dict()
        assert ours.keys() == theirs.keys()
        for name in ours if names == EXACT else ():
            torch.testing.assert_close(ours[name], theirs[name], rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("kind", ["linear", "mlp"])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"patience": 1},
        {"optimizer": "adamw", "schedule": "cosine", "gradient_accumulation": 2},
        {"max_grad_norm": 0.05},
        {"max_grad_norm": None},
        {"sampling": "balanced", "class_weights": "balanced"},
        {"loss": "focal"},
    ],
    ids=lambda fields: "-".join(fields) or "plain",
)
def test_each_head_is_what_it_is_alone(kind: str, fields: dict[str, Any]) -> None:
    assert_alike(*together_and_alone(kind, GRID, **fields))


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_heads_for_many_labels_per_row(kind: str) -> None:
    assert_alike(*together_and_alone(kind, GRID, multi_label=True))


def test_dropout_is_what_it_is_alone() -> None:
    grid = [changes | {"dropout": share} for changes, share in zip(GRID, (0.2, 0.2, 0.5, 0.0), strict=True)]
    together, alone = together_and_alone("mlp", grid, torch.float32)
    assert_alike(together, alone, ("train_loss",), rel=1e-3)
    other, _ = together_and_alone("mlp", GRID, torch.float32)
    assert other[0][1].history[0]["train_loss"] != pytest.approx(alone[0][1][0]["train_loss"], rel=1e-3)


def test_heads_that_stop_early_leave_the_others_as_they_are() -> None:
    grid = [{"learning_rate": rate, "seed": seed} for seed, rate in enumerate((0.9, 1e-3, 0.5, 1e-2))]
    together, alone = together_and_alone("mlp", grid, patience=1, epochs=8)
    assert len({len(trained.history) for _, trained in together}) > 1
    assert_alike(together, alone)


def test_a_head_that_diverges_ends_with_a_fault() -> None:
    train = labeled_noise(40, 0)
    train.values[7] = np.inf
    settings = [settings_of("linear", train.labels, changes, max_grad_norm=1.0) for changes in GRID[:2]]
    heads = [new_head("linear", own) for own in settings]
    trained = train_heads(heads, train, lambda *_: {"validation_loss": 0.0, METRIC: 0.0}, settings)
    assert all(isinstance(one.fault, DivergenceFault) and not one.history for one in trained)
    with pytest.raises(DivergenceFault) as alone:
        fit_head(new_head("linear", settings[0]), train, lambda *_: {}, settings[0])
    assert str(alone.value) == str(trained[0].fault)


def test_heads_own_their_memory_afterwards() -> None:
    together, _ = together_and_alone("mlp", GRID, torch.float32)
    for head, _ in together:
        for tensor in (*head.parameters(), *head.buffers()):
            assert tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
            assert tensor.grad is None


def test_settings_that_must_agree_in_a_grid_are_checked() -> None:
    train = labeled_noise(30, 0)
    settings = [settings_of("linear", train.labels, GRID[0]), settings_of("linear", train.labels, GRID[1], epochs=2)]
    with pytest.raises(ValueError, match="epochs"):
        train_heads([new_head("linear", own) for own in settings], train, lambda *_: {}, settings)


def test_heads_that_cannot_be_stacked_train_one_after_another() -> None:
    train = labeled_noise(30, 0)
    settings = [settings_of("linear", train.labels, changes) for changes in GRID]
    heads = [nn.Sequential(nn.Linear(WIDTH, 4), nn.Tanh(), nn.Linear(4, 3)).to(runtime.device()) for _ in settings]
    trained = train_heads(heads, train, lambda *_: {"validation_loss": 0.0, METRIC: 0.0}, settings)
    assert [len(one.history) for one in trained] == [5] * 4


def test_without_clipping_gradients_are_as_they_are() -> None:
    """Clipping at a norm that no gradient reaches changes nothing either; a lower one does."""
    heads = [together_and_alone("mlp", GRID, max_grad_norm=longest)[0] for longest in (None, 1e9, 0.05)]
    free, high, low = ([head.output.weight for head, _ in trained] for trained in heads)
    assert all(torch.equal(one, other) for one, other in zip(free, high, strict=True))
    assert not any(torch.equal(one, other) for one, other in zip(free, low, strict=True))


@pytest.mark.parametrize("steps", [9, 12])
def test_at_the_deadline_heads_keep_the_best_weights_that_were_validated(steps: int) -> None:
    """An epoch has 8 steps."""
    train = labeled_noise(61, 0)
    settings = [settings_of("mlp", train.labels, changes) for changes in GRID]
    heads, seen = [new_head("mlp", own) for own in settings], []

    def validate(module: nn.Module, _: int) -> dict[str, Any]:
        seen.append(module.output.weight.detach().clone())  # type: ignore[union-attr, operator]
        return {"validation_loss": 0.0, METRIC: 0.0}

    calls: list[int] = []
    with stopping.deadline(lambda: calls.append(1) or len(calls) > steps):  # type: ignore[func-returns-value]
        trained = train_heads(heads, train, validate, settings)
    for head, one, weight in zip(heads, trained, seen, strict=True):
        assert torch.equal(head.output.weight, weight)  # type: ignore[arg-type]
        assert [entry["stopped"] for entry in one.history] == [f"the time was up at step {steps} of 40"]
        assert not head.training
    with stopping.deadline(lambda: True), pytest.raises(DeadlinePassed, match="before the first validation"):
        train_heads([new_head("mlp", own) for own in settings], train, validate, settings)


def test_bits_do_not_depend_on_the_number_of_threads() -> None:
    """Several threads would add up a product of this size in another order."""
    random = np.random.default_rng(0)
    values = random.standard_normal((400, 256)).astype(np.float32)
    train = LabeledFeatures(values, (values[:, :3] + random.standard_normal((400, 3))).argmax(axis=1))
    settings = [settings_of("mlp", train.labels, changes, batch_size=128, epochs=2) for changes in GRID]

    def trained(threads: int) -> list[torch.Tensor]:
        torch.manual_seed(0)
        heads = [build_head("mlp", 256, 3, dropout=0.1, layers=2, width=256).to(runtime.device()) for _ in settings]
        runtime.set_threads(threads)
        train_heads(
            heads, train, lambda head, _: validation_scores(head_logits(head, train), train.labels, METRIC), settings
        )
        return [tensor for head in heads for tensor in head.state_dict().values()]

    before = runtime.threads()
    try:
        assert all(torch.equal(one, two) for one, two in zip(trained(1), trained(2), strict=True))
        assert runtime.threads() == 2
    finally:
        runtime.set_threads(before)


def test_an_epoch_of_all_heads_is_one_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    train = labeled_noise(30, 0)
    settings = [settings_of("linear", train.labels, {"learning_rate": rate}, epochs=2) for rate in (1e-2, 1e-3)]
    scores = iter([0.5, 0.25, 0.4, 0.75])
    with caplog.at_level(logging.INFO):
        heads = [new_head("linear", own) for own in settings]
        train_heads(heads, train, lambda *_: {"validation_loss": 0.0, METRIC: next(scores)}, settings)
    first, second = (line for line in caplog.text.splitlines() if "epoch" in line)
    assert f"epoch 1/2  {METRIC} 0.5000* at 0.01, 0.2500* at 0.001" in first
    assert f"epoch 2/2  {METRIC} 0.4000 at 0.01, 0.7500* at 0.001" in second
