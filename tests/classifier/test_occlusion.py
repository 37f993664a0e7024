"""Effects of words are the changes that leaving them out makes, at a bounded cost."""

import numpy as np
import pytest
from helpers.counting import CountingPredictor, counting_classifier

from fullbake import Classifier
from fullbake.classifier.occlusion import Occlusion, OcclusionScorer, occlude


def occluded(classifier: Classifier, text: str, second: str | None = None, most: int = 100) -> Occlusion:
    parts = classifier.predictor, classifier.tokenizer, classifier.tokens, classifier.problem
    return occlude(OcclusionScorer(*parts), text, second, most)


def rows_scored(classifier: Classifier) -> int:
    assert isinstance(classifier.predictor, CountingPredictor)
    return classifier.predictor.rows


def test_effect_is_the_score_with_the_word_minus_the_score_without_it() -> None:
    classifier = counting_classifier()
    words = ["the", "good", "film", "is", "good", "bad"]
    found = occluded(classifier, " ".join(words))
    whole = classifier.predict_proba([" ".join(words)])[0]
    without = classifier.predict_proba([" ".join(words[:n] + words[n + 1 :]) for n in range(len(words))])
    np.testing.assert_allclose(found.probabilities, whole)
    np.testing.assert_allclose(found.effects, whole - without)


def test_both_texts_of_a_pair_count() -> None:
    classifier = counting_classifier(pairs=True)
    found = occluded(classifier, "good film", "bad bad")
    assert found.parts[:, 0].tolist() == [0, 0, 1, 1]
    whole, *without = classifier.predict_proba(["good film", "film", "good film"], ["bad bad", "bad bad", "bad"])[:, 0]
    np.testing.assert_allclose(found.effects[[0, 3], 0], whole - np.array(without))


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_of_windows_only_those_with_the_word_are_computed_again(pooling: str) -> None:
    classifier = counting_classifier(max_length=6, truncation="windows", window_pooling=pooling)
    text = "good good the film " * 5
    found = occluded(classifier, text)
    assert found.windows == 5
    assert rows_scored(classifier) == 5 + 20
    without = np.array([[2, 0]] * 4 + [[1, 0]], np.float32)
    expected = without.mean(axis=0) if pooling == "mean" else without.max(axis=0)
    whole = classifier.problem.probabilities(np.array([[2, 0]], np.float32))
    np.testing.assert_allclose(
        found.effects[0], (whole - classifier.problem.probabilities(expected[None]))[0], atol=1e-7
    )


def test_long_text_costs_no_more_than_allowed_and_its_weighty_words_are_single() -> None:
    classifier = counting_classifier(max_length=5_000)
    words = ["film"] * 3_000
    words[1_234] = "good"
    found = occluded(classifier, " ".join(words), most=150)
    assert rows_scored(classifier) <= 1 + 150
    assert found.parts[:, 3].sum() == 3_000
    heaviest = int(np.abs(found.effects[:, 0]).argmax())
    assert found.parts[heaviest].tolist()[1:] == [1_234 * 5, 1_234 * 5 + 4, 1]
    assert np.all(found.parts[1:, 1] > found.parts[:-1, 2])


def test_groups_of_a_long_pair_span_one_text() -> None:
    classifier = counting_classifier(pairs=True, max_length=500)
    found = occluded(classifier, "good film " * 30, "bad " * 10, most=8)
    assert rows_scored(classifier) <= 1 + 8
    assert [int(found.parts[found.parts[:, 0] == place, 3].sum()) for place in (0, 1)] == [60, 10]


@pytest.mark.parametrize("text", ["", "  ", "\x00"])
def test_text_without_words_has_no_effects(text: str) -> None:
    found = occluded(counting_classifier(), text)
    assert found.effects.shape == (0, 2)
    assert found.probabilities.tolist() == [0.5, 0.5]
