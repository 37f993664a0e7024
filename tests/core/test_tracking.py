"""What training notes reaches whoever takes notes, under the right names, and nobody else."""

import math
from collections.abc import Mapping
from typing import Any

import pytest

from fullbake.core import tracking
from fullbake.core.errors import DeadlinePassed


class Notes:
    """Takes notes into a list."""

    def __init__(self, name: str = "") -> None:
        self.name, self.noted, self.children, self.status = name, list[tuple[int, dict[str, float]]](), list[Any](), ""

    def note(self, step: int, values: Mapping[str, float]) -> None:
        self.noted.append((step, dict(values)))

    def settle(self) -> None:
        self.noted.append((-1, {}))

    def open_child(self, name: str, settings: Mapping[str, Any]) -> "Notes":
        self.children.append(Notes(name))
        return self.children[-1]  # type: ignore[no-any-return]

    def has_child(self, name: str) -> bool:
        return name == "done"

    def scores(self, scores: Mapping[str, float]) -> None:
        self.noted.append((-2, dict(scores)))

    def close(self, status: str) -> None:
        self.status = status


def test_nothing_happens_where_nobody_takes_notes() -> None:
    tracking.note_step(1, 0.5, 1e-3)
    tracking.note_epoch(1, {"train_loss": 1.0})
    tracking.settle()
    assert not tracking.is_recorded()
    assert not tracking.has_child("done")
    with tracking.child_run("trial", {}) as child:
        assert child is None


def test_steps_and_epochs_have_names_and_series() -> None:
    notes = Notes()
    with tracking.recorded_by(notes), tracking.series("head+tail"), tracking.series(""), tracking.series("rate-5e-05"):
        tracking.note_step(3, 0.5, 1e-3)
        tracking.note_epoch(
            4,
            {"epoch": 1, "train_loss": 2, "held_logits": [[1.0]], "f1_macro": -math.inf, "stopped": "so", "best": True},
        )
    assert notes.noted == [
        (3, {"head-tail/rate-5e-05/train/loss": 0.5, "head-tail/rate-5e-05/train/learning_rate": 1e-3}),
        (4, {"head-tail/rate-5e-05/epoch/train_loss": 2.0}),
    ]


def test_unrecorded_blocks_are_left_out() -> None:
    notes = Notes()
    with tracking.recorded_by(notes):
        with tracking.unrecorded():
            tracking.note_step(1, 0.5, 1e-3)
        tracking.settle()
        assert tracking.has_child("done")
    assert notes.noted == [(-1, {})]


def noted_until(notes: Notes, error: type[BaseException]) -> None:
    with tracking.recorded_by(notes), tracking.child_run("trial", {}):
        tracking.note_step(1, 0.5, 1e-3)
        raise error


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError, "failed"), (DeadlinePassed, "stopped"), (KeyboardInterrupt, "stopped")]
)
def test_a_child_run_ends_as_its_block_does(error: type[BaseException], status: str) -> None:
    notes = Notes()
    with pytest.raises(error):
        noted_until(notes, error)
    assert notes.noted == []
    assert (notes.children[0].noted[0][0], notes.children[0].status) == (1, status)
    with tracking.recorded_by(notes), tracking.child_run("other", {}):
        pass
    assert notes.children[1].status == "finished"


def test_settings_and_scores_are_flat() -> None:
    nested = {"head": {"kind": "mlp", "l2": 0.1}, "rates": [1e-3, 1e-4], "none": None, "data": {"fold": {"on": True}}}
    assert tracking.flat_settings(nested) == {
        "head.kind": "mlp",
        "head.l2": 0.1,
        "rates": "0.001, 0.0001",
        "data.fold.on": True,
    }
    overall = {
        "f1_macro": {"value": 0.5, "low": 0.4, "high": None},
        "roc_auc": {"value": None, "low": None, "high": None},
    }
    assert tracking.flat_scores({"test": {"rows": 20, "overall": overall}}) == {
        "test/rows": 20.0,
        "test/f1_macro": 0.5,
        "test/f1_macro_low": 0.4,
    }
