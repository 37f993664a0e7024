"""Thresholds of labels with few positive rows lean on all labels; others keep theirs nearly."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fullbake.evaluation.calibration import ThresholdAim
from fullbake.evaluation.decisions import fit_decision, predict_by_default
from fullbake.evaluation.few_positives import lean_on_all_labels

NAMES = ("common", "other", "rare")


def scored(rows: int = 400, rare: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and labels of two common labels and a rare one, one of whose rows has a very low score."""
    random = np.random.default_rng(0)
    labels = np.zeros((rows, 3), dtype=np.uint8)
    labels[:100, 0] = labels[50:150, 1] = labels[:rare, 2] = 1
    logits = random.normal(size=(rows, 3)) - 3 + 4.5 * labels
    logits[0, 2] = -5.3
    return 1 / (1 + np.exp(-logits)), labels


def test_two_positives_no_longer_claim_half_of_the_rows() -> None:
    probabilities, labels = scored()
    labels[1, 2], labels[0, 2] = 0, 1  # one positive row, with a score under most others
    own, _ = fit_decision(probabilities, labels, NAMES, aim=ThresholdAim("f1"), lean=False)
    leaning, entries = fit_decision(probabilities, labels, NAMES, aim=ThresholdAim("f1"))
    assert own.decide(probabilities)[:, 2].sum() > 100 > 20 > leaning.decide(probabilities)[:, 2].sum()
    assert own.thresholds is not None
    assert entries[2]["own_threshold"] == own.thresholds[2]
    decided = leaning.decide(probabilities)[:, 2]
    assert entries[2]["precision"] == pytest.approx((decided * labels[:, 2]).sum() / max(decided.sum(), 1))


def test_label_with_many_positives_nearly_keeps_its_threshold() -> None:
    probabilities, labels = scored()
    own, _ = fit_decision(probabilities, labels, NAMES, aim=ThresholdAim("f1"), lean=False)
    leaning, _ = fit_decision(probabilities, labels, NAMES, aim=ThresholdAim("f1"))
    assert own.thresholds is not None
    assert leaning.thresholds is not None
    assert np.abs(np.subtract(own.thresholds, leaning.thresholds))[:2].max() < 0.05


def test_label_without_a_row_takes_the_common_threshold() -> None:
    probabilities, labels = scored(rare=0)
    rule, entries = fit_decision(probabilities, labels, NAMES, aim=ThresholdAim("f1"))
    assert rule.thresholds is not None
    assert rule.thresholds[2] != 0.5
    assert entries[2]["reached"] is False
    assert "common threshold" in entries[2]["reason"]


@pytest.mark.parametrize("aim", [ThresholdAim(at_recall=0.9), ThresholdAim(at_precision=0.9), ThresholdAim(costs={})])
def test_floors_and_costs_do_not_lean(aim: ThresholdAim) -> None:
    probabilities, labels = scored()
    leaning, entries = fit_decision(probabilities, labels, NAMES, aim=aim)
    assert leaning == fit_decision(probabilities, labels, NAMES, aim=aim, lean=False)[0]
    assert all(entry["own_threshold"] is None for entry in entries)


def test_epochs_are_compared_by_own_thresholds() -> None:
    probabilities, labels = scored()
    own, _ = fit_decision(probabilities, labels, NAMES, aim=ThresholdAim("f1"), lean=False)
    np.testing.assert_array_equal(predict_by_default(probabilities, labels), own.decide(probabilities))


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 40), st.integers(1, 5), st.sampled_from([2, 20, 10**6]))
def test_thresholds_are_finite_and_lie_on_no_score(seed: int, rows: int, labels: int, levels: int) -> None:
    """Also for scores of 0 and 1, equal scores, and labels that no row or every row has."""
    random = np.random.default_rng(seed)
    probabilities = random.integers(0, levels + 1, (rows, labels)) / levels
    held = random.random((rows, labels)) < random.random(labels)
    names = tuple(map(str, range(labels)))
    rule, entries = fit_decision(probabilities, held.astype(np.uint8), names, aim=ThresholdAim("f1"))
    assert rule.thresholds is not None
    for threshold, entry, scores in zip(rule.thresholds, entries, probabilities.T, strict=True):
        assert 0 <= threshold <= np.nextafter(1, 2)
        if entry["own_threshold"] is not None and levels < 10**5:
            inner = scores[(scores > 0) & (scores < 1)]
            assert min(np.abs(inner - threshold), default=1) > 1e-9
    own = list(rule.thresholds)
    assert lean_on_all_labels(own[:1], probabilities[:, :1], held[:, :1]) == own[:1]


def test_a_label_of_two_positives_under_a_hundred_others_is_not_claimed_for_all_of_these() -> None:
    """`pride` of GoEmotions: two positive rows in validation gave a threshold of 0.005 and a precision of 0.017."""
    random = np.random.default_rng(3)
    probabilities, labels = scored()
    logits = random.normal(size=400) - 6
    logits[:2] = -5.2
    probabilities[:, 2] = 1 / (1 + np.exp(-logits))
    _, (*_, own) = fit_decision(probabilities, labels, NAMES, aim=ThresholdAim("f1"), lean=False)
    _, (*_, leaning) = fit_decision(probabilities, labels, NAMES, aim=ThresholdAim("f1"))
    claimed = probabilities[:, 2] >= leaning["threshold"]
    assert own["threshold"] < 0.006
    assert own["precision"] < 0.03
    assert leaning["own_threshold"] == own["threshold"]
    assert leaning["threshold"] > 3 * own["threshold"]
    assert claimed.sum() < 15
