"""The machine: cache folder, seeds, precision, versions, memory."""

import os
import platform
import subprocess
import sys
import types
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch

from fullbake.core import rng, runtime


def test_cache_dir_prefers_the_override_then_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FULLBAKE_CACHE_DIR", str(tmp_path / "env"))
    assert runtime.cache_dir(tmp_path / "flag") == tmp_path / "flag"
    assert runtime.cache_dir() == tmp_path / "env"
    monkeypatch.delenv("FULLBAKE_CACHE_DIR")
    assert runtime.cache_dir().name == "fullbake"


def test_seeding_repeats_all_generators() -> None:
    def draw() -> list[float]:
        rng.seed_everything(3)
        return [float(torch.rand(1)), float(np.random.rand())]

    assert draw() == draw()


def test_only_bf16_autocasts() -> None:
    def product(precision: str) -> torch.dtype:
        with runtime.autocast(precision):
            return (torch.ones(2, 2) @ torch.ones(2, 2)).dtype

    if runtime.device().type == "cpu":
        assert [product(name) for name in ("fp32", "auto", "bf16")] == [torch.float32, torch.float32, torch.bfloat16]


def test_versions_name_what_weights_depend_on() -> None:
    versions = runtime.versions()
    assert {"python", "fullbake", "torch", "transformers"} <= set(versions)
    assert runtime.threads() == torch.get_num_threads()


def test_versions_hold_accelerate_only_if_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cache keys hash these versions: with accelerate installed they stay what they were when training needed it."""
    monkeypatch.setattr(metadata, "version", installed("accelerate"))
    assert runtime.versions() == {"python": platform.python_version()} | dict.fromkeys(runtime.LIBRARIES, "1")
    monkeypatch.setattr(metadata, "version", installed())
    assert "accelerate" not in runtime.versions()
    monkeypatch.setattr(metadata, "version", installed(lacking="torch"))
    with pytest.raises(metadata.PackageNotFoundError):
        runtime.versions()


def installed(*optional: str, lacking: str = "") -> Callable[[str], str]:
    """Return a `version` that knows all libraries but the optional ones not named and the one lacking."""

    def version(name: str) -> str:
        if name == lacking or (name in runtime.OPTIONAL_LIBRARIES and name not in optional):
            raise metadata.PackageNotFoundError(name)
        return "1"

    return version


def test_freed_memory_is_kept_only_if_the_environment_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A C library without mallopt (not glibc) is left alone."""
    settings: list[tuple[int, int]] = []
    library = types.SimpleNamespace(mallopt=lambda *setting: settings.append(setting))
    runtime.keep_freed_memory(library)
    assert not settings
    monkeypatch.setenv("FULLBAKE_HOLD_MEMORY", "1")
    runtime.keep_freed_memory(library)
    assert [number for number, _ in settings] == [-4, -1]
    runtime.keep_freed_memory(types.SimpleNamespace())


def test_small_work_runs_on_one_thread() -> None:
    before = torch.get_num_threads()
    try:
        runtime.set_threads(2)
        with runtime.one_thread():
            assert runtime.threads() == 1
            with runtime.one_thread():
                pass
            assert runtime.threads() == 1
        assert runtime.threads() == 2
        with pytest.raises(KeyboardInterrupt), runtime.one_thread():
            raise KeyboardInterrupt
        assert runtime.threads() == 2
    finally:
        torch.set_num_threads(before)


def test_threads_of_the_caller_come_back() -> None:
    before = torch.get_num_threads()
    with runtime.restored_threads():
        runtime.set_threads(before + 1)
    assert torch.get_num_threads() == before


def test_threads_spin_less_only_where_torch_is_not_loaded_and_nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    runtime.limit_spinning()
    assert "GOMP_SPINCOUNT" not in os.environ, "torch is loaded, so that it could have no effect"
    monkeypatch.delitem(sys.modules, "torch")
    for name, value in (("GOMP_SPINCOUNT", "7"), ("OMP_WAIT_POLICY", "ACTIVE")):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            runtime.limit_spinning()
            assert os.environ.get("GOMP_SPINCOUNT") == ("7" if name == "GOMP_SPINCOUNT" else None)
    monkeypatch.setenv("GOMP_SPINCOUNT", "")  # restores the environment afterwards
    runtime.limit_spinning()
    assert int(os.environ["GOMP_SPINCOUNT"]) > 0


def test_torch_is_loaded_after_the_command_has_limited_spinning() -> None:
    """The variable has no effect later, so that no module of the command line may load torch when it is imported."""
    code = "import sys, fullbake.cli.main; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_versions_of_libraries_leave_out_what_is_missing() -> None:
    assert runtime.installed_of(["numpy", "no-such-library"]) == {"numpy": np.__version__}
