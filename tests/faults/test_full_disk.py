"""A disk that fills up: during a checkpoint and during the final save. The last good checkpoint stays, the message
says how much."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fullbake.classifier.adapt import adapt
from fullbake.config.recipe import Recipe
from fullbake.core import storage
from fullbake.core.errors import SpaceFault
from fullbake.training.checkpoints import unfinished_folder

pytestmark = pytest.mark.slow


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of 8 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a tmpfs here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def fill(place: Path, leave: int) -> Path:
    """Take all of the disk but `leave` bytes."""
    ballast = place / "ballast"
    free = os.statvfs(place).f_bavail * os.statvfs(place).f_frsize
    with ballast.open("wb") as file:
        file.write(b"\0" * max(0, free - leave))
    return ballast


def train(out: Path, base: Path, data: Path, cache: Path) -> None:
    recipe = Recipe.load("finetune", base=str(base), batch_size=8, epochs=2, max_length=32, learning_rate=1e-3)
    adapt(recipe, data, out=out, cache_dir=cache, checkpoint_every="3")


def sha(out: Path) -> bytes:
    return (out / "model.safetensors").read_bytes()


@pytest.mark.parametrize("moment", ["step-000000006", "out"], ids=["checkpoint", "final save"])
@pytest.mark.parametrize("leave", [200_000, 1_900_000], ids=["known before", "while writing"])
def test_a_full_disk_costs_nothing(
    tmp_path: Path,
    small_disk: Path,
    bases: Callable[..., Path],
    moment: str,
    leave: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    base, data = bases("bert"), tmp_path / "rows.csv"
    data.write_text("text,label\n" + "\n".join(f"word{n % 7} number {n},{'yes' if n % 2 else 'no'}" for n in range(60)))
    train(tmp_path / "whole", base, data, tmp_path / "cache")
    out, ballasts = small_disk / "out", []

    def fills(operation: str, path: Path) -> None:
        """Right when the moment's own hidden folder is made, or (while writing) when its first file is."""
        if not ballasts and f".{moment}." in str(path) and operation == ("make" if leave < 1_000_000 else "write"):
            ballasts.append(fill(small_disk, 40_000))

    if leave > 1_000_000:  # the check before would see it: let it look away, so that the disk fills while writing
        monkeypatch.setattr(storage, "require_space", lambda *_: None)
    with storage.observed(fills), pytest.raises(SpaceFault, match=r"(KB|MB|bytes)"):
        train(out, base, data, tmp_path / "cache")
    assert ballasts, "the disk was never filled"
    assert not out.exists()
    assert list(unfinished_folder(out).glob("rate-*/step-*"))
    ballasts[0].unlink()
    monkeypatch.undo()
    train(out, base, data, tmp_path / "cache")
    assert sha(out) == sha(tmp_path / "whole")
    assert not unfinished_folder(out).exists()
