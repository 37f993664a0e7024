"""The time of a fine-settings epoch with the lowest layers frozen: with stored states, and without.

    python benchmarks/partly_frozen.py FILE TEXT LABEL [ROWS]

Base `demo` (6 layers), batch 16, standard head. The states are in the cache before an epoch is timed; the seconds to
compute them are given too. All times are processor time of this process, so that other processes do not count.
"""

import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from machine import store_result

from fullbake import Dataset, Recipe
from fullbake.data.labeled_files import read_labeled
from fullbake.models import network
from fullbake.models.prediction import encode
from fullbake.models.tokenizer import load_tokenizer
from fullbake.training.finetuning import (
    FinetuneSettings,
    LabeledTexts,
    find_split_point,
    finetune,
    stored_states_below_split,
)
from fullbake.training.job import feature_cache, resolve_recipe
from fullbake.training.losses import make_training_loss

ROUNDS = 3
LAYERS = (None, 0, 2, 3, 4, 5)


def main(file: str, text: str, label: str, rows: str = "512") -> None:
    recipe = resolve_recipe(Recipe.load("finetune", base="demo", text=text, label=label, batch_size=16, epochs=1))
    data = read_labeled(file, recipe.data)
    data = data.take(np.arange(min(int(rows), len(data))))
    found = [measured(recipe, data, layers) for layers in LAYERS]
    for row in found:
        row["share_of_whole_base"] = round(row["epoch"] / found[0]["epoch"], 2)
        print(row)
    store_result("partly_frozen", found, data=f"{Path(file).name}, {len(data):,} rows", rounds=ROUNDS)


def measured(recipe: Recipe, data: Dataset, layers: int | None) -> dict[str, Any]:
    """Return the median seconds of an epoch with so many layers frozen, with stored states and with the whole base."""
    tokenizer = load_tokenizer(recipe.base)
    encoded = encode(data.texts, tokenizer, recipe.tokens)
    training = recipe.training.model_copy(update={"freeze_layers": layers})
    loss = make_training_loss(training, data.labels, data.label_names)
    model = network.build_network(recipe.base, recipe.head, data.label_names, seed=0)
    split_point, states, spent = None, None, [0.0]
    if layers is not None:
        split_point = find_split_point(model, layers)
        assert split_point is not None
        with tempfile.TemporaryDirectory() as folder, timed(spent):
            states = stored_states_below_split(
                model,
                split_point,
                lambda: encoded,
                key="k",
                cache=feature_cache(folder),
                tokens=recipe.tokens,
                pad_id=tokenizer.pad_token_id,
                precision="fp32",
            )
    row: dict[str, Any] = {"fixed_layers": layers, "states": round(spent[-1], 2)}
    for name, stored in (("epoch", states), ("epoch_of_whole_base", None)):
        settings = FinetuneSettings(
            recipe.head, training, recipe.tokens, tokenizer.pad_token_id, loss, split_point if stored else None
        )
        row[name] = round(
            sorted(_epochs(recipe, data, LabeledTexts(encoded, data.labels, stored), settings))[ROUNDS // 2], 2
        )
    return row


def _epochs(recipe: Recipe, data: Dataset, rows: LabeledTexts, settings: FinetuneSettings) -> Iterator[float]:
    for _ in range(ROUNDS):
        model = network.build_network(recipe.base, recipe.head, data.label_names, seed=0)
        spent: list[float] = []
        with timed(spent):
            finetune(model, rows, lambda *_: {"validation_loss": 0.0, "f1_macro": 0.0}, settings)
        yield spent[-1]


@contextmanager
def timed(into: list[float]) -> Iterator[None]:
    started = time.process_time()
    yield
    into.append(time.process_time() - started)


if __name__ == "__main__":
    main(*sys.argv[1:])
