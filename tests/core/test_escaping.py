"""Nothing hidden stays hidden, and what may be shown stays as it is."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fullbake.core.escaping import can_encode, escape_hidden, escape_json, escape_unencodable

FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
PERSIAN = "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred", r"\x1b[31mred"),
        ("good\rbad", r"good\rbad"),
        ("two\nlines\tand a tab", r"two\nlines\tand a tab"),
        ("abc\u202edef", r"abc\u202edef"),
        ("zero\u200bwidth\ufeff", r"zero\u200bwidth\ufeff"),
        ("a\u200db", r"a\u200db"),
        ("bell\x07 and \x9b1m", r"bell\x07 and \x9b1m"),
        ("\udcff.csv", r"\udcff.csv"),
        (FAMILY, FAMILY),
        (PERSIAN, PERSIAN),
        ("caf\u00e9 \u2764\ufe0f \u4e2d\u6587", "caf\u00e9 \u2764\ufe0f \u4e2d\u6587"),
    ],
)
def test_hidden_characters_become_escapes(text: str, shown: str) -> None:
    assert escape_hidden(text) == shown
    assert escape_hidden(shown) == shown, "nothing is escaped twice"


def test_lines_may_be_kept() -> None:
    assert escape_hidden("one\n\ttwo\x1b", keep_lines=True) == "one\n\ttwo\\x1b"


@given(st.text(st.characters(exclude_categories=()), max_size=40))
def test_an_escaped_text_is_one_line_without_control_characters(text: str) -> None:
    shown = escape_hidden(text)
    assert len(shown.splitlines()) <= 1
    assert not [character for character in shown if ord(character) < 32 or 0x7F <= ord(character) < 0xA0]
    shown.encode("utf-8")


@given(st.text(st.characters(exclude_categories=()), max_size=40))
def test_json_keeps_its_value(text: str) -> None:
    written = escape_json(json.dumps([text], ensure_ascii=False))
    assert json.loads(written) == [text]
    assert escape_hidden(written) == written


@pytest.mark.parametrize(
    ("text", "encoding", "shown"),
    [
        ("caf\u00e9 \U0001f600", "utf-8", "caf\u00e9 \U0001f600"),
        ("caf\u00e9 \U0001f600", "latin-1", "caf\u00e9 \\U0001f600"),
        ("caf\u00e9 \U0001f600", "ascii", "caf\\xe9 \\U0001f600"),
        ("\u2013 \u22120.1\u2026", "ascii", "- -0.1..."),
    ],
)
def test_what_an_encoding_lacks_is_escaped(text: str, encoding: str, shown: str) -> None:
    assert escape_unencodable(text, encoding) == shown
    assert can_encode(shown, encoding)
    assert can_encode(text, encoding) == (text == shown)
