"""Reading documents, splitting sentences, removing evaluation texts: nothing else may be lost."""

import gzip
import tracemalloc
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from helpers.corpora import LIMIT, load_tokenizer, source_of
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from fullbake.config.sections import Dialect
from fullbake.core.cache import Cache
from fullbake.core.errors import DataError
from fullbake.data.sources import as_source
from fullbake.pretraining.corpus import Corpus, build_corpus
from fullbake.pretraining.documents import (
    SENTENCE_WINDOW,
    Decontamination,
    Document,
    DocumentSource,
    document_sources,
    file_source,
    first_paragraphs,
    group_lines,
    sample_documents,
    split_sentences,
    table_source,
    text_source,
)
from fullbake.pretraining.forgetting import corpus_tokenizer_of

# A sample


@given(st.lists(st.integers(1, 60), max_size=60), st.integers(8, 400))
def test_sample_is_evenly_spread_and_bounded(sizes: list[int], characters: int) -> None:
    texts = [f"{number:<3}".ljust(size, "x") for number, size in enumerate(sizes)]
    halves = [source_of(texts[: len(texts) // 2]), source_of(texts[len(texts) // 2 :], key="second")]
    sample = sample_documents(halves, characters)
    found = ["\n".join(document.paragraphs) for document in sample.source.read()]
    size = sum(map(len, found))
    assert size <= 2 * characters
    assert bool(found) == bool(texts)
    assert sample.share == pytest.approx(size / max(1, sum(map(len, texts))))
    cut = [text[: max(1, characters // 8)] for text in texts]
    step = next(step for step in (1, 2, 4, 8, 16, 32, 64) if len(cut[::step]) == len(found))
    assert found == cut[::step]
    assert step == 1 or sum(map(len, cut[:: step // 2])) > 2 * characters - 60
    assert list(sample.source.read()) == list(sample.source.read())


def test_sample_takes_only_the_beginning_of_a_very_long_document() -> None:
    sample = sample_documents([source_of(["\n".join(["abcd"] * 1000)])], 80)
    (document,) = sample.source.read()
    assert document.paragraphs == ("abcd", "abcd")
    assert sample.share == pytest.approx(8 / 4000)
    key = sample_documents([source_of(["ab", "cd"])], 80).source.fingerprint
    assert key != sample_documents([source_of(["ab", "ce"])], 80).source.fingerprint


# Sentences

PROSE = st.text("ab .!?。！\"'()\n\t\u00a0\u2028\u3000\u200b1A“”）«»", max_size=80)


def without_spaces(text: str) -> str:
    return "".join(text.split())


@settings(max_examples=300)
@given(st.text(max_size=60) | PROSE, st.sampled_from(["en", "de", "zh", "th", "ar", "xx"]))
def test_sentences_lose_nothing_but_white_space(text: str, language: str) -> None:
    sentences = split_sentences(text, language)
    assert without_spaces("".join(sentences)) == without_spaces(text)
    assert all(sentence and sentence == sentence.strip() for sentence in sentences)


@pytest.mark.parametrize("space", [char for char in map(chr, range(0x110000)) if char.isspace()])
@pytest.mark.parametrize("language", ["en", "fr", "zh", "ar", "xx"])
def test_letter_white_space_full_stop_is_split_without_panic(space: str, language: str) -> None:
    """sentencex itself panics at some of these."""
    found = split_sentences(f"This is plan A{space}. That is plan B{space}.", language)
    assert without_spaces("".join(found)) == "ThisisplanA.ThatisplanB."


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
def test_sentence_counts_in_several_languages(text: str, language: str, count: int) -> None:
    assert len(split_sentences(text, language)) == count


@settings(max_examples=200)
@given(st.lists(PROSE, max_size=12).map(" ".join), st.sampled_from(["en", "zh"]))
def test_small_windows_lose_nothing(text: str, language: str) -> None:
    found = split_sentences(text, language, window=20)
    assert without_spaces("".join(found)) == without_spaces(text)
    assert all(len(sentence) <= 20 for sentence in found)


def test_stray_quotation_mark_hides_sentence_ends_only_within_its_window() -> None:
    text = 'He said " and left. ' + "This is one more sentence. " * 2_000
    assert len(split_sentences(text)) > 1_900


def test_long_paragraph_is_split_like_a_short_one() -> None:
    text = " ".join(f"This is sentence number {number}." for number in range(2_000))
    assert split_sentences(text) == [f"This is sentence number {number}." for number in range(2_000)]


def test_text_without_sentence_ends_is_cut_at_white_space_if_there_is_any() -> None:
    words = split_sentences("word " * 10_000)
    assert max(map(len, words)) <= SENTENCE_WINDOW
    assert {piece for sentence in words for piece in sentence.split()} == {"word"}
    solid = split_sentences("x" * (2 * SENTENCE_WINDOW + 1))
    assert [len(piece) for piece in solid] == [SENTENCE_WINDOW, SENTENCE_WINDOW, 1]


# Documents


def read(path: Path, **options: Any) -> list[tuple[str, ...]]:
    return [document.paragraphs for document in file_source(path, **options).read()]


def test_blank_line_ends_a_document(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_bytes(b"\n\none\ntwo\r\n \t\n\nthree\n")
    found = list(file_source(path).read())
    assert [document.paragraphs for document in found] == [("one", "two"), ("three",)]
    assert [document.where for document in found] == [f"{path}, line 3", f"{path}, line 7"]
    assert not any(document.continues for document in found)


def test_compressed_file_is_read_like_a_plain_one(tmp_path: Path) -> None:
    path = tmp_path / "x.txt.gz"
    path.write_bytes(gzip.compress(b"eins\n\nzwei"))
    assert read(path) == [("eins",), ("zwei",)]
    assert file_source(path).size is None


@pytest.mark.parametrize("file_format", ["csv", "jsonl", "parquet"])
def test_each_table_row_is_a_document(tmp_path: Path, file_format: str) -> None:
    path = tmp_path / f"x.{file_format}"
    if file_format == "csv":
        path.write_text('id,body\n1,"one\n\ntwo"\n2,\n3,three\n')
    elif file_format == "jsonl":
        path.write_text('{"body": "one\\n\\ntwo"}\n{"body": null}\n{"body": "three"}\n')
    else:
        parquet.write_table(pa.table({"body": ["one\n\ntwo", None, "three"]}), path)
    assert read(path, text="body") == [("one", "two"), ("three",)]


def test_folder_is_one_table_without_hidden_and_marker_files(tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_text("text\ntwo\n")
    (tmp_path / "a.csv").write_text("text\none\n")
    (tmp_path / ".git").mkdir()
    (tmp_path / "_done").write_text("")
    assert read(tmp_path) == [("one",), ("two",)]


def test_texts_in_memory_are_documents(tmp_path: Path) -> None:
    texts = ["one\ntwo", " ", "three"]
    column = pa.chunked_array([texts[:1], texts[1:]])
    for source in (text_source(texts, "train", "k"), text_source(column, "train", "k")):
        assert list(source.read()) == [Document("train, row 1", ("one", "two")), Document("train, row 3", ("three",))]
        assert source.size


def test_fingerprint_depends_on_content_and_options_not_on_the_path(tmp_path: Path) -> None:
    one, other = tmp_path / "one.txt", tmp_path / "other.txt"
    one.write_text("a")
    other.write_text("a")
    assert file_source(one).fingerprint == file_source(other).fingerprint
    assert file_source(one).fingerprint != file_source(one, dialect=Dialect(encoding="latin-1")).fingerprint
    other.write_text("b")
    assert file_source(one).fingerprint != file_source(other).fingerprint
    table = tmp_path / "x.csv"
    table.write_text("text,more\na,b\n")
    assert file_source(table).fingerprint != file_source(table, text="more").fingerprint


@given(st.lists(st.sampled_from(["", " ", "a", "bb", "ccc ddd", "eeeeeeee"]), max_size=30))
def test_parts_of_a_long_document_add_up_to_it(lines: list[str]) -> None:
    found = list(group_lines(((str(number), line) for number, line in enumerate(lines)), 10))
    whole: list[tuple[str, ...]] = []
    for document in found:
        if document.continues:
            whole[-1] += document.paragraphs
        else:
            whole.append(document.paragraphs)
        assert document.characters < 10 + 8
    expected = [tuple(part.split("\n")) for part in blocks_between_blank_lines(lines)]
    assert whole == expected


def blocks_between_blank_lines(lines: list[str]) -> list[str]:
    text = "\n".join(line.strip() and line for line in lines)
    return [block.strip("\n") for block in text.split("\n\n") if block.strip("\n")]


def test_file_without_a_blank_line_is_not_read_into_memory_whole(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text("A line of a very long book.\n" * 200_000)
    tracemalloc.start()
    parts = sum(document.continues for document in file_source(path, longest_document=100_000).read())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert parts > 40
    assert peak < 2_000_000


def test_line_of_100_mb_is_refused_before_it_is_read_to_its_end(tmp_path: Path) -> None:
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


def test_too_long_paragraph_in_a_table_row_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    parquet.write_table(pa.table({"text": ["fine", "word " * 2_100_000]}), path)
    with pytest.raises(DataError, match=r"row 2: a paragraph that is too long"):
        list(file_source(path).read())


def test_nul_character_is_refused_with_its_byte_offset(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_bytes(b"fine\nalso \x00 fine")
    with pytest.raises(DataError, match=r"x\.txt, line 2, byte 10: a NUL character"):
        read(path)


def test_wrong_encoding_is_refused_with_its_byte_offset(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_bytes(b"fine\n" * 50_000 + b"caf\xe9 noir")
    with pytest.raises(DataError, match=r"x\.txt, line 50001, byte 250003: this is not utf-8"):
        read(path)
    assert read(path, dialect=Dialect(encoding="latin-1"))[0][-1] == "café noir"


@pytest.mark.parametrize("name", ["x.docx", "x", "missing.txt", "missing.csv"])
def test_unknown_or_missing_file_is_refused(tmp_path: Path, name: str) -> None:
    if "missing" not in name:
        (tmp_path / name).write_text("a")
    with pytest.raises(DataError, match=name):
        file_source(tmp_path / name)


def test_missing_column_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("body\na\n")
    with pytest.raises(DataError, match="no column 'text'"):
        file_source(tmp_path / "x.csv")


def test_first_paragraphs_reads_no_further_than_needed(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"aaaa\nbbbb\ncccc\n\ndddd\neeee\n\nffff\n")
    whole, read = file_source(path), []

    def recorded() -> Iterator[Document]:
        for document in whole.read():
            read.append(document)
            yield document

    source = replace(whole, read=recorded)
    kept = [document.paragraphs for document in first_paragraphs(source, 13).read()]
    assert kept == [("aaaa", "bbbb", "cccc"), ("dddd",)]
    assert len(read) == 2
    assert [document.paragraphs for document in first_paragraphs(source, 5).read()] == [("aaaa", "bbbb")]


# Decontamination

LONG = "The film was shot in a small harbour town, and the weather never once did what the director asked of it."
NEAR = LONG.replace("small", "little")
OTHER = "A bank that asks for your password by mail is not your bank, however well it draws the logo at the top."


def decontaminated(texts: Sequence[str], excluded: Sequence[str], **options: Any) -> tuple[list[str], tuple[int, int]]:
    """(the texts that are left, (how many documents, how many paragraphs were found))."""
    source = Decontamination(excluded, **options).apply(source_of(texts))
    left = ["\n".join(document.paragraphs) for document in source.read()]
    return left, (source.counts()["held_back_documents"], source.counts()["held_back_paragraphs"])


@pytest.mark.parametrize(
    ("text", "excluded"),
    [
        ("ok thanks", "OK  Thanks"),
        ("ﬁne café", "fine cafe\u0301"),
        (LONG, LONG.upper()),
        (NEAR, LONG),
        ("one line\nand another", "One line and another"),
        ("one line and another", "One line\nand another"),
    ],
)
def test_equal_and_near_equal_documents_are_removed(text: str, excluded: str) -> None:
    assert decontaminated([OTHER, text], [excluded]) == ([OTHER], (1, 0))
    assert decontaminated([OTHER, text], [excluded], count_only=True) == ([OTHER, text], (1, 0))


@pytest.mark.parametrize("paragraph", [LONG, NEAR, LONG.upper()])
def test_equal_and_near_equal_paragraphs_of_longer_documents_are_removed(paragraph: str) -> None:
    text = f"{OTHER}\n{paragraph}\nThe end.\n{paragraph}"
    assert decontaminated([text], [LONG]) == ([f"{OTHER}\nThe end."], (0, 2))
    assert decontaminated([text], [LONG], count_only=True) == ([text], (0, 2))


def test_text_that_a_document_holds_as_several_paragraphs_is_removed() -> None:
    lines = [OTHER, "The film was short.", "It rained a lot!", "Nobody minded.", "The end."]
    excluded = "the film was short. It rained  a lot! Nobody minded."
    assert decontaminated(["\n".join(lines)], [excluded]) == ([f"{OTHER}\nThe end."], (0, 3))
    assert decontaminated(["\n".join(lines)], [excluded[:-10]])[1] == (0, 0)
    assert decontaminated(["\n".join(lines)], [f"{excluded}\nThe end."])[1] == (0, 4)
    assert decontaminated(["\n".join(lines[2:])], ["It rained a lot"])[1] == (0, 0)


def test_document_without_any_paragraph_left_is_removed() -> None:
    assert decontaminated([f"{LONG}\n{OTHER}"], [LONG, OTHER]) == ([], (0, 2))


def test_merely_similar_texts_stay() -> None:
    texts = [OTHER, "ok thanks a lot", LONG[:40], f"{LONG} {OTHER}"]
    assert decontaminated(texts, [LONG, "ok thanks"]) == (texts, (0, 0))


def test_no_excluded_texts_change_nothing() -> None:
    source = source_of([LONG])
    unchanged = Decontamination([]).apply(source)
    assert unchanged.fingerprint == source.fingerprint
    assert unchanged.counts() == {"held_back_documents": 0, "held_back_paragraphs": 0}


@settings(max_examples=20)
@given(
    st.lists(st.sampled_from([LONG, NEAR, OTHER, "ok", f"ok\n{LONG}", f"{OTHER}\nno"]), max_size=12), st.integers(1, 5)
)
def test_chunk_size_changes_nothing(texts: list[str], chunk_texts: int) -> None:
    expected = decontaminated(texts, [LONG, "ok"])
    assert decontaminated(texts, [LONG, "ok"], chunk_texts=chunk_texts) == expected


def test_each_reading_counts_from_zero() -> None:
    source = Decontamination([LONG]).apply(source_of([LONG, OTHER]))
    for _ in range(3):
        list(source.read())
    assert source.counts()["held_back_documents"] == 1


def build_from(folder: Path, sources: Sequence[DocumentSource]) -> Corpus:
    return build_corpus(sources, corpus_tokenizer_of(load_tokenizer("bert")), Cache(folder, LIMIT))


def test_cached_corpus_still_knows_what_was_removed(tmp_path: Path) -> None:
    for _ in range(2):
        decontamination = Decontamination([LONG])
        found = build_from(tmp_path, [decontamination.apply(source_of([LONG, f"{OTHER}\n{NEAR}", OTHER]))])
        assert (found.facts["held_back_documents"], found.facts["held_back_paragraphs"]) == (1, 1)
        assert found.facts["documents"] == 2


def test_counts_of_several_sources_add_up(tmp_path: Path) -> None:
    decontamination = Decontamination([LONG])
    sources = [decontamination.apply(source_of(texts)) for texts in ([LONG, OTHER], [NEAR, "More text."], ["None."])]
    assert build_from(tmp_path, sources).facts["held_back_documents"] == 2


def test_different_decontaminations_give_different_corpora(tmp_path: Path) -> None:
    source = source_of([LONG, OTHER])
    variants = [
        Decontamination([]),
        Decontamination([LONG]),
        Decontamination([LONG], count_only=True),
        Decontamination([OTHER]),
    ]
    assert len({variant.apply(source).fingerprint for variant in variants}) == 4
    counted = build_from(tmp_path, [variants[2].apply(source)])
    assert (counted.facts["documents"], counted.facts["held_back_documents"]) == (2, 1)


def test_only_one_chunk_is_in_memory() -> None:
    ahead: list[int] = []
    read = yielded = 0
    whole = source_of([f"{OTHER}\n{number}" for number in range(200)])

    def counted() -> Iterator[Document]:
        nonlocal read
        for document in whole.read():
            read += document.characters
            ahead.append(read - yielded)
            yield document

    source = Decontamination([LONG], chunk_characters=1000).apply(replace(whole, read=counted))
    for document in source.read():
        yielded += document.characters
    assert yielded == read
    assert max(ahead) < 2 * (1000 + 2 * len(OTHER))


def test_tables_in_memory_are_documents() -> None:
    texts = ["one\ntwo", None, "three"]
    tables = [{"body": texts}, pd.DataFrame({"body": texts}), pl.DataFrame({"body": texts}), pa.table({"body": texts})]
    sources = [table_source(as_source(table), text="body") for table in tables]
    for source in sources:
        assert [document.paragraphs for document in source.read()] == [("one", "two"), ("three",)]
        assert source.fingerprint == sources[0].fingerprint
    assert sources[1].name == "a pandas DataFrame of 3 rows"
    assert table_source(as_source({"body": ["other"]}), text="body").fingerprint != sources[0].fingerprint
    with pytest.raises(DataError, match="no column 'text'"):
        table_source(as_source(tables[1]))


def test_sources_of_documents_may_be_mixed(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("one")
    given = [tmp_path / "x.txt", as_source({"text": ["two"]})]
    found = document_sources(given, text="text", dialect=Dialect())
    assert [document.paragraphs for source in found for document in source.read()] == [("one",), ("two",)]
