"""A corpus is built once, in shards, with the same content after any interruption and for any number of processes."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.corpora import LIMIT, build_small_corpus, load_tokenizer, make_documents, source_of
from hypothesis import given, settings
from hypothesis import strategies as st

from fullbake.core import ranks, runtime
from fullbake.core.cache import Cache
from fullbake.core.errors import DataError, SpaceFault
from fullbake.pretraining.corpus import ARRAYS, Corpus, Shard, build_corpus, hold_out, read_shard
from fullbake.pretraining.data_loader import CorpusLoader, ReadingOrder
from fullbake.pretraining.documents import Document, DocumentSource, file_source
from fullbake.pretraining.forgetting import corpus_tokenizer_of, make_phase

TEXTS = make_documents(60)


SMALL: Any = {"shard_characters": 1500, "chunk_characters": 400}
"""Shards of about ten documents each, tokenized in chunks of two or three."""


def arrays(corpus: Corpus) -> list[dict[str, list[Any]]]:
    return [{name: getattr(shard, name).tolist() for name in ARRAYS} for shard in corpus.shards]


def test_shards_and_counts_of_a_corpus(tmp_path: Path) -> None:
    corpus = build_small_corpus(tmp_path, TEXTS, **SMALL)
    assert len(corpus.shards) > 5
    sentences = sum(len(shard.sentence_ends) - 1 for shard in corpus.shards)
    tokens = sum(len(shard.input_ids) for shard in corpus.shards)
    assert corpus.facts["documents"] == len(TEXTS) == sum(len(shard.documents()) for shard in corpus.shards)
    assert (corpus.facts["sentences"], corpus.facts["tokens"]) == (sentences, tokens)
    assert corpus.facts["words"] == sum(int(shard.word_starts.sum()) for shard in corpus.shards) < tokens
    single = sum(last - first == 1 for shard in corpus.shards for first, last in shard.documents())
    assert corpus.facts["single_sentence_documents"] == single > 0
    for shard in corpus.shards:
        assert isinstance(shard.input_ids, np.memmap)
        assert shard.input_ids.dtype == np.uint16
        assert shard.sentence_ends[-1] == len(shard.input_ids) == len(shard.word_starts)
        assert shard.document_ends[-1] == len(shard.sentence_ends) - 1
        assert (np.diff(shard.sentence_ends) > 0).all()


def test_one_process_and_two_build_the_same_corpus(tmp_path: Path) -> None:
    alone = build_small_corpus(tmp_path / "one", TEXTS, processes=1, **SMALL)
    both = build_small_corpus(tmp_path / "two", TEXTS, processes=2, **SMALL)
    assert arrays(alone) == arrays(both)
    assert (alone.fingerprint, alone.facts) == (both.fingerprint, both.facts)


@pytest.mark.parametrize("readers", [2, 3])
def test_any_number_of_readers_builds_the_same_corpus_in_the_same_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, readers: int
) -> None:
    """The processes of a training are taken one after the other here; the first one comes last."""
    alone = build_small_corpus(tmp_path / "one", TEXTS, **SMALL)
    monkeypatch.setattr(runtime, "world_size", lambda: readers)
    monkeypatch.setattr(ranks, "wait_for_ranks", lambda: None)
    monkeypatch.setattr(ranks, "true_on_all_ranks", lambda mine: mine)
    monkeypatch.setattr(ranks, "gather_json", lambda mine: [mine])
    stored: list[str] = []
    store = Cache.store
    monkeypatch.setattr(Cache, "store", lambda cache, key, *rest: stored.append(key[-5:]) or store(cache, key, *rest))
    for reader in reversed(range(readers)):
        monkeypatch.setattr(runtime, "rank", lambda reader=reader: reader)
        if reader:
            with pytest.raises(SpaceFault):  # not all shards are there yet
                build_small_corpus(tmp_path / "together", TEXTS, **SMALL)
            assert stored[-1].isdigit()
            assert {int(key) % readers for key in stored if key.isdigit()} == {reader}
            stored.clear()
    together = build_small_corpus(tmp_path / "together", TEXTS, **SMALL)
    assert {int(key) % readers for key in stored if key.isdigit()} == {0}
    assert arrays(together) == arrays(alone)
    assert (together.fingerprint, together.facts) == (alone.fingerprint, alone.facts)
    phases = [make_phase(load_tokenizer("bert"), 0, 24)]
    order = ReadingOrder("mlm+sop", 4, None, 128, 0.1, 7)
    plans = [CorpusLoader(corpus, hold_out(corpus, 0.1)[0], phases, order) for corpus in (alone, together)]
    steps = [_rows(loader) for loader in plans]
    assert steps[0] == steps[1]
    assert len(steps[0]) > 10


def _rows(loader: CorpusLoader) -> list[list[int]]:
    counted = CorpusLoader(loader.corpus, loader.documents, [replace(loader.phases[0], steps=20)], loader.order)
    return [step.rows.tolist() for step in counted.plan(0, 20)]


def test_interrupted_build_continues_with_the_first_missing_shard(tmp_path: Path) -> None:
    whole = build_small_corpus(tmp_path / "whole", TEXTS, **SMALL)
    cache = Cache(tmp_path / "c", LIMIT)
    with pytest.raises(KeyboardInterrupt):
        build_corpus([interrupted(source_of(TEXTS), 40)], corpus_tokenizer_of(load_tokenizer("bert")), cache, **SMALL)
    kept = {path.name: path.stat().st_ino for path in (tmp_path / "c").iterdir() if path.is_dir()}
    assert 2 < len(kept) < len(whole.shards)
    again = build_small_corpus(tmp_path / "c", TEXTS, **SMALL)
    assert all((tmp_path / "c" / name).stat().st_ino == inode for name, inode in kept.items())
    assert arrays(again) == arrays(whole)
    assert again.facts == whole.facts


def interrupted(source: DocumentSource, after: int) -> DocumentSource:
    """Return a source that raises KeyboardInterrupt after so many documents."""

    def read() -> Iterator[Document]:
        for number, document in enumerate(source.read()):
            if number == after:
                raise KeyboardInterrupt
            yield document

    return replace(source, read=read)


def test_only_one_shard_of_text_is_in_memory(tmp_path: Path) -> None:
    ahead: list[int] = []

    def read() -> Iterator[Document]:
        for text in TEXTS:
            done = sum(path.is_dir() for path in tmp_path.glob("*-0*"))
            ahead.append(len(text) + (ahead[-1] if ahead and done == read.done else 0))  # type: ignore[attr-defined]
            read.done = done  # type: ignore[attr-defined]
            yield Document("here", (text,))

    read.done = 0  # type: ignore[attr-defined]
    source = DocumentSource("x", "x", read)
    build_corpus([source], corpus_tokenizer_of(load_tokenizer("bert")), Cache(tmp_path, LIMIT), **SMALL)
    assert max(ahead) < 1500 + max(map(len, TEXTS))


def test_cached_corpus_is_not_read_again(tmp_path: Path) -> None:
    first = build_small_corpus(tmp_path, TEXTS, **SMALL)
    source = replace(source_of(TEXTS), read=lambda: pytest.fail("read again"))
    again = build_corpus([source], corpus_tokenizer_of(load_tokenizer("bert")), Cache(tmp_path, LIMIT), **SMALL)
    assert arrays(again) == arrays(first)


def test_damaged_shard_is_built_again(tmp_path: Path) -> None:
    first = build_small_corpus(tmp_path, TEXTS, **SMALL)
    expected = arrays(first)
    place = tmp_path / f"{first.fingerprint}-00002" / "input_ids.npy"
    place.write_bytes(place.read_bytes()[:-1] + b"\x01")
    assert arrays(build_small_corpus(tmp_path, TEXTS, **SMALL)) == expected


def test_fingerprint_depends_on_sources_tokenizer_language_and_shard_size(tmp_path: Path) -> None:
    cache, tokenizer = Cache(tmp_path, LIMIT), corpus_tokenizer_of(load_tokenizer("bert"))
    other = corpus_tokenizer_of(load_tokenizer("albert"))
    found = [
        build_corpus(sources, tokenizer, cache).fingerprint
        for sources, tokenizer in [
            ([source_of(TEXTS)], tokenizer),
            ([source_of(TEXTS[1:])], tokenizer),
            ([source_of(TEXTS)], replace(tokenizer, language="de")),
            ([source_of(TEXTS)], other),
            ([source_of(TEXTS[:1]), source_of(TEXTS[1:])], tokenizer),
        ]
    ]
    found.append(build_corpus([source_of(TEXTS)], tokenizer, cache, shard_characters=1500).fingerprint)
    assert len(set(found)) == len(found)


def test_counts_of_the_sources_stay_with_the_corpus(tmp_path: Path) -> None:
    sources = [replace(source_of(TEXTS[:9]), counts=lambda: {"odd": 3}), source_of(TEXTS[9:])]
    sources.append(replace(source_of(["more text"]), counts=lambda: {"odd": 4}))
    cache, tokenizer = Cache(tmp_path, LIMIT), corpus_tokenizer_of(load_tokenizer("bert"))
    assert build_corpus(sources, tokenizer, cache).facts["odd"] == 7
    fresh = [replace(source, counts=dict) for source in sources]
    assert build_corpus(fresh, tokenizer, cache).facts["odd"] == 7


def test_parts_of_a_document_count_as_one(tmp_path: Path) -> None:
    parts = [Document("x", ("One.",)), Document("x", ("Two.",), continues=True), Document("x", ("Three.",))]
    source = DocumentSource("x", "x", lambda: iter(parts))
    corpus = build_corpus([source], corpus_tokenizer_of(load_tokenizer("bert")), Cache(tmp_path, LIMIT))
    assert corpus.facts["documents"] == 2


def test_large_vocabularies_get_wider_ids(tmp_path: Path) -> None:
    tokenizer = load_tokenizer("bert")
    tokenizer.add_tokens([f"new{number}" for number in range(70_000)])
    shard, _ = read_shard(source_of(["new69999 good"]), corpus_tokenizer_of(tokenizer))
    assert shard.input_ids.tolist() == tokenizer("new69999 good", add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("content", ["", "\n\n \n"])
def test_corpus_without_text_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "empty.txt"
    path.write_text(content)
    tokenizer = corpus_tokenizer_of(load_tokenizer("bert"))
    with pytest.raises(DataError, match=r"empty\.txt: there is no text"):
        build_corpus([file_source(path)], tokenizer, Cache(tmp_path / "c", LIMIT))
    with pytest.raises(DataError, match=r"empty\.txt: there is no text"):
        read_shard(file_source(path), tokenizer)


def test_corpus_larger_than_its_cache_is_refused_before_all_is_read(tmp_path: Path) -> None:
    whole = build_small_corpus(tmp_path / "whole", TEXTS, **SMALL)
    one = max(entry.size for entry in Cache(tmp_path / "whole", LIMIT).entries())
    read: list[int] = []

    def counted() -> Iterator[Document]:
        for number, document in enumerate(source_of(TEXTS).read()):
            read.append(number)
            yield document

    source = replace(source_of(TEXTS), read=counted)
    with pytest.raises(SpaceFault, match="does not fit into its cache"):
        build_corpus([source], corpus_tokenizer_of(load_tokenizer("bert")), Cache(tmp_path / "c", 2 * one), **SMALL)
    assert len(whole.shards) > 4
    assert len(read) < len(TEXTS) * 0.8


def test_bad_byte_far_down_is_an_error_with_its_place_and_earlier_shards_stay(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_bytes(b"A fine line.\n\n" * 20_000 + b"caf\xe9\n")
    with pytest.raises(DataError, match=r"x\.txt, line 40001, byte 280003"):
        build_corpus(
            [file_source(path)],
            corpus_tokenizer_of(load_tokenizer("bert")),
            Cache(tmp_path / "c", LIMIT),
            shard_characters=100_000,
        )
    assert sum(folder.is_dir() for folder in (tmp_path / "c").iterdir()) == 2


# Holding out documents


def corpus_of(documents: list[list[int]], hashes: list[int] | None = None) -> Corpus:
    """Return a corpus of documents, each given as the numbers of tokens of its sentences."""
    lengths = [length for document in documents for length in document]
    counts = [len(document) for document in documents]
    ends = np.cumsum([0, *lengths])
    drawn = np.random.Generator(np.random.PCG64(0)).integers(0, 2**62, len(documents)) if hashes is None else hashes
    shard = Shard(
        np.zeros(ends[-1], np.uint16),
        np.ones(ends[-1], bool),
        ends,
        np.cumsum([0, *counts]),
        np.array(drawn, np.uint64),
    )
    return Corpus((shard,), "x", {"tokens": int(ends[-1])})


def size(corpus: Corpus, spans: list[tuple[int, int]]) -> int:
    ends = corpus.shards[0].sentence_ends
    return sum(int(ends[last] - ends[first]) for first, last in spans)


@settings(max_examples=200)
@given(
    st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=6), min_size=2, max_size=40),
    st.floats(0.01, 0.9),
    st.integers(0, 10),
)
def test_each_sentence_is_on_exactly_one_side(documents: list[list[int]], share: float, distinct: int) -> None:
    hashes = [number % (distinct + 1) for number in range(len(documents))] if distinct else None
    corpus = corpus_of(documents, hashes)
    ((train,), (held_out,)) = hold_out(corpus, share)
    sentences = sorted(number for span in (*train, *held_out) for number in range(*span))
    assert sentences == list(range(len(corpus.shards[0].sentence_ends) - 1))
    assert train
    assert held_out


def test_held_out_share_is_close_to_the_requested_one_and_never_more() -> None:
    corpus = corpus_of([[10] * 5] * 400)
    for share in (0.01, 0.05, 0.3):
        assert share * 0.9 < size(corpus, hold_out(corpus, share)[1][0]) / 20_000 <= share


def test_held_out_tokens_are_limited() -> None:
    many, book = corpus_of([[10] * 5] * 400), corpus_of([[10] * 2000])
    assert 200 < size(many, hold_out(many, 0.3, max_tokens=300)[1][0]) <= 300
    assert 200 < size(book, hold_out(book, 0.3, max_tokens=300)[1][0]) <= 300


def test_equal_texts_are_on_one_side_and_frequent_ones_are_not_held_out() -> None:
    hashes = [number // 2 for number in range(600)] + [0] * 400
    corpus = corpus_of([[10]] * 1000, hashes)
    ((train,), (held_out,)) = hold_out(corpus, 0.1)
    assert {hashes[first] for first, _ in train}.isdisjoint(hashes[first] for first, _ in held_out)
    assert 80 <= len(held_out) <= 100


def test_order_of_the_corpus_does_not_change_what_is_held_out() -> None:
    documents, hashes = [[number % 7 + 1] for number in range(200)], [number * 7919 % 1009 for number in range(200)]
    ((_,), (held_out,)) = hold_out(corpus_of(documents, hashes), 0.1)
    ((_,), (other,)) = hold_out(corpus_of(documents[::-1], hashes[::-1]), 0.1)
    assert {hashes[first] for first, _ in held_out} == {hashes[::-1][first] for first, _ in other}


def test_end_of_a_single_book_is_held_out() -> None:
    assert hold_out(corpus_of([[10] * 100]), 0.05) == ([[(0, 95)]], [[(95, 100)]])
    assert hold_out(corpus_of([[10] * 2]), 0.9) == ([[(0, 1)]], [[(1, 2)]])
    twice = hold_out(corpus_of([[10] * 100, [30], [10] * 100], [7, 8, 7]), 0.005)
    assert twice == ([[(0, 99), (100, 101), (101, 200)]], [[(99, 100), (200, 201)]])


def test_one_of_a_handful_of_posts_is_held_out() -> None:
    ((train,), (held_out,)) = hold_out(corpus_of([[5]] * 8), 0.05)
    assert (len(train), len(held_out)) == (7, 1)


@pytest.mark.parametrize(("documents", "hashes"), [([[5]], [1]), ([[5], [5], [5]], [1, 1, 1])])
def test_one_sentence_is_too_little_to_hold_out_from(documents: list[list[int]], hashes: list[int]) -> None:
    with pytest.raises(DataError, match="the corpus is too small"):
        hold_out(corpus_of(documents, hashes), 0.05)
