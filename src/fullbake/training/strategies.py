"""A run's rows bound to its way: what `choosing` trains and scores, whichever way it is.

Knows the whole recipe, as `running` does; below them everything takes plain values or one section.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from fullbake.config.sections import TrainingConfig
from fullbake.core import runtime
from fullbake.core.console import say
from fullbake.data.dataset import Dataset
from fullbake.data.splits import Part
from fullbake.models import network
from fullbake.models.encoder import freeze_all
from fullbake.models.encoding import Encoded
from fullbake.training.features import Features
from fullbake.training.finetuning import (
    FinetuneSettings,
    LabeledTexts,
    SplitPoint,
    find_split_point,
    finetune,
    finetuned_logits,
    stored_states_below_split,
)
from fullbake.training.frozen import HeadSettings, LabeledFeatures, head_logits, train_head
from fullbake.training.head_grid import train_heads
from fullbake.training.job import Job, _by_source, _key, encode_dataset, initial_network, part_features
from fullbake.training.loop import ValidateFunction
from fullbake.training.losses import TrainingLoss, make_training_loss
from fullbake.training.selection import History, Strategy, TrainingRun


def strategy_for(job: Job) -> Strategy:
    """The rows of a job made ready for its way: tokenized, or turned into features."""
    return _frozen(job) if job.recipe.way == "frozen" else _finetuning(job)


def _finetuning(job: Job) -> Strategy:
    recipe, objective = job.recipe, _objective(job)
    parts = _parts_for_selection(job)
    encoded = _by_source(parts, lambda source: encode_dataset(source, job))
    cut, states = _states_of(job, parts, encoded)
    whole = FinetuneSettings(recipe.head, recipe.training, recipe.tokens, job.tokenizer.pad_token_id, objective, cut)

    def fit(model: PreTrainedModel, rows: LabeledTexts, validate: ValidateFunction, trial: TrainingRun) -> History:
        tuning = replace(whole, training=_training(recipe.training, trial))
        return finetune(model, rows, validate, tuning, job.checkpoints(trial.name), last_epoch=trial.last)

    def labelled(found: tuple[Encoded, Features | None], labels: np.ndarray) -> LabeledTexts:
        return LabeledTexts(found[0], labels, found[1])

    return Strategy(
        *_rows(job, list(zip(encoded, states, strict=True)), labelled),
        start=lambda: initial_network(job),
        fit=fit,
        logits=lambda module, rows: finetuned_logits(module, rows, whole),
        trained=lambda model: model,
    )


def _states_of(
    job: Job, parts: Sequence[Part], encoded: Sequence[Encoded]
) -> tuple[SplitPoint | None, Sequence[Features | None]]:
    """(where the base is cut, what its fixed layers give for each part's whole source); None and Nones where it runs
    whole."""
    layers, nothing = job.recipe.training.freeze_layers, [None] * len(parts)
    if layers is None:
        return None, nothing
    model = initial_network(job)
    placed: Any = model  # transformers' own types do not know a device as an argument of `to`
    cut = find_split_point(placed.to(runtime.device()), layers)
    if cut is None:
        say(f"a base of type {model.config.model_type!r} cannot be cut above its fixed layers: it runs whole")
        return None, nothing
    key, rows = (
        _key(job, f"states below layer {layers + 1}"),
        {id(part.source): ids for part, ids in zip(parts, encoded, strict=True)},
    )

    def states(source: Dataset) -> Features | None:
        return stored_states_below_split(
            model,
            cut,
            lambda: rows[id(source)],
            key=key.of(source.texts_fingerprint()),
            cache=job.cache,
            tokens=job.recipe.tokens,
            pad_id=job.tokenizer.pad_token_id,
            precision=job.recipe.training.cache_precision,
        )

    found = _by_source(parts, states)
    return (None, nothing) if any(one is None for one in found) else (cut, found)


def _frozen(job: Job) -> Strategy:
    recipe, objective = job.recipe, _objective(job)
    features = part_features(job, _parts_for_selection(job))

    def fit(model: PreTrainedModel, rows: LabeledFeatures, validate: ValidateFunction, trial: TrainingRun) -> History:
        settings = HeadSettings(recipe.head, _training(recipe.training, trial), objective)
        return train_head(model, rows, validate, settings, job.checkpoints(trial.name), last_trial=trial.last)

    def fit_all(
        model: PreTrainedModel, rows: LabeledFeatures, validate: ValidateFunction, trials: Sequence[TrainingRun]
    ) -> list[tuple[PreTrainedModel, History]]:
        freeze_all(model)
        networks = [network.copy_head(model) for _ in trials]
        settings = [HeadSettings(recipe.head, _training(recipe.training, trial), objective) for trial in trials]
        heads = [network.extract_head(twin) for twin in networks]
        grown = train_heads(heads, rows, validate, settings, lambda number: job.checkpoints(trials[number].name))
        for head in grown:
            if head.fault is not None:
                raise head.fault
        return [(twin.eval(), head.history) for twin, head in zip(networks, grown, strict=True)]

    def featured(found: Features, labels: np.ndarray) -> LabeledFeatures:
        return LabeledFeatures(found.values, labels, found.documents, recipe.tokens.window_pooling, found.starts)

    return Strategy(
        *_rows(job, features, featured),
        start=lambda: initial_network(job),
        fit=fit,
        logits=head_logits,
        trained=network.extract_head,
        fit_all=None if recipe.head.kind == "standard" or recipe.training.optimizer == "lbfgs" else fit_all,
    )


def _parts_for_selection(job: Job) -> list[Part]:
    """Training and validation rows, or training rows alone where folds choose: a way never sees test."""
    return [part for part in (job.parts.train, job.parts.validation) if part is not None]


def _rows(job: Job, sources: list[Any], label: Callable[[Any, Any], Any]) -> tuple[Any, Any]:
    """(training rows, validation rows or None) out of what was made of their whole sources, put to its labels."""
    parts = _parts_for_selection(job)
    taken = [label(source, part.source.labels).take(part.indices) for source, part in zip(sources, parts, strict=True)]
    return (taken[0], None) if job.parts.validation is None else (taken[0], taken[1])


def _training(training: TrainingConfig, trial: TrainingRun) -> TrainingConfig:
    """The training section for one trial: its rate, its metric, and no patience where a trial has none."""
    patience = training.patience if trial.patient else None
    return training.model_copy(update={"learning_rate": (trial.rate,), "metric": trial.metric, "patience": patience})


def _objective(job: Job) -> TrainingLoss:
    return make_training_loss(job.recipe.training, job.parts.train.labels, job.parts.train.source.label_names)
