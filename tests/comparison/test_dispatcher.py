"""The loop over several workers, with an executor that works in this process and gives results back in any order."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.executed import InlineExecutor, run_comparison, scores_of, stored_arrays

from fullbake.comparison import placement
from fullbake.comparison.packing import Assignment, divide_message, join_message
from fullbake.core.errors import Error, Fault, RecipeError

Local = tuple[Path, dict[str, Any]]
Bases = Callable[..., Path]


@pytest.fixture(scope="module")
def local(bases: Bases, tmp_path_factory: pytest.TempPathFactory) -> Local:
    """The comparison in this process, one trial after the other: (parent of its folder, leaderboard)."""
    folder = tmp_path_factory.mktemp("local")
    return folder, run_comparison(bases("bert"), folder)


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[InlineExecutor]]:
    """Return a function that lets `compare` use an InlineExecutor, and returns the list of those that it made."""

    def use(
        change: Callable[[Assignment, bytes], bytes | None] = lambda _, data: data, cache_dir: Path | None = None
    ) -> list[InlineExecutor]:
        made: list[InlineExecutor] = []

        def make(package: bytes, workers: int) -> InlineExecutor:
            made.append(InlineExecutor(package, workers, change))
            if cache_dir is not None:
                made[-1].work.cache_dir = cache_dir
            return made[-1]

        monkeypatch.setattr(placement, "ProcessExecutor", make)
        return made

    return use


def test_the_leaderboard_is_that_of_one_process(
    local: Local, inline: Callable[..., list[InlineExecutor]], bases: Bases, tmp_path: Path
) -> None:
    made = inline()
    board = run_comparison(bases("bert"), tmp_path, jobs=3)
    assert stored_arrays(tmp_path) == stored_arrays(local[0])
    assert scores_of(board) == scores_of(local[1])
    (executor,) = made
    assert executor.closed
    assert executor.most > 1
    shared = [name for name in executor.order if name.endswith("(shared work)")]
    assert len(shared) == len(set(shared)), "shared work is done once"
    assert executor.order.index("frozen-mlp/0") < executor.order.index("frozen-mlp/1")
    before = len(executor.order)
    assert scores_of(run_comparison(bases("bert"), tmp_path, jobs=2)) == scores_of(local[1])
    assert (len(executor.order), made[-1].order) == (before, []), "what is finished does not run again"


def test_it_goes_on_where_the_driver_died(
    local: Local, inline: Callable[..., list[InlineExecutor]], bases: Bases, tmp_path: Path
) -> None:
    taken: list[str] = []

    def stop(assignment: Assignment, data: bytes) -> bytes:
        taken.append(assignment.id)
        if len(taken) == 4:
            raise KeyboardInterrupt
        return data

    made = inline(stop)
    with pytest.raises(KeyboardInterrupt):
        run_comparison(bases("bert"), tmp_path, jobs=2)
    assert made[-1].closed
    finished = [one for one in taken[:3] if "shared" not in one]
    again = inline()
    board = run_comparison(bases("bert"), tmp_path, jobs=2)
    assert not set(finished) & set(again[-1].order)
    assert stored_arrays(tmp_path) == stored_arrays(local[0])
    assert scores_of(board) == scores_of(local[1])


def test_finished_trials_of_one_process_are_taken(
    local: Local, inline: Callable[..., list[InlineExecutor]], bases: Bases, tmp_path: Path
) -> None:
    shutil.copytree(local[0], tmp_path, dirs_exist_ok=True)
    made = inline()
    assert scores_of(run_comparison(bases("bert"), tmp_path, jobs=2)) == scores_of(local[1])
    assert made[-1].order == []


def _edited(data: bytes, **head: Any) -> bytes:
    found, blobs = divide_message(data)
    return join_message(found | head, blobs)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda data: None, Fault, r"died, again and again(.|\n)*the same command continues"),
        (lambda data: b"nonsense", Fault, r"what a worker sent back cannot be used"),
        (lambda data: _edited(data, error={"kind": "space", "what": "disk full"}), Fault, r"on .*: disk full"),
        (lambda data: _edited(data, versions={"python": "2.7"}), Error, r"got python 2.7"),
    ],
)
def test_what_goes_wrong_at_a_worker_is_said(
    inline: Callable[..., list[InlineExecutor]],
    bases: Bases,
    tmp_path: Path,
    change: Callable[[bytes], bytes | None],
    error: type[Error],
    words: str,
) -> None:
    made = inline(lambda _, data: change(data))
    with pytest.raises(error, match=words):
        run_comparison(bases("bert"), tmp_path, recipes="majority,frozen-linear", jobs=2)
    assert made[-1].closed


def test_a_budget_holds_with_several_workers(
    inline: Callable[..., list[InlineExecutor]], bases: Bases, tmp_path: Path
) -> None:
    inline()
    board = run_comparison(bases("bert"), tmp_path, jobs=2, budget="10m")
    assert {recipe["status"] for recipe in board["recipes"]} == {"done"}
    inline(lambda _, data: _edited(data, result=None, gave_up="the time was up"))
    (tmp_path / "late").mkdir()
    with pytest.raises(RecipeError, match="the budget is too short"):
        run_comparison(
            bases("bert"), tmp_path, recipes="frozen-linear", out=tmp_path / "late" / "out", jobs=2, budget="20s"
        )


def test_features_come_back_where_no_cache_is_shared(
    local: Local,
    inline: Callable[..., list[InlineExecutor]],
    bases: Bases,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    apart = {"sends_entries": True, "shares_out": False}
    real = placement.Dispatcher
    monkeypatch.setattr(placement, "Dispatcher", lambda *given, **named: real(*given, **(named | apart)))
    inline(cache_dir=tmp_path / "elsewhere")
    run_comparison(bases("bert"), tmp_path, recipes="frozen-linear", jobs=2)
    here, there = (
        sorted(path.name for path in (tmp_path / name / "features").iterdir() if not path.name.startswith("."))
        for name in ("cache", "elsewhere")
    )
    assert here == there
    assert here, "the driver has the entries too"
    stored = stored_arrays(tmp_path)
    assert stored == {name: data for name, data in stored_arrays(local[0]).items() if name in stored}


@pytest.mark.parametrize("jobs", [0, -1, 1.5, True])
def test_no_number_of_jobs(bases: Bases, tmp_path: Path, jobs: Any) -> None:
    with pytest.raises(RecipeError, match="--jobs"):
        run_comparison(bases("bert"), tmp_path, jobs=jobs)
