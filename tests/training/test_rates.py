"""The rule for the learning rate, the size of its probe, and what the probe decides."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fullbake.config.sections import TrainingConfig
from fullbake.training.rates import (
    FEWEST_PROBE_STEPS,
    HIGHEST_RATE,
    RATE_PROBE_SHARE,
    RateProbe,
    best_rate,
    epochs_for,
    rule_rate,
)


@pytest.mark.parametrize(("width", "rate"), [(1024, 5e-5), (768, 5e-5), (384, 2e-4), (256, 3e-4), (128, 3e-4)])
def test_rule_by_width(width: int, rate: float) -> None:
    assert rule_rate(width) == pytest.approx(rate)


@given(st.integers(16, 4096), st.integers(16, 4096))
def test_a_wider_base_never_gets_a_higher_rate(one: int, other: int) -> None:
    narrow, wide = sorted((one, other))
    assert HIGHEST_RATE >= rule_rate(narrow) >= rule_rate(wide) >= 5e-5


@given(st.integers(1, 100_000))
def test_a_probe_stays_within_a_quarter_of_a_training(steps: int) -> None:
    probe = RateProbe(2e-4, 384, 32, steps)
    rounds = probe.rounds
    spent = sum(steps * rates for steps, rates in zip(rounds, (4, 2), strict=False))
    assert spent <= RATE_PROBE_SHARE * steps
    assert all(number >= FEWEST_PROBE_STEPS for number in rounds)
    assert bool(rounds) == (steps >= 480)


def losses(mean: float, spread: float) -> np.ndarray:
    return mean + spread * np.random.default_rng(0).normal(size=400)


def test_a_rate_has_to_be_better_by_one_standard_error() -> None:
    noise = np.random.default_rng(1).normal(size=400)
    noise -= noise.mean()
    rule = losses(0.5, 0.1)
    assert best_rate({1e-4: rule - 0.02 + 0.1 * noise, 2e-4: rule}, 2e-4) == 1e-4  # the error is 0.005
    assert best_rate({1e-4: rule - 0.002 + 0.1 * noise, 2e-4: rule}, 2e-4) == 2e-4
    assert best_rate({1e-4: rule + 0.1, 2e-4: rule}, 2e-4) == 2e-4


def test_without_the_rules_rate_the_best_is_taken() -> None:
    assert best_rate({1e-4: np.array([0.2]), 4e-4: np.array([0.1])}, 2e-4) == 4e-4


def test_one_validation_row_never_changes_the_rate() -> None:
    assert best_rate({1e-4: np.array([0.1]), 2e-4: np.array([0.9])}, 2e-4) == 2e-4


@pytest.mark.parametrize(
    ("epochs", "min_steps", "rows", "expected"),
    [(3, 0, 600, 3), (3, 150, 600, 8), (3, 150, 10_000, 3), (3, 150, 20, 150), (5, 150, 6400, 5)],
)
def test_epochs_for(epochs: int, min_steps: int, rows: int, expected: int) -> None:
    training = TrainingConfig(epochs=epochs, min_steps=min_steps, batch_size=16, gradient_accumulation=2)
    assert epochs_for(training, rows) == expected
