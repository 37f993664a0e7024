"""What a base and the general text do not know of a corpus is said, and nothing is said of what they know."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.corpora import load_tokenizer, make_documents, source_of
from helpers.pretraining_runs import make_run

from fullbake.pretraining.familiarity import (
    SAMPLE_CHARACTERS,
    count_first_letters,
    share_without_token,
    warn_of_unfamiliar_text,
)
from fullbake.pretraining.forgetting import general_text

CHINESE = ["酒店装修一般，但还算整洁。", "早餐是西式的，还算丰富。"]


def test_text_that_is_known_gives_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    warn_of_unfamiliar_text([source_of(make_documents(30))], load_tokenizer("bert"), 0.0, general_text())
    assert caplog.messages == []


def test_script_that_base_and_general_text_lack_is_named(caplog: pytest.LogCaptureFixture) -> None:
    warn_of_unfamiliar_text([source_of(CHINESE)], load_tokenizer("bert"), 0.64, general_text())
    letters, general, tokens = caplog.messages
    assert letters == "the base's tokenizer has no token for 100% of the Han letters of this text"
    assert general.startswith("100% of the letters of this text are Han, but the general text has none of them")
    assert "--probe-text" in general
    assert tokens.startswith("64.0% of the tokens are unknown")


def test_general_text_is_not_spoken_of_where_nothing_can_be_forgotten(caplog: pytest.LogCaptureFixture) -> None:
    warn_of_unfamiliar_text([source_of(CHINESE)], load_tokenizer("bert"), 0.0, None)
    assert [message for message in caplog.messages if "general text" in message] == []


def test_a_few_foreign_letters_are_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    texts = [*make_documents(30), CHINESE[0]]
    warn_of_unfamiliar_text([source_of(texts)], load_tokenizer("bert"), 0.01, general_text())
    assert caplog.messages == []


@pytest.mark.parametrize("family", ["bert", "roberta", "xlm-roberta", "deberta-v3"])
def test_letters_without_a_token_are_those_unknown_or_cut_into_bytes(family: str) -> None:
    tokenizer = load_tokenizer(family)
    assert share_without_token(Counter("the old house"), tokenizer) == 0
    assert share_without_token(Counter(e=3, 漢=1), tokenizer) == pytest.approx(0.25)
    assert share_without_token(Counter(), tokenizer) == 0


def test_letters_are_counted_by_script_in_the_beginning_of_each_source() -> None:
    sources = [source_of(["ab。a1", *["x" * 1000] * (SAMPLE_CHARACTERS // 1000)]), source_of(["漢字"], key="other")]
    letters = count_first_letters(sources)
    assert list(letters) == ["Latin", "Han"]
    assert letters["Latin"]["a"] == 2
    assert letters["Latin"].total() < SAMPLE_CHARACTERS // 2 + 1010
    assert letters["Han"] == Counter("漢字")


def test_run_on_an_unknown_script_says_so(
    bases: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_run(bases("bert"), tmp_path, [f"{text} the man {number}" for number, text in enumerate(CHINESE * 10)])
    assert "Han letters" in caplog.text
    assert "--probe-text" in caplog.text
    assert "of the tokens are unknown" in caplog.text
