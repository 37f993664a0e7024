"""Labeled rows for tests and runs over them: small, the same on every machine, learnable by a random base."""

import csv
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from fullbake import Classifier, Recipe, adapt
from fullbake.core.cache import Cache
from fullbake.data.dataset import Dataset, read_dataset
from fullbake.data.splits import divide
from fullbake.training.job import Job, recipe_tokenizer, resolve_recipe

SUBJECTS = {"food": "food water home good", "game": "game team play point", "money": "bank card price market"}
FILLERS = "the a and we they new old last little long very never think see people world time way".split()  # noqa: SIM905


def make_rows(count: int = 60, classes: int = 3, seed: int = 0) -> list[tuple[str, str]]:
    """Return (text, label) rows of very different length. All texts differ; the labels alternate."""
    generator = random.Random(seed)
    rows = []
    for number in range(count):
        label = list(SUBJECTS)[number % classes]
        own = generator.choices(SUBJECTS[label].split(), k=3)
        words = own + generator.choices(FILLERS, k=generator.randint(2, 40))
        generator.shuffle(words)
        rows.append((f"{' '.join(words)} {seed * 1000 + number}", label))
    return rows


def write_csv(path: Path, rows: Sequence[Sequence[str]], names: Sequence[str] = ("text", "label")) -> Path:
    """Write rows as a CSV with these column names."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([names, *rows])
    return path


def dataset(folder: Path, count: int = 60, classes: int = 3, seed: int = 0) -> Dataset:
    """Write `make_rows` to a CSV in `folder` and read it as a data set."""
    return read_dataset(
        write_csv(folder / f"rows-{seed}.csv", make_rows(count, classes, seed)), text="text", label="label"
    )


def recipe(base: Path, name: str = "frozen-linear", **fields: Any) -> Recipe:
    """Return a shipped recipe for a small base, short enough for a test."""
    short = {"max_length": 48, "epochs": 2, "batch_size": 8, "validation": 0.25, "token_budget": 256}
    if name == "finetune":
        short["learning_rate"] = 5e-3
    return Recipe.load(name, base=str(base), **(short | fields))


def train(base: Path, folder: Path, name: str = "frozen-linear", **fields: Any) -> Classifier:
    """Train a classifier on `make_rows()` by `recipe(...)`, with its features cached in `folder`."""
    return adapt(recipe(base, name, **fields), dataset(folder), cache_dir=folder / "cache")


def make_job(base: Path, folder: Path, name: str = "frozen-linear", cache_bytes: int = 10**9, **fields: Any) -> Job:
    """Return the job of `train`, with a feature cache of limited size in `folder`."""
    chosen = resolve_recipe(recipe(base, name, **fields))
    cache = Cache(folder / "cache", cache_bytes)
    return Job(chosen, divide(dataset(folder), chosen.data), recipe_tokenizer(chosen), "base", cache)


def weights(classifier: Classifier) -> dict[str, Any]:
    """Return every tensor of a classifier's network, by name."""
    return {name: tensor.detach().clone() for name, tensor in classifier.network.state_dict().items()}


def column(texts: Sequence[str]) -> pa.ChunkedArray:
    """Return texts as an Arrow column."""
    return pa.chunked_array([pa.array(texts, pa.large_string())])
