"""Small comparisons for tests of executors: what they give, and an executor that works within the test's process."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fullbake import compare
from fullbake.comparison.executors import Returned, WorkerProgress
from fullbake.comparison.packing import Assignment, WorkPackage
from fullbake.comparison.worker import PackageWork, perform
from helpers.rows import dataset

FIELDS: dict[str, Any] = {"max_length": 48, "batch_size": 8, "epochs": 2, "token_budget": 256, "test": 0.25}
RECIPES = ("frozen-linear", "frozen-mlp", "majority")
"""Without fine-tuning: what it forgets would be measured, which takes longer than all else."""


def run_comparison(base: Path, folder: Path, **given: Any) -> dict[str, Any]:
    """Run a comparison of 4 trials on 80 rows, with its caches and `out` in `folder`, with one thread."""
    if not (folder / "rows-0.csv").exists():
        dataset(folder, 80)
    settings = {"recipes": RECIPES, "out": folder / "out", "seeds": 2, "head_rates": (1e-2, 1e-3)}
    settings |= {"cache_dir": folder / "cache", "threads": 1, "base": str(base)} | FIELDS
    return compare(folder / "rows-0.csv", **(settings | given))


def stored_arrays(folder: Path) -> dict[str, bytes]:
    """Return the bytes of all logits that the trials of `run_comparison` stored, by the name of their file."""
    found = {path: path.read_bytes() for path in sorted((folder / "out" / "cells").glob("**/arrays.safetensors"))}
    return {path.relative_to(folder).as_posix(): data for path, data in found.items() if "weights" not in path.parts}


def scores_of(board: dict[str, Any]) -> str:
    """Return what a leaderboard says of scores, without seconds and sizes, as JSON."""
    wanted = ("name", "test", "validation", "seeds", "rate", "rates", "confusion", "status")
    recipes = [{name: recipe.get(name) for name in wanted} for recipe in board["recipes"]]
    for recipe in recipes:
        recipe["test"] = {name: score for name, score in recipe["test"].items() if "second" not in name}
    recipes.sort(key=lambda recipe: str(recipe["name"]))
    return json.dumps([recipes, board["pairs"]], sort_keys=True)


class InlineExecutor:
    """Does the work in this process, and gives it back in a random order.

    change: takes an assignment and the bytes of its outcome, and returns what comes back in their place: bytes, or None
    for a worker that died.
    """

    def __init__(
        self,
        package: bytes,
        workers: int,
        change: Callable[[Assignment, bytes], bytes | None] = lambda _, data: data,
    ) -> None:
        self.workers, self.change = workers, change
        self.work = PackageWork(WorkPackage.from_bytes(package))
        self.running: list[Assignment] = []
        self.most, self.closed = 0, False
        self.order: list[str] = []
        self.random = random.Random(0)

    def submit(self, assignment: Assignment) -> None:
        self.running.append(Assignment.from_bytes(assignment.to_bytes()))
        self.order.append(assignment.id)
        self.most = max(self.most, len(self.running))
        assert len(self.running) <= self.workers

    def wait(self, seconds: float) -> list[Returned]:
        assignment = self.running.pop(self.random.randrange(len(self.running)))
        data = self.change(assignment, perform(self.work, assignment, lambda _: None).to_bytes())
        once = Returned(assignment.id, data, "inline", "" if data else "it died")
        return [once, once]  # what comes twice counts once

    def progress(self) -> dict[str, WorkerProgress]:
        return {one.id: WorkerProgress(0.5, "inline") for one in self.running}

    def cancel(self, assignment_id: str) -> None:
        self.running = [one for one in self.running if one.id != assignment_id]

    def close(self) -> None:
        self.closed = True
