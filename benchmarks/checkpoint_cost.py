"""What checkpoints cost: the same fine-tuning twice at the same time, one of the two saving every minute.

    python benchmarks/checkpoint_cost.py FILE TEXT LABEL [minutes]

Both are processes of one thread, each on a core of its own, with base demo, for so many minutes (10); every twenty
seconds they change places, since no two cores are quite alike. The cost is told in two ways: the time spent in saving
over the rest of the run's time, and the rows a second of one over those of the other.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from machine import keep

MINUTE, TURN = 60.0, 20.0


def measure(file: str, text: str, label: str, minutes: float, saves: bool) -> None:
    """One side, in a process of its own: prints what it did as JSON."""
    import torch

    from fullbake import Recipe, adapt
    from fullbake.core.errors import Interrupted
    from fullbake.training import loop
    from fullbake.training.checkpoints import Checkpoints

    torch.set_num_threads(1)
    spent, steps, rows = [], [], []
    save, take = Checkpoints.save, loop._Training._take_step

    def timed_save(self: Any, checkpoint: Any) -> None:
        started = time.perf_counter()
        save(self, checkpoint)
        spent.append(time.perf_counter() - started)

    def timed_take(self: Any, step: Any) -> float:
        steps.append(time.perf_counter())
        if steps[-1] - steps[0] > minutes * MINUTE:
            raise Interrupted(15, len(steps), None)
        rows.append(len(step.rows))
        return take(self, step)

    Checkpoints.save, loop._Training._take_step = timed_save, timed_take  # type: ignore[method-assign]
    recipe = Recipe.load("finetune", base="demo", text=text, label=label, batch_size=16, epochs=50)
    with tempfile.TemporaryDirectory() as folder:
        try:
            adapt(recipe, file, out=Path(folder) / "out", checkpoint_every="1m" if saves else "1000h")
        except Interrupted:
            seconds = steps[-1] - steps[0]
    told = {"saves": len(spent), "seconds saving": round(sum(spent), 2)}
    print(json.dumps(told | {"seconds": round(seconds, 1), "rows": sum(rows)}))


def main(file: str, text: str, label: str, minutes: str = "10") -> None:
    command = [sys.executable, __file__, "side", file, text, label, minutes]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    sides = [
        subprocess.Popen([*command, str(int(saves))], stdout=subprocess.PIPE, text=True, env=environment)
        for saves in (True, False)
    ]
    change_places(sides)
    told = [json.loads(side.communicate()[0].splitlines()[-1]) for side in sides]
    rows = [{"run": name, **facts} for name, facts in zip(("a checkpoint every minute", "none"), told, strict=True)]
    saving, plain = told
    share = saving["seconds saving"] / (saving["seconds"] - saving["seconds saving"])
    speeds = [side["rows"] / side["seconds"] for side in (plain, saving)]
    keep(
        "checkpoint_cost",
        rows,
        data=f"{Path(file).name}, fine-tuning of base demo, batch 16, for {minutes} minutes",
        added_by_saving=f"{share:.1%} of the run's other time",
        slower_by=f"{speeds[0] / speeds[1] - 1:.1%} in rows a second",
    )


def change_places(sides: list[subprocess.Popen[str]]) -> None:
    """Give each side a core of its own, the other one every turn, until one of them is done."""
    cores = sorted(os.sched_getaffinity(0))[:2]
    while all(side.poll() is None for side in sides):
        for side, core in zip(sides, cores, strict=True):
            for thread in Path(f"/proc/{side.pid}/task").iterdir():
                os.sched_setaffinity(int(thread.name), {core})
        cores.reverse()
        time.sleep(TURN)


if __name__ == "__main__":
    if sys.argv[1] == "side":
        _, _, file, text, label, minutes, saves = sys.argv
        measure(file, text, label, float(minutes), saves == "1")
    else:
        main(*sys.argv[1:])
