"""Benchmarks measure in separate processes, count operations, and their page is made from stored files."""

import ast
import importlib
import json
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent


def import_script(folder: str, name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / folder))
    return importlib.import_module(name)


@pytest.fixture
def rounds(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return import_script("benchmarks", "rounds", monkeypatch)


def imports_of(code: str) -> list[tuple[str, str]]:
    """Return (module, name) of all `from fullbake... import`, also of those in strings of code."""
    found: list[tuple[str, str]] = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "fullbake":
            found += [(str(node.module), alias.name) for alias in node.names]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "\nfrom fullbake" in node.value:
            found += imports_of(node.value)
    return found


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda path: path.stem)
def test_names_that_benchmarks_import_exist(path: Path) -> None:
    """mypy does not check benchmarks, and most of them take too long for a test."""
    for module, name in imports_of(path.read_text("utf-8")):
        assert hasattr(importlib.import_module(module), name) or importlib.import_module(f"{module}.{name}")


SIDE = """
import time
import numpy as np
from rounds import Run

def make(value, seconds=None, scale=1.0):
    calls = []
    def run():
        calls.append(value)
        return Run(np.array([value]), seconds, scale, facts={"calls": len(calls)})
    return run

def broken():
    raise ValueError("no such data")
"""


def sides(rounds: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    (folder / "made_sides.py").write_text(SIDE)
    monkeypatch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{ROOT / 'benchmarks'}")
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])  # spawned processes get it
    fixed = {"value": 1.0, "seconds": 3.0, "scale": 4.0}
    return [rounds.Side("one", "made_sides:make", {"value": 0.5}), rounds.Side("other", "made_sides:make", fixed)]


@pytest.mark.slow
def test_sides_run_alternately_in_separate_processes(rounds, tmp_path, monkeypatch) -> None:
    one, other = rounds.measure(sides(rounds, tmp_path, monkeypatch), rounds=3, threads=1, attempts=1)
    assert [len(side.seconds) for side in (one, other)] == [3, 3]
    assert other.seconds == [12.0] * 3
    assert [facts["calls"] for facts in one.facts] == [2, 3, 4]  # the first call is not measured
    assert (one.answer.tolist(), other.answer.tolist()) == ([0.5], [1.0])


@pytest.mark.slow
def test_error_of_a_side_is_reported(rounds, tmp_path, monkeypatch) -> None:
    sides(rounds, tmp_path, monkeypatch)
    with pytest.raises(RuntimeError, match="no such data"):
        rounds.measure([rounds.Side("broken", "made_sides:broken")], rounds=1, threads=1)


def test_disturbed_measurement_is_repeated(rounds) -> None:
    """A measurement takes a second, in which other processes use these processor seconds."""
    used, now = [1.2, 0.4, 0.05, 0.0], [0.0, 0.0]

    def measurement() -> Any:
        now[0] += 1.0
        now[1] += used.pop(0)
        return rounds.Run(seconds=now[0])

    run, others, repeats = rounds.least_disturbed(measurement, 3, others=lambda: now[1], clock=lambda: now[0])
    assert (run.seconds, round(others, 6), repeats) == (3.0, 0.05, 2)
    assert used == [0.0]


def test_least_disturbed_measurement_is_kept_if_all_are_disturbed(rounds) -> None:
    used, now = [1.2, 0.4, 0.8], [0.0, 0.0]

    def measurement() -> Any:
        now[0] += 1.0
        now[1] += used.pop(0)
        return rounds.Run(seconds=now[0])

    run, others, repeats = rounds.least_disturbed(measurement, 3, others=lambda: now[1], clock=lambda: now[0])
    assert (run.seconds, round(others, 6), repeats) == (2.0, 0.4, 2)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /proc")
def test_processor_times_from_proc_are_seconds(rounds) -> None:
    before = rounds.process_seconds(os.getpid())
    sum(range(5_000_000))
    assert 0 <= rounds.process_seconds(os.getpid()) - before < 60
    assert rounds.busy_seconds() > rounds.process_seconds(os.getpid()) > 0
    assert rounds.process_seconds(1 << 30) == 0


def test_operations_equal_those_that_torch_counts(monkeypatch) -> None:
    """The reference is the plain encoder on one text."""
    work = import_script("benchmarks", "work", monkeypatch)
    import torch
    from helpers.bases import make_config, make_tokenizer
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import AutoModel

    config = make_config("bert", make_tokenizer("bert"), hidden_size=32, layers=3, positions=64)
    model = AutoModel.from_config(config, attn_implementation="eager", add_pooling_layer=False).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(input_ids=torch.arange(5, 22)[None])
    assert work.operations([17], config, first_token=False) == counter.get_total_flops()
    width, inner = config.hidden_size, config.intermediate_size
    saved = 16 * (4 * width**2 + 4 * width * inner) + 4 * 17 * 16 * width
    whole, first = (work.operations([17], config, first_token=only) for only in (False, True))
    assert whole - first == saved


def stored_result(**fields: Any) -> dict[str, Any]:
    machine = {"machine": {"cores": 2}, "versions": {"torch": "2"}, "command": "python b.py", "date": "2026-01-02"}
    side = {"median": 1.0, "seconds": [0.9, 1.1], "scaled_by": 1.0, "share_of_product": 0.75, "others": 0.02}
    ours = side | {"side": "fullbake", "repeats": 0, "facts": {"operations": 1e9, "loss": 0.5}}
    peer = ours | {
        "side": "peer|x",
        "ratio": 1.5,
        "ratio_low": 1.25,
        "ratio_high": 2.0,
        "at_least": 1.6,
        "at_most": None,
    }
    peer |= {"scaled_by": 4.0, "apart": 2e-6}
    common = {"work": "features of x", "rounds": 2, "threads_of_a_side": 2, "operations_per_second": 2e11}
    common |= {"switches": {"FULLBAKE_HOLD_MEMORY": "1"}}
    return {**machine, **common, "share_at_least": 0.8, "rows": [ours, peer], **fields}


def test_page_is_made_from_stored_files(tmp_path, monkeypatch) -> None:
    page = import_script("docs", "benchmark_page", monkeypatch)
    assert "None are stored yet" in page.render(tmp_path)
    (tmp_path / "speed").mkdir()
    (tmp_path / "speed" / "features-cls.json").write_text(json.dumps(stored_result()))
    row = {"side": "fullbake", "ROC-AUC": 0.9}
    quality = stored_result(work="Fine-tuned", rows=[row | {"seed": 0}, row | {"seed": 1, "ROC-AUC": 0.8}])
    (tmp_path / "finetune_quality.json").write_text(json.dumps(quality))
    spent = stored_result(rows=[{"work": "features of x", "seconds": 1.0, "dense layers": "76.7%"}])
    (tmp_path / "where_time_goes.json").write_text(json.dumps(spent))
    text = page.render(tmp_path)
    assert "| work | dense layers |\n| --- | --- |\n| features of x | 76.7% |" in text
    assert "| features of x | peer\\|x | **1.5x** (1.25 to 2) | 1.6x, not reached |" in text
    assert "| features of x | fullbake | 75% | 80%, not reached |" in text
    assert "from 0.25 of the work" in text
    assert "Switched on: FULLBAKE_HOLD_MEMORY=1." in text
    assert "answers differ by 2e-06" in text
    assert "| fullbake | 2 | 0.8500 (0.8000 to 0.9000) |" in text


def test_ratios_have_three_digits_or_are_whole(monkeypatch) -> None:
    page = import_script("docs", "benchmark_page", monkeypatch)
    assert [page.format_ratio(ratio) for ratio in (0.6764, 13.94, 6531.2)] == ["0.676", "13.9", "6,531"]


def test_every_comparison_names_functions_that_exist(monkeypatch) -> None:
    comparisons = import_script("benchmarks", "speed_rows", monkeypatch)
    names = {
        side.make
        for size in comparisons.SIZES.values()
        for found in comparisons.comparisons("data", size).values()
        for side in (found.ours, *(peer.side for peer in found.peers))
    }
    for module in ("ours", "peers"):
        source = (ROOT / "benchmarks" / f"{module}.py").read_text("utf-8")
        for name in (name.partition(":")[2] for name in names if name.startswith(f"{module}:")):
            assert f"def {name}(" in source, name
    assert set(comparisons.comparisons("data", comparisons.SIZES["quick"])) == set(
        import_script("docs", "benchmark_page", monkeypatch).ORDER
    )


def test_rows_are_scaled_to_length_1(monkeypatch) -> None:
    speed = import_script("benchmarks", "speed", monkeypatch)
    assert np.allclose(speed.unit_rows(np.array([[3.0, 4.0]])), [[0.6, 0.8]])
