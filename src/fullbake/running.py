"""A recipe from end to end: `adapt` makes a classifier and saves it.

The only module that unpacks a whole recipe; below it everything takes plain values or one section.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from fullbake import metrics, network, runtime, storage, unfinished
from fullbake.bases import load_config, max_positions
from fullbake.cache import Cache
from fullbake.checkpoints import Cadence, Checkpoints
from fullbake.config import Recipe, TrainingConfig
from fullbake.data import Dataset
from fullbake.duplicates import text_hashes
from fullbake.encoder import default_pooling, load_encoder
from fullbake.errors import RecipeError
from fullbake.finetuning import Labelled, Tuning, finetune
from fullbake.freezing import Featured, FeatureKey, frozen_features, train_head
from fullbake.hashing import fingerprint
from fullbake.inference import encode, logits_over, probabilities
from fullbake.model import Classifier, Record
from fullbake.parts import Part, Parts, divide, read_labelled
from fullbake.progress import say
from fullbake.tokens import Encoded, load_tokenizer, set_defaults
from fullbake.unfinished import Resume, Unfinished

CACHE_BYTES = 20 * 1024**3
"""Bound of the feature cache: 20 GiB holds 13 million texts at width 384."""


@dataclass(frozen=True)
class Trained:
    """What a way gives for one rate. validation_logits: float32 (validation rows, classes), of the chosen weights."""

    network: PreTrainedModel
    history: list[dict[str, Any]]
    validation_logits: np.ndarray


TrainAt = Callable[[float], Trained]
"""A learning rate -> what training at it gave, always from the same start."""


def feature_cache(folder: str | Path | None = None) -> Cache:
    """The cache of frozen features: in `folder`, FULLBAKE_CACHE_DIR, or the user's cache folder."""
    return Cache(runtime.cache_dir(folder) / "features", CACHE_BYTES)


@dataclass(frozen=True)
class Job:
    """One run: the effective recipe, the rows, and what its weights depend on besides them.

    base: fingerprint of the base's weights. run: where it is kept until it is done, None where nothing is saved.
    """

    recipe: Recipe
    parts: Parts
    tokenizer: PreTrainedTokenizerFast
    base: str
    cache: Cache
    run: Unfinished | None = None

    def checkpoints(self, rate: float) -> Checkpoints | None:
        """Where training at one rate saves and goes on from."""
        return None if self.run is None else self.run.checkpoints(f"rate-{rate:g}")

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
            "versions": runtime.versions(),
        }


def adapt(
    recipe: Recipe,
    data: Dataset | str | Path,
    *,
    out: str | Path | None = None,
    overwrite: bool = False,
    cache_dir: str | Path | None = None,
    checkpoint_every: str = "5m",
    resume: Resume = "auto",
) -> Classifier:
    """Make a classifier from a base by the recipe.

    data: a Dataset, or a file or hub id read by the recipe's `data` section. out: where the bundle is saved; None
    saves nothing and keeps nothing for going on. overwrite: let the new bundle replace what stands there, once it is
    complete. cache_dir: where features are kept. checkpoint_every: steps (`50`) or time (`30s`, `5m`) between
    checkpoints. resume: what to do about an unfinished run of the same `out`: `auto` goes on if it is the same run,
    `require` refuses to start anew, `anyway` goes on though something differs, `restart` throws it away. Under
    torchrun or accelerate launch the processes share the work; rank 0 writes. Raises Error's children: RecipeError,
    DataError, BaseModelError, OutputError, Fault; Interrupted where a signal stopped it.
    """
    runtime.join_ranks()
    if out is None:
        return _train(_prepare(recipe, data, cache_dir))
    _check_target(out, overwrite)
    job = _prepare(recipe, data, cache_dir)
    if unfinished.only_cleaning_left(out, job.facts()):
        say(f"{out} was complete already; its run was stopped while it cleaned up")
        unfinished.clean(out, writes=runtime.rank() == 0)
        return Classifier.load(out)
    runtime.wait_for_ranks()  # all have looked at what lies there before one of them writes
    cadence = Cadence.parse(checkpoint_every)
    run = unfinished.open_run(out, job.facts(), cadence, resume, writes=runtime.rank() == 0)
    classifier = _train(replace(job, run=run))
    _save(classifier, Path(out), overwrite, run)
    return classifier


def _check_target(out: str | Path, overwrite: bool) -> None:
    """Refuse a target that holds something, before the hours of work; one whose run only has to clean up is looked at
    later."""
    storage.recover(out)
    if not unfinished.is_saved(out):
        storage.require_vacant(out, overwrite=overwrite)


def _prepare(recipe: Recipe, data: Dataset | str | Path, cache_dir: str | Path | None) -> Job:
    recipe = effective(recipe)
    dataset = data if isinstance(data, Dataset) else read_labelled(data, recipe.data)
    parts = divide(dataset, recipe.data)
    say(_sizes(parts, dataset))
    base = network.encoder_fingerprint(load_encoder(recipe.base))
    return Job(recipe, parts, _tokenizer(recipe), base, feature_cache(cache_dir))


def _train(job: Job) -> Classifier:
    trained = _best_rate(job.recipe, _WAYS[job.recipe.way](job), job.parts.validation.labels)
    classifier = Classifier(trained.network, job.tokenizer, job.recipe.tokens, Record())
    classifier.record = _record(job, trained, classifier)
    return classifier


def _save(classifier: Classifier, out: Path, overwrite: bool, run: Unfinished) -> None:
    """The bundle under its name, then nothing of the unfinished run: in this order, so that one of the two is always
    whole."""
    if runtime.rank() == 0:
        classifier.save(out, overwrite=overwrite)
        run.close()
    runtime.wait_for_ranks()


def effective(recipe: Recipe) -> Recipe:
    """The recipe with what depends on its base written out: max_length and, under heads of ours, pooling and width.

    Raises RecipeError where max_length is beyond the base.
    """
    config = load_config(recipe.base)
    limit = max_positions(config)
    wanted = recipe.tokens.max_length
    if wanted is not None and wanted > limit:
        raise RecipeError(
            "max_length is beyond what the base can take",
            where=f"recipe, base {recipe.base!r}",
            expected=f"at most {limit}",
            got=str(wanted),
            remedy=f"Pass --max-length {limit} or less; --truncation head+tail keeps both ends of longer texts.",
        )
    filled: dict[str, Any] = {"max_length": wanted or limit}
    if recipe.head.kind != "standard":
        filled["pooling"] = recipe.head.pooling or default_pooling(recipe.base)
    if recipe.head.kind == "mlp":
        filled["width"] = recipe.head.width or config.hidden_size
    return recipe.with_fields(**filled)


def _sizes(parts: Parts, dataset: Dataset) -> str:
    sizes = ", ".join(f"{len(part):,} {name}" for name, part in parts.named().items())
    return f"{dataset.source}: {sizes} rows, {len(dataset.label_names)} classes"


def _tokenizer(recipe: Recipe) -> PreTrainedTokenizerFast:
    """The base's tokenizer, told what its saved file has to do in plain transformers."""
    tokenizer = load_tokenizer(recipe.base)
    assert recipe.tokens.max_length is not None
    set_defaults(
        tokenizer,
        max_length=recipe.tokens.max_length,
        truncation=recipe.tokens.truncation,
        has_token_type_ids=bool(getattr(load_config(recipe.base), "type_vocab_size", 0)),
    )
    return tokenizer


def _build(recipe: Recipe, label_names: tuple[str, ...]) -> PreTrainedModel:
    runtime.seed_everything(recipe.training.seed)
    return network.build(recipe.base, recipe.head, label_names, seed=recipe.training.seed)


def _encode(dataset: Dataset, job: Job) -> Encoded:
    return encode(dataset.texts, job.tokenizer, job.recipe.tokens)


def _by_source(parts: tuple[Part, ...], compute: Callable[[Dataset], Any]) -> list[Any]:
    """`compute` of each part's whole source, once for each source however many parts share it."""
    done = {id(part.source): part.source for part in parts}
    computed = {key: compute(source) for key, source in done.items()}
    return [computed[id(part.source)] for part in parts]


def _at_rate(job: Job, rate: float) -> tuple[PreTrainedModel, TrainingConfig]:
    """A network to train, always from the same start, and the training section with this one rate."""
    training = job.recipe.training.model_copy(update={"learning_rate": (rate,)})
    return _build(job.recipe, job.parts.train.source.label_names), training


def _finetuning(job: Job) -> TrainAt:
    chosen = (job.parts.train, job.parts.validation)
    encoded = _by_source(chosen, lambda source: _encode(source, job))
    train, validation = (
        Labelled(ids.take(part.indices), part.labels) for ids, part in zip(encoded, chosen, strict=True)
    )

    def train_at(rate: float) -> Trained:
        built, training = _at_rate(job, rate)
        tuning = Tuning(job.recipe.head, training, job.recipe.tokens, job.tokenizer.pad_token_id)
        return Trained(built, *finetune(built, train, validation, tuning, job.checkpoints(rate)))

    return train_at


def _frozen(job: Job) -> TrainAt:
    chosen = (job.parts.train, job.parts.validation)
    train, validation = (
        Featured(values[part.indices], part.labels) for values, part in zip(_features(job, chosen), chosen, strict=True)
    )

    def train_at(rate: float) -> Trained:
        built, training = _at_rate(job, rate)
        return Trained(built, *train_head(built, train, validation, job.recipe.head, training, job.checkpoints(rate)))

    return train_at


def _features(job: Job, parts: tuple[Part, ...]) -> list[np.ndarray]:
    model = _build(job.recipe, job.parts.train.source.label_names)
    key = FeatureKey(
        base=job.base,
        tokenizer=fingerprint(job.tokenizer.backend_tokenizer.to_str()),
        pooling=job.recipe.head.pooling or job.recipe.head.kind,
        tokens=job.recipe.tokens,
        threads=runtime.threads(),
        versions=tuple(runtime.versions().items()),
    )
    return _by_source(
        parts,
        lambda source: frozen_features(
            model,
            lambda: _encode(source, job),
            key=key.of(source.texts_fingerprint()),
            cache=job.cache,
            tokens=job.recipe.tokens,
            pad_id=job.tokenizer.pad_token_id,
        ),
    )


_WAYS = {"finetune": _finetuning, "frozen": _frozen}


def _best_rate(recipe: Recipe, train_at: TrainAt, labels: np.ndarray) -> Trained:
    """Train at each rate of the recipe and keep what validation likes best (the earlier of equals)."""
    rates, metric = recipe.training.learning_rate, recipe.training.metric
    if recipe.training.optimizer == "lbfgs" or len(rates) == 1:
        return train_at(rates[0])
    best: tuple[float, Trained] | None = None
    values: dict[float, float] = {}
    tried: list[dict[str, Any]] = []
    for rate in rates:
        say(f"learning rate {rate:g}")
        trained = train_at(rate)
        values[rate] = metrics.select(metric, labels, probabilities(trained.validation_logits))
        tried += [entry | {"rate": rate} for entry in trained.history]
        if best is None or values[rate] > values[best[0]]:
            best = (rate, trained)
    assert best is not None
    say(f"validation chose the rate {best[0]:g}: {metric} " + ", ".join(f"{v:.4f} at {r:g}" for r, v in values.items()))
    for entry in tried:
        entry["best"] = entry["best"] and entry["rate"] == best[0]
    return Trained(best[1].network, tried, best[1].validation_logits)


def _record(job: Job, trained: Trained, classifier: Classifier) -> Record:
    """What is saved beside the weights. Test is scored here, once, after everything has been chosen."""
    parts, names = job.parts, classifier.label_names
    logits = {"validation": trained.validation_logits}
    if parts.test is not None:
        logits["test"] = _test_logits(job, parts.test, trained.network)
    named, facts = parts.named(), job.facts()
    scores = {name: metrics.score(named[name].labels, probabilities(values), names) for name, values in logits.items()}
    columns = {"text": job.recipe.data.text, "label": job.recipe.data.label}
    rows = {f"{name}_rows": part.rows for name, part in named.items()}
    return Record(
        facts | {"run": fingerprint(facts), "columns": columns, "metrics": scores, "data": _data_facts(parts)},
        {"hashes": text_hashes(parts.train.texts), **rows},
        trained.history,
    )


def _test_logits(job: Job, test: Part, model: PreTrainedModel) -> np.ndarray:
    placed: nn.Module = model
    return logits_over(
        placed.to(runtime.device()),
        encode(test.texts, job.tokenizer, job.recipe.tokens),
        tokens=job.recipe.tokens,
        pad_id=job.tokenizer.pad_token_id,
        title="testing",
        shared=True,
    )


def _data_facts(parts: Parts) -> dict[str, Any]:
    named = parts.named().items()
    return {
        "source": {name: Path(part.source.source).name for name, part in named},  # a bundle travels; paths do not
        "fingerprint": {name: part.fingerprint() for name, part in named},
        "rows": {name: len(part) for name, part in named},
        "overlap_allowed": parts.overlap_allowed,
        "overlap_dropped": parts.overlap_dropped,
    }
