"""The time to train 12 heads together, compared with one head and with 12 heads one after another.

    python benchmarks/head_grids.py [ROWS]

The features are random numbers of width 384 with 2 classes, because the time does not depend on their values.
Validation uses a fifth as many rows, and macro-F1. The heads have 4 rates x 3 seeds; `mlp` heads have 2 blocks of width
384 and a dropout of 0.15.
"""

import copy
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from machine import store_result
from torch import nn

from fullbake.config.sections import HeadConfig, TrainingConfig
from fullbake.evaluation.metrics import validation_scores
from fullbake.models.heads import build_head
from fullbake.training.frozen import HeadSettings, LabeledFeatures, fit_head, head_logits
from fullbake.training.head_grid import train_heads
from fullbake.training.losses import make_training_loss

WIDTH = 384
RATES, SEEDS = (1e-4, 3e-4, 1e-3, 3e-3), (0, 1, 2)
ROUNDS, EPOCHS = 5, 2


def main(rows: int) -> None:
    rows_of_table = [measured(kind, batch, rows) for kind in ("linear", "mlp") for batch in (16, 128)]
    store_result("head_grids", rows_of_table, data=f"{rows:,} rows of random features, {WIDTH} wide", rounds=ROUNDS)


def measured(kind: str, batch: int, rows: int) -> dict[str, Any]:
    """Return the median times over all rounds; every round times the three procedures."""
    train, validate = noise(rows, 0), validation(noise(rows // 5, 1))
    settings = [settings_of(kind, batch, rate, seed, train) for rate in RATES for seed in SEEDS]
    heads = [new_head(kind, own) for own in settings]
    procedures: dict[str, Callable[[list[nn.Sequential]], object]] = {
        "one": lambda new: fit_head(new[0], train, validate, settings[0]),
        "in_turn": lambda new: [fit_head(head, train, validate, own) for head, own in zip(new, settings, strict=True)],
        "together": lambda new: train_heads(new, train, validate, settings),
    }
    times = [{name: timed(procedure, heads) for name, procedure in procedures.items()} for _ in range(ROUNDS)]
    medians = {name: sorted(round_[name] for round_ in times)[ROUNDS // 2] for name in procedures}
    row = {"head": kind, "batch_size": batch} | {name: round(seconds, 3) for name, seconds in medians.items()}
    row |= {"over_one": round(medians["together"] / medians["one"], 2)}
    row |= {"faster_than_in_turn": round(medians["in_turn"] / medians["together"], 2)}
    print(row)
    return row


def timed(procedure: Callable[[list[nn.Sequential]], object], heads: list[nn.Sequential]) -> float:
    """Return the seconds of processor time of this process, so that other processes do not count."""
    new = copy.deepcopy(heads)
    started = time.process_time()
    procedure(new)
    return time.process_time() - started


def noise(rows: int, seed: int) -> LabeledFeatures:
    random = np.random.default_rng(seed)
    return LabeledFeatures(random.standard_normal((rows, WIDTH)).astype(np.float32), random.integers(0, 2, rows))


def validation(rows: LabeledFeatures) -> Callable[[nn.Module, int], dict[str, Any]]:
    return lambda head, _: validation_scores(head_logits(head, rows), rows.labels, "f1_macro")


def settings_of(kind: str, batch: int, rate: float, seed: int, train: LabeledFeatures) -> HeadSettings:
    head = HeadConfig(kind=kind, width=WIDTH)  # type: ignore[arg-type]
    training = TrainingConfig(optimizer="adam", learning_rate=(rate,), seed=seed, batch_size=batch, epochs=EPOCHS)
    return HeadSettings(
        head, training, LOSSES.setdefault(len(train.labels), make_training_loss(training, train.labels, ("a", "b")))
    )


LOSSES: dict[int, Any] = {}


def new_head(kind: str, settings: HeadSettings) -> nn.Sequential:
    torch.manual_seed(settings.training.seed)
    return build_head(kind, WIDTH, 2, dropout=settings.head.dropout, layers=settings.head.layers, width=WIDTH)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
