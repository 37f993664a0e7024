"""How long 12 heads take that train together, against one head, and against the 12 one after another.

    python benchmarks/head_grids.py [ROWS]

Features are random numbers, 384 wide, of 2 classes: what is timed does not look at them. A fifth of the rows as many
again validates, by macro-F1. 4 rates x 3 seeds; `mlp` heads have 2 blocks of 384 and drop 0.15 of their input.
"""

import copy
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from machine import keep
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
    found = [measured(kind, batch, rows) for kind in ("linear", "mlp") for batch in (16, 128)]
    keep("head_grids", found, data=f"{rows:,} rows of random features, {WIDTH} wide", rounds=ROUNDS)


def measured(kind: str, batch: int, rows: int) -> dict[str, Any]:
    """The medians of all rounds, the three ways in turn in each."""
    train, validate = noise(rows, 0), validation(noise(rows // 5, 1))
    settings = [settings_of(kind, batch, rate, seed, train) for rate in RATES for seed in SEEDS]
    heads = [new_head(kind, own) for own in settings]
    ways: dict[str, Callable[[list[nn.Sequential]], object]] = {
        "one": lambda new: fit_head(new[0], train, validate, settings[0]),
        "in_turn": lambda new: [fit_head(head, train, validate, own) for head, own in zip(new, settings, strict=True)],
        "together": lambda new: train_heads(new, train, validate, settings),
    }
    times = [{name: timed(way, heads) for name, way in ways.items()} for _ in range(ROUNDS)]
    medians = {name: sorted(round_[name] for round_ in times)[ROUNDS // 2] for name in ways}
    row = {"head": kind, "batch_size": batch} | {name: round(seconds, 3) for name, seconds in medians.items()}
    row |= {"over_one": round(medians["together"] / medians["one"], 2)}
    row |= {"faster_than_in_turn": round(medians["in_turn"] / medians["together"], 2)}
    print(row)
    return row


def timed(way: Callable[[list[nn.Sequential]], object], heads: list[nn.Sequential]) -> float:
    """Seconds of processor time of this process: other processes take turns with it, and do not count."""
    new = copy.deepcopy(heads)
    started = time.process_time()
    way(new)
    return time.process_time() - started


def noise(rows: int, seed: int) -> LabeledFeatures:
    random = np.random.default_rng(seed)
    return LabeledFeatures(random.standard_normal((rows, WIDTH)).astype(np.float32), random.integers(0, 2, rows))


def validation(held: LabeledFeatures) -> Callable[[nn.Module, int], dict[str, Any]]:
    return lambda head, _: validation_scores(head_logits(head, held), held.labels, "f1_macro")


def settings_of(kind: str, batch: int, rate: float, seed: int, train: LabeledFeatures) -> HeadSettings:
    head = HeadConfig(kind=kind, width=WIDTH)  # type: ignore[arg-type]
    training = TrainingConfig(optimizer="adam", learning_rate=(rate,), seed=seed, batch_size=batch, epochs=EPOCHS)
    return HeadSettings(
        head, training, OBJECTIVES.setdefault(len(train.labels), make_training_loss(training, train.labels, ("a", "b")))
    )


OBJECTIVES: dict[int, Any] = {}


def new_head(kind: str, settings: HeadSettings) -> nn.Sequential:
    torch.manual_seed(settings.training.seed)
    return build_head(kind, WIDTH, 2, dropout=settings.head.dropout, layers=settings.head.layers, width=WIDTH)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
