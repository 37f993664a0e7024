"""A run may continue with another number of processes, and says so; processes that differ are refused by name."""

from pathlib import Path
from typing import Any

import pytest

from fullbake.core import ranks, runtime
from fullbake.core.errors import Error, OutputError
from fullbake.training.checkpoints import Checkpoint, CheckpointInterval, Checkpoints, open_unfinished_run
from fullbake.training.elastic import (
    changes_in,
    check_all_ranks_see,
    check_folder_is_shared,
    check_same_on_all_ranks,
    newest_of_all_ranks,
    note_ranks,
    ranks_of_epoch,
)


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Two processes, of which this one is the first; `other` is what the second one says."""
    said: dict[str, Any] = {"other": None}
    monkeypatch.setattr(runtime, "world_size", lambda: 2)
    monkeypatch.setattr(ranks, "wait_for_ranks", lambda: None)
    monkeypatch.setattr(ranks, "gather_json", lambda mine: [mine, said["other"]])
    monkeypatch.setattr(ranks, "process_name", lambda rank: f"process {rank} on node{rank} (process id 7)")
    return said


FACTS = {"data": {"train": "a" * 64}, "versions": {"torch": "2.13.0"}, "threads": 2}


def test_equal_processes_pass(two: dict[str, Any]) -> None:
    two["other"] = FACTS
    check_same_on_all_ranks(FACTS)


def test_process_with_other_data_and_versions_is_refused_by_name(two: dict[str, Any]) -> None:
    two["other"] = {"data": {"train": "b" * 64}, "versions": {"torch": "2.12.0"}, "threads": 2}
    with pytest.raises(Error) as refused:
        check_same_on_all_ranks(FACTS)
    text = str(refused.value)
    assert "process 1 on node1" in text
    assert "data.train: aaaaaaaaaaaa... in process 0, bbbbbbbbbbbb... in process 1" in text
    assert "versions.torch: 2.13.0 in process 0, 2.12.0 in process 1" in text
    assert "threads:" not in text


def test_long_lists_of_differences_are_cut(two: dict[str, Any]) -> None:
    two["other"] = {str(number): 1 for number in range(20)}
    with pytest.raises(Error, match="12 more"):
        check_same_on_all_ranks({str(number): 0 for number in range(20)})


def test_folder_that_one_machine_does_not_see_gives_a_warning(
    two: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = open_unfinished_run(tmp_path / "m", FACTS, CheckpointInterval(steps=1), "auto", writes=True)
    assert run.is_described()
    two["other"] = True
    check_folder_is_shared(run)
    assert not caplog.records
    two["other"] = False
    check_folder_is_shared(run)
    assert "process 1 on node1 (process id 7): " in caplog.text


def test_cache_that_one_machine_does_not_see_is_refused(two: dict[str, Any], tmp_path: Path) -> None:
    two["other"] = False
    check_all_ranks_see(False, tmp_path)
    with pytest.raises(OutputError, match=r"process 1 on node1.*cannot see") as refused:
        check_all_ranks_see(True, tmp_path)
    assert "--cache-dir" in str(refused.value)


def test_processes_that_see_different_checkpoints_are_refused(two: dict[str, Any], tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "c", CheckpointInterval(steps=1), "run")
    assert newest_of_all_ranks(checkpoints) is None
    checkpoints.save(Checkpoint(4, {}, {}))
    two["other"] = 4
    newest = newest_of_all_ranks(checkpoints)
    assert newest is not None
    assert newest.step == 4
    two["other"] = None
    with pytest.raises(OutputError, match=r"step 4 in process 0 on node0.*no checkpoint in process 1 on node1"):
        newest_of_all_ranks(checkpoints)


def test_change_of_processes_is_noted_once(caplog: pytest.LogCaptureFixture) -> None:
    known = [[0, 3]]
    note_ranks(known, 6, 3)
    assert known == [[0, 3]]
    note_ranks(known, 12, 2)
    note_ranks(known, 14, 2)
    assert known == [[0, 3], [12, 2]]
    assert caplog.messages == [
        "from step 13 on 2 processes in place of 3: the rows of each step are the same, but the bits may differ from "
        "those of a run without this change"
    ]
    unknown: list[list[int]] = []
    note_ranks(unknown, 5, 2)
    assert unknown == [[5, 2]]


def test_history_says_where_the_number_changed() -> None:
    assert ranks_of_epoch([[0, 1]], 0, 5) == {}
    assert ranks_of_epoch([[0, 2]], 5, 10) == {"ranks": 2}
    known = [[0, 3], [12, 2]]
    assert ranks_of_epoch(known, 20, 30) == {"ranks": 2}
    assert ranks_of_epoch(known, 2, 12) == {"ranks": 3}, "only its validation was on two"
    assert "ranks_changed" in ranks_of_epoch(known, 12, 22)
    entry = ranks_of_epoch(known, 10, 20)
    assert (entry["ranks"], entry["ranks_changed"][0]["from_step"]) == (2, 13)
    assert [change["now"] for change in changes_in([{"epoch": 1}, entry])] == [2]
