"""The job of a trial at its size: fewer training rows, a shorter further pretraining, fewer epochs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from fullbake.comparison.design import FEWEST_ROWS_OF_CLASS, at_size, epochs_of, pretraining_passes
from fullbake.comparison.schedule import Size, Trial
from fullbake.config.problems import problem_of
from fullbake.config.recipe import Recipe
from fullbake.data.partition import split
from fullbake.data.splits import Part, Parts
from fullbake.training.job import Job


@dataclass
class SizedJobs:
    """The jobs and rows of all trials; those of a smaller size are made when they are first asked for."""

    jobs: Mapping[str, Sequence[Job]]
    """For each candidate with a recipe one whole job a fold, with all parts of the rows."""
    folds: Sequence[Parts]
    """The parts of the rows, fold by fold; a single entry without folds."""
    _cut: dict[tuple[int, float], Parts] = field(default_factory=dict)

    def parts(self, trial: Trial) -> Parts:
        """Return the rows of a trial."""
        fold = trial.fold or 0
        if trial.size.rows == 1:
            return self.folds[fold]
        key = fold, trial.size.rows
        if key not in self._cut:
            self._cut[key] = cut_training_rows(self.folds[fold], trial.size.rows)
        return self._cut[key]

    def job(self, trial: Trial) -> Job:
        """Return the job of a trial, with the seed of the recipe."""
        job = self.jobs[trial.candidate][trial.fold or 0]
        if trial.size == Size():
            return job
        parts = self.parts(trial)
        return replace(job, parts=parts, recipe=at_size(job.recipe, trial.size, len(parts.train)))

    def describe(self, trial: Trial, stopped: str | None) -> list[str]:
        """Return a sentence for everything that is smaller in a trial than what was asked for."""
        whole, parts = self.folds[trial.fold or 0], self.parts(trial)
        words = []
        if trial.size.rows != 1:
            words.append(f"Only {len(parts.train):,} of the {len(whole.train):,} training rows were used.")
        if trial.candidate in self.jobs:
            full, small = self.jobs[trial.candidate][trial.fold or 0].recipe, self.job(trial).recipe
            rows = len(parts.train)
            if trial.size.pretraining != 1:
                whole_length = _length(full, rows).removesuffix(_PASSES)
                words.append(f"Further pretraining had {_length(small, rows)} in place of {whole_length}.")
            if trial.size.epochs != 1:
                epochs = f"{epochs_of(small, rows)} in place of {epochs_of(full, rows)} epochs"
                words.append(f"The classifier was trained for {epochs}.")
        if stopped is not None:
            words.append(f"Training was stopped: {stopped}.")
        return words


_PASSES: Final = " passes over the texts"


def _length(recipe: Recipe, rows: int) -> str:
    """Return the length of a recipe's further pretraining in words."""
    if recipe.stage.steps is None:
        passes = round(pretraining_passes(recipe, rows))
        return f"{passes:,}{_PASSES if passes > 1 else ' pass over the texts'}"
    return f"{recipe.stage.steps:,} {'step' if recipe.stage.steps == 1 else 'steps'}"


def cut_training_rows(parts: Parts, share: float) -> Parts:
    """Return the parts with this share of the training rows, of each class alike.

    No class is cut below 16 rows. Smaller shares are parts of larger ones. Each part gets a source of its own, so that
    nothing is computed for the rows that are left out.
    """
    chosen = _choose_rows(parts.train.labels, share)
    train = replace(parts.train, indices=parts.train.indices[chosen])
    alone = {name: _alone(part) for name, part in {**parts.by_name(), "train": train}.items()}
    return Parts(alone["train"], alone.get("validation"), alone.get("test"))


def _choose_rows(labels: np.ndarray, share: float) -> np.ndarray:
    """Return the sorted positions of the rows that stay."""
    if not problem_of(labels).exclusive:  # rows with several labels cannot be drawn label by label
        return split(np.arange(len(labels)), labels, share, 0)[1]
    random, chosen = np.random.default_rng(0), []
    for label in np.unique(labels):
        rows = random.permutation(np.flatnonzero(labels == label))
        chosen.append(rows[: max(round(len(rows) * share), FEWEST_ROWS_OF_CLASS)])
    return np.sort(np.concatenate(chosen))


def _alone(part: Part) -> Part:
    return Part(part.source.take(part.indices), np.arange(len(part)))
