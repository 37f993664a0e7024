"""The functions that a comparison is made of, in one place, so that tests can replace the slow ones."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from transformers import PreTrainedModel

from fullbake.classifier.speed import EngineSpeed, measure_engines
from fullbake.comparison.forecast import Speed, has_language_head, measure_speed
from fullbake.comparison.trial import (
    TrialPredictions,
    TrialResult,
    TrialWeights,
    restore_network,
    score_baseline,
    score_trial,
    train_baseline,
    train_trial,
)
from fullbake.config.sections import DecisionConfig
from fullbake.core.processors import ThreadSetting, use_threads
from fullbake.data.splits import Part, Parts
from fullbake.pretraining.forgetting import ForgettingProbe, open_probe
from fullbake.pretraining.stage import with_further_pretraining
from fullbake.training.job import Job


@dataclass(frozen=True)
class ComparisonFunctions:
    """The functions that do the work of a comparison. Tests replace the slow ones."""

    train: Callable[[Job, float | None], tuple[TrialResult, TrialWeights]] = train_trial
    """A job without test rows and a learning rate to the result and the weights."""
    score: Callable[[Job, Part, Mapping[str, np.ndarray]], TrialPredictions] = score_trial
    """A job, the test rows and the weights to the predictions."""
    train_baseline: Callable[[str, Parts, str, DecisionConfig], TrialResult] = train_baseline
    score_baseline: Callable[[str, Parts, Part, TrialResult], TrialPredictions] = score_baseline
    further_pretrain: Callable[[Job], Job] = with_further_pretraining
    """A job to the same job on its further-pretrained base."""
    restore: Callable[[Job, Mapping[str, np.ndarray]], PreTrainedModel] = restore_network
    """A job and its weights to the network."""
    measure_speed: Callable[[Job], Speed] = measure_speed
    open_probe: Callable[..., ForgettingProbe] = open_probe
    """A base and `cache_dir` to its forgetting probe."""
    has_language_head: Callable[[str | Path, str | Path | None], bool] = has_language_head
    """A base and `cache_dir` to whether a masked-LM head needs no more training."""
    measure_engines: Callable[..., list[EngineSpeed]] = measure_engines
    """A bundle, texts, `threads` and `seconds` to the speed of each engine."""
    use_threads: Callable[[ThreadSetting], int] = use_threads
    """A setting to the number of threads, which torch computes with from then on."""
    clock: Callable[[], float] = time.monotonic
    """Seconds from any fixed moment."""
