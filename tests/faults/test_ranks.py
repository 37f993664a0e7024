"""Several processes on one machine train what one process trains, survive a kill, and continue on another number."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fullbake.classifier.model import Classifier
from fullbake.cli.main import main
from fullbake.core import runtime

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
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def command(place: Path, bases: Callable[..., Path]) -> Callable[..., list[str]]:
    """The command line of a training run, with or without a launcher. Dropout is off; an epoch has two steps."""
    base = bases("bert", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    data = place / "rows.csv"
    data.write_text("text,label\n" + "\n".join(f"{text},{'yes' if n % 2 else 'no'}" for n, text in enumerate(TEXTS)))

    def line(out: str, launcher: tuple[str, ...] = (), **changes: object) -> list[str]:
        flags = {**FLAGS, "base": base, "out": place / out, "cache-dir": place / f"cache-{out}", **changes}
        train = ["-m", "fullbake", "train", str(data), *(f"--{name}={value}" for name, value in flags.items())]
        return [sys.executable, *launcher, *train, "--no-baseline"]

    return line


TORCHRUN = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0", "--rdzv-backend", "c10d")
TORCHRUN += ("--rdzv-endpoint", "localhost:0")
ACCELERATE = ("-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1")
ACCELERATE += ("--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0")


def run_here(command: list[str]) -> None:
    """Run a command of one process in this one, which has loaded torch already."""
    with runtime.restored_threads(), pytest.raises(SystemExit) as end:
        main([*command[3:], "--threads=1"])
    assert end.value.code == 0


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | ENVIRONMENT, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@contextlib.contextmanager
def started(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        command, env=os.environ | ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as running:
        yield running


def history(out: Path) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = json.loads((out / "history.json").read_text())
    return entries


def weights(out: Path) -> bytes:
    return (out / "model.safetensors").read_bytes()


def require_same_training(alone: Path, together: Path) -> None:
    for one, other in zip(history(alone), history(together), strict=True):
        for name in ("train_loss", "validation_loss", "f1_macro"):
            assert other[name] == pytest.approx(one[name], abs=1e-4), (one["epoch"], name)
    logits = [Classifier.load(out).logits(TEXTS) for out in (alone, together)]
    np.testing.assert_allclose(*logits, atol=1e-4)
    sizes = [
        json.loads((out / "fullbake.json").read_text())["metrics"]["validation"]["rows"] for out in (alone, together)
    ]
    assert sizes[0] == sizes[1], "no row counted twice"


@pytest.fixture(scope="module")
def alone(place: Path, command: Callable[..., list[str]]) -> Path:
    """What one process trains without a stop."""
    run_here(command("one"))
    return place / "one"


@pytest.fixture(scope="module")
def two(place: Path, command: Callable[..., list[str]]) -> Path:
    """What two processes train without a stop."""
    done = run(command("two", TORCHRUN))
    assert done.stdout.count("bundle:") == 1, "only rank 0 speaks"
    return place / "two"


def test_two_processes_train_as_one(alone: Path, two: Path) -> None:
    require_same_training(alone, two)
    assert [entry.get("ranks") for entry in history(two)] == [2] * FLAGS["epochs"]
    assert not any("ranks" in entry for entry in history(alone))


def test_two_processes_of_accelerate_share_features(place: Path, command: Callable[..., list[str]]) -> None:
    run_here(command("frozen", way="frozen"))
    run(command("frozen-two", ACCELERATE, way="frozen"))
    require_same_training(place / "frozen", place / "frozen-two")


def test_two_processes_probe_the_rate_as_one(place: Path, command: Callable[..., list[str]]) -> None:
    probed = {"learning-rate": "auto", "batch-size": 2, "epochs": 19, "checkpoint-every": 200}  # 494 steps
    run_here(command("probed", **probed))
    run(command("probed-two", TORCHRUN, **probed))
    chosen = [json.loads((place / name / "fullbake.json").read_text())["chosen"] for name in ("probed", "probed-two")]
    assert chosen[0] == chosen[1]
    assert chosen[0]["learning_rate"] is not None


def test_a_killed_process_is_started_again_and_gives_the_same_bits(
    place: Path, command: Callable[..., list[str]], two: Path
) -> None:
    folder = place / "killed.unfinished"
    with started(command("killed", (*TORCHRUN, "--max-restarts", "1", "--monitor-interval", "0.1"))) as running:
        await_checkpoint(folder, running)
        lost = worker_of(running.pid)
        os.kill(lost, signal.SIGKILL)
        output, _ = running.communicate(timeout=200)
    assert running.returncode == 0, output
    assert f"resuming the unfinished run in {folder}" in output
    assert weights(place / "killed") == weights(two)
    assert not any("ranks_changed" in entry for entry in history(place / "killed"))
    assert not folder.exists()


def await_checkpoint(folder: Path, running: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 200
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


def test_a_stopped_run_continues_on_two_processes_and_says_from_which_step(
    place: Path, command: Callable[..., list[str]], alone: Path
) -> None:
    with started(command("more")) as running:
        await_checkpoint(place / "more.unfinished", running)
        running.send_signal(signal.SIGTERM)
        output, _ = running.communicate(timeout=60)
    assert running.returncode == 143, output
    assert "the same command resumes" in output
    done = run(command("more", TORCHRUN))
    require_same_training(alone, place / "more")
    changed = [entry["ranks_changed"] for entry in history(place / "more") if "ranks_changed" in entry]
    assert len(changed) == 1
    assert (changed[0][0]["before"], changed[0][0]["now"]) == (1, 2)
    said = f"from step {changed[0][0]['from_step']} on 2 processes in place of 1"
    assert said in changed[0][0]["note"]
    assert said in done.stderr
    assert f"resumed: {said}" in done.stdout
    about = json.loads((place / "more" / "fullbake.json").read_text())
    assert about["rank_changes"] == changed[0]


def test_processes_with_other_rows_are_refused(place: Path, command: Callable[..., list[str]]) -> None:
    """The second process finds another file under the same name, which no restart mends."""
    train = command("other")[1:]
    (place / "rows-1.csv").write_text((place / "rows.csv").read_text().replace("river", "lake"))
    script = place / "other.py"
    script.write_text(
        "import os, sys\n"
        "from fullbake.__main__ import start\n"
        "if os.environ['RANK'] == '1':\n"
        f"    sys.argv[2] = {str(place / 'rows-1.csv')!r}\n"
        "start()\n"
    )
    done = subprocess.run(
        [sys.executable, *TORCHRUN, "--max-restarts", "3", str(script), *train[2:]],
        capture_output=True,
        text=True,
        env=os.environ | ENVIRONMENT,
        timeout=200,
    )
    assert done.returncode
    said = "the processes of this training do not work on the same thing"
    assert done.stderr.count(said) == 1, "a mistake is printed by one process, and nothing is started again"
    assert "data.train: " in done.stderr
    assert not (place / "other.unfinished").exists()
