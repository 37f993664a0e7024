"""One run: its recipe with all values filled in, its rows, and what its weights depend on besides them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerFast

from fullbake.config.fields import Truncation
from fullbake.config.recipe import Recipe
from fullbake.config.sections import TokensConfig
from fullbake.core import rng, runtime
from fullbake.core.cache import Cache
from fullbake.core.errors import RecipeError
from fullbake.core.hashing import fingerprint
from fullbake.data.dataset import Dataset
from fullbake.data.splits import Part, Parts
from fullbake.evaluation import metrics
from fullbake.evaluation.calibration import threshold_aim
from fullbake.evaluation.decisions import check_threshold_aim
from fullbake.models import network
from fullbake.models.encoder import (
    check_frozen_standard_head,
    default_pooling,
    resolve_head,
    takes_global_attention,
)
from fullbake.models.encoding import Encoded
from fullbake.models.prediction import encode
from fullbake.models.pretrained import load_config, max_positions, takes_segments
from fullbake.models.projection import read_projection_layers
from fullbake.models.sentence_folder import Use, describe_use, read_sentence_folder
from fullbake.models.tokenizer import load_tokenizer, set_defaults
from fullbake.training.checkpoints import Checkpoints, UnfinishedRun
from fullbake.training.features import Features
from fullbake.training.frozen import FeatureKey, frozen_features
from fullbake.training.losses import make_training_loss

FEATURE_CACHE_BYTES = 20 * 1024**3
"""Limit of the feature cache: 20 GiB holds the features of 13 million texts at width 384."""


def feature_cache(folder: str | Path | None = None) -> Cache:
    """Return the cache of frozen features.

    Args:
        folder: holds all caches; None for FULLBAKE_CACHE_DIR or the user's cache folder.
    """
    return Cache(runtime.cache_dir(folder) / "features", FEATURE_CACHE_BYTES)


def check_problem(recipe: Recipe, parts: Parts) -> None:
    """Refuse a recipe whose metric, decision or loss does not fit the labels, before the hours of work.

    Args:
        recipe: the recipe.
        parts: the rows of the run.

    Raises:
        RecipeError: names the field and what fits.
    """
    labels, names = parts.train.labels, parts.train.source.label_names
    problem = parts.train.problem
    for metric in (recipe.training.metric, recipe.training.search_metric):
        metrics.check_metric(metric, problem.name)
    check_threshold_aim(threshold_aim(recipe.decision, problem), problem, names)
    make_training_loss(recipe.training, labels, names)


def resolve_recipe(recipe: Recipe) -> Recipe:
    """Fill in the fields that depend on the base: max_length, the prompt, the stride of windows, the kind of head under
    way `finetune`, and the pooling and width of `linear` and `mlp` heads.

    Args:
        recipe: the recipe as the user wrote it.

    Raises:
        RecipeError: max_length is more than the base can take, or there is no metric of the recipe's name.
    """
    metrics.check_metric(recipe.training.metric)
    metrics.check_metric(recipe.training.search_metric)
    config = load_config(recipe.base)
    limit = max_positions(config)
    wanted = recipe.tokens.max_length
    if wanted is not None and wanted > limit:
        raise RecipeError(
            "max_length is more than the base can take",
            where=f"recipe, base {recipe.base!r}",
            expected=f"at most {limit}",
            got=str(wanted),
            remedy=f"Pass --max-length {limit} or less; --truncation head+tail keeps both ends of longer texts.",
        )
    settings = read_sentence_folder(recipe.base)
    length = wanted or min(limit, settings.max_length or limit)
    filled: dict[str, Any] = {"max_length": length}
    filled["stride"] = window_stride(recipe.tokens, recipe.tokens.truncation, length)
    if settings.prompt and recipe.tokens.prompt is None:
        filled["prompt"] = settings.prompt
    kind = recipe.head.kind
    if recipe.way == "finetune":  # under way `frozen`, `auto` stands for two heads (see `strategies.recipes_to_try`)
        kind = filled["head"] = resolve_head(recipe.base, recipe.head).kind
    if recipe.way == "frozen" and kind == "standard":
        check_frozen_standard_head(recipe.base)
    if kind != "standard":
        filled["pooling"] = recipe.head.pooling or default_pooling(recipe.base)
    if kind in ("mlp", "auto"):
        filled["width"] = recipe.head.width or config.hidden_size
    return recipe.with_fields(**filled)


def describe_base_use(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> Use:
    """Return what of a sentence-transformers base a run applies, and what it leaves out; nothing for any other base.

    Args:
        recipe: with all fields filled in.
        tokenizer: the base's.

    Raises:
        BaseModelError: a layer after the pooling cannot be applied, see `projection.read_projection_layers`.
    """
    config = load_config(recipe.base)
    if recipe.head.pooling is not None:
        read_projection_layers(recipe.base, recipe.head.pooling, config.hidden_size)
    backend = tokenizer.backend_tokenizer
    return describe_use(
        read_sentence_folder(recipe.base),
        pooling=recipe.head.pooling,
        prompt=recipe.tokens.prompt,
        max_length=recipe.tokens.max_length or 0,
        limit=max_positions(config),
        keeps_case=backend.encode("A").ids != backend.encode("a").ids,
    )


def window_stride(tokens: TokensConfig, truncation: Truncation, max_length: int) -> int | None:
    """Return the tokens that neighboring windows share: the recipe's, or a quarter of max_length; None without
    windows."""
    if truncation == "auto":
        return tokens.stride
    if truncation != "windows":
        return None
    return max_length // 4 if tokens.stride is None else tokens.stride


@dataclass(frozen=True)
class FurtherPretrainedBase:
    """A base that further pretraining made.

    Attributes:
        folder: holds the base.
        key: fingerprint of its weights.
        about: the content of its fullbake.json.
    """

    folder: str
    key: str
    about: dict[str, Any]


@dataclass(frozen=True)
class Job:
    """One run: the recipe, the rows, and what its weights depend on besides them.

    Attributes:
        recipe: with all fields filled in, by `resolve_recipe`.
        parts: training, validation and test rows.
        tokenizer: the base's tokenizer.
        base: fingerprint of the base's weights.
        cache: the feature cache.
        run: holds the checkpoints until the run is done; None if nothing is saved.
        prefix: first part of the names of its checkpoints.
        cache_dir: holds all caches; None for the default.
        adapted: the base that further pretraining made; None if the recipe has no such stage, or before it.
        refit: whether the chosen setting trains once more, on the training and validation rows.
    """

    recipe: Recipe
    parts: Parts
    tokenizer: PreTrainedTokenizerFast
    base: str
    cache: Cache
    run: UnfinishedRun | None = None
    prefix: str = ""
    cache_dir: str | Path | None = None
    adapted: FurtherPretrainedBase | None = None
    refit: bool = False

    @property
    def weights(self) -> str:
        """The folder or hub id that the encoder's weights are read from."""
        return self.adapted.folder if self.adapted else self.recipe.base

    @property
    def weights_key(self) -> str:
        """The fingerprint of these weights."""
        return self.adapted.key if self.adapted else self.base

    def checkpoints(self, name: str) -> Checkpoints | None:
        """Return where one training saves and resumes from, None if nothing is saved.

        Args:
            name: which training, such as `rate-5e-05`.
        """
        return None if self.run is None else self.run.checkpoints(self.prefix + name)

    def facts(self) -> dict[str, Any]:
        """Return all that the weights depend on, JSON values by name; only a run of equal facts may resume this one."""
        once_more = (
            {"refit": True} if self.refit else {}
        )  # other runs keep the facts that they had before there was one
        return once_more | {
            "recipe": self.recipe.model_dump(mode="json"),
            "base": self.base,
            "data": {name: part.fingerprint() for name, part in self.parts.by_name().items()},
            "processes": runtime.world_size(),
            "threads": runtime.threads(),
            "device": runtime.device().type,
            "fast_kernels": runtime.fast_layers_enabled(),
            "gpu_pieces": runtime.gpu_layers_enabled(),
            "versions": runtime.versions(),
        }


def recipe_tokenizer(recipe: Recipe) -> PreTrainedTokenizerFast:
    """Return the base's tokenizer, with the defaults that its saved file needs in plain transformers.

    Args:
        recipe: with all fields filled in.
    """
    tokenizer = load_tokenizer(recipe.base)
    assert recipe.tokens.max_length is not None
    set_defaults(
        tokenizer,
        max_length=recipe.tokens.max_length,
        truncation=recipe.tokens.truncation,
        has_token_type_ids=takes_segments(load_config(recipe.base)),
    )
    return tokenizer


def encode_dataset(dataset: Dataset, job: Job) -> Encoded:
    """Return the token ids of a data set's texts or pairs of texts."""
    return encode(dataset.texts, job.tokenizer, job.recipe.tokens, text_pair=dataset.text_pair)


def part_features(job: Job, parts: Sequence[Part]) -> list[Features]:
    """Return the frozen features of each part's whole source, from the cache if it holds them.

    Args:
        job: the run.
        parts: parts of its rows. Parts of the same source share one result.
    """
    model = initial_network(job)
    key = feature_key(job, job.recipe.head.pooling or job.recipe.head.kind)
    return for_each_source(
        parts,
        lambda source: frozen_features(
            model,
            lambda: encode_dataset(source, job),
            key=key.of(source.texts_fingerprint()),
            cache=job.cache,
            tokens=job.recipe.tokens,
            pad_id=job.tokenizer.pad_token_id,
            precision=job.recipe.training.cache_precision,
        ),
    )


def feature_key(job: Job, kept: str) -> FeatureKey:
    """Return all that a run's features depend on, apart from the texts.

    Args:
        job: the run.
        kept: which output is stored: a pooling, a standard head's features, or the states below a layer.
    """
    if takes_global_attention(load_config(job.weights)):
        kept += ", global attention"  # entries of the cache without it have the plain name
    return FeatureKey(
        base=job.weights_key,
        tokenizer=fingerprint(job.tokenizer.backend_tokenizer.to_str()),
        pooling=kept,
        tokens=job.recipe.tokens,
        threads=runtime.threads(),
        versions=tuple(runtime.versions().items()),
        precision=job.recipe.training.cache_precision,
        fast_kernels=runtime.fast_layers_enabled(),
    )


def for_each_source(parts: Sequence[Part], compute: Callable[[Dataset], Any]) -> list[Any]:
    """Return `compute` of each part's whole source. It is called once for each source, however many parts share it."""
    sources = {id(part.source): part.source for part in parts}
    computed = {key: compute(source) for key, source in sources.items()}
    return [computed[id(part.source)] for part in parts]


def initial_network(job: Job) -> PreTrainedModel:
    """Return the base with a new head, which is initialized from the recipe's seed."""
    recipe, train = job.recipe, job.parts.train
    rng.seed_everything(recipe.training.seed)
    return network.build_network(
        job.weights,
        recipe.head,
        train.source.label_names,
        problem_type=train.problem.name,
        seed=recipe.training.seed,
    )
