"""The commands `distill` (a fast student of a classifier) and `cascade` (the student first, its teacher after it)."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from fullbake.cli import tables
from fullbake.cli.options import (
    DialectFlags,
    DialectOptions,
    Threads,
    TrackFlag,
    apply_threads,
    find_bundle,
    resume_mode,
)
from fullbake.cli.terminal import print_json, print_line, print_table
from fullbake.config.recipe import dialect_of
from fullbake.core.tracker_names import find_trackers
from fullbake.training.checkpoints import CheckpointInterval

if TYPE_CHECKING:
    from fullbake.classifier.distill import Distillation

DataFiles = Annotated[tuple[Path, ...], Parameter(negative="")]
AgreementShare = Annotated[float, Parameter(allow_leading_hyphen=True)]


def add_distillation_commands(app: App) -> None:
    """Add the commands to the app."""
    app.command(distill_command, name="distill")
    app.command(cascade_command, name="cascade")


def distill_command(
    bundle: Path,
    /,
    *,
    data: DataFiles,
    out_folder: Annotated[Path, Parameter(name="--out")],
    text: str | None = None,
    width: int = 128,
    pair_buckets: int = 32_749,
    head: str = "linear",
    epochs: int = 15,
    seed: int = 0,
    label_share: float = 0.5,
    agreement: AgreementShare = 0.99,
    baseline: Annotated[bool, Parameter(negative="--no-baseline")] = True,
    json: bool = False,
    overwrite: bool = False,
    checkpoint_every: str = "5m",
    resume: bool = False,
    resume_anyway: bool = False,
    restart: bool = False,
    cache_dir: Path | None = None,
    track: TrackFlag = (),
    threads: Threads = "auto",
    written: DialectFlags = DialectOptions.model_construct(),  # noqa: B008  (only read)
) -> None:
    """Train a student of a classifier: without attention, about a hundred times as fast, at most 20 MB.

    Args:
        bundle: The teacher, a classifier of single texts: a folder that `fullbake train` wrote, or its id on the hub.
        data: Files of texts like those it will meet, best with those of the teacher's training; a bundle holds none.
            Labels are not needed; where texts have some, the student learns from them too. Repeat the flag for several
            files.
        out_folder: Folder for the student's bundle.
        text: Column of the texts. Default: its name in training.
        width: Numbers in the vector of a token with an mlp head or more classes than this, at most the teacher's own
            width. Else a vector has one number for each class.
        pair_buckets: Rows that pairs of neighboring tokens share, best a prime number.
        head: linear or mlp.
        epochs: Passes over the texts with an mlp head or more classes than width; else nothing is trained by passes.
        seed: Random seed of the held-out texts, and of an mlp head and the order of the texts.
        label_share: Share of the true label in what the student learns of a text that has one, from 0 (the teacher's
            scores alone) to 1.
        agreement: The agreement for which the table says what share of the texts a cascade would leave to the student.
        baseline: Train TF-IDF with logistic regression on the same texts too, and show it beside the student.
        json: Print all numbers as JSON instead of a table.
        overwrite: Replace what OUT holds when the student is complete.
        checkpoint_every: Save a checkpoint every so many steps (50) or minutes (5m), in OUT.unfinished. The teacher's
            scores are kept in the cache as they are computed.
        resume: Stop with an error if there is no unfinished run.
        resume_anyway: Resume although the teacher, the texts or the installed libraries have changed.
        restart: Delete the unfinished run and start again.
        cache_dir: Folder of the caches. Default: FULLBAKE_CACHE_DIR, or the user's cache folder.
    """
    CheckpointInterval.parse(checkpoint_every)
    mode = resume_mode(resume, resume_anyway, restart)
    trackers = find_trackers(track)
    apply_threads(threads, out_folder, mode)
    from fullbake.classifier.cascade import check_agreement
    from fullbake.classifier.distill import distill_texts
    from fullbake.training.distillation import StudentSettings

    check_agreement(agreement)
    found = distill_texts(
        find_bundle(bundle),
        list(data),
        out=out_folder,
        overwrite=overwrite,
        cache_dir=cache_dir,
        checkpoint_every=checkpoint_every,
        resume=mode,
        text=text,
        track=trackers,
        settings=StudentSettings(width, pair_buckets, head, epochs, seed, label_share),
        **vars(dialect_of(**written.model_dump(exclude_none=True))),
    )
    _print_students(found, agreement, baseline, json)
    if not json:
        print_line(f"student: {out_folder}")
        print_line(f"Next: fullbake cascade {out_folder} {bundle} --data NEW_TEXTS --out FOLDER")


def _print_students(found: "Distillation", agreement: float, baseline: bool, json: bool) -> None:
    from fullbake.comparison.students import compare_students

    rows: list[dict[str, Any]] = compare_students(found, agreement, baseline=baseline)
    if json:
        print_json({"student": found.student.record.facts["student"], "held_out": rows})
    else:
        print_table(tables.students_table(rows, agreement))


def cascade_command(
    student: Path,
    teacher: Path,
    /,
    *,
    data: DataFiles,
    out_folder: Annotated[Path, Parameter(name="--out")],
    agreement: AgreementShare = 0.99,
    text: str | None = None,
    json: bool = False,
    overwrite: bool = False,
    threads: Threads = "auto",
    written: DialectFlags = DialectOptions.model_construct(),  # noqa: B008  (only read)
) -> None:
    """Join a student and its teacher: the student answers where it is sure enough, the teacher the rest.

    From which margin on the student answers is chosen on texts that neither was trained on, so that with a certainty of
    95% at least the share --agreement of new texts like these gets the teacher's label. Where no margin keeps that, the
    teacher answers all. `fullbake predict` and `evaluate` take the folder as they take a bundle.

    Args:
        student: Folder of the student, as `fullbake distill` wrote it, or of any classifier of the same labels;
            or its id on the hub.
        teacher: Folder of its teacher, or its id on the hub.
        data: Files of texts like those it will meet, without labels or with them. Texts that either was trained on are
            left out. Repeat the flag for several files.
        out_folder: Folder for the cascade, which holds copies of both bundles.
        agreement: Share of the texts that must get the teacher's label, above 0 and below 1.
        text: Column of the texts. Default: its name in training.
        json: Print the threshold as JSON instead of a sentence.
        overwrite: Replace what OUT holds.
    """
    apply_threads(threads)
    from dataclasses import asdict

    from fullbake.classifier.cascade import make_cascade
    from fullbake.evaluation.agreement import describe_threshold

    cascade = make_cascade(
        find_bundle(student),
        find_bundle(teacher),
        list(data),
        agreement=agreement,
        out=out_folder,
        overwrite=overwrite,
        text=text,
        **vars(dialect_of(**written.model_dump(exclude_none=True))),
    )
    assert cascade.first is not None
    threshold = cascade.first.threshold
    if json:
        print_json(asdict(threshold) | {"share": threshold.share})
        return
    if threshold.margin is not None:  # else a warning has said it
        print_line(describe_threshold(threshold))
    print_line(f"cascade: {out_folder}")
