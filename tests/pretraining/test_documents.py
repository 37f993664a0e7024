"""fullbake.pretraining.documents: Paragraphs to sentences: nothing is lost on the way, whatever the text; Raw text as documents: what ends one, what every source gives, and what is refused, with its place; Texts that will be scored stay out of the corpus, and how many did is known as long as the corpus is."""

import gzip
import tracemalloc
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from helpers.corpora import LIMIT, load_tokenizer, reading, source_of
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from fullbake.core.cache import Cache
from fullbake.core.errors import DataError
from fullbake.pretraining import documents
from fullbake.pretraining.corpus import Corpus, build_corpus
from fullbake.pretraining.documents import (
    LONGEST_SENTENCE_TEXT,
    Decontamination,
    Document,
    DocumentSource,
    file_source,
    first_paragraphs,
    split_sentences,
    text_source,
)

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
        patch.setattr(documents, "LONGEST_SENTENCE_TEXT", 20)
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
    assert max(map(len, words)) <= LONGEST_SENTENCE_TEXT
    assert {piece for sentence in words for piece in sentence.split()} == {"word"}
    solid = split_sentences("x" * (2 * LONGEST_SENTENCE_TEXT + 1))
    assert [len(piece) for piece in solid] == [LONGEST_SENTENCE_TEXT, LONGEST_SENTENCE_TEXT, 1]


def read(path: Path, **options: str) -> list[tuple[str, ...]]:
    return [document.paragraphs for document in file_source(path, **options).read()]


def test_a_blank_line_ends_a_document(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_bytes(b"\n\none\ntwo\r\n \t\n\nthree\n")
    found = list(file_source(path).read())
    assert [document.paragraphs for document in found] == [("one", "two"), ("three",)]
    assert [document.where for document in found] == [f"{path}, line 3", f"{path}, line 7"]
    assert not any(document.continues for document in found)


def test_a_packed_file_is_read_alike(tmp_path: Path) -> None:
    path = tmp_path / "x.txt.gz"
    path.write_bytes(gzip.compress(b"eins\n\nzwei"))
    assert read(path) == [("eins",), ("zwei",)]
    assert file_source(path).size is None


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_a_row_of_a_table_is_a_document(tmp_path: Path, form: str) -> None:
    path = tmp_path / f"x.{form}"
    if form == "csv":
        path.write_text('id,body\n1,"one\n\ntwo"\n2,\n3,three\n')
    elif form == "jsonl":
        path.write_text('{"body": "one\\n\\ntwo"}\n{"body": null}\n{"body": "three"}\n')
    else:
        parquet.write_table(pa.table({"body": ["one\n\ntwo", None, "three"]}), path)
    assert read(path, text="body") == [("one", "two"), ("three",)]


def test_a_folder_is_one_table_and_what_lies_about_in_it_is_not(tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_text("text\ntwo\n")
    (tmp_path / "a.csv").write_text("text\none\n")
    (tmp_path / ".git").mkdir()
    (tmp_path / "_done").write_text("")
    assert read(tmp_path) == [("one",), ("two",)]


def test_texts_in_memory(tmp_path: Path) -> None:
    texts = ["one\ntwo", " ", "three"]
    column = pa.chunked_array([texts[:1], texts[1:]])
    for source in (text_source(texts, "train", "k"), text_source(column, "train", "k")):
        assert list(source.read()) == [Document("train, row 1", ("one", "two")), Document("train, row 3", ("three",))]
        assert source.size


def test_the_fingerprint_is_of_what_is_read_not_of_where_it_lies(tmp_path: Path) -> None:
    one, other = tmp_path / "one.txt", tmp_path / "other.txt"
    one.write_text("a")
    other.write_text("a")
    assert file_source(one).fingerprint == file_source(other).fingerprint
    assert file_source(one).fingerprint != file_source(one, encoding="latin-1").fingerprint
    other.write_text("b")
    assert file_source(one).fingerprint != file_source(other).fingerprint
    table = tmp_path / "x.csv"
    table.write_text("text,more\na,b\n")
    assert file_source(table).fingerprint != file_source(table, text="more").fingerprint


@given(st.lists(st.sampled_from(["", " ", "a", "bb", "ccc ddd", "eeeeeeee"]), max_size=30))
def test_parts_of_long_documents_add_up_to_them(lines: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(documents, "LONGEST_DOCUMENT", 10)
        found = list(documents._split_long_document((str(number), line) for number, line in enumerate(lines)))
    whole: list[tuple[str, ...]] = []
    for document in found:
        if document.continues:
            whole[-1] += document.paragraphs
        else:
            whole.append(document.paragraphs)
        assert document.characters < 10 + 8
    expected = [tuple(part.split("\n")) for part in _blocks(lines)]
    assert whole == expected


def _blocks(lines: list[str]) -> list[str]:
    text = "\n".join(line.strip() and line for line in lines)
    return [block.strip("\n") for block in text.split("\n\n") if block.strip("\n")]


def test_a_file_without_a_blank_line_is_not_held_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "LONGEST_DOCUMENT", 100_000)
    path = tmp_path / "x.txt"
    path.write_text("A line of a very long book.\n" * 200_000)
    tracemalloc.start()
    parts = sum(document.continues for document in file_source(path).read())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert parts > 40
    assert peak < 2_000_000


# What is refused


def test_a_line_of_100_mb_is_refused_before_it_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    with path.open("w") as file:
        file.write("fine\n")
        for _ in range(100):
            file.write("word " * 200_000)
    source = file_source(path)
    tracemalloc.start()
    with pytest.raises(DataError, match=r"x\.txt, line 2: a paragraph that is too long"):
        list(source.read())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50_000_000


def test_so_is_one_in_a_row_of_a_table(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    parquet.write_table(pa.table({"text": ["fine", "word " * 2_100_000]}), path)
    with pytest.raises(DataError, match=r"row 2: a paragraph that is too long"):
        list(file_source(path).read())


def test_binary_is_refused_with_its_byte(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_bytes(b"fine\nalso \x00 fine")
    with pytest.raises(DataError, match=r"x\.txt, line 2, byte 10: a NUL character"):
        read(path)


def test_bad_encoding_is_refused_with_its_byte(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_bytes(b"fine\n" * 50_000 + b"caf\xe9 noir")
    with pytest.raises(DataError, match=r"x\.txt, line 50001, byte 250003: this is not utf-8"):
        read(path)
    assert read(path, encoding="latin-1")[0][-1] == "café noir"


@pytest.mark.parametrize("name", ["x.docx", "x", "missing.txt", "missing.csv"])
def test_what_is_no_text_is_refused(tmp_path: Path, name: str) -> None:
    if "missing" not in name:
        (tmp_path / name).write_text("a")
    with pytest.raises(DataError, match=name):
        file_source(tmp_path / name)


def test_a_column_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("body\na\n")
    with pytest.raises(DataError, match="no column 'text'"):
        file_source(tmp_path / "x.csv")


def test_the_beginning_of_a_source_is_paragraphs_and_no_more_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"aaaa\nbbbb\ncccc\n\ndddd\neeee\n\nffff\n")
    whole, read = file_source(path), []

    def noted() -> Iterator[Document]:
        for document in whole.read():
            read.append(document)
            yield document

    source = replace(whole, read=noted)
    kept = [document.paragraphs for document in first_paragraphs(source, 13).read()]
    assert kept == [("aaaa", "bbbb", "cccc"), ("dddd",)]
    assert len(read) == 2
    assert [document.paragraphs for document in first_paragraphs(source, 5).read()] == [("aaaa", "bbbb")]


LONG = "The film was shot in a small harbour town, and the weather never once did what the director asked of it."
NEAR = LONG.replace("small", "little")
OTHER = "A bank that asks for your password by mail is not your bank, however well it draws the logo at the top."


def kept(texts: Sequence[str], held_back: Sequence[str], **options: bool) -> tuple[list[str], tuple[int, int]]:
    """(what is left, its lines joined; how many documents and paragraphs were found)."""
    source = Decontamination(held_back, **options).over(source_of(texts))
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
    guarded = Decontamination([]).over(source)
    assert guarded.fingerprint == source.fingerprint
    assert guarded.counted() == {"held_back_documents": 0, "held_back_paragraphs": 0}


@settings(max_examples=20)
@given(
    st.lists(st.sampled_from([LONG, NEAR, OTHER, "ok", f"ok\n{LONG}", f"{OTHER}\nno"]), max_size=12), st.integers(1, 5)
)
def test_portions_change_nothing(texts: list[str], portion: int) -> None:
    expected = kept(texts, [LONG, "ok"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(documents, "_CHUNK_TEXTS", portion)
        assert kept(texts, [LONG, "ok"]) == expected


def test_reading_again_counts_anew() -> None:
    source = Decontamination([LONG]).over(source_of([LONG, OTHER]))
    for _ in range(3):
        list(source.read())
    assert source.counted()["held_back_documents"] == 1


def build(folder: Path, sources: Sequence[DocumentSource]) -> Corpus:
    return build_corpus(sources, reading(load_tokenizer("bert")), Cache(folder, LIMIT))


def test_a_corpus_from_the_cache_still_knows_its_leaks(tmp_path: Path) -> None:
    for _ in range(2):
        guard = Decontamination([LONG])
        found = build(tmp_path, [guard.over(source_of([LONG, f"{OTHER}\n{NEAR}", OTHER]))])
        assert (found.facts["held_back_documents"], found.facts["held_back_paragraphs"]) == (1, 1)
        assert found.facts["documents"] == 2


def test_leaks_of_several_sources_add_up(tmp_path: Path) -> None:
    guard = Decontamination([LONG])
    sources = [guard.over(source_of(texts)) for texts in ([LONG, OTHER], [NEAR, "More text."], ["None."])]
    assert build(tmp_path, sources).facts["held_back_documents"] == 2


def test_with_and_without_are_corpora_of_their_own(tmp_path: Path) -> None:
    source = source_of([LONG, OTHER])
    guards = [
        Decontamination([]),
        Decontamination([LONG]),
        Decontamination([LONG], lets_in=True),
        Decontamination([OTHER]),
    ]
    assert len({guard.over(source).fingerprint for guard in guards}) == 4
    kept_in = build(tmp_path, [guards[2].over(source)])
    assert (kept_in.facts["documents"], kept_in.facts["held_back_documents"]) == (2, 1)


def test_memory_is_that_of_a_portion(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "_CHUNK_CHARACTERS", 1000)
    sizes: list[int] = []
    original = documents.find_overlap

    def spied(texts: list[str], others: Sequence[str]) -> object:
        sizes.append(sum(map(len, texts)))
        return original(texts, others)

    monkeypatch.setattr(documents, "find_overlap", spied)
    list(Decontamination([LONG]).over(source_of([f"{OTHER}\n{number}" for number in range(200)])).read())
    assert len(sizes) > 10
    assert max(sizes) < 2 * (1000 + 2 * len(OTHER))
