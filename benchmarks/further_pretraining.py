"""Further pretraining of base `demo` on IMDb: held-out losses before and after, and accuracy with and without it.

    python benchmarks/further_pretraining.py FOLDER_OF_DATA FOLDER_TO_WORK_IN

The corpus is imdb_unlabelled.parquet without its `<br />` tags (5% of its tokens, and easy to predict). Classifiers
train on 2,000 rows of imdb_train, split 80/20 into training and validation, and are tested on 2,000 rows of imdb_test.
Everything but the base is the same with and without further pretraining; all of it is in bf16. After a stop the same
command resumes.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from machine import store_result

from fullbake import Recipe, adapt, evaluate, further_pretrain
from fullbake.config.pretraining import PretrainingConfig
from fullbake.data.labeled_files import read_labeled
from fullbake.data.partition import split

STAGE = PretrainingConfig(
    objective="mlm+nsp",
    steps=900,
    batch_tokens=4700,
    max_length=128,
    learning_rate=5e-5,
    evaluations=6,
    precision="bf16",
)
SEEDS = (0, 1, 2)
LIMIT = 128


def corpus(data: Path, work: Path) -> Path:
    path = work / "imdb_unlabelled.parquet"
    if not path.exists():
        texts = pq.read_table(data / "imdb_unlabelled.parquet")["text"]
        plain = pc.replace_substring_regex(texts, r"(<br />)+", "\n")
        pq.write_table(pa.table({"text": plain}), path)
    return path


def read_or_make(out: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the fullbake.json of the base in `out`; make the base if it does not exist."""
    about = out / "fullbake.json"
    found: dict[str, Any] = json.loads(about.read_text()) if about.exists() else make()
    return found


def pretrain(data: Path, work: Path) -> dict[str, Any]:
    out, test_files = work / "base", [data / "imdb_test.parquet"]
    about = read_or_make(
        out,
        lambda: further_pretrain(
            "demo", corpus(data, work), out, stage=STAGE, cache_dir=work / "cache", keep_out=test_files
        ),
    )
    end = next(entry for entry in about["history"] if entry["best"])
    return {
        "steps": about["steps"],
        "tokens a step": STAGE.batch_tokens,
        "corpus": about["corpus"],
        "before": about["start"],
        "after": {name: end[name] for name in about["start"]},
        "forgotten": about["forgotten"],
        "history": about["history"],
        "training seconds": round(sum(entry["seconds"] for entry in about["history"])),
    }


def draw(path: Path, rows: int, config: Any, names: tuple[str, ...] | None = None) -> Any:
    data = read_labeled(path, config, label_names=names)
    return data.take(split(np.arange(len(data)), data.labels, rows / len(data), 0)[1])


def measure(data: Path, work: Path, recipe: str, base: str, seed: int) -> dict[str, Any]:
    extra: dict[str, Any] = {"batch_size": 16} if recipe == "finetune" else {}
    place = "demo" if base == "demo" else str(work / "base")
    chosen = Recipe.load(
        recipe, base=place, max_length=LIMIT, truncation="head+tail", seed=seed, folds=0, precision="bf16", **extra
    )
    train = draw(data / "imdb_train.parquet", 2000, chosen.data)
    test = draw(data / "imdb_test.parquet", 2000, chosen.data, train.label_names)
    started = time.perf_counter()
    classifier = adapt(chosen, train, cache_dir=work / "cache")
    seconds = time.perf_counter() - started
    figures = evaluate(classifier, test)["overall"]
    row = {
        "recipe": recipe,
        "base": base,
        "seed": seed,
        "accuracy": round(figures["accuracy"]["value"], 4),
        "95% interval": f"{figures['accuracy']['low']:.3f} to {figures['accuracy']['high']:.3f}",
        "macro-F1": round(figures["f1_macro"]["value"], 4),
        "training seconds": round(seconds),
    }
    print(row, flush=True)
    return row


def main(data: Path, work: Path) -> None:
    work.mkdir(exist_ok=True, parents=True)
    stage = pretrain(data, work)
    print({name: stage[name] for name in ("before", "after", "training seconds")}, flush=True)
    rows = [
        measure(data, work, recipe, base, seed)
        for recipe in ("frozen-mlp", "frozen-linear", "finetune")
        for seed in SEEDS
        for base in ("demo", "demo, further pretrained")
    ]
    store_result("further_pretraining", rows, stage=stage, max_length=LIMIT, truncation="head+tail", precision="bf16")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
