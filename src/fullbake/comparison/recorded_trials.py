"""Record a comparison with trackers: one run for the whole, and below it one for each trial.

The trials hold what training notes and their scores on validation and test. The run of the comparison holds the scores
of all recipes with their intervals, and the recommended classifier.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from fullbake.classifier.recorded import record_bundle
from fullbake.comparison.design import Candidate
from fullbake.comparison.schedule import Trial
from fullbake.comparison.trial import TrialPredictions, TrialResult
from fullbake.core import tracking
from fullbake.core.hashing import fingerprint
from fullbake.core.tracking import Setting, Tracker, flat_scores, flat_settings
from fullbake.core.tracking_worker import TRACKING_FILE, Recorder, tracked_run
from fullbake.data.splits import Part
from fullbake.evaluation.calibration import score_decision
from fullbake.evaluation.decisions import Decision

BEST: Final = "best"
"""The folder of the recommended classifier, within that of the comparison."""


class RecordedComparison:
    """A comparison that is recorded, or not."""

    def __init__(self, recorder: Recorder | None, best: Path, shared: Path) -> None:
        """Hold what takes the results.

        Args:
            recorder: Takes them; None where nothing is recorded.
            best: The folder of the recommended classifier.
            shared: An empty folder that stays until the run is closed.
        """
        self._recorder, self._best, self._shared = recorder, best, shared

    def finish(self, board: Mapping[str, Any]) -> None:
        """Record the scores of all recipes, and the classifier in `best/` if there is one.

        Args:
            board: The content of leaderboard.json.
        """
        if self._recorder is None:
            return
        self._recorder.scores(board_scores(board))
        if self._best.is_dir():
            record_bundle(self._recorder, self._best, self._shared)


def board_scores(board: Mapping[str, Any]) -> dict[str, float]:
    """Return the test scores of the recipes with their intervals, such as `finetune/test/f1_macro_low`.

    Args:
        board: The content of leaderboard.json.
    """
    found: dict[str, float] = {}
    for recipe in board["recipes"]:
        for metric, score in recipe["test"].items():
            ends = {"": score.get("mean"), "_low": score.get("low"), "_high": score.get("high")}
            values = {f"{recipe['name']}/test/{metric}{end}": value for end, value in ends.items()}
            found |= {name: float(value) for name, value in values.items() if isinstance(value, int | float)}
    return found


@contextmanager
def recorded_comparison(
    trackers: Sequence[Tracker], out: Path, identity: Mapping[str, Any], rows: int
) -> Iterator[RecordedComparison]:
    """Within the block, record a comparison into one run of each tracker, and each trial into one below it.

    Args:
        trackers: Empty records nothing.
        out: The comparison's folder, which holds the journal.
        identity: What identifies the comparison, JSON values.
        rows: Training rows.

    Yields:
        What takes the results.
    """
    settings = flat_settings(
        {
            "recipes": sorted(identity["recipes"]),
            "rows.train": rows,
            "folds": identity["folds"],
            "max_rows": identity["max_rows"],
            "device": identity["device"],
            "versions": identity["versions"],
        }
    )
    own = fingerprint(identity["data"])
    with (
        TemporaryDirectory(prefix="fullbake-track-", ignore_cleanup_errors=True) as shared,
        tracked_run(
            trackers, out.resolve().name, settings, place=out / TRACKING_FILE, identity=own, of_children=True
        ) as recorder,
    ):
        yield RecordedComparison(recorder, out / BEST, Path(shared))


class RecordedTrial:
    """A trial that is recorded, or not."""

    def __init__(self, recorder: tracking.RunRecorder | None) -> None:
        """Hold what takes the scores; None where nothing is recorded."""
        self._recorder = recorder

    def finish(self, result: TrialResult, predictions: TrialPredictions | None, test: Part | None) -> None:
        """Record the scores of a trial.

        Args:
            result: Its results on validation.
            predictions: Its predictions for the test rows; None if it failed.
            test: The test rows.
        """
        if self._recorder is None:
            return
        facts: dict[str, float | None] = {
            "seconds": result.seconds,
            "parameters": result.parameters,
            "size": result.size,
        }
        facts |= {"validation/metric": result.value, "chosen/learning_rate": result.rate}
        scores = {name: float(value) for name, value in facts.items() if value is not None}
        if predictions is not None and test is not None:
            names, problem = test.source.label_names, test.problem
            decision = Decision.from_json(result.decision, problem, names)
            scores |= flat_scores({"test": score_decision(test.labels, predictions.logits, decision, test.group_ids)})
        self._recorder.scores(scores)


@contextmanager
def recorded_trial(candidate: Candidate, trial: Trial) -> Iterator[RecordedTrial]:
    """Within the block, record into the run of a trial.

    Args:
        candidate: Its recipe.
        trial: Its seed, its fold and its size.

    Yields:
        What takes the scores.
    """
    if not tracking.is_recorded():
        yield RecordedTrial(None)
        return
    with tracking.child_run(trial.id, trial_settings(candidate, trial)) as recorder:
        yield RecordedTrial(recorder)


def record_finished(
    candidate: Candidate, trial: Trial, result: TrialResult, predictions: TrialPredictions | None, test: Part | None
) -> None:
    """Record a trial that an earlier call finished, unless it recorded it.

    Args:
        candidate: Its recipe.
        trial: Its seed, its fold and its size.
        result: Its results on validation, with its history.
        predictions: Its predictions for the test rows; None if it failed.
        test: The test rows.
    """
    if not tracking.is_recorded() or tracking.has_child(trial.id):
        return
    with recorded_trial(candidate, trial) as recorded:
        for number, entry in enumerate(result.history):
            with tracking.series(f"rate-{entry['rate']:g}" if "rate" in entry else ""):
                tracking.note_epoch(number, entry)
        recorded.finish(result, predictions, test)


def trial_settings(candidate: Candidate, trial: Trial) -> dict[str, Setting]:
    """Return the settings of a trial as trackers show them."""
    recipe = {} if candidate.recipe is None else candidate.recipe.model_dump(mode="json")
    own = {"candidate": candidate.name, "seed": trial.seed, "fold": trial.fold}
    return flat_settings(recipe | own | {"size": vars(trial.size)})
