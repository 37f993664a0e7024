"""Texts of several requests, computed together, have the scores of the library."""

from pathlib import Path

import numpy as np
import pytest

from fullbake import Classifier
from fullbake.serving.scorer import TextScorer

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
    pooled = TextScorer(classifier).pooled(TextScorer(classifier).prepare(TEXTS))
    assert pooled.shape[0] == len(TEXTS)
    assert np.isfinite(pooled).all()
