"""Nothing hides in a text that is shown, and nothing visible is lost."""

import html
import re
import unicodedata

import pytest
from boards import HOSTILE, STRANGE
from hypothesis import given
from hypothesis import strategies as st

from fullbake.comparison.svg import isolate, reveal, show

BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
any_text = st.text(st.characters(exclude_categories=()), max_size=60) | st.text(st.sampled_from(BIDI + "a<&\x00\ud800"))


def unmarked(page: str) -> str:
    """The text of `reveal`'s HTML, marks as `show` writes them."""
    return html.unescape(re.sub(r'<span class="mark" title="[^"<>&]*">(U\+[0-9A-F]{4,6})</span>', r"⟦\1⟧", page))


@given(any_text)
def test_html_and_plain_text_say_the_same(text: str) -> None:
    assert unmarked(reveal(text)) == show(text)
    assert isolate(text) == f"<bdi>{reveal(text)}</bdi>"


@given(any_text)
def test_what_is_shown_can_be_written_and_reorders_nothing(text: str) -> None:
    for shown in (show(text), reveal(text)):
        shown.encode()
        assert not set(shown) & set(BIDI)
        assert not [c for c in shown if unicodedata.category(c) == "Cc" and c not in "\t\n"]


@given(any_text)
def test_no_markup_comes_out_of_a_text(text: str) -> None:
    assert set(re.findall(r"<[^>]*?[ >]", reveal(text))) <= {"<span ", "</span>"}


@pytest.mark.parametrize("text", ["plain", "a\n\tb", *STRANGE, "👩‍🍳", "می‌خواهم", "café", "é"])
def test_what_people_write_stays_as_it_is(text: str) -> None:
    assert show(text) == text
    assert html.unescape(reveal(text)) == text


def test_marks_name_what_was_hidden() -> None:
    assert show("a\u202eb\x00\ud800") == "a⟦U+202E⟧b⟦U+0000⟧⟦U+D800⟧"
    assert 'title="right-to-left override">U+202E<' in reveal("\u202e")
    assert 'title="control character">U+0000<' in reveal("\x00")


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_hold_no_tag(text: str) -> None:
    assert not re.search(r"<(?!span class=\"mark\"|/span>)", reveal(text))
