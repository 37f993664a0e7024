"""The disk fills up during a checkpoint or the final save: the last checkpoint stays, and the message says how much
space is needed."""

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
    """Mount a disk of 8 MB."""
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
    """Write a file that leaves only `leave` bytes free on the disk, and return it."""
    ballast = place / "ballast"
    free = os.statvfs(place).f_bavail * os.statvfs(place).f_frsize
    with ballast.open("wb") as file:
        file.write(b"\0" * max(0, free - leave))
    return ballast


def train(out: Path, base: Path, data: Path, cache: Path) -> None:
    recipe = Recipe.load("finetune", base=str(base), batch_size=8, epochs=2, max_length=32, learning_rate=1e-3)
    adapt(recipe, data, out=out, cache_dir=cache, checkpoint_every="3")


def weights(out: Path) -> bytes:
    return (out / "model.safetensors").read_bytes()


@pytest.mark.parametrize("moment", ["step-000000006", "out"], ids=["checkpoint", "final save"])
@pytest.mark.parametrize("event", ["make", "write"])
def test_a_full_disk_loses_no_checkpoint(
    tmp_path: Path, small_disk: Path, bases: Callable[..., Path], moment: str, event: str
) -> None:
    base, data = bases("bert"), tmp_path / "rows.csv"
    data.write_text("text,label\n" + "\n".join(f"word{n % 7} number {n},{'yes' if n % 2 else 'no'}" for n in range(60)))
    train(tmp_path / "whole", base, data, tmp_path / "cache")
    out, ballasts = small_disk / "out", []

    def fill_disk(operation: str, path: Path) -> None:
        """Fill the disk when the hidden folder of this moment is made, or when its first file is written."""
        if not ballasts and f".{moment}." in str(path) and operation == event:
            ballasts.append(fill(small_disk, 40_000))

    with storage.observed(fill_disk), pytest.raises(SpaceFault, match=r"(KB|MB|bytes)"):
        train(out, base, data, tmp_path / "cache")
    assert ballasts, "the disk was never filled"
    assert not out.exists()
    assert list(unfinished_folder(out).glob("rate-*/step-*"))
    ballasts[0].unlink()
    train(out, base, data, tmp_path / "cache")
    assert weights(out) == weights(tmp_path / "whole")
    assert not unfinished_folder(out).exists()
