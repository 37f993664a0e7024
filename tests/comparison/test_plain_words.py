"""Sentences say what scores mean without a metric, and never more than the numbers hold."""

import re
from typing import Any

import pytest
from helpers.leaderboards import HOSTILE
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from fullbake.comparison.plain_words import (
    MOST_STEPS,
    PlainScores,
    advise,
    describe_scores,
    explain_metric,
    share_in_words,
)
from fullbake.config.problems import MULTI_LABEL, SINGLE_LABEL
from fullbake.evaluation.metrics import METRICS


def scores(**fields: Any) -> PlainScores:
    """Scores of 250 test rows of three topics."""
    plain: dict[str, Any] = {
        "rows": 250,
        "accuracy": {"value": 0.584, "low": 0.52, "high": 0.645},
        "recalls": [recall("cooking", 90, 0.9), recall("money", 100, 0.6), recall("politics", 60, 0.31)],
        "confusion": [[81, 5, 4], [20, 60, 20], [15, 26, 19]],
        "trained": {"cooking": 300, "money": 280, "politics": 290},
        "columns": {"text": "comment", "label": "topic"},
    }
    return PlainScores(**(plain | fields))


def recall(label: str, support: int, mean: float | None) -> dict[str, Any]:
    return {"label": label, "support": support, "mean": mean}


def plain(sentences: list[Markup]) -> str:
    return " ".join(re.sub("<[^>]*>", "", sentence) for sentence in sentences)


def test_the_sentences_of_the_issue() -> None:
    assert plain(describe_scores(scores())) == (
        "It gives about 6 in 10 comments the right topic. "
        "With other comments of the same kind, between 52 and 64 in 100 are to be expected. "
        "Best: cooking (it finds 9 in 10). Worst: politics (it finds 3 in 10, and most often says money instead). "
        "For comparison: always answering cooking, the most frequent topic, would be right for about 36 in 100."
    )


@pytest.mark.parametrize(
    ("share", "rows", "words"),
    [
        (0.58, None, "6 in 10"),
        (0.5, None, "5 in 10"),
        (0.55, None, "55 in 100"),
        (0.97, None, "97 in 100"),
        (0.996, None, "996 in 1,000"),
        (0.9999, None, "nearly all"),
        (0.0002, None, "nearly none"),
        (1.0, None, "all"),
        (0.0, 9, "none"),
        (0.78, 9, "7 of 9"),
        (0.76, 90, "76 in 100"),
    ],
)
def test_shares_in_words(share: float, rows: int | None, words: str) -> None:
    assert share_in_words(share, rows) == words


@given(st.floats(0, 1))
def test_a_share_in_words_is_near_the_share(share: float) -> None:
    words = share_in_words(share)
    if words in ("all", "none"):
        assert share in (0, 1)
    elif not words.startswith("nearly"):
        part, whole = (int(number.replace(",", "")) for number in words.split(" in "))
        assert abs(part / whole - share) <= 0.025
        assert 0 < part < whole


def test_all_and_none_are_said_only_where_they_are_true() -> None:
    perfect = scores(accuracy={"value": 1.0, "low": 0.98, "high": 1.0}, columns={})
    assert plain(describe_scores(perfect)).startswith("It gives all 250 test texts the right label. Best")
    wrong = scores(accuracy={"value": 0.0, "low": 0.0, "high": 0.02}, columns={})
    assert plain(describe_scores(wrong)).startswith("It gives none of the 250 test texts the right label.")
    assert "all" not in plain(describe_scores(scores(accuracy={"value": 0.99996})))[:40].replace("nearly all", "")


def test_without_an_interval_none_is_said() -> None:
    assert "expected" not in plain(describe_scores(scores(accuracy={"value": 0.6, "low": None, "high": None})))
    assert describe_scores(scores(accuracy={"value": None})) == []
    assert describe_scores(scores(accuracy={})) == []


@pytest.mark.parametrize(
    ("columns", "classes", "words"),
    [
        ({"text": "review", "label": "stars"}, 3, "reviews the right stars"),
        ({"text": "Title", "label": "Topic"}, 3, "titles the right topic"),
        ({"text": "comment_text", "label": "category_index"}, 3, "texts the right label"),
        ({"text": "评论", "label": "类别"}, 3, "texts the right label"),
        ({"text": "text", "label": "ticket_category"}, 3, "texts the right ticket category"),
        ({"text": "text", "label": "coarse"}, 3, "texts the right label"),
        ({"text": "text", "label": "toxic"}, 2, "texts the right label"),
        ({"text": "question", "text_pair": "other", "label": "same"}, 3, "pairs of questions the right label"),
        ({}, 3, "texts the right label"),
    ],
)
def test_columns_name_texts_and_labels_where_they_are_words(columns: dict[str, str], classes: int, words: str) -> None:
    found = scores(columns=columns, recalls=scores().recalls[:classes])
    assert f"about 6 in 10 {words}." in plain(describe_scores(found))


def test_rows_of_many_labels_have_to_be_right_exactly() -> None:
    text = plain(describe_scores(scores(confusion=None, columns={"text": "text"})))
    assert text.startswith("It gives about 6 in 10 texts exactly the right labels.")
    assert "instead" not in text
    assert "For comparison" not in text


def test_measured_baselines_come_in_place_of_the_most_frequent_label() -> None:
    text = plain(describe_scores(scores(others=[("answering a", 0.2), ("counting words", 1.0)])))
    assert text.endswith(
        "For comparison: answering a would be right for about 2 in 10; counting words would be right for all."
    )


def test_classes_without_rows_or_without_a_difference_are_not_named() -> None:
    same = [recall("a", 9, 0.5), recall("b", 9, 0.5), recall("c", 0, None)]
    assert "Best" not in plain(describe_scores(scores(recalls=same)))
    one = [recall("a", 9, 0.5), recall("c", 0, None)]
    assert "Best" not in plain(describe_scores(scores(recalls=one)))
    assert advise(scores(recalls=one)) == []


@pytest.mark.parametrize("label", HOSTILE)
def test_labels_cannot_act(label: str) -> None:
    recalls = [recall(label, 90, 0.9), recall("b", 60, 0.3)]
    found = scores(recalls=recalls, confusion=[[81, 9], [42, 18]], trained={label: 3, "b": 9})
    for sentence in [*describe_scores(found), *advise(found)]:
        assert set(re.findall(r"</?([a-z]+)", sentence)) <= {"strong", "bdi", "span"}
        assert not set(sentence) & set("\u202e\u2066\u2067\x00")


@pytest.mark.parametrize("problem_type", [SINGLE_LABEL, MULTI_LABEL, None])
@pytest.mark.parametrize("metric", [*METRICS, "one of a later version"])
def test_every_metric_is_explained_in_a_sentence(metric: str, problem_type: str | None) -> None:
    text = explain_metric(metric, problem_type)
    if metric in METRICS:
        assert text[0].isupper()
        assert text.endswith(".")
        assert ("F1 joins two shares" in text) == ("F1" in METRICS[metric].phrase)
    else:
        assert text == ""
    assert explain_metric("accuracy", SINGLE_LABEL).endswith("1 is the best possible value.")
    assert "0 is the best possible value" in explain_metric("log_loss", SINGLE_LABEL)


def test_advice_on_the_worst_class_is_more_rows_or_a_look_at_its_rival() -> None:
    few = plain(advise(scores(trained={"cooking": 300, "money": 280, "politics": 31})))
    assert "Label more texts as politics: it is found worst, and only 31 of 611 training rows have it." in few
    many = plain(advise(scores()))
    assert "Look at politics and money: 26 of 60 comments labeled politics were put into money." in many
    scattered = scores(confusion=[[90, 0, 0], [0, 100, 0], [5, 4, 51]])
    assert "Look at" not in plain(advise(scattered))
    good = scores(recalls=[recall("a", 90, 0.99), recall("b", 60, 0.95)])
    assert advise(good) == []


def test_advice_on_few_rows_and_on_probabilities() -> None:
    text = plain(advise(scores(rows=80, ece=0.3)))
    assert "the score comes from 80 test rows" in text
    assert "probabilities" not in text  # with few rows the error is mostly chance
    assert "they are off by 0.30 on average" in plain(advise(scores(ece=0.3)))
    assert "80 " not in plain(advise(scores(rows=80, part="")))


def test_advice_is_short() -> None:
    step = Markup("Do it.")
    found = advise(scores(rows=80), [step] * 3, [step] * 9)
    assert len(found) == MOST_STEPS
    assert found[:3] == [step] * 3
