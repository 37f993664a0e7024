"""The models that are served: each with its queue, and what is done with a request's texts."""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fullbake.classifier.hub_bundles import is_hub_id
from fullbake.classifier.model import Answers, Classifier
from fullbake.config.fields import Engine, ScoringPrecision
from fullbake.core.errors import Error, RecipeError, did_you_mean, one_line
from fullbake.serving.batcher import Batcher, RoundFacts
from fullbake.serving.bundle_copy import private_copy
from fullbake.serving.limits import Limits
from fullbake.serving.model_facts import card_facts
from fullbake.serving.refusals import Refusal, invalid, too_large, unavailable
from fullbake.serving.scorer import AS_TRAINED, Prepared, Reading, TextScorer

_LARGE_REQUEST: Final = 20_000
"""Characters from which on a request is tokenized in a thread; below, that takes less than a millisecond."""

_WARM_UP: Final = 3
"""Rounds of each length that measure the rate before the first request."""


@dataclass(frozen=True)
class ModelSource:
    """A bundle that is served."""

    name: str
    folder: str | Path
    """Its folder, or the id of a repository on the hub."""

    engine: Engine = "auto"
    precision: ScoringPrecision = "fp32"
    limits: Limits | None = None
    """Its own limits; None for those of the server."""

    def load(self) -> Classifier:
        """Load it. Its probe texts are checked, so a bundle that answers otherwise than it did is never served."""
        if is_hub_id(self.folder):  # what was fetched is never written again
            return Classifier.load(self.folder, engine=self.engine, precision=self.precision)
        with private_copy(Path(self.folder)) as folder:
            return Classifier.load(folder, engine=self.engine, precision=self.precision)


@dataclass(frozen=True, eq=False)
class Scored:
    """The scores of a request's texts."""

    classifier: Classifier
    logits: NDArray[np.float32]
    """(texts, classes)."""

    answered_by: NDArray[np.object_] | None
    tokens: int
    seconds: float
    """From the call to the result."""

    @cached_property
    def probabilities(self) -> NDArray[np.float64]:
        """(texts, classes)."""
        return self.classifier.problem.probabilities(self.logits)

    @cached_property
    def labels(self) -> list[list[str]]:
        """The labels that the classifier's decision gives to each text."""
        classifier = self.classifier
        decided = classifier.decision.decide(self.probabilities)
        return [[classifier.label_names[label] for label in own] for own in classifier.problem.label_ids(decided)]


@dataclass(frozen=True, eq=False)
class Pooled:
    """What the head reads of a request's texts."""

    vectors: NDArray[np.float32]
    """(texts, width)."""

    tokens: int
    seconds: float
    """From the call to the result."""


@dataclass(eq=False)
class ServedModel:
    """A classifier and its queue."""

    source: ModelSource
    classifier: Classifier
    scorer: TextScorer
    batcher: Batcher
    loaded: float
    """When it was loaded, seconds since 1970."""

    limits: Limits = field(default_factory=Limits)

    @property
    def name(self) -> str:
        """The name that requests give."""
        return self.source.name


@dataclass(eq=False)
class Service:
    """All that is served.

    Args:
        sources: The bundles, the first one being that of requests without a name.
        limits: Bounds of a request and of each model's queue, where a model has none of its own.
        log_texts: Whether the log has the texts of requests.
    """

    sources: Sequence[ModelSource]
    limits: Limits = field(default_factory=Limits)
    log_texts: bool = False
    on_round: Callable[[str, RoundFacts], object] = lambda _model, _facts: None
    models: dict[str, ServedModel] = field(default_factory=dict)
    draining: bool = False
    """True once the server stops: new requests are refused, accepted ones are finished."""

    _tokenizing: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "tokenize"))
    _loading: "asyncio.Lock" = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        """Refuse two models of one name."""
        names = [source.name for source in self.sources]
        for name in names:
            if names.count(name) > 1:
                raise RecipeError(
                    f"two bundles have the name {name!r}",
                    remedy="Give each a name: fullbake serve one=FOLDER two=FOLDER.",
                )

    @property
    def ready(self) -> bool:
        """True if all models are loaded and requests are taken."""
        return not self.draining and len(self.models) == len(self.sources)

    def all_limits(self) -> list[Limits]:
        """Return the limits of the server, and of each model that has its own."""
        return [self.limits, *(source.limits for source in self.sources if source.limits is not None)]

    def check_ready(self) -> None:
        """Raise Refusal unless all models are loaded and requests are taken."""
        if not self.ready:
            raise unavailable("The server is starting or stopping.")

    async def start(self) -> None:
        """Load all models.

        Raises:
            Error: A bundle cannot be loaded.
        """
        for source in self.sources:
            self.models[source.name] = await self._load(source)

    async def drain(self) -> None:
        """Refuse new requests, and wait until those that were accepted are finished."""
        self.draining = True
        await asyncio.gather(*(model.batcher.until_idle() for model in self.models.values()))

    async def reload(self, name: str) -> ServedModel:
        """Load a bundle anew, and serve it from then on. Requests that the old one accepted are finished by it.

        Args:
            name: Of the model.

        Raises:
            Refusal: There is none of that name; or the bundle cannot be loaded, and the old one stays.
        """
        old = self.model(name)
        async with self._loading:
            try:
                model = await self._load(old.source)
            except Error as error:
                why = one_line(error).replace(str(old.source.folder), "the bundle")
                raise Refusal(
                    409, "invalid", f"The model {name!r} stays as it is, because the bundle cannot be loaded: {why}"
                ) from error
            self.models[name] = model
        return model

    async def _load(self, source: ModelSource) -> ServedModel:
        loop = asyncio.get_running_loop()
        classifier = await loop.run_in_executor(None, source.load)
        scorer = TextScorer(classifier)
        rate = await loop.run_in_executor(None, measure_rate, scorer)
        limits = source.limits or self.limits
        batcher = Batcher(
            scorer,
            limits.queue_tokens,
            limits.timeout,
            on_round=lambda facts: self.on_round(source.name, facts),
            rate=rate,
        )
        return ServedModel(source, classifier, scorer, batcher, time.time(), limits)

    def model(self, name: str | None = None) -> ServedModel:
        """Return a model by its name, or the first one.

        Raises:
            Refusal: There is none of that name, or the server is not ready.
        """
        if self.draining:
            raise unavailable("The server is stopping.")
        if not self.ready:
            raise unavailable("The server is starting.")
        name = self.sources[0].name if name is None else name
        if name not in self.models:
            hint = did_you_mean(name[:80], tuple(self.models))
            raise Refusal(404, "unknown_model", f"There is no model {name[:80]!r}. {hint}")
        return self.models[name]

    async def score(
        self,
        model: ServedModel,
        texts: Sequence[str],
        text_pair: Sequence[str] | None = None,
        reading: Reading = AS_TRAINED,
    ) -> Scored:
        """Compute the scores of a request's texts.

        Args:
            model: By whom.
            texts: The texts.
            text_pair: The second text of each, for a classifier of pairs.
            reading: How the texts are read.

        Raises:
            Refusal: The texts are too many, too long, of the wrong kind, or the queue is full.
        """
        started = time.perf_counter()
        prepared = await self.prepare(model, texts, text_pair, reading)
        found: Answers = await model.batcher.answers(prepared)
        seconds = time.perf_counter() - started
        return Scored(model.classifier, found.logits, found.answered_by, int(prepared.costs.sum()), seconds)

    async def pool(self, model: ServedModel, texts: Sequence[str], reading: Reading = AS_TRAINED) -> Pooled:
        """Compute what the head reads of a request's texts; arguments and errors as for `score`."""
        started = time.perf_counter()
        prepared = await self.prepare(model, texts, None, replace(reading, pooled=True))
        found = await model.batcher.answers(prepared)
        return Pooled(found.logits, int(prepared.costs.sum()), time.perf_counter() - started)

    async def prepare(
        self,
        model: ServedModel,
        texts: Sequence[str],
        text_pair: Sequence[str] | None = None,
        reading: Reading = AS_TRAINED,
    ) -> Prepared:
        """Check a request's texts and turn them into token ids; arguments and errors as for `score`."""
        check_texts(model, texts, text_pair)
        size = sum(map(len, texts)) + sum(map(len, text_pair or ()))
        try:
            if size < _LARGE_REQUEST:
                return model.scorer.prepare(texts, text_pair, reading)
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._tokenizing, model.scorer.prepare, texts, text_pair, reading)
        except Error as error:
            raise invalid(one_line(error)) from error


def check_texts(model: ServedModel, texts: Sequence[str], text_pair: Sequence[str] | None) -> None:
    """Raise Refusal if texts are too many, too long, or not what a model reads; arguments as for `Service.score`."""
    check_count(model, len(texts))
    longest = max(map(len, (*texts, *(text_pair or ()))))
    if longest > model.limits.characters:
        raise too_large(f"A text has {longest:,} characters, and at most {model.limits.characters:,} are taken.")
    columns = model.classifier.columns
    if (text_pair is not None) != (columns.text_pair is not None):
        if columns.text_pair is None:
            raise invalid(f"The model {model.name!r} classifies single texts, not pairs.")
        raise invalid(
            f"The model {model.name!r} classifies pairs of texts: {' and '.join(map(repr, columns.of_texts))}. "
            'POST /v1/predict takes them as "rows".'
        )


def check_count(model: ServedModel, count: int) -> None:
    """Raise Refusal if a request has no texts, or more than a model takes: before each of them is looked at.

    Args:
        model: Whose limits.
        count: The number of texts.
    """
    if not count:
        raise invalid("There is no text in the request.")
    if count > model.limits.texts:
        raise too_large(
            f"The request has {count:,} texts, and at most {model.limits.texts:,} are taken. "
            "Send them in several requests."
        )


def measure_rate(scorer: TextScorer) -> float:
    """Return how many tokens a second a classifier computes, after its first calls are over."""
    pair = ["warm up"] * 8 if scorer.classifier.columns.text_pair is not None else None
    prepared = scorer.prepare(["warm up " * 16] * 8, pair)
    places = np.arange(len(prepared))
    seconds = []
    for _ in range(_WARM_UP):
        started = time.perf_counter()
        scorer.answers([(prepared, places)])
        seconds.append(time.perf_counter() - started)
    return float(prepared.costs.sum() / max(min(seconds), 1e-6))


def describe_model(model: ServedModel) -> dict[str, Any]:
    """Return what clients may know of a model: labels, problem, columns, engine, when it was made. No path, no text."""
    classifier = model.classifier
    return {
        "name": model.name,
        "labels": list(classifier.label_names),
        "problem": classifier.problem_type,
        "columns": list(classifier.columns.of_texts),
        "engine": classifier.engine,
        "precision": model.source.precision,
        "max_length": classifier.tokens.max_length,
        "truncation": classifier.tokens.truncation,
        "decision": classifier.decision.to_json(),
        "loaded": model.loaded,
        "limits": model.limits.to_json(),
        "card": card_facts(classifier),
    }
