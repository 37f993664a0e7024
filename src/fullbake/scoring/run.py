"""Score an input shard by shard into a folder, and continue where an earlier run was stopped.

The driver holds no row: it finds the shards, hands them to workers, and keeps a few facts of each. What a worker does
with a shard is the same in this process, in a pool of processes and on a Ray cluster.
"""

import platform
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from fullbake.classifier.bundle_outline import BundleOutline, read_outline
from fullbake.classifier.hub_bundles import local_bundle
from fullbake.classifier.prediction_columns import PredictionOptions, added_kinds, choose_text_columns
from fullbake.classifier.worker_bundle import WorkerBundle, scoring_versions
from fullbake.config.fields import Engine, ScoringPrecision
from fullbake.config.recipe import dialect_of
from fullbake.config.sections import Dialect
from fullbake.core import runtime
from fullbake.core.console import bar, format_duration, format_size, say, warn
from fullbake.core.errors import DataError, Error, Fault, OutputError, RecipeError
from fullbake.core.extras import is_installed, name_missing_extra
from fullbake.core.processors import measure
from fullbake.core.storage import require_local, require_writable, sole_use
from fullbake.data.files import FORMATS, open_table
from fullbake.data.tables import Table, data_suffix, taken_name_error
from fullbake.evaluation.top_labels import Threshold, with_threshold
from fullbake.scoring.ledger import (
    BadShard,
    Ledger,
    ShardFacts,
    WorkerFault,
    close_ledger,
    open_ledger,
    parse_result,
)
from fullbake.scoring.process_pool import score_in_processes
from fullbake.scoring.shard_worker import ShardOptions, fetched, score_as_json
from fullbake.scoring.shards import InputShard, find_shards, fits_glob, is_address, open_address, split_glob

Pool = Callable[[Sequence[InputShard]], Generator[str, None, None]]
"""Scores shards, and yields what `score_as_json` returned of each."""

_MOST_HEADERS: Final = 20
"""So many bad shards are passed over in search of one whose header says what the columns are."""


@dataclass(frozen=True)
class ShardedPredictions:
    """What a run wrote."""

    folder: Path
    rows: int
    """Of all finished shards, also those of earlier runs."""

    shards: int
    """How many are finished."""

    scored: int
    """How many of them this run scored."""

    bad: tuple[str, ...]
    """Names of the shards that could not be read (`skip_bad_shards`)."""

    seconds: float


def predict_shards(
    bundle: str | Path,
    source: str | Path,
    out: str | Path,
    *,
    text: str | None = None,
    text_pair: str | None = None,
    prefix: str = "",
    top_k: int | None = None,
    threshold: Threshold | None = None,
    labels_only: bool = False,
    engine: Engine = "auto",
    precision: ScoringPrecision = "fp32",
    on: str | None = None,
    jobs: int | None = None,
    threads: int | None = None,
    skip_bad_shards: bool = False,
    overwrite: bool = False,
    **dialect: Any,
) -> ShardedPredictions:
    """Classify the rows of many files, and write a file of scored rows for each of them into a folder.

    Each file is read, and gets the columns, as by `predict_file`. A run that was stopped continues where it was:
    finished files are not scored again, unless the input has changed. `_manifest.json` in the folder has the rows and
    the hash of each file.

    Args:
        bundle: The folder of a bundle or a cascade, or its id on the hub.
        source: A folder with all below it, a glob, a file, or an address that pyarrow reads, such as s3://bucket/folder.
        out: The folder for the scored rows. On a cluster every machine must see it under the same path.
        text: Column of the texts. None: its name in training.
        text_pair: Column of the second texts, for a classifier of pairs. None: its name in training.
        prefix: As for `predict_file`.
        top_k: As for `predict_file`.
        threshold: As for `predict_file`.
        labels_only: As for `predict_file`.
        engine: As for `Classifier.load`.
        precision: As for `Classifier.load`.
        on: None: this machine. `ray` or `ray:ADDRESS`: a Ray cluster.
        jobs: The number of workers. None: one here; on Ray as many as the cluster has processors for.
        threads: Threads of each worker. None: this machine's processors divided by the workers; on Ray one.
        skip_bad_shards: Go on if a file cannot be read, and name it at the end.
        overwrite: Remove what an earlier run wrote there, and begin again.
        **dialect: How the files are written, as for `read_dataset`.

    Returns:
        What was written.

    Raises:
        DataError: There is no such file, or one cannot be read.
        OutputError: The folder holds something else, or was written by another bundle or with other options.
        BundleError: It is no bundle.
        MissingExtraError: Ray is not installed.
    """
    begun = time.monotonic()
    require_local(out)
    _check_numbers(jobs=jobs, threads=threads)
    if on is not None:
        from fullbake.core.ray_cluster import parse_on

        address = parse_on(on)
        if not is_installed("ray"):  # said before anything is read
            with name_missing_extra():
                raise ModuleNotFoundError(name="ray")
    folder, place = local_bundle(bundle).resolve(), Path(out).absolute()
    outline = read_outline(folder, precision)
    options = PredictionOptions(prefix, top_k, threshold, labels_only)
    given = {name: value for name, value in (("text", text), ("text_pair", text_pair)) if value is not None} | dialect
    shards = find_shards(source, dialect_of(**dialect))
    _check_apart(source, shards, place)
    workers = _workers_for(source, shards, jobs)
    names = _check_header(shards, outline, options, given, skip=skip_bad_shards)
    worker = WorkerBundle(outline.digest, engine, precision)
    how = ShardOptions(str(place), given, asdict(options), names)
    if on is not None:
        from fullbake.scoring.ray_pool import score_on_ray

        pool: Pool = partial(score_on_ray, address, worker, folder, how, workers, threads)
    else:
        pool = partial(_score_here, worker, folder, how, workers or 1, threads)
    plan = _plan(source, outline, options, given, engine, precision)
    require_writable(place / "x") if place.is_dir() else require_writable(place)
    with sole_use(place, remedy="Wait for it, or name another folder with --out."):
        ledger = open_ledger(place, plan, overwrite=overwrite)
        try:
            scored, finished, bad = _run(ledger, shards, pool, skip=skip_bad_shards)
        finally:
            ledger.clean()
        orphans = ledger.find_orphans(shards)
        if orphans:
            warn(
                f"{_count(len(orphans), 'scored file')} of {place} "
                f"{'is' if len(orphans) == 1 else 'are'} of shards that are no longer in the input: {_names(orphans)}"
            )
        in_order = [finished[shard.name] for shard in shards if shard.name in finished]
        rows = close_ledger(ledger, plan, in_order, bad, scoring_versions())
    return ShardedPredictions(
        place, rows, len(finished), scored, tuple(one.name for one in bad), time.monotonic() - begun
    )


def _check_numbers(**numbers: int | None) -> None:
    for name, number in numbers.items():
        if number is not None and (isinstance(number, bool) or not isinstance(number, int) or number < 1):
            raise RecipeError(
                f"this is not a number of {'workers' if name == 'jobs' else 'threads'}",
                where=f"--{name} ({name})",
                expected="a whole number of 1 or more",
                got=repr(number)[:40],
            )


def _workers_for(source: str | Path, shards: Sequence[InputShard], jobs: int | None) -> int | None:
    """Return the number of workers: no more than shards, so that each gets its share of the processors.

    Raises:
        RecipeError: Several workers are asked for, and the input is one file.
    """
    if jobs is None or jobs <= len(shards):
        return jobs
    if len(shards) == 1 and (shards[0].place == str(source) or Path(source).is_file()):
        raise RecipeError(
            "one file is scored by one worker",
            where=f"--jobs {jobs} (jobs)",
            expected="a folder, a glob or an address with several files",
            got=str(source),
            remedy="Leave --jobs out: a single process computes with all free processors. Or write the file as several "
            "first (JSON Lines: split -l 100000 --additional-suffix=.jsonl ROWS.jsonl PARTS/; for CSV and Parquet see "
            "docs/how-to/predict-many-files.md), and name their folder.",
        )
    return len(shards)


def _check_apart(source: str | Path, shards: Sequence[InputShard], out: Path) -> None:
    """Raise OutputError if the input would hold the output, so that the next run would take that for shards."""
    folder, pattern = (str(source), "") if Path(source).exists() else split_glob(str(source))
    if is_address(folder):
        system, folder = open_address(folder)
        if system.type_name != "local":
            return
    inside, place = Path(folder).resolve(), out.resolve()
    if not inside.is_dir() or not place.is_relative_to(inside):
        return
    names = ((place.relative_to(inside) / shard.output_name).as_posix() for shard in shards)
    if not pattern or any(fits_glob(name, pattern) for name in names):
        raise OutputError(
            "the output is within the input, so the next run would score it too",
            where=f"--out {out}",
            remedy="Name a folder beside the input.",
        )


def _plan(
    source: str | Path,
    outline: BundleOutline,
    options: PredictionOptions,
    reading: Mapping[str, Any],
    engine: str,
    precision: str,
) -> dict[str, Any]:
    """Return what decides the scored rows, as JSON values: only a run with an equal plan may continue in a folder."""
    place = str(source) if is_address(str(source)) else str(Path(source).absolute())
    how = {**asdict(options), **reading, "engine": engine, "precision": precision}
    written = {name: list(value) if isinstance(value, tuple) else value for name, value in how.items()}
    return {
        "input": place,
        "bundle": {"sha256": outline.digest, "labels": list(outline.label_names)},
        # A threshold of 0 is no threshold that is missing.
        "options": {
            name: value for name, value in written.items() if not (value is None or value is False or value == "")
        },
    }


def _check_header(
    shards: Sequence[InputShard],
    outline: BundleOutline,
    options: PredictionOptions,
    reading: Mapping[str, Any],
    *,
    skip: bool,
) -> tuple[str, ...] | None:
    """Check the options and the header of the first shard that can be read, before any worker starts.

    Args:
        shards: The shards.
        outline: What the bundle predicts.
        options: Which columns are added.
        reading: How the shards are read.
        skip: Pass over shards that cannot be read.

    Returns:
        The columns that all shards must have; None where the format has no fixed columns.
    """
    if options.threshold is not None:
        with_threshold(outline.decision, options.threshold)
    kinds = added_kinds(outline.problem, outline.label_names, options, cascade=outline.cascade)
    columns = choose_text_columns(outline.columns, reading.get("text"), reading.get("text_pair"))
    dialect = dialect_of(**{name: value for name, value in reading.items() if name not in ("text", "text_pair")})
    for number, shard in enumerate(shards[:_MOST_HEADERS], start=1):
        try:
            table = _open(shard, columns, dialect)
        except DataError:
            if not skip or number == min(len(shards), _MOST_HEADERS):
                raise
            continue
        for name in kinds:
            if name in table.names:
                raise taken_name_error(name, shard.place)
        chosen = FORMATS.get(data_suffix(Path(shard.name)))
        return None if chosen is not None and not chosen.fixed_columns else table.names
    raise AssertionError("there is a shard")


def _open(shard: InputShard, columns: Sequence[str], dialect: Dialect) -> Table:
    with fetched(shard) as path:
        return open_table(path, columns=columns, dialect=dialect)


def _score_here(
    worker: WorkerBundle,
    folder: Path,
    options: ShardOptions,
    jobs: int,
    threads: int | None,
    shards: Sequence[InputShard],
) -> Generator[str, None, None]:
    """Score shards on this machine: one worker is this process."""
    if not shards:
        return
    own = replace(worker, threads=threads or _threads_of_a_worker(jobs))
    say(f"scoring with {_count(jobs, 'worker')} of {_count(own.threads, 'thread')}")
    if jobs > 1:
        yield from score_in_processes(own, folder, shards, options, jobs=jobs)
        return
    for shard in shards:
        yield score_as_json(own, folder, shard, options)


def _threads_of_a_worker(jobs: int) -> int:
    """Return what the environment says, or the share of a worker in the processors that are free."""
    return runtime.session_threads() if runtime.threads_are_given() else max(1, measure().free // jobs)


def _run(
    ledger: Ledger, shards: Sequence[InputShard], pool: Pool, *, skip: bool
) -> tuple[int, dict[str, ShardFacts], list[BadShard]]:
    """Score the shards that are not finished.

    Args:
        ledger: The folder.
        shards: All shards.
        pool: What scores them.
        skip: Go on at a shard that cannot be read.

    Returns:
        How many were scored, the finished ones by name, and the bad ones.
    """
    finished = {shard.name: facts for shard in shards if (facts := ledger.find_finished(shard)) is not None}
    todo = [shard for shard in shards if shard.name not in finished]
    before, bad = len(finished), list[BadShard]()
    size = format_size(sum(shard.size for shard in todo))
    say(
        f"{_count(len(shards), 'shard')}, {before:,} finished before; scoring {len(todo):,} ({size})"
        if before
        else f"{_count(len(shards), 'shard')} ({size})"
    )
    try:
        # Closed here, whatever ends the loop, so that no worker runs on.
        with closing(pool(todo)) as results, bar("scoring", len(todo), "shards") as advance:
            for text in results:
                result = _checked(text)
                advance(1)
                if isinstance(result, ShardFacts):
                    finished[result.name] = result
                    for line in result.warnings:
                        warn(line)
                    continue
                if not skip:
                    raise _bad_shard_error(result, len(finished), len(shards))
                bad.append(result)
                warn(f"skipped: {result.error.splitlines()[0]}")
    except KeyboardInterrupt:
        say(f"stopped: {len(finished):,} of {len(shards):,} shards are finished; the same command continues from there")
        raise
    if bad:
        names = _names([one.name for one in bad])
        warn(f"{_count(len(bad), 'shard')} of {len(shards):,} could not be read (see _manifest.json): {names}")
    return len(finished) - before, finished, sorted(bad, key=lambda one: one.name)


def _checked(text: str) -> ShardFacts | BadShard:
    """Return what a worker says; raise Fault if it failed, and the shard is not to blame."""
    try:
        result = parse_result(text)
    except ValueError as error:
        raise Fault("a worker returned something else than facts of a shard", got=str(error)[:200]) from error
    if isinstance(result, WorkerFault):
        first, _, rest = result.fault.partition("\n")
        kind = Fault if result.trace else Error
        raise kind(
            first.removesuffix("."),
            where=f"{result.machine}, shard {result.name}",
            remedy=rest or None,
        )
    return result


def _bad_shard_error(bad: BadShard, finished: int, shards: int) -> DataError:
    first, _, rest = bad.error.partition("\n")
    elsewhere = "" if bad.machine == platform.node() else f" (read on {bad.machine})"
    return DataError(
        f"{first.removesuffix('.')}{elsewhere}",
        remedy=f"{rest} {finished:,} of {shards:,} shards are finished and stay. Mend this one and run the same "
        "command again, or pass --skip-bad-shards.".strip(),
    )


def _names(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def describe_predictions(done: ShardedPredictions) -> str:
    """Return one line: rows, shards, folder, time and rate."""
    rate = f", {done.rows / done.seconds:,.0f} rows/s" if done.scored == done.shards and done.seconds > 0 else ""
    scored = "" if done.scored == done.shards else f" ({done.scored:,} of them now)"
    return (
        f"{done.rows:,} rows in {_count(done.shards, 'shard')}{scored} scored into {done.folder} in "
        f"{format_duration(done.seconds)}{rate}"
    )
