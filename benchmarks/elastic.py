"""Trainings that lose a process and continue: what the launcher did, from which step, and how far the losses differ.

    python benchmarks/elastic.py [name of a case ...]

A tiny base without dropout, rows that are made up, gloo, one thread a process. In each case one process gets SIGKILL as
soon as there is a checkpoint. `torchrun, 2` and `torchrun, 3` have a torchrun for each process, as on machines of their
own; the killed process dies with its torchrun, and the others continue without it. `Ray` has a cluster of this machine;
the killed process is replaced. `difference` is the largest one of the losses of an epoch to those of a training by one
process without a stop. Seconds are from the kill to the next step of training; the machine had other work too.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from machine import store_result, stored_rows

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

EPOCHS = 40
RENDEZVOUS = "join_timeout=120,last_call_timeout=5,keep_alive_interval=1,keep_alive_max_attempt=3"
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}


def prepare(folder: Path) -> None:
    from helpers.bases import make_base

    make_base("bert", folder / "base", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    texts = [
        f"{'good' if n % 2 else 'bad'} {'river' if n % 3 else 'stone'} {n} {'bread ' * (n % 9)}" for n in range(64)
    ]
    lines = [f"{text},{'yes' if n % 2 else 'no'}" for n, text in enumerate(texts)]
    (folder / "rows.csv").write_text("text,label\n" + "\n".join(lines))


def train(out: str, *more: str) -> list[str]:
    flags = f"--base base --label label --epochs {EPOCHS} --batch-size 26 --max-length 32 --learning-rate 1e-3"
    return [
        "fullbake",
        "train",
        "rows.csv",
        *flags.split(),
        "--checkpoint-every",
        "2",
        "--out",
        out,
        "--no-baseline",
        *more,
    ]


def children(parent: int) -> list[int]:
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == parent:
            found.append(int(status.parent.name))
    return found


def descendants(parent: int) -> list[int]:
    return [one for child in children(parent) for one in (child, *descendants(child))]


def await_checkpoint(folder: Path, running: "subprocess.Popen[bytes]") -> int:
    """Return the newest step once there is a checkpoint."""
    while not (steps := sorted(folder.glob("*/step-*"))):
        if running.poll() is not None:
            raise RuntimeError("the training ended before anything was saved")
        time.sleep(0.02)
    return int(steps[-1].name.removeprefix("step-"))


def seconds_to_next_step(folder: Path, step: int, running: "subprocess.Popen[bytes]") -> float:
    started = time.perf_counter()
    while (
        running.poll() is None and max((int(p.name[5:]) for p in folder.glob("*/step-*")), default=step + 3) <= step + 2
    ):
        time.sleep(0.05)
    return time.perf_counter() - started


def case_torchrun(folder: Path, out: str, count: int, lose: Callable[[list[Any]], None]) -> float:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launcher = f"--nnodes 1:{count} --nproc-per-node 1 --max-restarts 5 --monitor-interval 0.1 --rdzv-backend c10d"
    command = [sys.executable, "-m", "torch.distributed.run", *launcher.split(), "--rdzv-id", out]
    command += ["--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-conf", RENDEZVOUS, "-m", *train(out)]
    logs = [(folder / f"{out}-{number}.log").open("wb") for number in range(count)]
    running = [
        subprocess.Popen(command, cwd=folder, env=os.environ | ENVIRONMENT, stdout=log, stderr=subprocess.STDOUT)
        for log in logs
    ]
    step = await_checkpoint(folder / f"{out}.unfinished", running[0])
    lose(running)
    seconds = seconds_to_next_step(folder / f"{out}.unfinished", step, running[0])
    codes = [process.wait() for process in running]
    if sum(code == 0 for code in codes) < count - 1:
        raise RuntimeError(f"{out} ended with {codes}: {(folder / f'{out}-0.log').read_text()[-3000:]}")
    return seconds


def lose_last_node(running: list[Any]) -> None:
    """Kill the last torchrun together with its process, as if its machine lost its power."""
    for one in (running[-1].pid, *descendants(running[-1].pid)):
        os.kill(one, signal.SIGKILL)


def case_ray(folder: Path, out: str) -> float:
    command = [sys.executable, "-m", *train(out, "--on", "ray:local", "--workers", "2")]
    with (folder / f"{out}.log").open("wb") as log:
        running = subprocess.Popen(
            command, cwd=folder, env=os.environ | ENVIRONMENT, stdout=log, stderr=subprocess.STDOUT
        )
    step = await_checkpoint(folder / f"{out}.unfinished", running)
    workers = [
        one for one in descendants(running.pid) if b"RayTrainWorker" in Path(f"/proc/{one}/cmdline").read_bytes()
    ]
    os.kill(max(workers), signal.SIGKILL)
    seconds = seconds_to_next_step(folder / f"{out}.unfinished", step, running)
    if running.wait():
        raise RuntimeError((folder / f"{out}.log").read_text()[-3000:])
    return seconds


CASES: dict[str, Callable[[Path, str], float]] = {
    "torchrun, 2": lambda folder, out: case_torchrun(folder, out, 2, lose_last_node),
    "torchrun, 3": lambda folder, out: case_torchrun(folder, out, 3, lose_last_node),
    "Ray, 2": case_ray,
}


def row_of(name: str, seconds: float, out: Path, alone: Path) -> dict[str, Any]:
    reference, found = (json.loads((place / "history.json").read_text()) for place in (alone, out))
    changes = [change for entry in found for change in entry.get("ranks_changed", ())]
    pairs = zip(reference, found, strict=True)
    difference = max(abs(one[key] - other[key]) for one, other in pairs for key in ("train_loss", "validation_loss"))
    return {
        "launcher": name.partition(",")[0],
        "processes before": found[0].get("ranks", 1) if not changes else changes[0]["before"],
        "processes after": found[-1].get("ranks", 1),
        "another number from step": changes[0]["from_step"] if changes else "none",
        "steps": 2 * EPOCHS,
        "seconds to the next step": round(seconds),
        "difference": float(f"{difference:.1e}"),
    }


def main(names: list[str]) -> None:
    kept = {row["case"]: row for row in stored_rows("elastic")}
    with tempfile.TemporaryDirectory(prefix="fb") as made:
        folder = Path(made)
        prepare(folder)
        subprocess.run(
            [sys.executable, "-m", *train("alone")],
            cwd=folder,
            env=os.environ | ENVIRONMENT,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        for number, name in enumerate(names):
            seconds = CASES[name](folder, f"case{number}")
            kept[name] = {"case": name} | row_of(name, seconds, folder / f"case{number}", folder / "alone")
            print(kept[name], flush=True)
            store_result("elastic", [kept[name] for name in CASES if name in kept])


if __name__ == "__main__":
    main(sys.argv[1:] or list(CASES))
