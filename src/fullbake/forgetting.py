"""What the recipes of a comparison forgot of general text, as far as its time allows.

Measured on the encoder of the seed that validation likes best, by the probe of `fullbake probe`. A base's probe is
opened once, and its untouched encoder read once, for all recipes that start from it.
"""

from collections.abc import Callable
from typing import Any, Final

from fullbake.cells import Kept
from fullbake.core.console import warn
from fullbake.core.errors import Error
from fullbake.designs import Cell
from fullbake.pretraining.forgetting import Probe, open_probe
from fullbake.rounds import Result, Rounds
from fullbake.training.job import Job
from fullbake.trials import restore

OPENING: Final = 60.0
"""Seconds that must be left for opening a base's probe: where the base has no masked-LM head, one may have to be
trained."""

READING: Final = 15.0
"""Seconds that must be left for reading one encoder, with a probe that is open."""


class Forgetting:
    """rounds: those that are over. time_left: seconds of the budget. What was not measured for lack of time is told in
    `rounds.gone`."""

    def __init__(self, rounds: Rounds, time_left: Callable[[], float]) -> None:
        self._rounds, self._time_left = rounds, time_left
        self._open: dict[str, tuple[Probe, dict[str, float]]] = {}

    def of(self, result: Result) -> dict[str, Any] | None:
        """before and after (mlm_loss, mlm_accuracy); None where a recipe leaves its encoder as it was, where no time is
        left, and where it cannot be measured, which a warning says."""
        entrant, cells = result.entrant, self._rounds.setting.cells
        if entrant.recipe is None or (entrant.way == "frozen" and not entrant.further):
            return None
        cell = result.favorite()
        identity = self._rounds.identity(cell)
        kept = cells.read(cell.id, "probed", identity)
        if kept is not None:
            return dict(kept.facts)
        if self._time_left() < (READING if entrant.recipe.base in self._open else OPENING):
            self._rounds.gone.append(f"forgetting by {entrant.name}: no time was left to measure it")
            return None
        try:
            found = self._read(result, cell)
        except Error as error:
            warn(f"what {entrant.name} forgot could not be measured: {error.what}")
            return None
        cells.keep(cell.id, "probed", identity, Kept(found, {}))
        return found

    def _read(self, result: Result, cell: Cell) -> dict[str, Any]:
        job = self._rounds.seeded(cell, result.outcomes[cell])
        probe, before = self._probe(job)
        model = restore(job, self._rounds.weights(cell))
        return {"before": before, "after": probe.read(getattr(model, "base_model", model))}

    def _probe(self, job: Job) -> tuple[Probe, dict[str, float]]:
        if job.recipe.base not in self._open:
            probe = open_probe(job.recipe.base, cache_dir=job.cache_dir)
            self._open[job.recipe.base] = probe, probe.read(probe.head.model.base_model)
        return self._open[job.recipe.base]
