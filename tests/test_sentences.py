"""Paragraphs to sentences: nothing is lost on the way, whatever the text."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fullbake.pretraining import documents
from fullbake.pretraining.documents import LONGEST, split_sentences

PROSE = st.text("ab .!?。！\"'()\n\t\u00a0\u2028\u3000\u200b1A“”）«»", max_size=80)


def squeezed(text: str) -> str:
    return "".join(text.split())


@settings(max_examples=300)
@given(st.text(max_size=60) | PROSE, st.sampled_from(["en", "de", "zh", "th", "ar", "xx"]))
def test_nothing_is_lost_but_white_space(text: str, language: str) -> None:
    sentences = split_sentences(text, language)
    assert squeezed("".join(sentences)) == squeezed(text)
    assert all(sentence and sentence == sentence.strip() for sentence in sentences)


@pytest.mark.parametrize("space", [char for char in map(chr, range(0x110000)) if char.isspace()])
@pytest.mark.parametrize("language", ["en", "fr", "zh", "ar", "xx"])
def test_a_letter_white_space_and_a_full_stop_end_a_sentence(space: str, language: str) -> None:
    """The splitter panics at some of these."""
    found = split_sentences(f"This is plan A{space}. That is plan B{space}.", language)
    assert squeezed("".join(found)) == "ThisisplanA.ThatisplanB."


@pytest.mark.parametrize(
    ("text", "language", "count"),
    [
        ("Dr. Smith went home. He slept! Did he?", "en", 3),
        ("It costs 3.50 euros, e.g. today. Yes.", "en", 2),
        ("这间酒店很好。服务不错！你去吗？", "zh", 3),
        ("私は学生です。あなたは？", "ja", 2),
        ("यह अच्छा है। वह भी।", "hi", 2),
        ("هل أنت بخير؟ نعم.", "ar", 2),
        ("这间酒店很好。服务不错！", "en", 2),
        ("no end", "en", 1),
        (" \n ", "en", 0),
    ],
)
def test_ends_of_sentences(text: str, language: str, count: int) -> None:
    assert len(split_sentences(text, language)) == count


@settings(max_examples=200)
@given(st.lists(PROSE, max_size=12).map(" ".join), st.sampled_from(["en", "zh"]))
def test_nothing_is_lost_where_a_paragraph_is_read_in_windows(text: str, language: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(documents, "LONGEST", 20)
        found = split_sentences(text, language)
    assert squeezed("".join(found)) == squeezed(text)
    assert all(len(sentence) <= 20 for sentence in found)


def test_a_stray_quotation_mark_hides_no_ends_far_away() -> None:
    text = 'He said " and left. ' + "This is one more sentence. " * 2_000
    assert len(split_sentences(text)) > 1_900


def test_a_long_paragraph_ends_its_sentences_where_a_short_one_does() -> None:
    text = " ".join(f"This is sentence number {number}." for number in range(2_000))
    assert split_sentences(text) == [f"This is sentence number {number}." for number in range(2_000)]


def test_what_has_no_end_is_cut_at_white_space_where_there_is_any() -> None:
    words = split_sentences("word " * 10_000)
    assert max(map(len, words)) <= LONGEST
    assert {piece for sentence in words for piece in sentence.split()} == {"word"}
    solid = split_sentences("x" * (2 * LONGEST + 1))
    assert [len(piece) for piece in solid] == [LONGEST, LONGEST, 1]
