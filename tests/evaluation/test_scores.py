"""Checks of the arrays, values with their intervals, and areas under curves."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtri
from scipy.stats import binomtest, norm, t
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
    effective_trials,
    make_case,
    proportion_score,
    student_quantile,
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


# Groups of rows


@pytest.mark.parametrize("freedom", [2, 3, 5, 10, 100])
def test_students_quantile_is_near_scipys(freedom: int) -> None:
    assert student_quantile(freedom) == pytest.approx(t.ppf(0.975, freedom), rel=0.03 if freedom == 2 else 0.01)


def test_effective_trials_of_equal_and_of_alike_rows() -> None:
    ones = np.ones(400, dtype=np.int64)
    alternating = np.arange(400) % 2
    # Each group holds both kinds alike: all trials count. Each group is of one kind: about the groups count.
    assert effective_trials(alternating, ones, np.arange(400) // 4) == 400
    whole = (np.arange(400) // 4) % 2
    assert effective_trials(whole, ones, np.arange(400) // 4) == pytest.approx(99 * (1.96 / 1.984) ** 2, rel=0.01)
    assert effective_trials(ones, ones, np.arange(400) // 4) == 100
    assert effective_trials(alternating, ones, np.zeros(400)) == 1


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 30), st.integers(2, 60))
def test_scores_of_groups_keep_their_values_and_widen_their_intervals(seed: int, users: int, rows: int) -> None:
    random = np.random.default_rng(seed)
    groups = random.integers(0, users, rows)
    for shape in ((rows,), (rows, 3)):
        labels, predicted = random.integers(0, 2, shape), random.integers(0, 2, shape)
        probabilities = np.full((rows, 3), 1 / 3)
        plain, grouped = (score(labels, probabilities, ["a", "b", "c"], predicted, ids) for ids in (None, groups))
        assert (plain["groups"], grouped["groups"]) == (None, len(set(groups.tolist())))
        entries = [(plain["overall"], grouped["overall"]), *zip(plain["per_class"], grouped["per_class"], strict=True)]
        for one, other in entries:
            for name in one.keys() & {"accuracy", "precision", "recall", "f1", "f1_micro", "recall_micro"}:
                assert one[name]["value"] == other[name]["value"]
                if one[name]["low"] is not None:
                    assert other[name]["low"] <= one[name]["low"] + 1e-9
                    assert other[name]["high"] >= one[name]["high"] - 1e-9


def test_interval_of_accuracy_covers_that_of_other_users() -> None:
    random, covered, trials = np.random.default_rng(0), {"rows": 0, "groups": 0}, 400
    truth = norm.cdf(0.7 / np.sqrt(2))
    groups = np.repeat(np.arange(12), 20)
    for _ in range(trials):
        right = 0.7 + random.normal(size=240) + random.normal(size=12)[groups] > 0
        for name, ids in (("rows", None), ("groups", groups)):
            found = score(np.ones(240, dtype=int), np.full((240, 2), 0.5), ["a", "b"], right.astype(int), ids)
            accuracy = found["overall"]["accuracy"]
            covered[name] += accuracy["low"] <= truth <= accuracy["high"]
    assert covered["groups"] / trials > 0.92
    assert covered["rows"] / trials < 0.7
