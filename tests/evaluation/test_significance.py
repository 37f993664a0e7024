"""Differences, intervals and p-values: against scipy, the plain bootstrap, and simulated data without a difference.

Also recall per class and its curve, and the ranking of disagreements.
"""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fullbake.core.errors import DataError
from fullbake.evaluation.bootstrap import DRAWS, BootstrapScores, resample
from fullbake.evaluation.significance import (
    NOTHING_VARIES,
    THRESHOLDS,
    Difference,
    SeedEstimate,
    StandardError,
    Variance,
    class_recalls,
    contrast,
    estimate,
    holm,
    mcnemar,
    median_seed,
    predict_power,
    rank_disagreements,
    rows_needed,
    threshold_curve,
)


def simulate(
    random: np.random.Generator, rows: int, *, row: float = 0.0, seed: float = 0.0, noise: float = 0.3
) -> tuple:
    """Labels, and predictions (3 seeds, rows) of two equally good recipes: the signs of margins.

    The standard deviations of the margin's parts: row is what a recipe changes at single rows in all its seeds, seed is
    what a seed changes at all rows, noise is what a seed changes at single rows. A further part is shared by all.
    """
    shared = random.normal(1, 1, rows)
    sides = []
    for _ in range(2):
        own = shared + random.normal(0, row, rows) + random.normal(0, seed, (3, 1))
        sides.append((own + random.normal(0, noise, (3, rows)) > 0).astype(np.int64))
    return np.ones(rows, dtype=np.int64), *sides


def compared(a: np.ndarray, b: np.ndarray, labels: np.ndarray, metric: str, draws: int = DRAWS) -> Difference:
    """The difference of two recipes from their predictions, (seeds, rows) each."""
    return contrast(resample(a, labels, metric, draws=draws), resample(b, labels, metric, draws=draws))


def test_where_only_seeds_matter_the_test_is_welchs() -> None:
    random = np.random.default_rng(0)
    a, b = random.normal(0.8, 0.02, 4), random.normal(0.75, 0.01, 3)
    still = [BootstrapScores(points, np.tile(points, (50, 1)), 100) for points in (a, b)]
    seen, expected = contrast(*still), stats.ttest_ind(a, b, equal_var=False)
    assert seen.p == pytest.approx(expected.pvalue)
    interval = expected.confidence_interval()
    assert (seen.low, seen.high) == pytest.approx((interval.low, interval.high))


def test_where_only_rows_matter_the_test_is_the_paired_test_of_the_mean() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 400)
    a, b = (np.where(random.random(400) < share, labels, 1 - labels) for share in (0.85, 0.8))
    seen = compared(np.stack([a] * 3), np.stack([b] * 3), labels, "accuracy", draws=20_000)
    gained = (a == labels).astype(float) - (b == labels)
    assert seen.difference == pytest.approx(gained.mean())
    assert seen.p == pytest.approx(2 * stats.norm.sf(abs(gained.mean()) / (gained.std() / 20)), rel=0.1)


def test_variance_is_that_of_the_plain_bootstrap_corrected_for_its_two_errors() -> None:
    """Rows and seeds drawn with replacement make s^2 too small by (n - 1) / n, and count noise at single rows twice."""
    random = np.random.default_rng(1)
    labels, a, b = simulate(random, 300, row=0.5, seed=0.2)
    sides = [resample(side, labels, "accuracy", draws=40_000) for side in (a, b)]
    drawn = []
    for side in sides:
        chosen = random.integers(0, 3, side.draws.shape)
        drawn.append(np.take_along_axis(side.draws, chosen, axis=1).mean(axis=1))
    variance = contrast(*sides).variance
    extra = sum(noise * 3 for noise in variance.noise)
    plain = variance.shared + sum(variance.noise) + (2 / 3) * (sum(variance.spread) + extra / 3)
    assert np.var(drawn[0] - drawn[1]) == pytest.approx(plain, rel=0.03)


@pytest.mark.slow
@pytest.mark.parametrize(
    "effects",
    [{}, {"seed": 0.03}, {"seed": 0.2}, {"row": 0.4}, {"row": 0.4, "seed": 0.15}],
    ids=lambda effects: "-".join(effects) or "noise",
)
def test_false_alarms_are_rare_where_there_is_no_difference(effects: dict[str, float]) -> None:
    random, trials = np.random.default_rng(0), 600
    alarms = 0
    for _ in range(trials):
        labels, a, b = simulate(random, 200, **effects)
        alarms += compared(a, b, labels, "accuracy", draws=200).p < 0.05
    # 44 of 600 would be exceeded once in 200 by a test at exactly 5%.
    assert alarms <= stats.binom.ppf(0.995, trials, 0.05)


def test_spread_of_three_seeds_hides_a_difference_that_rows_alone_would_show() -> None:
    labels = np.ones(1000, dtype=np.int64)
    a = np.stack([np.arange(1000) < count for count in (900, 860, 880)]).astype(int)
    b = np.stack([np.arange(1000) < count for count in (870, 850, 810)]).astype(int)
    rows_only = compared(a[2:], b[1:2], labels, "accuracy")
    assert rows_only.p < 0.001
    assert compared(a, b, labels, "accuracy").p > 0.05


def test_equal_recipes_do_not_differ_and_swapping_sides_changes_only_the_sign() -> None:
    random = np.random.default_rng(0)
    labels, a, b = simulate(random, 100, row=0.5)
    same = compared(a, a, labels, "f1_macro", draws=100)
    assert (same.difference, same.p) == (0, 1)
    one, other = (compared(*pair, labels, "f1_macro", draws=100) for pair in ((a, b), (b, a)))
    assert (one.difference, one.low, one.high) == pytest.approx((-other.difference, -other.high, -other.low))
    assert one.p == pytest.approx(other.p)


def test_identical_models_have_p_1() -> None:
    labels = np.zeros(20, dtype=int)
    right = np.zeros((3, 20), dtype=int)
    assert compared(right, right, labels, "accuracy", draws=50).p == 1


def test_seeds_that_tie_on_few_rows_do_not_make_a_difference_significant() -> None:
    labels = np.ones(20, dtype=int)
    a, b = np.ones((3, 20), dtype=int), np.ones((3, 20), dtype=int)
    for seed in range(3):
        a[seed, seed : seed + 2], b[seed, 5 + 3 * seed : 8 + 3 * seed] = 0, 0
    seen = compared(a, b, labels, "accuracy")
    assert np.ptp((a == labels).mean(axis=1)) == 0
    assert seen.p > 0.05
    assert min(seen.variance.spread) > 0


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(1, 4))
def test_interval_and_p_value_agree(seed: int, a_seeds: int, b_seeds: int) -> None:
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, 40)
    a, b = (
        np.where(random.random((n, 40)) < share, labels, 1 - labels) for n, share in ((a_seeds, 0.9), (b_seeds, 0.7))
    )
    seen = compared(a, b, labels, "accuracy", draws=60)
    assert 0 <= seen.p <= 1
    assert seen.low <= seen.difference <= seen.high
    assert (seen.p < 0.05) == (not seen.low <= 0 <= seen.high)


def test_scores_with_other_numbers_of_draws_are_refused() -> None:
    labels = np.zeros(10, dtype=int)
    a, b = (resample(labels[None], labels, "accuracy", draws=draws) for draws in (5, 6))
    with pytest.raises(DataError, match="the same test rows and the same number of draws"):
        contrast(a, b)


def test_interval_of_an_estimate_ends_at_the_limit_of_the_metric() -> None:
    points = np.array([0.99, 1.0, 0.9])
    found = estimate(BootstrapScores(points, np.tile(points, (9, 1)), 100), least=0, most=1)
    assert (found.mean, found.high) == (pytest.approx(points.mean()), 1)
    reach = stats.t.isf(0.025, 2) * points.std(ddof=1) / np.sqrt(3)
    assert found.low == pytest.approx(points.mean() - reach)


# Holm and McNemar


@pytest.mark.parametrize(
    ("given_p", "expected"),
    [
        ([], []),
        ([0.03], [0.03]),
        ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]),
        ([0.04, 0.01, 0.03, 0.005], [0.06, 0.03, 0.06, 0.02]),  # 0.005 * 4, 0.01 * 3, 0.03 * 2, then no less
        ([0.5, 0.9, 0.4], [1, 1, 1]),
        ([0.02, 0.02], [0.04, 0.04]),
    ],
)
def test_holm_equals_values_by_hand(given_p: list[float], expected: list[float]) -> None:
    assert holm(given_p) == pytest.approx(expected)


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_keeps_the_order_and_is_at_most_bonferroni(values: list[float]) -> None:
    adjusted = holm(values)
    assert [adjusted[i] for i in np.argsort(values, kind="stable")] == sorted(adjusted)
    for p, after in zip(values, adjusted, strict=True):
        assert p <= after <= min(1, p * len(values)) or after == pytest.approx(min(1, p * len(values)))


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=60))
def test_mcnemar_is_the_binomial_test_of_rows_that_only_one_model_got_right(rows: list[tuple[bool, bool]]) -> None:
    a, b = np.array(rows, dtype=bool).reshape(-1, 2).T
    only_a, only_b = int((a & ~b).sum()), int((~a & b).sum())
    expected = stats.binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    assert mcnemar(a, b) == pytest.approx(expected)
    assert mcnemar(b, a) == pytest.approx(expected)


def test_mcnemar_equals_a_value_by_hand() -> None:
    a = np.array([1] * 6 + [0] + [1] * 9)
    b = np.array([0] * 6 + [1] + [1] * 9)
    assert mcnemar(a, b) == pytest.approx(2 * (1 + 7) / 2**7)


@pytest.mark.parametrize(("points", "expected"), [([0.5], 0), ([0.3, 0.9, 0.5], 2), ([0.2, 0.4], 0)])
def test_median_seed_is_the_one_nearest_the_median(points: list[float], expected: int) -> None:
    assert median_seed(np.array(points)) == expected


# Rows needed


def observed(difference: float, variance: Variance, rows: int = 500) -> Difference:
    return Difference(difference, -1, 1, 0.5, variance, rows)


def own_estimates(spread: float) -> tuple[SeedEstimate, SeedEstimate]:
    """What three seeds of each side tell of their own side."""
    return SeedEstimate((spread, 0.0), 2), SeedEstimate((0.0, spread), 2)


def test_rows_needed_follow_the_textbook_where_only_rows_matter() -> None:
    only_rows = Variance(shared=0.0004, estimates=(), noise=(0.0, 0.0))
    wanted = (stats.norm.isf(0.025) + stats.norm.isf(0.2)) ** 2 * 0.0004 * 500 / 0.02**2
    assert rows_needed(observed(0.02, only_rows)) == pytest.approx(wanted, abs=1)
    assert rows_needed(observed(-0.02, only_rows)) == rows_needed(observed(0.02, only_rows))
    assert rows_needed(observed(0.02, only_rows), pairs=10) > wanted


def test_no_number_of_rows_is_given_where_seeds_vary_more_than_the_difference() -> None:
    wide = Variance(0.0001, own_estimates(0.0004), noise=(0.00001, 0.00001))
    assert rows_needed(observed(0.02, wide)) is None
    assert rows_needed(observed(0.0, wide)) is None
    assert rows_needed(observed(0.2, wide)) is not None


def test_power_equals_that_of_simulated_t_tests() -> None:
    noise = Variance(0.0, own_estimates(0.01 / 3), noise=(0.01 / 3, 0.01 / 3))
    random = np.random.default_rng(0)
    a, b = random.normal(0.3, 0.1, (20_000, 3)), random.normal(0, 0.1, (20_000, 3))
    found = stats.ttest_ind(a, b, axis=1)
    simulated = ((found.pvalue < 0.05) & (found.statistic > 0)).mean()
    assert predict_power(observed(0.3, noise)) == pytest.approx(simulated, abs=0.01)
    assert predict_power(observed(0.1, noise), size=0.3) == predict_power(observed(0.3, noise))
    assert predict_power(observed(0.3, noise), rows=5000) > 0.99


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6))
def test_rows_needed_are_enough_and_one_row_less_is_not(seed: int) -> None:
    random = np.random.default_rng(seed)
    labels, a, b = simulate(random, 60, row=0.4, seed=0.1)
    found = compared(a, b, labels, "accuracy", draws=60)
    needed = rows_needed(found)
    if needed is not None:
        assert predict_power(found, rows=needed) >= 0.8
        assert needed == 1 or predict_power(found, rows=needed - 1) < 0.8


def test_recall_of_one_seed_has_wilsons_interval() -> None:
    labels = np.array([0] * 30 + [1] * 10)
    predictions = np.where(np.arange(40) % 7 == 0, 1 - labels, labels)
    for place, found in enumerate(class_recalls(predictions[None], labels, ["no", "yes"])):
        hits = int((predictions[labels == place] == place).sum())
        expected = stats.binomtest(hits, found["support"]).proportion_ci(method="wilson")
        assert (found["mean"], found["low"], found["high"]) == pytest.approx(
            (hits / found["support"], expected.low, expected.high)
        )


def test_class_that_every_seed_finds_whole_still_has_a_width() -> None:
    labels = np.array([0, 1, 1, 1, 1, 1])
    found = class_recalls(np.stack([labels] * 3), labels, ["no", "yes"])[1]
    assert (found["mean"], found["high"]) == (1, 1)
    assert found["low"] == pytest.approx(stats.binomtest(5, 5).proportion_ci(method="wilson").low)


def test_class_without_rows_has_a_reason_instead_of_numbers() -> None:
    found = class_recalls(np.zeros((2, 4), dtype=int), np.zeros(4, dtype=int), ["no", "yes"])[1]
    assert (found["support"], found["mean"], found["low"], found["high"]) == (0, None, None, None)
    assert found["reason"] == "no test row is labeled 'yes'"


def test_each_of_many_labels_has_its_own_recall() -> None:
    random = np.random.default_rng(0)
    held = (random.random((50, 3)) < 0.4).astype(int)
    predictions = (random.random((2, 50, 3)) < 0.5).astype(int)
    for place, found in enumerate(class_recalls(predictions, held, ["a", "b", "c"])):
        alone = class_recalls(predictions[:, :, place], held[:, place], ["no", "yes"])[1]
        assert {**alone, "label": "abc"[place]} == found


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 30))
def test_recall_intervals_contain_the_mean_and_stay_within_0_and_1(seed: int, seeds: int, rows: int) -> None:
    random = np.random.default_rng(seed)
    labels, predictions = random.integers(0, 3, rows), random.integers(0, 3, (seeds, rows))
    for found in class_recalls(predictions, labels, ["a", "b", "c"]):
        if found["support"]:
            assert 0 <= found["low"] <= found["mean"] <= found["high"] <= 1


@pytest.mark.parametrize("spread", [0.0, 0.3])
def test_recall_intervals_contain_the_recall_of_other_rows_and_seeds(spread: float) -> None:
    """Margins with effects of rows, seeds and both; the true recall is that of infinitely many rows and seeds."""
    random, trials, covered = np.random.default_rng(0), 1500, 0
    truth = stats.norm.cdf(1 / np.sqrt(1 + spread**2 + 0.3**2))
    labels = np.ones(80, dtype=int)
    for _ in range(trials):
        margin = random.normal(1, 1, 80) + random.normal(0, spread, (3, 1)) + random.normal(0, 0.3, (3, 80))
        found = class_recalls((margin > 0).astype(int), labels, ["no", "yes"])[1]
        covered += found["low"] <= truth <= found["high"]
    assert covered / trials > 0.935


def test_threshold_curve_equals_values_by_hand() -> None:
    probabilities = np.array([[0.9, 0.6, 0.4, 0.1], [0.9, 0.2, 0.95, 0.1]])
    curve = threshold_curve(probabilities, np.array([1, 1, 0, 0]), "toxic")
    at = {name: dict(zip(THRESHOLDS, curve[name], strict=True)) for name in ("recall", "precision", "specificity")}
    assert (at["recall"][0.0], at["precision"][0.0], at["specificity"][0.0]) == (1, 0.5, 0)
    assert (at["recall"][0.5], at["specificity"][0.5]) == (0.75, 0.75)
    assert at["precision"][0.5] == pytest.approx((1 + 1 / 2) / 2)
    assert (at["recall"][0.93], at["precision"][0.93]) == (0, 0)  # the first seed predicts no row there
    assert (at["recall"][1.0], at["precision"][1.0], at["specificity"][1.0]) == (0, None, 1)
    assert curve["reason"] is None


def test_curve_of_a_class_without_rows_is_null_with_its_reason() -> None:
    curve = threshold_curve(np.array([[0.5, 0.2]]), np.array([0, 0]), "toxic")
    assert set(curve["recall"]) == {None}
    assert curve["reason"] == "no test row is labeled 'toxic'"


@given(st.integers(0, 10**6))
def test_higher_threshold_never_finds_more(seed: int) -> None:
    random = np.random.default_rng(seed)
    curve = threshold_curve(random.random((2, 20)), np.arange(20) % 3 == 0, "toxic")
    assert curve["recall"] == sorted(curve["recall"], reverse=True)
    assert curve["specificity"] == sorted(curve["specificity"])


def test_most_disputed_row_has_the_fewest_recipes_behind_its_most_common_answer() -> None:
    labels = np.array([0, 0, 0, 0, 0])
    predictions = {
        "a": np.array([0, 0, 0, 0, 1]),
        "b": np.array([0, 0, 1, 0, 1]),
        "c": np.array([0, 1, 2, 1, 1]),
        "d": np.array([0, 0, 3, 1, 1]),
    }
    assert rank_disagreements(predictions, labels).tolist() == [2, 3, 1]  # on rows 0 and 4 all agree, right or wrong
    assert rank_disagreements(predictions, labels, most=1).tolist() == [2]


def test_among_equals_the_row_where_right_and_wrong_are_even_comes_first() -> None:
    predictions = {"a": np.array([1, 0]), "b": np.array([2, 1])}
    assert rank_disagreements(predictions, np.array([0, 0])).tolist() == [1, 0]


def test_all_labels_of_a_row_are_one_answer() -> None:
    held = np.array([[1, 0], [1, 0]])
    predictions = {"a": held, "b": np.array([[1, 0], [1, 1]])}
    assert rank_disagreements(predictions, held).tolist() == [1]


def test_fewer_than_two_recipes_disagree_nowhere() -> None:
    labels = np.array([0, 1])
    assert rank_disagreements({}, labels).tolist() == []
    assert rank_disagreements({"a": labels}, labels).tolist() == []


@given(st.integers(0, 10**6), st.integers(2, 5))
def test_ranking_has_exactly_the_rows_with_more_than_one_answer(seed: int, recipes: int) -> None:
    random = np.random.default_rng(seed)
    predictions = {str(number): random.integers(0, 3, 12) for number in range(recipes)}
    ranked = rank_disagreements(predictions, random.integers(0, 3, 12))
    stacked = np.stack(list(predictions.values()))
    assert sorted(ranked) == [row for row in range(12) if len(set(stacked[:, row])) > 1]
    backing = [max(np.bincount(stacked[:, row])) for row in ranked]
    assert backing == sorted(backing)


# Seeds that differ in number


def trained(random: np.random.Generator, seeds: int, *, mean: float = 0.8, sd: float = 0.02) -> BootstrapScores:
    """Scores that vary with the seed alone."""
    points = random.normal(mean, sd, seeds)
    return BootstrapScores(points, np.tile(points, (20, 1)), 100)


def test_one_seed_against_three_that_it_borrows_from_is_the_pooled_t_test() -> None:
    random = np.random.default_rng(0)
    one, three = trained(random, 1), trained(random, 3)
    seen = contrast(one, three, a_lenders=[three])
    expected = stats.ttest_ind(one.points, three.points)
    assert (seen.p, seen.variance.seeds_known) == (pytest.approx(expected.pvalue), True)
    assert seen.variance.on_these_rows().freedom == pytest.approx(2)


def test_one_seed_against_one_borrows_the_mean_of_several_recipes() -> None:
    random = np.random.default_rng(1)
    a, b, two, four = (trained(random, seeds) for seeds in (1, 1, 2, 4))
    seen = contrast(a, b, a_lenders=[two, four], b_lenders=[two, four])
    pooled = (two.points.var(ddof=1) + 3 * four.points.var(ddof=1)) / 4
    error = seen.variance.on_these_rows()
    assert error.size == pytest.approx(np.sqrt(2 * pooled))
    parts = (two.points.var(ddof=1), 3 * four.points.var(ddof=1))
    assert error.freedom == pytest.approx(sum(parts) ** 2 / (parts[0] ** 2 + parts[1] ** 2 / 3))


def test_one_seed_without_anything_to_borrow_is_about_this_training() -> None:
    random = np.random.default_rng(2)
    labels = random.integers(0, 2, 200)
    a, b = (np.where(random.random((1, 200)) < share, labels, 1 - labels) for share in (0.95, 0.6))
    one, other = (resample(side, labels, "accuracy") for side in (a, b))
    seen = contrast(one, other)
    assert not seen.variance.seeds_known
    assert seen.p < 0.001, "of these trainings it is certain"
    steady = replace(other, depends_on_seed=False)
    assert not contrast(one, steady).variance.seeds_known
    assert contrast(replace(one, depends_on_seed=False), steady).variance.seeds_known


def test_what_a_single_seed_changes_at_single_rows_counts_once() -> None:
    """The variance of the rows of one training holds it, and the spread of the lenders holds it too."""
    random = np.random.default_rng(3)
    labels, a, b = simulate(random, 400, row=0.5, noise=0.8)
    one, lender = resample(a[:1], labels, "accuracy"), resample(b, labels, "accuracy")
    alone = estimate(one)
    lent = estimate(one, lenders=[lender])
    assert alone.low is not None
    assert lent.low is not None
    error = (one.mean - alone.low) / stats.norm.isf(0.025)
    variance = contrast(one, lender, a_lenders=[lender]).variance
    assert variance.noise[0] > 0.1 * error**2
    widened = (one.mean - lent.low) / stats.t.isf(0.025, 2)
    assert widened**2 < error**2 + variance.spread[0]


@pytest.mark.parametrize("freedom", [1.0, 2.0, 3.7])
def test_quantile_lies_between_the_normal_and_students(freedom: float) -> None:
    error = StandardError(shared=3.0, seeds=1.0, freedom=freedom)
    quantile = error.quantile(0.05)
    assert stats.norm.isf(0.025) < quantile < stats.t.isf(0.025, freedom)
    assert error.p_value(quantile * error.size) == pytest.approx(0.05)
    assert error.p_value(0.0) == 1
    assert 0 <= error.p_value(1e6) < error.p_value(1e3)
    known, estimated = StandardError(1.0, 0.0, np.inf), StandardError(0.0, 1.0, freedom)
    assert known.p_value(-2.0) == pytest.approx(2 * stats.norm.sf(2))
    assert estimated.p_value(2.0) == pytest.approx(2 * stats.t.sf(2, freedom))
    assert estimated.quantile(0.05) == pytest.approx(stats.t.isf(0.025, freedom))


def test_seed_that_changes_nothing_needs_no_second_one() -> None:
    random = np.random.default_rng(4)
    labels, a, b = simulate(random, 400, row=0.5)
    steady = replace(resample(a[:1], labels, "accuracy"), depends_on_seed=False)
    seen = contrast(steady, resample(b, labels, "accuracy"))
    assert seen.variance.seeds_known
    assert seen.variance.spread[0] == 0


def test_false_alarms_where_numbers_of_seeds_differ() -> None:
    """At 1 against 1, 1 against 3 and 2 against 3 seeds, of two equally good recipes of one kind with three lenders."""
    random, trials = np.random.default_rng(0), 500
    alarms = {(1, 1): 0, (1, 3): 0, (2, 3): 0}
    for _ in range(trials):
        labels = np.ones(150, dtype=np.int64)
        shared = random.normal(1, 1, 150)
        sides = [
            shared + random.normal(0, 0.3, 150) + random.normal(0, 0.1, (3, 1)) + random.normal(0, 0.3, (3, 150))
            for _ in range(3)
        ]
        a, b, lender = (resample((side > 0).astype(np.int64), labels, "accuracy", draws=100) for side in sides)
        for a_seeds, b_seeds in alarms:
            one, other = (
                BootstrapScores(side.points[:n], side.draws[:, :n], side.rows)
                for side, n in ((a, a_seeds), (b, b_seeds))
            )
            lenders = [lender, other] if b_seeds > 1 else [lender]
            alarms[a_seeds, b_seeds] += contrast(one, other, a_lenders=lenders, b_lenders=lenders).p < 0.05
    # 36 of 500 would be exceeded once in 100 by a test at exactly 5%.
    assert all(count <= stats.binom.ppf(0.99, trials, 0.05) for count in alarms.values()), alarms


# Where nothing varies


def test_all_right_has_the_exact_interval_of_a_share_and_none_of_another_metric() -> None:
    labels = np.arange(24) % 2
    scores = resample(np.stack([labels] * 3), labels, "accuracy")
    found = estimate(scores, share=True, least=0, most=1)
    assert (found.mean, found.high, found.reason) == (1, 1, None)
    assert found.low == pytest.approx(stats.binomtest(24, 24).proportion_ci(method="exact").low)
    none = estimate(resample(labels[None], labels, "f1_macro"), least=0, most=1)
    assert (none.mean, none.low, none.high, none.reason) == (1, None, None, NOTHING_VARIES)


def test_equal_predictions_leave_open_what_was_never_seen() -> None:
    labels = np.arange(24) % 2
    right = resample(np.stack([labels] * 3), labels, "accuracy")
    seen = contrast(right, right, share=True)
    assert seen.high == pytest.approx(1 - 0.025 ** (1 / 24))
    assert (seen.difference, seen.low, seen.p) == (0, pytest.approx(-seen.high), 1)
    assert (contrast(right, right).low, contrast(right, right).high) == (None, None)


@pytest.mark.parametrize(("rows", "p"), [(2, 0.5), (5, 1 / 16), (24, 2.0**-23)])
def test_right_on_all_rows_against_wrong_on_all_is_the_sign_test(rows: int, p: float) -> None:
    labels = np.arange(rows) % 2
    seen = contrast(resample(labels[None], labels, "accuracy"), resample(1 - labels[None], labels, "accuracy"))
    assert (seen.difference, seen.p) == (1, pytest.approx(p))


# Groups of rows


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=40))
def test_mcnemar_of_groups_of_one_row_is_that_of_rows(rows: list[tuple[bool, bool]]) -> None:
    a, b = np.array(rows, dtype=bool).reshape(-1, 2).T
    assert mcnemar(a, b, np.arange(len(a)) * 3) == pytest.approx(mcnemar(a, b))


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_mcnemar_of_groups_flips_the_sign_of_each_group(rows: list[tuple[int, bool, bool]]) -> None:
    """Brute force over all signs."""
    groups, a, b = (np.array(own) for own in zip(*rows, strict=True))
    names = sorted(set(groups.tolist()))
    sums = np.array([int(a[groups == name].sum()) - int(b[groups == name].sum()) for name in names])
    flipped = np.array(list(product((-1, 1), repeat=len(names)))) @ sums
    expected = (np.abs(flipped) >= abs(sums.sum())).mean()
    assert mcnemar(a, b, groups) == pytest.approx(expected, abs=1e-9)


def grouped_margins(random: np.random.Generator, users: int, own: int) -> tuple[np.ndarray, np.ndarray]:
    """Whether two equally good models are right on rows of users, (2, rows); users differ in which model suits them."""
    groups = np.repeat(np.arange(users), own)
    margins = 0.7 + random.normal(size=(2, users * own)) + random.normal(0, 1, (2, users))[:, groups]
    return margins > 0, groups


def test_groups_keep_false_alarms_and_coverage_where_rows_do_not() -> None:
    random, trials = np.random.default_rng(0), 200
    alarms, covered = {"rows": 0, "groups": 0}, {"rows": 0, "groups": 0}
    recalls = {"rows": 0, "groups": 0}
    truth = stats.norm.cdf(0.7 / np.sqrt(2))
    for _ in range(trials):
        right, groups = grouped_margins(random, 40, 10)
        labels = np.ones(len(groups), dtype=int)
        for name, ids in (("rows", None), ("groups", groups)):
            a, b = (resample(one.astype(int)[None], labels, "accuracy", groups=ids, draws=200) for one in right)
            a, b = replace(a, depends_on_seed=False), replace(b, depends_on_seed=False)
            alarms[name] += contrast(a, b, share=True).p < 0.05
            own = estimate(a, share=True)
            covered[name] += own.low is not None and own.high is not None and own.low <= truth <= own.high
            found = class_recalls(right[:1].astype(int), labels, ["no", "yes"], ids)[1]
            recalls[name] += found["low"] <= truth <= found["high"]
    assert alarms["groups"] / trials < 0.1 < 0.2 < alarms["rows"] / trials
    for counts in (covered, recalls):
        assert counts["groups"] / trials > 0.9 > 0.8 > counts["rows"] / trials


def test_single_group_tells_next_to_nothing() -> None:
    labels, groups = np.ones(50, dtype=int), np.zeros(50)
    predicted = (np.arange(50) < 40).astype(int)
    recall = class_recalls(predicted[None], labels, ["no", "yes"], groups)[1]
    assert recall["high"] - recall["low"] > 0.7
    assert mcnemar(predicted == 1, predicted == 0, groups) == 1.0


def test_recipes_scored_on_other_groups_cannot_be_compared() -> None:
    labels = np.array([0, 1] * 10)
    one, other = (resample(labels[None], labels, "f1_macro", groups=np.arange(20) // size, draws=20) for size in (2, 4))
    with pytest.raises(DataError, match="cannot be compared"):
        contrast(one, other)
