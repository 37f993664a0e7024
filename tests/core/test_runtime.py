import types
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


def test_memory_is_held_where_the_environment_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    """glibc says 1 to each setting; another C library has none and is left alone."""
    asked: list[tuple[int, int]] = []
    library = types.SimpleNamespace(mallopt=lambda *setting: asked.append(setting))
    monkeypatch.setattr(runtime.ctypes, "CDLL", lambda _: library)
    runtime.keep_freed_memory()
    assert not asked
    monkeypatch.setenv("FULLBAKE_HOLD_MEMORY", "1")
    runtime.keep_freed_memory()
    assert [number for number, _ in asked] == [-4, -1]
    monkeypatch.setattr(runtime.ctypes, "CDLL", lambda _: types.SimpleNamespace())
    runtime.keep_freed_memory()
