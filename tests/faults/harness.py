"""Train in forked children that kill themselves at a chosen event, then train again to the end; print the outcomes as
JSON lines.

An event is whatever `storage` reports to its observers (a folder made, a file written, synced or renamed, a folder
removed), or an optimizer step. SIGKILL comes right before the event. The parent has imported everything, so that a
forked run takes about a second. torch computes with one thread, as it must in a process that forks.

Usage: harness.py FOLDER WAY POINT...   (a POINT is the number of an event; without points, events are only counted)
"""

import hashlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
sys.path.insert(0, str(Path(__file__).parent.parent))

import torch
from helpers.bases import make_base

from fullbake.classifier.adapt import adapt
from fullbake.config.recipe import Recipe
from fullbake.core import rng, storage
from fullbake.training.checkpoints import unfinished_folder

RECIPES: dict[str, dict[str, Any]] = {
    "finetune": {"way": "finetune", "epochs": 3, "batch_size": 8, "learning_rate": "1e-3", "max_length": 32},
    "grid": {"way": "finetune", "epochs": 1, "batch_size": 8, "learning_rate": "1e-3,1e-4", "max_length": 32},
    "finetune-mlp": {"way": "finetune", "head": "mlp", "epochs": 2, "batch_size": 8, "max_length": 32, "width": 16},
    "probe": {"way": "finetune", "epochs": 22, "batch_size": 2, "max_length": 32},
    "frozen-auto": {"way": "frozen", "epochs": 3, "batch_size": 8, "width": 16, "max_length": 32},
    "frozen": {"way": "frozen", "head": "mlp", "epochs": 3, "batch_size": 8, "width": 16, "max_length": 32},
}


def write_rows(path: Path) -> Path:
    words = ["river", "bread", "engine", "garden", "winter", "letter", "music", "stone"]
    rows = [
        f"{words[n % 8]} {words[n // 8 % 8]} {n} {'good' if n % 2 else 'bad'},{'yes' if n % 2 else 'no'}"
        for n in range(60)
    ]
    path.write_text("text,label\n" + "\n".join(rows) + "\n")
    return path


def train(folder: Path, way: str, base: Path, data: Path) -> None:
    recipe = Recipe.load(base=str(base), **RECIPES[way])
    adapt(recipe, data, out=folder / "out", cache_dir=folder / "cache", checkpoint_every="4")


class Countdown:
    """Counts events, and kills the process right before event `at`."""

    def __init__(self, at: int | None) -> None:
        self.at, self.seen = at, 0

    def tick(self, *_: object) -> None:
        if self.seen == self.at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.seen += 1


def forked(folder: Path, way: str, base: Path, data: Path, at: int | None) -> int:
    """Train in a child and return its wait status. A child that finishes writes its number of events to `events`."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    status = 1
    try:
        countdown = Countdown(at)
        seed_step = rng.seed_step
        rng.seed_step = lambda *args: (countdown.tick(), seed_step(*args))[1]
        with storage.observed(countdown.tick):
            train(folder, way, base, data)
        (folder / "events").write_text(str(countdown.seen))
        status = 0
    finally:
        os._exit(status)


def outcome(folder: Path) -> dict[str, Any]:
    facts = json.loads((folder / "out" / "fullbake.json").read_text())
    history = json.loads((folder / "out" / "history.json").read_text())
    timed = {"seconds", "rows_per_second", "tokens_per_second"}
    return {
        "weights": hashlib.sha256((folder / "out" / "model.safetensors").read_bytes()).hexdigest(),
        "metrics": facts["metrics"],
        "history": [{name: value for name, value in entry.items() if name not in timed} for entry in history],
        "left_over": unfinished_folder(folder / "out").exists(),
        "beside": sorted(path.name for path in folder.iterdir()),
    }


def main(place: Path, way: str, points: list[int]) -> None:
    torch.set_num_threads(1)
    base, data = make_base("bert", place / "base"), write_rows(place / "rows.csv")
    whole = place / "whole"
    whole.mkdir()
    assert forked(whole, way, base, data, None) == 0
    print(json.dumps({"events": int((whole / "events").read_text()), **outcome(whole)}), flush=True)
    for point in points:
        folder = place / f"killed-{point}"
        folder.mkdir()
        killed = os.WTERMSIG(forked(folder, way, base, data, point)) == signal.SIGKILL
        named = (folder / "out").exists()
        finished = forked(folder, way, base, data, None) == 0
        print(
            json.dumps({"point": point, "killed": killed, "named": named, "finished": finished, **outcome(folder)}),
            flush=True,
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], [int(point) for point in sys.argv[3:]])
