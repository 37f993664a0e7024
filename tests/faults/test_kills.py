"""A run killed at any moment and started again gives the same bits: SIGKILL before events of all kinds.

By default ten points spread over the run are tried; `FULLBAKE_ALL_KILLS=1` tries every one (some 150 for each way).
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HARNESS = Path(__file__).parent / "harness.py"
pytestmark = pytest.mark.slow


def outcomes(folder: Path, way: str, points: list[int]) -> list[dict[str, Any]]:
    """Return the outcome of an uninterrupted run, then one for each point."""
    command = [sys.executable, str(HARNESS), str(folder), way, *map(str, points)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def spread(events: int, number: int) -> list[int]:
    """Return this number of points over the whole run, with the first and the last event among them."""
    if os.environ.get("FULLBAKE_ALL_KILLS"):
        return list(range(events))
    return sorted({round(place * (events - 1) / (number - 1)) for place in range(number)})


@pytest.mark.parametrize(
    ("way", "number"),
    [("finetune", 7), ("grid", 4), ("finetune-mlp", 4), ("frozen", 4), ("frozen-auto", 4), ("probe", 3)],
)
def test_killed_and_run_again_gives_the_same_bits(tmp_path: Path, way: str, number: int) -> None:
    (tmp_path / "count").mkdir()
    events = outcomes(tmp_path / "count", way, [])[0]["events"]
    (tmp_path / "kill").mkdir()
    whole, *killed = outcomes(tmp_path / "kill", way, spread(events, number))
    assert len(killed) >= min(number, events)
    for outcome in killed:
        assert outcome["killed"], f"event {outcome['point']} never came"
        assert outcome["finished"], outcome["point"]
        for name in ("weights", "metrics", "history"):
            assert outcome[name] == whole[name], f"{name} after a kill before event {outcome['point']}"
        assert not outcome["left_over"], "the unfinished run's folder is still there"
        assert not [name for name in outcome["beside"] if name.endswith(".partial")], outcome["beside"]
