"""How long a comparison will take, in seconds: the costs that `schedule` decides by.

The first forecast comes from the speed of each base on a few training batches and from rough constants for everything
else. What trials really take corrects it.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from torch import nn
from transformers import PreTrainedModel

from fullbake.comparison.design import Candidate, at_size, epochs_of, pretraining_passes
from fullbake.comparison.schedule import Trial
from fullbake.comparison.trial import SPEED_ROWS
from fullbake.config.recipe import Recipe
from fullbake.config.sections import HeadConfig, TrainingConfig
from fullbake.core import runtime
from fullbake.core.hashing import fingerprint
from fullbake.models.pretrained import load_config
from fullbake.pretraining.forgetting import has_trained_head
from fullbake.training.job import Job
from fullbake.training.rates import HEAD_RATES
from fullbake.training.selection import Strategy, TrainingRun
from fullbake.training.strategies import strategy_for

SAMPLES: Final = (16, 128, 512)
"""Rows that are trained on to measure the speed. The next larger sample follows if the last one took less than
`ENOUGH_SECONDS`: the first steps of a training are slow, and a small sample of short texts has few other steps."""

ENOUGH_SECONDS: Final = 2.0
"""A sample that trains for longer than this gives a reliable speed."""

PRETRAINING_FACTOR: Final = 1.5
"""Training on a row with masked words takes this many times as long as training a classifier on it."""

FIXED_SECONDS: Final = 1.0
"""Seconds of a trial that do not depend on the rows: loading a base, writing weights."""

STAGE_TOKENS: Final = 22_000
"""What does not depend on the length of a further pretraining (its corpus, the evaluations before and after) takes as
long as training on so many tokens."""

LANGUAGE_HEAD_TOKENS: Final = 99_000
"""Training a masked-LM head for a base that has none, once for all further pretraining of it, takes as long as training
the base on so many tokens on one thread. Both were measured with `demo`: 85 s beside 1,160 tokens a second."""

THREAD_GAIN: Final = 0.63
"""Training on n threads is n ** THREAD_GAIN times as fast as on one: two of them 1.55 times."""

HEAD_ROW_SECONDS: Final = 1.8e-4
"""Seconds for one row in one epoch of a head on features."""

HEAD_CLASSES: Final = 400
"""So many classes double the work of a head: its output layer is then as large as a layer of its blocks."""

LBFGS_ROW_SECONDS: Final = 8e-4
LBFGS_CLASS_SECONDS: Final = 9e-5
"""Seconds for one row, and for one row and class, in all logistic regressions (one for each strength) of a trial."""

WORDS_CHARACTER_SECONDS: Final = 3.5e-5
WORDS_CLASS_SECONDS: Final = 2e-5
"""Seconds for one character, and for one row and class, in all regressions on words and groups of characters.

These and the constants of heads were measured with one thread: benchmarks/forecast_costs.py."""

PRETRAINING: Final = "pretraining"
FEATURES: Final = "features"
LANGUAGE_HEAD: Final = "head"
"""The kinds of shared work, which are corrected each by itself: the first words of their keys."""

PROBE_SHARE: Final = 0.3
"""What choosing a rate by short trainings takes, as a share of the training itself."""


@dataclass(frozen=True)
class Speed:
    """Rows per second on one base."""

    train: float
    """Rows per second when all weights train."""
    infer: float
    """Rows per second when the base only predicts."""
    load: float = 1.0
    """How many times as long as on an idle machine work takes, because other processes run beside it."""
    language_head: bool = True
    """Whether there is a masked-LM head: the base's own, or a trained one in the cache."""
    tokens: float = 2_000.0
    """Tokens per second when all weights train."""
    threads: int = 1
    """Threads that the speeds were measured with."""

    @property
    def language_head_seconds(self) -> float:
        """Return the seconds of training a masked-LM head, which always runs on one thread."""
        gain: float = self.threads**THREAD_GAIN
        return LANGUAGE_HEAD_TOKENS * gain / self.tokens

    @property
    def stage_seconds(self) -> float:
        """Return the seconds of a further pretraining that do not depend on its length."""
        return STAGE_TOKENS / self.tokens


@dataclass(frozen=True)
class DataSizes:
    """Numbers of rows."""

    train: int
    validation: int
    test: int
    total: int
    """Rows of all parts together."""
    folds: int
    """Number of folds; 1 without folds."""
    classes: int = 2
    """Number of classes or labels."""
    characters: float = 100.0
    """Mean number of characters of a text that the baseline on words reads."""


def time_batches(strategy: Strategy, model: PreTrainedModel, rows: np.ndarray) -> Speed:
    """Train the model in place on some training rows for one epoch, predict them, and return the speed.

    Args:
        strategy: How the model trains.
        model: The network.
        rows: Positions in the training rows, (rows,).
    """

    def validate(_: nn.Module, __: int) -> dict[str, Any]:
        return {"validation_loss": 0.0, "neg_log_loss": 0.0}

    sample = strategy.train.take(rows)
    history = strategy.fit(model, sample, validate, TrainingRun(2e-5, "neg_log_loss", "pace"))
    started = time.perf_counter()
    strategy.logits(model, sample)
    return Speed(
        float(history[0]["rows_per_second"]),
        len(rows) / (time.perf_counter() - started),
        tokens=float(history[0]["tokens_per_second"]),
    )


def measure_speed(
    job: Job, *, time_batches: Callable[[Strategy, PreTrainedModel, np.ndarray], Speed] = time_batches
) -> Speed:
    """Measure the speed of a job's base on its first batches.

    The base is always fine-tuned here under the standard head, whatever the recipe of the job is.

    Args:
        job: Its training rows are used.
        time_batches: Measures the speed on one sample of rows.
    """
    training = TrainingConfig(metric="neg_log_loss", epochs=1)
    fields = {"way": "finetune", "head": HeadConfig(kind="standard"), "training": training, "further_pretraining": None}
    strategy = strategy_for(replace(job, recipe=job.recipe.model_copy(update=fields)))
    started, used = time.perf_counter(), time.process_time()
    order, model = np.random.default_rng(0).permutation(len(strategy.train.labels)), strategy.new_network()
    for count in SAMPLES:
        speed = time_batches(strategy, model, np.sort(order[:count]))
        if min(count, len(order)) / speed.train > ENOUGH_SECONDS:
            break
    # On an idle machine the processors work about as long as the clock runs, or longer where there are several threads.
    waited = (time.perf_counter() - started) / max(time.process_time() - used, 1e-9)
    load = max(waited * min(runtime.threads(), runtime.count_processors()), 1.0)
    return replace(speed, load=load, threads=runtime.threads())


def has_language_head(base: str | Path, cache_dir: str | Path | None) -> bool:
    """Return True if a base's config names a masked-LM head among its parts, or a trained one is in the cache."""
    names = getattr(load_config(base), "architectures", None) or ()
    return any("MaskedLM" in name or "PreTraining" in name for name in names) or has_trained_head(base, cache_dir)


@dataclass
class Corrections:
    """How many times its forecast each kind of work took.

    One slow trial does not count for much: the median of the last three decides. Work of the encoder is forecast from
    its measured speed, so if that takes longer than its forecast, the machine has become slower, and whatever has not
    been done yet will take longer too.
    """

    ratios: dict[str, list[float]] = field(default_factory=dict)
    """Seconds taken over seconds forecast, the newest last, by kind of work."""
    encoder_ratios: list[float] = field(default_factory=list)
    """The same of all work of the encoder."""

    def record(self, kind: str, ratio: float, *, encoder: bool) -> None:
        """Note how many times its forecast, before any correction, a piece of work took."""
        self.ratios.setdefault(kind, []).append(ratio)
        if encoder:
            self.encoder_ratios.append(ratio)

    def factor(self, kind: str) -> float:
        """Return what to multiply the forecast of this kind of work by."""
        if kind in self.ratios:
            return float(np.median(self.ratios[kind][-3:]))
        return max(1.0, float(np.median(self.encoder_ratios[-3:]))) if self.encoder_ratios else 1.0


@dataclass
class Forecast:
    """Expected seconds of trials and of the work that they share: `schedule.TrialCosts`."""

    candidates: Mapping[str, Candidate]
    """By name. Their recipes have all fields filled in, so that equal work has equal keys."""
    speeds: Mapping[str, Speed]
    """By base."""
    sizes: DataSizes
    corrections: Corrections = field(default_factory=Corrections)
    prepared: set[str] = field(default_factory=set)
    """Keys of the shared work that is done."""

    def own(self, trial: Trial, *, searches: bool) -> float:
        """Return the seconds of training and scoring a trial."""
        return self.plain_own(trial, searches=searches) * self.corrections.factor(trial.candidate)

    def shared(self, trial: Trial) -> dict[str, float]:
        """Return the seconds of the work that it shares with other trials and that is not done yet, by key."""
        return {
            key: seconds * self.corrections.factor(kind_of_work(key))
            for key, seconds in self.plain_shared(trial).items()
            if key not in self.prepared
        }

    def scoring(self, trial: Trial) -> float:
        """Return the seconds of scoring a trial on test."""
        return self._plain_scoring(trial) * self.corrections.factor(trial.candidate)

    def plain_own(self, trial: Trial, *, searches: bool) -> float:
        """Return the seconds of training and scoring a trial before any correction."""
        fixed = FIXED_SECONDS * self._load
        return fixed + self._plain_training(trial, searches=searches) + self._plain_scoring(trial)

    @property
    def _load(self) -> float:
        """Return how many times as long as on an idle machine work takes; measured speeds contain it already."""
        return max((speed.load for speed in self.speeds.values()), default=1.0)

    def _plain_training(self, trial: Trial, *, searches: bool) -> float:
        recipe, sizes, rows = self.candidates[trial.candidate].recipe, self.sizes, self.rows(trial)
        load = self._load
        if recipe is None:
            return load * words_seconds(rows, sizes.characters, sizes.classes) if trial.candidate == "tfidf" else 0.0
        epochs = epochs_of(at_size(recipe, trial.size, rows), rows)
        if recipe.way == "finetune":
            speed = self.speeds[str(recipe.base)]
            once = epochs * (rows / speed.train + sizes.validation / speed.infer)
            return once * (_search_factor(recipe, PROBE_SHARE) if searches else 1.0)
        regression = load * regression_seconds(rows, sizes.classes)
        if recipe.training.optimizer == "lbfgs":
            return regression
        head = load * head_seconds(rows, sizes.classes, epochs, _search_factor(recipe, 1.0) if searches else 1.0)
        return head + regression if recipe.head.kind == "auto" else head

    def _plain_scoring(self, trial: Trial) -> float:
        recipe = self.candidates[trial.candidate].recipe
        if recipe is None:
            return 0.2 * self._plain_training(trial, searches=False)
        # A frozen base has its features of the test rows already; only the speed is measured.
        rows = self.sizes.test if recipe.way == "finetune" else 0
        return (rows + SPEED_ROWS) / self.speeds[str(recipe.base)].infer

    def plain_shared(self, trial: Trial) -> dict[str, float]:
        """Return the seconds of further pretraining and of features before any correction, by key."""
        recipe, sizes, rows = self.candidates[trial.candidate].recipe, self.sizes, self.rows(trial)
        if recipe is None:
            return {}
        speed, seconds = self.speeds[str(recipe.base)], dict[str, float]()
        part = "" if trial.size.rows == 1 else f"{rows} rows"
        stage = ""
        if recipe.further_pretraining is not None:
            shortened = at_size(recipe, trial.size, rows)
            stage = fingerprint(shortened.stage.model_dump(mode="json"), part, trial.fold)
            trained = pretraining_passes(shortened, rows) * rows
            if not speed.language_head:
                seconds[language_head_key(recipe.base)] = speed.language_head_seconds
            seconds[f"{PRETRAINING} of {recipe.base} {stage}"] = (
                speed.stage_seconds + PRETRAINING_FACTOR * trained / speed.train
            )
        if recipe.way == "frozen":
            # Without further pretraining the encoder is the same in all folds, so all rows are read once.
            fold = trial.fold if stage or part else None
            kept = recipe.head.pooling or recipe.head.kind
            read = rows + sizes.validation + sizes.test if part else sizes.total
            seconds[f"{FEATURES} of {recipe.base} {stage} {kept} {part} {fold}"] = read / speed.infer
        return seconds

    def rows(self, trial: Trial) -> int:
        """Return the number of training rows of a trial."""
        return round(self.sizes.train * trial.size.rows)


def words_seconds(rows: int, characters: float, classes: int) -> float:
    """Return the seconds of training the baseline on words.

    Args:
        rows: Training rows.
        characters: Mean number of characters of a text.
        classes: Number of classes or labels.
    """
    return rows * (WORDS_CHARACTER_SECONDS * characters + WORDS_CLASS_SECONDS * classes)


def regression_seconds(rows: int, classes: int) -> float:
    """Return the seconds of the logistic regressions on the features of these training rows, one for each strength."""
    return rows * (LBFGS_ROW_SECONDS + LBFGS_CLASS_SECONDS * classes)


def head_seconds(rows: int, classes: int, epochs: int, rates: float) -> float:
    """Return the seconds of training a head at so many rates; four together take about twice the time of one."""
    once = HEAD_ROW_SECONDS * epochs * rows * (1 + classes / HEAD_CLASSES)
    return once * math.sqrt(rates)


def language_head_key(base: str | Path) -> str:
    """Return the key of training a masked-LM head for a base."""
    return f"{LANGUAGE_HEAD} of {base}"


def kind_of_work(key: str) -> str:
    """Return the kind of a piece of shared work."""
    return key.partition(" ")[0]


def _search_factor(recipe: Recipe, probe: float) -> float:
    """Return how many times one training the choice of a rate takes, with the training itself."""
    rates = recipe.training.learning_rate
    if rates == "auto":
        return 1.0 + probe if recipe.way == "finetune" else float(len(HEAD_RATES["mlp"]))
    return float(len(rates))
