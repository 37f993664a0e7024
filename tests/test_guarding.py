"""Texts that will be scored stay out of the corpus, and how many did is known as long as the corpus is."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from corpora import LIMIT, load_tokenizer, reading, source_of
from hypothesis import given, settings
from hypothesis import strategies as st

from fullbake.core.cache import Cache
from fullbake.pretraining import documents
from fullbake.pretraining.corpus import Corpus, build_corpus
from fullbake.pretraining.documents import Guard, Source

LONG = "The film was shot in a small harbour town, and the weather never once did what the director asked of it."
NEAR = LONG.replace("small", "little")
OTHER = "A bank that asks for your password by mail is not your bank, however well it draws the logo at the top."


def kept(texts: Sequence[str], held_back: Sequence[str], **options: bool) -> tuple[list[str], tuple[int, int]]:
    """(what is left, its lines joined; how many documents and paragraphs were found)."""
    source = Guard(held_back, **options).over(source_of(texts))
    left = ["\n".join(document.paragraphs) for document in source.read()]
    return left, (source.counted()["held_back_documents"], source.counted()["held_back_paragraphs"])


@pytest.mark.parametrize(
    ("text", "held_back"),
    [
        ("ok thanks", "OK  Thanks"),
        ("ﬁne café", "fine cafe\u0301"),
        (LONG, LONG.upper()),
        (NEAR, LONG),
        ("one line\nand another", "One line and another"),
        ("one line and another", "One line\nand another"),
    ],
)
def test_whole_documents(text: str, held_back: str) -> None:
    assert kept([OTHER, text], [held_back]) == ([OTHER], (1, 0))
    assert kept([OTHER, text], [held_back], lets_in=True) == ([OTHER, text], (1, 0))


@pytest.mark.parametrize("paragraph", [LONG, NEAR, LONG.upper()])
def test_paragraphs_inside_longer_documents(paragraph: str) -> None:
    text = f"{OTHER}\n{paragraph}\nThe end.\n{paragraph}"
    assert kept([text], [LONG]) == ([f"{OTHER}\nThe end."], (0, 2))
    assert kept([text], [LONG], lets_in=True) == ([text], (0, 2))


def test_texts_that_a_document_has_as_several_paragraphs() -> None:
    lines = [OTHER, "The film was short.", "It rained a lot!", "Nobody minded.", "The end."]
    held_back = "the film was short. It rained  a lot! Nobody minded."
    assert kept(["\n".join(lines)], [held_back]) == ([f"{OTHER}\nThe end."], (0, 3))
    assert kept(["\n".join(lines)], [held_back[:-10]])[1] == (0, 0)
    assert kept(["\n".join(lines)], [f"{held_back}\nThe end."])[1] == (0, 4)
    assert kept(["\n".join(lines[2:])], ["It rained a lot"])[1] == (0, 0)


def test_a_document_of_which_nothing_is_left_is_gone() -> None:
    assert kept([f"{LONG}\n{OTHER}"], [LONG, OTHER]) == ([], (0, 2))


def test_what_only_resembles_stays() -> None:
    texts = [OTHER, "ok thanks a lot", LONG[:40], f"{LONG} {OTHER}"]
    assert kept(texts, [LONG, "ok thanks"]) == (texts, (0, 0))


def test_without_held_back_texts_nothing_is_found_and_nothing_changes() -> None:
    source = source_of([LONG])
    guarded = Guard([]).over(source)
    assert guarded.fingerprint == source.fingerprint
    assert guarded.counted() == {"held_back_documents": 0, "held_back_paragraphs": 0}


@settings(max_examples=20)
@given(
    st.lists(st.sampled_from([LONG, NEAR, OTHER, "ok", f"ok\n{LONG}", f"{OTHER}\nno"]), max_size=12), st.integers(1, 5)
)
def test_portions_change_nothing(texts: list[str], portion: int) -> None:
    expected = kept(texts, [LONG, "ok"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(documents, "_PORTION_TEXTS", portion)
        assert kept(texts, [LONG, "ok"]) == expected


def test_reading_again_counts_anew() -> None:
    source = Guard([LONG]).over(source_of([LONG, OTHER]))
    for _ in range(3):
        list(source.read())
    assert source.counted()["held_back_documents"] == 1


def build(folder: Path, sources: Sequence[Source]) -> Corpus:
    return build_corpus(sources, reading(load_tokenizer("bert")), Cache(folder, LIMIT))


def test_a_corpus_from_the_cache_still_knows_its_leaks(tmp_path: Path) -> None:
    for _ in range(2):
        guard = Guard([LONG])
        found = build(tmp_path, [guard.over(source_of([LONG, f"{OTHER}\n{NEAR}", OTHER]))])
        assert (found.facts["held_back_documents"], found.facts["held_back_paragraphs"]) == (1, 1)
        assert found.facts["documents"] == 2


def test_leaks_of_several_sources_add_up(tmp_path: Path) -> None:
    guard = Guard([LONG])
    sources = [guard.over(source_of(texts)) for texts in ([LONG, OTHER], [NEAR, "More text."], ["None."])]
    assert build(tmp_path, sources).facts["held_back_documents"] == 2


def test_with_and_without_are_corpora_of_their_own(tmp_path: Path) -> None:
    source = source_of([LONG, OTHER])
    guards = [Guard([]), Guard([LONG]), Guard([LONG], lets_in=True), Guard([OTHER])]
    assert len({guard.over(source).fingerprint for guard in guards}) == 4
    kept_in = build(tmp_path, [guards[2].over(source)])
    assert (kept_in.facts["documents"], kept_in.facts["held_back_documents"]) == (2, 1)


def test_memory_is_that_of_a_portion(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "_PORTION_CHARACTERS", 1000)
    sizes: list[int] = []
    original = documents.find_overlap

    def spied(texts: list[str], others: Sequence[str]) -> object:
        sizes.append(sum(map(len, texts)))
        return original(texts, others)

    monkeypatch.setattr(documents, "find_overlap", spied)
    list(Guard([LONG]).over(source_of([f"{OTHER}\n{number}" for number in range(200)])).read())
    assert len(sizes) > 10
    assert max(sizes) < 2 * (1000 + 2 * len(OTHER))
