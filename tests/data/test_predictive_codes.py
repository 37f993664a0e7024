"""What codes of rows say about their labels."""

import numpy as np
import pytest

from fullbake.config.problems import MULTI_LABEL, SINGLE_LABEL, problem_named
from fullbake.data.dataset import PAIR_SEPARATOR
from fullbake.data.predictive_codes import LabeledSample, check_prediction, find_sign


def make_sample(labels: np.ndarray, texts: list[str] | None = None) -> LabeledSample:
    """Return rows with different texts, if none are given."""
    texts = [f"text {row}" for row in range(len(labels))] if texts is None else texts
    kind = MULTI_LABEL if labels.ndim == 2 else SINGLE_LABEL
    names = tuple(f"class {number}" for number in range(labels.shape[1] if labels.ndim == 2 else labels.max() + 1))
    ids = np.unique(np.array(texts, dtype=object), return_inverse=True)[1]
    return LabeledSample(tuple(texts), labels, names, problem_named(kind), np.arange(1, len(texts) + 1), ids)


def test_codes_that_follow_the_classes_predict_them_with_the_first_rows() -> None:
    labels = np.tile([0, 1, 2, 2], 100)
    found = check_prediction(make_sample(labels), labels, 0.5)
    assert found is not None
    assert (found.label, found.correct, found.baseline, found.gain) == (None, 1.0, 0.5, 1.0)
    assert found.positions == (0, 1, 4, 5, 8)


def test_a_prediction_needs_the_gain_and_certainty() -> None:
    labels = np.tile([0, 1], 200)
    codes = np.where(np.arange(400) % 4 == 1, 0, labels)  # half of the second class looks like the first
    assert check_prediction(make_sample(labels), codes, 0.6) is None
    assert check_prediction(make_sample(labels), codes, 0.4) is not None
    assert check_prediction(make_sample(labels[:24]), codes[:24], 0.4) is None


def test_one_label_of_several_is_predicted() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, (400, 3))
    found = check_prediction(make_sample(labels), labels[:, 1], 0.5)
    assert found is not None
    assert (found.label, found.correct) == (1, 1.0)


@pytest.mark.parametrize("part", [0.25, 0.5])
def test_what_only_the_most_frequent_class_has_is_a_sign_but_predicts_nothing(part: float) -> None:
    random = np.random.default_rng(0)
    labels = (random.random(2_000) < 0.7).astype(np.int64)
    codes = (labels & (random.random(2_000) < part)).astype(np.int64)
    sample = make_sample(labels)
    assert check_prediction(sample, codes, 0.1) is None
    sign = find_sign(sample, codes, 0.2)
    assert sign is not None
    assert (sign.label, sign.precision) == (1, 1.0)
    assert sign.coverage == pytest.approx(codes.sum() / labels.sum())
    assert sign.share == labels.mean()
    assert sign.positions == tuple(np.flatnonzero(codes)[:5])


def test_absence_is_a_sign_too() -> None:
    labels = np.repeat([0, 1], [700, 300])
    codes = np.where(labels == 1, 1, np.arange(1_000) % 2)
    sign = find_sign(make_sample(labels), codes, 0.3)
    assert sign is not None
    assert (sign.label, round(sign.coverage, 2)) == (0, 0.5)


def test_a_few_exceptions_are_accepted_and_many_are_not() -> None:
    random = np.random.default_rng(0)
    labels = (random.random(4_000) < 0.7).astype(np.int64)
    drawn = random.random(4_000)
    sample = make_sample(labels)
    assert find_sign(sample, (drawn < np.where(labels == 1, 0.5, 0.02)).astype(np.int64), 0.2) is not None
    assert find_sign(sample, (drawn < np.where(labels == 1, 0.5, 0.2)).astype(np.int64), 0.2) is None


def test_ten_of_ten_rows_of_a_rare_label_are_a_sign() -> None:
    labels = np.arange(2_000) % 77
    codes = ((labels == 7) & (np.arange(2_000) < 800)).astype(np.int64)
    sign = find_sign(make_sample(labels), codes, 0.2)
    assert sign is not None
    assert sign.label == 7


def test_fifteen_of_thirty_rows_are_enough() -> None:
    labels = np.arange(60) % 2
    codes = ((labels == 1) & (np.arange(60) % 4 == 1)).astype(np.int64)
    sign = find_sign(make_sample(labels), codes, 0.2)
    assert sign is not None
    assert (sign.label, sign.coverage) == (1, 0.5)
    assert find_sign(make_sample(labels[:40]), codes[:40], 0.2) is None


def test_copies_of_one_text_are_no_evidence() -> None:
    labels = np.repeat([0, 1], [400, 600])
    texts = ["the same text" if row < 300 else f"text {row % 4}, {row}" for row in range(1_000)]
    codes = (np.arange(1_000) < 300).astype(np.int64)
    assert find_sign(make_sample(labels, texts), codes, 0.2) is None
    assert find_sign(make_sample(labels), codes, 0.2) is not None


@pytest.mark.parametrize("seed", range(10))
def test_random_codes_say_nothing(seed: int) -> None:
    random = np.random.default_rng(seed)
    sample = make_sample(random.integers(0, (2, 5, 60)[seed % 3], 500))
    for codes in (random.integers(0, 2, 500), random.integers(0, 30, 500), random.permutation(500)):
        assert check_prediction(sample, codes, 0.01) is None
        assert find_sign(sample, codes, 0.01) is None


def test_sides_of_pairs_and_halves_by_text() -> None:
    pairs = [f"{row % 9} {PAIR_SEPARATOR} b {row}" for row in range(40)]
    sample = make_sample(np.arange(40) % 2, pairs)
    assert sample.sides[0][:2] == ("0", "1")
    assert sample.sides[1][1] == "b 1"
    copies = make_sample(np.arange(40) % 2, [f"text {row % 8}" for row in range(40)])
    assert all(len(set(copies.held[row::8].tolist())) == 1 for row in range(8))
    assert copies.independence == 0.2
    assert 0 < copies.held.sum() < 40
