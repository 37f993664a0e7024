"""Added columns: their names, and values that follow the options."""

import json
from dataclasses import asdict
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from helpers.served_models import make_source

from fullbake.classifier.prediction_columns import (
    PredictionOptions,
    added_kinds,
    choose_text_columns,
    kinds_of,
    predict_columns,
)
from fullbake.config.sections import Columns
from fullbake.core.errors import DataError, RecipeError

TEXTS = ["good food and water", "a game with a team", "the bank", "home"]
ONE = make_source("one", ("a", "b", "c")).load()
MANY = make_source("many", ("a", "b"), many=True).load()


def columns(classifier: Any, **options: Any) -> dict[str, Any]:
    return predict_columns(classifier, [TEXTS], PredictionOptions(**options))


@pytest.mark.parametrize("classifier", [ONE, MANY], ids=["one label", "many labels"])
@pytest.mark.parametrize(
    "options", [{}, {"top_k": 2}, {"labels_only": True}, {"prefix": "p_"}, {"threshold": {"a": 0.3}}]
)
def test_values_have_the_names_that_were_announced(classifier: Any, options: dict[str, Any]) -> None:
    found = columns(classifier, **options)
    assert list(found) == list(kinds_of(classifier, PredictionOptions(**options)))
    assert {len(values) for values in found.values()} == {len(TEXTS)}


def test_labels_only_leaves_out_scores_and_nothing_else() -> None:
    every = columns(ONE)
    assert columns(ONE, labels_only=True) == {"predicted": every["predicted"]}
    assert list(columns(ONE, labels_only=True, top_k=2)) == ["predicted", "label:1", "label:2"]
    assert list(columns(MANY, labels_only=True)) == ["predicted:a", "predicted:b"]


def test_a_threshold_decides_as_predict_does() -> None:
    for threshold in ({"a": 0.0}, {"a": 1.0}):
        assert columns(ONE, threshold=threshold)["predicted"] == list(ONE.predict(TEXTS, threshold=threshold))
        found = columns(MANY, threshold=threshold)
        expected = MANY.predict(TEXTS, threshold=threshold)
        np.testing.assert_array_equal(np.stack([found["predicted:a"], found["predicted:b"]], axis=1), expected)
    with pytest.raises(RecipeError, match="a score from 0 to 1"):
        kinds_of(ONE, PredictionOptions(threshold=2.0))


def test_options_are_plain_values_whoever_gives_them() -> None:
    given = PredictionOptions(top_k=np.int64(2), threshold=MappingProxyType({"a": 0.5}))  # type: ignore[arg-type]
    assert json.loads(json.dumps(asdict(given))) == {
        "prefix": "",
        "top_k": 2,
        "threshold": {"a": 0.5},
        "labels_only": False,
    }
    assert type(PredictionOptions(threshold=np.float32(0.5)).threshold) is float  # type: ignore[arg-type]


def test_a_cascade_says_who_answered() -> None:
    options = PredictionOptions(top_k=1)
    assert list(added_kinds(ONE.problem, ("a", "b"), options, cascade=True)) == [
        *("predicted", "score", "label:1", "score:1", "answered_by")
    ]


def test_text_columns_are_those_of_training_unless_named() -> None:
    pairs = Columns(text="a", label="c", text_pair="b")
    assert choose_text_columns(pairs, None, None) == ["a", "b"]
    assert choose_text_columns(pairs, "x", "y") == ["x", "y"]
    with pytest.raises(DataError, match="single texts"):
        choose_text_columns(Columns(text="a", label="c"), None, "b")
