"""Texts of several requests, computed together, have the scores of the library."""

from pathlib import Path

import numpy as np
import pytest

from fullbake import Classifier
from fullbake.models.long_texts import EndsOfText
from fullbake.serving.refusals import Refusal
from fullbake.serving.scorer import Reading, TextScorer

FIXTURES = Path(__file__).parents[1] / "fixtures"
TEXTS = ["the cook", "a", "money and the bank " * 30, "game play ball"]


@pytest.fixture(scope="module", params=["head", "windows"])
def classifier(request: pytest.FixtureRequest) -> Classifier:
    found = Classifier.load(FIXTURES / "bundle_0_1_0")
    found.tokens = found.tokens.model_copy(update={"truncation": request.param, "max_length": 16, "stride": 2})
    return found


def test_parts_of_requests_have_the_logits_of_the_library(classifier: Classifier) -> None:
    scorer = TextScorer(classifier)
    one, other = scorer.prepare(TEXTS), scorer.prepare(TEXTS[::-1])
    found = scorer.answers([(one, np.array([2, 0])), (other, np.array([3])), (one, np.array([1]))])
    wanted = classifier.logits([TEXTS[2], TEXTS[0], TEXTS[0], TEXTS[1]])
    np.testing.assert_allclose(found.logits, wanted, atol=1e-5)
    assert found.answered_by is None


def test_costs_are_the_tokens_of_all_windows(classifier: Classifier) -> None:
    prepared = TextScorer(classifier).prepare(TEXTS)
    assert len(prepared) == len(TEXTS)
    assert prepared.costs.sum() == prepared.encoded.lengths.sum()
    assert (prepared.costs[2] > 16) == (classifier.tokens.truncation == "windows")


def test_pooled_is_what_the_head_reads(classifier: Classifier) -> None:
    scorer = TextScorer(classifier)
    prepared = scorer.prepare(TEXTS, reading=Reading(pooled=True))
    found = scorer.answers([(prepared, np.array([3, 0]))])
    pooled = classifier.predictor.pooled(prepared.encoded, classifier.tokens)
    np.testing.assert_allclose(found.logits, pooled[[3, 0]], atol=1e-5)


def test_another_truncation_is_that_of_a_classifier_with_it(classifier: Classifier) -> None:
    scorer = TextScorer(classifier)
    parts = [scorer.prepare(TEXTS), scorer.prepare(TEXTS, reading=Reading("tail"))]
    assert parts[1].costs.max() <= 16
    found = scorer.answers([(parts[0], np.array([2])), (parts[1], np.array([2]))]).logits
    assert not np.allclose(found[0], found[1])


def test_whole_texts_are_asked_for_without_reading_a_long_one_to_its_end(
    classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EndsOfText, "count", lambda *_: pytest.fail("the whole text was read"))
    for text in ("." * 2_000_000, "the bank " * 200_000):
        if classifier.tokens.truncation == "windows":  # nothing is cut
            assert len(TextScorer(classifier).prepare([text[:1000]], reading=Reading(whole=True))) == 1
        else:
            with pytest.raises(Refusal, match="at most 16 tokens"):
                TextScorer(classifier).prepare([text], reading=Reading(whole=True))
