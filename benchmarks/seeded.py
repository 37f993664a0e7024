"""Train one recipe with a frozen base with many seeds on one split, and predict the test rows."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fullbake import Recipe
from fullbake.data.labeled_files import read_labeled
from fullbake.data.splits import Parts, divide
from fullbake.models import network
from fullbake.models.encoder import load_encoder
from fullbake.training.frozen import LabeledFeatures, head_logits
from fullbake.training.job import Job, feature_cache, part_features, recipe_tokenizer, resolve_recipe
from fullbake.training.selection import train_best
from fullbake.training.strategies import metrics_of, rates_of, strategy_for

DATA = {"trec": ("trec_train.csv", "text", "coarse"), "sms_spam": ("sms_spam.csv", "text", "label")}
"""Name -> file, column of the texts, column of the labels."""

HEADS: dict[str, dict[str, Any]] = {
    "linear": {"optimizer": "adamw", "learning_rate": 1e-2, "epochs": 5, "batch_size": 32},
    "mlp": {"epochs": 5},
}
"""Fields that differ from the recipes `frozen-linear` and `frozen-mlp`: the seed must change a linear head too."""

TEST, MAX_TRAINING_ROWS = 0.3, 1500


@dataclass(frozen=True)
class SeedPredictions:
    """The predictions of all seeds.

    Attributes:
        predictions: Label ids (seeds, test rows).
        labels: True label ids (test rows,).
    """

    predictions: np.ndarray
    labels: np.ndarray


def train_seeds(folder: Path, data: str, head: str, seeds: range) -> SeedPredictions:
    """Train the head with each seed on the same rows, at most MAX_TRAINING_ROWS; validation chooses the epoch."""
    file, text, label = DATA[data]
    fields = {"text": text, "label": label, "test": TEST, **HEADS[head]}
    recipe = resolve_recipe(Recipe.load(f"frozen-{head}", base="demo", **fields))
    parts = _limit_training_rows(divide(read_labeled(folder / file, recipe.data), recipe.data))
    assert parts.test is not None
    base = network.encoder_fingerprint(load_encoder(recipe.base))
    jobs = [
        Job(recipe.with_fields(seed=seed), parts, recipe_tokenizer(recipe), base, feature_cache(None)) for seed in seeds
    ]
    (found,) = part_features(jobs[0], [parts.test])
    test = LabeledFeatures(found.values, parts.test.source.labels).take(parts.test.indices)
    return SeedPredictions(np.stack([_predict(job, test) for job in jobs]), test.labels)


def _predict(job: Job, test: LabeledFeatures) -> np.ndarray:
    trained = train_best(strategy_for(job), rates_of(job), metrics_of(job))
    return head_logits(network.extract_head(trained.network), test).argmax(axis=1)


def _limit_training_rows(parts: Parts) -> Parts:
    train = parts.train
    left_out = np.random.default_rng(0).permutation(len(train))[MAX_TRAINING_ROWS:]
    return Parts(train.without(left_out), parts.validation, parts.test)
