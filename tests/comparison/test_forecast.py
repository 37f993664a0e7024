from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.rows import dataset, recipe

from fullbake.comparison import forecast as forecast_module
from fullbake.comparison.design import Design, RecipePlan, Trial, full_design, read_candidates
from fullbake.comparison.forecast import (
    FIXED,
    PRETRAINING,
    SAMPLES,
    DataSizes,
    Forecast,
    PreTrainedModel,
    Speed,
    Strategy,
    _time_batches,
    measure_speed,
)
from fullbake.data.splits import divide
from fullbake.models import network
from fullbake.models.encoder import load_encoder
from fullbake.training.job import Job, feature_cache, recipe_tokenizer, resolve_recipe

Bases = Callable[..., Path]

SIZES = DataSizes(train=100, validation=20, test=40, whole=160, folds=1)
NAMES = ("finetune", "frozen-mlp", "frozen-linear", "further-finetune", "further-frozen-mlp", "majority")
STAGE = "objective=mlm;steps=50;batch_size=4"


def forecast(**sizes: int) -> Forecast:
    """Of a base that trains 10 rows a second and reads 100."""
    entrants = read_candidates(NAMES, base="base", epochs=3, further_pretraining=STAGE)
    paces = {"base": Speed(train=10.0, infer=100.0)}
    return Forecast({entrant.name: entrant for entrant in entrants}, paces, replace(SIZES, **sizes))


def lines(found: Forecast) -> list[RecipePlan]:
    return [entrant.line(3) for entrant in found.entrants.values()]


def test_a_fine_tuning_trains_its_rows_and_reads_validation_in_every_epoch() -> None:
    assert forecast().cell("finetune") == pytest.approx(FIXED + 3 * (100 / 10 + 20 / 100))
    assert forecast(train=200).cell("finetune") > forecast().cell("finetune")


def test_heads_cost_a_fraction_and_baselines_next_to_nothing() -> None:
    found = forecast(train=10_000)
    assert max(found.cell("majority"), found.cell("frozen-mlp")) < found.cell("finetune") / 50


def test_what_was_measured_takes_the_place_of_what_was_expected() -> None:
    found = forecast()
    for seconds in (7.0, 9.0, 100.0):
        found.learn("finetune", seconds)
    assert found.cell("finetune") == 9.0, "the median: one slow cell is no rule"
    assert found.cell("frozen-mlp") == forecast().cell("frozen-mlp")


def test_preparation_is_counted_once_however_many_share_it() -> None:
    found = forecast()
    stage = PRETRAINING * 50 * 4 / 10
    assert found.preparation(["further-finetune"]) == pytest.approx(stage)
    assert found.preparation(["further-finetune", "further-frozen-mlp"]) == pytest.approx(stage + 160 / 100)
    assert found.preparation(["further-finetune"], share=0.1) == pytest.approx(stage / 10)
    assert found.preparation(["finetune", "majority"]) == 0
    found.prepared |= found.keys("further-finetune")
    assert found.preparation(["further-finetune", "further-frozen-mlp"]) == pytest.approx(160 / 100)


def test_folds_prepare_anew_what_depends_on_the_training_part() -> None:
    once, thrice = forecast(), forecast(folds=3)
    assert thrice.preparation(["further-finetune"]) == pytest.approx(3 * once.preparation(["further-finetune"]))
    assert thrice.preparation(["frozen-mlp"]) == pytest.approx(once.preparation(["frozen-mlp"]))


def test_a_design_is_its_cells_its_preparation_and_its_scoring() -> None:
    found = forecast()
    own = lines(found)
    one = found.design(Design(("finetune",), 1, 1), own, None)
    assert one == pytest.approx(found.cell("finetune") + found.scoring("finetune"))
    assert found.design(Design(("finetune",), 2, 1), own, None) == pytest.approx(one + found.cell("finetune"))
    assert found.design(full_design(own), own, None) > 12 * 2 * found.cell("finetune")
    cells = [Trial("finetune", rate, 0) for rate in (1e-5, 2e-5)]
    assert found.all_scoring(cells) == pytest.approx(found.scoring("finetune")), "the chosen rate alone is scored"


def test_the_pace_is_measured_by_training_and_reading(
    bases: Bases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the recipe trains: a frozen one is measured as if its base trained, by as many rows as it takes."""
    chosen = resolve_recipe(recipe(bases("bert"), "frozen-mlp", test=0.25, folds=0))
    parts = replace(divide(dataset(tmp_path), chosen.data), test=None)
    key = network.encoder_fingerprint(load_encoder(chosen.base))
    job = Job(chosen, parts, recipe_tokenizer(chosen), key, feature_cache(tmp_path / "cache"))
    counts = []
    real = _time_batches

    def spy(way: Strategy, model: PreTrainedModel, rows: np.ndarray) -> Speed:
        counts.append(len(rows))
        return real(way, model, rows)

    monkeypatch.setattr(forecast_module, "_time_batches", spy)
    pace = measure_speed(job)
    assert pace.train > 0
    assert pace.infer > 0
    assert counts[0] == SAMPLES[0]
    assert all(count <= len(parts.train) for count in counts)
