"""The finished cells of a comparison on disk: sealed folders of JSON and arrays, put by one rename, checked when read.

A cell has up to four: `trained` (what validation saw of it), `weights` (kept until the comparison is done), and of the
choice alone `scored` (test logits) and `probed` (what its encoder forgot). Each carries the identity of all that it
depends on: one of another identity, or a damaged one, counts as not there and is made again.

The cells of a comparison, one after another: trained, chosen by validation, and the choice scored on test.

Recipe by recipe. `choose_rate`, like all that trains, is never given the test part; the test rows are scored when a
recipe's choice is made, once for each of its seeds. Cells that a folder holds already are read, not made again. Rates
come before seeds, so that the weights of a rate that has lost can go early.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from fullbake.comparison.design import Candidate, Trial
from fullbake.comparison.forecast import FIXED, Forecast
from fullbake.comparison.live_table import LiveTable
from fullbake.comparison.trial import (
    TestLogits,
    TrialResult,
    TrialWeights,
    failed_trial,
    score_baseline,
    score_trial,
    train_baseline,
    train_trial,
)
from fullbake.config.sections import DecisionConfig
from fullbake.core import storage
from fullbake.core.console import warn
from fullbake.core.errors import Error, Fault, SpaceFault
from fullbake.core.hashing import fingerprint
from fullbake.data.splits import Parts
from fullbake.pretraining.stage import with_further_pretraining
from fullbake.training.checkpoints import CheckpointInterval, UnfinishedRun
from fullbake.training.job import Job

Kind = Literal["trained", "weights", "scored", "probed"]

_ARRAYS = "arrays.safetensors"


@dataclass(frozen=True)
class Artifact:
    """What a sealed folder holds: JSON values, and arrays by name."""

    facts: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class ArtifactStore:
    """The cells under one folder."""

    root: Path

    def folder(self, cell: str) -> Path:
        """Where all of a cell lies."""
        return self.root / cell

    def read(self, cell: str, kind: Kind, identity: str) -> Artifact | None:
        """What was kept, None where nothing of this identity was."""
        folder = self.root / cell / kind
        if not folder.is_dir():
            return None
        try:
            about = storage.verify(folder)
            arrays = storage.read_tensors(folder / _ARRAYS)
        except (Fault, OSError, ValueError) as fault:
            warn(f"cell {cell} is damaged and will be made again: {fault}")
            return None
        return Artifact(about["facts"], arrays) if about["identity"] == identity else None

    def keep(self, cell: str, kind: Kind, identity: str, kept: Artifact) -> None:
        """Put it in place of what is there."""
        with storage.staged(self.root / cell / kind, overwrite=True) as folder:
            storage.write_tensors(folder / _ARRAYS, kept.arrays)
            storage.seal(folder, {"identity": identity, "facts": dict(kept.facts)})

    def drop(self, cell: str, kind: Kind) -> None:
        """Remove what was kept, if anything."""
        if (self.root / cell / kind).is_dir():
            storage.remove_tree(self.root / cell / kind)


LONG_TRIAL_SECONDS: Final = 300.0
"""Seconds from which on a cell is expected to be worth checkpoints of its own."""

CLOSING_SECONDS: Final = 20.0
"""Seconds kept for the verdict, the bundle and the page."""


@dataclass(frozen=True)
class RunnerSettings:
    """What all cells share. jobs: of each recipe, one a fold, with all their parts. folds: the parts, one a fold.
    metric, decision: for baselines. rules: what a baseline's cells depend on besides its rows."""

    cells: ArtifactStore
    entrants: Mapping[str, Candidate]
    jobs: Mapping[str, Sequence[Job]]
    folds: Sequence[Parts]
    metric: str
    decision: DecisionConfig
    rules: str


@dataclass
class CandidateResult:
    """What a recipe came to. outcomes: by cell. chosen: the rate of each fold. scores: of the chosen cells.
    reason: why it is not done."""

    entrant: Candidate
    outcomes: dict[Trial, TrialResult] = field(default_factory=dict)
    chosen: dict[int | None, float | None] = field(default_factory=dict)
    scores: dict[Trial, TestLogits] = field(default_factory=dict)
    status: str = "done"
    reason: str | None = None

    def picked(self) -> list[Trial]:
        """The scored cells, those whose seed was scored in every fold, fold by fold and seed by seed."""
        folds = list(self.chosen)
        seeds = sorted({cell.seed for cell in self.scores})
        whole = [seed for seed in seeds if all(self._cell(fold, seed) in self.scores for fold in folds)]
        return [self._cell(fold, seed) for fold in folds for seed in whole]

    def _cell(self, fold: int | None, seed: int) -> Trial:
        return Trial(self.entrant.name, self.chosen[fold], seed, fold)

    def favorite(self) -> Trial:
        """The scored cell that validation likes best."""
        values = {cell: self.outcomes[cell].value for cell in self.picked()}
        return max(values, key=lambda cell: -math.inf if (value := values[cell]) is None else value)

    def seeds(self) -> list[int]:
        """The seeds that count."""
        return sorted({cell.seed for cell in self.picked()})


def without_test(parts: Parts) -> Parts:
    """The parts that train and choose: without test."""
    return replace(parts, test=None)


def choose_rate(values: Mapping[float | None, Sequence[float | None]]) -> float | None:
    """The rate whose mean over seeds is best on validation, the earlier of equals. values: by rate, None for a seed
    that failed: a rate with fewer of these comes first. Raises ValueError where nothing succeeded."""

    def merit(rate: float | None) -> tuple[int, float]:
        known = [value for value in values[rate] if value is not None]
        return len(known) - len(values[rate]), sum(known) / len(known)

    running = [rate for rate, found in values.items() if any(value is not None for value in found)]
    if not running:
        raise ValueError("no cell succeeded")
    return max(running, key=merit)


class Runner:
    """A comparison under way. deadline: of `time.monotonic`, None without a budget. gone: what was dropped on the
    way, in words."""

    def __init__(
        self,
        setting: RunnerSettings,
        plan: Sequence[Trial],
        forecast: Forecast,
        board: LiveTable,
        deadline: float | None,
    ) -> None:
        self.setting, self.forecast, self.board, self.deadline = setting, forecast, board, deadline
        self.plan = {name: [cell for cell in plan if cell.entrant == name] for name in setting.entrants}
        self.gone: list[str] = []
        self.results: dict[str, CandidateResult] = {}

    def run(self) -> dict[str, CandidateResult]:
        """Every recipe that the plan has cells of."""
        for name in [name for name, cells in self.plan.items() if cells]:
            if not self.plan[name]:  # dropped since, for lack of time
                continue
            self.results[name] = result = CandidateResult(self.setting.entrants[name])
            for fold in dict.fromkeys(cell.fold for cell in self.plan[name]):
                self._play(result, fold)
            self.forecast.prepared |= self.forecast.keys(name)
            self._conclude(result)
        return self.results

    def _conclude(self, result: CandidateResult) -> None:
        name = result.entrant.name
        row = self.board.rows[name]
        if not self.plan[name]:
            del self.results[name]
        elif result.status == "failed" or not result.picked():
            reasons = [outcome.reason for outcome in result.outcomes.values() if outcome.reason]
            result.status, result.reason = "failed", result.reason or (reasons or ["no seed came through"])[0]
            row.note = f"failed: {result.reason}"
            warn(f"{name} failed: {result.reason}")

    def _play(self, result: CandidateResult, fold: int | None) -> None:
        """A recipe in one fold: its cells, the choice, and the choice's test scores."""
        name = result.entrant.name
        number, left = 0, self._cells(name, fold)
        while number < len(left):
            self._keep_time(name)
            left = self._cells(name, fold)
            if number >= len(left):
                break
            cell = left[number]
            number += 1
            self.board.begin(f"training {cell.id}", self._rest(cell))
            kept = self._read(cell)
            outcome = result.outcomes[cell] = kept or self._made(cell)
            if kept is None:
                self.forecast.learn(name, outcome.seconds + FIXED)
                if cell.fold is None:
                    self.forecast.prepared |= self.forecast.keys(name)
            self._tell(result, cell, outcome, found=kept is not None)
            self._prune(result, left[:number])
        if left:
            self._choose_and_score(result, fold, left)

    def _cells(self, name: str, fold: int | None) -> list[Trial]:
        """Those of one fold, rate by rate."""
        own = [cell for cell in self.plan[name] if cell.fold == fold]
        rates = list(dict.fromkeys(cell.rate for cell in own))
        return sorted(own, key=lambda cell: rates.index(cell.rate))

    def _tell(self, result: CandidateResult, cell: Trial, outcome: TrialResult, *, found: bool) -> None:
        row = self.board.rows[cell.entrant]
        values = _by_rate(result, [one for one in result.outcomes if one.fold == cell.fold])
        if any(value is not None for found in values.values() for value in found):
            best = [value for value in values[choose_rate(values)] if value is not None]
            row.best = sum(best) / len(best)
        for told in outcome.restarts if not found else ():
            warn(f"{cell.id}: {told}")
        if outcome.reason:
            row.note = outcome.reason
        figure = (
            f"validation {self.board.metric} {outcome.value:.4f}"
            if outcome.value is not None
            else f"failed: {outcome.reason}"
        )
        spent = "found" if found else f"{outcome.seconds:.1f} s"
        self.board.finish(cell.entrant, f"{cell.id:<36} {figure}  {spent}")

    def _choose_and_score(self, result: CandidateResult, fold: int | None, cells: Sequence[Trial]) -> None:
        name, values = result.entrant.name, _by_rate(result, cells)
        if not any(value is not None for found in values.values() for value in found):
            result.status = "failed"
            return
        rate = result.chosen[fold] = choose_rate(values)
        for cell in cells:
            if cell.rate != rate:
                self.setting.cells.drop(cell.id, "weights")
            elif result.outcomes[cell].value is not None:
                self.board.begin(f"testing {cell.id}", self._rest(None))
                result.scores[cell] = self._scored(cell, result.outcomes[cell])
        row = self.board.rows[name]
        row.note = "" if rate is None else f"rate {rate:g}"

    def _prune(self, result: CandidateResult, done: Sequence[Trial]) -> None:
        """Drop the weights of rates that have lost already: all their seeds are done."""
        rates = list(dict.fromkeys(cell.rate for cell in done))
        whole = [cell for cell in done if cell.rate in rates[:-1]]
        values = _by_rate(result, whole)
        if len(values) < 2 or not any(value is not None for found in values.values() for value in found):
            return
        leading = choose_rate(values)
        for cell in whole:
            if cell.rate != leading:
                self.setting.cells.drop(cell.id, "weights")

    # Time

    def _rest(self, current: Trial | None) -> float:
        """Seconds that are left to do, the current cell included."""
        played = {cell for result in self.results.values() for cell in result.outcomes}
        cells = [cell for own in self.plan.values() for cell in own if cell not in played or cell == current]
        open_ = [cell for own in self.plan.values() for cell in own if cell.entrant not in self._finished()]
        names = list(dict.fromkeys(cell.entrant for cell in cells))
        forecast = self.forecast
        return forecast.preparation(names) + forecast.cells(cells) + forecast.all_scoring(open_) + CLOSING_SECONDS

    def _finished(self) -> set[str]:
        return {name for name, result in self.results.items() if result.chosen and name != self._current()}

    def _current(self) -> str | None:
        return next(reversed(self.results), None)

    def _keep_time(self, name: str) -> None:
        """Where the rest would not fit: fewer seeds of the recipes that are not done, then fewer recipes, the dearest
        first. Rates stay, so that every recipe has chosen from as many."""
        while self.deadline is not None and time.monotonic() + self._rest(None) > self.deadline:
            waiting = [other for other, cells in self.plan.items() if cells and other not in self._finished()]
            if any(len({cell.seed for cell in self.plan[other]}) > 2 for other in waiting):
                for other in waiting:
                    kept = sorted({cell.seed for cell in self.plan[other]})[:2]
                    self._leave(other, [cell for cell in self.plan[other] if cell.seed in kept])
                self.gone.append(f"seeds: 2, not more, of {', '.join(waiting)}, to keep to the time")
                continue
            classifiers = [other for other in self.plan if self.plan[other] and self.setting.entrants[other].recipe]
            if len(classifiers) < 2:
                return
            dearest = max(waiting, key=self._cost)
            self.gone.append(f"{dearest}: the time was needed by what came before")
            self._leave(dearest, [])
            if dearest == name:
                return

    def _leave(self, name: str, cells: list[Trial]) -> None:
        self.plan[name] = cells
        self.board.rows[name].total = len(cells)
        if not cells:
            self.board.rows[name].note = "left out: no time"

    def _cost(self, name: str) -> float:
        return self.forecast.preparation([name]) + self.forecast.cells(self.plan[name])

    # Cells: read, or made and kept

    def _read(self, cell: Trial) -> TrialResult | None:
        kept = self.setting.cells.read(cell.id, "trained", self.identity(cell))
        return None if kept is None else TrialResult(logits=kept.arrays["logits"], **kept.facts)

    def _made(self, cell: Trial) -> TrialResult:
        identity, cells = self.identity(cell), self.setting.cells
        outcome, weights = self._train(cell)
        if weights:
            cells.keep(cell.id, "weights", identity, Artifact({}, weights))
        cells.keep(cell.id, "trained", identity, Artifact(outcome.facts(), {"logits": outcome.logits}))
        return outcome

    def _train(self, cell: Trial) -> tuple[TrialResult, TrialWeights]:
        name, fold = cell.entrant, cell.fold or 0
        if self.setting.entrants[name].recipe is None:
            parts = without_test(self.setting.folds[fold])
            return train_baseline(name, parts, self.setting.metric, self.setting.decision), {}
        try:
            job = self._ready(cell)
        except SpaceFault:
            raise
        except Error as error:
            return failed_trial(error.what, cell.seed), {}
        outcome, weights = train_trial(replace(job, parts=without_test(job.parts)), cell.rate)
        return replace(outcome, stage_seconds=_stage_seconds(job)), weights

    def _ready(self, cell: Trial) -> Job:
        """The cell's job on the base that its further pretraining makes; test texts are known to it only to be kept
        out of the corpus."""
        asked = self._asked(cell)
        if asked.recipe.further_pretraining is None:
            return asked
        return replace(asked, adapted=with_further_pretraining(replace(asked, run=None)).adapted)

    def _asked(self, cell: Trial) -> Job:
        job = self.setting.jobs[cell.entrant][cell.fold or 0]
        rate = job.recipe.training.learning_rate[:1] if cell.rate is None else (cell.rate,)
        job = replace(job, recipe=job.recipe.with_fields(seed=cell.seed, learning_rate=rate))
        if self.forecast.cell(cell.entrant) < LONG_TRIAL_SECONDS:
            return job
        folder = self.setting.cells.folder(cell.id) / "unfinished"
        return replace(
            job,
            run=UnfinishedRun(folder, self.identity(cell), CheckpointInterval(seconds=LONG_TRIAL_SECONDS), writes=True),
        )

    def identity(self, cell: Trial) -> str:
        """Of all that a cell depends on."""
        parts = self.setting.folds[cell.fold or 0]
        if self.setting.entrants[cell.entrant].recipe is None:
            return fingerprint(self.setting.rules, [part.fingerprint() for part in parts.named().values()])
        job = self.setting.jobs[cell.entrant][cell.fold or 0]
        return fingerprint(job.facts(), cell.id)

    def _scored(self, cell: Trial, outcome: TrialResult) -> TestLogits:
        identity, cells = self.identity(cell), self.setting.cells
        kept = cells.read(cell.id, "scored", identity)
        if kept is not None:
            return TestLogits(kept.arrays["logits"], float(kept.facts["rows_per_second"]))
        score = self._score(cell, outcome)
        cells.keep(
            cell.id, "scored", identity, Artifact({"rows_per_second": score.rows_per_second}, {"logits": score.logits})
        )
        return score

    def _score(self, cell: Trial, outcome: TrialResult) -> TestLogits:
        parts = self.setting.folds[cell.fold or 0]
        assert parts.test is not None
        if self.setting.entrants[cell.entrant].recipe is None:
            return score_baseline(cell.entrant, without_test(parts), parts.test, outcome)
        return score_trial(self.seeded(cell, outcome), parts.test, self.weights(cell))

    def seeded(self, cell: Trial, outcome: TrialResult) -> Job:
        """The job of a cell as it was trained in the end."""
        job = self._ready(cell)
        return replace(job, recipe=job.recipe.with_fields(seed=outcome.seed), run=None)

    def weights(self, cell: Trial) -> TrialWeights:
        """What a cell trained: kept, or trained again, which gives the same bits."""
        kept = self.setting.cells.read(cell.id, "weights", self.identity(cell))
        if kept is not None:
            return dict(kept.arrays)
        _, weights = self._train(cell)
        self.setting.cells.keep(cell.id, "weights", self.identity(cell), Artifact({}, weights))
        return weights


def _by_rate(result: CandidateResult, cells: Sequence[Trial]) -> dict[float | None, list[float | None]]:
    values: dict[float | None, list[float | None]] = {}
    for cell in cells:
        values.setdefault(cell.rate, []).append(result.outcomes[cell].value)
    return values


def _stage_seconds(job: Job) -> float:
    """What the further pretraining took when it was done, be it now or when the cache was filled."""
    history = [] if job.adapted is None else job.adapted.about.get("history", [])
    return float(sum(entry.get("seconds", 0.0) for entry in history))
