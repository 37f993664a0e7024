"""The commands on raw text: `pretrain` (further pretraining), `pilot` (a short trial of it), `probe` (forgetting)."""

import sys
import time
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from fullbake.cli import tables
from fullbake.cli.options import (
    DialectFlags,
    DialectOptions,
    OnFlag,
    StageFlags,
    StageOptions,
    Threads,
    TrackFlag,
    WorkersFlag,
    apply_threads,
    resume_mode,
)
from fullbake.cli.terminal import print_json, print_line, print_table
from fullbake.config.pretraining import PretrainingConfig
from fullbake.config.recipe import Recipe, dialect_of
from fullbake.core.console import parse_duration
from fullbake.core.tracker_names import find_trackers
from fullbake.training.checkpoints import CheckpointInterval

PILOT_STEPS = "200"

PILOT_EVALUATIONS = "4"
"""Few, but several: if the time runs out, the last one before counts."""


def add_pretraining_commands(app: App) -> None:
    """Add the commands to the app."""
    app.command(pretrain_command, name="pretrain")
    app.command(pilot_command, name="pilot")
    app.command(probe_command, name="probe")


def pretrain_command(
    corpus: tuple[Path, ...],
    /,
    *,
    base: str,
    out_folder: Annotated[Path, Parameter(name="--out")],
    recipe: str | None = None,
    text: str = "text",
    keep_out: tuple[Path, ...] = (),
    overwrite: bool = False,
    checkpoint_every: str = "5m",
    resume: bool = False,
    resume_anyway: bool = False,
    restart: bool = False,
    cache_dir: Path | None = None,
    track: TrackFlag = (),
    on: OnFlag = None,
    workers: WorkersFlag = None,
    threads: Threads = "auto",
    written: DialectFlags = DialectOptions.model_construct(),  # noqa: B008  (only read)
    flags: StageFlags = StageOptions.model_construct(),  # noqa: B008  (only read)
) -> None:
    """Train a base further on raw text (masked words, next sentences) and save it as a new base. This is way 1.

    Args:
        corpus: Raw text: .txt files (one paragraph a line, a blank line between documents), or CSV, TSV,
            JSON Lines or Parquet files with a text column (one document a row).
        base: Folder in Hugging Face format, a hub id, or `demo`. With --init random a folder with a config.json is
            enough.
        out_folder: Folder for the new base.
        recipe: A recipe whose further-pretraining section is used, such as further-pretrain, tapt or sun2019. Default:
            masked words and next sentences for 3 epochs, length 128, batch 32, learning rate 5e-5.
        text: Name of the text column.
        keep_out: Files whose texts must not be trained on, such as a test set. Repeat the flag for several files.
        overwrite: Replace the output folder when the new base is complete.
        checkpoint_every: Save a checkpoint every so many steps (50) or minutes (5m), in OUT.unfinished. That folder is
            removed when the base is complete.
        resume: Stop with an error if there is no unfinished run. Without this flag an unfinished run is resumed if
            there is one, else a new run starts.
        resume_anyway: Resume although the recipe, the corpus or the installed libraries have changed.
        restart: Delete the unfinished run and start again.
        cache_dir: Folder of the cache of tokenized corpora. Default: FULLBAKE_CACHE_DIR, or the user's cache folder.
    """
    stage = _stage(recipe, flags.model_dump(exclude_none=True))
    CheckpointInterval.parse(checkpoint_every)
    word = resume_mode(resume, resume_anyway, restart)
    trackers = find_trackers(track)
    if on is not None or workers is not None:
        from fullbake.cli.ray_workers import run_on_ray

        run_on_ray(sys.argv[1:], on, workers, out_folder)
    apply_threads(threads, out_folder, word)
    from fullbake.pretraining.stage import further_pretrain

    about = further_pretrain(
        base,
        corpus,
        out_folder,
        stage=stage,
        text=text,
        **vars(dialect_of(**written.model_dump())),
        keep_out=keep_out,
        overwrite=overwrite,
        cache_dir=cache_dir,
        checkpoint_every=checkpoint_every,
        resume=word,
        track=trackers,
    )
    print_table(tables.pretraining_table(about))
    for line in tables.rank_change_lines([c for entry in about["history"] for c in entry.get("ranks_changed", ())]):
        print_line(line)
    print_line(f"base: {out_folder} (its curves: {out_folder / 'curves.png'})")
    print_line(f"Try it: fullbake train train.csv --base {out_folder} --out out/classifier")


def pilot_command(
    corpus: tuple[Path, ...],
    /,
    *,
    base: str,
    budget: str = "3m",
    recipe: str | None = None,
    text: str = "text",
    json: bool = False,
    cache_dir: Path | None = None,
    threads: Threads = "auto",
    written: DialectFlags = DialectOptions.model_construct(),  # noqa: B008  (only read)
    flags: StageFlags = StageOptions.model_construct(),  # noqa: B008  (only read)
) -> None:
    """Estimate whether further pretraining is worth its time: how unfamiliar the text is, and a trial of some steps.

    Before it trains, it says how many steps fit into the budget and how long they take.

    Args:
        corpus: Raw text, as for `fullbake pretrain`. A labeled table is fine too.
        base: Folder in Hugging Face format, a hub id, or `demo`.
        budget: Time for the whole pilot, such as 3m or 1h. At most 200 steps (--steps) are trained, fewer if the time
            is short.
        recipe: A recipe whose further-pretraining section is tried.
        text: Name of the text column.
        json: Print all figures as JSON instead of tables.
        cache_dir: Folder of the cache of tokenized corpora. Default: FULLBAKE_CACHE_DIR, or the user's cache folder.
    """
    started, seconds = time.monotonic(), parse_duration(budget, "--budget")
    stage = _stage(recipe, _pilot_fields(flags.model_dump(exclude_none=True)))
    apply_threads(threads)
    from fullbake.pretraining.documents import document_sources
    from fullbake.pretraining.pilot import run_pilot

    dialect = dialect_of(**written.model_dump())
    sources = document_sources(corpus, text=text, dialect=dialect)
    facts = run_pilot(base, sources, stage, budget=seconds - (time.monotonic() - started), cache_dir=cache_dir)
    if json:
        print_json(facts)
        return
    print_table(tables.pilot_table(facts))
    for line in facts["words"]:
        print_line(line)


def probe_command(
    target: Path,
    /,
    *,
    base: str | None = None,
    text: Path | None = None,
    json: bool = False,
    cache_dir: Path | None = None,
    threads: Threads = "auto",
    written: DialectFlags = DialectOptions.model_construct(),  # noqa: B008  (only read)
) -> None:
    """Measure what a base, or a classifier's encoder, has forgotten of general text since the base it comes from.

    Args:
        target: Folder of a base or of a bundle.
        base: The base that it comes from. Default: the one that its fullbake.json names.
        text: General text: a .txt file, or a table with a column `text`. Default: the bundled English sentences.
        json: Print all figures as JSON instead of a table.
        cache_dir: Folder of the cache of masked-LM heads that had to be trained. Default: FULLBAKE_CACHE_DIR, or the
            user's cache folder.
    """
    apply_threads(threads)
    from fullbake.pretraining.forgetting import probe

    dialect = dialect_of(**written.model_dump())
    found = probe(target, base=base, text=None if text is None else str(text), cache_dir=cache_dir, dialect=dialect)
    if json:
        print_json(found)
    else:
        print_table(tables.probe_table(found))


def _pilot_fields(given: dict[str, str]) -> dict[str, str]:
    """Return the flags with the pilot's number of steps and evaluations where the user set none."""
    length = {} if "epochs" in given else {"steps": PILOT_STEPS}
    return length | {"evaluations": PILOT_EVALUATIONS} | given


def _stage(recipe: str | None, given: dict[str, str]) -> PretrainingConfig:
    """Return the further-pretraining section of a recipe (None: the default one) with the flags applied."""
    return Recipe.load_stage(recipe, **given)
