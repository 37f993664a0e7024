"""TODO"""

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
from fullbake.models.encoder import default_pooling
from fullbake.models.encoding import Encoded
from fullbake.models.inference import encode
from fullbake.models.pretrained import load_config, max_positions
from fullbake.models.tokenizer import load_tokenizer, set_defaults
from fullbake.training.checkpoints import Checkpoints, UnfinishedRun
from fullbake.training.features import Features
from fullbake.training.frozen import FeatureKey, frozen_features
from fullbake.training.losses import make_training_loss

FEATURE_CACHE_BYTES = 20 * 1024**3
"""Bound of the feature cache: 20 GiB holds 13 million texts at width 384."""


def feature_cache(folder: str | Path | None = None) -> Cache:
    """The cache of frozen features: in `folder`, FULLBAKE_CACHE_DIR, or the user's cache folder."""
    return Cache(runtime.cache_dir(folder) / "features", FEATURE_CACHE_BYTES)


def check_problem(recipe: Recipe, parts: Parts) -> None:
    """What the labels have to be known for: refused before the hours of work."""
    labels, names = parts.train.labels, parts.train.source.label_names
    problem = parts.train.problem
    metrics.check_metric(recipe.training.metric, problem.name)
    check_threshold_aim(threshold_aim(recipe.decision, problem), problem, names)
    make_training_loss(recipe.training, labels, names)


def resolve_recipe(recipe: Recipe) -> Recipe:
    """The recipe with what depends on its base written out: max_length, the stride of windows and, under heads of ours,
    pooling and width.

    Raises RecipeError where max_length is beyond the base, or where no metric has the recipe's name.
    """
    metrics.check_metric(recipe.training.metric)
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
    filled["stride"] = _stride(recipe.tokens, recipe.tokens.truncation, wanted or limit)
    if recipe.head.kind != "standard":
        filled["pooling"] = recipe.head.pooling or default_pooling(recipe.base)
    if recipe.head.kind == "mlp":
        filled["width"] = recipe.head.width or config.hidden_size
    return recipe.with_fields(**filled)


def _stride(tokens: TokensConfig, truncation: Truncation, max_length: int) -> int | None:
    """Tokens that windows share: as asked, or a quarter of their length; None where there are no windows."""
    if truncation == "auto":
        return tokens.stride
    if truncation != "windows":
        return None
    return max_length // 4 if tokens.stride is None else tokens.stride


@dataclass(frozen=True)
class FurtherPretrainedBase:
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
    run: UnfinishedRun | None = None
    prefix: str = ""
    cache_dir: str | Path | None = None
    adapted: FurtherPretrainedBase | None = None

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
            "data": {name: part.fingerprint() for name, part in self.parts.by_name().items()},
            "processes": runtime.world_size(),
            "threads": runtime.threads(),
            "device": runtime.device().type,
            "fast_kernels": runtime.fast_layers_enabled(),
            "gpu_pieces": runtime.gpu_layers_enabled(),
            "versions": runtime.versions(),
        }


def recipe_tokenizer(recipe: Recipe) -> PreTrainedTokenizerFast:
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


def encode_dataset(dataset: Dataset, job: Job) -> Encoded:
    """Token ids of a data set's texts or pairs."""
    return encode(dataset.texts, job.tokenizer, job.recipe.tokens, text_pair=dataset.text_pair)


def part_features(job: Job, parts: Sequence[Part]) -> list[Features]:
    """The frozen features of each part's whole source, from the cache where it knows them."""
    model = initial_network(job)
    key = _key(job, job.recipe.head.pooling or job.recipe.head.kind)
    return _by_source(
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
        fast_kernels=runtime.fast_layers_enabled(),
    )


def _by_source(parts: Sequence[Part], compute: Callable[[Dataset], Any]) -> list[Any]:
    """`compute` of each part's whole source, once for each source however many parts share it."""
    done = {id(part.source): part.source for part in parts}
    computed = {key: compute(source) for key, source in done.items()}
    return [computed[id(part.source)] for part in parts]


def initial_network(job: Job) -> PreTrainedModel:
    """The base under its new head, drawn from the recipe's seed."""
    recipe, train = job.recipe, job.parts.train
    rng.seed_everything(recipe.training.seed)
    return network.build_network(
        job.weights,
        recipe.head,
        train.source.label_names,
        problem_type=train.problem.name,
        seed=recipe.training.seed,
    )
