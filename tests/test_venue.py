import json
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from fullbake.comparison.compare import ABOUT, opened
from fullbake.core.errors import OutputError

IDENTITY: dict[str, Any] = {"data": "a" * 64, "folds": None, "recipes": {"finetune": {"epochs": 3}}}


def enter(folder: Path, *, restart: bool = False, **given: Any) -> dict[str, Any]:
    """Go in and out; what the folder then says of itself."""
    with opened(folder, IDENTITY | given, restart=restart):
        pass
    found: dict[str, Any] = json.loads((folder / ABOUT).read_text())
    return found


def test_a_new_folder_says_what_it_is_of(tmp_path: Path) -> None:
    assert enter(tmp_path / "deep" / "out") == IDENTITY
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"], "no lock is left"


def test_the_same_comparison_may_go_on_and_recipes_grow(tmp_path: Path) -> None:
    enter(tmp_path / "out")
    more = {"tfidf": {"x": 1}}
    assert enter(tmp_path / "out", recipes=more)["recipes"] == IDENTITY["recipes"] | more
    both = enter(tmp_path / "out", recipes=IDENTITY["recipes"])["recipes"]
    assert both == IDENTITY["recipes"] | more, "what is left out of one call is not forgotten"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"folds": 5}, r"folds: None there, 5 now"),
        ({"data": "b" * 64}, r"data: aaaaaaaaaaaa\.\.\. there, bbbbbbbbbbbb\.\.\. now"),
        ({"recipes": {"finetune": {"epochs": 4}}}, r"recipes\.finetune\.epochs: 3 there, 4 now"),
    ],
)
def test_something_else_is_refused_and_left_alone(tmp_path: Path, given: dict[str, Any], words: str) -> None:
    enter(tmp_path / "out")
    (tmp_path / "out" / "cells").mkdir()
    with pytest.raises(OutputError, match=f"{words}(?s:.*)--restart"):
        enter(tmp_path / "out", **given)
    assert (tmp_path / "out" / "cells").is_dir()
    assert enter(tmp_path / "out", restart=True, **given)["folds"] == given.get("folds")
    assert not (tmp_path / "out" / "cells").exists()


@pytest.mark.parametrize("damage", ["", "{", "[]"])
def test_an_unreadable_account_is_another_comparison(tmp_path: Path, damage: str) -> None:
    enter(tmp_path / "out")
    (tmp_path / "out" / ABOUT).write_text(damage)
    with pytest.raises(OutputError, match="a comparison of something else"):
        enter(tmp_path / "out")
    assert enter(tmp_path / "out", restart=True) == IDENTITY


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with opened(tmp_path / "out", IDENTITY, restart=False):
        other = FileLock(tmp_path / ".out.lock")
        assert other.lock_file
        with pytest.raises(OutputError, match="another process"):
            enter(tmp_path / "out")
    enter(tmp_path / "out")


def test_the_lock_goes_whatever_happens(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), opened(tmp_path / "out", IDENTITY, restart=False):
        raise KeyboardInterrupt
    assert enter(tmp_path / "out") == IDENTITY
