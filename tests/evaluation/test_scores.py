"""Checks of the arrays, values with their intervals, and areas under curves."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtri
from scipy.stats import binomtest, norm
from sklearn.metrics import average_precision_score, roc_auc_score

from fullbake.core.errors import DataError, DivergenceFault
from fullbake.evaluation.metrics import score
from fullbake.evaluation.scores import (
    CONFIDENCE,
    NORMAL_QUANTILE,
    Case,
    UndefinedScoreError,
    area_under_roc,
    average_precision_of,
    compute_score,
    make_case,
    proportion_score,
)


def test_undefined_score_is_null_with_its_reason() -> None:
    def undefined(_: Case) -> float:
        raise UndefinedScoreError("one class only")

    case = make_case(np.array([0, 1, 1]), np.full((3, 2), 0.5), ["a", "b"])
    assert compute_score(undefined, case) == {"value": None, "low": None, "high": None, "reason": "one class only"}
    assert compute_score(lambda _: 3.0, case) == {"value": 3.0, "low": None, "high": None, "reason": None}


@pytest.mark.parametrize(("hits", "of"), [(0, 7), (5, 7), (7, 7), (812, 1000)])
def test_share_has_wilsons_interval(hits: int, of: int) -> None:
    """Against the formula of Wilson 1927, written out."""
    found, z, rate = proportion_score(hits, of, "nothing"), norm.ppf(0.975), hits / of
    middle = (rate + z**2 / (2 * of)) / (1 + z**2 / of)
    half = z / (1 + z**2 / of) * (rate * (1 - rate) / of + z**2 / (4 * of**2)) ** 0.5
    assert found["value"] == pytest.approx(rate)
    assert found["low"] == pytest.approx(middle - half, abs=1e-12)
    assert found["high"] == pytest.approx(middle + half, abs=1e-12)


@given(st.integers(1, 10**6), st.data())
def test_interval_equals_scipys_to_the_last_bit(trials: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, trials))
    found = proportion_score(hits, trials, "")
    theirs = binomtest(hits, trials).proportion_ci(CONFIDENCE, method="wilson")
    assert (found["low"], found["high"]) == (min(theirs.low, hits / trials), max(theirs.high, hits / trials))


def test_quantile_of_the_interval_is_scipys() -> None:
    assert ndtri((1 + CONFIDENCE) / 2) == NORMAL_QUANTILE


RANKED = st.lists(st.tuples(st.booleans(), st.integers(0, 8)), min_size=2, max_size=60)


@settings(max_examples=200, deadline=None)
@given(RANKED, st.sampled_from([1.0, 3.0, 7.0]))
def test_areas_equal_scikit_learns_to_the_last_bit(rows: list[tuple[bool, int]], unit: float) -> None:
    positive = np.array([held for held, _ in rows])
    positive[:2] = (True, False)
    values = np.array([number for _, number in rows]) / unit  # with many ties
    assert area_under_roc(positive, values) == roc_auc_score(positive, values)
    assert average_precision_of(positive, values) == average_precision_score(positive, values)


def test_areas_of_many_rows_equal_scikit_learns_to_the_last_bit() -> None:
    random = np.random.default_rng(0)
    positive, values = random.random(20_000) < 0.1, random.random(20_000).round(3)
    assert area_under_roc(positive, values) == roc_auc_score(positive, values)
    assert average_precision_of(positive, values) == average_precision_score(positive, values)


@pytest.mark.parametrize(
    ("labels", "probabilities", "message"),
    [
        ([], np.zeros((0, 2)), "at least one row"),
        ([0, 1], np.full((3, 2), 0.5), r"shape \(2, 2\)"),
        ([0, 2], np.full((2, 2), 0.5), "labels from 0 to 1"),
        ([0, -1], np.full((2, 2), 0.5), "labels from 0 to 1"),
        ([0.0, 1.0], np.full((2, 2), 0.5), "2 whole numbers"),
        ([0, 1], np.array([[3.0, -2.0], [0.5, 0.5]]), "from -2 to 3"),
        ([0, 1], np.full((2, 2), 0.9), "sum to 1"),
        ([[0, 2], [0, 1]], np.full((2, 2), 0.5), "labels of 0 and 1"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(labels: list[float], probabilities: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        score(np.array(labels), probabilities, ["a", "b"])


def test_probabilities_that_are_not_finite_are_a_divergence() -> None:
    with pytest.raises(DivergenceFault, match="row 1 of the scores"):
        score(np.array([0, 1]), np.array([[0.5, 0.5], [np.nan, 0.5]]), ["a", "b"])
