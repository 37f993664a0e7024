"""A classifier says what it is: one line, and a table in a notebook."""

import re
from dataclasses import replace
from typing import Any

import pytest
from helpers.counting import counting_classifier
from helpers.leaderboards import HOSTILE

from fullbake.classifier.classifier_view import classifier_html, describe_decision, describe_in_a_line
from fullbake.classifier.model import Classifier, FirstAnswers, RunRecord
from fullbake.config.problems import MULTI_LABEL, SINGLE_LABEL, problem_named
from fullbake.evaluation.agreement import CascadeThreshold
from fullbake.evaluation.decisions import Decision

SINGLE, MANY = problem_named(SINGLE_LABEL), problem_named(MULTI_LABEL)
SCORE = {"value": 0.75, "low": 0.7, "high": 0.8, "reason": None}
FACTS: dict[str, Any] = {
    "recipe": {"base": "/home/ann/bases/tiny", "way": "frozen", "head": {"kind": "linear"}},
    "columns": {"text": "text", "text_pair": None},
    "data": {"rows": {"train": 1200, "test": 300}, "overlap_allowed": 3},
    "metrics": {"test": {"rows": 300, "overall": {"accuracy": SCORE, "f1_macro": SCORE, "f1_micro": SCORE}}},
    "tokens": {"max_length": 128, "truncation": "head"},
    "device": "cpu",
    "threads": 2,
}


def classifier(facts: dict[str, Any] = FACTS, **options: Any) -> Classifier:
    made = counting_classifier(**options)
    made.record = RunRecord(facts)
    return made


def test_one_line_says_what_it_is() -> None:
    assert repr(classifier()) == ("Classifier(2 classes, frozen linear on 'tiny', test macro-F1 0.750, engine onnx)")
    assert repr(classifier({"columns": {"text": "text"}})) == "Classifier(2 classes, made by hand, engine onnx)"
    first = FirstAnswers(counting_classifier(), CascadeThreshold(0.5, 100, 60, 0, 0.01, 0.99))
    assert repr(classifier().with_first(first)).startswith("Classifier(a cascade, 2 classes")


def test_a_notebook_gets_scores_decision_and_warnings() -> None:
    page = classifier()._repr_html_()
    for words in ("0.750 (0.700 to 0.800)", "1,200 train, 300 test", "the likeliest class", "128 tokens", "2 threads"):
        assert words in page, words
    assert "3 training rows are in the validation or test part too" in page
    assert "/home/ann" not in page
    assert "F1, micro" not in page
    assert "F1, micro" in classifier(problem=MULTI_LABEL)._repr_html_()
    first = FirstAnswers(counting_classifier(), CascadeThreshold(0.5, 100, 60, 0, 0.01, 0.99))
    assert "a student, 60% of the texts" in classifier().with_first(first)._repr_html_()


def test_a_classifier_without_a_record_is_shown() -> None:
    known = replace(classifier()._facts(), facts={})
    assert "made by hand" in classifier_html(known)
    assert describe_in_a_line(known) == "Classifier(2 classes, made by hand, engine onnx)"


@pytest.mark.parametrize("text", [text for text in HOSTILE if "\ud800" not in text])
def test_hostile_labels_are_inert(text: str) -> None:
    facts = FACTS | {"recipe": FACTS["recipe"] | {"base": text, "way": text}, "device": text}
    page = classifier(facts, names=(text, "other"))._repr_html_()
    tags = set(re.findall(r"<([a-z]+)", page))
    assert tags <= {"div", "style", "p", "table", "thead", "tbody", "tr", "th", "td", "bdi", "span"}
    assert "\u202e" not in page


@pytest.mark.parametrize(
    ("decision", "words"),
    [
        (Decision(SINGLE, ("a", "b")), "the likeliest class"),
        (Decision(MANY, ("a", "b")), "each label of 0.5 and more"),
        (
            Decision(SINGLE, ("a", "<b>"), (0.3,), 1),
            "<bdi>&lt;b&gt;</bdi> from 0.300 on, else the likeliest other class",
        ),
        (Decision(MANY, ("a", "b"), (0.3, 0.4)), "<bdi>a</bdi> 0.300, <bdi>b</bdi> 0.400"),
        (Decision(MANY, tuple("abcdefghijklmn"), tuple(n / 20 for n in range(14))), "0.000 to 0.650"),
        (Decision(SINGLE, ("a", "b"), costs=((0, 1), (9, 0))), "lowest expected cost"),
    ],
)
def test_decisions_in_words(decision: Decision, words: str) -> None:
    assert words in describe_decision(decision)
