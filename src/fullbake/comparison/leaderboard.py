"""What the recipes of a comparison forgot of general text, as far as its time allows.

Measured on the encoder of the seed that validation likes best, by the probe of `fullbake probe`. A base's probe is
opened once, and its untouched encoder read once, for all recipes that start from it.

The end of a comparison: all that was scored becomes `leaderboard.json`, `best/` and the page.

What a recipe costs is the price of one classifier by it: its further pretraining, its features (rows over the measured
speed of prediction, for whether they came from a cache is no merit) and the training of one seed at the chosen rate.
"""

import platform
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from fullbake import __version__
from fullbake.classifier.adapt import record_of
from fullbake.classifier.manifest import MANIFEST_FILE
from fullbake.classifier.model import Classifier, RunRecord
from fullbake.comparison import report, verdict
from fullbake.comparison.design import Candidate, Design, RecipePlan, Trial
from fullbake.comparison.runner import Artifact, CandidateResult, Runner, RunnerSettings
from fullbake.comparison.trial import TrialResult, restore_network
from fullbake.comparison.verdict import RecipePredictions, TestRows, list_disagreements, test_all_pairs
from fullbake.config.problems import problem_of
from fullbake.core import runtime, storage
from fullbake.core.console import warn
from fullbake.core.errors import Error
from fullbake.core.hashing import fingerprint
from fullbake.data import inspection
from fullbake.data.labels import count_labels
from fullbake.data.splits import Part, Parts
from fullbake.evaluation.calibration import CalibratedDecision
from fullbake.evaluation.decisions import Decision, probabilities
from fullbake.models.encoding import count_tokens
from fullbake.pretraining.forgetting import ForgettingProbe, open_probe
from fullbake.training.job import Job

PROBE_OPENING_SECONDS: Final = 60.0
"""Seconds that must be left for opening a base's probe: where the base has no masked-LM head, one may have to be
trained."""

PROBE_SECONDS: Final = 15.0
"""Seconds that must be left for reading one encoder, with a probe that is open."""


class ForgettingMeasurement:
    """rounds: those that are over. time_left: seconds of the budget. What was not measured for lack of time is told in
    `rounds.gone`."""

    def __init__(self, rounds: Runner, time_left: Callable[[], float]) -> None:
        self._rounds, self._time_left = rounds, time_left
        self._open: dict[str, tuple[ForgettingProbe, dict[str, float]]] = {}

    def of(self, result: CandidateResult) -> dict[str, Any] | None:
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
        if self._time_left() < (PROBE_SECONDS if entrant.recipe.base in self._open else PROBE_OPENING_SECONDS):
            self._rounds.gone.append(f"forgetting by {entrant.name}: no time was left to measure it")
            return None
        try:
            found = self._read(result, cell)
        except Error as error:
            warn(f"what {entrant.name} forgot could not be measured: {error.what}")
            return None
        cells.keep(cell.id, "probed", identity, Artifact(found, {}))
        return found

    def _read(self, result: CandidateResult, cell: Trial) -> dict[str, Any]:
        job = self._rounds.seeded(cell, result.outcomes[cell])
        probe, before = self._probe(job)
        model = restore_network(job, self._rounds.weights(cell))
        return {"before": before, "after": probe.read(getattr(model, "base_model", model))}

    def _probe(self, job: Job) -> tuple[ForgettingProbe, dict[str, float]]:
        if job.recipe.base not in self._open:
            probe = open_probe(job.recipe.base, cache_dir=job.cache_dir)
            self._open[job.recipe.base] = probe, probe.read(probe.head.model.base_model)
        return self._open[job.recipe.base]


FORMAT: Final = 1
LEADERBOARD: Final = "leaderboard.json"
BEST: Final = "best"

LENGTHS_OF: Final = 5_000
"""Texts whose lengths are told, at most."""


@dataclass(frozen=True)
class FinishedComparison:
    """What a comparison ends with. lines: all that was asked for; design: what was run of it. started: by
    `time.monotonic`. seconds: the budget."""

    out: Path
    setting: RunnerSettings
    rounds: Runner
    lines: Sequence[RecipePlan]
    design: Design
    left_out: Sequence[str]
    started: float
    seconds: float | None
    max_rows: int | None
    folds: int | None

    @property
    def results(self) -> dict[str, CandidateResult]:
        """Of each recipe that was run."""
        return self.rounds.results

    @property
    def parts(self) -> Parts:
        """Of the first fold."""
        return self.setting.folds[0]

    @property
    def time_left(self) -> float:
        """Seconds of the budget."""
        return float("inf") if self.seconds is None else self.started + self.seconds - time.monotonic()


def write_results(ending: FinishedComparison) -> dict[str, Any]:
    """Write the leaderboard, the best classifier and the page. Returns what the leaderboard holds."""
    truth = _truth(ending)
    scored = {
        name: _scored(ending, result, truth) for name, result in ending.results.items() if result.status == "done"
    }
    verdict = test_all_pairs(list(scored.values()), truth)
    taken = verdict.recommended or _highest(scored.values(), truth)
    if taken is not None:
        _save_best(ending, ending.results[taken])
    forgetting = ForgettingMeasurement(ending.rounds, lambda: ending.time_left)
    recipes = [_recipe(ending, line, scored.get(line.name), truth, forgetting) for line in ending.lines]
    board = {
        "format": FORMAT,
        "fullbake": __version__,
        "versions": runtime.versions(),
        "machine": _machine(),
        "command": _command(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": time.monotonic() - ending.started,
        "data": _data(ending),
        "metric": truth.metric,
        "label_names": list(truth.names),
        "problem_type": problem_of(truth.labels),
        "positive": None if truth.positive is None else truth.names[truth.positive],
        "design": _design(ending),
        "recipes": recipes,
        "pairs": [pair.to_json() for pair in verdict.pairs],
        "verdict": verdict.to_json(),
        "disagreements": list_disagreements(list(scored.values()), truth),
        "stamps": _stamps(ending),
    }
    with storage.staged_file(ending.out / LEADERBOARD, overwrite=True) as fresh:
        storage.write_json(fresh, board)
    report.write_report(ending.out)
    _clear_weights(ending)
    return board


def _truth(ending: FinishedComparison) -> TestRows:
    tests = [parts.test for parts in ending.setting.folds if parts.test is not None]
    names, positive = tests[0].source.label_names, ending.setting.decision.positive
    place = None
    if tests[0].labels.ndim == 1 and (positive is not None or len(names) == 2):
        place = len(names) - 1 if positive is None else names.index(positive)
    return TestRows(tests, ending.setting.metric, place)


def _scored(ending: FinishedComparison, result: CandidateResult, truth: TestRows) -> RecipePredictions:
    """The test scores of a recipe, its folds put together."""
    cells = result.picked()
    seeds = result.seeds()
    logits = [[result.scores[cell].logits for cell in cells if cell.seed == seed] for seed in seeds]
    decided = [[_decided(result, cell, truth) for cell in cells if cell.seed == seed] for seed in seeds]
    return RecipePredictions(
        result.entrant.name,
        result.entrant.title,
        result.entrant.recipe is None,
        np.stack([np.concatenate(own) for own in logits]),
        np.stack([np.concatenate(own) for own in decided]),
        _seconds(ending, result),
        copies=1 if result.entrant.lucky else ending.design.seeds,
    )


def _decided(result: CandidateResult, cell: Trial, truth: TestRows) -> np.ndarray:
    problem_type = problem_of(truth.labels)
    decision = Decision.from_json(result.outcomes[cell].decision, problem_type, truth.names)
    return decision.decide(probabilities(result.scores[cell].logits, problem_type))


# A recipe


def _recipe(
    ending: FinishedComparison,
    line: RecipePlan,
    scored: RecipePredictions | None,
    truth: TestRows,
    forgetting: ForgettingMeasurement,
) -> dict[str, Any]:
    """A recipe's entry; of one that is not done as far as it came."""
    result = ending.results.get(line.name)
    entrant = ending.setting.entrants[line.name]
    entry: dict[str, Any] = {
        "name": entrant.name,
        "title": entrant.title,
        "way": entrant.way,
        "further_pretraining": entrant.further,
        "status": "left_out" if result is None else result.status,
        "reason": _why_left_out(ending, line.name) if result is None else result.reason,
        "rates": [] if result is None else _rates(result),
        "rate": None if result is None else _most(list(result.chosen.values())),
        "seeds": [] if result is None else result.seeds(),
        "restarts": [] if result is None else _restarts(result),
        "collapses": [] if result is None else _collapses(result),
        "cells": [] if result is None else [cell.id for cell in result.outcomes],
    }
    if result is None or scored is None:
        nothing = dict.fromkeys(("confusion", "calibration", "threshold_curve", "cost", "forgetting"))
        return entry | {"test": {}, "recall": [], "histories": [], **nothing}
    first = result.picked()[0].fold
    histories = [result.outcomes[cell].history for cell in result.picked() if cell.fold == first]
    return (
        entry
        | verdict.describe_scores(scored, truth)
        | {
            "histories": [history for history in histories if history],
            "cost": _cost(ending, result),
            "forgetting": forgetting.of(result),
            "fold_rates": list(result.chosen.values()) if ending.folds else None,
        }
    )


def _why_left_out(ending: FinishedComparison, name: str) -> str:
    own = [line.partition(": ")[2] for line in ending.left_out if line.startswith(f"{name}: ")]
    return own[0] if own else "left out"


def _rates(result: CandidateResult) -> list[dict[str, Any]]:
    """Each rate's validation scores, seed by seed (and fold by fold)."""
    rates = sorted({cell.rate for cell in result.outcomes if cell.rate is not None}, reverse=True)
    entries = []
    for rate in rates:
        values = [outcome.value for cell, outcome in result.outcomes.items() if cell.rate == rate]
        known = [value for value in values if value is not None]
        entries.append({"rate": rate, "validation": values, "mean": float(np.mean(known)) if known else None})
    return entries


def _most(chosen: Sequence[float | None]) -> float | None:
    """The rate that most folds chose; the first of equals."""
    return max(chosen, key=chosen.count) if chosen else None


def _restarts(result: CandidateResult) -> list[dict[str, str]]:
    return [{"cell": cell.id, "reason": told} for cell, outcome in result.outcomes.items() for told in outcome.restarts]


def _collapses(result: CandidateResult) -> list[dict[str, str]]:
    """Cells that stayed collapsed, or failed, though others of the recipe did not."""
    return [{"cell": cell.id, "reason": outcome.reason} for cell, outcome in result.outcomes.items() if outcome.reason]


def _seconds(ending: FinishedComparison, result: CandidateResult) -> float:
    """Of one classifier by the recipe."""
    return _prepared_seconds(ending, result) + float(
        np.mean([result.outcomes[cell].seconds for cell in result.picked()])
    )


def _prepared_seconds(ending: FinishedComparison, result: CandidateResult) -> float:
    """Of what all trainings of a recipe share: further pretraining and features."""
    stage = float(np.mean([result.outcomes[cell].stage_seconds for cell in result.picked()]))
    rows = len(ending.parts.train) + len(ending.parts.selection_part)
    return stage + (rows / _speed(result) if result.entrant.way == "frozen" else 0.0)


def _speed(result: CandidateResult) -> float:
    return float(np.median([result.scores[cell].rows_per_second for cell in result.picked()]))


def _cost(ending: FinishedComparison, result: CandidateResult) -> dict[str, Any]:
    outcomes = [result.outcomes[cell] for cell in result.picked()]
    memory = [outcome.memory for outcome in outcomes if outcome.memory is not None]
    return {
        "train_seconds": _seconds(ending, result),
        "search_seconds": _prepared_seconds(ending, result)
        + sum(outcome.seconds for outcome in result.outcomes.values()),
        "peak_memory_bytes": max(memory) if memory else None,
        "trained_parameters": outcomes[0].parameters,
        "bundle_bytes": outcomes[0].size,
        "rows_per_second": _speed(result),
    }


# The best


def _highest(everyone: Iterable[RecipePredictions], truth: TestRows) -> str | None:
    """The classifier with the best mean, where none is recommended: all are worse than a baseline."""
    classifiers = [scored for scored in everyone if not scored.baseline]
    best = max(classifiers, key=lambda scored: scored.resampled(truth).mean, default=None)
    return None if best is None else best.name


def _save_best(ending: FinishedComparison, result: CandidateResult) -> None:
    """The recommended recipe's classifier, unless it stands there already."""
    cell = result.favorite()
    identity, target = ending.rounds.identity(cell), ending.out / BEST
    if _run_of(target) == identity:
        return
    outcome = result.outcomes[cell]
    job = ending.rounds.seeded(cell, outcome)
    finished = _finished(outcome, job.parts.train)
    record = record_of(job, finished, outcome.history, result.scores[cell].logits)
    record = RunRecord(record.facts | {"run": identity, "truncation_tried": {}}, record.seen, record.history)
    model = restore_network(job, ending.rounds.weights(cell))
    classifier = Classifier(model, job.tokenizer, job.recipe.tokens, record, finished.decision)
    classifier.save(target, overwrite=True)


def _run_of(folder: Path) -> str | None:
    try:
        found = storage.read_json(folder / MANIFEST_FILE).get("run")
    except (OSError, ValueError):
        return None
    return None if found is None else str(found)


def _finished(outcome: TrialResult, train: Part) -> CalibratedDecision:
    names = train.source.label_names
    decision = Decision.from_json(outcome.decision, problem_of(train.labels), names)
    assert outcome.calibration is not None
    return CalibratedDecision(decision, outcome.logits, outcome.calibration, outcome.thresholds)


def _clear_weights(ending: FinishedComparison) -> None:
    """The best classifier has its own; any other can be trained again to the same bits."""
    for result in ending.results.values():
        for cell in result.outcomes:
            ending.setting.cells.drop(cell.id, "weights")


# Facts


def _design(ending: FinishedComparison) -> dict[str, Any]:
    return {
        "seeds": sorted({cell.seed for result in ending.results.values() for cell in result.outcomes}),
        "rates": {line.name: list(line.rates[: ending.design.rates]) for line in ending.lines},
        "folds": ending.folds,
        "budget_seconds": ending.seconds,
        "left_out": list(dict.fromkeys([*ending.left_out, *ending.rounds.gone])),
    }


def _machine() -> dict[str, Any]:
    return {
        "processor": runtime.processor_name(),
        "cores": runtime.count_processors(),
        "threads": runtime.threads(),
        "device": runtime.device().type,
        "system": platform.system(),
    }


def _command() -> str:
    """The command line, files by their names alone: where they lie is nobody's business."""
    if Path(sys.argv[0]).name not in ("fullbake", "__main__.py"):
        return "fullbake.compare(...)"
    words = [Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:]]
    return " ".join(["fullbake", *(f'"{word}"' if " " in word else word for word in words)])


def _data(ending: FinishedComparison) -> dict[str, Any]:
    parts, tests = ending.parts, [parts.test for parts in ending.setting.folds if parts.test is not None]
    job = next(iter(ending.setting.jobs.values()))[0]
    facts = inspection.inspect_parts(
        parts, job.recipe.data, partial(count_tokens, job.tokenizer), job.recipe.tokens.max_length
    )
    return {
        "source": Path(parts.train.source.source).name,
        "rows": len(parts.train.source),
        "train": len(parts.train),
        "validation": len(parts.selection_part),
        "test": sum(map(len, tests)),
        "folds": ending.folds,
        "max_rows": ending.max_rows,
        "duplicates": _duplicates(parts),
        "labels": _labels(parts, tests),
        "lengths": _lengths(parts, job.tokenizer, job.recipe.tokens.max_length or 0),
        "fingerprint": fingerprint([part.fingerprint() for part in parts.named().values()]),
        "findings": [inspection.describe_finding(found) for found in facts.findings],
    }


def _duplicates(parts: Parts) -> dict[str, int]:
    """Rows that are equal or nearly so and were kept in one part, and rows that were left out."""
    sizes = np.zeros(0, np.int64) if parts.groups is None else np.bincount(parts.groups)
    return {"kept together": int(sizes[sizes > 1].sum()), "removed": parts.overlap_dropped}


def _labels(parts: Parts, tests: Sequence[Part]) -> list[dict[str, Any]]:
    names = parts.train.source.label_names
    train, validation = (count_labels(part.labels, len(names)) for part in (parts.train, parts.selection_part))
    test = np.sum([count_labels(part.labels, len(names)) for part in tests], axis=0)
    return [
        {"name": name, "train": int(a), "validation": int(b), "test": int(c)}
        for name, a, b, c in zip(names, train, validation, test, strict=True)
    ]


def _lengths(parts: Parts, tokenizer: Any, max_length: int) -> dict[str, Any]:
    """Tokens of the texts, special ones included, of a spread of them where they are many."""
    texts = parts.train.source.joined_texts.to_pylist()
    counts = count_tokens(tokenizer, texts[:: max(len(texts) // LENGTHS_OF, 1)])
    return {
        "median": int(np.median(counts)),
        "p95": int(np.quantile(counts, 0.95)),
        "longest": int(counts.max()),
        "max_length": max_length,
        "cut_share": float((counts > max_length).mean()),
    }


def _stamps(ending: FinishedComparison) -> list[str]:
    stamps = []
    allowed = max(parts.overlap_allowed for parts in ending.setting.folds)
    if allowed:
        stamps.append(f"{allowed:,} training rows also stand in a later part (--allow-overlap): the scores flatter.")
    if ending.max_rows is not None:
        stamps.append(f"The data were cut to {len(ending.parts.train.source):,} rows (--max-rows).")
    staged = [result.entrant for result in ending.results.values() if result.entrant.further]
    if any(_transductive(entrant) for entrant in staged):
        stamps.append("Texts of validation and test were let into further pretraining (transductive).")
    if staged:
        stamps.append("Further pretraining was run once and shared by all seeds: its own luck is not in the intervals.")
    return stamps


def _transductive(entrant: Candidate) -> bool:
    return entrant.recipe is not None and entrant.recipe.stage.transductive
