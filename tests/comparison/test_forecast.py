"""Forecasts of made-up sizes and speeds, and the measurement of a small base's speed."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.rows import dataset, recipe
from transformers import PreTrainedModel

from fullbake.comparison.design import Design, RecipePlan, Trial, full_design, read_candidates
from fullbake.comparison.forecast import (
    FIXED_SECONDS,
    PRETRAINING_FACTOR,
    SAMPLES,
    DataSizes,
    Forecast,
    Speed,
    measure_speed,
    time_batches,
)
from fullbake.data.splits import divide
from fullbake.models import network
from fullbake.models.encoder import load_encoder
from fullbake.training.job import Job, feature_cache, recipe_tokenizer, resolve_recipe
from fullbake.training.selection import Strategy

Bases = Callable[..., Path]

SIZES = DataSizes(train=100, validation=20, test=40, total=160, folds=1)
NAMES = ("finetune", "frozen-mlp", "frozen-linear", "further-finetune", "further-frozen-mlp", "majority")
STAGE = "objective=mlm;steps=50;batch_size=4"


def forecast(**sizes: int) -> Forecast:
    """A forecast for a base that trains on 10 rows per second and predicts 100."""
    candidates = read_candidates(NAMES, base="base", epochs=3, further_pretraining=STAGE)
    speeds = {"base": Speed(train=10.0, infer=100.0)}
    return Forecast({candidate.name: candidate for candidate in candidates}, speeds, replace(SIZES, **sizes))


def plans(found: Forecast) -> list[RecipePlan]:
    return [candidate.plan(3) for candidate in found.candidates.values()]


def test_fine_tuning_trains_on_its_rows_and_predicts_validation_in_every_epoch() -> None:
    expected = FIXED_SECONDS + 3 * (100 / 10 + 20 / 100)
    assert forecast().trial_seconds("finetune") == pytest.approx(expected)
    assert forecast(train=200).trial_seconds("finetune") > forecast().trial_seconds("finetune")


def test_heads_and_baselines_take_a_small_part_of_the_time_of_fine_tuning() -> None:
    found = forecast(train=10_000)
    slower = max(found.trial_seconds("majority"), found.trial_seconds("frozen-mlp"))
    assert slower < found.trial_seconds("finetune") / 50


def test_median_of_measured_trials_replaces_the_forecast() -> None:
    found = forecast()
    for seconds in (7.0, 9.0, 100.0):
        found.record("finetune", seconds)
    assert found.trial_seconds("finetune") == 9.0, "one slow trial does not count"
    assert found.trial_seconds("frozen-mlp") == forecast().trial_seconds("frozen-mlp")


def test_shared_preparation_is_counted_once() -> None:
    found = forecast()
    stage = PRETRAINING_FACTOR * 50 * 4 / 10
    both = ["further-finetune", "further-frozen-mlp"]
    assert found.preparation_seconds(["further-finetune"]) == pytest.approx(stage)
    assert found.preparation_seconds(both) == pytest.approx(stage + 160 / 100)
    assert found.preparation_seconds(["further-finetune"], share=0.1) == pytest.approx(stage / 10)
    assert found.preparation_seconds(["finetune", "majority"]) == 0
    found.prepared |= found.preparation_keys("further-finetune")
    assert found.preparation_seconds(both) == pytest.approx(160 / 100)


def test_each_fold_repeats_what_depends_on_its_training_part() -> None:
    one, three = forecast(), forecast(folds=3)
    stage = ["further-finetune"]
    assert three.preparation_seconds(stage) == pytest.approx(3 * one.preparation_seconds(stage))
    assert three.preparation_seconds(["frozen-mlp"]) == pytest.approx(one.preparation_seconds(["frozen-mlp"]))


def test_design_takes_the_time_of_its_trials_preparation_and_scoring() -> None:
    found = forecast()
    own = plans(found)
    trial = found.trial_seconds("finetune")
    one = found.design_seconds(Design(("finetune",), 1, 1), own, None)
    assert one == pytest.approx(trial + found.scoring_seconds("finetune"))
    assert found.design_seconds(Design(("finetune",), 2, 1), own, None) == pytest.approx(one + trial)
    assert found.design_seconds(full_design(own), own, None) > 12 * 2 * trial
    trials = [Trial("finetune", rate, 0) for rate in (1e-5, 2e-5)]
    scoring = found.scoring_seconds("finetune")
    assert found.all_scoring_seconds(trials) == pytest.approx(scoring), "only the chosen rate is scored"


def test_speed_is_measured_by_training_and_predicting(bases: Bases, tmp_path: Path) -> None:
    """The recipe is a frozen one, but its base is fine-tuned to measure the speed."""
    chosen = resolve_recipe(recipe(bases("bert"), "frozen-mlp", test=0.25, folds=0))
    parts = replace(divide(dataset(tmp_path), chosen.data), test=None)
    key = network.encoder_fingerprint(load_encoder(chosen.base))
    job = Job(chosen, parts, recipe_tokenizer(chosen), key, feature_cache(tmp_path / "cache"))
    counts = []

    def counted(strategy: Strategy, model: PreTrainedModel, rows: np.ndarray) -> Speed:
        counts.append(len(rows))
        return time_batches(strategy, model, rows)

    speed = measure_speed(job, time_batches=counted)
    assert speed.train > 0
    assert speed.infer > 0
    assert counts[0] == SAMPLES[0]
    assert all(count <= len(parts.train) for count in counts)
