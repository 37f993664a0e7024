"""The temperature finds how extreme probabilities are; reliability equals a plain loop."""

from dataclasses import replace

import numpy as np
import pytest

from fullbake.config.problems import MULTI_LABEL, SINGLE_LABEL, problem_named, problem_of
from fullbake.evaluation.bootstrap import resample
from fullbake.evaluation.calibration import fit_temperature, match_temperature, reliability, score_decision
from fullbake.evaluation.decisions import Decision
from fullbake.evaluation.significance import estimate

RANDOM = np.random.default_rng(0)


def drawn(rows: int, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose softmax is the true probability of each class, and classes drawn by it."""
    logits = RANDOM.normal(scale=2, size=(rows, classes))
    probabilities = problem_named(SINGLE_LABEL).probabilities(logits)
    labels = np.array([RANDOM.choice(classes, p=row) for row in probabilities])
    return logits, labels


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_temperature_is_the_factor_by_which_logits_were_scaled(factor: float) -> None:
    logits, labels = drawn(4000)
    assert fit_temperature(logits * factor, labels) == pytest.approx(factor, rel=0.08)


def test_many_labels_share_one_temperature() -> None:
    logits = RANDOM.normal(scale=2, size=(4000, 4))
    labels = (RANDOM.random((4000, 4)) < problem_named(MULTI_LABEL).probabilities(logits)).astype(np.uint8)
    assert fit_temperature(logits * 2, labels) == pytest.approx(2, rel=0.08)


@pytest.mark.parametrize("kind", [SINGLE_LABEL, MULTI_LABEL])
def test_temperature_is_found_from_the_probabilities_that_it_should_give(kind: str) -> None:
    problem, logits = problem_named(kind), RANDOM.normal(scale=2, size=(50, 3))
    assert match_temperature(logits * 1.07, problem.probabilities(logits), problem) == pytest.approx(1.07, rel=1e-3)


def test_matched_temperature_varies_less_than_one_that_is_fitted_to_labels() -> None:
    """Two scorings of the same rows have most of their errors in common."""
    problem, matched, fitted = problem_named(SINGLE_LABEL), [], []
    for _ in range(10):
        logits, labels = drawn(300)
        other = logits + RANDOM.normal(scale=0.05, size=logits.shape)
        matched.append(match_temperature(other, problem.probabilities(logits), problem))
        fitted.append(fit_temperature(other, labels))
    assert np.std(matched) < 0.2 * np.std(fitted)


def test_few_rows_without_an_error_do_not_drive_the_temperature_to_0() -> None:
    logits = np.eye(2)[[0, 1] * 5] * 4
    assert 0.3 < fit_temperature(logits, np.array([0, 1] * 5)) < 1


def test_temperature_lowers_the_calibration_error() -> None:
    logits, labels = drawn(3000)
    extreme = logits * 3
    temperature = fit_temperature(extreme, labels)
    before, after = (
        reliability(problem_named(SINGLE_LABEL).probabilities(z), labels) for z in (extreme, extreme / temperature)
    )
    assert after["ece"] < 0.5 * before["ece"]
    assert after["brier"] < before["brier"]


def test_reliability_equals_a_plain_loop() -> None:
    logits, labels = drawn(500)
    probabilities = problem_named(SINGLE_LABEL).probabilities(logits)
    found, error = reliability(probabilities, labels, bins=10), 0.0
    top = probabilities.max(axis=1)
    for number in range(10):
        inside = (top >= number / 10) & ((top < (number + 1) / 10) | (number == 9))
        if inside.any():
            right = (probabilities.argmax(axis=1) == labels)[inside]
            error += inside.mean() * abs(right.mean() - top[inside].mean())
    assert found["ece"] == pytest.approx(error)
    assert sum(entry["count"] for entry in found["bins"]) == 500
    onehot = np.eye(3)[labels]
    assert found["brier"] == pytest.approx(((probabilities - onehot) ** 2).sum(axis=1).mean())


def test_every_label_of_every_row_counts_where_a_row_may_have_many() -> None:
    probabilities = np.array([[0.9, 0.1], [0.9, 0.2]])
    found = reliability(probabilities, np.array([[1, 0], [1, 0]]), bins=10)
    assert sum(entry["count"] for entry in found["bins"]) == 4
    assert found["ece"] == pytest.approx((0.2 + 0.1 + 0.2) / 4)


@pytest.mark.parametrize("groups", [None, np.repeat(np.arange(40), 3)])
def test_macro_f1_has_the_interval_of_one_seed(groups: np.ndarray | None) -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 120)
    logits = random.normal(size=(120, 3)) + 2 * np.eye(3)[labels]
    decision = Decision(problem_of(labels), ("a", "b", "c"))
    figure = score_decision(labels, logits, decision, groups)["overall"]["f1_macro"]
    draws = resample(logits.argmax(axis=1)[None], labels, "f1_macro", groups=groups, draws=1_000)
    known = estimate(replace(draws, depends_on_seed=False))
    assert known.low is not None
    assert known.high is not None
    np.testing.assert_allclose((figure["low"], figure["high"]), (known.low, known.high), atol=1e-3)
    assert figure["low"] < figure["value"] < figure["high"]


def test_macro_f1_of_rows_that_are_all_right_has_no_interval() -> None:
    labels = np.array([0, 1] * 10)
    figure = score_decision(labels, 9 * np.eye(2)[labels], Decision(problem_of(labels), ("a", "b")))["overall"][
        "f1_macro"
    ]
    assert (figure["value"], figure["low"], figure["high"]) == (1.0, None, None)
