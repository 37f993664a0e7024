"""A run's rows bound to its way: what `choosing` trains and scores, whichever way it is.

Knows the whole recipe, as `running` does; below them everything takes plain values or one section.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from fullbake.checkpoints import Checkpoints
from fullbake.choosing import History, Trial, Way
from fullbake.config.problems import problem_of
from fullbake.config.recipe import Recipe
from fullbake.config.sections import TrainingConfig
from fullbake.core import rng, runtime
from fullbake.core.cache import Cache
from fullbake.core.console import say
from fullbake.core.hashing import fingerprint
from fullbake.data.dataset import Dataset
from fullbake.data.splits import Part, Parts
from fullbake.finetuning import Labelled, Tuning, finetune, finetuned_logits
from fullbake.freezing import Featured, FeatureKey, HeadTraining, frozen_features, head_logits, train_head
from fullbake.grids import train_heads
from fullbake.loop import Validation
from fullbake.losses import Objective, make_objective
from fullbake.lowerlayers import Cut, find_cut, kept_states
from fullbake.models import network
from fullbake.models.encoder import freeze_all
from fullbake.models.encoding import Encoded
from fullbake.models.inference import encode
from fullbake.models.pretrained import load_config
from fullbake.models.tokenizer import load_tokenizer, set_defaults
from fullbake.passes import Stored
from fullbake.unfinished import Unfinished


@dataclass(frozen=True)
class Adapted:
    """A base that further pretraining made. folder: where it lies. key: fingerprint of its weights. about: what its
    fullbake.json holds."""

    folder: str
    key: str
    about: dict[str, Any]


@dataclass(frozen=True)
class Job:
    """One run: the effective recipe, the rows, and what its weights depend on besides them.

    base: fingerprint of the base's weights. run: where it is kept until it is done, None where nothing is saved.
    prefix: of its checkpoints' names. cache_dir: where all caches lie, None for the user's own. adapted: the base that
    its further pretraining made, None where the recipe has none or it has not been done yet.
    """

    recipe: Recipe
    parts: Parts
    tokenizer: PreTrainedTokenizerFast
    base: str
    cache: Cache
    run: Unfinished | None = None
    prefix: str = ""
    cache_dir: str | Path | None = None
    adapted: Adapted | None = None

    @property
    def weights(self) -> str:
        """Where the encoder's weights come from."""
        return self.adapted.folder if self.adapted else self.recipe.base

    @property
    def weights_key(self) -> str:
        """Fingerprint of these weights."""
        return self.adapted.key if self.adapted else self.base

    def checkpoints(self, name: str) -> Checkpoints | None:
        """Where one training saves and goes on from."""
        return None if self.run is None else self.run.checkpoints(self.prefix + name)

    def facts(self) -> dict[str, Any]:
        """Everything that the weights depend on, JSON values: only a run that shares it all may go on from this
        one's."""
        return {
            "recipe": self.recipe.model_dump(mode="json"),
            "base": self.base,
            "data": {name: part.fingerprint() for name, part in self.parts.named().items()},
            "processes": runtime.world_size(),
            "threads": runtime.threads(),
            "device": runtime.device().type,
            "fast_kernels": runtime.fast_kernels(),
            "gpu_pieces": runtime.gpu_pieces(),
            "versions": runtime.versions(),
        }


def bind(job: Job) -> Way:
    """The rows of a job made ready for its way: tokenized, or turned into features."""
    return _frozen(job) if job.recipe.way == "frozen" else _finetuning(job)


def tokenizer_for(recipe: Recipe) -> PreTrainedTokenizerFast:
    """The base's tokenizer, told what its saved file has to do in plain transformers. recipe: an effective one."""
    tokenizer = load_tokenizer(recipe.base)
    assert recipe.tokens.max_length is not None
    set_defaults(
        tokenizer,
        max_length=recipe.tokens.max_length,
        truncation=recipe.tokens.truncation,
        has_token_type_ids=bool(getattr(load_config(recipe.base), "type_vocab_size", 0)),
    )
    return tokenizer


def encode_rows(dataset: Dataset, job: Job) -> Encoded:
    """Token ids of a data set's texts or pairs."""
    return encode(dataset.texts, job.tokenizer, job.recipe.tokens, text_pair=dataset.text_pair)


def features_of(job: Job, parts: Sequence[Part]) -> list[Stored]:
    """The frozen features of each part's whole source, from the cache where it knows them."""
    model = build_network(job)
    key = _key(job, job.recipe.head.pooling or job.recipe.head.kind)
    return _by_source(
        parts,
        lambda source: frozen_features(
            model,
            lambda: encode_rows(source, job),
            key=key.of(source.texts_fingerprint()),
            cache=job.cache,
            tokens=job.recipe.tokens,
            pad_id=job.tokenizer.pad_token_id,
            precision=job.recipe.training.cache_precision,
        ),
    )


def _key(job: Job, kept: str) -> FeatureKey:
    """kept: what is kept of each text."""
    return FeatureKey(
        base=job.weights_key,
        tokenizer=fingerprint(job.tokenizer.backend_tokenizer.to_str()),
        pooling=kept,
        tokens=job.recipe.tokens,
        threads=runtime.threads(),
        versions=tuple(runtime.versions().items()),
        precision=job.recipe.training.cache_precision,
        fast_kernels=runtime.fast_kernels(),
    )


def _finetuning(job: Job) -> Way:
    recipe, objective = job.recipe, _objective(job)
    parts = _choosing_parts(job)
    encoded = _by_source(parts, lambda source: encode_rows(source, job))
    cut, states = _states_of(job, parts, encoded)
    whole = Tuning(recipe.head, recipe.training, recipe.tokens, job.tokenizer.pad_token_id, objective, cut)

    def fit(model: PreTrainedModel, rows: Labelled, validate: Validation, trial: Trial) -> History:
        tuning = replace(whole, training=_training(recipe.training, trial))
        return finetune(model, rows, validate, tuning, job.checkpoints(trial.name), last_epoch=trial.last)

    def labelled(found: tuple[Encoded, Stored | None], labels: np.ndarray) -> Labelled:
        return Labelled(found[0], labels, found[1])

    return Way(
        *_rows(job, list(zip(encoded, states, strict=True)), labelled),
        start=lambda: build_network(job),
        fit=fit,
        logits=lambda module, rows: finetuned_logits(module, rows, whole),
        trained=lambda model: model,
    )


def _states_of(
    job: Job, parts: Sequence[Part], encoded: Sequence[Encoded]
) -> tuple[Cut | None, Sequence[Stored | None]]:
    """(where the base is cut, what its fixed layers give for each part's whole source); None and Nones where it runs
    whole."""
    layers, nothing = job.recipe.training.freeze_layers, [None] * len(parts)
    if layers is None:
        return None, nothing
    model = build_network(job)
    placed: Any = model  # transformers' own types do not know a device as an argument of `to`
    cut = find_cut(placed.to(runtime.device()), layers)
    if cut is None:
        say(f"a base of type {model.config.model_type!r} cannot be cut above its fixed layers: it runs whole")
        return None, nothing
    key, rows = (
        _key(job, f"states below layer {layers + 1}"),
        {id(part.source): ids for part, ids in zip(parts, encoded, strict=True)},
    )

    def states(source: Dataset) -> Stored | None:
        return kept_states(
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


def _frozen(job: Job) -> Way:
    recipe, objective = job.recipe, _objective(job)
    features = features_of(job, _choosing_parts(job))

    def fit(model: PreTrainedModel, rows: Featured, validate: Validation, trial: Trial) -> History:
        settings = HeadTraining(recipe.head, _training(recipe.training, trial), objective)
        return train_head(model, rows, validate, settings, job.checkpoints(trial.name), last_trial=trial.last)

    def fit_all(
        model: PreTrainedModel, rows: Featured, validate: Validation, trials: Sequence[Trial]
    ) -> list[tuple[PreTrainedModel, History]]:
        freeze_all(model)
        networks = [network.with_own_head(model) for _ in trials]
        settings = [HeadTraining(recipe.head, _training(recipe.training, trial), objective) for trial in trials]
        heads = [network.head_of(twin) for twin in networks]
        grown = train_heads(heads, rows, validate, settings, lambda number: job.checkpoints(trials[number].name))
        for head in grown:
            if head.fault is not None:
                raise head.fault
        return [(twin.eval(), head.history) for twin, head in zip(networks, grown, strict=True)]

    def featured(found: Stored, labels: np.ndarray) -> Featured:
        return Featured(found.values, labels, found.documents, recipe.tokens.window_pooling, found.places)

    return Way(
        *_rows(job, features, featured),
        start=lambda: build_network(job),
        fit=fit,
        logits=head_logits,
        trained=network.head_of,
        fit_all=None if recipe.head.kind == "standard" or recipe.training.optimizer == "lbfgs" else fit_all,
    )


def _choosing_parts(job: Job) -> list[Part]:
    """Training and validation rows, or training rows alone where folds choose: a way never sees test."""
    return [part for part in (job.parts.train, job.parts.validation) if part is not None]


def _rows(job: Job, sources: list[Any], label: Callable[[Any, Any], Any]) -> tuple[Any, Any]:
    """(training rows, validation rows or None) out of what was made of their whole sources, put to its labels."""
    parts = _choosing_parts(job)
    taken = [label(source, part.source.labels).take(part.indices) for source, part in zip(sources, parts, strict=True)]
    return (taken[0], None) if job.parts.validation is None else (taken[0], taken[1])


def _by_source(parts: Sequence[Part], compute: Callable[[Dataset], Any]) -> list[Any]:
    """`compute` of each part's whole source, once for each source however many parts share it."""
    done = {id(part.source): part.source for part in parts}
    computed = {key: compute(source) for key, source in done.items()}
    return [computed[id(part.source)] for part in parts]


def _training(training: TrainingConfig, trial: Trial) -> TrainingConfig:
    """The training section for one trial: its rate, its metric, and no patience where a trial has none."""
    patience = training.patience if trial.patient else None
    return training.model_copy(update={"learning_rate": (trial.rate,), "metric": trial.metric, "patience": patience})


def _objective(job: Job) -> Objective:
    return make_objective(job.recipe.training, job.parts.train.labels, job.parts.train.source.label_names)


def build_network(job: Job) -> PreTrainedModel:
    """The base under its new head, drawn from the recipe's seed."""
    recipe, train = job.recipe, job.parts.train
    rng.seed_everything(recipe.training.seed)
    return network.build(
        job.weights,
        recipe.head,
        train.source.label_names,
        problem_type=problem_of(train.labels),
        seed=recipe.training.seed,
    )
