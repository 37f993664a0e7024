"""Heads trained together come out as heads trained alone: the plain version is `fit_head`, cell by cell."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fullbake.config.sections import HeadConfig, TrainingConfig
from fullbake.core import runtime
from fullbake.core.errors import DivergenceFault
from fullbake.evaluation.metrics import validation_scores
from fullbake.models.heads import build_head
from fullbake.training.frozen import FeatureRows, HeadSettings, LabeledFeatures, fit_head, head_logits
from fullbake.training.head_grid import train_heads
from fullbake.training.losses import make_training_loss

NAMES = ("a", "b", "c")
WIDTH = 12
METRIC = "neg_log_loss"
EXACT = ("epoch", "train_loss", "gradient_norm", "learning_rate", "validation_loss", METRIC, "best")


def featured(rows: int, seed: int, multi_label: bool = False) -> LabeledFeatures:
    """Rows of noise with some truth in the first columns."""
    random = np.random.default_rng(seed)
    values = random.standard_normal((rows, WIDTH)).astype(np.float32)
    scores = values[:, :3] + random.standard_normal((rows, 3))
    return LabeledFeatures(values, (scores > 0.5).astype(np.uint8) if multi_label else scores.argmax(axis=1))


def settings_of(kind: str, labels: np.ndarray, cell: dict[str, Any], **fields: Any) -> HeadSettings:
    own = dict(cell)
    head = HeadConfig(kind=kind, width=8, layers=2, l2=own.pop("l2", 0.01), dropout=own.pop("dropout", 0.0))  # type: ignore[arg-type]
    given = {"optimizer": "adam", "batch_size": 8, "epochs": 5, "metric": METRIC, "precision": "fp32"} | fields | own
    training = TrainingConfig(**given)
    return HeadSettings(
        head, training, OBJECTIVES.setdefault(str((labels.shape, fields)), make_training_loss(training, labels, NAMES))
    )


OBJECTIVES: dict[str, Any] = {}
CELLS: list[dict[str, Any]] = [
    {"learning_rate": 1e-3, "seed": 0},
    {"learning_rate": 1e-2, "seed": 0, "l2": 0.3},
    {"learning_rate": 1e-1, "seed": 1, "weight_decay": 0.1},
    {"learning_rate": 3e-2, "seed": 2, "l2": 0.0},
]


def new_head(kind: str, settings: HeadSettings) -> nn.Sequential:
    torch.manual_seed(settings.training.seed)
    head = settings.head
    return build_head(kind, WIDTH, 3, dropout=head.dropout, layers=head.layers, width=8).to(runtime.device())


def both(
    kind: str, cells: list[dict[str, Any]], dtype: torch.dtype = torch.float64, multi_label: bool = False, **fields: Any
) -> tuple[list[Any], list[Any]]:
    """(heads with their histories, trained together; the same trained alone)."""
    train, held = featured(61, 0, multi_label), featured(40, 1, multi_label)
    settings = [settings_of(kind, train.labels, cell, **fields) for cell in cells]

    def validate(module: nn.Module, _: int) -> dict[str, Any]:
        return validation_scores(head_logits(module, held), held.labels, METRIC)

    heads = [new_head(kind, own).to(dtype) for own in settings]
    alone = copy.deepcopy(heads)
    grown = train_heads(heads, train, validate, settings)
    histories = [fit_head(head, train, validate, own) for head, own in zip(alone, settings, strict=True)]
    return list(zip(heads, grown, strict=True)), list(zip(alone, histories, strict=True))


def assert_alike(together: list[Any], alone: list[Any], names: tuple[str, ...] = EXACT, rel: float = 1e-5) -> None:
    for (head, grown), (other, history) in zip(together, alone, strict=True):
        assert grown.fault is None
        assert not head.training
        for entry, expected in zip(grown.history, history, strict=True):
            assert entry.keys() == expected.keys()
            for name in names:
                assert entry[name] == pytest.approx(expected[name], rel=rel), name
        ours, theirs = head.state_dict(), other.state_dict()
        assert ours.keys() == theirs.keys()
        for name in ours if names == EXACT else ():
            torch.testing.assert_close(ours[name], theirs[name], rtol=1e-4, atol=1e-6, msg=name)


@pytest.fixture
def exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    """In float64. A bias under a batch norm has a true gradient of 0: in float32 Adam makes steps of what rounding left
    there, alone too, and the running mean that takes it off again lags behind."""
    monkeypatch.setattr(FeatureRows, "__getitem__", lambda rows, which: rows.values[rows.lines[which]].double())


@pytest.mark.parametrize("kind", ["linear", "mlp"])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"patience": 1},
        {"optimizer": "adamw", "schedule": "cosine", "gradient_accumulation": 2},
        {"max_grad_norm": 0.05},
        {"sampling": "balanced", "class_weights": "balanced"},
        {"loss": "focal"},
    ],
    ids=lambda fields: "-".join(fields) or "plain",
)
@pytest.mark.usefixtures("exactly")
def test_each_cell_is_what_it_is_alone(kind: str, fields: dict[str, Any]) -> None:
    assert_alike(*both(kind, CELLS, **fields))


@pytest.mark.parametrize("kind", ["linear", "mlp"])
@pytest.mark.usefixtures("exactly")
def test_many_labels_a_row(kind: str) -> None:
    assert_alike(*both(kind, CELLS, multi_label=True))


def test_dropout_draws_what_it_draws_alone() -> None:
    cells = [cell | {"dropout": share} for cell, share in zip(CELLS, (0.2, 0.2, 0.5, 0.0), strict=True)]
    together, alone = both("mlp", cells, torch.float32)
    assert_alike(together, alone, ("train_loss",), rel=1e-3)
    other, _ = both("mlp", CELLS, torch.float32)
    assert other[0][1].history[0]["train_loss"] != pytest.approx(alone[0][1][0]["train_loss"], rel=1e-3)


@pytest.mark.usefixtures("exactly")
def test_heads_that_stop_early_leave_the_others_as_they_are() -> None:
    cells = [{"learning_rate": rate, "seed": seed} for seed, rate in enumerate((0.9, 1e-3, 0.5, 1e-2))]
    together, alone = both("mlp", cells, patience=1, epochs=8)
    assert len({len(grown.history) for _, grown in together}) > 1
    assert_alike(together, alone)


def test_a_head_that_diverges_is_told_apart() -> None:
    train = featured(40, 0)
    train.values[7] = np.inf
    settings = [settings_of("linear", train.labels, cell, max_grad_norm=1.0) for cell in CELLS[:2]]
    heads = [new_head("linear", own) for own in settings]
    grown = train_heads(heads, train, lambda *_: {"validation_loss": 0.0, METRIC: 0.0}, settings)
    assert all(isinstance(one.fault, DivergenceFault) and not one.history for one in grown)
    with pytest.raises(DivergenceFault) as alone:
        fit_head(new_head("linear", settings[0]), train, lambda *_: {}, settings[0])
    assert str(alone.value) == str(grown[0].fault)


def test_heads_own_their_memory_afterwards() -> None:
    together, _ = both("mlp", CELLS, torch.float32)
    for head, _ in together:
        for tensor in (*head.parameters(), *head.buffers()):
            assert tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
            assert tensor.grad is None


def test_heads_of_one_grid_share_what_is_not_theirs() -> None:
    train = featured(30, 0)
    settings = [settings_of("linear", train.labels, CELLS[0]), settings_of("linear", train.labels, CELLS[1], epochs=2)]
    with pytest.raises(ValueError, match="epochs"):
        train_heads([new_head("linear", own) for own in settings], train, lambda *_: {}, settings)


def test_what_cannot_be_stacked_trains_in_turn() -> None:
    train = featured(30, 0)
    settings = [settings_of("linear", train.labels, cell) for cell in CELLS]
    heads = [nn.Sequential(nn.Linear(WIDTH, 4), nn.Tanh(), nn.Linear(4, 3)).to(runtime.device()) for _ in settings]
    grown = train_heads(heads, train, lambda *_: {"validation_loss": 0.0, METRIC: 0.0}, settings)
    assert [len(one.history) for one in grown] == [5] * 4
