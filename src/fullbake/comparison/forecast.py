"""How long a comparison will take, in seconds.

The first forecast comes from the speed of each base on a few training batches and from rough constants for everything
else. Once trials of a recipe are done, the median of their measured times replaces the guess.
"""

import time
from collections.abc import Callable, Mapping, Sequence
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
"""Rows that are trained on to measure the speed. The next larger sample follows if the last one took less than
`ENOUGH_SECONDS`: the first steps of a training are slow, and a small sample of short texts has few other steps."""

ENOUGH_SECONDS: Final = 2.0
"""A sample that trains for longer than this gives a reliable speed."""

PRETRAINING_FACTOR: Final = 1.5
"""Training on a row with masked words takes this many times as long as training a classifier on it."""

FIXED_SECONDS: Final = 1.0
"""Seconds of a trial that do not depend on the rows: loading a base, writing weights."""

HEAD_ROW_SECONDS: Final = 1.5e-4
"""Seconds for one row in one epoch of a head on features."""

LBFGS_ROW_SECONDS: Final = 2e-3
"""Seconds for one row in all logistic regressions (one for each strength) of a trial."""


@dataclass(frozen=True)
class Speed:
    """Rows per second on one base."""

    train: float
    """Rows per second when all weights train."""
    infer: float
    """Rows per second when the base only predicts."""


@dataclass(frozen=True)
class DataSizes:
    """Numbers of rows."""

    train: int
    validation: int
    test: int
    total: int
    """Rows of all parts together."""
    folds: int
    """Number of folds; 1 without folds."""


def time_batches(strategy: Strategy, model: PreTrainedModel, rows: np.ndarray) -> Speed:
    """Train the model in place on some training rows for one epoch, predict them, and return the speed.

    Args:
        strategy: How the model trains.
        model: The network.
        rows: Positions in the training rows, (rows,).
    """

    def validate(_: nn.Module, __: int) -> dict[str, Any]:
        return {"validation_loss": 0.0, "neg_log_loss": 0.0}

    sample = strategy.train.take(rows)
    history = strategy.fit(model, sample, validate, TrainingRun(2e-5, "neg_log_loss", "pace"))
    started = time.perf_counter()
    strategy.logits(model, sample)
    return Speed(float(history[0]["rows_per_second"]), len(rows) / (time.perf_counter() - started))


def measure_speed(
    job: Job, *, time_batches: Callable[[Strategy, PreTrainedModel, np.ndarray], Speed] = time_batches
) -> Speed:
    """Measure the speed of a job's base on its first batches.

    The base is always fine-tuned here under the standard head, whatever the recipe of the job is.

    Args:
        job: Its training rows are used.
        time_batches: Measures the speed on one sample of rows.
    """
    training = TrainingConfig(metric="neg_log_loss", epochs=1)
    fields = {"way": "finetune", "head": HeadConfig(), "training": training, "further_pretraining": None}
    strategy = strategy_for(replace(job, recipe=job.recipe.model_copy(update=fields)))
    order, model = np.random.default_rng(0).permutation(len(strategy.train.labels)), strategy.new_network()
    for count in SAMPLES:
        speed = time_batches(strategy, model, np.sort(order[:count]))
        if min(count, len(order)) / speed.train > ENOUGH_SECONDS:
            break
    return speed


@dataclass
class Forecast:
    """Expected seconds of trials and of the work that they share (further pretraining, features)."""

    candidates: Mapping[str, Candidate]
    """By name."""
    speeds: Mapping[str, Speed]
    """By base."""
    sizes: DataSizes
    measured: dict[str, list[float]] = field(default_factory=dict)
    """Seconds of the trials that are done, by candidate."""
    prepared: set[str] = field(default_factory=set)
    """Keys (see `preparation_keys`) of the shared work that is done."""

    def record(self, name: str, seconds: float) -> None:
        """Note how long a trial of this candidate took."""
        self.measured.setdefault(name, []).append(seconds)

    def trial_seconds(self, name: str) -> float:
        """Return the seconds of one trial: the median of those measured, or a guess if there are none."""
        if self.measured.get(name):
            return float(np.median(self.measured[name]))
        candidate, sizes = self.candidates[name], self.sizes
        if candidate.recipe is None:
            return FIXED_SECONDS + 1e-3 * sizes.train
        epochs = candidate.recipe.training.epochs
        if not candidate.depends_on_seed:
            return FIXED_SECONDS + LBFGS_ROW_SECONDS * sizes.train
        if candidate.way == "frozen":
            return FIXED_SECONDS + HEAD_ROW_SECONDS * epochs * sizes.train
        speed = self.speeds[candidate.recipe.base]
        return FIXED_SECONDS + epochs * (sizes.train / speed.train + sizes.validation / speed.infer)

    def scoring_seconds(self, name: str) -> float:
        """Return the seconds of predicting the test rows with one trained model."""
        candidate = self.candidates[name]
        if candidate.recipe is None:
            return self.trial_seconds(name)
        # A frozen base has its features of the test rows already; only the speed is measured, on 256 rows.
        rows = self.sizes.test if candidate.way == "finetune" else 0
        return FIXED_SECONDS + (rows + 256) / self.speeds[candidate.recipe.base].infer

    def preparation_seconds(self, names: Sequence[str], share: float = 1.0) -> float:
        """Return the seconds of further pretraining and frozen features that are not done yet.

        Work that several candidates share is counted once.

        Args:
            names: Candidates.
            share: Share of the configured length of further pretraining.
        """
        costs: dict[str, float] = {}
        for name in names:
            costs |= self._shared_work(self.candidates[name], share)
        return sum(seconds for key, seconds in costs.items() if key not in self.prepared)

    def preparation_keys(self, name: str) -> set[str]:
        """Return the keys of the shared work (further-pretrained base, features) that a candidate needs."""
        return set(self._shared_work(self.candidates[name], 1.0))

    def _shared_work(self, candidate: Candidate, share: float) -> dict[str, float]:
        """Return the seconds of each piece of shared work, by key."""
        recipe, sizes = candidate.recipe, self.sizes
        if recipe is None:
            return {}
        speed, seconds = self.speeds[recipe.base], {}
        stage = "" if recipe.further_pretraining is None else fingerprint(recipe.stage.model_dump(mode="json"))
        if recipe.further_pretraining is not None:
            rows = (
                recipe.stage.steps * (recipe.stage.batch_size or 32)
                if recipe.stage.steps is not None
                else (recipe.stage.epochs or 3) * sizes.train
            )
            seconds[f"{recipe.base} {stage}"] = PRETRAINING_FACTOR * share * rows / speed.train * sizes.folds
        if recipe.way == "frozen":
            # Without further pretraining the encoder is the same in all folds, so all rows are read once.
            readings = sizes.folds if stage else 1
            pooling = recipe.head.pooling or recipe.head.kind
            seconds[f"{recipe.base} {stage} {pooling}"] = readings * sizes.total / speed.infer
        return seconds

    def design_seconds(self, design: Design, plans: Sequence[RecipePlan], folds: int | None) -> float:
        """Return the seconds of a whole design."""
        trials = design.trials(plans, folds)
        preparation = self.preparation_seconds(design.names, design.pretraining_share)
        return preparation + self.training_seconds(trials) + self.all_scoring_seconds(trials)

    def training_seconds(self, trials: Sequence[Trial]) -> float:
        """Return the seconds of training all these trials."""
        return sum(self.trial_seconds(trial.candidate) for trial in trials)

    def all_scoring_seconds(self, trials: Sequence[Trial]) -> float:
        """Return the seconds of scoring on test: one of the rates is scored for each candidate, seed and fold."""
        scored = {(trial.candidate, trial.seed, trial.fold) for trial in trials}
        return sum(self.scoring_seconds(name) for name, _, _ in scored)
