"""Recipes whose accuracy is set, for pairs and verdicts."""

from dataclasses import replace

import numpy as np

from fullbake.comparison.pairs import ScoredRecipe
from fullbake.evaluation.bootstrap import resample

ROWS = 400
LABELS = np.arange(ROWS) % 2


def recipe(
    name: str, wrong: float, seconds: float = 1.0, *, seeds: int = 3, baseline: bool = False, kind: str = "finetune"
) -> ScoredRecipe:
    """A recipe that is wrong on the first rows, a share of `wrong`, and each seed on two further rows of its own."""
    predictions = np.stack([LABELS] * seeds)
    predictions[:, : round(wrong * ROWS)] ^= 1
    for seed, own in enumerate(predictions):
        own[-2 * seed - 2 : ROWS - 2 * seed] ^= 1
    scores = replace(resample(predictions, LABELS, "accuracy", draws=300), depends_on_seed=not baseline)
    return ScoredRecipe(name, name.title(), scores, predictions[0] == LABELS, seconds, baseline, kind)
