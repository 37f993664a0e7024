import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.running_server import cascade_of

from fullbake import Classifier
from fullbake.serving.model_facts import card_facts

FIXTURES = Path(__file__).parents[1] / "fixtures"


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier.load(FIXTURES / "bundle_0_1_0")


def with_facts(classifier: Classifier, **facts: Any) -> Classifier:
    twin = classifier.with_first(None)
    twin.record = replace(twin.record, facts=twin.record.facts | facts)
    return twin


def test_the_card_says_how_it_was_trained_and_its_scores(classifier: Classifier) -> None:
    found = card_facts(classifier)
    metrics = classifier.record.facts["metrics"]["test"]
    assert found["way"] == classifier.record.facts["recipe"]["way"]
    assert found["rows"]["train"] == classifier.record.facts["data"]["rows"]["train"]
    assert found["scores"]["part"] == "test"
    assert found["scores"]["rows"] == metrics["rows"]
    assert found["scores"]["values"]["accuracy"] == {
        key: metrics["overall"]["accuracy"][key] for key in ("value", "low", "high")
    }
    assert found["cascade"] is None
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize("base", ["/home/ann/secret/my-base", "C:\\ann\\my-base", "bases/my-base/", "my-base"])
def test_the_card_tells_no_path(classifier: Classifier, base: str) -> None:
    facts = classifier.record.facts
    source = {"train": "/home/ann/secret/rows.csv"}
    found = card_facts(
        with_facts(classifier, recipe=facts["recipe"] | {"base": base}, data=facts["data"] | {"source": source})
    )
    assert found["base"] == "my-base"
    assert "ann" not in json.dumps(found)


def test_a_card_without_facts_is_empty_but_whole(classifier: Classifier) -> None:
    bare = classifier.with_first(None)
    bare.record = replace(bare.record, facts={})
    assert set(card_facts(bare)) == set(card_facts(classifier))
    assert card_facts(bare)["scores"] is None


def test_validation_scores_stand_in_for_those_of_test(classifier: Classifier) -> None:
    metrics = {"validation": classifier.record.facts["metrics"]["validation"]}
    assert card_facts(with_facts(classifier, metrics=metrics))["scores"]["part"] == "validation"


def test_the_card_of_a_cascade_has_its_threshold(classifier: Classifier) -> None:
    assert card_facts(cascade_of(classifier, classifier, 0.5))["cascade"]["margin"] == 0.5
