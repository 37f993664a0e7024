"""The cost of checkpoints: two equal fine-tuning runs at the same time, one of which saves every minute.

    python benchmarks/checkpoint_cost.py FILE TEXT LABEL [minutes]

Each run is a process with one thread on its own core, with base demo, for the given minutes (default 10). Every 20
seconds the runs swap cores, because no two cores are equally fast. The cost is measured in two ways: the time spent in
saving relative to the rest of the run's time, and the ratio of the rows per second of the two runs.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from machine import store_result

MINUTE, SWAP_SECONDS = 60.0, 20.0


def measure(file: str, text: str, label: str, minutes: float, saves: bool) -> None:
    """Train one of the runs, in this process, and print what it did as JSON."""
    import torch

    from fullbake import Recipe, adapt
    from fullbake.core.errors import Interrupted
    from fullbake.training import loop
    from fullbake.training.checkpoints import Checkpoints

    torch.set_num_threads(1)
    spent, steps, rows = [], [], []
    save, take_step = Checkpoints.save, loop._Training._take_step  # patched below to time them

    def timed_save(self: Any, checkpoint: Any) -> None:
        started = time.perf_counter()
        save(self, checkpoint)
        spent.append(time.perf_counter() - started)

    def timed_step(self: Any, step: Any) -> float:
        steps.append(time.perf_counter())
        if steps[-1] - steps[0] > minutes * MINUTE:
            raise Interrupted(15, len(steps), None)
        rows.append(len(step.rows))
        return take_step(self, step)

    Checkpoints.save, loop._Training._take_step = timed_save, timed_step  # type: ignore[method-assign]
    recipe = Recipe.load("finetune", base="demo", text=text, label=label, batch_size=16, epochs=50)
    with tempfile.TemporaryDirectory() as folder:
        try:
            adapt(recipe, file, out=Path(folder) / "out", checkpoint_every="1m" if saves else "1000h")
        except Interrupted:
            seconds = steps[-1] - steps[0]
    result = {"saves": len(spent), "seconds saving": round(sum(spent), 2)}
    print(json.dumps(result | {"seconds": round(seconds, 1), "rows": sum(rows)}))


def main(file: str, text: str, label: str, minutes: str = "10") -> None:
    command = [sys.executable, __file__, "run", file, text, label, minutes]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    runs = [
        subprocess.Popen([*command, str(int(saves))], stdout=subprocess.PIPE, text=True, env=environment)
        for saves in (True, False)
    ]
    swap_cores(runs)
    results = [json.loads(run.communicate()[0].splitlines()[-1]) for run in runs]
    rows = [{"run": name, **facts} for name, facts in zip(("a checkpoint every minute", "none"), results, strict=True)]
    saving, plain = results
    share = saving["seconds saving"] / (saving["seconds"] - saving["seconds saving"])
    speeds = [run["rows"] / run["seconds"] for run in (plain, saving)]
    store_result(
        "checkpoint_cost",
        rows,
        data=f"{Path(file).name}, fine-tuning of base demo, batch 16, for {minutes} minutes",
        added_by_saving=f"{share:.1%} of the run's other time",
        slower_by=f"{speeds[0] / speeds[1] - 1:.1%} in rows a second",
    )


def swap_cores(runs: list[subprocess.Popen[str]]) -> None:
    """Give each run its own core, and swap the cores every SWAP_SECONDS, until one of the runs ends."""
    cores = sorted(os.sched_getaffinity(0))[:2]
    while all(run.poll() is None for run in runs):
        for run, core in zip(runs, cores, strict=True):
            for thread in Path(f"/proc/{run.pid}/task").iterdir():
                os.sched_setaffinity(int(thread.name), {core})
        cores.reverse()
        time.sleep(SWAP_SECONDS)


if __name__ == "__main__":
    if sys.argv[1] == "run":
        _, _, file, text, label, minutes, saves = sys.argv
        measure(file, text, label, float(minutes), saves == "1")
    else:
        main(*sys.argv[1:])
