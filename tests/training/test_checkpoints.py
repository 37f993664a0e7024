"""fullbake.training.checkpoints: ."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fullbake.core import storage
from fullbake.core.errors import Fault, OutputError, RecipeError, SpaceFault
from fullbake.core.hashing import fingerprint
from fullbake.training import checkpoints
from fullbake.training.checkpoints import (
    Checkpoint,
    CheckpointInterval,
    Checkpoints,
    ResumeMode,
    open_unfinished_run,
    unfinished_folder,
)

FILES = ("model.safetensors", "optimizer.safetensors", "state.json", "manifest.json")


def keeper(
    folder: Path, identity: str = "a run", every: CheckpointInterval = CheckpointInterval(steps=2)
) -> Checkpoints:  # noqa: B008
    return Checkpoints(folder, every, identity)


def state(step: int) -> Checkpoint:
    arrays = {"model": {"w": np.full(3, step, np.float32)}, "optimizer": {"0.step": np.array(step, np.float32)}}
    return Checkpoint(step, arrays, {"epoch": step, "loss": step / 3})


def saved(folder: Path, *steps: int) -> Checkpoints:
    checkpoints = keeper(folder)
    for step in steps:
        checkpoints.save(state(step))
    return checkpoints


def test_what_is_saved_is_what_is_found(tmp_path: Path) -> None:
    newest = saved(tmp_path, 2, 4).newest()
    assert newest is not None
    assert (newest.step, newest.facts) == (4, {"epoch": 4, "loss": 4 / 3})
    np.testing.assert_array_equal(newest.arrays["model"]["w"], [4, 4, 4])
    assert newest.arrays["optimizer"]["0.step"].shape == ()


def test_none_where_there_is_none(tmp_path: Path) -> None:
    assert keeper(tmp_path / "nowhere").newest() is None


def test_two_are_kept(tmp_path: Path) -> None:
    saved(tmp_path, 2, 4, 6, 8)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000000006", "step-000000008"]


def test_the_older_goes_only_after_the_newer_verifies(tmp_path: Path) -> None:
    """A disk that writes something else than it was given: the two good checkpoints stay."""
    checkpoints = saved(tmp_path, 2, 4)

    def rot(operation: str, path: Path) -> None:
        if operation == "sync" and path.name == "model.safetensors":
            flip(path)

    with storage.observed(rot), pytest.raises(Fault, match=r"model\.safetensors"):
        checkpoints.save(state(6))
    assert {"step-000000002", "step-000000004"} <= {path.name for path in tmp_path.iterdir()}


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def swap(path: Path) -> None:
    """The same file of the checkpoint before."""
    shutil.copyfile(path.parent.parent / "step-000000002" / path.name, path)


@pytest.mark.parametrize("damage", [Path.unlink, truncate, flip, swap], ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("name", FILES)
def test_damage_is_named_and_the_one_before_is_taken(tmp_path: Path, caplog, name: str, damage) -> None:
    checkpoints = saved(tmp_path, 2, 4)
    damage(tmp_path / "step-000000004" / name)
    with caplog.at_level("INFO", "fullbake"):
        newest = checkpoints.newest()
    assert newest is not None
    assert newest.step == 2
    assert "cannot be used" in caplog.text
    assert "fell back to the checkpoint at step 2" in caplog.text


def test_a_foreign_file_counts_as_damage(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 2, 4)
    (tmp_path / "step-000000004" / "more.bin").write_bytes(b"x")
    assert checkpoints.newest().step == 2


def test_a_whole_checkpoint_of_another_step_is_not_taken_for_this_one(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 2, 4)
    shutil.rmtree(tmp_path / "step-000000004")
    shutil.copytree(tmp_path / "step-000000002", tmp_path / "step-000000004")
    assert checkpoints.newest().step == 2


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    saved(tmp_path, 2)
    with pytest.raises(Fault, match="another run"):
        keeper(tmp_path, identity="another run").newest()


def test_all_damaged_is_refused_never_silent(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 2, 4)
    for place in tmp_path.iterdir():
        flip(place / "model.safetensors")
    with pytest.raises(Fault, match=r"(?s)no checkpoint.*step-000000004.*step-000000002.*--restart"):
        checkpoints.newest()


def test_what_a_dead_process_left_is_swept(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 2)
    left = tmp_path / ".step-000000004.0123456789abcdef.partial"
    (left / "new" / "step-000000004").mkdir(parents=True)
    checkpoints.newest()
    assert not left.exists()


def test_no_space_costs_nothing_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = saved(tmp_path, 2, 4)
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(SpaceFault, match=r"1\.0 MB"):
        checkpoints.save(state(6))
    assert checkpoints.newest().step == 4


def test_only_the_writing_process_writes(tmp_path: Path) -> None:
    Checkpoints(tmp_path, CheckpointInterval(steps=1), "a run", writes=False).save(state(2))
    assert not list(tmp_path.iterdir())


def test_cadence_by_steps_and_by_time() -> None:
    assert CheckpointInterval.parse("50") == CheckpointInterval(steps=50)
    assert CheckpointInterval.parse("5m") == CheckpointInterval(seconds=300)
    assert CheckpointInterval.parse("0.5h") == CheckpointInterval(seconds=1800)
    for wrong in ("", "5 minutes", "-3", "0", "1.5", "0s", "m"):
        with pytest.raises(RecipeError, match="checkpoint-every"):
            CheckpointInterval.parse(wrong)


def test_due(tmp_path: Path) -> None:
    by_steps = keeper(tmp_path, every=CheckpointInterval(steps=3))
    assert [by_steps.due(step) for step in range(1, 7)] == [False, False, True, False, False, True]
    assert keeper(tmp_path, every=CheckpointInterval(seconds=1e-9)).due(1)
    assert not keeper(tmp_path, every=CheckpointInterval(seconds=1e9)).due(1)


FACTS: dict[str, Any] = {
    "recipe": {"training": {"epochs": 3}},
    "data": {"train": "a" * 64},
    "processes": 1,
    "versions": {"torch": "2.13.0"},
}


def opened(out: Path, facts: dict[str, Any] = FACTS, resume: ResumeMode = "auto") -> checkpoints.UnfinishedRun:
    """Open a run, and save something in it."""
    run = open_unfinished_run(out, facts, CheckpointInterval(steps=5), resume, writes=True)
    (run.folder / "rate-1" / "step-000000005").mkdir(parents=True, exist_ok=True)
    return run


def test_a_run_that_saved_nothing_is_no_hindrance(tmp_path: Path) -> None:
    open_unfinished_run(tmp_path / "m", FACTS, CheckpointInterval(steps=5), "auto", writes=True)
    assert opened(tmp_path / "m", changed(processes=2)).identity == fingerprint(changed(processes=2))


def changed(**changes: Any) -> dict[str, Any]:
    return {**FACTS, **changes}


def test_a_new_run_lies_beside_its_output(tmp_path: Path) -> None:
    run = opened(tmp_path / "m")
    assert run.folder == unfinished_folder(tmp_path / "m") == tmp_path / "m.unfinished"
    assert not (tmp_path / "m").exists()
    assert storage.read_json(run.folder / "run.json") == FACTS


def test_the_same_run_is_gone_on_with(tmp_path: Path) -> None:
    first, second = opened(tmp_path / "m"), opened(tmp_path / "m")
    assert first.identity == second.identity == fingerprint(FACTS)


@pytest.mark.parametrize(
    ("now", "named"),
    [
        (changed(recipe={"training": {"epochs": 5}}), r"recipe\.training\.epochs: 3 there, 5 now"),
        (changed(data={"train": "b" * 64}), r"data\.train: a{12}\.\.\. there, b{12}\.\.\. now"),
        (changed(processes=2), "processes: 1 there, 2 now"),
        (changed(versions={"torch": "2.14.0"}), r"versions\.torch: 2\.13\.0 there, 2\.14\.0 now"),
    ],
    ids=["recipe", "data", "processes", "versions"],
)
def test_another_run_is_refused_naming_what_differs(tmp_path: Path, now: dict[str, Any], named: str) -> None:
    opened(tmp_path / "m")
    with pytest.raises(OutputError, match=named):
        opened(tmp_path / "m", now)


def test_anyway_goes_on_under_the_old_identity_and_says_what_differs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = opened(tmp_path / "m")
    with caplog.at_level("WARNING", "fullbake"):
        assert opened(tmp_path / "m", changed(processes=2), resume="anyway").identity == first.identity
    assert "processes: 1 there, 2 now" in caplog.text


def test_restart_throws_it_away(tmp_path: Path) -> None:
    first = opened(tmp_path / "m")
    (first.folder / "rate-1" / "step-000000010").mkdir()
    again = opened(tmp_path / "m", changed(processes=2), resume="restart")
    assert again.identity == fingerprint(changed(processes=2))
    assert not (first.folder / "rate-1" / "step-000000010").exists()


def test_resume_refuses_to_start_anew(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="no unfinished run"):
        opened(tmp_path / "m", resume="require")
    opened(tmp_path / "m")
    opened(tmp_path / "m", resume="require")


@pytest.mark.parametrize("content", ["", "[1]", "{"])
def test_a_damaged_description_is_refused(tmp_path: Path, content: str) -> None:
    run = opened(tmp_path / "m")
    (run.folder / "run.json").write_text(content)
    with pytest.raises(OutputError, match=r"damaged[\s\S]*--restart"):
        opened(tmp_path / "m")


def test_only_cleaning_is_left_where_the_bundle_is_this_run_s(tmp_path: Path) -> None:
    out = tmp_path / "m"
    run = opened(out)
    assert not checkpoints.is_saved(out)
    out.mkdir()
    storage.write_json(out / "fullbake.json", {"run": "of another"})
    assert not checkpoints.is_saved(out)
    storage.write_json(out / "fullbake.json", {"run": run.identity})
    assert checkpoints.is_saved(out)
    assert checkpoints.only_cleanup_left(out, FACTS)
    assert not checkpoints.only_cleanup_left(out, changed(processes=2))
    checkpoints.remove_unfinished(out, writes=True)
    assert not run.folder.exists()


def test_other_processes_write_nothing(tmp_path: Path) -> None:
    open_unfinished_run(tmp_path / "m", FACTS, CheckpointInterval(steps=5), "auto", writes=False).close()
    assert not list(tmp_path.iterdir())
