import shutil
from pathlib import Path

import numpy as np
import pytest

from fullbake.core import storage
from fullbake.core.errors import Fault, RecipeError, SpaceFault
from fullbake.training.checkpoints import Cadence, Checkpoint, Checkpoints

FILES = ("model.safetensors", "optimizer.safetensors", "state.json", "manifest.json")


def keeper(folder: Path, identity: str = "a run", every: Cadence = Cadence(steps=2)) -> Checkpoints:  # noqa: B008
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
    Checkpoints(tmp_path, Cadence(steps=1), "a run", writes=False).save(state(2))
    assert not list(tmp_path.iterdir())


def test_cadence_by_steps_and_by_time() -> None:
    assert Cadence.parse("50") == Cadence(steps=50)
    assert Cadence.parse("5m") == Cadence(seconds=300)
    assert Cadence.parse("0.5h") == Cadence(seconds=1800)
    for wrong in ("", "5 minutes", "-3", "0", "1.5", "0s", "m"):
        with pytest.raises(RecipeError, match="checkpoint-every"):
            Cadence.parse(wrong)


def test_due(tmp_path: Path) -> None:
    by_steps = keeper(tmp_path, every=Cadence(steps=3))
    assert [by_steps.due(step) for step in range(1, 7)] == [False, False, True, False, False, True]
    assert keeper(tmp_path, every=Cadence(seconds=1e-9)).due(1)
    assert not keeper(tmp_path, every=Cadence(seconds=1e9)).due(1)
