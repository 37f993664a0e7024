"""Record the training of a classifier with trackers: its recipe, its final scores, and its bundle."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fullbake.classifier.sharing import copy_for_sharing
from fullbake.core import runtime
from fullbake.core.console import warn
from fullbake.core.errors import Error, one_line
from fullbake.core.tracking import Setting, Tracker, flat_scores, flat_settings
from fullbake.core.tracking_worker import TRACKING_FILE, Recorder, tracked_run
from fullbake.training.checkpoints import UnfinishedRun
from fullbake.training.job import Job


class RecordedTraining:
    """A training that is recorded, or not: then nothing happens here."""

    def __init__(self, recorder: Recorder | None, folder: Path | None) -> None:
        """Hold what takes the results.

        Args:
            recorder: Takes them; None where nothing is recorded.
            folder: An empty folder that stays until the run is closed; None where nothing is recorded.
        """
        self._recorder, self._folder = recorder, folder

    def finish(self, facts: Mapping[str, Any], bundle: Path | None) -> None:
        """Record the final scores and the bundle, without the hashes of its training texts.

        Args:
            facts: The entries of its fullbake.json.
            bundle: Its folder; None if it was not saved.
        """
        if self._recorder is None or self._folder is None:
            return
        chosen = facts.get("chosen") or {}
        self._recorder.scores(
            flat_scores(facts.get("metrics") or {})
            | {f"chosen/{name}": float(value) for name, value in chosen.items() if isinstance(value, int | float)}
        )
        if bundle is not None:
            record_bundle(self._recorder, bundle, self._folder)


def record_bundle(recorder: Recorder, bundle: Path, folder: Path) -> None:
    """Hand a bundle to the trackers, without the hashes of its training texts.

    Args:
        recorder: The run.
        bundle: The folder of the bundle.
        folder: An empty folder that stays until the run is closed.
    """
    try:
        recorder.bundle(copy_for_sharing(bundle, folder).folder)
    except (Error, OSError) as error:  # the training is done: what is only about trackers must not fail it
        warn(f"the bundle is not recorded: {one_line(error)}")


@contextmanager
def recorded_training(
    trackers: Sequence[Tracker], name: str, settings: Mapping[str, Setting], run: UnfinishedRun | None
) -> Iterator[RecordedTraining]:
    """Within the block, record all trainings into one run of each tracker, on the first process only.

    Args:
        trackers: Empty records nothing.
        name: The name of the run.
        settings: The fields of its recipe, and facts of the run.
        run: Holds its checkpoints, and the journal that lets a resumed run continue; None if nothing is saved.

    Yields:
        What takes the results.
    """
    if not trackers or runtime.rank() != 0:
        yield RecordedTraining(None, None)
        return
    place = None if run is None else run.folder / TRACKING_FILE
    identity = "" if run is None else run.identity
    with (
        TemporaryDirectory(prefix="fullbake-track-", ignore_cleanup_errors=True) as folder,
        tracked_run(trackers, name, settings, place=place, identity=identity) as recorder,
    ):
        yield RecordedTraining(recorder, Path(folder))


@contextmanager
def recorded_job(trackers: Sequence[Tracker], job: Job, name: str) -> Iterator[RecordedTraining]:
    """Within the block, record the trainings of a job.

    Args:
        trackers: Empty records nothing.
        job: The run.
        name: The name of the run.

    Yields:
        What takes the results.
    """
    with recorded_training(trackers, name, settings_of(job) if trackers else {}, job.run) as recorded:
        yield recorded


def settings_of(job: Job) -> dict[str, Setting]:
    """Return the settings of a job as trackers show them: recipe, rows, machine and versions, but no text."""
    machine = {
        "rows": {name: len(part) for name, part in job.parts.by_name().items()},
        "classes": len(job.parts.train.source.label_names),
        "threads": runtime.threads(),
        "device": runtime.device().type,
        "versions": runtime.versions(),
    }
    return flat_settings(job.recipe.model_dump(mode="json") | machine)
