"""Explanations as HTML show every word, and nothing in a text or a label acts."""

import re
from html import unescape

import pytest
from helpers.counting import counting_classifier
from helpers.leaderboards import HOSTILE

from fullbake.classifier.explanation import Explanation
from fullbake.classifier.explanation_view import explanation_html, explanation_page
from fullbake.core.pages import CONTENT_POLICY

OURS = {
    "style",
    "div",
    "p",
    "b",
    "bdi",
    "mark",
    "section",
    "details",
    "summary",
    "table",
    "thead",
    "tbody",
    "tr",
    "th",
    "td",
    "span",
}
PAGE = OURS | {"html", "head", "meta", "title", "body", "main", "footer"}


def shown(found: Explanation) -> str:
    return explanation_html(found.to_json(), found.notes)


def tags(page: str) -> set[str]:
    return set(re.findall(r"<([a-z]+)", page))


@pytest.mark.parametrize("text", [text for text in HOSTILE if "\ud800" not in text])
def test_hostile_texts_and_labels_are_inert(text: str) -> None:
    classifier = counting_classifier(names=(text, "</style><script>alert(1)</script>"))
    found = classifier.explain(f"good {text}", labels=list(classifier.label_names))
    assert tags(shown(found)) <= OURS
    page = explanation_page(found.to_json(), found.notes)
    assert tags(page) <= PAGE
    assert CONTENT_POLICY in page
    assert "\u202e" not in page
    assert not re.search(r"<[^>]*\son\w+=", page)


def test_text_is_whole_and_words_are_shaded_by_their_effect() -> None:
    page = shown(counting_classifier().explain("the good film\nis bad, good <i>"))
    text = re.search(r'<div class="text" dir="auto">(.*?)</div>', page, re.DOTALL)
    assert text is not None
    assert unescape(re.sub(r"<[^>]*>", "", text[1])) == "the good film\nis bad, good <i>"
    assert re.search(r'rgba\(47,127,193,0\.\d+\)" title="\+0\.\d+">good<', page)
    assert re.search(r'rgba\(217,115,13,0\.\d+\)" title="−0\.\d+">bad<', page)
    assert 'background:none" title="0.000">film<' in page


def test_what_is_not_read_is_faint() -> None:
    page = shown(counting_classifier(max_length=4).explain("good film is bad"))
    assert '<span class="unread" title="not read">is bad</span>' in page


def test_both_texts_of_a_pair_and_each_label_are_shown() -> None:
    found = counting_classifier(pairs=True).explain("good", "bad film", labels=["good", "bad"])
    assert shown(found).count('class="text"') == 4
    assert found._repr_html_() == shown(found)
    assert "<title>Why this label</title>" in found.to_html()


def test_text_without_words_is_shown() -> None:
    assert "There is no word in it." in shown(counting_classifier().explain(" "))
