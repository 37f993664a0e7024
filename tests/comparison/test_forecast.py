"""Forecasts of made-up sizes and speeds, and the measurement of a small base's speed."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.rows import dataset, recipe
from transformers import PreTrainedModel

from fullbake.comparison.design import Candidate, read_candidates
from fullbake.comparison.forecast import (
    FIXED_SECONDS,
    LANGUAGE_HEAD_TOKENS,
    PRETRAINING_FACTOR,
    SAMPLES,
    STAGE_TOKENS,
    DataSizes,
    Forecast,
    Speed,
    measure_speed,
    time_batches,
)
from fullbake.comparison.schedule import WHOLE, Size, Trial
from fullbake.comparison.trial import SPEED_ROWS
from fullbake.data.splits import divide
from fullbake.models import network
from fullbake.models.encoder import load_encoder
from fullbake.training.job import Job, feature_cache, recipe_tokenizer, resolve_recipe
from fullbake.training.selection import Strategy

Bases = Callable[..., Path]

SIZES = DataSizes(train=100, validation=20, test=40, total=160, folds=1)
NAMES = ("finetune", "frozen-mlp", "frozen-linear", "further-finetune", "further-frozen-mlp", "majority", "tfidf")
TOKENS = 1_000.0
STAGE = "objective=mlm;steps=50;batch_size=4"


def forecast(*, language_head: bool = True, load: float = 1.0, **sizes: int) -> Forecast:
    """A forecast for a base that trains on 10 rows per second and predicts 100."""
    candidates = read_candidates(NAMES, base="base", epochs=3, further_pretraining=STAGE, learning_rate=1e-3)
    speeds = {"base": Speed(10.0, 100.0, load, language_head, tokens=TOKENS)}
    return Forecast({candidate.name: candidate for candidate in candidates}, speeds, replace(SIZES, **sizes))


def own(found: Forecast, name: str, size: Size = WHOLE, *, searches: bool = False) -> float:
    return found.own(Trial(name, 0, None, size), searches=searches)


def shared(found: Forecast, *names: str, size: Size = WHOLE) -> float:
    """Return the seconds of the work that these recipes share, each piece once."""
    pieces: dict[str, float] = {}
    for name in names:
        pieces |= found.shared(Trial(name, 0, None, size))
    return sum(pieces.values())


def test_fine_tuning_trains_on_its_rows_and_predicts_validation_in_every_epoch() -> None:
    scoring = (40 + SPEED_ROWS) / 100
    expected = FIXED_SECONDS + 3 * (100 / 10 + 20 / 100) + scoring
    assert own(forecast(), "finetune") == pytest.approx(expected)
    assert own(forecast(), "finetune", Size(0.5)) == pytest.approx(FIXED_SECONDS + 3 * (50 / 10 + 20 / 100) + scoring)
    assert own(forecast(), "finetune", Size(epochs=1 / 3)) < own(forecast(), "finetune")
    assert own(forecast(train=200), "finetune") > own(forecast(), "finetune")


def test_search_of_a_rate_is_part_of_the_first_trial() -> None:
    (searching,) = read_candidates(["finetune"], base="base", epochs=3)
    (several,) = read_candidates(["finetune"], base="base", epochs=3, rates=(1e-5, 2e-5))
    for candidate, least, most in ((searching, 1.1, 1.4), (several, 1.7, 2.0)):
        found = Forecast({"finetune": candidate}, {"base": Speed(10.0, 100.0)}, SIZES)
        assert least < own(found, "finetune", searches=True) / own(found, "finetune") < most


def test_heads_and_baselines_take_a_small_part_of_the_time_of_fine_tuning() -> None:
    found = forecast(train=10_000)
    slower = max(own(found, "majority"), own(found, "frozen-mlp"))
    assert slower < own(found, "finetune") / 50


def test_more_classes_and_a_busy_machine_take_longer() -> None:
    for name in ("frozen-mlp", "frozen-linear", "tfidf"):
        assert own(forecast(train=2_000, classes=150), name) > own(forecast(train=2_000), name)
        assert own(forecast(load=3.0), name) > own(forecast(), name)
    assert own(forecast(characters=5_000), "tfidf") > 5 * own(forecast(), "tfidf") / 4
    assert own(forecast(load=3.0), "finetune") < 1.1 * own(forecast(), "finetune"), "its speed was measured"


def test_what_trials_took_corrects_the_forecast() -> None:
    found, before = forecast(), forecast()
    for ratio in (2.0, 3.0, 100.0):
        found.corrections.record("finetune", ratio, encoder=True)
    assert own(found, "finetune") == pytest.approx(3 * own(before, "finetune")), "one slow trial does not count"
    assert own(found, "frozen-mlp") == pytest.approx(3 * own(before, "frozen-mlp")), "the machine has become slower"
    found.corrections.record("frozen-mlp", 0.5, encoder=False)
    assert own(found, "frozen-mlp") == pytest.approx(0.5 * own(before, "frozen-mlp"))


def test_fast_encoder_work_does_not_make_others_look_fast() -> None:
    found, before = forecast(), forecast()
    found.corrections.record("finetune", 0.1, encoder=True)
    assert own(found, "frozen-mlp") == own(before, "frozen-mlp")


def test_shared_work_is_counted_once() -> None:
    found = forecast()
    stage = STAGE_TOKENS / TOKENS + PRETRAINING_FACTOR * 50 * 4 / 10
    features = 160 / 100
    assert shared(found, "further-finetune") == pytest.approx(stage)
    assert shared(found, "further-finetune", "further-frozen-mlp") == pytest.approx(stage + features)
    assert shared(found, "further-finetune", size=Size(pretraining=0.1)) == pytest.approx(
        STAGE_TOKENS / TOKENS + PRETRAINING_FACTOR * 5 * 4 / 10
    )
    assert shared(found, "finetune", "majority") == 0
    found.prepared |= set(found.shared(Trial("further-finetune", 0)))
    assert shared(found, "further-finetune", "further-frozen-mlp") == pytest.approx(features)


def test_masked_lm_head_is_trained_once_for_all_further_pretraining() -> None:
    names = ("further-finetune", "further-frozen-mlp")
    more = shared(forecast(language_head=False), *names)
    assert more == pytest.approx(shared(forecast(), *names) + LANGUAGE_HEAD_TOKENS / TOKENS)


def test_heads_of_equal_pooling_share_their_features() -> None:
    candidates = [replace(one, recipe=one.recipe and one.recipe.with_fields(pooling="mean")) for one in _heads()]
    found = Forecast({one.name: one for one in candidates}, {"base": Speed(10.0, 100.0)}, SIZES)
    assert shared(found, "frozen-mlp", "frozen-linear") == pytest.approx(160 / 100)


def _heads() -> list[Candidate]:
    return read_candidates(["frozen-mlp", "frozen-linear"], base="base")


def test_each_fold_repeats_what_depends_on_its_training_part() -> None:
    found = forecast(folds=3)
    stages = [set(found.shared(Trial("further-finetune", 0, fold))) for fold in range(3)]
    assert len(set.union(*stages)) == 3
    features = [set(found.shared(Trial("frozen-mlp", 0, fold))) for fold in range(3)]
    assert len(set.union(*features)) == 1
    cut = [set(found.shared(Trial("frozen-mlp", 0, fold, Size(0.5)))) for fold in range(3)]
    assert len(set.union(*cut)) == 3


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
    assert speed.load >= 1
    assert counts[0] == SAMPLES[0]
    assert all(count <= len(parts.train) for count in counts)
