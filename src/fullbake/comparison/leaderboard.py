"""Write the results of a comparison: `leaderboard.json`, the best classifier in `best/`, and the page.

The cost of a recipe is the price of one classifier: its further pretraining, its features (rows divided by the measured
speed of prediction, even if they came from the cache) and the training of one seed at the chosen rate.

How much general text a recipe forgot is measured as well, if the budget allows, on the encoder of the seed that is best
on validation, by the probe of `fullbake probe`. Recipes on the same base share one probe.
"""

import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from fullbake import __version__
from fullbake.classifier.adapt import record_of
from fullbake.classifier.model import Classifier, RunRecord
from fullbake.classifier.row_facts import list_mistakes
from fullbake.comparison import report, verdict
from fullbake.comparison.artifacts import Artifact
from fullbake.comparison.design import Candidate
from fullbake.comparison.page import command_line
from fullbake.comparison.report import LEADERBOARD_FILE, LEADERBOARD_FORMAT
from fullbake.comparison.runner import CandidateResult, Runner
from fullbake.comparison.schedule import Trial
from fullbake.comparison.trial import TrialResult
from fullbake.comparison.verdict import (
    NotRun,
    RecipePredictions,
    Scope,
    SharedTestRows,
    Verdict,
    decide_from_predictions,
    list_disagreements,
)
from fullbake.core import runtime, storage
from fullbake.core.console import warn
from fullbake.core.errors import Error
from fullbake.core.hashing import fingerprint
from fullbake.data import inspection
from fullbake.data.findings import describe_finding
from fullbake.data.label_checks import describe_dropped
from fullbake.data.labels import count_labels
from fullbake.data.splits import Part, Parts, count_groups
from fullbake.evaluation.calibration import CalibratedDecision
from fullbake.evaluation.decisions import Decision
from fullbake.models.encoding import count_tokens
from fullbake.pretraining.forgetting import ForgettingProbe
from fullbake.training.job import Job

BEST: Final = "best"

FEW_GROUPS: Final = 30
"""Under so many groups of test rows a comparison says that its intervals are rough."""

BENCH_TEXTS: Final = 500
"""Speed is measured with so many texts of the test rows, at most."""

ENGINES_SECONDS: Final = 12.0
"""Seconds that measuring the speed of one engine takes, about."""

ENDING_SHARE: Final = 0.03
"""Measuring the speed may end by this share of the budget after it."""

LENGTH_SAMPLE: Final = 5_000
"""Texts whose lengths are counted, at most."""

PROBE_OPENING_SECONDS: Final = 60.0
"""Seconds that must be left to open a base's probe: a base without a masked-LM head may need one trained first."""

PROBE_SECONDS: Final = 15.0
"""Seconds that must be left to measure one encoder with an open probe."""


class ForgettingMeasurement:
    """Measures what recipes forgot, and opens each base's probe once."""

    def __init__(self, runner: Runner, time_left: Callable[[], float]) -> None:
        """Prepare to measure.

        Args:
            runner: A runner that has run. What is not measured for lack of time is added to its `left_out`.
            time_left: Returns the seconds that are left of the budget.
        """
        self._runner, self._time_left = runner, time_left
        self._open: dict[str, tuple[ForgettingProbe, dict[str, float]]] = {}

    def measure(self, result: CandidateResult) -> dict[str, Any] | None:
        """Return {"before", "after"}, each with mlm_loss and mlm_accuracy.

        Returns None if the recipe leaves its encoder as it was, if no time is left, or, after a warning, if the
        encoder cannot be measured.
        """
        candidate, store = result.candidate, self._runner.settings.store
        if candidate.recipe is None or (candidate.way == "frozen" and not candidate.further_pretrained):
            return None
        trial = result.best_trial()
        identity = self._runner.identity(trial)
        artifact = store.read(trial.id, "probed", identity)
        if artifact is not None:
            return dict(artifact.facts)
        if self._time_left() < (PROBE_SECONDS if candidate.recipe.base in self._open else PROBE_OPENING_SECONDS):
            self._runner.left_out.append(f"forgetting by {candidate.name}: no time was left to measure it")
            return None
        try:
            found = self._measure_trial(result, trial)
        except Error as error:
            warn(f"what {candidate.name} forgot could not be measured: {error.what}")
            return None
        store.write(trial.id, "probed", identity, Artifact(found, {}))
        return found

    def _measure_trial(self, result: CandidateResult, trial: Trial) -> dict[str, Any]:
        job = self._runner.trained_job(trial, result.trials[trial])
        probe, before = self._probe(job)
        model = self._runner.functions.restore(job, self._runner.weights(trial))
        return {"before": before, "after": probe.measure(getattr(model, "base_model", model))}

    def _probe(self, job: Job) -> tuple[ForgettingProbe, dict[str, float]]:
        """Return the base's probe and the scores of its untouched encoder."""
        if job.recipe.base not in self._open:
            probe = self._runner.functions.open_probe(job.recipe.base, cache_dir=job.cache_dir)
            self._open[job.recipe.base] = probe, probe.measure(probe.head.model.base_model)
        return self._open[job.recipe.base]


@dataclass(frozen=True)
class FinishedComparison:
    """A comparison whose trials have run."""

    out: Path
    """The comparison's folder."""
    runner: Runner
    started: float
    """When the comparison started, on the clock of the runner's functions."""
    budget_seconds: float | None
    """The budget; None if there is none."""
    max_rows: int | None
    """The limit of rows; None if there is none."""
    folds: int | None
    """Number of folds; None without folds."""
    bench: bool = False
    """Whether the speed of the recommended classifier is measured."""
    not_run: Mapping[str, NotRun] = field(default_factory=dict)
    """Candidates that were asked for and have no trial, by name."""
    reduced: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """What was made smaller for a candidate, by name: one plain sentence each. What is said of every candidate (such as
    fewer training rows) stands in the list of each, in the same words."""

    @property
    def results(self) -> dict[str, CandidateResult]:
        """Return the results of the candidates that ran, by name."""
        return self.runner.results

    @property
    def parts(self) -> Parts:
        """Return the parts of the first fold."""
        return self.runner.settings.folds[0]

    @property
    def test_parts(self) -> list[Part]:
        """Return the test part of each fold."""
        return [parts.test for parts in self.runner.settings.folds if parts.test is not None]

    @property
    def elapsed(self) -> float:
        """Return the seconds since the start."""
        return self.runner.functions.clock() - self.started

    @property
    def time_left(self) -> float:
        """Return the seconds that are left of the budget."""
        return float("inf") if self.budget_seconds is None else self.budget_seconds - self.elapsed


def write_results(finished: FinishedComparison, *, final: bool = True) -> dict[str, Any]:
    """Write the leaderboard, the best classifier and the page. Return the content of the leaderboard.

    Args:
        finished: the comparison.
        final: nothing follows. Otherwise forgetting is not measured yet, and weights stay.
    """
    test_rows = _shared_test_rows(finished)
    predictions = {
        name: _recipe_predictions(finished, result, test_rows)
        for name, result in finished.results.items()
        if result.status == "done"
    }
    decided = decide_from_predictions(list(predictions.values()), test_rows, scope_of(finished))
    if decided.recommended is None:
        remove_best(finished.out)
    else:
        _save_best(finished, finished.results[decided.recommended])
    forgetting = ForgettingMeasurement(finished.runner, lambda: finished.time_left) if final else None
    # First: what is not measured for lack of time is listed with the design.
    speed = measure_best(finished) if final and decided.recommended is not None else None
    board = _describe_results(finished, decided, predictions, test_rows, forgetting) | {"speed": speed}
    with storage.staged_file(finished.out / LEADERBOARD_FILE, overwrite=True) as fresh:
        storage.write_json(fresh, board)
    report.write_report(finished.out)
    # Last, so that a comparison that was stopped before need not train them again.
    if final:
        _remove_weights(finished)
    return board


def _describe_results(
    finished: FinishedComparison,
    decided: Verdict,
    predictions: Mapping[str, RecipePredictions],
    test_rows: SharedTestRows,
    forgetting: ForgettingMeasurement | None,
) -> dict[str, Any]:
    """Return the content of the leaderboard. predictions: of all recipes that are done, by name."""
    # Before the design: what is not measured for lack of time is listed there.
    recipes = [
        _recipe_entry(finished, candidate, predictions, test_rows, forgetting)
        for candidate in finished.runner.settings.candidates.values()
    ]
    return {
        "format": LEADERBOARD_FORMAT,
        "fullbake": __version__,
        "versions": runtime.versions(),
        "machine": _describe_machine(),
        "command": command_line(sys.argv),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": finished.elapsed,
        "data": _describe_data(finished),
        "metric": test_rows.metric,
        "label_names": list(test_rows.names),
        "problem_type": test_rows.problem.name,
        "positive": None if test_rows.positive is None else test_rows.names[test_rows.positive],
        "design": describe_design(finished),
        "recipes": recipes,
        "pairs": [pair.to_json() for pair in decided.pairs],
        "not_run": {name: found.to_json() for name, found in finished.not_run.items()},
        "reduced": {name: list(sentences) for name, sentences in finished.reduced.items()},
        "verdict": decided.to_json(),
        "disagreements": list_disagreements(list(predictions.values()), test_rows),
        "mistakes": _recommended_mistakes(finished, decided.recommended, test_rows),
        "stamps": _caveats(finished),
    }


def _recommended_mistakes(
    finished: FinishedComparison, name: str | None, test_rows: SharedTestRows
) -> list[dict[str, Any]]:
    """Return mistakes of the classifier in `best/`, on the test rows of its trial."""
    if name is None:
        return []
    result = finished.results[name]
    trial = result.best_trial()
    test, logits = finished.test_parts[trial.fold or 0], result.predictions[trial].logits
    return list_mistakes(test, logits, _decision(result.trials[trial], test_rows))


def _shared_test_rows(finished: FinishedComparison) -> SharedTestRows:
    tests, settings = finished.test_parts, finished.runner.settings
    names, positive = tests[0].source.label_names, settings.decision.positive
    return SharedTestRows(tests, settings.metric, tests[0].problem.positive_class(names, positive))


def scope_of(finished: FinishedComparison) -> Scope:
    """Return what did not run, the failures among it, and what was made smaller, by title."""
    titles = {name: candidate.title for name, candidate in finished.runner.settings.candidates.items()}
    failed = {
        name: NotRun(f"it failed ({result.reason})")
        for name, result in finished.results.items()
        if result.status == "failed"
    }
    not_run = {**finished.not_run, **failed}
    return Scope(
        {titles[name]: found for name, found in not_run.items()},
        {titles[name]: list(words) for name, words in finished.reduced.items() if name not in not_run},
    )


def _recipe_predictions(
    finished: FinishedComparison, result: CandidateResult, test_rows: SharedTestRows
) -> RecipePredictions:
    """Return the test predictions of a recipe, its folds put together."""
    trials, seeds = result.scored_trials(), result.scored_seeds()
    logits = [[result.predictions[trial].logits for trial in trials if trial.seed == seed] for seed in seeds]
    decided = [[_decide(result, trial, test_rows) for trial in trials if trial.seed == seed] for seed in seeds]
    return RecipePredictions(
        result.candidate.name,
        result.candidate.title,
        result.candidate.recipe is None,
        np.stack([np.concatenate(folds) for folds in logits]),
        np.stack([np.concatenate(folds) for folds in decided]),
        _train_seconds(finished.parts, result),
        depends_on_seed=result.candidate.depends_on_seed,
        kind=result.candidate.way,
    )


def _decide(result: CandidateResult, trial: Trial, test_rows: SharedTestRows) -> np.ndarray:
    probabilities = test_rows.problem.probabilities(result.predictions[trial].logits)
    return _decision(result.trials[trial], test_rows).decide(probabilities)


def _decision(result: TrialResult, test_rows: SharedTestRows) -> Decision:
    return Decision.from_json(result.decision, test_rows.problem, test_rows.names)


# The entry of a recipe


def _recipe_entry(
    finished: FinishedComparison,
    candidate: Candidate,
    predictions: Mapping[str, RecipePredictions],
    test_rows: SharedTestRows,
    forgetting: ForgettingMeasurement | None,
) -> dict[str, Any]:
    """Return a recipe's entry; without scores if it is not done. predictions: of all recipes that are done, by name."""
    result, own = finished.results.get(candidate.name), predictions.get(candidate.name)
    if result is None:
        result = CandidateResult(candidate, status="left_out", reason=reason_left_out(finished, candidate.name))
    entry: dict[str, Any] = {
        "name": candidate.name,
        "title": candidate.title,
        "way": candidate.way,
        "further_pretraining": candidate.further_pretrained,
        "status": result.status,
        "reason": result.reason,
        "rates": describe_rates(result),
        "rate": _most_frequent(list(result.chosen_rates.values())),
        "seeds": result.scored_seeds(),
        "restarts": describe_restarts(result),
        "collapses": describe_collapses(result),
        "cells": [trial.id for trial in result.trials],
    }
    if own is None:
        unknown = dict.fromkeys(("confusion", "calibration", "threshold_curve", "cost", "forgetting"))
        return entry | {"test": {}, "recall": [], "histories": [], **unknown}
    # The page draws one curve a seed: with folds, those of the first fold stand for the others.
    first = result.scored_trials()[0].fold
    histories = [result.trials[trial].history for trial in result.scored_trials() if trial.fold == first]
    return (
        entry
        | verdict.describe_test_scores(own, test_rows, list(predictions.values()))
        | {
            "histories": [history for history in histories if history],
            "cost": describe_cost(finished.parts, result),
            "forgetting": None if forgetting is None else forgetting.measure(result),
            "fold_rates": list(result.chosen_rates.values()) if finished.folds else None,
            "baseline": result.trials[result.scored_trials()[0]].baseline,
        }
    )


def reason_left_out(finished: FinishedComparison, name: str) -> str:
    """Return why a candidate did not run."""
    found = finished.not_run.get(name)
    return "left out" if found is None else found.reason


def describe_rates(result: CandidateResult) -> list[dict[str, Any]]:
    """Return each rate, from high to low, with its validation scores and their mean.

    The trial of the first seed tries all rates, those of the other seeds train at the one that it chose.
    """
    values: dict[float, list[float | None]] = {}
    for trial, found in result.trials.items():
        if trial.size != result.size:
            continue
        tried: dict[float, float | None] = {entry["rate"]: entry["validation"] for entry in found.rates}
        if found.rate is not None:
            tried[found.rate] = found.value
        for rate, value in tried.items():
            values.setdefault(rate, []).append(value)
    entries = []
    for rate in sorted(values, reverse=True):
        known = [value for value in values[rate] if value is not None]
        entries.append({"rate": rate, "validation": values[rate], "mean": float(np.mean(known)) if known else None})
    return entries


def _most_frequent(chosen: Sequence[float | None]) -> float | None:
    """Return the rate that most folds chose; the first of equals."""
    return max(chosen, key=chosen.count) if chosen else None


def describe_restarts(result: CandidateResult) -> list[dict[str, str]]:
    """Return the trials that were started again, with the reason."""
    return [{"cell": trial.id, "reason": reason} for trial, found in result.trials.items() for reason in found.restarts]


def describe_collapses(result: CandidateResult) -> list[dict[str, str]]:
    """Return the trials that stayed collapsed or failed, with the reason."""
    return [{"cell": trial.id, "reason": found.reason} for trial, found in result.trials.items() if found.reason]


def describe_cost(parts: Parts, result: CandidateResult) -> dict[str, Any]:
    """Return the cost of a recipe: seconds, bytes and parameters, JSON values.

    Args:
        parts: The rows that it was trained and judged on.
        result: Its trials.
    """
    trials = [result.trials[trial] for trial in result.scored_trials()]
    memory = [trial.memory for trial in trials if trial.memory is not None]
    return {
        "train_seconds": _train_seconds(parts, result),
        "search_seconds": _shared_seconds(parts, result) + sum(trial.seconds for trial in result.trials.values()),
        "peak_memory_bytes": max(memory) if memory else None,
        "trained_parameters": trials[0].parameters,
        "bundle_bytes": trials[0].size,
        "rows_per_second": _rows_per_second(result),
    }


def _train_seconds(parts: Parts, result: CandidateResult) -> float:
    """Return the seconds of one classifier."""
    trainings = [result.trials[trial].seconds for trial in result.scored_trials()]
    return _shared_seconds(parts, result) + float(np.mean(trainings))


def _shared_seconds(parts: Parts, result: CandidateResult) -> float:
    """Return the seconds of what all trainings of a recipe share: further pretraining and features."""
    stage = float(np.mean([result.trials[trial].stage_seconds for trial in result.scored_trials()]))
    # Features may have come from the cache or from another recipe's trial, so their time is computed, not measured.
    rows = len(parts.train) + len(parts.selection_part)
    return stage + (rows / _rows_per_second(result) if result.candidate.way == "frozen" else 0.0)


def _rows_per_second(result: CandidateResult) -> float:
    return float(np.median([result.predictions[trial].rows_per_second for trial in result.scored_trials()]))


# The best classifier


def measure_best(finished: FinishedComparison) -> list[dict[str, Any]] | None:
    """Return how fast each engine of the bundle `best/` answers, as JSON values; None if it is not measured."""
    if not finished.bench:
        return None
    runner, source = finished.runner, finished.test_parts[0].source
    limit = finished.time_left + ENDING_SHARE * (finished.budget_seconds or 0.0)
    too_late = "speed of the recommended classifier: no time was left to measure it"
    if limit < ENGINES_SECONDS:
        runner.left_out.append(too_late)
        return None
    rows = finished.test_parts[0].indices[:BENCH_TEXTS]
    texts = [column.take(rows).to_pylist() for column in (source.texts, source.text_pair) if column is not None]
    try:
        found = runner.functions.measure_engines(
            finished.out / BEST, texts, threads=runtime.threads(), seconds=1.0, limit=limit
        )
    except Error as error:
        warn(f"the speed of the recommended classifier could not be measured: {error.what}")
        return None
    if not found:
        runner.left_out.append(too_late)
        return None
    return [speed.to_json() for speed in found]


def remove_best(out: Path) -> None:
    """Remove the bundle that an earlier verdict recommended, if there is one.

    Args:
        out: The comparison's folder.
    """
    if (out / BEST).is_dir():
        storage.remove_tree(out / BEST)


def _save_best(finished: FinishedComparison, result: CandidateResult) -> None:
    """Save the recipe's classifier in `best/`, unless it is there already."""
    trial, runner = result.best_trial(), finished.runner
    identity, target = runner.identity(trial), finished.out / BEST
    if _saved_run(target) == identity:
        return
    found = result.trials[trial]
    job = runner.trained_job(trial, found)
    calibrated = _calibrated_decision(found, job.parts.train)
    record = record_of(job, calibrated, found.history, result.predictions[trial].logits)
    # `run` lets the same command find this bundle again; no truncation was tried, as a comparison refuses `auto`.
    record = RunRecord(record.facts | {"run": identity, "truncation_tried": {}}, record.seen, record.history)
    model = runner.functions.restore(job, runner.weights(trial))
    classifier = Classifier.of_network(model, job.tokenizer, job.recipe.tokens, record, calibrated.decision)
    classifier.save(target, overwrite=True)


def _saved_run(folder: Path) -> str | None:
    """Return the identity of the trial whose bundle is in the folder; None if there is none."""
    try:
        run = (storage.read_manifest_file(folder) or {}).get("run")
    except (OSError, ValueError):
        return None
    return None if run is None else str(run)


def _calibrated_decision(result: TrialResult, train: Part) -> CalibratedDecision:
    decision = Decision.from_json(result.decision, train.problem, train.source.label_names)
    assert result.calibration is not None
    return CalibratedDecision(decision, result.logits, result.calibration, result.thresholds)


def _remove_weights(finished: FinishedComparison) -> None:
    """Remove all stored weights: the best classifier is saved, any other can be trained again to the same bits."""
    for result in finished.results.values():
        for trial in result.trials:
            finished.runner.settings.store.remove(trial.id, "weights")


# Facts about the design, the machine and the data


def describe_design(finished: FinishedComparison) -> dict[str, Any]:
    """Return the seeds, rates and budget that were used, and what was left out, as JSON values."""
    return {
        "seeds": sorted({trial.seed for result in finished.results.values() for trial in result.trials}),
        "rates": {name: [entry["rate"] for entry in describe_rates(found)] for name, found in finished.results.items()},
        "folds": finished.folds,
        "budget_seconds": finished.budget_seconds,
        # The runner's list may have grown since: forgetting is measured late.
        "left_out": [
            *(f"{name}: {found.reason}" for name, found in finished.not_run.items()),
            *dict.fromkeys(finished.runner.left_out),
        ],
    }


def _describe_machine() -> dict[str, Any]:
    return {
        "processor": runtime.processor_name(),
        "cores": runtime.count_processors(),
        "threads": runtime.threads(),
        "device": runtime.device().type,
        "system": platform.system(),
    }


def _describe_data(finished: FinishedComparison) -> dict[str, Any]:
    parts, tests = finished.parts, finished.test_parts
    job = next(iter(finished.runner.settings.jobs.values()))[0]
    facts = inspection.inspect_parts(
        parts,
        job.recipe.data,
        partial(count_tokens, job.tokenizer, prompt=job.recipe.tokens.prompt),
        job.recipe.tokens.max_length,
    )
    return {
        "source": Path(parts.train.source.source).name,
        "columns": parts.train.source.columns.to_json(),
        "rows": len(parts.train.source),
        "train": len(parts.train),
        "validation": len(parts.selection_part),
        "test": sum(map(len, tests)),
        "folds": finished.folds,
        "max_rows": finished.max_rows,
        "group": parts.train.source.columns.group,
        "groups": _test_groups(finished),
        "dropped_labels": parts.train.source.dropped_labels,
        "near_overlap": sum(other.near_overlap for other in finished.runner.settings.folds),
        "duplicates": _count_duplicates(parts),
        "labels": _count_labels(parts, tests),
        "lengths": _describe_lengths(parts, job.tokenizer, job.recipe.tokens.max_length or 0),
        "fingerprint": fingerprint([part.fingerprint() for part in parts.by_name().values()]),
        "findings": [describe_finding(found) for found in facts.findings],
    }


def _count_duplicates(parts: Parts) -> dict[str, int]:
    """Count the equal or nearly equal rows that were put into the same part, and the rows that were left out."""
    sizes = np.zeros(0, np.int64) if parts.groups is None else np.bincount(parts.groups)
    return {"kept together": int(sizes[sizes > 1].sum()), "removed": parts.overlap_dropped}


def _count_labels(parts: Parts, tests: Sequence[Part]) -> list[dict[str, Any]]:
    names = parts.train.source.label_names
    train, validation = (count_labels(part.labels, len(names)) for part in (parts.train, parts.selection_part))
    test = np.sum([count_labels(part.labels, len(names)) for part in tests], axis=0)
    return [
        {"name": name, "train": int(a), "validation": int(b), "test": int(c)}
        for name, a, b, c in zip(names, train, validation, test, strict=True)
    ]


def _describe_lengths(parts: Parts, tokenizer: Any, max_length: int) -> dict[str, Any]:
    """Count the tokens of the texts, special ones included; of an even sample if there are many."""
    texts = parts.train.source.joined_texts.to_pylist()
    counts = count_tokens(tokenizer, texts[:: max(len(texts) // LENGTH_SAMPLE, 1)]).lengths
    return {
        "median": int(np.median(counts)),
        "p95": int(np.quantile(counts, 0.95)),
        "longest": int(counts.max()),
        "max_length": max_length,
        "cut_share": float((counts > max_length).mean()),
    }


def _test_groups(finished: FinishedComparison) -> int | None:
    """Return how many groups of the group column the test rows of all folds are in; None without such a column."""
    own = [count_groups(parts.test) for parts in finished.runner.settings.folds if parts.test is not None]
    return None if None in own else sum(number for number in own if number is not None)


def _caveats(finished: FinishedComparison) -> list[str]:
    """Return the warnings that must accompany the scores."""
    caveats = []
    allowed = max(parts.overlap_allowed for parts in finished.runner.settings.folds)
    if allowed:
        group = finished.parts.train.source.columns.group
        shared = "" if group is None else f", by their text or their {group!r}"
        caveats.append(
            f"{allowed:,} training rows also are in validation or test{shared} (--allow-overlap): the scores are too "
            "high."
        )
    near = sum(parts.near_overlap for parts in finished.runner.settings.folds)
    if near:
        caveats.append(
            f"{near:,} validation and test rows are nearly equal to a training text (--near-duplicates apart): the "
            "scores may be too high."
        )
    groups = _test_groups(finished)
    if groups is not None and groups < FEW_GROUPS:
        caveats.append(
            f"The test rows are of {groups:,} groups only (--group): from so few the intervals and p-values are rough."
        )
    dropped = finished.parts.train.source.dropped_labels
    if dropped:
        caveats.append(f"{describe_dropped(dropped).capitalize()} (--drop-rare): the scores are of the other labels.")
    if finished.max_rows is not None:
        caveats.append(f"The data were cut to {len(finished.parts.train.source):,} rows (--max-rows).")
    staged = [result.candidate for result in finished.results.values() if result.candidate.further_pretrained]
    if any(_transductive(candidate) for candidate in staged):
        caveats.append("Texts of the validation and test parts were used in further pretraining (--transductive).")
    if staged:
        caveats.append(
            "Further pretraining was run once and shared by all seeds: what another run would change is not in the "
            "intervals."
        )
    return caveats


def _transductive(candidate: Candidate) -> bool:
    return candidate.recipe is not None and candidate.recipe.stage.transductive
