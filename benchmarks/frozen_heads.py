"""Macro-F1 and log loss of heads on frozen features, as they were and as they are, over draws of small sets.

    python benchmarks/frozen_heads.py FOLDER [SET ...]

FOLDER holds the data sets and gets a cache of features and of finished draws. The base is `demo`. Log loss is taken
after a temperature that was fitted on validation, as in every bundle. The linear head "before" divided by every
deviation above 0; "half" and "8 bits" are the shares of test rows whose label is the same if the weights are rounded to
float16, or to 255 steps between the extremes of each class. The mlp heads choose their epoch by macro-F1.
"""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import store_result
from scipy.stats import t as student
from sklearn.preprocessing import StandardScaler
from small_sets import draw, job_of, recipe_of, scores
from torch import nn

from fullbake.config.sections import HeadConfig
from fullbake.core import runtime
from fullbake.evaluation.calibration import fit_temperature
from fullbake.models.heads import build_head, output_layer
from fullbake.training import logistic
from fullbake.training.frozen import HeadSettings, LabeledFeatures, fit_head, head_logits
from fullbake.training.head_grid import train_heads
from fullbake.training.job import part_features
from fullbake.training.losses import make_training_loss
from fullbake.training.selection import SelectionMetrics

DRAWS = {"trec": 5, "comments": 5, "banking77": 3}
RATES = (1e-2, 3e-3, 1e-3, 3e-4)
METRICS = SelectionMetrics("f1_macro")

Rows = dict[str, LabeledFeatures]
"""The rows for training, validation and test."""


def main(folder: Path, names: Sequence[str]) -> None:
    runtime.set_threads(1)
    found = {name: [measured_once(folder, name, seed) for seed in range(DRAWS[name])] for name in names}
    rows = [summary(name, head, [one[head] for one in own]) for name, own in found.items() for head in own[0]]
    differences = {
        f"{new}; less {old}": {
            name: difference([one[new] for one in own], [one[old] for one in own]) for name, own in found.items()
        }
        for new, old in PAIRS
    }
    draws = {name: DRAWS[name] for name in names}
    store_result("frozen_heads", rows, draws=draws, mean_differences_and_95_percent_intervals=differences)


def measured_once(folder: Path, name: str, seed: int) -> dict[str, dict[str, float]]:
    """Return what `measured` gives, from its file if there is one."""
    path = folder / "frozen_heads" / f"{name}-{seed}.json"
    if not path.is_file():
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(measured(folder, name, seed)))
    found: dict[str, dict[str, float]] = json.loads(path.read_text())
    return found


def measured(folder: Path, name: str, seed: int) -> dict[str, dict[str, float]]:
    """Return the test scores of each head on one draw of the rows."""
    rows, names = features(folder, name, seed)
    found: dict[str, dict[str, float]] = {}
    for by in ("f1_macro", "neg_log_loss"):
        with_old_scaler = linear(rows, names, seed, by, scaler=lambda values: StandardScaler().fit(values))
        found[f"linear, before, strength by {by}"] = with_old_scaler
        found[f"linear, now, strength by {by}"] = linear(rows, names, seed, by, scaler=logistic.fit_scaler)
    scaler = logistic.fit_scaler(rows["train"].features)
    standard = {
        part: replace(own, values=scaler.transform(own.features).astype(np.float32), lines=None)
        for part, own in rows.items()
    }
    variants = {"clipped at 1": (rows, 1.0), "not clipped": (rows, None), "not clipped, standardized": (standard, None)}
    for variant, (inputs, longest) in variants.items():
        heads = mlp_heads(inputs, names, seed, longest)
        found[f"mlp, {variant}, rate 1e-2"] = test_scores(heads[0][0], inputs)
        for by in ("f1_macro", "neg_log_loss"):
            best = max(heads, key=lambda pair, by=by: max(e[by] for e in pair[1] if e["best"]))
            found[f"mlp, {variant}, four rates by {by}"] = test_scores(best[0], inputs)
    for head, own in found.items():
        print(name, seed, head, {key: round(value, 4) for key, value in own.items()}, flush=True)
    return found


PAIRS = (
    ("linear, now, strength by neg_log_loss", "linear, before, strength by f1_macro"),
    ("linear, now, strength by neg_log_loss", "linear, now, strength by f1_macro"),
    ("mlp, not clipped, rate 1e-2", "mlp, clipped at 1, rate 1e-2"),
    ("mlp, not clipped, four rates by neg_log_loss", "mlp, not clipped, rate 1e-2"),
    ("mlp, not clipped, four rates by neg_log_loss", "mlp, not clipped, four rates by f1_macro"),
    ("mlp, not clipped, four rates by neg_log_loss", "mlp, clipped at 1, rate 1e-2"),
    ("mlp, not clipped, standardized, four rates by neg_log_loss", "mlp, not clipped, four rates by neg_log_loss"),
    ("mlp, not clipped, four rates by neg_log_loss", "linear, now, strength by neg_log_loss"),
)
"""(a head, another one) whose scores are compared draw by draw."""


def features(folder: Path, name: str, seed: int, multiple: float = 1) -> tuple[Rows, tuple[str, ...]]:
    """Return the features of the base for one draw, and the names of the classes. multiple: of the usual rows."""
    parts = draw(folder, name, seed, multiple)
    job = job_of(recipe_of(name, "frozen-linear"), parts, folder / "features")
    assert parts.validation is not None
    assert parts.test is not None
    wanted = {"train": parts.train, "validation": parts.validation, "test": parts.test}
    found = part_features(job, list(wanted.values()))
    rows = {
        part: LabeledFeatures(whole.values, own.source.labels, whole.documents, "mean", whole.starts).take(own.indices)
        for (part, own), whole in zip(wanted.items(), found, strict=True)
    }
    return rows, parts.train.source.label_names


def validation(rows: Rows) -> Callable[[nn.Module, int], dict[str, Any]]:
    held = rows["validation"]
    return lambda head, _: METRICS.scores(head_logits(head, held), held.labels)


def linear(
    rows: Rows, names: tuple[str, ...], seed: int, by: str, scaler: Callable[[np.ndarray], Any]
) -> dict[str, float]:
    """Return the test scores of a linear head whose strength is chosen by this metric."""
    training = recipe_of("trec", "frozen-linear", search_metric=by, seed=seed).training
    settings = HeadSettings(
        HeadConfig(kind="linear"), training, make_training_loss(training, rows["train"].labels, names)
    )
    torch.manual_seed(seed)
    head = build_head("linear", rows["train"].features.shape[1], len(names), dropout=0, layers=0, width=1)
    before, logistic.fit_scaler = logistic.fit_scaler, scaler
    try:
        fit_head(head, rows["train"], validation(rows), settings)
    finally:
        logistic.fit_scaler = before
    return test_scores(head, rows) | rounded(head, rows["test"])


def mlp_heads(
    rows: Rows, names: tuple[str, ...], seed: int, longest: float | None
) -> list[tuple[nn.Module, list[dict[str, Any]]]]:
    """Return a head and its history for each of RATES; they train together."""
    recipe = recipe_of("trec", "frozen-mlp", seed=seed, max_grad_norm=longest, width=rows["train"].features.shape[1])
    objective = make_training_loss(recipe.training, rows["train"].labels, names)
    settings = [
        HeadSettings(recipe.head, recipe.training.model_copy(update={"learning_rate": (rate,)}), objective)
        for rate in RATES
    ]
    heads = []
    for _ in RATES:
        torch.manual_seed(seed)
        size = recipe.head.width or 0
        heads.append(
            build_head("mlp", size, len(names), dropout=recipe.head.dropout, layers=recipe.head.layers, width=size)
        )
    trained = train_heads(heads, rows["train"], validation(rows), settings)
    return [(head, one.history) for head, one in zip(heads, trained, strict=True) if one.fault is None]


def test_scores(head: nn.Module, rows: Rows) -> dict[str, float]:
    held = rows["validation"]
    temperature = fit_temperature(head_logits(head, held), held.labels)
    found = scores(head_logits(head, rows["test"]) / temperature, rows["test"].labels)
    return {"macro-F1": found["f1_macro"], "log loss": found["log_loss"]}


def rounded(head: nn.Module, rows: LabeledFeatures) -> dict[str, float]:
    """Return the shares of rows whose label is the same if the weights are rounded, and the largest weight."""
    layer, inputs = output_layer(head), rows.features
    weight, bias = (part.detach().numpy() for part in (layer.weight, layer.bias))
    plain = (inputs @ weight.T + bias).argmax(axis=1)
    step = np.abs(weight).max(axis=1, keepdims=True) / 127
    with np.errstate(over="ignore", invalid="ignore"):
        versions = {"half": weight.astype(np.float16).astype(np.float32), "8 bits": np.round(weight / step) * step}
        labels = {name: (inputs @ own.T + bias).argmax(axis=1) for name, own in versions.items()}
    shares = {name: float((own == plain).mean()) for name, own in labels.items()}
    return shares | {"largest weight": float(np.abs(weight).max())}


def summary(name: str, head: str, found: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Return a line of the table: means over the draws."""
    means = {key: float(np.mean([one[key] for one in found])) for key in found[0]}
    return {"set": name, "head": head} | {key: float(f"{value:.4g}") for key, value in means.items()}


def difference(ours: Sequence[dict[str, float]], theirs: Sequence[dict[str, float]]) -> dict[str, str]:
    """Return mean differences over the draws with 95% intervals of Student's t."""
    words = {}
    for key in ("macro-F1", "log loss"):
        gaps = np.array([one[key] - other[key] for one, other in zip(ours, theirs, strict=True)])
        reach = student.isf(0.025, len(gaps) - 1) * gaps.std(ddof=1) / np.sqrt(len(gaps))
        words[key] = f"{gaps.mean():+.4f} ± {reach:.4f}"
    return words


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:] or list(DRAWS))
