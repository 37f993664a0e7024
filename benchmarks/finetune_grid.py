"""Fine-tuning of `demo` on eight small tasks at several rates, lengths and heads, by fullbake and by a plain loop.

    python benchmarks/finetune_grid.py FOLDER_OF_DATA LINES [--sets trec,sst2] [--seeds 0,1,2] [--rates 1e-4,2e-4]
        [--epochs 3] [--steps 200] [--heads linear,standard] [--sides fullbake,plain] [--scale 1]

A side is `fullbake`, `plain`, or a variant that finds the cause of a difference: `fullbake-small` (the head starts as
small as the plain loop's), `fullbake-random` (random batches), `plain-xavier` (the head starts as fullbake's does).

Each training is a line of JSON in the file LINES. A training whose line is there is not run again. `--steps` raises the
epochs until a training has so many steps.
"""

import argparse
import json
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from small_sets import SETS, draw, job_of, random_batches, recipe_of, train_by_fullbake, train_by_plain_loop

KEYS = ("set", "seed", "side", "head", "rate", "epochs", "steps", "scale")


def known_lines(path: Path) -> list[dict[str, Any]]:
    """Return the trainings that are stored, [] where there is no file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def measure(folder: Path, row: dict[str, Any], cache: Path) -> dict[str, Any]:
    """Train once as a row of KEYS says; return the row with scores and CPU seconds."""
    parts = draw(folder, row["set"], row["seed"], row["scale"])
    per_epoch = -(-len(parts.train) // 32)
    epochs = max(row["epochs"], -(-row["steps"] // per_epoch))
    fields = {"head": row["head"], "epochs": epochs, "seed": row["seed"], "learning_rate": row["rate"]}
    job = job_of(recipe_of(row["set"], **fields), parts, cache)
    started = time.process_time()
    side, _, variant = row["side"].partition("-")
    if side == "plain":
        kind = {"standard": row["head"] == "standard", "xavier": variant == "xavier"}
        found = train_by_plain_loop(job, row["rate"], epochs=epochs, seed=row["seed"], **kind)
    else:
        with random_batches() if variant == "random" else nullcontext():
            found = train_by_fullbake(job, row["rate"], head_std=0.02 if variant == "small" else None)
    seconds = round(time.process_time() - started, 1)
    return row | found | {"epochs_run": epochs, "steps_run": epochs * per_epoch, "cpu_seconds": seconds}


def main() -> None:
    """Run the trainings that are not stored yet."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("lines", type=Path)
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--rates", default="2e-4")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--heads", default="linear")
    parser.add_argument("--sides", default="fullbake")
    parser.add_argument("--scale", type=float, default=1.0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    words = {name: getattr(given, name).split(",") for name in ("sets", "seeds", "rates", "heads", "sides")}
    done = {tuple(line[key] for key in KEYS) for line in known_lines(given.lines)}
    with tempfile.TemporaryDirectory() as cache:
        for seed in map(int, words["seeds"]):
            for name in words["sets"]:
                for side, head, rate in (
                    (s, h, float(r)) for r in words["rates"] for h in words["heads"] for s in words["sides"]
                ):
                    values = (name, seed, side, head, rate, given.epochs, given.steps, given.scale)
                    if values in done:
                        continue
                    result = measure(given.folder, dict(zip(KEYS, values, strict=True)), Path(cache))
                    with given.lines.open("a") as lines:
                        lines.write(json.dumps(result) + "\n")
                    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
