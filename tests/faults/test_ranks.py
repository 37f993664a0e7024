"""Two processes on one machine train what one process trains, and survive a kill as one does."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fullbake.classifier.model import Classifier

pytestmark = pytest.mark.slow

TEXTS = [f"{'good' if n % 2 else 'bad'} {'river' if n % 3 else 'stone'} {n} " + "bread " * (n % 9) for n in range(64)]
FLAGS = {
    "label": "label",
    "epochs": 10,
    "batch-size": 26,
    "max-length": 32,
    "learning-rate": 1e-3,
    "checkpoint-every": 3,
}


@pytest.fixture
def command(tmp_path: Path, bases: Callable[..., Path]) -> Callable[..., list[str]]:
    """The command line of a training run, with or without a launcher. Dropout is off; an epoch has two steps."""
    base = bases("bert", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    data = tmp_path / "rows.csv"
    data.write_text("text,label\n" + "\n".join(f"{text},{'yes' if n % 2 else 'no'}" for n, text in enumerate(TEXTS)))

    def line(out: str, launcher: tuple[str, ...] = (), **changes: object) -> list[str]:
        flags = {**FLAGS, "base": base, "out": tmp_path / out, "cache-dir": tmp_path / f"cache-{out}", **changes}
        train = ["-m", "fullbake", "train", str(data), *(f"--{name}={value}" for name, value in flags.items())]
        return [sys.executable, *launcher, *train]

    return line


TORCHRUN = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0", "--rdzv-backend", "c10d")
TORCHRUN += ("--rdzv-endpoint", "localhost:0")
ACCELERATE = ("-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1")
ACCELERATE += ("--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0")


def run(command: list[str], code: int = 0) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def history(out: Path) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = json.loads((out / "history.json").read_text())
    return entries


def weights(out: Path) -> bytes:
    return (out / "model.safetensors").read_bytes()


@pytest.mark.parametrize("way", ["finetune", "frozen"])
def test_two_processes_train_as_one(tmp_path: Path, command: Callable[..., list[str]], way: str) -> None:
    run(command("one", way=way))
    two = run(command("two", TORCHRUN, way=way))
    assert two.stdout.count("bundle:") == 1, "only rank 0 speaks"
    for alone, together in zip(history(tmp_path / "one"), history(tmp_path / "two"), strict=True):
        for name in ("train_loss", "validation_loss", "f1_macro"):
            assert together[name] == pytest.approx(alone[name], abs=1e-4), (alone["epoch"], name)
    logits = [Classifier.load(tmp_path / name).logits(TEXTS) for name in ("one", "two")]
    np.testing.assert_allclose(*logits, atol=1e-4)
    sizes = [
        json.loads((tmp_path / name / "fullbake.json").read_text())["metrics"]["validation"]["rows"]
        for name in ("one", "two")
    ]
    assert sizes[0] == sizes[1], "no row counted twice"


def test_two_processes_probe_the_rate_as_one(tmp_path: Path, command: Callable[..., list[str]]) -> None:
    probed = {"learning-rate": "auto", "batch-size": 2, "epochs": 19, "checkpoint-every": 200}  # 494 steps
    run(command("one", **probed))
    run(command("two", TORCHRUN, **probed))
    chosen = [json.loads((tmp_path / name / "fullbake.json").read_text())["chosen"] for name in ("one", "two")]
    assert chosen[0] == chosen[1]
    assert chosen[0]["learning_rate"] is not None


def test_accelerate_launch_starts_a_run(tmp_path: Path, command: Callable[..., list[str]]) -> None:
    run(command("launched", ACCELERATE, epochs=1))
    assert Classifier.load(tmp_path / "launched").logits(TEXTS[:2]).shape == (2, 2)


def test_a_killed_rank_ends_the_run_and_the_next_run_gives_the_same_bits(
    tmp_path: Path, command: Callable[..., list[str]]
) -> None:
    run(command("whole", TORCHRUN))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    with subprocess.Popen(
        command("killed", TORCHRUN), env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as running:
        folder = tmp_path / "killed.unfinished"
        await_checkpoint(folder, running)
        os.kill(worker_of(running.pid), signal.SIGKILL)
        killed_at = time.monotonic()
        output, _ = running.communicate(timeout=60)
    assert running.returncode != 0
    assert time.monotonic() - killed_at < 30
    assert "SIGKILL" in output or "Signal 9" in output, output[-2000:]
    assert not (tmp_path / "killed").exists()
    run(command("killed", TORCHRUN))
    assert weights(tmp_path / "killed") == weights(tmp_path / "whole")
    assert not folder.exists()


def await_checkpoint(folder: Path, running: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 120
    while not list(folder.glob("rate-*/step-*")):
        assert running.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < until
        time.sleep(0.01)


def worker_of(launcher: int) -> int:
    """Return the process id of the launcher's youngest child."""
    children = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = status.read_text().rsplit(")", 1)[1].split()
            if int(fields[1]) == launcher:
                children.append(int(status.parent.name))
    return max(children)


def test_another_number_of_processes_is_refused(tmp_path: Path, command: Callable[..., list[str]]) -> None:
    stop = command("m", epochs=40)
    with subprocess.Popen(
        stop, env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True
    ) as running:
        await_checkpoint(tmp_path / "m.unfinished", running)
        running.send_signal(signal.SIGTERM)
        _, errors = running.communicate(timeout=60)
    assert running.returncode == 143, errors
    assert "the same command resumes" in errors
    refused = subprocess.run(
        command("m", TORCHRUN, epochs=40),
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert refused.returncode
    assert "processes: 1 there, 2 now" in refused.stderr
