"""What `Classifier.explain` says of single labels, many labels, pairs, cascades and both engines."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.counting import counting_classifier
from helpers.rows import make_rows

from fullbake import Classifier
from fullbake.classifier.model import FirstAnswers
from fullbake.config.problems import MULTI_LABEL
from fullbake.core.errors import DataError, RecipeError
from fullbake.evaluation.agreement import CascadeThreshold

TEXT = "the good film is 好"


def test_the_label_that_is_given_is_explained() -> None:
    found = counting_classifier().explain(TEXT)
    assert found.labels == found.predicted == ("good",)
    assert [word["word"] for word in found.effects()] == ["the", "good", "film", "is", "好"]
    assert {word["word"] for word in found.top_words(number=2)} == {"good", "好"}
    assert found.effects("bad")[1]["effect"] == pytest.approx(-found.effects("good")[1]["effect"])
    assert repr(found).startswith("Explanation('good' 0.881: 'good' +0.150, '好' +0.150")
    assert found.notes == []


def test_of_many_labels_all_that_are_given_are_explained_or_the_likeliest() -> None:
    classifier = counting_classifier(problem=MULTI_LABEL)
    assert classifier.explain("good film").labels == ("good", "bad")  # 0 words give 0.5
    strict = counting_classifier(problem=MULTI_LABEL, names=("a", "b"))
    strict.decision = type(strict.decision)(strict.problem, ("a", "b"), thresholds=(0.99, 0.99))
    found = strict.explain("good film")
    assert (found.predicted, found.labels) == ((), ("a",))


def test_labels_may_be_named() -> None:
    classifier = counting_classifier()
    assert classifier.explain(TEXT, labels="bad").labels == ("bad",)
    assert classifier.explain(TEXT, labels=["bad", "good"]).labels == ("bad", "good")
    with pytest.raises(RecipeError, match=r"no label 'goood'(?s:.*)Did you mean 'good'"):
        classifier.explain(TEXT, labels="goood")
    with pytest.raises(RecipeError, match=r"no label 'fine'"):
        classifier.explain(TEXT).effects("fine")


@pytest.mark.parametrize("text", [["a", "b"], None, 3, b"a"])
def test_what_is_no_text_is_refused(text: Any) -> None:
    with pytest.raises(DataError, match=r"one text is explained at a time"):
        counting_classifier().explain(text)


def test_pairs_and_single_texts_are_not_mixed_up() -> None:
    with pytest.raises(DataError, match=r"pairs"):
        counting_classifier(pairs=True).explain(TEXT)
    with pytest.raises(DataError, match=r"single texts"):
        counting_classifier().explain(TEXT, "other")
    assert [word["text"] for word in counting_classifier(pairs=True).explain("good", "bad").effects()] == [0, 1]


@pytest.mark.parametrize("most", [0, 3, True, "many", 1.5])
def test_wrong_number_of_parts_is_refused(most: Any) -> None:
    with pytest.raises(RecipeError, match=r"4 or more"):
        counting_classifier().explain(TEXT, max_parts=most)


def test_notes_say_what_was_not_looked_at() -> None:
    long = counting_classifier().explain("good bad good film " * 10, max_parts=4)
    assert "14 words" in long.notes[0]
    assert "groups of neighboring words" in long.notes[0]
    assert "characters of it were not read" in long.notes[1]
    assert counting_classifier().explain("the film").notes[0].startswith("No single word changes a score")


def test_json_holds_everything() -> None:
    found = counting_classifier().explain("good film " * 10).to_json()
    assert json.loads(json.dumps(found)) == found
    assert found["labels"][0]["words"][0] | {"effect": 0} == {
        "word": "good",
        "effect": 0,
        "text": 0,
        "start": 0,
        "end": 4,
        "words": 1,
    }
    assert found["unread"] == [{"text": 0, "start": 70, "end": 99}]


@pytest.mark.parametrize(("margin", "who"), [(0.5, "student"), (9.0, "teacher")])
def test_of_a_cascade_the_one_that_answered_is_explained(margin: float, who: str) -> None:
    threshold = CascadeThreshold(margin, 100, 50, 0, 0.01, 0.99)
    found = counting_classifier().with_first(FirstAnswers(counting_classifier(), threshold)).explain(TEXT)
    assert found.answered_by == found.to_json()["answered_by"] == who
    assert found.notes == [f"The {who} of the cascade answered, and its scores are explained."]


def test_both_engines_explain_and_embed_alike(graph_bundles: Callable[..., Path]) -> None:
    torch, onnx = (Classifier.load(graph_bundles("bert"), engine=engine) for engine in ("torch", "onnx"))
    text = make_rows(1, seed=7)[0][0]
    one, other = torch.explain(text), onnx.explain(text)
    assert one.labels == other.labels
    np.testing.assert_allclose(one.occlusion.effects, other.occlusion.effects, atol=1e-5)
    words = one.effects()
    shorter = [text[: word["start"]] + text[word["end"] :] for word in words]
    place = one.label_names.index(one.labels[0])
    scores = torch.predict_proba([text, *shorter])[:, place]
    np.testing.assert_allclose([word["effect"] for word in words], scores[0] - scores[1:], atol=1e-5)
    np.testing.assert_allclose(torch.embed([text, "a"]), onnx.embed([text, "a"]), atol=1e-4)
    assert onnx.embed([]).shape == (0, torch.embed(["a"]).shape[1])
