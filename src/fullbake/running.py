"""A recipe from end to end: `adapt` makes a classifier, `evaluate` scores one, `predict_file` runs one over a file.

The only module that unpacks a whole recipe; below it everything takes plain values or one section.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from fullbake import metrics, network, runtime, storage
from fullbake.config import DataConfig, Recipe
from fullbake.data import Dataset, read_dataset
from fullbake.duplicates import text_hashes
from fullbake.bases import load_config, max_positions
from fullbake.cache import Cache
from fullbake.encoder import default_pooling
from fullbake.errors import RecipeError
from fullbake.finetuning import Labelled, Tuning, finetune
from fullbake.freezing import Featured, FeatureKey, frozen_features, train_head
from fullbake.hashing import fingerprint
from fullbake.inference import encode, probabilities
from fullbake.model import Classifier, Record
from fullbake.parts import Part, Parts, divide
from fullbake.progress import bar, say, warn
from fullbake.tables import Table, open_table
from fullbake.tokens import Encoded, load_tokenizer, set_defaults
from fullbake.writers import open_writer

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


def adapt(
    recipe: Recipe,
    data: Dataset | str | Path,
    *,
    out: str | Path | None = None,
    overwrite: bool = False,
    cache_dir: str | Path | None = None,
) -> Classifier:
    """Make a classifier from a base by the recipe.

    data: a Dataset, or a file or hub id read by the recipe's `data` section. out: where the bundle is saved (None: not).
    overwrite: let the new bundle replace what stands there, once it is complete. cache_dir: where features are kept.
    Raises Error's children: RecipeError, DataError, BaseModelError, OutputError, Fault.
    """
    if out is not None:
        storage.require_vacant(out, overwrite=overwrite)
    recipe = effective(recipe)
    dataset = data if isinstance(data, Dataset) else read_training_data(data, recipe.data)
    parts = divide(dataset, recipe.data)
    say(_sizes(parts, dataset))
    tokenizer = _tokenizer(recipe)
    train_at = _WAYS[recipe.way](recipe, parts, tokenizer, cache_dir)
    trained = _best_rate(recipe, train_at, parts.validation.labels)
    classifier = Classifier(trained.network, tokenizer, recipe.tokens, Record())
    classifier.record = _record(recipe, parts, trained, classifier)
    if out is not None:
        classifier.save(out, overwrite=overwrite)
    return classifier


def read_training_data(source: str | Path, config: DataConfig) -> Dataset:
    """A file or hub data set with its labels, by the recipe's `data` section."""
    return read_dataset(
        source,
        text=config.text,
        label=config.label,
        drop_unlabelled=config.drop_unlabelled,
        delimiter=config.delimiter,
        encoding=config.encoding,
    )


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


def _encode(dataset: Dataset, recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> Encoded:
    return encode(dataset.texts, tokenizer, recipe.tokens)


def _by_source(parts: tuple[Part, ...], compute: Callable[[Dataset], Any]) -> list[Any]:
    """`compute` of each part's whole source, once for each source however many parts share it."""
    done = {id(part.source): part.source for part in parts}
    computed = {key: compute(source) for key, source in done.items()}
    return [computed[id(part.source)] for part in parts]


def _finetuning(recipe: Recipe, parts: Parts, tokenizer: PreTrainedTokenizerFast, _: object) -> TrainAt:
    chosen = (parts.train, parts.validation)
    encoded = _by_source(chosen, lambda source: _encode(source, recipe, tokenizer))
    train, validation = (
        Labelled(ids.take(part.indices), part.labels) for ids, part in zip(encoded, chosen, strict=True)
    )

    def train_at(rate: float) -> Trained:
        training = recipe.training.model_copy(update={"learning_rate": (rate,)})
        built = _build(recipe, parts.train.source.label_names)
        tuning = Tuning(recipe.head, training, recipe.tokens, tokenizer.pad_token_id)
        return Trained(built, *finetune(built, train, validation, tuning))

    return train_at


def _frozen(
    recipe: Recipe, parts: Parts, tokenizer: PreTrainedTokenizerFast, cache_dir: str | Path | None
) -> TrainAt:
    chosen = (parts.train, parts.validation)
    features = _features(recipe, chosen, tokenizer, feature_cache(cache_dir))
    train, validation = (
        Featured(values[part.indices], part.labels) for values, part in zip(features, chosen, strict=True)
    )

    def train_at(rate: float) -> Trained:
        training = recipe.training.model_copy(update={"learning_rate": (rate,)})
        built = _build(recipe, parts.train.source.label_names)
        return Trained(built, *train_head(built, train, validation, recipe.head, training))

    return train_at


def _features(
    recipe: Recipe, parts: tuple[Part, ...], tokenizer: PreTrainedTokenizerFast, cache: Cache
) -> list[np.ndarray]:
    model = _build(recipe, parts[0].source.label_names)
    key = FeatureKey(
        base=network.encoder_fingerprint(model),
        tokenizer=fingerprint(tokenizer.backend_tokenizer.to_str()),
        pooling=recipe.head.pooling or recipe.head.kind,
        tokens=recipe.tokens,
        threads=runtime.threads(),
        versions=tuple(runtime.versions().items()),
    )
    return _by_source(
        parts,
        lambda source: frozen_features(
            model,
            lambda: _encode(source, recipe, tokenizer),
            key=key.of(source.texts_fingerprint()),
            cache=cache,
            tokens=recipe.tokens,
            pad_id=tokenizer.pad_token_id,
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


def _record(recipe: Recipe, parts: Parts, trained: Trained, classifier: Classifier) -> Record:
    names = classifier.label_names
    scores = {"validation": metrics.score(parts.validation.labels, probabilities(trained.validation_logits), names)}
    if parts.test is not None:
        scores["test"] = metrics.score(parts.test.labels, classifier.predict_proba(parts.test.texts), names)
    facts = {
        "recipe": recipe.model_dump(mode="json"),
        "base": {"name": recipe.base},
        "columns": {"text": recipe.data.text, "label": recipe.data.label},
        "data": _data_facts(parts),
        "metrics": scores,
        "versions": runtime.versions(),
        "threads": runtime.threads(),
    }
    rows = {f"{name}_rows": part.rows for name, part in parts.named().items()}
    return Record(facts, {"hashes": text_hashes(parts.train.texts), **rows}, trained.history)


def _data_facts(parts: Parts) -> dict[str, Any]:
    return {
        "source": parts.train.source.source,
        "sources": {name: part.source.source for name, part in parts.named().items()},
        "fingerprint": {name: part.source.fingerprint() for name, part in parts.named().items()},
        "rows": {name: len(part) for name, part in parts.named().items()},
        "overlap_allowed": parts.overlap_allowed,
        "overlap_dropped": parts.overlap_dropped,
    }


def predict_file(
    classifier: Classifier,
    source: str | Path | Table,
    target: str | Path | BinaryIO,
    *,
    text: str | None = None,
    prefix: str = "",
    overwrite: bool = False,
) -> int:
    """Write the rows of `source` again, in order, with `predicted`, `score` and `score:<class>` after their columns.

    source: a file (.csv .tsv .jsonl .parquet) or an open Table. target: a file, its form by its extension, or a binary
    stream in the source's form. text: column of the texts (None: the name it had in training). prefix: put before the
    added names. Streamed: memory does not grow with the rows. Returns the number of rows.
    Raises DataError for a row that cannot be read or a name that is taken, OutputError where the target is there.
    """
    column = text or classifier.text_column
    table = source if isinstance(source, Table) else open_table(source, columns=[column])
    extra = {name: str if name == f"{prefix}predicted" else np.float32 for name in _added_names(classifier, prefix)}
    done = 0
    with open_writer(target, table, extra, overwrite=overwrite) as writer, bar("predicting", None, "rows") as advance:
        for chunk in table.chunks(keep=True):
            writer.write(chunk, _added(classifier, chunk.columns[column], prefix))
            advance(len(chunk))
            done += len(chunk)
    return done


def _added_names(classifier: Classifier, prefix: str) -> list[str]:
    names = ["predicted", "score", *(f"score:{label}" for label in classifier.label_names)]
    return [prefix + name for name in names]


def _added(classifier: Classifier, texts: list[str], prefix: str) -> dict[str, Any]:
    """The added columns of one chunk: the likeliest class, its probability, and every class's."""
    chances = classifier.predict_proba(texts).astype(np.float32)
    likeliest = list(classifier.classes_[chances.argmax(axis=1)])
    return dict(zip(_added_names(classifier, prefix), [likeliest, chances.max(axis=1), *chances.T], strict=True))


def evaluate(classifier: Classifier, dataset: Dataset) -> dict[str, Any]:
    """Score a classifier on labelled rows: `metrics.score`'s figures, and `trained_on`, how many rows it was trained on.

    Warns where that is not 0. The dataset must have been read with the classifier's `label_names`.
    """
    assert dataset.labels is not None
    scores = metrics.score(dataset.labels, classifier.predict_proba(dataset.texts), classifier.label_names)
    trained_on = count_seen(classifier, dataset)
    if trained_on:
        warn(
            f"{trained_on:,} of these {len(dataset):,} rows were trained on: the scores flatter the classifier "
            "(texts compared after NFKC, case folding and whitespace collapsing)"
        )
    return scores | {"trained_on": trained_on}


def count_seen(classifier: Classifier, dataset: Dataset) -> int:
    """How many of the rows hold a text that the classifier was trained on."""
    seen = {bytes(row) for row in classifier.record.seen["hashes"]}
    return sum(bytes(row) in seen for row in text_hashes(dataset.texts))
