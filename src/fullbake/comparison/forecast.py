"""How long a comparison takes: forecast from the first batches on each base, corrected by the cells that are done."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
from torch import nn
from transformers import PreTrainedModel

from fullbake.comparison.design import Candidate, Design, RecipePlan, Trial
from fullbake.config.sections import HeadConfig, TrainingConfig
from fullbake.core.hashing import fingerprint
from fullbake.training.job import Job
from fullbake.training.selection import Strategy, TrainingRun
from fullbake.training.strategies import strategy_for

SAMPLES: Final = (16, 128, 512)
"""Rows that are trained to see how fast it goes: the next larger sample where the last one took under `PATIENCE`. The
first steps of any training are slow, and of short texts a small sample has few others."""

PATIENCE: Final = 2.0
"""Seconds."""

PRETRAINING: Final = 1.5
"""A row of masked words costs this much more than one of a classifier."""

FIXED: Final = 1.0
"""Seconds that a cell takes whatever its rows: a base is loaded, weights are written."""

HEAD_ROW: Final = 1.5e-4
"""Seconds a row and epoch of a head on features."""

LBFGS_ROW: Final = 2e-3
"""Seconds a row of all strengths of a logistic regression."""


@dataclass(frozen=True)
class Speed:
    """Rows a second on one base: when its weights train, and when it only reads."""

    train: float
    infer: float


@dataclass(frozen=True)
class DataSizes:
    """Rows of the parts, of all rows together, and how many folds (1 without)."""

    train: int
    validation: int
    test: int
    whole: int
    folds: int


def measure_speed(job: Job) -> Speed:
    """By the first batches of a job's training rows under the standard head, whatever its recipe is."""
    training = TrainingConfig(metric="neg_log_loss", epochs=1)
    fields = {"way": "finetune", "head": HeadConfig(), "training": training, "further_pretraining": None}
    way = strategy_for(replace(job, recipe=job.recipe.model_copy(update=fields)))
    order, model = np.random.default_rng(0).permutation(len(way.train.labels)), way.start()
    for count in SAMPLES:
        pace = _time_batches(way, model, np.sort(order[:count]))
        if min(count, len(order)) / pace.train > PATIENCE:
            break
    return pace


def _time_batches(way: Strategy, model: PreTrainedModel, rows: np.ndarray) -> Speed:
    def validate(_: nn.Module, __: int) -> dict[str, Any]:
        return {"validation_loss": 0.0, "neg_log_loss": 0.0}

    sample = way.train.take(rows)
    history = way.fit(model, sample, validate, TrainingRun(2e-5, "neg_log_loss", "pace"))
    started = time.perf_counter()
    way.logits(model, sample)
    return Speed(float(history[0]["rows_per_second"]), len(rows) / (time.perf_counter() - started))


@dataclass
class Forecast:
    """Seconds that cells, and what they stand on, are expected to take.

    paces: by base. taken: seconds of the cells that are done, by recipe. prepared: what has been made already.
    """

    entrants: Mapping[str, Candidate]
    paces: Mapping[str, Speed]
    sizes: DataSizes
    taken: dict[str, list[float]] = field(default_factory=dict)
    prepared: set[str] = field(default_factory=set)

    def learn(self, name: str, seconds: float) -> None:
        """A cell of this recipe took so long."""
        self.taken.setdefault(name, []).append(seconds)

    def cell(self, name: str) -> float:
        """One cell of a recipe: the median of those that are done, or what the pace says."""
        if self.taken.get(name):
            return float(np.median(self.taken[name]))
        entrant, sizes = self.entrants[name], self.sizes
        if entrant.recipe is None:
            return FIXED + 1e-3 * sizes.train
        epochs = entrant.recipe.training.epochs
        if not entrant.lucky:
            return FIXED + LBFGS_ROW * sizes.train
        if entrant.way == "frozen":
            return FIXED + HEAD_ROW * epochs * sizes.train
        pace = self.paces[entrant.recipe.base]
        return FIXED + epochs * (sizes.train / pace.train + sizes.validation / pace.infer)

    def scoring(self, name: str) -> float:
        """The test rows by one seed's choice, over all folds."""
        entrant = self.entrants[name]
        if entrant.recipe is None:
            return self.cell(name)
        rows = self.sizes.test if entrant.way == "finetune" else 0
        return FIXED + (rows + 256) / self.paces[entrant.recipe.base].infer

    def preparation(self, names: Sequence[str], share: float = 1.0) -> float:
        """Further pretraining and frozen features, each counted once however many recipes share it."""
        costs: dict[str, float] = {}
        for name in names:
            costs |= self._needs(self.entrants[name], share)
        return sum(seconds for key, seconds in costs.items() if key not in self.prepared)

    def keys(self, name: str) -> set[str]:
        """What a recipe stands on, for `prepared`."""
        return set(self._needs(self.entrants[name], 1.0))

    def _needs(self, entrant: Candidate, share: float) -> dict[str, float]:
        recipe, sizes = entrant.recipe, self.sizes
        if recipe is None:
            return {}
        pace, needs = self.paces[recipe.base], {}
        stage = "" if recipe.further_pretraining is None else fingerprint(recipe.stage.model_dump(mode="json"))
        if recipe.further_pretraining is not None:
            rows = (
                recipe.stage.steps * (recipe.stage.batch_size or 32)
                if recipe.stage.steps is not None
                else (recipe.stage.epochs or 3) * sizes.train
            )
            needs[f"{recipe.base} {stage}"] = PRETRAINING * share * rows / pace.train * sizes.folds
        if recipe.way == "frozen":
            passes = sizes.folds if stage else 1
            pooling = recipe.head.pooling or recipe.head.kind
            needs[f"{recipe.base} {stage} {pooling}"] = passes * sizes.whole / pace.infer
        return needs

    def design(self, design: Design, lines: Sequence[RecipePlan], folds: int | None) -> float:
        """A whole design."""
        cells = design.cells(lines, folds)
        return self.preparation(design.names, design.share) + self.cells(cells) + self.all_scoring(cells)

    def cells(self, cells: Sequence[Trial]) -> float:
        """These cells."""
        return sum(self.cell(cell.entrant) for cell in cells)

    def all_scoring(self, cells: Sequence[Trial]) -> float:
        """The choices among these cells."""
        return sum(self.scoring(name) for name, _, _ in {(cell.entrant, cell.seed, cell.fold) for cell in cells})
