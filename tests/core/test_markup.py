"""HTML is built of texts without any of them acting."""

import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fullbake.core.markup import (
    Html,
    escape_html,
    facts_table,
    isolate,
    join,
    mark_hidden,
    notebook_block,
    tag,
    value_table,
    warnings_block,
)

any_text = st.text(st.characters(exclude_categories=()), max_size=40) | st.text(st.sampled_from("<>&\"'\x00\u202ea"))


class Reader(HTMLParser):
    """Collects the elements, their attributes and the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


@given(any_text, any_text)
def test_texts_and_attributes_stay_texts(text: str, attribute: str) -> None:
    read = Reader(tag("p", text, title=attribute))
    assert read.elements[0] == "p"
    assert set(read.elements[1:]) <= {"span"}
    assert read.attributes[0] == ("title", mark_hidden(attribute))
    marks = sum(element == "span" for element in read.elements)
    assert len(read.attributes) == 1 + 2 * marks


def test_html_is_not_escaped_again_and_none_is_left_out() -> None:
    assert tag("p", tag("b", "<"), None, " & ", class_="a", hidden=None) == '<p class="a"><b>&lt;</b> &amp; </p>'
    assert join("<", Html("<br>")) == "&lt;<br>"
    assert tag("meta", charset="utf-8") == '<meta charset="utf-8">'
    assert isolate("<") == "<bdi>&lt;</bdi>"


def test_hidden_characters_are_named() -> None:
    assert escape_html("a\u202e") == 'a<span class="mark" title="right-to-left override">U+202E</span>'


def test_tables_have_headers_and_leave_out_what_is_empty() -> None:
    assert Reader(facts_table({"rows": "3", "none": None, "empty": ""})).text == "rows3"
    table = value_table(("word", "effect"), [("a<b", "1"), ("c", "2")])
    assert re.findall(r"<th [^>]*>(.*?)</th>", table) == ["word", "effect", "a&lt;b", "c"]


def test_block_brings_its_style() -> None:
    block = notebook_block("title", tag("p", "text"))
    assert block.startswith('<div class="fb"><style>')
    assert Reader(block).elements == ["div", "style", "p", "p"]


@pytest.mark.parametrize(("sentences", "count"), [([], 0), (["one", "two <b>"], 2)])
def test_warnings_are_paragraphs(sentences: list[str], count: int) -> None:
    block = warnings_block(sentences)
    assert (block or "").count('<p class="w">') == count
