"""Recall per class: its interval against Wilson's and over worlds whose recall is known; the curve by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fullbake.evaluation.significance import THRESHOLDS, class_recalls, threshold_curve


def test_one_seed_gets_wilsons_interval() -> None:
    labels = np.array([0] * 30 + [1] * 10)
    predictions = np.where(np.arange(40) % 7 == 0, 1 - labels, labels)
    for place, found in enumerate(class_recalls(predictions[None], labels, ["no", "yes"])):
        hits = int((predictions[labels == place] == place).sum())
        expected = stats.binomtest(hits, found["support"]).proportion_ci(method="wilson")
        assert (found["mean"], found["low"], found["high"]) == pytest.approx(
            (hits / found["support"], expected.low, expected.high)
        )


def test_a_class_found_whole_by_every_seed_keeps_its_doubt() -> None:
    labels = np.array([0, 1, 1, 1, 1, 1])
    found = class_recalls(np.stack([labels] * 3), labels, ["no", "yes"])[1]
    assert (found["mean"], found["high"]) == (1, 1)
    assert found["low"] == pytest.approx(stats.binomtest(5, 5).proportion_ci(method="wilson").low)


def test_a_class_without_rows_has_a_reason_in_place_of_numbers() -> None:
    found = class_recalls(np.zeros((2, 4), dtype=int), np.zeros(4, dtype=int), ["no", "yes"])[1]
    assert (found["support"], found["mean"], found["low"], found["high"]) == (0, None, None, None)
    assert found["reason"] == "no test row is labelled 'yes'"


def test_many_labels_are_classes_of_their_own() -> None:
    random = np.random.default_rng(0)
    held = (random.random((50, 3)) < 0.4).astype(int)
    predictions = (random.random((2, 50, 3)) < 0.5).astype(int)
    for place, found in enumerate(class_recalls(predictions, held, ["a", "b", "c"])):
        alone = class_recalls(predictions[:, :, place], held[:, place], ["no", "yes"])[1]
        assert {**alone, "label": "abc"[place]} == found


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 30))
def test_intervals_hold_the_mean_and_stay_shares(seed: int, seeds: int, rows: int) -> None:
    random = np.random.default_rng(seed)
    labels, predictions = random.integers(0, 3, rows), random.integers(0, 3, (seeds, rows))
    for found in class_recalls(predictions, labels, ["a", "b", "c"]):
        if found["support"]:
            assert 0 <= found["low"] <= found["mean"] <= found["high"] <= 1


@pytest.mark.parametrize("luck", [0.0, 0.3])
def test_intervals_hold_the_recall_of_other_rows_and_seeds(luck: float) -> None:
    """Margins with effects of rows, seeds and both; the true recall is that of infinitely many of them."""
    random, worlds, covered = np.random.default_rng(0), 1500, 0
    truth = stats.norm.cdf(1 / np.sqrt(1 + luck**2 + 0.3**2))
    labels = np.ones(80, dtype=int)
    for _ in range(worlds):
        margin = random.normal(1, 1, 80) + random.normal(0, luck, (3, 1)) + random.normal(0, 0.3, (3, 80))
        found = class_recalls((margin > 0).astype(int), labels, ["no", "yes"])[1]
        covered += found["low"] <= truth <= found["high"]
    assert covered / worlds > 0.935


def test_the_curve_by_hand() -> None:
    chances = np.array([[0.9, 0.6, 0.4, 0.1], [0.9, 0.2, 0.95, 0.1]])
    curve = threshold_curve(chances, np.array([1, 1, 0, 0]), "toxic")
    at = {name: dict(zip(THRESHOLDS, curve[name], strict=True)) for name in ("recall", "precision", "specificity")}
    assert (at["recall"][0.0], at["precision"][0.0], at["specificity"][0.0]) == (1, 0.5, 0)
    assert (at["recall"][0.5], at["specificity"][0.5]) == (0.75, 0.75)
    assert at["precision"][0.5] == pytest.approx((1 + 1 / 2) / 2)
    assert (at["recall"][0.93], at["precision"][0.93]) == (0, 0)  # the first seed has nothing there
    assert (at["recall"][1.0], at["precision"][1.0], at["specificity"][1.0]) == (0, None, 1)
    assert curve["reason"] is None


def test_a_curve_of_a_class_without_rows_says_so() -> None:
    curve = threshold_curve(np.array([[0.5, 0.2]]), np.array([0, 0]), "toxic")
    assert set(curve["recall"]) == {None}
    assert curve["reason"] == "no test row is labelled 'toxic'"


@given(st.integers(0, 10**6))
def test_a_higher_threshold_never_finds_more(seed: int) -> None:
    random = np.random.default_rng(seed)
    curve = threshold_curve(random.random((2, 20)), np.arange(20) % 3 == 0, "toxic")
    assert curve["recall"] == sorted(curve["recall"], reverse=True)
    assert curve["specificity"] == sorted(curve["specificity"])
