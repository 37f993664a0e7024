"""A second scoring is compared with the first row by row, and a promise is kept only where its interval keeps it."""

from dataclasses import replace

import numpy as np
import pytest

from fullbake.config.problems import MULTI_LABEL, SINGLE_LABEL, problem_named
from fullbake.evaluation.fidelity import (
    Fidelity,
    FidelityPromise,
    ScoredRows,
    compare_scorings,
    find_shortfalls,
)

SINGLE, MULTI = problem_named(SINGLE_LABEL), problem_named(MULTI_LABEL)


def scored(logits: np.ndarray) -> ScoredRows:
    probabilities = SINGLE.probabilities(logits)
    return ScoredRows(probabilities, SINGLE.decide(probabilities))


def rows(count: int, wrong: int = 0, right: int = 0) -> tuple[ScoredRows, ScoredRows, np.ndarray]:
    """Rows of two classes. The first scoring is right but on `right` rows; the second is wrong on `wrong` rows."""
    labels = np.arange(count) % 2
    logits = np.where(np.eye(2)[labels] == 1, 2.0, -2.0)
    first, second = logits.copy(), logits * 0.99
    second[:wrong] *= -1
    first[wrong : wrong + right] *= -1
    return scored(first), scored(second), labels


def test_equal_labels_and_differences_of_probabilities_are_counted() -> None:
    first, second, labels = rows(1000, wrong=3, right=2)
    found = compare_scorings(first, second, labels, "accuracy")
    assert found.rows == 1000
    assert found.equal_labels["value"] == pytest.approx(0.995)
    assert found.equal_labels["low"] < 0.995 < found.equal_labels["high"]
    assert found.probabilities_apart["largest"] == pytest.approx(0.96, abs=0.01)
    assert found.probabilities_apart["median"] < 0.002
    assert found.metric["original"] == pytest.approx(0.998)
    assert found.metric["other"] == pytest.approx(0.997)
    assert found.metric["difference"] == pytest.approx(-0.001)
    # of five rows that differ, the paired interval is far narrower than that of two independent scores
    assert found.metric["low"] == pytest.approx(-0.001 - 1.96 * np.sqrt(5 / 1000 - 1e-6) / np.sqrt(1000), abs=2e-4)


def test_a_worse_metric_is_refused_whatever_the_number_of_rows() -> None:
    found = compare_scorings(*rows(20_000, wrong=200), "accuracy")
    (shortfall,) = find_shortfalls(found, FidelityPromise())
    assert "accuracy changes by -0.0100" in shortfall.sentence
    assert shortfall.rows_needed is None
    assert not find_shortfalls(found, FidelityPromise(tolerance=0.02))


def test_few_rows_without_a_fault_are_not_enough_and_the_number_is_given() -> None:
    """The number that is given does: as many rows with the same shares keep the promise."""
    found = compare_scorings(*rows(300, wrong=2, right=2), "accuracy")
    metric, labels = find_shortfalls(found, FidelityPromise())
    assert metric.rows_needed is not None
    assert 500 < metric.rows_needed < 5000
    times = -(-metric.rows_needed // 300)
    assert not find_shortfalls(
        compare_scorings(*rows(300 * times, 2 * times, 2 * times), "accuracy"), FidelityPromise()
    )
    assert labels.rows_needed is not None
    assert 1000 < labels.rows_needed < 2500


def test_where_no_label_differs_the_rows_must_still_be_many() -> None:
    few, many = (compare_scorings(*rows(count), "f1_macro") for count in (300, 800))
    (shortfall,) = find_shortfalls(few, FidelityPromise())
    assert shortfall.rows_needed == pytest.approx(740, abs=20)
    assert find_shortfalls(many, FidelityPromise()) == []
    assert -0.005 < many.metric["low"] < 0 == many.metric["difference"]


def test_too_few_equal_labels_are_refused() -> None:
    found = compare_scorings(*rows(5000, wrong=75, right=75), "accuracy")
    (shortfall,) = find_shortfalls(found, FidelityPromise())
    assert shortfall.sentence.startswith("97.00% of the labels are equal")
    assert shortfall.rows_needed is None


def test_number_of_rows_for_equal_labels_does() -> None:
    found = compare_scorings(*rows(300, wrong=1, right=1), "accuracy")
    needed = find_shortfalls(found, FidelityPromise(tolerance=0.1))[0].rows_needed
    assert needed is not None
    times = -(-needed // 300)
    assert not find_shortfalls(
        compare_scorings(*rows(300 * times, times, times), "accuracy"), FidelityPromise(tolerance=0.1)
    )


def test_groups_count_in_place_of_rows() -> None:
    first, second, labels = rows(1000, wrong=10)
    alone = compare_scorings(first, second, labels, "accuracy")
    together = compare_scorings(first, second, labels, "accuracy", np.arange(1000) // 10)
    assert together.groups == 100
    assert together.metric["low"] < alone.metric["low"]
    assert together.equal_labels["low"] < alone.equal_labels["low"]


def test_a_row_of_many_labels_is_equal_where_all_of_them_are() -> None:
    logits = np.random.default_rng(0).normal(scale=3, size=(400, 3))
    first = MULTI.probabilities(logits)
    other = logits.copy()
    other[:10, 0] *= -1
    second = MULTI.probabilities(other)
    found = compare_scorings(
        ScoredRows(first, MULTI.decide(first)),
        ScoredRows(second, MULTI.decide(second)),
        MULTI.decide(first),
        "f1_macro",
    )
    assert found.equal_labels["value"] == pytest.approx(390 / 400)
    assert found.metric["difference"] < 0


def test_a_metric_of_probabilities_has_an_interval() -> None:
    first, second, labels = rows(600)
    second = replace(second, probabilities=np.abs(second.probabilities - 0.01))
    found = compare_scorings(first, second, labels, "neg_log_loss")
    assert found.metric["low"] <= found.metric["difference"] <= found.metric["high"]


def test_json_holds_every_field() -> None:
    found: Fidelity = compare_scorings(*rows(50, wrong=1), "accuracy")
    assert found.to_json().keys() == {"rows", "groups", "equal_labels", "probabilities_apart", "metric"}
