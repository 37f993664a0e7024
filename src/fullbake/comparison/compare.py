"""The folder of a comparison: what it is of, who works in it, and whether it may be gone on with.

Recipes x rates x seeds on the same rows: `compare` trains every cell, lets validation choose, and says who won.

A comparison is a folder. `comparison.json` says of what it is, `cells/` holds what has been finished (so that the same
command goes on where it stopped, whatever stopped it), `leaderboard.json` all figures, `best/` the recommended
classifier, and `report.html` the page.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from filelock import FileLock, Timeout

from fullbake.comparison import live_table
from fullbake.comparison.design import (
    DEFAULT_RECIPES,
    Candidate,
    Design,
    RecipePlan,
    Trial,
    describe_left_out,
    full_design,
    parse_duration,
    pick_design,
    read_candidates,
    smaller_designs,
)
from fullbake.comparison.forecast import DataSizes, Forecast, Speed, measure_speed
from fullbake.comparison.leaderboard import FORMAT, FinishedComparison, write_results
from fullbake.comparison.runner import CLOSING_SECONDS, ArtifactStore, Runner, RunnerSettings, without_test
from fullbake.config.problems import metric_phrase
from fullbake.core import runtime, storage
from fullbake.core.console import format_duration, say, silenced
from fullbake.core.errors import DataError, OutputError, RecipeError
from fullbake.core.hashing import fingerprint
from fullbake.data.dataset import Dataset
from fullbake.data.labels import count_labels
from fullbake.data.splits import Parts, divide, divide_into_test_folds, read_labeled, split
from fullbake.models import network
from fullbake.models.encoder import load_encoder
from fullbake.training import checkpoints
from fullbake.training.job import Job, check_problem, feature_cache, recipe_tokenizer, resolve_recipe

WORKSPACE_FILE: Final = "comparison.json"


@contextmanager
def open_workspace(folder: Path, identity: Mapping[str, Any], *, restart: bool) -> Iterator[None]:
    """The folder, held while the block runs: empty, of this comparison, or emptied where `restart` says so.

    identity: what the comparison is of, JSON values, among them `recipes` by name, which may grow. Raises OutputError
    where the folder holds something else, naming what differs, or another process works in it.
    """
    place = folder.resolve()
    place.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(place.with_name(f".{place.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise OutputError(
            "another process is running a comparison here", where=str(folder), remedy="Name another --out."
        ) from error
    try:
        _enter(folder, identity, restart)
        yield
    finally:
        lock.release()
        Path(lock.lock_file).unlink(missing_ok=True)


def _enter(folder: Path, identity: Mapping[str, Any], restart: bool) -> None:
    known = _known(folder)
    if known is None:
        storage.require_vacant(folder)
    elif restart:
        storage.remove_tree(folder)
        known = None
    else:
        _refuse_other(folder, known, identity)
    recipes = {**(known or {}).get("recipes", {}), **identity["recipes"]}
    with storage.staged_file(folder / WORKSPACE_FILE, overwrite=True) as fresh:
        storage.write_json(fresh, {**identity, "recipes": recipes})


def _known(folder: Path) -> dict[str, Any] | None:
    try:
        known = storage.read_json(folder / WORKSPACE_FILE)
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _refuse_other(folder: Path, known: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    both = set(known.get("recipes", {})) & set(now["recipes"])
    sides = [
        {**side, "recipes": {name: recipe for name, recipe in side.get("recipes", {}).items() if name in both}}
        for side in (known, now)
    ]
    there, here = sides
    found = checkpoints.list_differences(there, here)
    if found:
        raise OutputError(
            "the folder holds a comparison of something else",
            where=str(folder),
            got="; ".join(found[:6]) + ("; and more" if len(found) > 6 else ""),
            remedy="Name another --out, set back what differs, or pass --restart to throw that comparison away.",
        )


TEST: Final = 0.2
"""Share of the rows that is test where nothing else is said."""

MARGIN: Final = 0.85
"""Share of the time that a design may be expected to take: a forecast is no promise."""


def compare(
    data: Dataset | str | Path,
    recipes: Sequence[str | Path] = DEFAULT_RECIPES,
    *,
    out: str | Path,
    seeds: int = 3,
    rates: tuple[float, ...] | None = None,
    head_rates: tuple[float, ...] | None = None,
    budget: str | None = None,
    folds: int | None = None,
    max_rows: int | None = None,
    restart: bool = False,
    cache_dir: str | Path | None = None,
    **fields: Any,
) -> dict[str, Any]:
    """Train recipes on the same rows with the same effort, and say which is better and whether that is real.

    data: a Dataset, or a file or hub id read by the fields. recipes: shipped names, `further-` and one of them,
    baselines (majority, tfidf), or YAML files. out: the comparison's folder; where it holds this comparison's cells,
    these are gone on from. seeds: of each recipe. rates, head_rates: learning rates that validation chooses from, for
    encoders and for heads. budget: a time such as `10m`: the largest design that is expected to fit is taken. folds:
    that many times another part of the rows is test; None for one split. max_rows: of the data, at most. restart: throw
    away what the folder holds. fields: of every recipe, such as base, text, label, metric, max_length.

    Returns what `leaderboard.json` holds. Raises Error's children: RecipeError, DataError, BaseModelError, OutputError
    (the folder holds another comparison), Fault; Interrupted where a signal stopped a long cell.
    """
    started = time.monotonic()
    seconds = None if budget is None else parse_duration(budget)
    _check_counts(seeds, folds, max_rows)
    entrants = read_candidates(recipes, rates=rates, head_rates=head_rates, **_fields(fields))
    call = _CompareOptions(Path(out), seeds, seconds, folds, max_rows, cache_dir, started)
    first = next(entrant.recipe for entrant in entrants if entrant.recipe is not None)
    dataset = _sample(data if isinstance(data, Dataset) else read_labeled(data, first.data), max_rows)
    parts = divide_into_test_folds(dataset, first.data, folds) if folds else [divide(dataset, first.data)]
    _check_parts(parts)
    jobs = _jobs(entrants, parts, cache_dir)
    with open_workspace(call.out, _identity(jobs, parts, call), restart=restart):
        return _run(call, entrants, jobs, parts)


@dataclass(frozen=True)
class _CompareOptions:
    """What was asked for. seconds: the budget. started: by `time.monotonic`."""

    out: Path
    seeds: int
    seconds: float | None
    folds: int | None
    max_rows: int | None
    cache_dir: str | Path | None
    started: float


def _fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """With what a comparison takes where nothing is said. Its own folds are of test: validation has a part."""
    given = {name: value for name, value in fields.items() if value is not None}
    return {"base": "demo", "test": TEST, "metric": "f1_macro"} | given | {"folds": 0}


def _check_counts(seeds: int, folds: int | None, max_rows: int | None) -> None:
    for name, value, least in (("seeds", seeds, 1), ("folds", folds, 2), ("max-rows", max_rows, 1)):
        if value is not None and value < least:
            raise RecipeError(f"{name} is too small", expected=f"{least} or more", got=str(value))


def _sample(dataset: Dataset, max_rows: int | None) -> Dataset:
    """At most so many rows, of each class its share."""
    if max_rows is None or max_rows >= len(dataset):
        return dataset
    assert dataset.labels is not None
    held = split(np.arange(len(dataset)), dataset.labels, max_rows / len(dataset), 0)[1]
    say(f"{len(held):,} of {len(dataset):,} rows are taken (--max-rows {max_rows:,}), of each class its share")
    return dataset.take(held)


def _check_parts(folds: Sequence[Parts]) -> None:
    for parts in folds:
        for name, part in parts.named().items():
            counts = count_labels(part.labels, len(part.source.label_names))
            if int(counts.min()) < 1:
                missing = part.source.label_names[int(counts.argmin())]
                raise DataError(
                    "too few rows to compare recipes on",
                    where=part.source.source,
                    expected="a row of every label in each part",
                    got=f"no {name} row labelled {missing!r}",
                    remedy="Add rows of it, raise --max-rows or the share of that part, or lower --folds.",
                )


def _jobs(entrants: Sequence[Candidate], folds: Sequence[Parts], cache_dir: str | Path | None) -> dict[str, list[Job]]:
    """A job a fold for each recipe that has an encoder, its recipe with all defaults filled in."""
    cache, keys, jobs = feature_cache(cache_dir), {}, {}
    for entrant in entrants:
        if entrant.recipe is None:
            continue
        recipe = resolve_recipe(entrant.recipe)
        if recipe.tokens.truncation == "auto":
            raise RecipeError(
                "truncation auto is a choice of its own", where=entrant.name, remedy="Name one: head, tail or windows."
            )
        for parts in folds:
            check_problem(recipe, parts)
        if recipe.base not in keys:
            keys[recipe.base] = network.encoder_fingerprint(load_encoder(recipe.base))
        tokenizer, key = recipe_tokenizer(recipe), keys[recipe.base]
        jobs[entrant.name] = [Job(recipe, parts, tokenizer, key, cache, cache_dir=cache_dir) for parts in folds]
    return jobs


def _identity(jobs: Mapping[str, Sequence[Job]], folds: Sequence[Parts], call: _CompareOptions) -> dict[str, Any]:
    """What a comparison is of, JSON values: going on needs all of it alike, but for recipes that are new."""
    data = [{name: part.fingerprint() for name, part in parts.named().items()} for parts in folds]
    told = {name: own[0].recipe.model_dump(mode="json") for name, own in jobs.items()}
    for recipe in told.values():
        recipe["training"].pop("learning_rate")
    return {
        "format": FORMAT,
        "data": fingerprint(data),
        "max_rows": call.max_rows,
        "folds": call.folds,
        "recipes": told,
        "threads": runtime.threads(),
        "device": runtime.device().type,
        "versions": runtime.versions(),
    }


# The run


def _run(
    call: _CompareOptions, entrants: Sequence[Candidate], jobs: Mapping[str, Sequence[Job]], folds: Sequence[Parts]
) -> dict[str, Any]:
    lines = [entrant.line(call.seeds) for entrant in entrants]
    forecast = _forecast(entrants, jobs, folds)
    design, missing = _design(call, lines, forecast)
    shortened = [entrant.shortened(design.share) for entrant in entrants]
    if design.share < 1:
        jobs = {name: [_with_stage(job, design.share) for job in own] for name, own in jobs.items()}
    any_job = next(iter(jobs.values()))[0]
    setting = RunnerSettings(
        cells=ArtifactStore(call.out / "cells"),
        entrants={entrant.name: entrant for entrant in shortened},
        jobs=jobs,
        folds=folds,
        metric=any_job.recipe.training.metric,
        decision=any_job.recipe.decision,
        rules=fingerprint(
            any_job.recipe.decision.model_dump(mode="json"), any_job.recipe.training.metric, runtime.versions()
        ),
    )
    plan = design.cells(lines, call.folds)
    deadline = None if call.seconds is None else call.started + call.seconds
    totals = [live_table.LiveRow(name, sum(cell.entrant == name for cell in plan)) for name in design.names]
    _announce(plan, forecast, design, lines, call)
    with live_table.show_live_table(metric_phrase(setting.metric), totals) as board:
        rounds = Runner(setting, plan, replace(forecast, entrants=setting.entrants), board, deadline)
        rounds.run()
        board.begin("forgetting, the bundle and the page", CLOSING_SECONDS)
        missing += rounds.gone
        return write_results(_ending(call, lines, design, setting, rounds, missing))


def _ending(
    call: _CompareOptions,
    lines: Sequence[RecipePlan],
    design: Design,
    setting: RunnerSettings,
    rounds: Runner,
    missing: list[str],
) -> FinishedComparison:
    return FinishedComparison(
        out=call.out,
        setting=setting,
        rounds=rounds,
        lines=lines,
        design=design,
        left_out=missing,
        started=call.started,
        seconds=call.seconds,
        max_rows=call.max_rows,
        folds=call.folds,
    )


def _with_stage(job: Job, share: float) -> Job:
    if job.recipe.further_pretraining is None:
        return job
    shortened = Candidate("", "", job.recipe).shortened(share).recipe
    assert shortened is not None
    return replace(job, recipe=shortened)


def _forecast(entrants: Sequence[Candidate], jobs: Mapping[str, Sequence[Job]], folds: Sequence[Parts]) -> Forecast:
    """Every base tried by a few batches."""
    paces: dict[str, Speed] = {}
    for own in jobs.values():
        job = own[0]
        if job.recipe.base not in paces:
            say(f"base {job.recipe.base}: measuring its speed")
            with silenced():
                paces[job.recipe.base] = measure_speed(replace(job, parts=without_test(job.parts)))
    parts = folds[0]
    assert parts.test is not None
    test = sum(len(other.test) for other in folds if other.test is not None)
    whole = len(parts.train.source) + (0 if parts.test.source is parts.train.source else len(parts.test.source))
    sizes = DataSizes(len(parts.train), len(parts.selection_part), test // len(folds), whole, len(folds))
    return Forecast({entrant.name: entrant for entrant in entrants}, paces, sizes)


def _design(call: _CompareOptions, lines: Sequence[RecipePlan], forecast: Forecast) -> tuple[Design, list[str]]:
    """The design to run, and what it leaves out."""
    full = full_design(lines)
    if call.seconds is None:
        return full, []
    left = (call.started + call.seconds - time.monotonic()) * MARGIN - CLOSING_SECONDS

    def cost(design: Design) -> float:
        return forecast.design(design, lines, call.folds)

    def alone(name: str) -> float:
        return forecast.design(Design((name,), 1, 1, 0.03), lines, call.folds)

    classifiers = [line.name for line in lines if forecast.entrants[line.name].recipe is not None]
    dearest = sorted(classifiers, key=alone, reverse=True)[:-1]
    chosen = pick_design(smaller_designs(lines, dearest), cost, left)
    if chosen is None:
        least = min(cost(design) for design in smaller_designs(lines, dearest))
        raise RecipeError(
            "the budget is too short for any comparison of these rows",
            expected=f"about {format_duration((least + CLOSING_SECONDS) / MARGIN)} or more",
            got=format_duration(call.seconds),
            remedy="Raise --budget, or take fewer rows with --max-rows.",
        )
    reason = f"the budget of {format_duration(call.seconds)} is too short"
    missing = describe_left_out(full, chosen, reason)
    for line in missing:
        say(f"to keep to the budget, {line}")
    return chosen, missing


def _announce(
    plan: Sequence[Trial], forecast: Forecast, design: Design, lines: Sequence[RecipePlan], call: _CompareOptions
) -> None:
    expected = forecast.design(design, lines, call.folds) + CLOSING_SECONDS
    rows = forecast.sizes
    say(
        f"{rows.train:,} training, {rows.validation:,} validation and {rows.test:,} test rows"
        f"{f', in {call.folds} folds' if call.folds else ''}; {len(plan)} trainings of {len(design.names)} recipes, "
        f"about {format_duration(expected)}{'' if call.seconds else ' (--budget 10m takes what fits into that)'}"
    )
