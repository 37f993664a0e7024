"""Compare recipes on the same rows: train all trials, let validation choose, and say which recipe is best.

A comparison is a folder. `comparison.json` says what it compares, `cells/` holds every finished trial (so that the same
command continues wherever it was stopped), `leaderboard.json` has all results, `best/` is the recommended classifier,
and `report.html` is the page.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import numpy as np

from fullbake.comparison import live_table
from fullbake.comparison.artifacts import ArtifactStore
from fullbake.comparison.design import DEFAULT_RECIPES, Candidate, parse_budget, read_candidates, row_shares
from fullbake.comparison.forecast import DataSizes, Forecast, Speed
from fullbake.comparison.functions import ComparisonFunctions
from fullbake.comparison.leaderboard import FinishedComparison, write_results
from fullbake.comparison.placement import Placement, placed
from fullbake.comparison.recorded_trials import recorded_comparison
from fullbake.comparison.report import LEADERBOARD_FORMAT
from fullbake.comparison.result import Comparison
from fullbake.comparison.runner import ENTRY_MARGIN, Runner, RunnerSettings
from fullbake.comparison.schedule import Plan
from fullbake.comparison.trial_work import without_test
from fullbake.config.recipe import Recipe
from fullbake.core import runtime, storage
from fullbake.core.arguments import describe_value
from fullbake.core.console import format_duration, say, silenced, warn
from fullbake.core.errors import DataError, OutputError, RecipeError
from fullbake.core.hashing import fingerprint
from fullbake.core.processors import ThreadSetting, parse_threads
from fullbake.core.tracker_names import Track, find_trackers
from fullbake.core.tracking import Tracker
from fullbake.core.tracking_worker import TRACKING_FILE
from fullbake.data.dataset import Dataset
from fullbake.data.label_checks import drop_rare_labels
from fullbake.data.labeled_files import read_labeled
from fullbake.data.labels import count_labels
from fullbake.data.sources import GivenParts, as_parts
from fullbake.data.splits import Parts, divide, divide_into_test_folds, sample_rows
from fullbake.evaluation.metrics import check_metric, metric_phrase
from fullbake.models import network
from fullbake.models.admission import admit
from fullbake.models.encoding import report_unknown_tokens
from fullbake.training import checkpoints
from fullbake.training.baselines import characters_read
from fullbake.training.job import (
    Job,
    check_problem,
    describe_base_use,
    feature_cache,
    recipe_tokenizer,
    resolve_recipe,
)

WORKSPACE_FILE: Final = "comparison.json"

DEFAULT_TEST_SHARE: Final = 0.2
"""Share of the rows that is test if the call does not say."""

UNKNOWN_SAMPLE: Final = 3_000
"""Rows at most in which tokens that the base does not know are counted."""

CELLS: Final = "cells"
"""The folder of the finished trials, within that of the comparison."""


def compare(
    data: Any,
    recipes: str | Sequence[str | Path] = DEFAULT_RECIPES,
    *,
    out: str | Path,
    seeds: int = 3,
    rates: float | tuple[float, ...] | None = None,
    head_rates: float | tuple[float, ...] | None = None,
    budget: str | None = None,
    folds: int | None = None,
    max_rows: int | None = None,
    restart: bool = False,
    bench: bool = False,
    threads: ThreadSetting = "auto",
    jobs: int | None = None,
    on: str | None = None,
    cache_dir: str | Path | None = None,
    track: Track = None,
    functions: ComparisonFunctions | None = None,
    **fields: Any,
) -> Comparison:
    """Train recipes on the same rows with the same effort, and say which is best and whether the difference is real.

    Args:
        data: Labeled rows, as for `adapt`; files and tables are read as the fields say.
        recipes: Shipped names, `further-` and a shipped name, baselines (majority, tfidf), or YAML files; a string may
            name several, with commas between them.
        out: The comparison's folder. If it holds the same comparison, its finished trials are used.
        seeds: Seeds of each recipe.
        rates: Learning rates for recipes that train the base, from which validation chooses. None: those of the recipe.
        head_rates: The same for heads on a frozen base. None: those of the recipe; four rates for `frozen-mlp`.
        budget: A time such as `10m`. Every recipe is trained once first, made smaller if need be; the rest of the time
            sharpens the verdict with whole trainings and more seeds.
        folds: Split the rows into so many folds; each is the test part once. None: one split.
        max_rows: Use at most so many rows of the data.
        restart: Delete the comparison that the folder holds, and start again.
        bench: Measure at the end how fast the recommended classifier answers on this machine, in about ten seconds.
        threads: How many threads each trial computes with. `auto` looks before each one how many processors are free.
        jobs: How many trials run at once, each in a process of its own with a part of the processors. None: one, in
            this process; on a cluster, as many as it has room for.
        on: Where the trials run: `ray` (the cluster of RAY_ADDRESS or of this machine, else a new one here),
            `ray:local` (always a new one), or `ray:HOST:PORT`. None: this machine.
        cache_dir: Where features and further-pretrained bases are cached. None: the user's cache folder.
        track: Where to record the comparison, as for `adapt`: each trial is a run of its own below one parent.
        functions: What trains, scores and tells the time; for tests. None: the real functions.
        **fields: Recipe fields for every recipe, such as base, text, label, metric, max_length.

    Returns:
        The content of `leaderboard.json`, a dict that a notebook shows as a table.

    Raises:
        RecipeError: A recipe or an option is wrong, or the budget is too short.
        DataError: The data cannot be read or are too few.
        BaseModelError: The base cannot be used.
        OutputError: The folder holds something else, or another process uses it.
        Fault: The work failed, for example because the disk is full.
        Interrupted: A signal stopped a trial that writes checkpoints.
    """
    functions, trackers = functions or ComparisonFunctions(), find_trackers(track)
    started = functions.clock()
    budget_seconds = None if budget is None else parse_budget(str(budget))
    recipes = [name.strip() for name in recipes.split(",")] if isinstance(recipes, str) else list(recipes)
    rates, head_rates = ((value,) if isinstance(value, float) else value for value in (rates, head_rates))
    threads = parse_threads(str(threads))
    _check_counts(seeds, folds, max_rows)
    given = as_parts(data)
    fields |= _part_fields(given, fields, folds)
    candidates = read_candidates(recipes, rates=rates, head_rates=head_rates, **_with_defaults(fields))
    check_metric(_first_recipe(candidates).training.metric)
    storage.require_writable(out)  # now, not after all rows were read
    with placed(on, jobs, threads) as placement:
        options = _CompareOptions(
            Path(out), seeds, budget_seconds, folds, max_rows, threads, started, functions, bench, placement, cache_dir
        )
        return _compare(options, given, candidates, restart, trackers)


def _first_recipe(candidates: Sequence[Candidate]) -> Recipe:
    return next(candidate.recipe for candidate in candidates if candidate.recipe is not None)


def _compare(
    options: "_CompareOptions",
    given: GivenParts,
    candidates: Sequence[Candidate],
    restart: bool,
    trackers: Sequence[Tracker],
) -> Comparison:
    """Read the rows and run the comparison: `compare` after its arguments were checked."""
    folds, first, placement = options.folds, _first_recipe(candidates), options.placement
    read = given.train if isinstance(given.train, Dataset) else read_labeled(given.train, first.data)
    dataset = sample_rows(drop_rare_labels(read, first.data.drop_rare), options.max_rows)
    parts = divide_into_test_folds(dataset, first.data, folds) if folds else [divide(dataset, first.data, given.others)]
    _check_parts(parts)
    jobs = _make_jobs(candidates, parts, options.cache_dir)
    identity = _describe_comparison(jobs, parts, options)
    with open_workspace(options.out, identity, restart=restart), runtime.restored_threads():
        # before the speed is measured
        options.functions.use_threads(options.threads if placement is None else placement.threads)
        with recorded_comparison(trackers, options.out, identity, len(parts[0].train)) as recorded:
            board = _run(options, candidates, jobs, parts)
            recorded.finish(board)
            return Comparison(board, options.out)


@dataclass(frozen=True)
class _CompareOptions:
    """The options of a call of `compare`."""

    out: Path
    seeds: int
    budget_seconds: float | None
    folds: int | None
    max_rows: int | None
    threads: ThreadSetting
    started: float
    """When the call began, on the clock of `functions`."""
    functions: ComparisonFunctions
    bench: bool
    """Whether the speed of the recommended classifier is measured at the end."""
    placement: Placement | None = None
    """Where the trials run; None for this process."""
    cache_dir: str | Path | None = None

    @property
    def deadline(self) -> float | None:
        """Return when to be done, on the clock of `functions`; None without a budget."""
        return None if self.budget_seconds is None else self.started + self.budget_seconds


def _with_defaults(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the given fields and the defaults of a comparison."""
    given = {name: value for name, value in fields.items() if value is not None}
    # `folds` of a recipe would replace its validation part; a comparison needs that part, and its own folds are of
    # test.
    return {"base": "demo", "test": DEFAULT_TEST_SHARE} | given | {"folds": 0}


def _part_fields(given: GivenParts, fields: Mapping[str, Any], folds: int | None) -> dict[str, str]:
    """Return the fields that name the parts given beside the training rows. Raise RecipeError if folds exclude them."""
    if given.others and folds:
        raise RecipeError(
            "folds make test parts of the training rows, so no other part can be given",
            got=f"folds={folds} and the part {next(iter(given.others))!r} of the data",
            remedy="Leave folds out, or pass data['train'] alone.",
        )
    shares = SimpleNamespace(**{name: fields.get(name) for name in given.others})
    return given.fields(shares)


def _check_counts(seeds: int, folds: int | None, max_rows: int | None) -> None:
    for name, value, least in (("seeds", seeds, 1), ("folds", folds, 2), ("max-rows", max_rows, 1)):
        if value is None:
            continue
        if not isinstance(value, int):
            raise RecipeError(f"{name} is no whole number", expected=f"{least} or more", got=describe_value(value))
        if value < least:
            raise RecipeError(f"{name} is too small", expected=f"{least} or more", got=str(value))


def _check_parts(folds: Sequence[Parts]) -> None:
    """Raise DataError unless every part has a row of every class.

    Where a row may have many labels, a part may lack some: only a warning names them.
    """
    for parts in folds:
        for name, part in parts.by_name().items():
            counts = count_labels(part.labels, len(part.source.label_names))
            if int(counts.min()) < 1:
                missing = part.source.label_names[int(counts.argmin())]
                if not part.problem.exclusive:
                    warn(f"no {name} row has the label {missing!r}, so scores of that part do not count it")
                    continue
                raise DataError(
                    "too few rows to compare recipes on",
                    where=part.source.source,
                    expected="a row of every label in each part",
                    got=f"no {name} row labeled {missing!r}",
                    remedy="Add rows of it, raise --max-rows or the share of that part, lower --folds, or pass "
                    "--drop-rare, which leaves small classes out.",
                )


def _make_jobs(
    candidates: Sequence[Candidate], folds: Sequence[Parts], cache_dir: str | Path | None
) -> dict[str, list[Job]]:
    """Return one job a fold for each candidate with a recipe, all defaults filled in."""
    cache, base_keys, jobs = feature_cache(cache_dir), {}, {}
    said: set[tuple[str, str]] = set()
    for candidate in candidates:
        if candidate.recipe is None:
            continue
        recipe = resolve_recipe(candidate.recipe)
        if recipe.tokens.truncation == "auto":
            raise RecipeError(
                "a comparison cannot choose the truncation too",
                where=f"recipe {candidate.name!r}, truncation auto",
                remedy="Pass --truncation head, tail, head+tail or windows.",
            )
        for parts in folds:
            check_problem(recipe, parts)
        tokenizer = recipe_tokenizer(recipe)
        for sentence in describe_base_use(recipe, tokenizer).sentences():
            if (recipe.base, sentence) not in said:
                say(sentence)
            said.add((recipe.base, sentence))
        if recipe.base not in base_keys:
            admit(recipe.base, cache_dir=cache_dir)
            base_keys[recipe.base] = network.base_fingerprint(recipe.base)
            texts = folds[0].train.source.joined_texts
            report_unknown_tokens(tokenizer, texts.take(np.arange(0, len(texts), len(texts) // UNKNOWN_SAMPLE + 1)))
        key = base_keys[recipe.base]
        jobs[candidate.name] = [Job(recipe, parts, tokenizer, key, cache, cache_dir=cache_dir) for parts in folds]
    return jobs


def _describe_comparison(
    jobs: Mapping[str, Sequence[Job]], folds: Sequence[Parts], options: _CompareOptions
) -> dict[str, Any]:
    """Return what identifies the comparison, as JSON values. All but new recipes must be equal to continue it."""
    data = [{name: part.fingerprint() for name, part in parts.by_name().items()} for parts in folds]
    recipes = {name: own[0].recipe.model_dump(mode="json") for name, own in jobs.items()}
    for recipe in recipes.values():
        recipe["training"].pop("learning_rate")  # rates may be added to a comparison
    # Threads are no part of it: each trial has its own, and records it.
    return {
        "format": LEADERBOARD_FORMAT,
        "data": fingerprint(data),
        "max_rows": options.max_rows,
        "folds": options.folds,
        "recipes": recipes,
        "device": runtime.device().type,
        "versions": runtime.versions(),
    }


# The workspace: the folder of a comparison


@contextmanager
def open_workspace(folder: Path, identity: Mapping[str, Any], *, restart: bool) -> Iterator[None]:
    """Lock the folder of a comparison while the block runs.

    The folder is created, or continued if it holds the same comparison, or emptied if `restart` is set or no trial of
    another comparison in it was finished.

    Args:
        folder: The comparison's folder.
        identity: What identifies the comparison, JSON values. Its `recipes` (by name) may grow from call to call.
        restart: Delete the comparison that the folder holds.

    Raises:
        OutputError: The folder holds something else (the error lists the differences), or another process uses it.
    """
    with storage.sole_use(folder, remedy="Pass another --out."):
        _enter(folder, identity, restart)
        yield


def _enter(folder: Path, identity: Mapping[str, Any], restart: bool) -> None:
    """Check the folder and write or update its WORKSPACE_FILE."""
    known = _read_workspace_file(folder)
    if known is None:
        storage.require_vacant(folder, remedy="Name another folder for the comparison: --out.")
    elif restart:
        storage.remove_tree(folder)
        known = None
    elif found := _list_differences(known, identity):
        if not _holds_no_trial(folder, known):
            raise OutputError(
                "the folder holds another comparison",
                where=str(folder),
                got="; ".join(found[:6]) + ("; and more" if len(found) > 6 else ""),
                remedy="Pass another --out, undo what differs, or pass --restart to delete that comparison.",
            )
        storage.remove_tree(folder)
        known = None
    recipes = {**(known or {}).get("recipes", {}), **identity["recipes"]}
    with storage.staged_file(folder / WORKSPACE_FILE, overwrite=True) as fresh:
        storage.write_json(fresh, {**identity, "recipes": recipes})


def _read_workspace_file(folder: Path) -> dict[str, Any] | None:
    """Return the content; None if there is no file, {} if it cannot be read."""
    try:
        known = storage.read_json(folder / WORKSPACE_FILE)
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _holds_no_trial(folder: Path, known: Mapping[str, Any]) -> bool:
    """Return True if the folder holds nothing but the description of a comparison of which no trial was finished."""
    names = {path.name for path in folder.iterdir()}
    return (
        bool(known) and names <= {WORKSPACE_FILE, CELLS, TRACKING_FILE} and not any((folder / CELLS).glob("**/trained"))
    )


def _list_differences(known: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return in what the folder's comparison differs from this one, besides recipes that only one of them has."""
    # Earlier versions noted the threads of the whole comparison.
    known = {name: value for name, value in known.items() if name != "threads"}
    common = set(known.get("recipes", {})) & set(now["recipes"])
    there, here = (
        {**side, "recipes": {name: recipe for name, recipe in side.get("recipes", {}).items() if name in common}}
        for side in (known, now)
    )
    return checkpoints.list_differences(there, here)


# The run


def _run(
    options: _CompareOptions,
    candidates: Sequence[Candidate],
    jobs: Mapping[str, Sequence[Job]],
    folds: Sequence[Parts],
) -> dict[str, Any]:
    """Run the trials that fit and write the results. Return the leaderboard."""
    resolved = [_with_recipe(candidate, jobs) for candidate in candidates]
    forecast = _forecast(resolved, jobs, folds, options.functions)
    rows, classes = forecast.sizes.train, forecast.sizes.classes
    recipes = tuple(candidate.planned(options.seeds, rows) for candidate in resolved)
    plan = Plan(recipes, row_shares(rows, classes), options.folds)
    settings = _runner_settings(options, resolved, jobs, folds)
    seeds = {recipe.name: len(recipe.seeds) for recipe in recipes}
    shown = [live_table.LiveRow(name, count * len(folds)) for name, count in seeds.items()]
    clock = options.functions.clock
    with live_table.show_live_table(metric_phrase(settings.metric), shown, clock=clock) as table:
        runner = Runner(
            settings,
            plan,
            forecast,
            table,
            options.deadline,
            options.functions,
            lambda: _say_verdict(write_results(_finished(options, runner), final=False)),
        )
        trials = sum(one.total for one in shown)
        runner.workers = 1 if options.placement is None else max(min(options.placement.workers(), trials), 1)
        _announce(options, runner)
        try:
            if options.placement is None:
                runner.run()
            else:
                options.placement.run(runner, options.cache_dir)
        except KeyboardInterrupt:
            count = len(runner.progress.finished)
            kept = f"{count} finished trial{'s' * (count != 1)} of {trials} kept in {options.out}"
            say(f"stopped: {kept}; the same command continues from there", aloud=True)
            raise
        if not runner.results:
            raise _too_short(options, runner)
        return write_results(_finished(options, runner))


def _with_recipe(candidate: Candidate, jobs: Mapping[str, Sequence[Job]]) -> Candidate:
    """Return the candidate with its recipe as the jobs have it, all fields filled in."""
    return replace(candidate, recipe=jobs[candidate.name][0].recipe) if candidate.name in jobs else candidate


def _finished(options: _CompareOptions, runner: Runner) -> FinishedComparison:
    return FinishedComparison(
        out=options.out,
        runner=runner,
        started=options.started,
        budget_seconds=options.budget_seconds,
        max_rows=options.max_rows,
        folds=options.folds,
        bench=options.bench,
        not_run=runner.not_run(),
        reduced=runner.reduced(),
    )


def _say_verdict(board: Mapping[str, Any]) -> None:
    say(f"so far: {board['verdict']['words'][0]}", aloud=True)


def _runner_settings(
    options: _CompareOptions,
    candidates: Sequence[Candidate],
    jobs: Mapping[str, Sequence[Job]],
    folds: Sequence[Parts],
) -> RunnerSettings:
    recipe = next(iter(jobs.values()))[0].recipe  # all recipes share the metric; the first one's decision is taken
    metric = recipe.training.metric
    return RunnerSettings(
        store=ArtifactStore(options.out / CELLS),
        candidates={candidate.name: candidate for candidate in candidates},
        jobs=jobs,
        folds=folds,
        metric=metric,
        decision=recipe.decision,
        baseline_key=fingerprint(recipe.decision.model_dump(mode="json"), metric, runtime.versions()),
        started=options.started,
        threads=options.threads,
    )


def _forecast(
    candidates: Sequence[Candidate],
    jobs: Mapping[str, Sequence[Job]],
    folds: Sequence[Parts],
    functions: ComparisonFunctions,
) -> Forecast:
    """Measure the speed of every base and return the forecast that follows from it."""
    speeds: dict[str, Speed] = {}
    for own in jobs.values():
        job = own[0]
        if str(job.recipe.base) not in speeds:
            say(f"base {job.recipe.base}: measuring its speed")
            with silenced():
                speed = functions.measure_speed(replace(job, parts=without_test(job.parts)))
            same_base = [other[0].recipe for other in jobs.values() if other[0].recipe.base == job.recipe.base]
            if any(recipe.further_pretraining is not None for recipe in same_base):
                head = functions.has_language_head(job.recipe.base, job.cache_dir)
                speed = replace(speed, language_head=head)
            speeds[str(job.recipe.base)] = speed
    parts = folds[0]
    assert parts.test is not None
    test = sum(len(other.test) for other in folds if other.test is not None)
    total = len(parts.train.source) + (0 if parts.test.source is parts.train.source else len(parts.test.source))
    sizes = DataSizes(
        len(parts.train),
        len(parts.selection_part),
        test // len(folds),
        total,
        len(folds),
        len(parts.train.source.label_names),
        characters_read([len(text) for text in parts.train.joined_texts.to_pylist()]),
    )
    return Forecast({candidate.name: candidate for candidate in candidates}, speeds, sizes)


def _announce(options: _CompareOptions, runner: Runner) -> None:
    """Say what is compared, how long it may take, and what a budget is too short for."""
    rules, rows = runner.schedule, runner.forecast.sizes
    expected, budget = rules.seconds_wanted() / runner.workers, options.budget_seconds
    if budget is None:
        time = f"about {format_duration(expected)} (--budget 10m runs what fits into that time)"
    elif expected <= runner.seconds_left:
        time = f"about {format_duration(expected)}"
    else:
        time = f"{format_duration(budget)} of the {format_duration(expected)} that everything would take"
    say(
        f"{rows.train:,} training, {rows.validation:,} validation and {rows.test:,} test rows"
        f"{f', in {options.folds} folds' if options.folds else ''}; {len(runner.plan.recipes)} recipes, "
        f"up to {options.seeds} {'seed' if options.seeds == 1 else 'seeds'} each, {time}",
        aloud=True,
    )
    if options.placement is not None:
        threads = options.placement.threads
        say(
            f"{runner.workers} {'trial' if runner.workers == 1 else 'trials'} at once, with {threads} "
            f"{'thread' if threads == 1 else 'threads'} each",
            aloud=True,
        )
    if budget is not None and rules.smallest_sweep_seconds() / runner.workers > runner.seconds_left:
        say(
            f"one small training of each way takes about {format_duration(_enough(options, runner))}: with "
            f"{format_duration(budget)}, some will not run",
            aloud=True,
        )


def _enough(options: _CompareOptions, runner: Runner) -> float:
    """Return the seconds of a budget that has room for one small training of each way."""
    spent = options.functions.clock() - options.started
    return spent + runner.schedule.smallest_sweep_seconds() / runner.workers * ENTRY_MARGIN + runner.closing


def _too_short(options: _CompareOptions, runner: Runner) -> RecipeError:
    assert options.budget_seconds is not None
    return RecipeError(
        "the budget is too short for any comparison of these rows",
        expected=f"about {format_duration(_enough(options, runner))}, for one small training of each way",
        got=format_duration(options.budget_seconds),
        remedy="Raise --budget, or use fewer rows with --max-rows.",
    )
