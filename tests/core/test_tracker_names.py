"""Trackers are found by name; what is wrong is said before any work."""

import pytest
from helpers.trackers import MemoryTracker

from fullbake.core import tracker_names
from fullbake.core.errors import MissingExtraError, RecipeError
from fullbake.core.tracker_names import TRACKERS, find_trackers


def test_names_and_objects_are_trackers_each_once() -> None:
    own = MemoryTracker()
    assert [tracker.name for tracker in find_trackers(["tensorboard, mlflow", own, "tensorboard", None, own])] == [
        "tensorboard",
        "mlflow",
        "memory",
    ]
    assert find_trackers(own) == [own]
    assert find_trackers(None) == find_trackers([]) == find_trackers("") == []


def test_an_unknown_name_is_answered_with_the_right_one() -> None:
    with pytest.raises(RecipeError, match=r"Expected tensorboard, mlflow, .*Did you mean 'tensorboard'\?"):
        find_trackers("tensorbord")


@pytest.mark.parametrize("wrong", [3, object(), MemoryTracker])
def test_what_is_no_tracker_is_refused(wrong: object) -> None:
    with pytest.raises(RecipeError, match="this is no tracker"):
        find_trackers([wrong])  # type: ignore[list-item]


def test_a_missing_library_is_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracker_names, "is_installed", lambda _: False)
    for name, source in TRACKERS.items():
        with pytest.raises(MissingExtraError, match=f"pip install {source.install}"):
            find_trackers(name)
