"""A comparison is one run with a run below it for each trial; what was finished before is recorded too, once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.rows import dataset
from helpers.trackers import MemoryTracker

from fullbake import compare
from fullbake.comparison.recorded_trials import board_scores


@pytest.fixture(scope="module")
def compared(bases: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[list[MemoryTracker], Any]:
    """The trackers of two calls of one comparison, and its leaderboard."""
    folder = tmp_path_factory.mktemp("tracked")
    rows, trackers = dataset(folder, 60), [MemoryTracker("first"), MemoryTracker("second")]
    fields: dict[str, Any] = {"max_length": 48, "batch_size": 8, "epochs": 2, "token_budget": 256, "test": 0.25}
    fields |= {"base": str(bases("bert")), "out": folder / "out", "cache_dir": folder / "cache", "seeds": 1}
    for track in (trackers[:1], trackers):
        board = compare(rows, ("frozen-linear", "majority"), head_rates=(1e-2,), track=track, **fields)
    return trackers, board


def test_trials_are_runs_below_their_comparison(compared: tuple[list[MemoryTracker], Any]) -> None:
    first = compared[0][0]
    parent, trial, majority = (first.named(name) for name in ("out", "frozen-linear/0", "majority/0"))
    assert trial.info.parent == majority.info.parent == parent.info.id
    assert trial.info.settings["way"] == "frozen"
    assert trial.info.settings["seed"] == 0
    assert trial.steps("epoch/train_loss") == sorted(set(trial.steps("epoch/train_loss"))) != []
    assert {"test/f1_macro", "test/accuracy_low", "validation/metric"} <= set(trial.scores)
    assert (parent.points, parent.status, trial.status) == ([], "finished", "finished")


def test_the_comparison_has_all_test_scores_and_the_best_bundle(compared: tuple[list[MemoryTracker], Any]) -> None:
    (first, _), board = compared
    parent = first.named("out")
    assert parent.scores == board_scores(board)
    assert {"frozen-linear/test/f1_macro", "frozen-linear/test/f1_macro_low"} <= set(parent.scores)
    assert "model.safetensors" in parent.files
    assert "seen.safetensors" not in parent.files


def test_a_tracker_that_comes_later_gets_finished_trials_once(compared: tuple[list[MemoryTracker], Any]) -> None:
    first, second = compared[0]
    trial = second.named("frozen-linear/0")
    assert len(trial.steps("epoch/train_loss")) == len(first.named("frozen-linear/0").steps("epoch/train_loss"))
    assert trial.scores == first.named("frozen-linear/0").scores
    assert first.named("frozen-linear/0").steps("epoch/train_loss") == sorted(
        set(first.named("frozen-linear/0").steps("epoch/train_loss"))
    )
