"""Checkpoints are complete or not used, and a run is resumed only if it is the same run."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fullbake.core import storage
from fullbake.core.errors import Fault, OutputError, RecipeError, SpaceFault
from fullbake.core.hashing import fingerprint
from fullbake.training.checkpoints import (
    Checkpoint,
    CheckpointInterval,
    Checkpoints,
    ResumeMode,
    UnfinishedRun,
    begin_run,
    is_saved,
    only_cleanup_left,
    open_unfinished_run,
    recorded_threads,
    remove_unfinished,
    sole_run,
    threads_in,
    unfinished_folder,
)

FILES = ("model.safetensors", "optimizer.safetensors", "state.json", "manifest.json")


EVERY_2_STEPS = CheckpointInterval(steps=2)


def checkpoints_in(folder: Path, identity: str = "a run", every: CheckpointInterval = EVERY_2_STEPS) -> Checkpoints:
    return Checkpoints(folder, every, identity)


def state(step: int) -> Checkpoint:
    arrays = {"model": {"w": np.full(3, step, np.float32)}, "optimizer": {"0.step": np.array(step, np.float32)}}
    return Checkpoint(step, arrays, {"epoch": step, "loss": step / 3})


def saved(folder: Path, *steps: int) -> Checkpoints:
    checkpoints = checkpoints_in(folder)
    for step in steps:
        checkpoints.save(state(step))
    return checkpoints


def test_the_newest_checkpoint_is_read_as_it_was_saved(tmp_path: Path) -> None:
    newest = saved(tmp_path, 2, 4).newest()
    assert newest is not None
    assert (newest.step, newest.facts) == (4, {"epoch": 4, "loss": 4 / 3})
    np.testing.assert_array_equal(newest.arrays["model"]["w"], [4, 4, 4])
    assert newest.arrays["optimizer"]["0.step"].shape == ()


def test_there_is_no_newest_without_checkpoints(tmp_path: Path) -> None:
    assert checkpoints_in(tmp_path / "nowhere").newest() is None


def test_the_two_newest_are_kept(tmp_path: Path) -> None:
    saved(tmp_path, 2, 4, 6, 8)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000000006", "step-000000008"]


def test_an_older_checkpoint_is_removed_only_after_the_new_one_verifies(tmp_path: Path) -> None:
    """A disk that writes other bytes than it was given: the two good checkpoints stay."""
    checkpoints = saved(tmp_path, 2, 4)

    def corrupt(operation: str, path: Path) -> None:
        if operation == "sync" and path.name == "model.safetensors":
            flip(path)

    with storage.observed(corrupt), pytest.raises(Fault, match=r"model\.safetensors"):
        checkpoints.save(state(6))
    assert {"step-000000002", "step-000000004"} <= {path.name for path in tmp_path.iterdir()}


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def swap(path: Path) -> None:
    """Replace the file by that of the checkpoint before."""
    shutil.copyfile(path.parent.parent / "step-000000002" / path.name, path)


@pytest.mark.parametrize("damage", [Path.unlink, truncate, flip, swap], ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("name", FILES)
def test_damage_is_reported_and_the_checkpoint_before_is_used(tmp_path: Path, caplog, name: str, damage) -> None:
    checkpoints = saved(tmp_path, 2, 4)
    damage(tmp_path / "step-000000004" / name)
    with caplog.at_level("INFO", "fullbake"):
        newest = checkpoints.newest()
    assert newest is not None
    assert newest.step == 2
    assert "cannot be used" in caplog.text
    assert "using the older checkpoint of step 2" in caplog.text


def test_a_foreign_file_counts_as_damage(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 2, 4)
    (tmp_path / "step-000000004" / "more.bin").write_bytes(b"x")
    assert checkpoints.newest().step == 2


def test_a_checkpoint_under_the_name_of_another_step_is_not_used(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 2, 4)
    shutil.rmtree(tmp_path / "step-000000004")
    shutil.copytree(tmp_path / "step-000000002", tmp_path / "step-000000004")
    assert checkpoints.newest().step == 2


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    saved(tmp_path, 2)
    with pytest.raises(Fault, match="another run"):
        checkpoints_in(tmp_path, identity="another run").newest()


def test_a_run_whose_checkpoints_are_all_damaged_is_refused(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 2, 4)
    for place in tmp_path.iterdir():
        flip(place / "model.safetensors")
    with pytest.raises(Fault, match=r"(?s)no checkpoint.*step-000000004.*step-000000002.*--restart"):
        checkpoints.newest()


def test_leftovers_of_a_dead_process_are_removed(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 2)
    left = tmp_path / ".step-000000004.0123456789abcdef.partial"
    (left / "new" / "step-000000004").mkdir(parents=True)
    checkpoints.newest()
    assert not left.exists()


def test_saving_without_space_keeps_the_earlier_checkpoints(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 2, 4)
    huge = np.broadcast_to(np.float32(0), 10**15)  # a view of four bytes: only its size counts here
    with pytest.raises(SpaceFault, match=r"4,000\.0 TB free"):
        checkpoints.save(Checkpoint(6, {"model": {"w": huge}}, {}))
    assert checkpoints.newest().step == 4


def test_only_the_writing_process_writes(tmp_path: Path) -> None:
    Checkpoints(tmp_path, CheckpointInterval(steps=1), "a run", writes=False).save(state(2))
    assert not list(tmp_path.iterdir())


def test_intervals_are_steps_or_durations() -> None:
    assert CheckpointInterval.parse("50") == CheckpointInterval(steps=50)
    assert CheckpointInterval.parse("5m") == CheckpointInterval(seconds=300)
    assert CheckpointInterval.parse("0.5h") == CheckpointInterval.parse("30 min") == CheckpointInterval(seconds=1800)
    for wrong in ("", "5 weeks", "-3", "0", "1.5", "0s", "m"):
        with pytest.raises(RecipeError, match="checkpoint-every"):
            CheckpointInterval.parse(wrong)


def test_saving_is_due_every_so_many_steps_or_seconds(tmp_path: Path) -> None:
    by_steps = checkpoints_in(tmp_path, every=CheckpointInterval(steps=3))
    assert [by_steps.due(step) for step in range(1, 7)] == [False, False, True, False, False, True]
    now = [100.0]
    by_time = Checkpoints(tmp_path, CheckpointInterval(seconds=30), "a run", clock=lambda: now[0])
    found = []
    for now[0] in (129, 130, 131, 160, 161):
        found.append(by_time.due(1))
        if now[0] == 131:
            by_time.save(state(1))
    assert found == [False, True, True, False, True]


FACTS: dict[str, Any] = {
    "recipe": {"training": {"epochs": 3}},
    "data": {"train": "a" * 64},
    "processes": 1,
    "versions": {"torch": "2.13.0"},
}


def opened(out: Path, facts: dict[str, Any] = FACTS, resume: ResumeMode = "auto") -> UnfinishedRun:
    """Open a run and save something in it."""
    run = open_unfinished_run(out, facts, CheckpointInterval(steps=5), resume, writes=True)
    (run.folder / "rate-1" / "step-000000005").mkdir(parents=True, exist_ok=True)
    return run


def test_a_run_without_checkpoints_is_replaced(tmp_path: Path) -> None:
    open_unfinished_run(tmp_path / "m", FACTS, CheckpointInterval(steps=5), "auto", writes=True)
    assert opened(tmp_path / "m", changed(processes=2)).identity == fingerprint(changed(processes=2))


def changed(**changes: Any) -> dict[str, Any]:
    return {**FACTS, **changes}


def test_an_unfinished_run_is_beside_its_output(tmp_path: Path) -> None:
    run = opened(tmp_path / "m")
    assert run.folder == unfinished_folder(tmp_path / "m") == tmp_path / "m.unfinished"
    assert not (tmp_path / "m").exists()
    assert storage.read_json(run.folder / "run.json") == FACTS


def test_the_same_run_is_resumed(tmp_path: Path) -> None:
    first, second = opened(tmp_path / "m"), opened(tmp_path / "m")
    assert first.identity == second.identity == fingerprint(FACTS)


@pytest.mark.parametrize(
    ("now", "named"),
    [
        (changed(recipe={"training": {"epochs": 5}}), r"recipe\.training\.epochs: 3 there, 5 now"),
        (changed(data={"train": "b" * 64}), r"data\.train: a{12}\.\.\. there, b{12}\.\.\. now"),
        (changed(versions={"torch": "2.14.0"}), r"versions\.torch: 2\.13\.0 there, 2\.14\.0 now"),
    ],
    ids=["recipe", "data", "versions"],
)
def test_another_run_is_refused_and_what_differs_is_named(tmp_path: Path, now: dict[str, Any], named: str) -> None:
    opened(tmp_path / "m")
    with pytest.raises(OutputError, match=named):
        opened(tmp_path / "m", now)


def test_resume_anyway_keeps_the_old_identity_and_says_what_differs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = opened(tmp_path / "m")
    with caplog.at_level("WARNING", "fullbake"):
        assert opened(tmp_path / "m", changed(threads=2), resume="anyway").identity == first.identity
    assert "threads: None there, 2 now" in caplog.text


def test_another_number_of_processes_resumes_the_same_run(tmp_path: Path) -> None:
    first, second = opened(tmp_path / "m"), opened(tmp_path / "m", changed(processes=2))
    assert first.identity == second.identity
    assert second.is_described()


def test_restart_deletes_the_unfinished_run(tmp_path: Path) -> None:
    first = opened(tmp_path / "m")
    (first.folder / "rate-1" / "step-000000010").mkdir()
    again = opened(tmp_path / "m", changed(processes=2), resume="restart")
    assert again.identity == fingerprint(changed(processes=2))
    assert not (first.folder / "rate-1" / "step-000000010").exists()


def test_resume_refuses_to_start_a_new_run(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="no unfinished run"):
        opened(tmp_path / "m", resume="require")
    opened(tmp_path / "m")
    opened(tmp_path / "m", resume="require")


@pytest.mark.parametrize("content", ["", "[1]", "{"])
def test_an_unfinished_run_with_a_damaged_description_is_refused(tmp_path: Path, content: str) -> None:
    run = opened(tmp_path / "m")
    (run.folder / "run.json").write_text(content)
    with pytest.raises(OutputError, match=r"damaged[\s\S]*--restart"):
        opened(tmp_path / "m")


def test_a_saved_result_is_recognized_as_that_of_the_unfinished_run(tmp_path: Path) -> None:
    out = tmp_path / "m"
    run = opened(out)
    assert not is_saved(out)
    out.mkdir()
    storage.write_json(out / "fullbake.json", {"run": "another"})
    assert not is_saved(out)
    storage.write_json(out / "fullbake.json", {"run": run.identity})
    assert is_saved(out)
    assert only_cleanup_left(out, FACTS)
    assert only_cleanup_left(out, changed(processes=2))
    assert not only_cleanup_left(out, changed(threads=2))
    remove_unfinished(out, writes=True)
    assert not run.folder.exists()


def test_processes_that_do_not_write_leave_no_folder(tmp_path: Path) -> None:
    open_unfinished_run(tmp_path / "m", FACTS, CheckpointInterval(steps=5), "auto", writes=False).close()
    assert not list(tmp_path.iterdir())


def test_two_runs_on_one_output_exclude_each_other(tmp_path: Path) -> None:
    with sole_run(tmp_path / "m", writes=True):
        with (
            pytest.raises(OutputError, match=r"another process[\s\S]*another --out"),
            sole_run(tmp_path / "m", writes=True),
        ):
            pytest.fail("two runs")
        with sole_run(tmp_path / "m", writes=False):  # another process of the same run
            pass
    with sole_run(tmp_path / "m", writes=True):
        pass


def test_the_threads_of_a_run_are_known_once_it_can_be_resumed(tmp_path: Path) -> None:
    run = open_unfinished_run(tmp_path / "m", FACTS | {"threads": 2}, CheckpointInterval(steps=5), "auto", writes=True)
    assert recorded_threads(tmp_path / "m") is None
    run.checkpoints("rate").save(state(5))
    assert recorded_threads(tmp_path / "m") == 2
    run.close()
    assert recorded_threads(tmp_path / "m") is None


def test_the_threads_of_a_run_that_began_are_kept(tmp_path: Path) -> None:
    folder = tmp_path / "trial"
    begin_run(folder, "this", 2)
    begin_run(folder, "this", 1)
    assert threads_in(folder) is None
    checkpoints_in(folder / "rate").save(state(5))
    begin_run(folder, "this", 4)
    assert threads_in(folder) == threads_in(folder, "this") == 1


def test_checkpoints_that_no_run_can_resume_are_removed(tmp_path: Path) -> None:
    folder = tmp_path / "trial"
    begin_run(folder, "older", 1)
    checkpoints_in(folder / "rate").save(state(5))
    assert threads_in(folder, "newer") is None
    begin_run(folder, "newer", 3)
    assert checkpoints_in(folder / "rate").newest() is None
    checkpoints_in(folder / "rate").save(state(5))
    assert threads_in(folder, "newer") == 3
