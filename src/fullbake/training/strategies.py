"""The ways of training, `finetune` and `frozen`, each as one `Strategy` over the rows of a run.

A strategy says what trains and how it is scored, so that `selection` chooses epochs and rates without knowing the way.
This module reads the whole recipe; modules below it take plain values or one section of it.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from fullbake.config.recipe import Recipe
from fullbake.config.sections import TrainingConfig
from fullbake.core import rng, runtime, tracking
from fullbake.core.console import say
from fullbake.core.errors import DivergenceFault
from fullbake.data.dataset import Dataset
from fullbake.data.splits import Part
from fullbake.models import network
from fullbake.models.encoder import freeze_all
from fullbake.models.encoding import Encoded
from fullbake.models.pretrained import load_config
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
from fullbake.training.job import (
    Job,
    encode_dataset,
    feature_key,
    for_each_source,
    initial_network,
    part_features,
)
from fullbake.training.loop import ValidateFunction
from fullbake.training.losses import TrainingLoss, make_training_loss
from fullbake.training.rates import HEAD_RATES, OTHER_HEAD_RATES, RateProbe, epochs_for, rule_rate, steps_of_epoch
from fullbake.training.selection import History, SelectionMetrics, Strategy, TrainingRun


def strategy_for(job: Job) -> Strategy:
    """Prepare the rows of a job for its way, tokenized or as features, and return its strategy.

    Args:
        job: the run.
    """
    return _frozen(job) if job.recipe.way == "frozen" else _finetuning(job)


def recipes_to_try(recipe: Recipe) -> list[Recipe]:
    """Return the recipes that way `frozen` with head `auto` stands for, one for each kind of head; else the recipe.

    The regression minimizes plain cross entropy over all rows, so that with another loss, label smoothing or balanced
    sampling the mlp alone is tried.

    Args:
        recipe: with all fields filled in, by `resolve_recipe`.
    """
    if recipe.head.kind != "auto":
        return [recipe]
    training = recipe.training
    plain = training.loss == "cross_entropy" and not training.label_smoothing and training.sampling == "shuffle"
    if not plain:
        say("head auto: logistic regression has only plain cross entropy over all rows, so that the mlp alone is tried")
    linear = [recipe.with_fields(head="linear", optimizer="lbfgs")] if plain else []
    return [*linear, recipe.with_fields(head="mlp")]


def jobs_to_try(job: Job) -> list[Job]:
    """Return the job of each of `recipes_to_try`, with names of its own for its checkpoints; else the job itself.

    Args:
        job: the run.
    """
    recipes = recipes_to_try(job.recipe)
    if recipes == [job.recipe]:
        return [job]
    return [replace(job, recipe=recipe, prefix=f"{job.prefix}{recipe.head.kind}-") for recipe in recipes]


def rates_of(job: Job) -> Sequence[float] | RateProbe:
    """Return the learning rates to train at, or the probe that chooses one, where the recipe says `auto`.

    Args:
        job: the run.
    """
    training = job.recipe.training
    if training.optimizer == "lbfgs":
        return (OTHER_HEAD_RATES[0],)  # L-BFGS has none, so that one value is enough
    if training.learning_rate != "auto":
        return training.learning_rate
    if job.recipe.way == "frozen":
        return HEAD_RATES.get(job.recipe.head.kind, OTHER_HEAD_RATES)
    width = int(load_config(job.weights).hidden_size)
    rows = len(job.parts.train)
    steps = steps_of_epoch(training, rows) * epochs_for(training, rows)
    return RateProbe(rule_rate(width), width, training.step_rows, steps)


def metrics_of(job: Job) -> SelectionMetrics:
    """Return the metrics that choose on validation.

    Args:
        job: the run.
    """
    return SelectionMetrics(job.recipe.training.metric, job.recipe.training.search_metric)


def _finetuning(job: Job) -> Strategy:
    recipe, objective = job.recipe, _objective(job)
    parts = _parts_for_selection(job)
    encoded = for_each_source(parts, lambda source: encode_dataset(source, job))
    split, states = _stored_states(job, parts, encoded)
    settings = FinetuneSettings(
        recipe.head, recipe.training, recipe.tokens, job.tokenizer.pad_token_id, objective, split
    )

    def fit(model: PreTrainedModel, rows: LabeledTexts, validate: ValidateFunction, run: TrainingRun) -> History:
        own = replace(settings, training=_training_of(job, run))
        with tracking.series(job.prefix.strip("-")):
            return finetune(model, rows, validate, own, job.checkpoints(run.name), last_epoch=run.last_trial)

    def labeled(found: tuple[Encoded, Features | None], labels: np.ndarray) -> LabeledTexts:
        return LabeledTexts(found[0], labels, found[1])

    return Strategy(
        *_rows(job, list(zip(encoded, states, strict=True)), labeled),
        new_network=lambda: initial_network(job),
        fit=fit,
        logits=lambda module, rows: finetuned_logits(module, rows, settings),
        trained_part=lambda model: model,
    )


def _stored_states(
    job: Job, parts: Sequence[Part], encoded: Sequence[Encoded]
) -> tuple[SplitPoint | None, Sequence[Features | None]]:
    """Return where the base is split, and the states below the split for each part's whole source.

    None and Nones if no layers are frozen, or if the base has to run as a whole.
    """
    layers, none = job.recipe.training.freeze_layers, [None] * len(parts)
    if layers is None:
        return None, none
    model = initial_network(job)
    module: Any = model  # transformers' own types do not know a device as an argument of `to`
    split = find_split_point(module.to(runtime.device()), layers)
    if split is None:
        say(f"a base of type {model.config.model_type!r} cannot be split above its frozen layers: it runs as a whole")
        return None, none
    key = feature_key(job, f"states below layer {layers + 1}")
    rows = {id(part.source): ids for part, ids in zip(parts, encoded, strict=True)}

    def states(source: Dataset) -> Features | None:
        return stored_states_below_split(
            model,
            split,
            lambda: rows[id(source)],
            key=key.of(source.texts_fingerprint()),
            cache=job.cache,
            tokens=job.recipe.tokens,
            pad_id=job.tokenizer.pad_token_id,
            precision=job.recipe.training.cache_precision,
        )

    found = for_each_source(parts, states)
    return (None, none) if any(features is None for features in found) else (split, found)


def _frozen(job: Job) -> Strategy:
    recipe, objective = job.recipe, _objective(job)
    features = part_features(job, _parts_for_selection(job))

    def settings_of(run: TrainingRun) -> HeadSettings:
        return HeadSettings(recipe.head, _training_of(job, run), objective)

    def fit(model: PreTrainedModel, rows: LabeledFeatures, validate: ValidateFunction, run: TrainingRun) -> History:
        with tracking.series(job.prefix.strip("-")):
            return train_head(
                model,
                rows,
                validate,
                settings_of(run),
                job.checkpoints(run.name),
                last_trial=run.last_trial,
                all_strengths=not run.early_stopping,  # as folds do
            )

    def fit_all(
        model: PreTrainedModel, rows: LabeledFeatures, validate: ValidateFunction, runs: Sequence[TrainingRun]
    ) -> list[tuple[PreTrainedModel, History] | DivergenceFault]:
        freeze_all(model)
        copies = [network.copy_head(model) for _ in runs]
        heads = [network.extract_head(copy) for copy in copies]
        settings = [settings_of(run) for run in runs]
        with tracking.series(job.prefix.strip("-")):
            trained = train_heads(heads, rows, validate, settings, lambda number: job.checkpoints(runs[number].name))
        return [head.fault or (copy.eval(), head.history) for copy, head in zip(copies, trained, strict=True)]

    def labeled(found: Features, labels: np.ndarray) -> LabeledFeatures:
        return LabeledFeatures(found.values, labels, found.documents, recipe.tokens.window_pooling, found.starts)

    return Strategy(
        *_rows(job, features, labeled),
        new_network=_networks_on_one_encoder(job),
        fit=fit,
        logits=head_logits,
        trained_part=network.extract_head,
        fit_all=None if recipe.head.kind == "standard" or recipe.training.optimizer == "lbfgs" else fit_all,
        by_strengths=recipe.training.optimizer == "lbfgs",
    )


def _networks_on_one_encoder(job: Job) -> Callable[[], PreTrainedModel]:
    """Return what makes a network for each training of a head: they share one encoder, which never trains.

    Folds and learning rates ask for dozens of networks, and reading the base takes longer than training a small head.
    """
    if job.recipe.head.kind == "standard":  # its pooler trains too
        return lambda: initial_network(job)
    first: list[PreTrainedModel] = []

    def new_network() -> PreTrainedModel:
        if not first:
            first.append(initial_network(job))
        rng.seed_everything(job.recipe.training.seed)
        return network.copy_head(first[0])

    return new_network


def _parts_for_selection(job: Job) -> list[Part]:
    """Return the training part, and the validation part unless folds choose. A strategy never gets test rows."""
    return [part for part in (job.parts.train, job.parts.validation) if part is not None]


def _rows(job: Job, sources: list[Any], label: Callable[[Any, Any], Any]) -> tuple[Any, Any]:
    """Return (training rows, validation rows or None).

    Args:
        job: the run.
        sources: what was computed from the whole source of each part.
        label: (what was computed, labels of the source) -> labeled rows.
    """
    parts = _parts_for_selection(job)
    rows = [label(source, part.source.labels).take(part.indices) for source, part in zip(sources, parts, strict=True)]
    return (rows[0], None) if job.parts.validation is None else (rows[0], rows[1])


def _training_of(job: Job, run: TrainingRun) -> TrainingConfig:
    """Return the training section for one run: its rate, epochs and metrics, no patience without early stopping."""
    training = job.recipe.training
    fields = {
        "learning_rate": (run.rate,),
        "epochs": run.epochs or epochs_for(training, len(job.parts.train)),
        "metric": run.metric,
        "search_metric": run.search_metric,
        "patience": training.patience if run.early_stopping else None,
    }
    return training.model_copy(update=fields)


def _objective(job: Job) -> TrainingLoss:
    return make_training_loss(job.recipe.training, job.parts.train.labels, job.parts.train.source.label_names)
