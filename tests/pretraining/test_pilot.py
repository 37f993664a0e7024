"""A pilot gives figures and saves nothing; its sentences fit the figures."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.corpora import make_documents, source_of
from hypothesis import given
from hypothesis import strategies as st

from fullbake.config.pretraining import PretrainingConfig
from fullbake.core.errors import RecipeError
from fullbake.pretraining import pilot
from fullbake.pretraining.pilot import describe_pilot, run_pilot

FACTS: dict[str, Any] = {
    "pieces_per_word": {"domain": 1.1, "general": 1.1},
    "gain": 0.3,
    "forgotten": 0.05,
    "own_head": True,
    "head_alone": None,
    "unknown_share": {"domain": 0.001, "general": 0.0},
    "steps": 200,
    "tokens": 1_000_000,
    "hours_a_pass": 1.5,
}


def test_pilot_measures_and_saves_nothing(bases: Callable[..., Path], tmp_path: Path) -> None:
    stage = PretrainingConfig(objective="mlm", steps=8, max_length=32, batch_size=8, learning_rate=1e-2, evaluations=2)
    facts = run_pilot(bases("bert"), [source_of(make_documents(20))], stage, cache_dir=tmp_path)
    assert facts["steps"] == 8
    assert facts["pieces_per_word"]["domain"] >= 1
    assert 0 <= facts["unknown_share"]["domain"] <= 1
    assert facts["head_alone"] is not None
    assert facts["head_alone"] < facts["start"]["mlm_loss"]
    assert facts["gain"] == pytest.approx(facts["head_alone"] - facts["end"]["mlm_loss"])
    assert facts["tokens_per_second"] > 0
    assert len(facts["words"]) == 3
    assert facts["sampled"] == 1
    assert facts["budget_seconds"] is None


def test_pilot_runs_as_many_steps_as_fit_into_its_budget(
    bases: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(pilot, "_time_step", lambda run: 100.0)  # seconds
    stage = PretrainingConfig(objective="mlm", steps=500, max_length=32, batch_size=8, evaluations=2)
    facts = run_pilot(bases("bert"), [source_of(make_documents(20))], stage, budget=3_000.0, cache_dir=tmp_path)
    assert facts["steps"] == pilot.FEWEST_STEPS
    assert facts["expected_seconds"] <= 3_000
    assert f"pilot: {facts['steps']} steps in place of 500, each of" in caplog.text


@given(wanted=st.integers(1, 500), affordable=st.floats(0, 1_000))
def test_steps_fit_into_the_time(wanted: int, affordable: float) -> None:
    steps, share = pilot._fit_steps(wanted, affordable)
    assert 1 <= steps <= wanted
    assert 0 <= share <= 1
    assert steps * share <= affordable * (1 + 1e-9) or (steps, share) == (wanted, 1.0)
    assert share == 1 or steps in (wanted, pilot.FEWEST_STEPS)
    assert affordable < wanted or (steps, share) == (wanted, 1.0)


def test_budget_that_is_too_short_is_refused(
    bases: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = PretrainingConfig(objective="mlm", steps=50, max_length=32, batch_size=8, evaluations=2)
    texts = [source_of(make_documents(20))]
    with pytest.raises(RecipeError, match="the time is too short for a pilot"):
        run_pilot(bases("bert"), texts, stage, budget=0.0, cache_dir=tmp_path)
    assert not list(tmp_path.glob("probes/*/head.safetensors"))  # a half-trained head is not kept
    monkeypatch.setattr(pilot, "_time_step", lambda run: 10_000.0)
    with pytest.raises(RecipeError, match="a step takes"):
        run_pilot(bases("bert"), texts, stage, budget=200.0, cache_dir=tmp_path)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, "Worth a try"),
        ({"gain": 0.001}, "Not worth it"),
        ({"gain": -0.2}, "the held-out loss is 0.200 nats higher"),
        ({"forgotten": 0.9}, "The base forgets more than it learns"),
        ({"forgotten": 0.9, "own_head": False, "head_alone": 3.0}, "compared with training only a new head"),
        ({"own_head": False}, "too short to measure that part"),
        ({"forgotten": None}, "the held-out loss is 0.300 nats lower."),
        ({"unknown_share": {"domain": 0.64, "general": 0.0}}, "Choose another base first"),
        ({"pieces_per_word": {"domain": 2.4, "general": 1.1}}, "unfamiliar to the base"),
    ],
)
def test_sentences_fit_the_figures(changes: dict[str, Any], sentence: str) -> None:
    assert sentence in " ".join(describe_pilot(FACTS | changes))
