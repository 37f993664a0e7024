"""A bundle that changes on disk: what is served stays as it is, and a server does not end by it."""

import asyncio
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from fullbake.core.errors import BundleError
from fullbake.serving import bundle_copy
from fullbake.serving.bundle_copy import private_copy
from fullbake.serving.refusals import Refusal
from fullbake.serving.service import ModelSource, Service

BUNDLE = Path(__file__).parents[1] / "fixtures" / "bundle_0_1_0"
TEXTS = ["the cook", "money and the bank"]


@pytest.mark.parametrize("engine", ["torch", "onnx"])
def test_scores_stay_when_the_weights_are_overwritten(engine, graph_bundles, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(BUNDLE if engine == "torch" else graph_bundles("bert"), tmp_path / "bundle"))
    served = ModelSource("m", folder, engine=engine).load()
    wanted = served.logits(TEXTS)
    weights = folder / "model.safetensors"
    with weights.open("r+b") as file:  # the file itself, as `cp` does it, not a new one of its name
        file.write(bytes(weights.stat().st_size))
    np.testing.assert_array_equal(served.logits(TEXTS), wanted)
    if sys.platform == "linux":  # to read beyond the end of a file that was truncated would end the process
        assert str(folder) not in Path("/proc/self/maps").read_text()


def test_bundle_that_vanishes_or_breaks_is_served_on_and_not_loaded_again(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(BUNDLE, tmp_path / "bundle"))

    async def run() -> None:
        service = Service([ModelSource("m", folder)])
        await service.start()
        before = (await service.score(service.model(), TEXTS)).logits
        for change in (lambda: shutil.rmtree(folder), folder.mkdir, lambda: (folder / "fullbake.json").write_text("{")):
            change()
            with pytest.raises(Refusal, match="stays as it is") as refused:
                await service.reload("m")
            assert "fullbake-serve-" not in refused.value.message
            assert str(folder) not in refused.value.message
            np.testing.assert_array_equal((await service.score(service.model(), TEXTS)).logits, before)
        shutil.copytree(BUNDLE, folder, dirs_exist_ok=True)
        await service.reload("m")
        np.testing.assert_array_equal((await service.score(service.model(), TEXTS)).logits, before)

    asyncio.run(run())


def test_copy_has_the_int8_graph_and_no_other_folder(tmp_path: Path) -> None:
    for name in ("int8/model.onnx", "notes/private.txt", "config.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    with private_copy(tmp_path) as copy:
        found = {path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file()}
    assert found == {"int8/model.onnx", "config.json"}


def test_copy_is_removed_and_errors_name_the_bundle(tmp_path: Path) -> None:
    with private_copy(BUNDLE) as copy:
        assert {path.name for path in copy.iterdir()} == {path.name for path in BUNDLE.iterdir() if path.is_file()}
    assert not copy.exists()
    with pytest.raises(BundleError, match=str(BUNDLE)) as raised, private_copy(BUNDLE) as copy:
        raise BundleError("it is broken", where=str(copy / "config.json"))
    assert str(copy) not in str(raised.value)


def test_members_of_a_cascade_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("student", "teacher", "checkpoints"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(name)
    monkeypatch.setattr(bundle_copy, "is_cascade", lambda folder: folder == tmp_path)
    with private_copy(tmp_path) as copy:
        assert (copy / "student" / "config.json").read_text() == "student"
        assert (copy / "teacher").is_dir()
        assert not (copy / "checkpoints").exists()


def test_bundle_is_served_without_a_copy_where_there_is_no_room(monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    def full(source: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bundle_copy.shutil, "copyfile", full)
    with private_copy(BUNDLE) as copy:
        assert copy == BUNDLE
    assert "TMPDIR" in caplog.text
