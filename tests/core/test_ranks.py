"""Three processes exchange values, wait for each other, and name the one that hangs."""

import json
import os
import socket
import subprocess
import sys
from typing import Any

import pytest

from fullbake.core import ranks
from fullbake.core.errors import RecipeError

SCRIPT = """
import json, os, signal, time
import torch
from fullbake.core import ranks, runtime
from fullbake.core.errors import Fault

ranks.join_ranks()
ranks.join_ranks()
found = {"gathered": ranks.gather_json({"rank": runtime.rank(), "text": "ä" * runtime.rank()})}
found["sum"] = ranks.sum_over_ranks(torch.full((2,), runtime.rank() + 1.0)).tolist()
message = torch.full((3,), 10.0 ** runtime.rank())
ranks.begin_sum(message)()
found["begun"] = message.tolist()
found["all"] = [ranks.true_on_all_ranks(True), ranks.true_on_all_ranks(runtime.rank() > 0)]
started = time.monotonic()
if runtime.rank() == 1:
    time.sleep(3)  # longer than the timeout of an exchange
ranks.wait_for_ranks()
found["waited"] = time.monotonic() - started
if runtime.rank() == 2:
    print(json.dumps(found), flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)
try:
    ranks.sum_over_ranks(torch.zeros(1))
except Fault as fault:
    found["fault"] = str(fault)
print(json.dumps(found), flush=True)
os._exit(0)  # torch would wait for the process that hangs
"""


def start() -> list[subprocess.Popen[str]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "3", "FULLBAKE_RANK_TIMEOUT": "2s"}
    return [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT],
            env=os.environ | shared | {"RANK": str(rank), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(3)
    ]


@pytest.fixture(scope="module")
def answers() -> list[dict[str, Any]]:
    """What three processes found, the third of which stops at the end and is continued by nobody."""
    running = start()
    try:
        found = [json.loads(process.stdout.readline()) for process in running if process.stdout is not None]
    finally:
        for process in running:
            process.kill()
            process.communicate()
    return found


def test_values_of_all_processes_are_exchanged(answers: list[dict[str, Any]]) -> None:
    for found in answers:
        assert found["gathered"] == [{"rank": rank, "text": "ä" * rank} for rank in range(3)]
        assert found["sum"] == [6.0, 6.0]
        assert found["begun"] == [111.0] * 3
        assert found["all"] == [True, False]


def test_work_of_one_process_may_take_longer_than_an_exchange(answers: list[dict[str, Any]]) -> None:
    assert answers[0]["waited"] > 2


def test_process_that_hangs_is_named(answers: list[dict[str, Any]]) -> None:
    for found in answers[:2]:
        assert f"process 2 on {socket.gethostname()} (process id " in found["fault"]
        assert "FULLBAKE_RANK_TIMEOUT" in found["fault"]
        assert "The same command resumes" in found["fault"]


def test_one_process_alone_needs_no_group() -> None:
    ranks.join_ranks()
    ranks.wait_for_ranks()
    assert ranks.gather_json([1]) == [[1]]
    assert ranks.process_name(0) == "process 0"


def test_wrong_timeout_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FULLBAKE_RANK_TIMEOUT", "soon")
    with pytest.raises(RecipeError, match="FULLBAKE_RANK_TIMEOUT"):
        ranks.timeout_seconds()


@pytest.mark.parametrize("port", ["0", "", "no", "70000"])
def test_processes_without_an_address_are_refused_at_once(port: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`torchrun --master-port 0` alone tells its processes port 0, and torch would try that for ten minutes."""
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RecipeError, match="--standalone"):
        ranks.join_ranks()
