"""The bound on disagreements, the margins of decisions, and the promise of a cascade's threshold."""

import numpy as np
import pytest

from fullbake.config.problems import MULTI_LABEL, SINGLE_LABEL, problem_named
from fullbake.evaluation.agreement import (
    agreement_facts,
    choose_threshold,
    decision_margins,
    describe_threshold,
    most_disagreements,
    rows_for_agreement,
    upper_bound,
)
from fullbake.evaluation.decisions import Decision

SINGLE, MULTI = problem_named(SINGLE_LABEL), problem_named(MULTI_LABEL)


def test_bound_without_hits_is_the_rule_of_three():
    assert upper_bound(0, 299) == pytest.approx(1 - 0.05 ** (1 / 299))
    assert upper_bound(0, 299) < 0.01 < upper_bound(0, 298)


def test_bound_with_hits_only_is_one():
    assert upper_bound(5, 5) == 1.0


def test_bound_is_the_share_under_which_so_few_hits_are_improbable():
    from scipy.stats import binom

    assert binom.cdf(7, 900, upper_bound(7, 900)) == pytest.approx(0.05)


def test_rows_needed_are_the_fewest_whose_bound_is_within():
    for agreement in (0.9, 0.95, 0.99, 0.999):
        rows = rows_for_agreement(agreement)
        assert upper_bound(0, rows) <= 1 - agreement < upper_bound(0, rows - 1)


def test_disagreements_allowed_are_the_most_within_the_bound():
    allowed = most_disagreements(2_000, 0.99)
    assert upper_bound(allowed, 2_000) <= 0.01 < upper_bound(allowed + 1, 2_000)
    assert most_disagreements(100, 0.99) == -1


def test_margin_of_the_plain_decision_is_the_gap_of_the_two_likeliest():
    found = decision_margins(Decision(SINGLE, ("a", "b", "c")), np.array([[0.7, 0.2, 0.1], [0.4, 0.4, 0.2]]))
    assert found == pytest.approx([np.log(3.5), 0.0])


def test_margin_of_a_single_class_is_infinite():
    assert decision_margins(Decision(SINGLE, ("a",)), np.ones((2, 1))).tolist() == [np.inf, np.inf]


def test_margin_of_labels_is_that_of_the_nearest_threshold():
    decision = Decision(MULTI, ("a", "b"), thresholds=(0.5, 0.2))
    found = decision_margins(decision, np.array([[0.5, 0.9], [0.9, 0.2], [0.8, 0.5]]))
    assert found == pytest.approx([0, 0, min(np.log(4), np.log(4))])


def test_margin_of_labels_without_thresholds_is_that_to_one_half():
    assert decision_margins(Decision(MULTI, ("a",)), np.array([[0.8]])) == pytest.approx([np.log(4)])


@pytest.mark.parametrize(
    "decision",
    [
        Decision(SINGLE, ("a", "b", "c"), thresholds=(0.3,), positive=1),
        Decision(SINGLE, ("a", "b", "c"), costs=((0.0, 1.0, 5.0), (2.0, 0.0, 1.0), (1.0, 1.0, 0.0))),
        Decision(MULTI, ("a", "b", "c"), thresholds=(0.3, 0.5, 0.8)),
        Decision(SINGLE, ("a", "b", "c")),
    ],
)
def test_labels_do_not_change_within_a_small_margin(decision):
    random = np.random.default_rng(0)
    probabilities = random.dirichlet(np.ones(3), size=4_000)
    moved = probabilities * np.exp(random.normal(scale=1e-4, size=probabilities.shape))
    moved = moved / moved.sum(axis=1, keepdims=True) if decision.problem.exclusive else np.minimum(moved, 1)
    same = decision.problem.equal_rows(decision.decide(probabilities), decision.decide(moved))
    margins = decision_margins(decision, probabilities)
    assert margins.min() >= 0
    assert margins[~same].max(initial=0) < 0.01
    assert same[margins > 0.01].all()


def test_threshold_takes_all_rows_where_all_agree():
    margins = np.linspace(0, 5, 500)
    found = choose_threshold(margins, np.ones(500, bool), 0.99)
    assert (found.margin, found.answered, found.disagreements) == (0.0, 500, 0)
    assert found.bound == pytest.approx(upper_bound(0, 500))


def test_threshold_stops_before_the_disagreements():
    margins = np.arange(1_000, dtype=float)
    agrees = margins >= 400
    found = choose_threshold(margins, agrees, 0.99)
    allowed = most_disagreements(1_000, 0.99)
    assert found.disagreements == allowed
    assert found.answered == 600 + allowed
    assert (margins >= found.margin).sum() == found.answered
    assert found.bound <= 0.01


def test_rows_of_equal_margins_are_answered_together():
    margins = np.repeat([2.0, 1.0], 500)
    agrees = np.append(np.ones(500, bool), np.arange(500) % 5 > 0)
    found = choose_threshold(margins, agrees, 0.99)
    assert found.answered == 500
    assert found.margin == 1.5


def test_too_few_rows_leave_all_to_the_teacher_and_say_how_many_are_needed():
    found = choose_threshold(np.arange(50.0), np.ones(50, bool), 0.99)
    assert found.margin is None
    assert found.answered == 0
    assert "299 rows" in describe_threshold(found)


def test_no_rows_leave_all_to_the_teacher():
    assert choose_threshold(np.empty(0), np.empty(0, bool), 0.9).margin is None


def test_disagreement_where_the_student_is_surest_leaves_all_to_the_teacher():
    margins = np.repeat([2.0, 1.0], 500)
    agrees = np.append(np.zeros(500, bool), np.ones(500, bool))
    found = choose_threshold(margins, agrees, 0.99)
    assert found.margin is None
    assert "surest" in describe_threshold(found)


def test_promise_holds_in_at_least_95_of_100_cascades():
    """The true share of disagreements at the chosen threshold is above 1 - agreement in at most 5% of drawn sets."""
    random, agreement, broken, draws = np.random.default_rng(1), 0.97, 0, 1_000
    for _ in range(draws):
        uniform = random.random(400)  # the margin; a row of margin m disagrees with probability 0.4 * (1 - m) ** 2
        agrees = random.random(400) > 0.4 * (1 - uniform) ** 2
        found = choose_threshold(uniform, agrees, agreement)
        if found.margin is not None:
            share = 0.4 * (1 - found.margin) ** 3 / 3  # the integral from the threshold to 1
            broken += share > 1 - agreement
    assert broken / draws <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / draws)
    assert broken > 0  # else the simulation would be too easy to show anything


def test_agreement_has_an_exact_interval():
    facts = agreement_facts(np.arange(200) > 3)
    assert facts["rows"] == 200
    assert facts["value"] == 0.98
    assert 0.94 < facts["low"] < 0.98 < facts["high"] < 1
