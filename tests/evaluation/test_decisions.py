from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import expit, log_softmax, softmax
from sklearn.metrics import f1_score, log_loss, precision_score, recall_score

from fullbake.config.problems import MULTI_LABEL, SINGLE_LABEL, problem_named, problem_of
from fullbake.core.errors import RecipeError
from fullbake.evaluation.decisions import (
    Decision,
    ThresholdAim,
    check_threshold_aim,
    fit_decision,
    match_decision,
)

LOGITS = arrays(np.float32, (5, 3), elements=st.floats(-1e4, 1e4, width=32))
NAMES = ("a", "b", "c")


@given(LOGITS)
def test_probabilities_equal_scipys_softmax_and_sigmoid(logits: np.ndarray) -> None:
    exact = logits.astype(np.float64)
    np.testing.assert_allclose(problem_named(SINGLE_LABEL).probabilities(logits), softmax(exact, axis=1), atol=1e-12)
    np.testing.assert_allclose(problem_named(MULTI_LABEL).probabilities(logits), expit(exact), atol=1e-12)


@given(LOGITS, st.integers(0, 2))
def test_row_losses_equal_scipys_log_softmax(logits: np.ndarray, label: int) -> None:
    exact = logits.astype(np.float64)
    np.testing.assert_allclose(
        problem_named(SINGLE_LABEL).row_losses(logits, np.full(5, label)),
        -log_softmax(exact, axis=1)[:, label],
        rtol=1e-9,
        atol=1e-12,
    )


def test_losses_of_many_labels_equal_scikit_learns_log_loss() -> None:
    random = np.random.default_rng(0)
    logits, labels = random.normal(size=(40, 3)), random.integers(0, 2, (40, 3))
    expected = np.mean([log_loss(labels[:, place], expit(logits[:, place])) for place in range(3)])
    assert problem_named(MULTI_LABEL).row_losses(logits, labels).mean() == pytest.approx(expected)


def test_plain_decision_takes_the_likeliest_class_or_labels_from_0_5() -> None:
    probabilities = np.array([[0.2, 0.5, 0.3], [0.5, 0.5, 0.0]])
    assert Decision(problem_named(SINGLE_LABEL), NAMES).decide(probabilities).tolist() == [1, 0]
    assert Decision(problem_named(MULTI_LABEL), NAMES).decide(probabilities).tolist() == [[0, 1, 0], [1, 1, 0]]
    assert Decision(problem_named(SINGLE_LABEL), NAMES).to_json() is None


def test_threshold_of_one_class_leaves_the_likeliest_of_the_others() -> None:
    rule = Decision(problem_named(SINGLE_LABEL), NAMES, (0.3,), positive=2)
    assert rule.decide(np.array([[0.6, 0.1, 0.3], [0.5, 0.3, 0.2], [0.1, 0.2, 0.7]])).tolist() == [2, 0, 2]
    never = Decision(problem_named(SINGLE_LABEL), NAMES, (0.9,), positive=2)
    assert never.decide(np.array([[0.1, 0.2, 0.7]])).tolist() == [1]


def test_costs_choose_the_class_with_the_lowest_expected_cost() -> None:
    """Elkan 2001: a miss that costs 9 lowers the threshold to 0.1."""
    rule, entries = fit_decision(np.eye(3), np.arange(3), NAMES, aim=ThresholdAim(costs={"a>b": 9.0, "a>c": 9.0}))
    assert entries == []
    assert rule.decide(np.array([[0.11, 0.8, 0.09], [0.04, 0.9, 0.06]])).tolist() == [0, 1]


@pytest.mark.parametrize(
    "rule",
    [
        Decision(problem_named(SINGLE_LABEL), NAMES),
        Decision(problem_named(SINGLE_LABEL), NAMES, (0.25,), positive=1),
        Decision(problem_named(SINGLE_LABEL), NAMES, costs=((0.0, 1.0, 2.0), (3.0, 0.0, 1.0), (1.0, 1.0, 0.0))),
        Decision(problem_named(MULTI_LABEL), NAMES, (0.1, 0.5, 0.9)),
    ],
)
def test_decision_read_back_from_json_is_equal(rule: Decision) -> None:
    assert Decision.from_json(rule.to_json(), rule.problem, NAMES) == rule


SCORES = st.lists(
    st.tuples(st.sampled_from([0.0, 0.1, 0.2, 0.5, 0.7, 0.9, 1.0]), st.booleans()), min_size=2, max_size=12
)


def every_threshold(scores: np.ndarray) -> list[np.ndarray]:
    """The predictions of each possible threshold."""
    return [scores >= cut for cut in [*np.unique(scores), 2.0]]


def fitted(scores: np.ndarray, truth: np.ndarray, aim: ThresholdAim) -> tuple[np.ndarray, dict[str, Any]]:
    rule, (entry,) = fit_decision(scores[:, None], truth[:, None].astype(np.uint8), ("x",), aim=aim)
    return rule.decide(scores[:, None])[:, 0] == 1, entry


@given(SCORES)
def test_f1_recall_precision_and_cost_are_the_best_of_all_thresholds(rows: list[tuple[float, bool]]) -> None:
    """Brute force over every threshold."""
    scores, truth = np.array([score for score, _ in rows]), np.array([held for _, held in rows])
    if truth.all() or not truth.any():
        return
    options = every_threshold(scores)

    def measure(predicted: np.ndarray) -> tuple[float, float, float]:
        options = {"zero_division": 0}
        return tuple(score(truth, predicted, **options) for score in (f1_score, recall_score, precision_score))

    best, entry = fitted(scores, truth, ThresholdAim("f1"))
    assert measure(best)[0] == pytest.approx(max(measure(option)[0] for option in options))
    assert entry["f1"] == pytest.approx(measure(best)[0])
    found, entry = fitted(scores, truth, ThresholdAim(at_recall=0.8))
    fewest = min(option.sum() for option in options if measure(option)[1] >= 0.8)
    assert (found.sum(), entry["reached"]) == (fewest, True)
    found, entry = fitted(scores, truth, ThresholdAim(at_precision=0.8))
    reaching = [measure(option)[1] for option in options if measure(option)[2] >= 0.8]
    assert entry["reached"] == bool(reaching)
    assert measure(found)[1] == pytest.approx(max(reaching)) if reaching else entry["reason"]
    found, _ = fitted(scores, truth, ThresholdAim(costs={"miss": 3, "false_alarm": 2}))
    cost = [3 * (truth & ~option).sum() + 2 * (option & ~truth).sum() for option in options]
    assert 3 * (truth & ~found).sum() + 2 * (found & ~truth).sum() == min(cost)


@given(SCORES)
def test_threshold_lies_on_no_score(rows: list[tuple[float, bool]]) -> None:
    """So that rounding moves no row to the other side."""
    scores, truth = np.array([score for score, _ in rows]), np.array([held for _, held in rows])
    rule, _ = fit_decision(scores[:, None], truth[:, None].astype(np.uint8), ("x",), aim=ThresholdAim("f1"))
    assert rule.thresholds is not None
    mixed = truth.any() and not truth.all()
    assert not mixed or min(abs(scores[(scores > 0) & (scores < 1)] - rule.thresholds[0]), default=1) > 0.01


def test_label_without_rows_keeps_the_threshold_0_5() -> None:
    rule, entries = fit_decision(
        np.full((4, 2), 0.3), np.zeros((4, 2), dtype=np.int64), ("x", "y"), aim=ThresholdAim("f1")
    )
    assert rule.thresholds is not None
    assert rule.thresholds[0] == 0.5
    assert entries[0]["reached"] is False
    assert entries[0]["reason"] == "no validation row has this label, so the threshold stays 0.5"


def test_costs_of_two_classes_become_a_threshold_of_the_last() -> None:
    probabilities = np.array([[0.9, 0.1], [0.7, 0.3], [0.6, 0.4], [0.2, 0.8]])
    labels = np.array([0, 1, 0, 1])
    cautious, (entry,) = fit_decision(probabilities, labels, ("no", "yes"), aim=ThresholdAim(costs={"yes>no": 10}))
    assert cautious.decide(probabilities).tolist() == [0, 1, 1, 1]
    assert entry["label"] == "yes"
    bold, _ = fit_decision(probabilities, labels, ("no", "yes"), aim=ThresholdAim(costs={"no>yes": 10}))
    assert bold.decide(probabilities).tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize(
    ("aim", "problem", "words"),
    [
        (ThresholdAim("f1"), SINGLE_LABEL, "--positive"),
        (ThresholdAim(at_recall=0.9, positive="d"), SINGLE_LABEL, "no class 'd'"),
        (ThresholdAim(positive="a"), MULTI_LABEL, "every label has its own threshold"),
        (ThresholdAim(costs={"a>d": 1}), SINGLE_LABEL, "'a>d'"),
        (ThresholdAim(costs={"mis": 1}), MULTI_LABEL, "Did you mean 'miss'"),
    ],
)
def test_aim_without_meaning_for_the_labels_is_refused(aim: ThresholdAim, problem: Any, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        check_threshold_aim(aim, problem_named(problem), NAMES)
    check_threshold_aim(ThresholdAim("f1"), problem_named(MULTI_LABEL), NAMES)
    check_threshold_aim(ThresholdAim("f1"), problem_named(SINGLE_LABEL), ("no", "yes"))
    check_threshold_aim(ThresholdAim(costs={"a>b": 1}), problem_named(SINGLE_LABEL), NAMES)


def test_problem_follows_from_the_labels() -> None:
    assert problem_of(np.zeros(3, dtype=np.int64)).name == SINGLE_LABEL
    assert problem_of(np.zeros((3, 2), dtype=np.uint8)).name == MULTI_LABEL


def test_matched_threshold_gives_the_labels_of_the_first_scoring() -> None:
    scores = np.linspace(0.05, 0.95, 19)
    first = np.stack([1 - scores, scores], axis=1)
    rule = Decision(problem_named(SINGLE_LABEL), ("a", "b"), (0.52,), 1)
    second = first.copy()
    second[:, 1] = scores * 0.8
    second[:, 0] = 1 - second[:, 1]
    moved = match_decision(rule, second, rule.decide(first))
    np.testing.assert_array_equal(moved.decide(second), rule.decide(first))
    assert moved.thresholds != rule.thresholds


def test_thresholds_stay_where_moving_them_would_not_help() -> None:
    random = np.random.default_rng(0)
    first = random.random((200, 3))
    rule = Decision(problem_named(MULTI_LABEL), NAMES, (0.3, 0.5, 0.7))
    assert match_decision(rule, first, rule.decide(first)) == rule
    plain = Decision(problem_named(MULTI_LABEL), NAMES)
    assert match_decision(plain, first, plain.decide(first)) == plain


@given(st.integers(0, 1000))
def test_matching_never_makes_more_labels_differ(seed: int) -> None:
    random = np.random.default_rng(seed)
    first = random.random((40, 3)).round(2)
    second = (first + random.normal(scale=0.1, size=first.shape)).clip(0, 1).round(2)
    rule = Decision(problem_named(MULTI_LABEL), NAMES, (0.31, 0.5, 0.72))
    wanted = rule.decide(first)
    moved = match_decision(rule, second, wanted)
    differ_before, differ_after = ((own.decide(second) != wanted).sum(axis=0) for own in (rule, moved))
    assert (differ_after <= differ_before).all()
    for before, after, old, new in zip(
        differ_before, differ_after, rule.thresholds or (), moved.thresholds or (), strict=True
    ):
        assert after < before or old == new
